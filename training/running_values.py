"""The running values of a model's layers, which a train step updates with the weights or not at all."""

from __future__ import annotations

import itertools

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from models.running import RunningMean
from training.optimizer import assign_part, each, flatten


class RunningValues(nn.Cell):
    """What ``RunningMean`` says, for all running values of a model as one vector (P,).

    Args:
        model: the network; its layers note in training what they observe.
        dtype: of the weights.
        ranks: number of processes, whose observations come as a sum.
    """

    def __init__(self, model: nn.Cell, dtype: mstype.Type, ranks: int):
        super().__init__(auto_prefix=False)
        cells = running_means(model)
        self.values = ParameterTuple([cell.value for cell in cells])
        self.notes = ParameterTuple([cell.observed_of_step for cell in cells])
        self.ends = tuple(itertools.accumulate(value.size for value in self.values))
        self.starts = (0, *self.ends[:-1])
        self.size = self.ends[-1]
        self.share = Tensor(np.concatenate([np.full(cell.value.size, cell.share) for cell in cells]), dtype)
        self.one, self.part = Tensor(np.float32(1)), Tensor(1 / ranks, dtype)

    def observed(self, after: Tensor) -> Tensor:
        """(P,) this process's share of what the layers have noted in this step, once ``after`` is computed."""
        return ops.depend(self.joined(self.notes), after) * self.part

    def construct(self, observed: Tensor, finite: Tensor) -> tuple:
        """Take what was observed (P,) into the running values; at ``finite`` 0, a float32 scalar, nothing changes."""
        old = self.joined(self.values)
        observed = ops.select(ops.isfinite(observed), observed, old)
        new = old + finite * self.share * (observed - old)
        return each(ops.partial(assign_part, new), self.values, self.starts, self.ends)

    def joined(self, parameters: ParameterTuple) -> Tensor:
        """(P,); products, because a graph on a CPU copies the parameters it joins, and rounds the copies to float32."""
        return flatten(each(ops.partial(ops.mul, self.one), parameters))


def running_means(model: nn.Cell) -> list[RunningMean]:
    """The cells of a model that keep a running value."""
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, RunningMean)]
