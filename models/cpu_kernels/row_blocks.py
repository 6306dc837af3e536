"""Products of small matrices, one set of each row, with blocks of features.

(6)  z_s[e] = T_s[e] x_s[i_e]     for the segments s of a table: where their blocks lie in the rows of z, T and x

i_e is the row itself, or one of two indices.  A row of the table has, in this order: the place of x_s, its columns and
channels; the place of T_s, its stride and its rows; the place of z_s and its stride; 0 or 1 for the index or 2 for the
row itself.  Without columns z_s is the number T_s itself; the second table of each kernel lacks such segments.
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel


class _BlockProduct(Kernel):
    """(6) z (M, W) from x (N, F), T (M, K) and two indices (M,); ``like`` has W columns."""

    def construct(
        self, x: Tensor, t: Tensor, first: Tensor, second: Tensor, table: Tensor, linear: Tensor, like: Tensor
    ) -> Tensor:
        """All segments of the table."""
        return self.kernel(x, t, first, second, table, like)

    def bprop(
        self, x: Tensor, t: Tensor, first: Tensor, second: Tensor, table: Tensor, linear: Tensor, like: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The transposes in x and in T."""
        return (
            block_transpose(dout, t, first, second, linear, x, x),
            block_matrices(dout, x, first, second, table, linear, t),
            self.zeros(first),
            self.zeros(second),
            self.zeros(table),
            self.zeros(linear),
            self.zeros(like),
        )


class _BlockTranspose(Kernel):
    """The gradient of (6) in x, (N, F), from z and T; ``rows`` has N rows, ``columns`` F columns."""

    def construct(
        self, z: Tensor, t: Tensor, first: Tensor, second: Tensor, linear: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """All segments that have an x."""
        return self.kernel(z, t, first, second, linear, rows, columns)

    def bprop(
        self, z: Tensor, t: Tensor, first: Tensor, second: Tensor, linear: Tensor, rows: Tensor, columns: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of x."""
        return (
            block_product(dout, t, first, second, linear, linear, z),
            block_matrices(z, dout, first, second, linear, linear, t),
            self.zeros(first),
            self.zeros(second),
            self.zeros(linear),
            self.zeros(rows),
            self.zeros(columns),
        )


class _BlockMatrices(Kernel):
    """The gradient of (6) in T, (M, K), from z and x; ``like`` has its shape."""

    def construct(
        self, z: Tensor, x: Tensor, first: Tensor, second: Tensor, table: Tensor, linear: Tensor, like: Tensor
    ) -> Tensor:
        """All segments of the table."""
        return self.kernel(z, x, first, second, table, like)

    def bprop(
        self, z: Tensor, x: Tensor, first: Tensor, second: Tensor, table: Tensor, linear: Tensor, like: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of T."""
        return (
            block_product(x, dout, first, second, table, linear, z),
            block_transpose(z, dout, first, second, linear, x, x),
            self.zeros(first),
            self.zeros(second),
            self.zeros(table),
            self.zeros(linear),
            self.zeros(like),
        )


block_product = _BlockProduct("block_product", lambda *shapes: [shapes[1][0], shapes[5][1]])
block_transpose = _BlockTranspose("block_transpose", lambda *shapes: [shapes[5][0], shapes[6][1]])
block_matrices = _BlockMatrices("block_matrices", lambda *shapes: shapes[5])
