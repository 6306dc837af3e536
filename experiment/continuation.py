"""A run that goes on: its newest checkpoint, and whether what it would continue with is still the same run."""

from __future__ import annotations

import logging
from pathlib import Path

from configs.loading import config_from_dict
from configs.rules import check_resume
from configs.schema import Config
from configs.writing import config_to_dict
from data_tools import dataset as data
from data_tools.graph import DataError
from data_tools.labels.split_sizes import SIZES
from data_tools.labels.splits import digest, stored_digest
from data_tools.source_files import same_content
from experiment.resolve import task_of, with_names
from experiment.run_folder import SPLIT
from training import checkpoint as checkpoints
from training.loop import Trainer

log = logging.getLogger("geospore")


def check_same_data(
    config: Config, task: data.Task, source: str, previous: checkpoints.Checkpoint | None, folder: Path
) -> None:
    """A run goes on with the data that it began with; keys that make it another run are named first.

    Args:
        config: what it would continue with, as it was given.
        task: resolved.
        source: of the data, as they are now.
        previous: the run's newest checkpoint; None for a new run.
        folder: of the run.

    Raises:
        ConfigError: keys differ that make it another run.
        DataError: the data are others.
    """
    if previous is None:
        return
    _compare_keys(with_names(config, task), task, previous, folder, sizes=False)
    then = previous.information.get("source", "")
    if not same_content(then, source):
        raise DataError(
            f"--resume {folder}: the data are not those of the run: {source} now, {then} then; "
            f"other or more data need a new run, from these weights with --set training.pretrained={folder}"
        )


def check_continuation(
    config: Config, dataset: data.Dataset, task: data.Task, previous: checkpoints.Checkpoint | None, folder: Path
) -> None:
    """Whether a run can be continued so: another task, model, seed or split would spoil it unnoticed.

    Both configurations are compared without ``auto``, whichever version of the program has stored the earlier one, and
    sizes of the split only where the splits differ.

    Args:
        config: what it would continue with, resolved.
        dataset: its data, as they are now.
        task: resolved.
        previous: its newest checkpoint; None for a new run.
        folder: of the run.

    Raises:
        ConfigError: keys differ that make it another run.
        DataError: the split is not that of the run.
    """
    if previous is None:
        return
    information, pretrained = previous.information, config.training.pretrained
    stored = information.get("split_sha256") or stored_digest(folder / SPLIT)
    same_split = stored in ("", digest(dataset.split))
    _compare_keys(config, task, previous, folder, sizes=not same_split)
    if pretrained and pretrained != information["config"]["training"].get("pretrained", ""):
        log.info("training.pretrained has no effect: the run has begun already")
    if not same_split:
        raise DataError(
            f"--resume {folder}: the split is not that of the run, which would test on structures it has trained on; "
            "begin a new run, or use the version of the program that began this one"
        )


def _compare_keys(config: Config, task: data.Task, previous: checkpoints.Checkpoint, folder: Path, sizes: bool) -> None:
    """Keys that make it another run are refused by name.

    Args:
        config: what would go on, without ``auto``.
        task: resolved.
        previous: the run's newest checkpoint.
        folder: of the run.
        sizes: whether those of the split are compared too; before the data are read they may be fractions or 0 for all.

    Raises:
        ConfigError: they differ.
    """
    information = previous.information
    earlier = config_from_dict(information["config"], str(folder))
    then, now = config_to_dict(with_names(earlier, task_of(information["task"]))), config_to_dict(config)
    then["target"], now["target"] = information["task"], task.to_dict()
    if not sizes:
        then["data"] |= {name: now["data"][name] for name in SIZES}
    check_resume(then, now, str(folder))


def resume(trainer: Trainer, previous: checkpoints.Checkpoint, damaged: list[str]) -> None:
    """Put a trainer where a checkpoint says that its run stands.

    Args:
        trainer: of the run.
        previous: its newest checkpoint that is whole.
        damaged: what was wrong with newer ones.

    Raises:
        CheckpointError: the checkpoint lacks the state of the optimiser.
    """
    for words in damaged:
        log.warning("skipped a checkpoint: %s", words)
    trainer.restore(previous)
    log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
