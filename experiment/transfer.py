"""A run that begins with the weights of another one: what it takes, what begins anew, and what stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mindspore import nn

from configs.loading import ConfigError
from configs.rules import words_of
from configs.schema import Config, TrainingConfig
from data_tools import dataset as data
from data_tools.source_files import sha256_of
from models.parts import HEAD, chosen, parts_of
from training import checkpoint as checkpoints
from training.weights import assign, kept_parameters

log = logging.getLogger("geospore")
NONE = "none"


def begin_from(
    model: nn.Cell, config: Config, task: data.Task, elements: Sequence[int], resumed: bool
) -> dict[str, str] | None:
    """Give a network the weights of ``training.pretrained``, but for what begins anew, and freeze what stays.

    Args:
        model: the network.
        config: of the run.
        task: that it will learn.
        elements: atomic numbers in its training structures.
        resumed: whether the weights come from a checkpoint of the run itself.

    Returns:
        ``file`` and ``sha256`` of the pretrained checkpoint, for the run's provenance; None where none was read.

    Raises:
        CheckpointError: it cannot be used, or belongs to another architecture.
        ConfigError: ``training.fresh`` or ``training.freeze`` names no part of the network, or all of it; or the
            checkpoint is of another kind of model.
    """
    origin = None if resumed or not config.training.pretrained else _take(model, config, task, elements)
    _freeze(model, config.training)
    return origin


def _take(model: nn.Cell, config: Config, task: data.Task, elements: Sequence[int]) -> dict[str, str]:
    """Read the weights of ``training.pretrained``; returns the file and its checksum."""
    training, name = config.training, config.model.name
    file = checkpoints.find(training.pretrained)
    found = checkpoints.load_weights(file)
    stored = found.information.get("config") or {}
    other = (stored.get("model") or {}).get("name", name)
    if other != name:
        raise ConfigError(
            f"training.pretrained {training.pretrained}: expected weights of a model {name} as the configuration has, "
            f"got those of {other}; give other weights or another model.name"
        )
    parameters = kept_parameters(model)
    words = _fresh_words(training.fresh, found.information, task)
    fresh = _chosen("training.fresh", {**parameters, **found.weights}, words)
    if training.fresh and parameters.keys() <= fresh:
        raise ConfigError(
            f"training.fresh {training.fresh}: expected a part that is taken from training.pretrained, all is new; "
            "name fewer, or leave both out"
        )
    taken = {name: values for name, values in found.weights.items() if name not in fresh}
    assign(model, taken, training.pretrained, parameters.keys() & fresh)
    sizes = {name: parameter.size for name, parameter in parameters.items()}
    log.info("taken from %s: %s", training.pretrained, _in_words(sizes, parameters.keys() - fresh))
    if fresh:
        log.info("new: %s", _in_words(sizes, parameters.keys() & fresh))
    unknown = sorted(set(elements) - set(found.information.get("elements", elements)))
    if unknown:
        log.info("elements that those weights have not learned: %s", data.symbols(unknown))
    return {"file": str(file), "sha256": sha256_of(file)}


def _freeze(model: nn.Cell, training: TrainingConfig) -> None:
    """Let the parameters of ``training.freeze`` stay as they are."""
    trained = {parameter.name: parameter for parameter in model.trainable_params()}
    frozen = _chosen("training.freeze", trained, words_of(training.freeze))
    if not frozen:
        return
    if len(frozen) == len(trained):
        raise ConfigError(f"training.freeze {training.freeze}: expected a part that is left to train, all is frozen")
    for name in frozen:
        trained[name].requires_grad = False
    log.info("frozen: %s", _in_words({name: one.size for name, one in trained.items()}, frozen))


def _fresh_words(text: str, information: Mapping[str, Any], task: data.Task) -> list[str]:
    """The words of ``training.fresh``; without any the head, where the checkpoint predicts something else."""
    if text:
        return [] if text == NONE else words_of(text)
    before = information.get("task") or {}
    same = not before or _predicted(before) == _predicted(task.to_dict())
    return [] if same else [HEAD]


def _predicted(task: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Target and readout of each output, of what a checkpoint says of its task."""
    return [(one.get("name"), one.get("readout")) for one in (task, *task.get("others", ()))]


def _chosen(key: str, names: Iterable[str], words: list[str]) -> set[str]:
    try:
        return chosen(names, words)
    except ValueError as error:
        raise ConfigError(f"{key} {error}") from None


def _in_words(sizes: Mapping[str, int], names: Collection[str]) -> str:
    """Parts and the number of their parameters; ``of`` where a part is there in part."""
    every, these = parts_of(sizes), parts_of(names)
    words = [part if len(these[part]) == len(every[part]) else f"some of {part}" for part in every if part in these]
    return f"{', '.join(words)} ({sum(sizes[name] for name in names):,} parameters)" if words else "nothing"
