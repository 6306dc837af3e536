"""What a run will take: time, memory and disk, from a few real steps."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np

from data_tools.graphs.batching import balanced_chunks
from data_tools.graphs.loader import TrainingBatches
from data_tools.graphs.packed import PackedGraphs
from experiment.evaluation import Evaluation
from training.files import clock
from training.loop import Trainer
from training.optimizer import average_of, evaluation_weights, moments_of
from training.state import Batch
from training.weights import parameters_of

log = logging.getLogger("geospore")
REPEATS = 3  # timed steps of each shape, after one that warms it up


@dataclass(frozen=True)
class Forecast:
    """Measured parts of a run and their sum.

    Attributes:
        epoch_steps: steps in an epoch.
        step_seconds: mean over the shapes, as often as each comes.
        validation_seconds: of one epoch.
        seconds: of the whole run, from now on.
        training_bytes: largest memory of this process after the training steps.
        host_bytes: the same after an evaluation batch, too.
        evaluated: structures in an evaluation batch of the run.
        device_bytes: largest memory on the device so far; 0 where the device is the host.
        disk_bytes: checkpoints in the run folder.
    """

    epoch_steps: int
    step_seconds: float
    validation_seconds: float
    seconds: float
    training_bytes: int
    host_bytes: int
    evaluated: int
    device_bytes: int
    disk_bytes: int

    def __str__(self) -> str:
        device = f", {self.device_bytes / 2**30:.2f} GiB on the device" if self.device_bytes else ""
        return (
            f"the run will take about {clock(self.seconds)} (epoch: {self.epoch_steps} steps of "
            f"{self.step_seconds:.4f} s, validation {self.validation_seconds:.1f} s), "
            f"{self.host_bytes / 2**30:.2f} GiB of memory, {self.training_bytes / 2**30:.2f} of them before an "
            f"evaluation batch of {self.evaluated} structures{device}, "
            f"{self.disk_bytes / 2**20:.1f} MiB for checkpoints"
        )


def foresee(
    trainer: Trainer, batches: TrainingBatches, evaluation: Evaluation, valid: np.ndarray, on_host: bool
) -> Forecast:
    """What a run will take, from a few steps of it and an evaluation batch, which has the shape of all of them.

    Of several processes one evaluates and the others wait for it.

    Args:
        trainer: of the run, compiled; of no use afterwards.
        batches: it trains on.
        evaluation: of its task.
        valid: rows of the validation structures.
        on_host: the device is the CPU.
    """
    samples = one_of_each_shape(batches.epoch(0), sum(count > 0 for count in batches.used))
    evaluator = evaluation.evaluator
    part, count = one_batch(evaluator.packed, valid, evaluator.batch_size)
    quantities = [term.quantity for term in trainer.step.layout.terms]

    def evaluate_part() -> None:
        with evaluation_weights(trainer.optimizer):
            evaluation.errors(part, quantities)

    return forecast(
        trainer, samples, [count for count in batches.used if count], evaluate_part,
        min(1.0, trainer.ranks.size / count), evaluator.budget.graphs - 1, on_host,
    )  # fmt: skip


def forecast(
    trainer: Trainer,
    samples: list[Batch],
    batches_of_shape: list[int],
    validate: Callable[[], Any],
    validation_share: float,
    evaluated: int,
    on_host: bool,
) -> Forecast:
    """Make a few steps of every shape and an evaluation at the shape of the run, by a trainer that is not used again.

    Args:
        trainer: of the run, compiled.
        samples: one batch of each shape.
        batches_of_shape: how many of them an epoch has.
        validate: evaluates a part of the validation structures, at the shape that all evaluation of the run has.
        validation_share: how large that part is.
        evaluated: structures in an evaluation batch.
        on_host: the device is the CPU.
    """
    steps = [_seconds_of(partial(_finished, trainer, batch)) for batch in samples]
    epoch = sum(count * seconds for count, seconds in zip(batches_of_shape, steps, strict=True))
    training_bytes = _memory()
    log.info(
        "training steps take %.2f GiB of memory; if the program is killed here, an evaluation batch of %d structures "
        "is too large: lower training.eval_batch_size",
        training_bytes / 2**30, evaluated,
    )  # fmt: skip
    validation = _seconds_of(validate) / validation_share
    epochs = trainer.recipe.epochs - trainer.progress.epoch
    optimizer = trainer.optimizer
    parts = [*parameters_of(trainer.model).values(), *average_of(optimizer).values()]
    weights = sum(part.nbytes for part in parts)
    moments = sum(part.nbytes for part in moments_of(optimizer).values())
    return Forecast(
        epoch_steps=sum(batches_of_shape),
        step_seconds=epoch / sum(batches_of_shape),
        validation_seconds=validation,
        seconds=epochs * (epoch + validation),
        training_bytes=training_bytes,
        host_bytes=_memory(),
        evaluated=evaluated,
        device_bytes=0 if on_host else ms.runtime.max_memory_allocated(),
        disk_bytes=weights + trainer.recipe.keep * (weights + moments),
    )


def one_batch(packed: PackedGraphs, rows: np.ndarray, batch_size: int) -> tuple[np.ndarray, int]:
    """The rows of one of the batches that ``rows`` are evaluated in, whose shape need not hold others; their number."""
    chunks = balanced_chunks(rows, packed.costs[rows], batch_size)
    return chunks[0], len(chunks)


def one_of_each_shape(batches: Iterator[Batch], shapes: int) -> list[Batch]:
    """The first batch of each shape, smallest shape first."""
    found: dict[tuple[int, int], Batch] = {}
    for batch in batches:
        inputs = batch.part.inputs
        found.setdefault((len(inputs.senders), len(inputs.numbers)), batch)
        if len(found) == shapes:
            break
    return [found[shape] for shape in sorted(found)]


def _memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _finished(trainer: Trainer, batch: Batch) -> None:
    trainer.make_step(batch)
    trainer.meter.collect(trainer.progress.step)


def _seconds_of(action: Callable[[], Any]) -> float:
    action()
    started = time.perf_counter()
    for _ in range(REPEATS):
        action()
    return (time.perf_counter() - started) / REPEATS
