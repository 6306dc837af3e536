"""Gather, scatter and edge geometry: the only code of the project that moves values between nodes, edges and graphs.

Every function keeps derivatives of order 0 to 3 right and finite when it is compiled.
"""

from __future__ import annotations

from mindspore import Tensor, ops


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of ``values`` (N, ...) at ``index`` (E,); the result is (E, ...)."""
    return ops.gather(values, index, 0)


def segment_sum(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sum the rows of ``values`` (E, ...) that share a segment number (E,); the result is (count, ...)."""
    return ops.unsorted_segment_sum(values, segments, count)


def segment_mean(values: Tensor, segments: Tensor, mask: Tensor, count: int) -> Tensor:
    """Mean over the unmasked rows of each segment; an empty segment gives 0.

    Args:
        values: (N, F).
        segments: (N,) segment numbers.
        mask: (N,) 1 for rows that count, 0 for ghosts.
        count: number of segments.

    Returns:
        (count, F).
    """
    total = segment_sum(values * mask.reshape(-1, 1), segments, count)
    members = segment_sum(mask, segments, count)
    return total / ops.maximum(members, ops.ones_like(members)).reshape(-1, 1)


def edge_vectors(positions: Tensor, senders: Tensor, receivers: Tensor, shifts: Tensor) -> Tensor:
    """r_ij = positions[senders] + shifts - positions[receivers], (E, 3) Angstrom."""
    return gather(positions, senders) + shifts - gather(positions, receivers)


def safe_norm(vectors: Tensor) -> Tensor:
    """Length of each vector (E, 3), as (E, 1); zero vectors give 0 with derivatives 0 instead of NaN.

    The root sees a 1 in place of every zero (the double ``where``), so no derivative of any order divides by zero.
    """
    squared = (vectors * vectors).sum(-1, keepdims=True)
    positive = squared > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, squared, ops.ones_like(squared))), ops.zeros_like(squared))
