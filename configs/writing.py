"""A configuration back to plain values and to YAML."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from configs.schema import Config


def config_to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dictionary of a configuration, complete."""
    return dataclasses.asdict(config)


def config_to_yaml(config: Config) -> str:
    """The complete configuration as YAML that ``load_config`` reads."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
