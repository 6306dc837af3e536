"""Softmax over the edges that lead to a node, smooth where a neighbour crosses the cutoff.

    (1)  a_ij = f_ij exp(s_ij) / (1 + sum_k f_ik exp(s_ik))
    (2)  a_ij = exp(s_ij) / sum_k exp(s_ik)

In (1) a neighbour whose f falls to 0 leaves its share to none, so that the a of a last neighbour fall to 0 too.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.graph_ops import gather, segment_sum


class ReceiverSoftmax(nn.Cell):
    """Equation (1), or (2), for each head.

    Args:
        heads: H.
        smooth: whether (1).
        dtype: of the logits.
    """

    def __init__(self, heads: int, smooth: bool, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.smooth = smooth
        self.largest, self.multiply, self.zeros = ops.UnsortedSegmentMax(), ops.MatMul(), ops.ZerosLike()
        # a product with ones spreads a column faster than broadcasting does on a CPU
        self.ones = Tensor(np.ones((1, heads)), dtype)

    def construct(self, logits: Tensor, envelope: Tensor, receivers: Tensor, like: Tensor) -> Tensor:
        """Logits s (E, H) to a (E, H).

        Numerator and denominator are divided by the exponential of the largest term, which changes no derivative.

        Args:
            logits: s.
            envelope: (E, 1) f; for (2) it is not read.
            receivers: (E,).
            like: any tensor with N rows.
        """
        top = self.largest(ops.stop_gradient(logits), receivers, like.shape[0])  # (N, H)
        if self.smooth:
            top = ops.maximum(top, self.zeros(top))  # of the 1
        top = ops.stop_gradient(top)
        powers = ops.exp(logits - gather(top, receivers))  # (E, H)
        if self.smooth:
            powers = powers * self.multiply(envelope, self.ones)
        total = segment_sum(powers, receivers, like)  # (N, H)
        if self.smooth:
            total = total + ops.exp(-top)
        return powers / gather(total, receivers)
