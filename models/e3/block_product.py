"""Products of small matrices, one of each row, with the blocks of a feature: the one contraction of models/e3.

    (1)  z_k[r] = (+)_b sum_m T_kb[r, m] x_b[m]

x_b (2 l_b + 1, mul_b) are irreps of a feature, T_kb are matrices of the same row, which is a node or an edge, and (+)
puts channels side by side.  With T = sum_j a_j C_j it couples x with attributes a by Clebsch-Gordan coefficients, and
with rotation matrices in place of T it turns x.  The result is linear in x and linear in T.

On a CPU all T of a row are one row of numbers, and so are all z_k, (M, sum of r times channels); a kernel takes one to
the other.  Otherwise each T is a tensor (M, rows, columns), each z_k one (M r, channels), with the r of a row together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.cpu_kernels import load
from models.e3.irreps import Irreps
from models.e3.layout import split_and_join
from models.graph_ops import to_type

FIRST, SECOND, OWN = range(3)  # which row of x a block reads: that of one of two indices, or its own
NUMBER = -1  # in place of irreps of x: the result is the number T itself


class Block(NamedTuple):
    """One product of equation (1).

    Attributes:
        irrep: which irreps of x.
        matrix: which of the matrices; its rows are (r, copy).
        copies: results for each r, whose channels are side by side.
        end: ``FIRST``, ``SECOND`` or ``OWN``.
    """

    irrep: int
    matrix: int
    copies: int
    end: int = OWN


class Matrices(nn.Cell):
    """The T of all rows as the products take them.

    Args:
        shapes: (rows, columns) of each matrix of a row.
        contraction: precision of the products.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.together, self.contraction = load(contraction) is not None, contraction
        self.shapes = tuple((-1, rows, columns) for rows, columns in shapes)
        self.split, _ = split_and_join([rows * columns for rows, columns in shapes])

    def construct(self, flat: Tensor) -> Any:
        """(M, sum of rows times columns) to [(M, rows, columns)], or to itself for a kernel."""
        flat = to_type(flat, self.contraction)
        if self.together:
            return flat
        parts = self.split(flat)
        matrices: tuple = ()
        for k in range(len(self.shapes)):
            matrices = (*matrices, parts[k].reshape(self.shapes[k]))
        return matrices


class BlockProduct(nn.Cell):
    """Equation (1).

    Args:
        irreps: of x.
        shapes: of the matrices.
        results: of each z_k its blocks, which all have rows r times copies rows in their matrices.
        contraction: precision of the products.

    Attributes:
        kernel: whether a kernel does it.
    """

    def __init__(
        self,
        irreps: Irreps,
        shapes: Sequence[tuple[int, int]],
        results: Sequence[Sequence[Block]],
        contraction: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        self.contraction = contraction
        self.widths = tuple(tuple(irreps[b].mul * copies for b, _, copies, _ in blocks) for blocks in results)
        kernels = load(contraction)
        self.kernel: Any = kernels.block_product if kernels else None
        if kernels:
            self.table, _ = segments(irreps, shapes, results)
            self.index = Tensor(np.zeros(1), mstype.int32)  # no segment reads it
            rows = [shapes[blocks[0].matrix][0] // blocks[0].copies for blocks in results]
            width = sum(r * sum(widths) for r, widths in zip(rows, self.widths, strict=True))
            self.like = Tensor(np.zeros((1, width)), contraction)
        self.split, _ = split_and_join([part.dim for part in irreps])
        self.shapes = tuple((-1, part.ir.dim, part.mul) for part in irreps)
        self.results = tuple(tuple(map(tuple, blocks)) for blocks in results)
        self.joins = tuple(split_and_join(widths)[1] for widths in self.widths)
        self.multiply = ops.BatchMatMul()

    def construct(self, x: Tensor, matrices: Any) -> Any:
        """Features (M, dim) and what ``Matrices`` returns to the z_k, in the precision of the contraction."""
        x = to_type(x, self.contraction)
        if self.kernel is not None:
            return self.kernel(x, matrices, self.index, self.index, self.table, self.table, self.like)
        flat = self.split(x)
        results: tuple = ()
        for k in range(len(self.results)):
            parts: tuple = ()
            for j in range(len(self.results[k])):
                irrep, matrix = self.results[k][j][0], self.results[k][j][1]
                product = self.multiply(matrices[matrix], flat[irrep].reshape(self.shapes[irrep]))
                parts = (*parts, product.reshape(-1, self.widths[k][j]))  # (M r, copies mul)
            results = (*results, self.joins[k](parts))
        return results


class BlockSum(nn.Cell):
    """The transpose of equation (1): x_b = sum_k T_kb^T z_k, over the z_k in which x_b takes part.

    Args: as those of ``BlockProduct``, with one copy in every block.
    """

    def __init__(
        self,
        irreps: Irreps,
        shapes: Sequence[tuple[int, int]],
        results: Sequence[Sequence[Block]],
        contraction: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        self.contraction = contraction
        kernels = load(contraction)
        self.kernel: Any = kernels.block_transpose if kernels else None
        if kernels:
            indexed = [[block._replace(end=FIRST) for block in blocks] for blocks in results]
            (_, self.of_rows), (_, self.of_sums) = (segments(irreps, shapes, each) for each in (results, indexed))
            self.index = Tensor(np.zeros(1), mstype.int32)
            self.like = Tensor(np.zeros((1, irreps.dim)), contraction)
        self.splits = tuple(split_and_join([irreps[b].mul for b, *_ in blocks])[0] for blocks in results)
        places = [
            [
                (k, j, block.matrix)
                for k, blocks in enumerate(results)
                for j, block in enumerate(blocks)
                if block.irrep == b
            ]
            for b in range(len(irreps))
        ]
        self.places = tuple(map(tuple, places))
        self.muls = tuple(part.mul for part in irreps)
        self.widths = tuple(part.dim for part in irreps)
        _, self.join = split_and_join(self.widths)
        self.multiply, self.add = ops.BatchMatMul(transpose_a=True), ops.AddN()

    def construct(self, z: Any, matrices: Any) -> Tensor:
        """The z_k and what ``Matrices`` returns to features (M, dim), in the precision of z."""
        if self.kernel is not None:
            z_ = to_type(z, self.contraction)
            return to_type(self.kernel(z_, matrices, self.index, self.index, self.of_rows, z_, self.like), z.dtype)
        kind = z[0].dtype
        parts: tuple = ()
        for k in range(len(self.splits)):
            parts = (*parts, self.splits[k](to_type(z[k], self.contraction)))
        blocks: tuple = ()
        for b in range(len(self.places)):
            terms: tuple = ()
            for place in self.places[b]:
                matrix = matrices[place[2]]
                part = parts[place[0]][place[1]].reshape(matrix.shape[0], matrix.shape[1], self.muls[b])
                terms = (*terms, self.multiply(matrix, part).reshape(-1, self.widths[b]))
            blocks = (*blocks, self.add(terms) if len(terms) > 1 else terms[0])
        return to_type(self.join(blocks), kind)

    def by_index(self, z: Tensor, matrices: Tensor, index: Tensor, like: Tensor) -> Tensor:
        """With a kernel: the sums (N, dim) of the features of rows with one index (M,); ``like`` has N rows."""
        z_ = to_type(z, self.contraction)
        return to_type(self.kernel(z_, matrices, index, index, self.of_sums, like, self.like), z.dtype)


def segments(
    irreps: Irreps, shapes: Sequence[tuple[int, int]], results: Sequence[Sequence[Block]]
) -> tuple[Tensor, Tensor]:
    """The tables of ``models.cpu_kernels.row_blocks`` for equation (1), of all blocks and of those with irreps.

    Args: as those of ``BlockProduct``.
    """
    of_matrix = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
    table, start = [], 0
    for blocks in results:
        components = shapes[blocks[0].matrix][0] // blocks[0].copies
        muls = [1 if block.irrep == NUMBER else irreps[block.irrep].mul for block in blocks]
        channels = sum(mul * block.copies for mul, block in zip(muls, blocks, strict=True))
        place = start
        for mul, (irrep, matrix, copies, end) in zip(muls, blocks, strict=True):
            x, columns = (0, 0) if irrep == NUMBER else (irreps.slices()[irrep].start, shapes[matrix][1])
            for copy in range(copies):
                t = int(of_matrix[matrix]) + copy * columns
                table.append((x, columns, mul, t, copies * columns, components, place, channels, end))
                place += mul
        start += components * channels
    linear = [row for row in table if row[1]]
    return Tensor(np.array(table), mstype.int32), Tensor(np.array(linear), mstype.int32)
