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
from models.parts import EMBEDDING, HEAD, chosen, part_of, parts_of
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
        ConfigError: ``training.fresh`` or ``training.freeze`` names no part of the network, or all of it, or both
            name the same; or the checkpoint is of another kind of model.
    """
    if resumed or not config.training.pretrained:
        _freeze(model, config.training)
        return None
    origin, fresh, unknown = _take(model, config, task, elements)
    frozen = _freeze(model, config.training)
    if both := fresh & frozen:
        part = part_of(min(both))
        raise ConfigError(
            f"training.freeze {config.training.freeze}: expected what training.pretrained gives, but {part} begins "
            f"anew and would stay as random as it begins; leave it out, or take it with training.fresh={NONE}"
        )
    if unknown and any(part_of(name) == EMBEDDING for name in frozen):
        log.warning(
            "warning: training.freeze %s: what the network knows of %s stays as random as it began; leave %s out of "
            "training.freeze",
            config.training.freeze, data.symbols(unknown), EMBEDDING,
        )  # fmt: skip
    return origin


def _take(
    model: nn.Cell, config: Config, task: data.Task, elements: Sequence[int]
) -> tuple[dict[str, str], set[str], list[int]]:
    """Read the weights of ``training.pretrained``.

    Returns:
        The file and its checksum, the parameters that begin anew, and the elements that those weights have not learned.
    """
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
    return {"file": str(file), "sha256": sha256_of(file)}, parameters.keys() & fresh, unknown


def _freeze(model: nn.Cell, training: TrainingConfig) -> set[str]:
    """Let the parameters of ``training.freeze`` stay as they are; returns their names."""
    trained = {parameter.name: parameter for parameter in model.trainable_params()}
    frozen = _chosen("training.freeze", trained, words_of(training.freeze))
    if not frozen:
        return set()
    if len(frozen) == len(trained):
        raise ConfigError(f"training.freeze {training.freeze}: expected a part that is left to train, all is frozen")
    for name in frozen:
        trained[name].requires_grad = False
    log.info("frozen: %s", _in_words({name: one.size for name, one in trained.items()}, frozen))
    return frozen


def _fresh_words(text: str, information: Mapping[str, Any], task: data.Task) -> list[str]:
    """The words of ``training.fresh``; without any the head, where the checkpoint predicts something else."""
    if text:
        return [] if text == NONE else words_of(text)
    before = information.get("task") or {}
    same = not before or _predicted(before) == _predicted(task.to_dict())
    return [] if same else [HEAD]


def _predicted(task: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Target, readout and, of a user's own property, unit of each output, of what a checkpoint says of its task."""
    return [
        (one.get("name"), one.get("readout"), one.get("property") and one.get("unit"))
        for one in (task, *task.get("others", ()))
    ]


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
