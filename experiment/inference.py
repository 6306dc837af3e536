"""A training program asked to infer: the test structures of a configuration, measured with a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np

from configs.loading import ConfigError
from configs.schema import Config
from data_tools import dataset as data
from data_tools.labels.targets import label_values
from experiment.data import open_packed, resolve_task
from experiment.evaluation.evaluator import Labelled
from experiment.measurement import measure, write_measurement
from experiment.named_files import open_log_file
from experiment.provenance import Command, command_lines
from experiment.report import log_test_error, tables_of_tasks
from experiment.resolve import AVERAGES, split_of
from experiment.run_folder import RunFolder
from experiment.run_log import log_to
from experiment.selection import Selection, select
from experiment.summary import describe_irreps, log_scale
from experiment.trained import Trained, load_trained
from training.checkpoint import BEST, LAST

log = logging.getLogger("geospore")
INFER, LOG = "infer", "infer.log"  # the value of run.run_mode, and a file in the run folder
#: keys of a configuration that hold for a model that has been trained
KEPT = (
    "run.mode", "run.device_target", "run.device_id", "run.dtype", "run.amp_level", "training.eval_batch_size",
)  # fmt: skip
SOURCES = ("file", "train_file", "test_file")  # of the section data


def infer(config: Config, place: RunFolder, command: Command) -> None:
    """Measure a checkpoint on the test structures of a configuration, and write predictions and metrics.

    Args:
        config: with ``run.ckpt_file``; weights that a job has brought (``training.pretrained``) come first.
        place: where the results go.
        command: that was given.

    Raises:
        ConfigError: no checkpoint is named, or it is of another model or target than the configuration.
        CheckpointError, DataError: it, or the data, cannot be used.
    """
    started = time.perf_counter()
    path = config.training.pretrained or config.run.ckpt_file
    if not path:
        raise ConfigError("run.run_mode=infer: expected a checkpoint or a run folder, give run.ckpt_file")
    if any((place.path / name).is_file() for name in (BEST, LAST)):
        raise ConfigError(f"{place.path}: a run is there, whose files stay; give another --output")
    for line in command_lines(command):
        log.info("%s", line)
    log.info("Initializing model...")
    trained = load_trained(path, _changes(config))
    _check_same(trained, config, path)
    describe_irreps(trained.config)
    log.info("Loading data...")
    log_scale(trained.normalizer, trained.task)
    chosen = _chosen(trained, config)
    measured = measure(trained, chosen)
    place.begin(lambda stage: None)
    open_log_file(config.run)
    log_to(place.path / LOG, fresh=True)
    write_measurement(place.path, trained, chosen, measured, command)
    for task, table in tables_of_tasks(trained.task, measured.tables):
        if table:
            log_test_error(table["model"], task, time.perf_counter() - started, bool(trained.task.others))


def _changes(config: Config) -> list[tuple[str, str]]:
    """What of the configuration takes the place of the checkpoint's."""
    pairs = (key.split(".") for key in KEPT)
    changes = [(f"{section}.{name}", str(getattr(getattr(config, section), name))) for section, name in pairs]
    contraction = getattr(config.model, "ncon_dtype", None)
    return changes if contraction is None else [*changes, ("model.ncon_dtype", contraction)]


def _check_same(trained: Trained, config: Config, path: str) -> None:
    """Refuse the checkpoint of another model or target: its errors would not be those that were asked for."""
    ours, theirs = dataclasses.asdict(config.model), dataclasses.asdict(trained.config.model)
    wrong = [f"model.{key} {ours[key]!r} instead of {theirs.get(key)!r}" for key in ours
             if ours[key] not in (theirs.get(key), data.AUTO) and key != "ncon_dtype"
             and not (key in AVERAGES and ours[key] == 0) and key != "outputs"]  # fmt: skip
    readout = config.target.readout
    if readout not in (trained.task.readout, data.AUTO):
        wrong.append(f"target.readout {readout!r} instead of {trained.task.readout!r}")
    target, other = (", ".join(task.target.name for task in one.every) for one in (resolve_task(config), trained.task))
    if target != other:
        wrong.append(f"target.name {target!r} instead of {other!r}")
    if wrong:
        raise ConfigError(f"{path}: the checkpoint is of another model: {'; '.join(wrong)}; change the configuration")


def _chosen(trained: Trained, config: Config) -> Selection:
    """The test structures of the data that the configuration names."""
    settings, own = config.data, trained.config.data
    if "converted_from" in trained.information:  # no run has divided its data
        return _divided_anew(trained, config)
    if all(getattr(settings, name) == getattr(own, name) for name in SOURCES):
        return select(trained, None, "test", None)
    if settings.test_file:
        return select(trained, settings.test_file, "all", None)
    return select(trained, settings.file, "test", None)


def _divided_anew(trained: Trained, config: Config) -> Selection:
    """The test rows of the split that the configuration names."""
    packed = open_packed(config)
    split = split_of(config, packed.table)
    labels = [label_values(packed.table, task.target, task.reference) for task in trained.task.every]
    labelled = Labelled.beside(None, packed, labels, trained.elements)
    return Selection(labelled, np.asarray(split.test), f"test structures of split {split.name}", [split.test])
