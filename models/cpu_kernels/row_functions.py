"""Functions f of rows, such as gates and harmonics, differentiated along tangents.

    (9)  A(y; v_1 ... v_n) = D_1 ... D_n f(y)                       (M, G)
         B(y; v_1 ... v_n; d) = gradient in y of d . A              (M, F)

D_i is the derivative along v_i, a row of the shape of y for each row, and n may be 0.  Both are linear in every v_i and
in d, so they are each other's gradients:

    of A for e   in y: B(y; v; e)       in v_i: B(y; v without v_i; e)
    of B for w   in y: B(y; v, w; d)    in v_i: B(y; v with w for v_i; d)    in d: A(y; v, w)
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops

from models.cpu_kernels.kernel import Kernel, same


class _RowKernel(Kernel):
    """One of the kernels of f; ``family`` has those of A and B without and with tangents, each other's gradients."""

    def __init__(self, name: str, shape: Any):
        super().__init__(name, shape)
        self.concat = ops.Concat(0)
        self.family: tuple = ()


class _Values(_RowKernel):
    """(9) A for n = 0, (M, G) from y (M, F); ``like`` has G columns."""

    def construct(self, y: Tensor, table: Tensor, numbers: Tensor, like: Tensor) -> Tensor:
        """With the integers and numbers of f."""
        return self.kernel(y, table, numbers, like)

    def bprop(self, y: Tensor, table: Tensor, numbers: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns B."""
        of_y = self.family[1](y, dout, table, numbers)
        return of_y, self.zeros(table), self.zeros(numbers), self.zeros(like)


class _Slopes(_RowKernel):
    """(9) B for n = 0, (M, F) from y (M, F) and d (M, G)."""

    def construct(self, y: Tensor, d: Tensor, table: Tensor, numbers: Tensor) -> Tensor:
        """With the integers and numbers of f."""
        return self.kernel(y, d, table, numbers)

    def bprop(self, y: Tensor, d: Tensor, table: Tensor, numbers: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The cotangent is the first tangent."""
        of_y = self.family[3](y, dout, d, table, numbers)
        of_d = self.family[2](y, dout, table, numbers, d)
        return of_y, of_d, self.zeros(table), self.zeros(numbers)


class _Tangents(_RowKernel):
    """(9) A for n > 0, (M, G) from y (M, F) and tangents (n M, F), one below the other; ``like`` has G columns."""

    def construct(self, y: Tensor, v: Tensor, table: Tensor, numbers: Tensor, like: Tensor) -> Tensor:
        """With the integers and numbers of f."""
        return self.kernel(y, v, table, numbers, like)

    def bprop(
        self, y: Tensor, v: Tensor, table: Tensor, numbers: Tensor, like: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Returns B, and for each tangent B of the others."""
        _, slopes, _, slope_tangents = self.family
        rows = y.shape[0]
        if v.shape[0] == rows:
            of_v = slopes(y, dout, table, numbers)
        else:
            parts: tuple = ()
            for start in range(0, v.shape[0], rows):  # the order of tangents does not matter
                others = v[rows:] if start == 0 else self.concat((v[:start], v[start + rows :]))
                parts = (*parts, slope_tangents(y, others, dout, table, numbers))
            of_v = self.concat(parts)
        of_y = slope_tangents(y, v, dout, table, numbers)
        return of_y, of_v, self.zeros(table), self.zeros(numbers), self.zeros(like)


class _SlopeTangents(_RowKernel):
    """(9) B for n > 0, (M, F) from y (M, F), tangents (n M, F) and d (M, G)."""

    def construct(self, y: Tensor, v: Tensor, d: Tensor, table: Tensor, numbers: Tensor) -> Tensor:
        """With the integers and numbers of f."""
        return self.kernel(y, v, d, table, numbers)

    def bprop(
        self, y: Tensor, v: Tensor, d: Tensor, table: Tensor, numbers: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The cotangent is one tangent more, or takes the place of each."""
        _, _, tangents, slope_tangents = self.family
        rows, every = y.shape[0], self.concat((v, dout))
        parts: tuple = ()
        for start in range(rows, every.shape[0], rows):  # the order of tangents does not matter
            others = every[rows:] if start == rows else self.concat((every[: start - rows], every[start:]))
            parts = (*parts, slope_tangents(y, others, d, table, numbers))
        of_v = parts[0] if len(parts) == 1 else self.concat(parts)
        of_y = slope_tangents(y, every, d, table, numbers)
        of_d = tangents(y, every, table, numbers, d)
        return of_y, of_v, of_d, self.zeros(table), self.zeros(numbers)


class RowFunction(nn.Cell):
    """f as a cell.

    Args:
        name: of the kernel of f in kernels.cc; NAME_tangents, NAME_slopes and NAME_slope_tangents stand beside it.
        table: integers that the kernel reads.
        numbers: what else it reads, in the precision of the rows.
        like: (1, G), in that precision.
    """

    def __init__(self, name: str, table: Tensor, numbers: Tensor, like: Tensor):
        super().__init__(auto_prefix=False)
        self.function = _Values(name, lambda *shapes: [shapes[0][0], shapes[3][1]])
        family = (
            self.function,
            _Slopes(f"{name}_slopes", same),
            _Tangents(f"{name}_tangents", lambda *shapes: [shapes[0][0], shapes[4][1]]),
            _SlopeTangents(f"{name}_slope_tangents", same),
        )
        for cell in family:
            cell.family = family  # in a tuple, for a cell that owns another as its part would own itself
        self.table, self.numbers, self.like = table, numbers, like

    def construct(self, y: Tensor) -> Tensor:
        """Rows (M, F) to (M, G)."""
        return self.function(y, self.table, self.numbers, self.like)
