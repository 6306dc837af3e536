"""A checkpoint that ships with the project: the weights, what gives them a meaning, nothing of the training's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiment.trained import Trained
from training.checkpoint import Checkpoint, load_weights

#: of what a checkpoint says of itself; and what of its configuration is a place on a machine
KEPT = ("config", "task", "normalizer", "elements", "range", "source", "split", "split_sha256", "versions")
PATHS = (("data", "file"), ("data", "split_file"), ("run", "output"), ("run", "log_file"), ("run", "ckpt_file"))


def shipped_checkpoint(trained: Trained, more: Mapping[str, Any]) -> Checkpoint:
    """The weights to evaluate with: the moving average where there is one.

    Args:
        trained: the model.
        more: entries for what the checkpoint says of itself.
    """
    kept = {key: trained.information[key] for key in KEPT if key in trained.information}
    config = {section: dict(values) for section, values in kept["config"].items()}
    for section, key in PATHS:
        config[section][key] = Path(config[section].get(key, "")).name
    return Checkpoint(load_weights(trained.file).weights, information={**kept, "config": config, **more})
