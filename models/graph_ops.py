"""Gather, scatter and edge geometry: the only code of the project that moves values between nodes, edges and graphs.

Every function keeps derivatives of order 0 to 3 right and finite when it is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.cpu_kernels import load, on_cpu


class _Gather(nn.Cell):
    """Rows of a table, whose gradient is a segment sum."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        # operators, not functions: the cache behind the functions cannot be differentiated twice
        self.gather, self.zeros = ops.Gather(), ops.ZerosLike()

    def construct(self, values: Tensor, index: Tensor) -> Tensor:
        """Rows of ``values`` (N, F) at ``index`` (E,)."""
        return self.gather(values, index, 0)

    def bprop(self, values: Tensor, index: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient of a row is the sum over the places where it went."""
        return _segment_sum(dout, index, values), self.zeros(index)


class _SegmentSum(nn.Cell):
    """Segment sum whose gradient is a plain gather.

    The operator's own gradient also masks negative segment numbers, which our graphs never have; that mask takes a
    sixth of a training step on a CPU.  The two cells are each other's gradient, so that no order brings it back.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.sum, self.zeros = ops.UnsortedSegmentSum(), ops.ZerosLike()

    def construct(self, values: Tensor, segments: Tensor, like: Tensor) -> Tensor:
        """Rows of ``values`` (E, F) summed into as many rows as ``like`` has."""
        return self.sum(values, segments, like.shape[0])

    def bprop(self, values: Tensor, segments: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient of a sum goes to every summand."""
        return _gather(dout, segments), self.zeros(segments), self.zeros(like)


class _BothWays(nn.Cell):
    """Rows of pairs, repeated for the reverse edges; the gradient of its own Concat is an operator without a page.

    This cell and ``_PairTotal`` are each other's gradient.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.concat = ops.Concat(-2)

    def construct(self, values: Tensor) -> Tensor:
        """(..., P, F) to (..., 2 P, F)."""
        return self.concat((values, values))

    def bprop(self, values: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradients of the two edges of a pair add up."""
        return (_pair_total(dout),)


class _PairTotal(nn.Cell):
    """The sum over the two edges of each pair."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.sum = ops.ReduceSum()

    def construct(self, values: Tensor) -> Tensor:
        """(..., 2 P, F) to (..., P, F)."""
        *others, edges, features = values.shape
        return self.sum(values.reshape(*others, 2, edges // 2, features), -3)

    def bprop(self, values: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient of a sum goes to both."""
        return (_both_ways(dout),)


class _Difference(nn.Cell):
    """The rows of P edges less those of their reverse edges.

    This cell and ``_Opposites`` are each other's gradient.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.split = ops.Split(0, 2)

    def construct(self, values: Tensor) -> Tensor:
        """(2 P, ...) to (P, ...)."""
        first, second = self.split(values)
        return first - second

    def bprop(self, values: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient goes to both, with both signs."""
        return (_opposites(dout),)


class _Opposites(nn.Cell):
    """Rows of pairs, each repeated with the other sign for the reverse edge."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.concat = ops.Concat(0)

    def construct(self, values: Tensor) -> Tensor:
        """(P, ...) to (2 P, ...)."""
        return self.concat((values, -values))

    def bprop(self, values: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradients of the two edges of a pair, with their signs."""
        return (_difference(dout),)


_gather = _Gather()
_segment_sum = _SegmentSum()
_both_ways = _BothWays()
_pair_total = _PairTotal()
_difference = _Difference()
_opposites = _Opposites()


def to_type(values: Tensor, kind: mstype.Type) -> Tensor:
    """The values in another precision; nothing is done where they have it already."""
    return values if values.dtype == kind else ops.cast(values, kind)


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of ``values`` (N, ...) at ``index`` (E,); the result is (E, ...)."""
    return _gather(values, index)


def segment_sum(values: Tensor, segments: Tensor, like: Tensor) -> Tensor:
    """Sum the rows of ``values`` that share a segment number.

    Args:
        values: (E, ...).
        segments: (E,) numbers from 0 to M - 1.
        like: any tensor with M rows; only its length is used, which keeps the shape static.

    Returns:
        (M, ...).
    """
    return _segment_sum(values, segments, like)


def segment_mean(values: Tensor, segments: Tensor, mask: Tensor, like: Tensor) -> Tensor:
    """Mean over the unmasked rows of each segment; an empty segment gives 0.

    Args:
        values: (N, F).
        segments: (N,) segment numbers.
        mask: (N,) 1 for rows that count, 0 for ghosts.
        like: any tensor with one row per segment.

    Returns:
        (M, F).
    """
    total = segment_sum(values * mask.reshape(-1, 1), segments, like)
    members = segment_sum(mask, segments, like)
    return total / ops.maximum(members, ops.ones_like(members)).reshape(-1, 1)


def edge_vectors(positions: Tensor, senders: Tensor, receivers: Tensor, shifts: Tensor) -> Tensor:
    """r_ij = positions[senders] + shifts - positions[receivers], (E, 3) Angstrom."""
    return gather(positions, senders) + shifts - gather(positions, receivers)


def safe_norm(vectors: Tensor) -> Tensor:
    """Length of each vector (E, 3), as (E, 1); zero vectors give 0 with derivatives 0 instead of NaN.

    The root sees a 1 in place of every zero, so no derivative of any order divides by zero.  There is no ``where``: its
    gradient has an operator, ZerosLikeExt, that MindSpore documents for Ascend alone.
    """
    squared = (vectors * vectors).sum(-1, keepdims=True)
    zero = ops.cast(squared <= 0, squared.dtype)
    return ops.sqrt(squared + zero) * (1 - zero)


def pair_vectors(positions: Tensor, senders: Tensor, shifts: Tensor) -> Tensor:
    """``edge_vectors`` of the first half of the edges, (P, 3); the sender of a reverse edge is the receiver."""
    return _difference(gather(positions, senders)) + shifts[: senders.shape[0] // 2]


def opposite_ways(values: Tensor) -> Tensor:
    """What changes its sign with the direction, of the P pairs (P, F), for all E edges (E, F)."""
    return _opposites(values)


def both_ways(values: Tensor) -> Tensor:
    """What has no direction, of the P pairs (..., P, F), for all E edges (..., E, F)."""
    return _both_ways(values)


def pair_total(values: Tensor) -> Tensor:
    """The sum over both directions of each pair: (..., E, F) to (..., P, F)."""
    return _pair_total(values)


class PairDistances(nn.Cell):
    """The distance of the atoms of each pair, which is the length of ``edge_vectors`` for the first half of the edges.

    Args:
        dtype: of the positions.
    """

    def __init__(self, dtype: mstype.Type):
        super().__init__()
        kernels = load(dtype)
        self.pair_vectors: Any = kernels.pair_vectors if kernels else None
        self.lengths: Any = kernels.lengths if kernels else None

    def construct(self, positions: Tensor, senders: Tensor, receivers: Tensor, shifts: Tensor) -> Tensor:
        """Positions (N, 3), the ends of E edges and their shifts (E, 3) to (E/2, 1); Angstrom."""
        if self.pair_vectors is not None:
            return self.lengths(self.pair_vectors(positions, shifts[: shifts.shape[0] // 2], receivers, senders))
        return safe_norm(pair_vectors(positions, senders, shifts))


class PairSum(nn.Cell):
    """m_i = sum_j f_ij W_ij x_j over the neighbours j of each atom i.

    The two directions of a pair have one W and one f: edge e + P is the reverse of edge e.

    Args:
        features: F.
        matrices: whether W are F x F matrices, by rows (P, F F), instead of a factor of each feature, (P, F).
        dtype: of the filters.
    """

    def __init__(self, features: int, matrices: bool, dtype: mstype.Type):
        super().__init__()
        kernels = load(dtype)
        self.kernel: Any = kernels.pair_sum if kernels and not matrices else None
        self.matrices, self.on_cpu = matrices, on_cpu()
        # a product with ones spreads a column over the others five times as fast as broadcasting does on a CPU
        self.ones = Tensor(np.ones((1, features * features if matrices else features)), dtype)
        self.spread, self.unstack = ops.MatMul(), ops.Unstack()

    def prepare(self, filters: tuple | Tensor, envelope: Tensor) -> tuple:
        """What ``construct`` takes of several filters, made of all of them at once on an accelerator.

        Args:
            filters: B of W, (P, F) or (P, F F), as ``blocks.SideBySide`` returns them.
            envelope: (P, 1) f of all of them.
        """
        prepared: tuple = ()
        if self.kernel is not None:
            for one in filters:
                prepared = (*prepared, (one, envelope))
            return prepared
        spread = self.spread(envelope, self.ones)
        if self.on_cpu:
            for one in filters:
                scaled = one * spread
                prepared = (*prepared, scaled if self.matrices else both_ways(scaled))
            return prepared
        scaled = filters * spread  # (B, P, F)
        return self.unstack(scaled if self.matrices else both_ways(scaled))

    def construct(self, nodes: Tensor, filters: Any, receivers: Tensor, senders: Tensor) -> Tensor:
        """The sums (N, F), in the precision of the nodes.

        Args:
            nodes: (N, F) x.
            filters: one of what ``prepare`` returns.
            receivers, senders: (E,) the atoms i and j of each edge.
        """
        if self.kernel is not None:
            return self.kernel(nodes, *filters, receivers, senders)  # which reads P of the E indices
        neighbours = gather(to_type(nodes, filters.dtype), senders)  # (E, F)
        messages = _by_matrices(filters, neighbours) if self.matrices else filters * neighbours  # (E, F)
        return segment_sum(to_type(messages, nodes.dtype), receivers, nodes)


def _by_matrices(filters: Tensor, values: Tensor) -> Tensor:
    """W x of each edge: W (P, F F) of each pair by rows and x (E, F) to (E, F)."""
    features = values.shape[1]
    columns = values.reshape(2, -1, features).transpose(1, 2, 0)  # (P, F, 2), of the two edges of a pair
    products = ops.bmm(filters.reshape(-1, features, features), columns)
    return products.transpose(2, 0, 1).reshape(-1, features)


class TripletSum(nn.Cell):
    """s_e = sum_t x_in(t) (W r_t) over the triplets t with out(t) = e, elementwise products."""

    def __init__(self):
        super().__init__()
        kernels = load()
        self.kernel: Any = kernels.triplet_sum if kernels else None
        self.multiply = ops.MatMul(transpose_b=True)

    def construct(
        self, edges: Tensor, basis: Tensor, weight: Tensor, triplet_in: Tensor, triplet_out: Tensor
    ) -> Tensor:
        """The sums (E, I).

        Args:
            edges: (E, I) x.
            basis: (T, B) r.
            weight: (I, B) W.
            triplet_in, triplet_out: (T,) the two edges of each triplet.
        """
        weight = to_type(weight, edges.dtype)
        if self.kernel is not None and edges.dtype != mstype.float16:
            return self.kernel(edges, basis, weight, triplet_in, triplet_out)
        filters = self.multiply(basis, weight)  # (T, I)
        return segment_sum(gather(edges, triplet_in) * filters, triplet_out, edges)
