"""Epochs: train, validate, log, keep the best, stop early, save."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from mindspore import nn
from tqdm import tqdm

from models.random import random_layers, set_keys
from training.checkpoint import BEST, LAST, Checkpoint, CheckpointError, save
from training.distributed import Ranks
from training.files import clock, write_rows
from training.interruption import StopRequest
from training.loss_scale import LossScale
from training.meter import LossError, Meter
from training.optimizer import (
    AdamW,
    average_of,
    evaluation_weights,
    moments_of,
    operator_scalars,
    set_state,
)
from training.schedule import learning_rate
from training.state import Batch, Batches, Progress, Quantity, Score, error_columns, errors_in_words
from training.step import TrainStep
from training.weights import assign, parameters_of

log = logging.getLogger("geospore")
#: columns of times.csv; what depends on the machine stays out of metrics.csv, which a resumed run repeats bit for bit
TIMES = ("epoch", "seconds", "structures_per_second")
AGREE_EVERY = 10  # steps between two moments at which several processes tell each other of a signal to stop


@dataclass
class Recipe:
    """Numbers of the loop; the fields of the configuration's sections of the same names."""

    epochs: int
    early_stop: int
    log_every: int
    save_minutes: float
    keep: int
    seed: int
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


class Trainer:
    """A run in progress: model, optimiser, data and where it stands.

    Args:
        model: the network.
        optimizer: holds the moments and the moving average.
        step: one train step of this model.
        batches: training data.
        validate: measures the weights that the model holds on the validation structures.
        recipe: numbers of the loop.
        quantities: what the terms of the step are called, whose errors the step and ``validate`` return.
        scale: unit of the target per standardised unit; of several targets (terms,).
        folder: the run folder.
        information: what goes into every checkpoint besides the progress.
        ranks: the processes of this run; the first alone writes.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: AdamW,
        step: TrainStep,
        batches: Batches,
        validate: Callable[[], Score],
        recipe: Recipe,
        quantities: Sequence[Quantity],
        scale: float | np.ndarray,
        folder: Path,
        information: dict[str, Any],
        ranks: Ranks,
    ):
        self.model, self.optimizer, self.step, self.batches = model, optimizer, step, batches
        self.validate, self.recipe, self.quantities = validate, recipe, quantities
        self.folder, self.information, self.ranks = folder, information, ranks
        self.loss_scale = LossScale() if step.goes_on else None
        self.meter = Meter(scale, len(quantities), batches.names)
        self.random_layers = random_layers(model)
        self.progress, self.total_steps = Progress(), recipe.epochs * len(batches)
        self.saved_at, self.saved_step = time.perf_counter(), 0

    def run(self, after_save: Callable[[], None] = lambda: None, after_step: Callable[[], None] = lambda: None) -> None:
        """Train until the last epoch or until validation has not improved for long enough.

        Args:
            after_save: called after each epoch, once its checkpoint and its lines are written.
            after_step: called after each step, whose results may not be there yet.

        Raises:
            LossError: the loss, its gradient or a prediction became NaN or infinite; the state before that is saved.
            Stopped: SIGTERM or Ctrl-C; the state is saved.
        """
        self.after_save, self.after_step = after_save, after_step
        with StopRequest() as stop:
            self._run(stop)

    def _run(self, stop: StopRequest) -> None:
        progress, recipe = self.progress, self.recipe
        while progress.epoch < recipe.epochs:
            if recipe.early_stop and progress.epochs_since_better >= recipe.early_stop:
                log.info("early stop: nothing better on the validation structures for %d epochs", recipe.early_stop)
                break
            try:
                self._train_epoch(stop)
                with evaluation_weights(self.optimizer):
                    self._finish_epoch(self.validate())
            except LossError as error:
                self._save_before(error)
                raise
            self._save(LAST, with_optimizer=True)
            if self.ranks.any(bool(stop.requested)):
                self._leave(stop)
            self.after_save()

    def _save_before(self, error: LossError) -> None:
        """Save the state after the last good step; the steps since then have changed nothing."""
        progress = self.progress
        progress.step -= error.steps_back
        progress.position -= error.steps_back
        progress.sums = self.meter.sums.tolist()
        self._save(LAST, with_optimizer=True)
        log.info("the state after step %d is saved", progress.step)
        self._wait_for_main()

    def _leave(self, stop: StopRequest) -> NoReturn:
        """Leave after a signal to any of the processes; the state is saved."""
        self._wait_for_main()
        stop.leave(self.progress.step)

    def _wait_for_main(self) -> None:
        """Msrun kills all processes when one leaves with an error: the first must have brought its files home."""
        if self.ranks.size > 1:
            self.after_save()
            self.ranks.wait()

    def compile(self) -> tuple[int, float]:
        """Compile every shape before the first epoch; returns the number of shapes and the seconds."""
        started = time.perf_counter()
        shapes = 0
        for batch in self.batches.ghost_batches():
            arguments = self.step.layout.arguments(batch, dict.fromkeys(batch.targets, 1), 1.0, (0.0, 1.0, 0.0))
            if self.step.compiled_whole:
                self.step.compile(*arguments)
            else:
                self.step.set_train(self.step.trains).gradient_loss_errors(*arguments[: self.step.layout.of_loss])
            shapes += 1
        return shapes, time.perf_counter() - started

    def lr_at(self, step: int) -> float:
        """Learning rate of the update after ``step`` updates."""
        schedule = dict(self.recipe.schedule)
        name = schedule.pop("name")
        schedule.pop("patience")
        del schedule["warmup_epochs"], schedule["cooldown_epochs"]
        schedule["warmup_steps"], cooldown = self.steps_outside()
        lr = self.recipe.optimizer["lr"] * (self.progress.factor if name == "physics_aware" else 1.0)
        return learning_rate(
            name, step, self.total_steps, lr, cooldown_steps=cooldown, reductions=self.progress.reductions, **schedule
        )  # fmt: skip

    def steps_outside(self) -> tuple[int, int]:
        """Steps of the warm-up and of the cool-down."""
        schedule, per_epoch = self.recipe.schedule, len(self.batches)
        warmup, cooldown = (round(schedule[key] * per_epoch) for key in ("warmup_epochs", "cooldown_epochs"))
        return schedule["warmup_steps"] + warmup, cooldown

    def _train_epoch(self, stop: StopRequest) -> None:
        """The rest of the current epoch."""
        progress, meter = self.progress, self.meter
        started = time.perf_counter() - progress.seconds
        meter.begin_epoch(progress.sums)
        bar = tqdm(
            self.batches.epoch(progress.epoch, progress.position), initial=progress.position, total=len(self.batches),
            desc=f"epoch {progress.epoch + 1}/{self.recipe.epochs}", unit="step", leave=False,
            disable=not (sys.stderr.isatty() and self.ranks.is_main),
        )  # fmt: skip
        for batch in bar:
            lr = self.make_step(batch)
            self.after_step()
            if progress.step % self.recipe.log_every == 0:
                self._log_step(lr, bar)
            due = time.perf_counter() - self.saved_at >= 60 * self.recipe.save_minutes
            asked = (self.ranks.size == 1 or progress.step % AGREE_EVERY == 0) and self.ranks.any(bool(stop.requested))
            if due or asked:
                self._note_position(started)
                self._save(LAST, with_optimizer=True)
            if asked:
                self._leave(stop)
        self._note_position(started)

    def make_step(self, batch: Batch) -> float:
        """One update; returns its learning rate."""
        progress, settings, scale = self.progress, self.recipe.optimizer, self.loss_scale
        lr = self.lr_at(progress.step)
        progress.step += 1
        progress.position += 1
        updates = progress.step - (scale.skipped if scale else 0)
        scalars = operator_scalars(
            updates, lr, settings["beta1"], settings["beta2"], settings["epsilon"], settings["weight_decay"]
        )
        set_keys(self.random_layers, self.recipe.seed, progress.step, self.ranks.rank)
        layout = self.step.layout
        result = self.step(*layout.arguments(batch.part, batch.known, scale.value if scale else 1.0, scalars))
        if scale:
            finite = bool(result[2].asnumpy())
            scale.update(finite)
            if not finite and scale.value >= 1.0:
                return lr  # skipped
        self.meter.add(result, [batch.known[term.quantity] for term in layout.terms], batch.rows)
        if scale and not finite:
            self.meter.collect(progress.step)  # no scale helps: stop at once
        return lr

    def _note_position(self, started: float) -> None:
        """Bring the sums of the epoch up to date for a checkpoint."""
        self.meter.collect(self.progress.step)
        self.progress.sums, self.progress.seconds = self.meter.sums.tolist(), time.perf_counter() - started

    def _log_step(self, lr: float, bar: tqdm) -> None:
        """One line: where the run is, and loss, MAE and speed since the last line."""
        progress = self.progress
        since = self.meter.since_last_line(progress.step)
        bar.clear()
        log.info(
            "epoch %d/%d  step %d/%d  loss %.5f  %s  lr %.2e  %.4f s/step  %.0f structures/s  ETA %s%s",
            progress.epoch + 1, self.recipe.epochs, progress.step, self.total_steps, since.loss,
            errors_in_words("train", self.quantities, since.errors), lr, since.seconds_per_step,
            since.structures_per_second, clock(since.seconds_per_step * (self.total_steps - progress.step)),
            self._skipped(),
        )  # fmt: skip

    def _skipped(self) -> str:
        """What a line of the log says about the loss scale."""
        scale = self.loss_scale
        return f"  loss scale {scale.value:g}, {scale.skipped} steps skipped" if scale else ""

    def _finish_epoch(self, score: Score) -> None:
        """Compare with the best so far, keep the best model and log the epoch; the model holds evaluation weights."""
        progress, meter = self.progress, self.meter
        seconds, lr = progress.seconds, self.lr_at(progress.step - 1)
        progress.epoch += 1
        progress.begin_epoch()
        better = progress.compare(score, self.recipe.schedule)
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_loss": meter.loss,
            **error_columns("train", self.quantities, meter.errors),
            "lr": lr,
            "seconds": seconds,
            "structures_per_second": meter.structures / seconds,
            **error_columns("valid", self.quantities, score.errors),
        }
        progress.history.append(row)
        self._write_history()
        log.info(
            "epoch %d/%d  train loss %.5f  %s  %s%s  lr %.2e  %.1f s  ETA %s%s",
            progress.epoch, self.recipe.epochs, row["train_loss"],
            errors_in_words("train", self.quantities, meter.errors),
            errors_in_words("valid", self.quantities, score.errors), " (best)" if better else "", lr, seconds,
            clock(seconds * (self.recipe.epochs - progress.epoch)), self._skipped(),
        )  # fmt: skip
        if better:
            self._save(BEST, with_optimizer=False)

    def _write_history(self) -> None:
        """metrics.csv, which a resumed run repeats bit for bit, and times.csv, which depends on the machine."""
        rows = self.progress.history
        if self.ranks.is_main:
            write_rows(self.folder / "metrics.csv", [{k: v for k, v in r.items() if k not in TIMES[1:]} for r in rows])
            write_rows(self.folder / "times.csv", [{key: row[key] for key in TIMES} for row in rows])

    def save_last(self) -> None:
        """Write the checkpoint that a run resumes from."""
        self._save(LAST, with_optimizer=True)

    def _save(self, name: str, with_optimizer: bool) -> None:
        if with_optimizer:
            self.saved_at = time.perf_counter()
        if self.ranks.is_main:
            # the state before the first step is not worth a place among the newest
            aged = with_optimizer and self.saved_step > 0
            save(self.folder / name, self._checkpoint(with_optimizer), keep=self.recipe.keep if aged else 1)
            self.saved_step = self.progress.step if with_optimizer else self.saved_step

    def save_start(self, folder: Path) -> None:
        """Write the state before the first step, from which a run that is killed early goes on."""
        save(folder / LAST, self._checkpoint(with_optimizer=True))

    def _checkpoint(self, with_optimizer: bool) -> Checkpoint:
        if self.loss_scale:
            self.progress.loss_scale = vars(self.loss_scale).copy()
        return Checkpoint(
            model=parameters_of(self.model),
            ema=average_of(self.optimizer),
            optimizer=moments_of(self.optimizer) if with_optimizer else {},
            information={**self.information, "progress": vars(self.progress)},
        )

    def evaluation_parameters(self) -> dict[str, np.ndarray]:
        """All parameters of the model, the moving average in place of the weights where there is one."""
        return {**parameters_of(self.model), **average_of(self.optimizer)}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint with optimiser state.

        Raises:
            CheckpointError: it lacks that state, or belongs to another architecture.
        """
        assign(self.model, checkpoint.model)
        wrong = set_state(self.optimizer, checkpoint.optimizer, checkpoint.ema)
        if wrong:
            raise CheckpointError(
                f"{self.folder / LAST}: {len(wrong)} numbers of the optimiser are missing {wrong[:3]}; resume with "
                "the settings of the run, its optimizer.ema_decay included"
            )
        self.progress = Progress.of(checkpoint.information["progress"])
        if self.loss_scale and self.progress.loss_scale:
            self.loss_scale = LossScale(**self.progress.loss_scale)
            self.loss_scale.value = max(self.loss_scale.value, 1.0)
        self.saved_step = self.progress.step
        then, now = (about["config"]["training"] for about in (checkpoint.information, self.information))
        if self.progress.position and then["batch_size"] != now["batch_size"]:  # data, split and seed are the same
            log.info("the order of structures has changed: epoch %d begins again", self.progress.epoch + 1)
            self.progress.begin_epoch()
        if self.progress.sums and len(self.progress.sums) != len(self.meter.sums):  # without counts
            words = "the checkpoint is of an older version: train errors and speed of epoch %d are those from here on"
            log.info(words, self.progress.epoch + 1)
            self.progress.sums, self.progress.seconds = [], 0.0
