"""The running values of a model's layers, which a train step updates with the weights or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from models.running import RunningMean
from physics.derivatives import Outermost
from training.flat_weights import Flat, by_shape, each


class Observation(Outermost):
    """A forward pass of training in which the layers note what they observe, as a graph of its own.

    Noted in the graph of the step the numbers would be the same, also beside gradients of gradients.  But MindSpore
    then reads the weights at two moments and copies them, and on a CPU rounds the copies of float64 weights to float32.

    Args:
        model: the network.
    """

    trains = True

    def __init__(self, model: nn.Cell):
        super().__init__()
        self.model = model

    def __call__(self, *graph: Tensor) -> Any:
        """The model's values in training, with its notes taken."""
        with _noting(self.model):
            return super().__call__(*graph)

    def compile(self, *graph: Tensor) -> None:
        """As the call."""
        with _noting(self.model):
            super().compile(*graph)

    def construct(self, *graph):
        """The model's values."""
        return self.model(*graph)


@contextmanager
def _noting(model: nn.Cell) -> Iterator[None]:
    cells = running_means(model)
    for cell in cells:
        cell.noting = True
    try:
        yield
    finally:
        for cell in cells:
            cell.noting = False


class RunningValues(nn.Cell):
    """What ``RunningMean`` says, for all running values of a model as one vector (P,).

    Args:
        model: the network; its layers note in training what they observe.
        dtype: of the weights.
        ranks: number of processes, whose observations come as a sum.
    """

    def __init__(self, model: nn.Cell, dtype: mstype.Type, ranks: int):
        super().__init__(auto_prefix=False)
        cells = {cell.value.name: cell for cell in running_means(model)}
        self.values = by_shape(cell.value for cell in cells.values())
        self.notes = ParameterTuple([cells[value.name].observed_of_step for value in self.values])
        self.flat = Flat(self.values)
        self.size = self.flat.size
        shares = {name: np.full(cell.value.shape, cell.share) for name, cell in cells.items()}
        self.share = Tensor(self.flat.joined(shares), dtype)
        self.part = Tensor(1 / ranks, dtype)

    def observed(self) -> Tensor:
        """(P,) this process's share of what the layers have noted."""
        return self.flat(each(ops.partial(ops.mul, self.part), self.notes))

    def construct(self, observed: Tensor, finite: Tensor) -> tuple:
        """Take what was observed (P,) into the running values; at ``finite`` 0, a float32 scalar, nothing changes."""
        # products: a graph on a CPU copies the parameters that it joins, and rounds what it copies to float32
        old = self.flat(each(ops.partial(ops.mul, ops.ones_like(finite)), self.values))
        observed = ops.select(ops.isfinite(observed), observed, old)
        new = old + finite * self.share * (observed - old)
        return self.flat.assign(self.values, new)


def running_means(model: nn.Cell) -> list[RunningMean]:
    """The cells of a model that keep a running value."""
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, RunningMean)]
