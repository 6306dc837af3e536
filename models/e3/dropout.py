"""Dropout that leaves features equivariant: all components of a channel are dropped together, or a whole graph.

The random numbers are those of ``models.random``: functions of the seed, the step and the place.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.e3.channels import Spread, runs_of, with_copies
from models.e3.irreps import Irreps
from models.graph_ops import gather
from models.random import Dropout


class EquivariantDropout(nn.Cell):
    """Some channels of each node set to 0 and the others divided by the share of those, in training.

    Args:
        irreps: of the feature.
        rate: probability of 0, as of ``Dropout``.
        dtype: of the feature.
    """

    def __init__(self, irreps: str | Irreps, rate: float, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.channels = irreps.num_irreps
        self.dropout, self.spread = Dropout(rate, dtype), Spread(runs_of(irreps), 1.0, dtype)
        self.needless = self.dropout.words is None

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        if self.needless or not self.training:
            return x
        ones = ops.ones_like(ops.stop_gradient(x)[:, : self.channels])  # (N, C)
        return x * self.spread(self.dropout(ones))


class DropPath(nn.Cell):
    """The features of all nodes of some graphs set to 0, the others divided by the share of those, in training.

    Before they are added to what they were made of, some graphs thus skip a layer.

    Args:
        rate: probability of 0, as of ``Dropout``.
        dim: numbers of a feature.
        dtype: of the feature.
    """

    def __init__(self, rate: float, dim: int, dtype: mstype.Type):
        super().__init__()
        self.dropout = Dropout(rate, dtype)
        self.needless = self.dropout.words is None
        # a product with ones spreads a column over the others five times as fast as broadcasting does on a CPU
        self.ones, self.multiply = Tensor(np.ones((1, dim)), dtype), ops.MatMul()

    def construct(self, x: Tensor, node_graph: Tensor, graph_mask: Tensor) -> Tensor:
        """(N, dim), the graph of each node (N,) and the mask of graphs (G,), to (N, dim)."""
        if self.needless or not self.training:
            return x
        kept = self.dropout(ops.ones_like(graph_mask))  # (G,)
        rows = self.multiply(kept.reshape(-1, 1), self.ones)  # (G, dim)
        return x * gather(rows, node_graph)
