"""Loss, error and speed of an epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor


class LossError(ArithmeticError):
    """The loss is not finite; the message names the molecules of the batch."""


class Rate(NamedTuple):
    """Means since the last line of the log: loss (standardised), MAE in the target's unit, and speed."""

    loss: float
    mae: float
    seconds_per_step: float
    molecules_per_second: float


class Meter:
    """Sums over an epoch, divided once; results are read from the device only when a line is due.

    Args:
        scale: unit of the target per standardised unit.
        unit: of the target.
        sums: of loss, error, molecules and steps, to continue an epoch.
    """

    def __init__(self, scale: float, unit: str, sums: Sequence[float] = (0.0, 0.0, 0.0, 0.0)):
        self.scale, self.unit = scale, unit
        self.waiting: list[tuple[tuple[Tensor, Tensor], np.ndarray]] = []
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

    def add(self, result: tuple[Tensor, Tensor], ids: np.ndarray) -> None:
        """Keep a step's loss and error; nothing waits for the device here."""
        self.waiting.append((result, ids))

    def collect(self, step: int) -> None:
        """Fetch what is waiting.

        Args:
            step: number of the last step, for the message.

        Raises:
            LossError: a loss is not finite.
        """
        for position, ((loss, error), ids) in enumerate(self.waiting):
            value = float(loss.asnumpy())
            if not np.isfinite(value):
                raise LossError(
                    f"the loss of step {step - len(self.waiting) + position + 1} is {value}; rows of its batch in the "
                    f"data set: {' '.join(map(str, ids))}; lower the learning rate or set optimizer.clip_norm"
                )
            self.sums += (value * len(ids), float(error.asnumpy()) * len(ids), len(ids), 1)
        self.waiting.clear()

    def since_last_line(self, step: int) -> Rate:
        """Means since the last call, or since the start of the epoch."""
        self.collect(step)
        now = time.perf_counter()
        loss, error, molecules, steps = self.sums - self.at_last_line
        seconds = now - self.time_of_last_line
        self.at_last_line, self.time_of_last_line = self.sums.copy(), now
        return Rate(loss / molecules, error / molecules * self.scale, seconds / steps, molecules / seconds)
