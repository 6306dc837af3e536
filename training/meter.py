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

    def __init__(self, message: str, steps_back: int = 0):
        super().__init__(message)
        self.steps_back = steps_back


class Rate(NamedTuple):
    """Means since the last line of the log: loss (standardised), MAE in the target's unit, and speed."""

    loss: float
    mae: float
    seconds_per_step: float
    molecules_per_second: float


class Meter:
    """Sums over an epoch, divided once; results are read from the device only when a line is due.

    A loss beyond ``EXPLOSION`` times the median of the last ``RECENT`` is reported in the log.

    Args:
        scale: unit of the target per standardised unit.
        unit: of the target.
        names: what the log calls the molecules of some rows.
    """

    def __init__(self, scale: float, unit: str, names: Callable[[np.ndarray], str]):
        self.scale, self.unit, self.names = scale, unit, names
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.begin_epoch((0.0, 0.0, 0.0, 0.0))

    def begin_epoch(self, sums: Sequence[float]) -> None:
        """Start at the sums of loss, error, molecules and steps that the epoch already has."""
        self.waiting: list[tuple[tuple[Tensor, ...], np.ndarray]] = []
        self.sums = np.array(sums, np.float64)
        self.at_last_line = self.sums.copy()
        self.time_of_last_line = time.perf_counter()

    @property
    def loss(self) -> float:
        """Mean loss over the molecules so far, standardised."""
        return float(self.sums[0] / max(1.0, self.sums[2]))

    @property
    def mae(self) -> float:
        """Mean absolute error over the molecules so far, in the target's unit."""
        return float(self.sums[1] / max(1.0, self.sums[2])) * self.scale

    @property
    def molecules(self) -> int:
        """Molecules so far."""
        return int(self.sums[2])

    def add(self, result: tuple[Tensor, ...], rows: np.ndarray) -> None:
        """Keep what a step returned for a batch of rows; nothing waits for the device here."""
        self.waiting.append((result, rows))

    def collect(self, step: int) -> None:
        """Fetch what is waiting.

        Args:
            step: number of the last step.

        Raises:
            LossError: a step was not finite.
        """
        waiting, self.waiting = self.waiting, []
        for position, ((loss, error, finite), rows) in enumerate(waiting):
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
            self.sums += (value * len(rows), float(error.asnumpy()) * len(rows), len(rows), 1)

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
        loss, error, molecules, steps = np.maximum(self.sums - self.at_last_line, (0, 0, 1, 1))  # all may be skipped
        seconds = now - self.time_of_last_line
        self.at_last_line, self.time_of_last_line = self.sums.copy(), now
        return Rate(loss / molecules, error / molecules * self.scale, seconds / steps, molecules / seconds)
