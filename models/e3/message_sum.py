"""Sums over the neighbours of a node of depthwise tensor products with weights of each pair of atoms.

    (1)  m_i = sum_j w_ij (x_j (x) a_ij)

(x) is ``depthwise_product``: each copy of the features couples with the attributes of the edge by itself.  Both
directions of a pair have the same w; edge e + P is the reverse of edge e.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.cpu_kernels import load
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
        kernels = load(dtype)
        self.kernel: Any = kernels.messages if kernels else None

    def construct(self, x: Tensor, matrices: Any, weights: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """The sums (N, dim of irreps_out).

        Args:
            x: (N, dim of irreps_in).
            matrices: what ``coupling`` returns of the attributes of the E edges.
            weights: (P, numel).
            receivers, senders: (E,).
        """
        product = self.product
        if self.kernel is not None:
            tables = product.couple.table, product.places, product.factors, product.couple.like
            return self.kernel(x, matrices, weights, receivers, senders, *tables)
        messages = product(gather(x, senders), matrices, weights)  # (E, dim of irreps_out)
        return segment_sum(messages, receivers, x)
