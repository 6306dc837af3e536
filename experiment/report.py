"""What a person hears before a training, and what is left behind after it: metrics, predictions and pictures."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from data_tools import dataset as data
from data_tools.labels.plausibility import unit_suspicions
from experiment.evaluation.evaluator import Evaluator, Predictions
from experiment.evaluation.stress_errors import measure_stress
from experiment.measures import baseline_predictions, measure_forces, metrics_of
from experiment.results import Subject, draw, draw_forces, draw_history, metrics_table, write_predictions
from models import cpu_kernels
from training import checkpoint as checkpoints
from training.cpu_runtime import cores
from training.device import versions
from training.distributed import Ranks
from training.loop import Trainer
from training.visible_devices import warn_of_unused

log = logging.getLogger("geospore")


def describe(
    config: Config, dataset: data.Dataset, task: data.Task, model: Any, ranks: Ranks, adapted: str = ""
) -> None:
    """What a person wants to know before hours are spent."""
    run, split, table = config.run, dataset.split, dataset.packed.table
    log.info("%s  device %s:%d  mode %s  %s  %d cores", "  ".join(f"{k} {v}" for k, v in versions().items()),
             run.device_target, run.device_id, run.mode, run.dtype, cores())  # fmt: skip
    if run.device_target == "CPU":
        log.info("kernels for CPUs: %s", cpu_kernels.state())
    warn_of_unused(run.device_target)
    if ranks.size > 1:
        log.info("rank %d of %d, process id %d", ranks.rank, ranks.size, os.getpid())
    log.info("data: %s: %d molecules, %d atoms", table.source, len(table), len(table.numbers))
    for words in [*unit_suspicions(table), *data.reference_suspicions(dataset, task)]:
        log.warning("warning: %s", words)
    if adapted:
        log.info(adapted)
    log.info("split %s: %d train, %d valid, %d test; elements in training: %s", split.name, len(split.train),
             len(split.valid), len(split.test), data.symbols(dataset.train_elements))  # fmt: skip
    log.info("target %s [%s], label definition %s, readout %s, standardisation %s (scale %.6g, shift %.6g %s)",
             task.target.name, task.target.unit, task.reference, task.readout, task.standardisation,
             dataset.normalizer.scale, dataset.normalizer.shift, task.target.unit)  # fmt: skip
    log.info("model %s: %d parameters", config.model.name, sum(p.size for p in model.trainable_params()))


def report(
    config: Config, dataset: data.Dataset, task: data.Task, trainer: Trainer, evaluate: Evaluator, folder: Path
) -> dict[str, Any]:
    """Test the best model beside the trivial baselines; write predictions and pictures; returns the metrics."""
    unit, rows, known = task.target.unit, dataset.split.test, dataset.train_elements
    best, ranks = trainer.evaluation_parameters(), trainer.ranks
    checkpoints.assign(trainer.model, best)
    last = evaluate(rows)
    if ranks.is_main:
        best = checkpoints.load(folder / checkpoints.BEST).weights
    checkpoints.assign(trainer.model, ranks.share(best))
    found = evaluate(rows)
    labels, counts, train = dataset.labels[rows], dataset.counts[rows], dataset.split.train
    baselines = baseline_predictions(dataset.labels[train], dataset.counts[train], counts)
    table = metrics_of(labels, counts, {"best model": found.values, "last model": last.values, **baselines}, known)
    log.info("test, %s [%s], best epoch %d:\n%s", task.target.name, unit, trainer.progress.best_epoch,
             metrics_table(table, unit))  # fmt: skip
    content: dict[str, Any] = {"test": table}
    true_forces = dataset.forces_of(rows)
    if true_forces is not None and found.forces is not None and last.forces is not None:
        models = {"best model": found.forces, "last model": last.forces}
        of_forces = measure_forces(table["best model"], models, true_forces, f"{unit}/A")
        content |= {"test_forces": of_forces} if of_forces else {}
    stress = None if dataset.stress is None else dataset.stress[rows]
    of_stress = measure_stress({"best model": found.stress, "last model": last.stress}, stress)
    content |= {"test_stress": of_stress} if of_stress else {}
    structures = dataset.packed.table
    names = [structures.names[row] for row in rows] if structures.names else []
    if ranks.is_main:
        write_predictions(
            folder / "predictions.csv", structures.ids[rows], names, found.values, labels, task.target.name, unit
        )
    if ranks.is_main and config.run.plots:
        draw_run(config, dataset, task, trainer, found, folder)
    best_row = trainer.progress.history[trainer.progress.best_epoch - 1]
    validation = {key: value for key, value in best_row.items() if key.startswith("valid_")}
    return {**content, "best_epoch": trainer.progress.best_epoch, **validation}


def draw_run(
    config: Config, dataset: data.Dataset, task: data.Task, trainer: Trainer, found: Predictions, folder: Path
) -> None:
    """The pictures of a run; baselines beside the course of training are those of the validation molecules."""
    split, progress = dataset.split, trainer.progress
    subject = Subject(
        folder.resolve().name, config.model.name, sum(p.size for p in trainer.model.trainable_params()),
        task.target.name, task.target.unit, split.name,
        {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}, progress.best_epoch,
    )  # fmt: skip
    draw(folder, subject, dataset.labels[split.test], found.values, found.embeddings)
    true_forces = dataset.forces_of(split.test)
    if true_forces is not None and found.forces is not None and np.isfinite(true_forces).any():
        draw_forces(folder, subject, true_forces, found.forces)
    counts = dataset.counts
    baselines = baseline_predictions(dataset.labels[split.train], counts[split.train], counts[split.valid])
    trivial = {name: float(np.abs(dataset.labels[split.valid] - values).mean()) for name, values in baselines.items()}
    of_forces, forces = {}, dataset.forces_of(split.valid)
    if forces is not None and np.isfinite(forces).any():
        of_forces = {"zero forces": float(np.nanmean(np.abs(forces)))}
    draw_history(folder, subject, progress.history, trivial, of_forces)
