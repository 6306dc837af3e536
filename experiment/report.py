"""What a run leaves behind: metrics beside trivial baselines, predictions and pictures."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from data_tools import dataset as data
from data_tools.graphs.loader import TrainingBatches
from data_tools.labels.splits import Split
from experiment.evaluation import Evaluation
from experiment.evaluation.evaluator import Predictions
from experiment.figures import plot_loss_curve
from experiment.plot_style import Subject, picture
from training import checkpoint as checkpoints
from training.device import versions
from training.files import clock, write_text
from training.loop import Trainer
from training.step import compile_count
from training.weights import assign

log = logging.getLogger("geospore")
#: what metrics.json of a training calls the tables of an evaluation
OF_TEST = {
    "metrics": "test",
    "force_metrics": "test_forces",
    "stress_metrics": "test_stress",
    "force_constants": "test_force_constants",
}
PREDICTIONS = "predictions.csv"


def report(
    config: Config,
    dataset: data.Dataset,
    task: data.Task,
    trainer: Trainer,
    batches: TrainingBatches,
    evaluation: Evaluation,
    started: float,
) -> None:
    """Test the best model beside the trivial baselines; write metrics, predictions and pictures.

    Args:
        config: of the run.
        dataset: its data.
        task: what it predicts.
        trainer: of the run, at its end.
        batches: it has trained on.
        evaluation: of the task.
        started: when the program began, as ``time.perf_counter`` counts.
    """
    ranks, folder, split = trainer.ranks, trainer.folder, dataset.split
    rows = split.test
    tables, found = measure_best(trainer, evaluation, task, rows)
    if ranks.is_main:
        evaluation.write(folder / PREDICTIONS, rows, found)
    if ranks.is_main and config.run.plots:
        draw_run(config, dataset, task, trainer, evaluation, found)
    best_row = trainer.progress.history[trainer.progress.best_epoch - 1]
    compilations = {"training": compile_count(trainer.step), "evaluation": compile_count(evaluation.evaluator.step)}
    seconds = time.perf_counter() - started
    content = {
        "task": task.to_dict(),
        "split": split.name,
        "counts": counts_of(split),
        **{OF_TEST.get(name, name.replace("metrics", "test", 1)): table for name, table in tables.items()},
        "best_epoch": trainer.progress.best_epoch,
        **{key: value for key, value in best_row.items() if key.startswith("valid_")},
        "parameters": sum(p.size for p in trainer.model.trainable_params()),
        "compilations": compilations,
        "padding_waste_percent": batches.waste,
        "processes": ranks.size,
        "seconds": seconds,
        "versions": versions(),
        "provenance": trainer.information["provenance"],
    }
    if ranks.is_main:
        write_metrics(folder / "metrics.json", content)
    log_learned_weights(trainer, task)
    log.info("compilations: %d training, %d evaluation", *compilations.values())
    log.info("finished in %s; everything is in %s", clock(seconds), folder)


def measure_best(
    trainer: Trainer, evaluation: Evaluation, task: data.Task, rows: np.ndarray
) -> tuple[dict[str, dict[str, dict[str, float]]], Predictions]:
    """Metrics of the best model, the last one and the baselines, logged, and what the best predicts for ``rows``."""
    best, ranks, started = trainer.evaluation_parameters(), trainer.ranks, time.perf_counter()
    assign(trainer.model, best)
    last = found = evaluation.predict(rows)
    if trainer.progress.best_epoch < trainer.progress.epoch:
        if ranks.is_main:
            best = checkpoints.load(trainer.folder / checkpoints.BEST).weights
        assign(trainer.model, ranks.share(best))
        found = evaluation.predict(rows)
    tables = evaluation.metrics(rows, {"best model": found, "last model": last})
    what = "several targets" if task.others else f"{task.target.name} [{task.target.unit}]"
    title = f"test, {what}, best epoch {trainer.progress.best_epoch}:"
    for line in evaluation.lines(title, tables):
        log.info("%s", line)
    for one, table in tables_of_tasks(task, tables):
        log_test_error(table["best model"], one, time.perf_counter() - started, bool(task.others))
    return tables, found


def log_learned_weights(trainer: Trainer, task: data.Task) -> None:
    """One line with the weights of several tasks, where those are learned."""
    if task.others and trainer.model.log_widths is not None:
        weights = np.exp(-trainer.model.log_widths.asnumpy())
        words = (f"{one.target.name} {weight:.3g}" for one, weight in zip(task.every, weights, strict=True))
        log.info("learned weights of the losses: %s", ", ".join(words))


def tables_of_tasks(task: data.Task, tables: Mapping[str, Any]) -> list[tuple[data.Task, dict[str, dict[str, float]]]]:
    """Each task with the metrics of its target."""
    if not task.others:
        return [(task, tables["metrics"])]
    return [(one, tables[f"metrics of {one.target.name}"]) for one in task.every]


def log_test_error(metrics: Mapping[str, float], task: data.Task, seconds: float, named: bool = False) -> None:
    """One line with the error that a publication would name; ``named``: of several targets."""
    of = f" of {task.target.name}" if named else ""
    log.info("test MAE%s: %.4f %s, time used: %.2f s", of, metrics["mae"], task.target.unit, seconds)


def draw_run(
    config: Config,
    dataset: data.Dataset,
    task: data.Task,
    trainer: Trainer,
    evaluation: Evaluation,
    found: Predictions,
) -> None:
    """The pictures of a run; baselines beside the course of training are those of the validation structures."""
    split, progress, folder = dataset.split, trainer.progress, trainer.folder
    units = ", ".join(one.target.unit for one in task.every)
    subject = Subject(
        folder.resolve().name, config.model.name, sum(p.size for p in trainer.model.trainable_params()),
        ", ".join(one.target.name for one in task.every), units, split.name, counts_of(split), progress.best_epoch,
    )  # fmt: skip
    evaluation.draw(folder, subject, split.test, found)
    with picture(folder / "loss_curve.png") as path:
        plot_loss_curve(
            progress.history, trainer.quantities, path, progress.best_epoch, evaluation.baseline_errors(split.valid),
            subject.of_training(),
        )  # fmt: skip


def counts_of(split: Split) -> dict[str, int]:
    """How many structures each part of a split has."""
    return {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}


def write_metrics(path: Path, content: Mapping[str, Any]) -> None:
    """Write metrics.json; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
