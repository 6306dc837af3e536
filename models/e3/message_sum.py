"""Sums over the neighbours of a node of depthwise tensor products with weights of each pair of atoms.

    (1)  m_i = sum_j w_ij (x_j (x) a_ij)

(x) is ``depthwise_product``: each copy of the features couples with the attributes of the edge by itself.  Both
directions of a pair have the same w; edge e + P is the reverse of edge e.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.e3.depthwise_product import DepthwiseTensorProduct
from models.e3.irreps import Irreps
from models.e3.tensor_product import Coupling
from models.graph_ops import gather, segment_sum


class MessageSum(nn.Cell):
    """Equation (1).

    Args:
        irreps_in: of the features.
        coupling: of the attributes.
        keep: irreps that the result may have.
        dtype: of features and weights.

    Attributes:
        irreps_out: of the result.
        numel: weights of a pair.
    """

    def __init__(self, irreps_in: Irreps, coupling: Coupling, keep: Irreps, dtype: mstype.Type):
        super().__init__()
        self.product = DepthwiseTensorProduct(irreps_in, coupling, keep, "component", "element", False, dtype, dtype)
        self.irreps_out, self.numel = self.product.irreps_out, self.product.numel

    def construct(self, x: Tensor, attributes: Any, weights: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """The sums (N, dim of irreps_out).

        Args:
            x: (N, dim of irreps_in).
            attributes: what ``depthwise_product.prepared`` makes of those of the E edges.
            weights: (P, numel).
            receivers, senders: (E,).
        """
        if self.product.kernel is not None:
            return self.product.by_kernel(x, attributes, weights, receivers, senders)
        messages = self.product(gather(x, senders), attributes, weights)  # (E, dim of irreps_out)
        return segment_sum(messages, receivers, x)
