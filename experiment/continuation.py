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
from data_tools.labels.splits import digest, stored_digest
from data_tools.source_files import same_content
from experiment.run_folder import SPLIT
from training import checkpoint as checkpoints
from training.loop import Trainer

log = logging.getLogger("geospore")


def check_continuation(
    config: Config, dataset: data.Dataset, task: data.Task, previous: checkpoints.Checkpoint, folder: Path
) -> None:
    """Whether a run can be continued so: another task, model, seed, data set or split would spoil it unnoticed.

    Args:
        config: what it would continue with.
        dataset: its data, as they are now.
        task: resolved.
        previous: its newest checkpoint.
        folder: of the run.

    Raises:
        ConfigError: keys differ that make it another run.
        DataError: the data or the split are not those of the run.
    """
    information = previous.information
    then, now = config_to_dict(config_from_dict(information["config"], str(folder))), config_to_dict(config)
    then["target"], now["target"] = information["task"], task.to_dict()
    check_resume(then, now, str(folder))
    if then["training"]["pretrained"] != now["training"]["pretrained"] and now["training"]["pretrained"]:
        log.info("training.pretrained has no effect: the run has begun already")
    source = dataset.packed.table.source
    if not same_content(information.get("source", ""), source):
        raise DataError(
            f"--resume {folder}: the data are not those of the run: {source} now, {information.get('source')} then; "
            f"other or more data need a new run, from these weights with --set training.pretrained={folder}"
        )
    stored = information.get("split_sha256") or stored_digest(folder / SPLIT)
    if stored and stored != digest(dataset.split):
        raise DataError(
            f"--resume {folder}: the split is not that of the run, which would test on structures it has trained on; "
            "begin a new run, or use the version of the program that began this one"
        )


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
