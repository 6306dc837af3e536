"""Depthwise tensor products: every copy of the features couples with the attributes of its row by itself.

    (1)  y_pu = c_p W_p[u] sum_ij C_(l1 l2 l3) x_ui a_j

for the paths p, with weights of each row, of both edges of a pair or of all; e3nn's ``uvu`` with one copy of each
attribute.  c_p are those of ``tensor_product``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.cpu_kernels import load
from models.e3.block_product import Block, BlockProduct
from models.e3.channels import Spread, runs_of
from models.e3.irreps import Irrep, Irreps, IrrepsError
from models.e3.tensor_product import Coupling, Path, path_factors
from models.e3.weight_map import WeightMap
from models.graph_ops import both_ways, to_type


class DepthwiseTensorProduct(nn.Cell):
    """Equation (1).

    The weights of a row are e3nn's, flat, of each path (mul_in,), with the paths in the order of ``paths``.  Copies of
    one irrep of the result are together, in the order of the paths.

    Args:
        irreps_in: of the features.
        coupling: of attributes with one copy of each irrep.
        keep: irreps that the result may have.
        irrep_normalization, path_normalization: see above.
        even_first: whether an even irrep of the result stands before the odd one of its degree, or behind it (e3nn).
        dtype: of the weights.
        contraction: precision of the products; what comes out has that of the features.

    Raises:
        IrrepsError: attributes with several copies, or none of the irreps that may be kept can be reached.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        coupling: Coupling,
        keep: Irreps,
        irrep_normalization: str,
        path_normalization: str,
        even_first: bool,
        dtype: mstype.Type,
        contraction: mstype.Type,
    ):
        super().__init__()
        attributes = coupling.irreps
        if any(mul != 1 for mul, _ in attributes):
            raise IrrepsError(f"attributes {attributes}: expected one copy of each irrep, for each edge has its own")
        found = _paths(irreps_in, attributes, keep)
        each = Irreps([(irreps_in[i].mul, output) for i, _, output in found])
        self.paths = [Path(i, j, k) for k, (i, j, _) in enumerate(found)]
        self.irreps_out = each.sort(even_first).irreps.simplify()
        outputs = [part.ir for part in self.irreps_out]
        factors = path_factors(
            (irreps_in, attributes, each), self.paths, [1] * len(found), irrep_normalization, path_normalization
        )
        factors = factors / np.sqrt([output.dim for _, _, output in found])  # the rest is in the coupling
        starts = np.cumsum([0, *(part.mul for part in each)])
        self.numel = int(starts[-1])
        orders = [[p for p, path in enumerate(found) if path[2] == output] for output in outputs]
        blocks = []
        for output, order in zip(outputs, orders, strict=True):
            copies = Counter(found[p][0] for p in order)
            blocks.append([Block(i, coupling.places[irreps_in[i].ir, output], copies[i]) for i in sorted(copies)])
        self.contraction, self.channels = contraction, self.irreps_out.num_irreps
        self.couple = BlockProduct(irreps_in, coupling.shapes, coupling.whole, blocks, contraction)
        kernels = load(contraction)
        self.kernel: Any = kernels.weighted_blocks if kernels else None
        if kernels:
            paths = [p for order in orders for p in order]  # of the segments of the coupling
            self.places = Tensor(starts[paths], mstype.int32)
            self.factors = Tensor(factors[paths], contraction)
        else:
            index = np.concatenate([starts[p] + np.arange(each[p].mul) for order in orders for p in order])
            scales = np.concatenate([np.full(each[p].mul, factors[p]) for order in orders for p in order])
            self.weights = WeightMap(self.numel, [index[None, None]], [scales[None, None]], dtype)
            self.spread = Spread(runs_of(self.irreps_out), 1.0, contraction)

    def construct(self, x: Tensor, matrices: Any, weights: Tensor) -> Tensor:
        """Features (M, dim), what ``coupling`` returns and weights to the result (M, dim).

        Weights are (M, numel), (M / 2, numel) of pairs, whose edges are the rows e and e + M / 2, or (1, numel).
        """
        if self.kernel is not None:
            features, scales = to_type(x, self.contraction), to_type(weights, self.contraction)
            tables = self.couple.table, self.places, self.factors
            return to_type(self.kernel(features, matrices, scales, *tables, self.couple.like), x.dtype)
        coupled = self.couple(x, matrices)
        scales = self.weights(weights)[0].reshape(-1, self.channels)
        if 2 * weights.shape[0] == x.shape[0]:
            scales = both_ways(scales)
        return to_type(coupled * self.spread(to_type(scales, self.contraction)), x.dtype)


def _paths(irreps_in: Irreps, attributes: Irreps, keep: Irreps) -> list[tuple[int, int, Irrep]]:
    """Places of the two factors and the irrep of the result of each path, in e3nn's order.

    Raises:
        IrrepsError: there is none.
    """
    found = [
        (i, j, output)
        for i, (_, first) in enumerate(irreps_in)
        for j, (_, second) in enumerate(attributes)
        for output in first.products(second)
        if output in keep
    ]
    if not found:
        raise IrrepsError(f"irreps {keep}: no product of {irreps_in} with {attributes} contains one of them")
    return found
