"""Loss, error and speed of an epoch, and what is wrong with its numbers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

log = logging.getLogger("geospore")
RECENT, FEWEST, EXPLOSION = 100, 20, 20.0


class LossError(ArithmeticError):
    """The numbers of a run are not finite; the message names the molecules.

    Attributes:
        steps_back: how many of the steps so far come after the last good one.
    """

    exit_code = 3

    def __init__(self, message: str, steps_back: int = 0):
        super().__init__(message)
        self.steps_back = steps_back


class Rate(NamedTuple):
    """Means since the last line of the log: loss (standardised), MAE of each term in its unit, and speed."""

    loss: float
    errors: list[float]
    seconds_per_step: float
    structures_per_second: float


class Meter:
    """Sums over an epoch, divided once; results are read from the device only when a line is due.

    A loss beyond ``EXPLOSION`` times the median of the last ``RECENT`` is reported in the log.

    Args:
        scale: unit of the target per standardised unit; of several targets (terms,).
        terms: of the loss, whose mean absolute errors a step returns.
        names: what the log calls the structures of some rows.

    Attributes:
        sums: of the epoch: steps, structures, loss times structures, and of each term the absolute errors and then the
            count of the numbers that they were measured on.
    """

    def __init__(self, scale: float | np.ndarray, terms: int, names: Callable[[np.ndarray], str]):
        self.scale, self.terms, self.names = scale, terms, names
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.begin_epoch(())

    def begin_epoch(self, sums: Sequence[float]) -> None:
        """Start at the sums that the epoch already has; empty means none."""
        self.waiting: list[tuple[tuple[Tensor, ...], np.ndarray, np.ndarray]] = []
        self.sums = np.array(sums or [0.0] * (3 + 2 * self.terms), np.float64)
        self.at_last_line = self.sums.copy()
        self.time_of_last_line = time.perf_counter()

    @property
    def loss(self) -> float:
        """Mean loss over the structures so far, standardised; NaN where every step was skipped."""
        return float(self.sums[2] / self.sums[1]) if self.sums[1] else float("nan")

    @property
    def errors(self) -> list[float]:
        """Mean absolute error of each term so far over all numbers that are known, in its unit; NaN where none is."""
        return self._errors(self.sums)

    def _errors(self, sums: np.ndarray) -> list[float]:
        errors, counts = sums[3 : 3 + self.terms], sums[3 + self.terms :]
        return (errors / np.where(counts, counts, np.nan) * self.scale).tolist()

    @property
    def structures(self) -> int:
        """Of the epoch so far."""
        return int(self.sums[1])

    def add(self, result: tuple[Tensor, ...], counts: Sequence[int], rows: np.ndarray) -> None:
        """Keep what a step returned for a batch of rows; nothing waits for the device here.

        Args:
            result: loss, mean absolute error of each term, and whether the step was made.
            counts: how many numbers of each term the whole batch has.
            rows: of the whole batch.
        """
        self.waiting.append((result, np.array(counts, np.float64), rows))

    def collect(self, step: int) -> None:
        """Fetch what is waiting.

        Args:
            step: number of the last step.

        Raises:
            LossError: a step was not finite.
        """
        waiting, self.waiting = self.waiting, []
        for position, ((loss, errors, finite), counts, rows) in enumerate(waiting):
            value = float(loss.asnumpy())
            number = step - len(waiting) + position + 1
            if not float(finite.asnumpy()):
                what = f"is {value}" if not np.isfinite(value) else f"is {value:.6g} but its gradient is not finite"
                raise LossError(
                    f"the loss of step {number} {what}; its batch: {self.names(rows)}; lower the learning rate or set "
                    "optimizer.clip_norm",
                    steps_back=len(waiting) - position,
                )
            self._report_explosion(number, value, rows)
            sums = errors.asnumpy().astype(np.float64) * counts
            self.sums += (1, len(rows), value * len(rows), *sums, *counts)

    def _report_explosion(self, step: int, value: float, rows: np.ndarray) -> None:
        usual = float(np.median(self.recent)) if len(self.recent) >= FEWEST else np.inf
        self.recent.append(value)
        if value > EXPLOSION * usual:
            log.warning(
                "warning: the loss of step %d is %.5g, %.0f times the median of the steps before it (%.5g); its "
                "batch: %s", step, value, value / usual, usual, self.names(rows),
            )  # fmt: skip

    def since_last_line(self, step: int) -> Rate:
        """Means since the last call, or since the start of the epoch."""
        self.collect(step)
        now = time.perf_counter()
        sums = self.sums - self.at_last_line
        steps, structures, loss = sums[:3].tolist()
        seconds = now - self.time_of_last_line
        self.at_last_line, self.time_of_last_line = self.sums.copy(), now
        divisor = structures or np.nan  # all of them may have been skipped
        return Rate(loss / divisor, self._errors(sums), seconds / max(steps, 1.0), structures / seconds)
