"""Fully connected tensor products of features with attributes, as e3nn defines, normalises and names them.

    (1)  y_o = sum_p c_p sum_uv W_p[u, v, o] sum_ij C_(l1 l2 l3) x_ui a_vj     over the paths p into o

C are Wigner 3j symbols.  c_p^2 is 2 l3 + 1 for the normalisation ``component``, (2 l1 + 1)(2 l2 + 1) for ``norm``, over
the number of products that are added: in all paths into the output (``element``), in this path times the number of
paths (``path``), or 1 (``none``).

The coupling with the attributes comes first, as one small matrix for each pair of irreps and each row, which all layers
with the same attributes share, and then W as one product of matrices for each irrep of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.e3.block_product import Block, BlockProduct, Matrices, whole_matrix
from models.e3.channel_mixing import ChannelMixing, Entry, Part
from models.e3.irreps import Irrep, Irreps, IrrepsError
from models.e3.wigner import wigner_3j
from models.graph_ops import to_type

IRREP_NORMALIZATIONS = ("component", "norm")
PATH_NORMALIZATIONS = ("element", "path", "none")


class Path(NamedTuple):
    """One path of a tensor product: places of its irreps in the two factors and in the output."""

    first: int
    second: int
    output: int


def fully_connected_paths(irreps_in: Irreps, irreps_attributes: Irreps, irreps_out: Irreps) -> list[Path]:
    """All paths that the selection rules allow, in e3nn's order.

    Raises:
        IrrepsError: an output that no path reaches.
    """
    paths = [
        Path(i, j, k)
        for i, (_, first) in enumerate(irreps_in)
        for j, (_, second) in enumerate(irreps_attributes)
        for k, (_, output) in enumerate(irreps_out)
        if output in first.products(second)
    ]
    reached = {path.output for path in paths}
    for k, part in enumerate(irreps_out):
        if k not in reached:
            raise IrrepsError(
                f"irreps {part}: no product of {irreps_in} with {irreps_attributes} contains them; expected outputs "
                "whose degree and parity two of them couple to"
            )
    return paths


def path_factors(
    irreps: tuple[Irreps, Irreps, Irreps],
    paths: Sequence[Path],
    products: Sequence[int],
    irrep_normalization: str,
    path_normalization: str,
) -> np.ndarray:
    """c_p of the equations for each path.

    Args:
        irreps: of the features, the attributes and the output.
        paths: of the product.
        products: of each path, how many products are added into one copy of its output.
        irrep_normalization, path_normalization: see above.

    Raises:
        ValueError: an unknown normalisation.
    """
    if irrep_normalization not in IRREP_NORMALIZATIONS or path_normalization not in PATH_NORMALIZATIONS:
        raise ValueError(
            f"normalizations {irrep_normalization!r}, {path_normalization!r}: expected one of "
            f"{', '.join(IRREP_NORMALIZATIONS)} and one of {', '.join(PATH_NORMALIZATIONS)}"
        )
    squares = []
    for path, count in zip(paths, products, strict=True):
        first, second, output = (part[k].ir.dim for part, k in zip(irreps, path, strict=True))
        same = [other for p, other in zip(paths, products, strict=True) if p.output == path.output]
        added = {"element": sum(same), "path": count * len(same), "none": 1}[path_normalization]
        squares.append((output if irrep_normalization == "component" else first * second) / added)
    return np.sqrt(squares)


def fan_in(
    irreps_out: Irreps, paths: Sequence[Path], products: Sequence[int], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """How many products are added in the output that each weight belongs to, and the same for each 0e of the output."""
    added = [0] * len(irreps_out)
    for path, count in zip(paths, products, strict=True):
        added[path.output] += count
    of_weights = [np.full(int(np.prod(shape)), added[path.output]) for path, shape in zip(paths, shapes, strict=True)]
    of_biases = [np.full(part.mul, count) for part, count in zip(irreps_out, added, strict=True) if part.ir.is_scalar]
    return np.concatenate(of_weights), np.concatenate([*of_biases, np.zeros(0, int)])


class Coupling(nn.Cell):
    """The matrices T of every pair of an input and an output irrep, made of the attributes of each row.

    T has the rows (component of the output, path), and the columns (component of the input).  Its numbers are sums of
    sqrt(2 l3 + 1) C a.

    Args:
        irreps: of the attributes.
        inputs, outputs: the irreps that are coupled.
        dtype: of the attributes.
        contraction: precision of the products with them.

    Attributes:
        places: number of the matrix of each pair.
        shapes: (rows, columns) of each matrix.
        whole: where they stand in one matrix, with the rows of each output below those of the one before.
    """

    def __init__(
        self,
        irreps: Irreps,
        inputs: Sequence[Irrep],
        outputs: Sequence[Irrep],
        dtype: mstype.Type,
        contraction: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        self.irreps, self.contraction = irreps, contraction
        self.places: dict[tuple[Irrep, Irrep], int] = {}
        shapes: list[tuple[int, int]] = []
        columns = []
        for first in inputs:
            for output in outputs:
                coefficients = _coefficients(irreps, first, output)
                if coefficients.shape[2]:
                    self.places[first, output] = len(shapes)
                    shapes.append((output.dim * coefficients.shape[2], first.dim))
                    columns.append(coefficients.reshape(irreps.dim, -1))
        self.coefficients = Tensor(np.concatenate(columns, 1), dtype)
        self.shapes = tuple(shapes)
        results = [
            [
                Block(i, self.places[first, output], shapes[self.places[first, output]][0] // output.dim)
                for i, first in enumerate(inputs)
                if (first, output) in self.places
            ]
            for output in outputs
        ]
        self.whole = whole_matrix([ir.dim for ir in inputs], shapes, [blocks for blocks in results if blocks])
        self.multiply, self.matrices = ops.MatMul(), Matrices(self.whole, contraction)

    def construct(self, attributes: Tensor) -> Any:
        """Attributes (M, dim), channels last, to the matrices as ``BlockProduct`` takes them."""
        return self.matrices(self.multiply(attributes, self.coefficients))


def _coefficients(irreps: Irreps, first: Irrep, output: Irrep) -> np.ndarray:
    """(dim of attributes, components of the output, paths, components of the input) of one pair; no path, 0 of them.

    They are C times the root of 2 l3 + 1, which is c_p of the usual normalisation.
    """
    paths = []
    for part, (mul, second) in zip(irreps.slices(), irreps, strict=True):
        if output in first.products(second):
            coupling = output.dim**0.5 * wigner_3j(first.l, second.l, output.l).transpose(1, 2, 0)
            for copy in range(mul):
                path = np.zeros((irreps.dim, output.dim, first.dim))
                path[part.start + copy + mul * np.arange(second.dim)] = coupling
                paths.append(path)
    return np.stack(paths, 2) if paths else np.zeros((irreps.dim, output.dim, 0, first.dim))


class FullyConnectedTensorProduct(nn.Cell):
    """Equation (1).

    The parameter ``weight`` is e3nn's: flat, of each path (mul_in, mul_attributes, mul_out), drawn from N(0, 1).

    Args:
        irreps_in, irreps_out: of the features and of the result.
        coupling: of the attributes, with all irreps of both.
        irrep_normalization, path_normalization: see above.
        internal_weights: whether there is a parameter; if not, ``construct`` is given weights.
        bias: whether each 0e of the result has a bias.
        dtype: of the parameters.
        contraction: precision of the products; what comes out has that of the features.
        sides: 2 where ``irreps_in`` are the same ones twice and ``layout.SideBySide`` puts features together.

    Attributes:
        numel: numbers of weights.
        fan_in: (numel,) how many products are added in the output that each weight belongs to.
        fan_in_of_bias: the same for each bias.

    Raises:
        IrrepsError: an output that no path reaches.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        coupling: Coupling,
        irrep_normalization: str,
        path_normalization: str,
        internal_weights: bool,
        bias: bool,
        dtype: mstype.Type,
        contraction: mstype.Type,
        sides: int = 1,
    ):
        super().__init__()
        self.contraction = contraction
        attributes = coupling.irreps
        paths = fully_connected_paths(irreps_in, attributes, irreps_out)
        shapes = [(irreps_in[i].mul, attributes[j].mul, irreps_out[k].mul) for i, j, k in paths]
        self.numel = sum(int(np.prod(shape)) for shape in shapes)
        products = [first * second for first, second, _ in shapes]
        factors = path_factors(
            (irreps_in, attributes, irreps_out), paths, products, irrep_normalization, path_normalization
        )
        together = Irreps([(sides * mul, ir) for mul, ir in irreps_in[: len(irreps_in) // sides]])
        blocks, entries, inputs = _couplings(together, sides, irreps_out, coupling, paths, shapes, factors)
        self.fan_in, self.fan_in_of_bias = fan_in(irreps_out, paths, products, shapes)
        self.weight: Any = None
        self.bias: Any = None
        if bias:
            self.bias = Parameter(initializer("zeros", (len(self.fan_in_of_bias),), dtype), name="bias")
        if internal_weights:
            self.weight = Parameter(initializer(Normal(1.0), (self.numel,), dtype), name="weight")
        self.couple = BlockProduct(together, coupling.shapes, coupling.whole, blocks, contraction)
        parts, place, biases = [], 0, 0
        for (mul, ir), count in zip(irreps_out, inputs, strict=True):
            biased = mul if bias and ir.is_scalar else 0
            parts.append(Part(place, ir.dim, count, mul, biases, biased))
            place, biases = place + ir.dim * count, biases + biased
        self.mixing = ChannelMixing(parts, entries, self.numel, biases, dtype, contraction)

    def construct(self, x: Tensor, matrices: Any, weights: Tensor | None = None) -> Tensor:
        """Features (M, dim) and what ``coupling`` returns to (M, dim of the result), channels last.

        Args:
            x: features.
            matrices: of the attributes.
            weights: (numel,) or (M, numel), of each row its own, where there is no parameter.
        """
        flat = self.weight if weights is None else weights
        if self.couple.kernel is not None and flat.ndim == 1:
            index, table = self.couple.index, self.couple.table
            x = to_type(x, self.contraction)
            return self.mixing.of_blocks(x, matrices, (index, index), (table, table), flat, self.bias)
        return self.mixing(self.couple(x, matrices), flat, self.bias)


def _couplings(
    irreps_in: Irreps,
    sides: int,
    irreps_out: Irreps,
    coupling: Coupling,
    paths: Sequence[Path],
    shapes: Sequence[tuple[int, int, int]],
    factors: np.ndarray,
) -> tuple[list[list[Block]], list[Entry], list[int]]:
    """For each irrep of the output the blocks that it is made of, all entries of weights, and how many channels."""
    starts = np.cumsum([0, *(np.prod(shape) for shape in shapes)])
    blocks: list[list[Block]] = [[] for _ in irreps_out]
    entries, inputs = [], [0] * len(irreps_out)
    for k, output in enumerate(irreps_out):
        for i, (mul, ir) in enumerate(irreps_in):
            # of each side the same paths, to which other weights belong
            of_sides = [
                [p for p, path in enumerate(paths) if (path.first, path.output) == (i + side * len(irreps_in), k)]
                for side in range(sides)
            ]
            copies = [(same, copy) for same in zip(*of_sides, strict=True) for copy in range(shapes[same[0]][1])]
            for same, copy in copies:
                for p in same:
                    weight, stride = int(starts[p]) + copy * output.mul, shapes[p][1] * output.mul
                    factor = factors[p] / output.ir.dim**0.5  # the rest is in the coupling
                    entries.append(Entry(k, inputs[k], 0, weight, stride, mul // sides, output.mul, factor))
                    inputs[k] += mul // sides
            if copies:
                blocks[k].append(Block(i, coupling.places[ir, output.ir], len(copies)))
    return blocks, entries, inputs
