"""A run that goes on: its newest checkpoint, and whether what it would continue with is still the same run."""

from __future__ import annotations

import logging

from configs.loading import config_from_dict
from configs.rules import check_resume
from configs.schema import Config
from configs.writing import config_to_dict
from data_tools.dataset import Task
from data_tools.graph import DataError
from data_tools.labels.split_sizes import SIZES
from data_tools.labels.splits import stored_digest
from data_tools.labels.tasks import task_of
from data_tools.source_files import same_content
from experiment.resolve import AVERAGES, Begun, with_names
from experiment.run_folder import SPLIT, RunFolder
from training import checkpoint as checkpoints

log = logging.getLogger("geospore")


def continued(config: Config, task: Task, source: str, place: RunFolder) -> Begun | None:
    """What a run began with, where it goes on: another task, model, seed or data would spoil it unnoticed.

    Both configurations are compared without ``auto``, whichever version of the program has stored the earlier one.
    Keys that make it another run are named before its data are compared.  Sizes of the split may be fractions here, or
    0 for all: ``resolve`` compares them.

    Args:
        config: what it would continue with, as it was given.
        task: resolved.
        source: of the data, as they are now.
        place: of the run.

    Returns:
        None for a new run.

    Raises:
        CheckpointError: there is none that is whole.
        ConfigError: keys differ that make it another run.
        DataError: the data are others.
    """
    if not place.resume:
        return None
    folder = place.path
    checkpoint = checkpoints.newest(folder, lambda words: log.warning("skipped a checkpoint: %s", words))
    information = checkpoint.information
    earlier = config_from_dict(information["config"], str(folder))
    then = config_to_dict(with_names(earlier, task_of(information["task"])))
    now = config_to_dict(with_names(config, task))
    now["model"] |= {name: then["model"].get(name) for name in AVERAGES if now["model"].get(name) == 0}
    then["target"], now["target"] = information["task"], task.to_dict()
    sizes = {name: then["data"][name] for name in SIZES}
    then["data"] |= {name: now["data"][name] for name in SIZES}
    check_resume(then, now, str(folder))
    source_then = information.get("source", "")
    if not same_content(source_then, source):
        raise DataError(
            f"--resume {folder}: the data are not those of the run: {source} now, {source_then} then; "
            f"other or more data need a new run, from these weights with --set training.pretrained={folder}"
        )
    pretrained = config.training.pretrained
    if pretrained and pretrained != information["config"]["training"].get("pretrained", ""):
        log.info("training.pretrained has no effect: the run has begun already")
    return Begun(folder, checkpoint, information.get("split_sha256") or stored_digest(folder / SPLIT), sizes)
