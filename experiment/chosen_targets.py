"""``eval.py --target``: some of the targets of models that predict several."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from configs.loading import ConfigError
from experiment.several_models import Ensemble
from experiment.trained import Trained

Models = TypeVar("Models", Trained, Ensemble)


def with_targets(models: Models, words: str | None) -> Models:
    """A model, or an ensemble, with the targets that an option names.

    Args:
        models: what was read.
        words: of ``--target``; None: all targets.

    Raises:
        ConfigError: it has no such target.
    """
    if words is None:
        return models
    lead = models if isinstance(models, Trained) else models.lead
    return models.only(places_of(words, [task.target.name for task in lead.task.every]))


def places_of(words: str, names: Sequence[str]) -> list[int]:
    """Where the targets of ``--target``, with commas between them, stand among those that there are.

    Raises:
        ConfigError: one is not there, or is named twice; or none is named.
    """
    wanted = [word.strip() for word in words.split(",")]
    for name in wanted:
        if name not in names:
            listed = ("one or more of " if len(names) > 1 else "") + ", ".join(names)
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"--target {words}: expected {listed}, got {name!r}{hint}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"--target {words}: expected each target once; leave one out")
    return [names.index(name) for name in wanted]
