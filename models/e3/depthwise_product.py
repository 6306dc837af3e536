"""Depthwise tensor products: every copy of the features couples with the attributes of its row by itself.

    (1)  y_pu = c_p W_p[u] sum_ij C_(l1 l2 l3) x_ui a_j

for the paths p, with weights of each row, of both edges of a pair or of all; e3nn's ``uvu`` with one copy of each
attribute.  c_p are those of ``tensor_product``.  A kernel for CPUs makes what couples with the attributes of a row
where it needs it; ``prepared`` is what these products read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

NO_TABLES = (np.zeros((0, 5), int), np.zeros((0, 7), int), np.zeros(0))  # parts, entries and factors of no mixture


def prepared(coupling: Coupling) -> nn.Cell:
    """What makes of attributes (M, dim) what these products read: themselves with a kernel, else the matrices."""
    return nn.Identity() if load(coupling.contraction) else coupling


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
        self.factors = factors
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
        self.kernel: Any = kernels.mixed_products if kernels else None
        # of the segments of the coupling, which are those of the results in turn
        self.paths_of_segments = [p for order in orders for p in order]
        self.starts, self.coupling = starts, (coupling,)  # in a tuple: the cell of another one
        if kernels:
            self.layout, self.numbers = self.tables(*NO_TABLES)
            self.own, self.no_mixture = Tensor(np.zeros(1), mstype.int32), Tensor(np.zeros(1), contraction)
            self.no_bias = Tensor(np.zeros(self.irreps_out.dim), contraction)
        else:
            index = np.concatenate([starts[p] + np.arange(each[p].mul) for order in orders for p in order])
            scales = np.concatenate([np.full(each[p].mul, factors[p]) for order in orders for p in order])
            self.weights = WeightMap(self.numel, [index[None, None]], [scales[None, None]], dtype)
            self.spread = Spread(runs_of(self.irreps_out), 1.0, contraction)

    def construct(self, x: Tensor, attributes: Any, weights: Tensor) -> Tensor:
        """Features (M, dim), what ``prepared`` makes of attributes, and weights to the result (M, dim).

        Weights are (M, numel), (M / 2, numel) of pairs, whose edges are the rows e and e + M / 2, or (1, numel).
        """
        if self.kernel is not None:
            return self.by_kernel(x, attributes, weights, self.own, self.own)
        coupled = self.couple(x, attributes)
        scales = self.weights(weights)[0].reshape(-1, self.channels)
        if 2 * weights.shape[0] == x.shape[0]:
            scales = both_ways(scales)
        return to_type(coupled * self.spread(to_type(scales, self.contraction)), x.dtype)

    def by_kernel(self, x: Tensor, attributes: Tensor, weights: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """With a kernel: the result, or its sums over the rows of receivers, of features that senders take."""
        kind = self.contraction
        factors = to_type(x, kind), to_type(attributes, kind), to_type(weights, kind)
        tables = receivers, senders, self.layout, self.numbers
        return to_type(self.kernel(*factors, self.no_mixture, self.no_bias, *tables), x.dtype)

    def tables(self, parts: np.ndarray, entries: np.ndarray, factors: np.ndarray) -> tuple[Tensor, Tensor]:
        """``layout`` and ``numbers`` of ``models.cpu_kernels.mixed_products``, with those of a mixture behind it."""
        coefficients = self.coupling[0].coefficients.asnumpy()
        attributes, elements = np.nonzero(coefficients)  # in the order of attributes
        segments, terms = self.couple.table.asnumpy(), np.stack((elements, attributes), 1)
        counts = len(segments), len(terms), len(parts), len(entries), coefficients.shape[1], self.irreps_out.dim
        layout: Sequence[Any] = counts, segments, self.starts[self.paths_of_segments], terms, parts, entries
        numbers = self.factors[self.paths_of_segments], coefficients[attributes, elements], factors
        integers = np.concatenate([np.asarray(table).reshape(-1) for table in layout])
        return Tensor(integers.astype(np.int32)), Tensor(np.concatenate(numbers), self.contraction)


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
