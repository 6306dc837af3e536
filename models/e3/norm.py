"""Normalisation of features of irreps: channels are scaled, and only scalars are centred.

A channel's components are divided by one number, the root of a mean of squares over all of them, which no rotation
changes; a constant is subtracted from scalars alone.  For component m of channel u,

    (1)  y_um = w_u (x_um - m_u) / sqrt(s_u + 1e-5) + b_u,    s_u = <(x_um - m_u)^2>,  m_u = <x_u>

m_u and b_u are 0 but for scalars.  The norms differ in what the means are taken over:

    BatchNorm             all nodes, for each channel; running means of m and s in evaluation    (e3nn)
    InstanceNorm          the nodes of each graph, for each channel                              (SEGNN)
    GraphNorm             as that, with a trained share of m                                     (Equiformer)
    EquivariantLayerNorm  the channels of each irrep, for each node                              (Equiformer)

Sums over rows come first, then products with constant matrices that know which component belongs to which channel: few
operators, whatever the number of irreps.  s + 1e-5 > 0: no derivative divides by zero.

Where the surroundings of an atom have an inversion centre or more, its vectors are 0, and what they become when atoms
move is multiplied by w / sqrt(1e-5) = 316 w in each norm: second derivatives of an energy by 1e5 and more.  With
``floor`` = 1 in the place of the 1e-5 for irreps that are no scalars, the factor is at most w.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer

from models.blocks import AddBias
from models.e3.channels import channel_numbers, spreading, with_copies
from models.e3.irreps import Irreps
from models.e3.layout import padding
from models.graph_ops import gather, segment_sum
from models.running import RunningMean

EPS = 1e-5
SHARE = 0.1  # of a step in the running means


class BatchNorm(nn.Cell):
    """Equation (1) over all rows that count, nodes or edges.

    Args:
        irreps: of the feature.
        dtype: of the feature and the parameters.
    """

    def __init__(self, irreps: str | Irreps, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.channels = _Channels(irreps, channel_numbers(irreps), dtype)
        self.weight, self.bias = _affine(self.channels, "weight", "bias", dtype)
        numbers = np.float64 if dtype == mstype.float64 else np.float32
        scalars = np.zeros(self.channels.scalars, numbers)
        self.running_mean = RunningMean(scalars, SHARE) if scalars.size else None
        self.running_var = RunningMean(np.ones(irreps.num_irreps, numbers), SHARE)
        self.multiply, self.add_row = ops.MatMul(), AddBias()

    def construct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Rows (N, dim) and (N,), 1 for those that count, to (N, dim)."""
        count = mask.sum()
        share = (mask / ops.maximum(count, ops.ones_like(count))).reshape(1, -1)  # (1, N)
        if self.running_mean is not None:
            mean = self.channels.of_scalars(self.multiply(share, x))
            x = self.add_row(x, -self.channels.placed(self.running_mean(mean)).reshape(-1))
        means = self.channels.means(self.multiply(share, x * x)).reshape(-1)  # (C,)
        scales = self.channels.scales(self.running_var(means).reshape(1, -1), self.weight)  # (1, dim)
        return self.channels.add_bias(x * scales, self.bias)


class InstanceNorm(nn.Cell):
    """Equation (1) over the nodes of each graph; odd scalars, 0o, are centred too, but have no b.

    Args:
        irreps: of the feature.
        dtype: of the feature and the parameters.
    """

    def __init__(self, irreps: str | Irreps, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.channels = _Channels(irreps, channel_numbers(irreps), dtype)
        self.weight, self.bias = _affine(self.channels, "weight", "bias", dtype)
        centred = np.concatenate([np.full(part.dim, float(part.ir.l == 0)) for part in irreps])
        self.share = Tensor(centred.reshape(1, -1), dtype) if centred.any() else None

    def construct(self, x: Tensor, node_graph: Tensor, node_mask: Tensor, graph_mask: Tensor) -> Tensor:
        """Features (N, dim), their graphs (N,) and the masks of nodes (N,) and graphs (G,), to (N, dim)."""
        x = _within_graphs(self.channels, x, self.share, self.weight, node_graph, node_mask, graph_mask)
        return self.channels.add_bias(x, self.bias)


class GraphNorm(nn.Cell):
    """Equation (1) over the nodes of each graph, with m times a parameter of each scalar, 0e.

    Args:
        irreps: of the feature.
        dtype: of the feature and the parameters.
    """

    def __init__(self, irreps: str | Irreps, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.channels = _Channels(irreps, channel_numbers(irreps), dtype)
        self.mean_shift = _parameter("mean_shift", "ones", self.channels.scalars, dtype)
        self.affine_weight, self.affine_bias = _affine(self.channels, "affine_weight", "affine_bias", dtype)

    def construct(self, x: Tensor, node_graph: Tensor, node_mask: Tensor, graph_mask: Tensor) -> Tensor:
        """Features (N, dim), their graphs (N,) and the masks of nodes (N,) and graphs (G,), to (N, dim)."""
        share = None if self.mean_shift is None else self.channels.placed(self.mean_shift)
        x = _within_graphs(self.channels, x, share, self.affine_weight, node_graph, node_mask, graph_mask)
        return self.channels.add_bias(x, self.affine_bias)


class EquivariantLayerNorm(nn.Cell):
    """Equation (1) over the channels of each irrep, for each node on its own; 0o is not centred.

    Args:
        irreps: of the feature.
        dtype: of the feature and the parameters.
        floor: in the place of 1e-5 in (1) for irreps that are no scalars.
    """

    def __init__(self, irreps: str | Irreps, dtype: mstype.Type, floor: float = EPS):
        super().__init__()
        irreps = with_copies(irreps)
        numbers = np.concatenate([np.full(part.dim, k) for k, part in enumerate(irreps)])
        self.channels = _Channels(irreps, numbers, dtype)
        self.affine_weight, self.affine_bias = _affine(self.channels, "affine_weight", "affine_bias", dtype)
        self.channels.eps = Tensor([EPS if part.ir.is_scalar else floor for part in irreps], dtype)  # (irreps,)
        scalars = [numbers == k for k, part in enumerate(irreps) if part.ir.is_scalar]
        self.spread = Tensor(np.array(scalars, float), dtype) if scalars else None  # (irreps 0e, dim)
        self.mean = Tensor(np.array([one / one.sum() for one in scalars]).T, dtype) if scalars else None
        self.multiply = ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        if self.mean is not None:
            x = x - self.multiply(self.multiply(x, self.mean), self.spread)
        x = x * self.channels.scales(self.channels.means(x * x), self.affine_weight)
        return self.channels.add_bias(x, self.affine_bias)


class _Channels(nn.Cell):
    """Matrices between the components of a feature and the numbers of its channels.

    Args:
        irreps: of the feature, all with copies.
        groups: (dim,) the number of the s of (1) that scales each component: of its channel, or of its irrep.
        dtype: of the feature.

    Attributes:
        size: channels, C.
        scalars: channels of 0e, S, which have m and b.
    """

    def __init__(self, irreps: Irreps, groups: np.ndarray, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        spread = spreading(irreps)  # (C, dim)
        scalar = np.concatenate([np.full(mul, ir.is_scalar) for mul, ir in irreps])
        self.size, self.scalars = len(spread), int(scalar.sum())
        of_group = (groups == np.arange(groups.max() + 1)[:, None]).astype(float)  # (groups, dim)
        self.spread, self.spread_groups = Tensor(spread, dtype), Tensor(of_group, dtype)
        self.mean_of_groups = Tensor(of_group.T / of_group.sum(1), dtype)  # (dim, groups)
        self.spread_scalars = Tensor(spread[scalar], dtype) if self.scalars else None  # (S, dim)
        self.take_scalars = Tensor(spread[scalar].T, dtype) if self.scalars else None  # (dim, S)
        self.multiply, self.add_row, self.eps = ops.MatMul(), AddBias(), Tensor(EPS, dtype)
        first = 0 < self.scalars < spread.shape[1] and scalar[: self.scalars].all()  # where other irreps follow them
        self.pad: Any = padding(self.scalars, spread.shape[1]) if first else None

    def means(self, squares: Tensor) -> Tensor:
        """Means over what has one s: (M, dim) to (M, groups)."""
        return self.multiply(squares, self.mean_of_groups)

    def scales(self, means: Tensor, weight: Tensor) -> Tensor:
        """The factors w / sqrt(s + eps) for s (M, groups) and w (C,), of each component: (M, dim)."""
        weights = self.spread_groups * self.multiply(weight.reshape(1, -1), self.spread)  # (groups, dim)
        return self.multiply(1 / ops.sqrt(means + self.eps), weights)

    def of_scalars(self, x: Tensor) -> Tensor:
        """Those components of (1, dim) that are scalars, (S,)."""
        return self.multiply(x, self.take_scalars).reshape(-1)

    def placed(self, scalars: Tensor) -> Tensor:
        """Numbers (S,) where the scalars are, and 0 elsewhere: (1, dim)."""
        return self.multiply(scalars.reshape(1, -1), self.spread_scalars)

    def add_bias(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The bias b (S,) added to the scalars of (N, dim), where there are any."""
        if bias is None:
            return x
        return self.add_row(x, self.placed(bias).reshape(-1) if self.pad is None else self.pad(bias))


def _within_graphs(
    channels: _Channels,
    x: Tensor,
    share: Tensor | None,
    weight: Tensor,
    node_graph: Tensor,
    node_mask: Tensor,
    graph_mask: Tensor,
) -> Tensor:
    """Equation (1) over the nodes of each graph, without b.

    Ghosts have a graph of their own, whose means are theirs alone: there the mask changes nothing.

    Args:
        channels: of the feature.
        x: (N, dim).
        share: (1, dim) of m that is subtracted; None for none.
        weight: (C,) w.
        node_graph, node_mask, graph_mask: (N,), (N,) and (G,).
    """
    count = segment_sum(ops.ones_like(node_mask), node_graph, graph_mask)
    part = (1 / ops.maximum(count, ops.ones_like(count))).reshape(-1, 1)  # (G, 1)
    if share is not None:
        mean = segment_sum(x, node_graph, graph_mask) * (part * share)  # (G, dim)
        x = x - gather(mean, node_graph)
    squares = segment_sum(x * x, node_graph, graph_mask) * part  # (G, dim)
    return x * gather(channels.scales(channels.means(squares), weight), node_graph)


def _parameter(name: str, start: str, size: int, dtype: mstype.Type) -> Any:
    """A parameter (size,); None where it would be empty."""
    return Parameter(initializer(start, (size,), dtype), name=name) if size else None


def _affine(channels: _Channels, weight: str, bias: str, dtype: mstype.Type) -> tuple[Any, Any]:
    """The parameters w and b of (1) with their names."""
    return _parameter(weight, "ones", channels.size, dtype), _parameter(bias, "zeros", channels.scalars, dtype)
