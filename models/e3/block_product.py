"""Products of small matrices, one of each row, with the blocks of a feature: the one contraction of models/e3.

    (1)  z_k[r] = (+)_b sum_m T_kb[r, m] x_b[m]

x_b (2 l_b + 1, mul_b) are irreps of a feature, T_kb are matrices of the same row, which is a node or an edge, and (+)
puts channels side by side.  With T = sum_j a_j C_j it couples x with attributes a by Clebsch-Gordan coefficients, and
with rotation matrices in place of T it turns x.  The result is linear in x and linear in T.  The precision of T is that
of the products; the result has that of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mindspore import Tensor, nn, ops

from models.e3.irreps import Irreps
from models.e3.layout import split_and_join
from models.graph_ops import to_type


class Block(NamedTuple):
    """One product of equation (1).

    Attributes:
        irrep: which irreps of x.
        matrix: which of the matrices; its rows are (r, copy).
        copies: results for each r, whose channels are side by side.
    """

    irrep: int
    matrix: int
    copies: int


class Matrices(nn.Cell):
    """The T of all rows as the products take them.

    Args:
        shapes: (rows, columns) of each matrix of a row.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]):
        super().__init__(auto_prefix=False)
        self.shapes = tuple((-1, rows, columns) for rows, columns in shapes)
        self.split, _ = split_and_join([rows * columns for rows, columns in shapes])

    def construct(self, flat: Tensor) -> tuple:
        """(M, sum of rows times columns) to [(M, rows, columns)]."""
        parts = self.split(flat)
        matrices: tuple = ()
        for k in range(len(self.shapes)):
            matrices = (*matrices, parts[k].reshape(self.shapes[k]))
        return matrices


class BlockProduct(nn.Cell):
    """Equation (1).

    Args:
        irreps: of x.
        results: of each z_k its blocks, which all have rows r times copies rows in their matrices.
    """

    def __init__(self, irreps: Irreps, results: Sequence[Sequence[Block]]):
        super().__init__(auto_prefix=False)
        self.split, _ = split_and_join([part.dim for part in irreps])
        self.shapes = tuple((-1, part.ir.dim, part.mul) for part in irreps)
        self.results = tuple(tuple(map(tuple, blocks)) for blocks in results)
        self.widths = tuple(tuple(irreps[b].mul * copies for b, _, copies in blocks) for blocks in results)
        self.joins = tuple(split_and_join(widths)[1] for widths in self.widths)
        self.multiply = ops.BatchMatMul()

    def construct(self, x: Tensor, matrices: tuple) -> tuple:
        """Features (M, dim) and what ``Matrices`` returns to the z_k, (M r, channels), the r of a row together."""
        flat = self.split(to_type(x, matrices[0].dtype))
        results: tuple = ()
        for k in range(len(self.results)):
            parts: tuple = ()
            for j in range(len(self.results[k])):
                irrep, matrix = self.results[k][j][0], self.results[k][j][1]
                product = to_type(self.multiply(matrices[matrix], flat[irrep].reshape(self.shapes[irrep])), x.dtype)
                parts = (*parts, product.reshape(-1, self.widths[k][j]))  # (M r, copies mul)
            results = (*results, self.joins[k](parts) if len(parts) > 1 else parts[0])
        return results


class BlockSum(nn.Cell):
    """The transpose of equation (1): x_b = sum_k T_kb^T z_k, over the z_k in which x_b takes part.

    Args: as those of ``BlockProduct``, with one copy in every block.
    """

    def __init__(self, irreps: Irreps, results: Sequence[Sequence[Block]]):
        super().__init__(auto_prefix=False)
        self.splits = tuple(split_and_join([irreps[b].mul for b, _, _ in blocks])[0] for blocks in results)
        places = [
            [(k, j, block.matrix) for k, blocks in enumerate(results) for j, block in enumerate(blocks) if block.irrep == b]
            for b in range(len(irreps))
        ]
        self.places = tuple(map(tuple, places))
        self.muls = tuple(part.mul for part in irreps)
        self.widths = tuple(part.dim for part in irreps)
        _, self.join = split_and_join(self.widths)
        self.multiply, self.add = ops.BatchMatMul(transpose_a=True), ops.AddN()

    def construct(self, z: tuple, matrices: tuple) -> Tensor:
        """The z_k, (M r, channels), and what ``Matrices`` returns to features (M, dim)."""
        parts: tuple = ()
        for k in range(len(self.splits)):
            parts = (*parts, self.splits[k](to_type(z[k], matrices[0].dtype)))
        blocks: tuple = ()
        for b in range(len(self.places)):
            terms: tuple = ()
            for place in self.places[b]:
                matrix = matrices[place[2]]
                part = parts[place[0]][place[1]].reshape(matrix.shape[0], matrix.shape[1], self.muls[b])
                terms = (*terms, to_type(self.multiply(matrix, part), z[0].dtype).reshape(-1, self.widths[b]))
            blocks = (*blocks, self.add(terms) if len(terms) > 1 else terms[0])
        return self.join(blocks) if len(blocks) > 1 else blocks[0]
