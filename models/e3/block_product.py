"""Products of small matrices, one of each row, with the blocks of a feature: the one contraction of models/e3.

    (1)  z_k[r] = (+)_b sum_m T_kb[r, m] x_b[m]

x_b (2 l_b + 1, mul_b) are irreps of a feature, T_kb are matrices of the same row, which is a node or an edge, and (+)
puts channels side by side.  With T = sum_j a_j C_j it couples x with attributes a by Clebsch-Gordan coefficients, and
with rotation matrices in place of T it turns x.  The result is linear in x and linear in T.

All z_k are one row of numbers, (M, sum of r times channels).  For a kernel all T of a row are one row of numbers too.
Otherwise they are one matrix (M, all r and copies, all components of x), which is zero where a block has no part; then
irreps with the same number of copies, whose channels lie below each other, are one product of matrices for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.cpu_kernels import load
from models.e3.irreps import Irreps
from models.e3.layout import arrangement, groups_of, split_and_join
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
        whole: see ``whole_matrix``.
        contraction: precision of the products.
    """

    def __init__(self, whole: np.ndarray, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.together, self.contraction = load(contraction) is not None, contraction
        if not self.together:
            self.shape = (-1, *whole.shape)
            self.place, self.multiply = Tensor(_selection(whole), contraction), ops.MatMul()

    def construct(self, flat: Tensor) -> Any:
        """(M, sum of rows times columns) to one matrix of each row, in a tuple, or to itself for a kernel."""
        flat = to_type(flat, self.contraction)
        return flat if self.together else (self.multiply(flat, self.place).reshape(self.shape),)


class _Views(nn.Cell):
    """The part of the whole matrix of a row that belongs to each group of irreps.

    Args:
        whole: what the whole matrix holds, see ``whole_matrix``.
        parts: the same of what each group needs.
        contraction: precision of the products.
    """

    def __init__(self, whole: np.ndarray, parts: Sequence[np.ndarray], contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.needless = len(parts) == 1 and np.array_equal(parts[0], whole)
        self.shapes = tuple((-1, *part.shape) for part in parts)
        self.place: Any = None
        if not self.needless:
            place_of = {int(number): place for place, number in enumerate(whole.reshape(-1)) if number >= 0}
            wanted = np.concatenate([part.reshape(-1) for part in parts])
            places = np.array([place_of[int(number)] if number >= 0 else -1 for number in wanted])
            self.place = Tensor(_selection(places, whole.size), contraction)
        self.split, _ = split_and_join([part.size for part in parts])
        self.multiply = ops.MatMul()

    def construct(self, matrices: tuple) -> tuple:
        """What ``Matrices`` returns to one matrix (M, rows, columns) for each group."""
        if self.needless:
            return matrices
        parts = self.split(self.multiply(matrices[0].reshape(-1, self.place.shape[0]), self.place))
        views: tuple = ()
        for k in range(len(self.shapes)):
            views = (*views, parts[k].reshape(self.shapes[k]))
        return views


class BlockProduct(nn.Cell):
    """Equation (1).

    Args:
        irreps: of x.
        shapes: of the matrices.
        whole: of the cell ``Matrices`` that makes them.
        results: of each z_k its blocks, which all have rows r times copies rows in their matrices.
        contraction: precision of the products.

    Attributes:
        kernel: whether a kernel does it.
    """

    def __init__(
        self,
        irreps: Irreps,
        shapes: Sequence[tuple[int, int]],
        whole: np.ndarray,
        results: Sequence[Sequence[Block]],
        contraction: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        self.contraction = contraction
        kernels = load(contraction)
        self.kernel: Any = kernels.block_product if kernels else None
        if kernels:
            self.table, _ = segments(irreps, shapes, results)
            self.index = Tensor(np.zeros(1), mstype.int32)  # no segment reads it
            channels = [sum(irreps[block.irrep].mul * block.copies for block in blocks) for blocks in results]
            width = sum(components(shapes, blocks) * count for blocks, count in zip(results, channels, strict=True))
            self.like = Tensor(np.zeros((1, width)), contraction)
            return
        groups = _Groups(irreps, shapes, whole, results, contraction)
        self.views, self.split, self.join, self.arrange = groups.views, groups.split_x, groups.join_z, groups.into_order
        self.muls, self.dims, self.widths = groups.muls, groups.dims, groups.widths
        self.multiply = ops.BatchMatMul()

    def construct(self, x: Tensor, matrices: Any) -> Tensor:
        """Features (M, dim) and what ``Matrices`` returns to all z_k in a row, in the precision of the contraction."""
        x = to_type(x, self.contraction)
        if self.kernel is not None:
            return self.kernel(x, matrices, self.index, self.index, self.table, self.table, self.like)
        features, views = self.split(x), self.views(matrices)
        parts: tuple = ()
        for g in range(len(self.muls)):
            product = self.multiply(views[g], features[g].reshape(-1, self.dims[g], self.muls[g]))
            parts = (*parts, product.reshape(-1, self.widths[g]))  # (M, rows mul)
        z = self.join(parts)
        return z if self.arrange is None else self.arrange(z)


class BlockSum(nn.Cell):
    """The transpose of equation (1): x_b = sum_k T_kb^T z_k, over the z_k in which x_b takes part.

    Args: as those of ``BlockProduct``, with one copy in every block.
    """

    def __init__(
        self,
        irreps: Irreps,
        shapes: Sequence[tuple[int, int]],
        whole: np.ndarray,
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
            return
        groups = _Groups(irreps, shapes, whole, results, contraction)
        self.views, self.split, self.join, self.arrange = groups.views, groups.split_z, groups.join_x, groups.from_order
        self.muls, self.dims, self.rows = groups.muls, groups.dims, groups.rows
        self.multiply = ops.BatchMatMul(transpose_a=True)

    def construct(self, z: Tensor, matrices: Any) -> Tensor:
        """All z_k in a row and what ``Matrices`` returns to features (M, dim), in the precision of z."""
        kind, z = z.dtype, to_type(z, self.contraction)
        if self.kernel is not None:
            return to_type(self.kernel(z, matrices, self.index, self.index, self.of_rows, z, self.like), kind)
        parts, views = self.split(z if self.arrange is None else self.arrange(z)), self.views(matrices)
        features: tuple = ()
        for g in range(len(self.muls)):
            product = self.multiply(views[g], parts[g].reshape(-1, self.rows[g], self.muls[g]))
            features = (*features, product.reshape(-1, self.dims[g] * self.muls[g]))
        return to_type(self.join(features), kind)

    def by_index(self, z: Tensor, matrices: Tensor, index: Tensor, like: Tensor) -> Tensor:
        """With a kernel: the sums (N, dim) of the features of rows with one index (M,); ``like`` has N rows."""
        z_ = to_type(z, self.contraction)
        return to_type(self.kernel(z_, matrices, index, index, self.of_sums, like, self.like), z.dtype)


class _Groups:
    """How x and the z_k fall into runs of irreps with the same number of copies.

    Args: as those of ``BlockProduct``.

    Attributes:
        muls, dims, rows: of each group copies, components of x and rows of z.
        widths: rows times copies.
        split_x, join_x, split_z, join_z: between all and the groups.
        into_order, from_order: from the groups side by side to the z_k in a row, and back; None: they are the same.
        views: the matrices of the groups.
    """

    def __init__(
        self,
        irreps: Irreps,
        shapes: Sequence[tuple[int, int]],
        whole: np.ndarray,
        results: Sequence[Sequence[Block]],
        contraction: mstype.Type,
    ):
        groups = groups_of(irreps)
        needed = whole_matrix([part.ir.dim for part in irreps], shapes, results)
        reads = [block.irrep for blocks in results for _ in range(components(shapes, blocks)) for block in blocks
                 for _ in range(block.copies)]  # fmt: skip
        columns = np.split(np.arange(needed.shape[1]), np.cumsum([part.ir.dim for part in irreps])[:-1])
        rows = [np.flatnonzero(np.isin(reads, group)) for group in groups]
        self.muls = tuple(irreps[group[0]].mul for group in groups)
        self.dims = tuple(sum(irreps[b].ir.dim for b in group) for group in groups)
        self.rows = tuple(map(len, rows))
        self.widths = tuple(count * mul for count, mul in zip(self.rows, self.muls, strict=True))
        parts = [
            needed[np.ix_(own, np.concatenate([columns[b] for b in group]))]
            for own, group in zip(rows, groups, strict=True)
        ]
        self.views = _Views(whole, parts, contraction)
        self.split_x, self.join_x = split_and_join([dim * mul for dim, mul in zip(self.dims, self.muls, strict=True)])
        self.split_z, self.join_z = split_and_join(self.widths)
        starts, place_of = np.cumsum([0, *self.widths]), dict[int, np.ndarray]()
        for own, mul, start in zip(rows, self.muls, starts[:-1], strict=True):
            place_of |= {int(row): start + k * mul + np.arange(mul) for k, row in enumerate(own)}
        order = np.concatenate([place_of[row] for row in range(len(reads))])
        self.into_order, self.from_order = arrangement(order), arrangement(np.argsort(order))


def components(shapes: Sequence[tuple[int, int]], blocks: Sequence[Block]) -> int:
    """R of one z_k."""
    return shapes[blocks[0].matrix][0] // blocks[0].copies


def whole_matrix(
    dims: Sequence[int], shapes: Sequence[tuple[int, int]], results: Sequence[Sequence[Block]]
) -> np.ndarray:
    """Which of the numbers T of a row stands where in one matrix of all T.

    Args:
        dims: components of each irrep of x.
        shapes, results: as those of ``BlockProduct``.

    Returns:
        (all r and copies, all components) with the rows of each z_k in their order; -1 where there is 0.
    """
    of_matrix = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
    of_irrep = np.cumsum([0, *dims])
    rows = []
    for blocks in results:
        for r in range(components(shapes, blocks)):
            for irrep, matrix, copies, _ in blocks:
                for copy in range(copies):
                    row, dim = np.full(of_irrep[-1], -1), dims[irrep]
                    row[of_irrep[irrep] : of_irrep[irrep + 1]] = (
                        of_matrix[matrix] + (r * copies + copy) * dim + np.arange(dim)
                    )
                    rows.append(row)
    return np.array(rows)


def _selection(index: np.ndarray, size: int | None = None) -> np.ndarray:
    """What takes numbers to places, (size, number of places); nothing where the index is -1."""
    flat = index.reshape(-1)
    return (np.arange(flat.max() + 1 if size is None else size)[:, None] == flat).astype(float)


def segments(
    irreps: Irreps, shapes: Sequence[tuple[int, int]], results: Sequence[Sequence[Block]]
) -> tuple[Tensor, Tensor]:
    """The tables of ``models.cpu_kernels.row_blocks`` for equation (1), of all blocks and of those with irreps.

    Args: as those of ``BlockProduct``.
    """
    of_matrix = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
    table, start = [], 0
    for blocks in results:
        count = components(shapes, blocks)
        muls = [1 if block.irrep == NUMBER else irreps[block.irrep].mul for block in blocks]
        channels = sum(mul * block.copies for mul, block in zip(muls, blocks, strict=True))
        place = start
        for mul, (irrep, matrix, copies, end) in zip(muls, blocks, strict=True):
            x, columns = (0, 0) if irrep == NUMBER else (irreps.slices()[irrep].start, shapes[matrix][1])
            for copy in range(copies):
                t = int(of_matrix[matrix]) + copy * columns
                table.append((x, columns, mul, t, copies * columns, count, place, channels, end))
                place += mul
        start += count * channels
    linear = [row for row in table if row[1]]
    return Tensor(np.array(table), mstype.int32), Tensor(np.array(linear), mstype.int32)
