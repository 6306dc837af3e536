"""Scalars that multiply runs of columns, and gates.

(8)  y_c = f_s a_c' x_c              for the runs s of columns c, with the scalars c' from one on
(9)  c silu(s),  c' sigmoid(g) x     of rows that hold scalars s, gates g and columns x

A row of the table of runs has the first column, the number of columns and the first scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.cpu_kernels.activations import swish_curvature, swish_slope
from models.cpu_kernels.kernel import Kernel
from models.e3.layout import split_and_join


class _ScaledColumns(Kernel):
    """(8) (M, F) from a (M, C), or (1, C) for all rows, and x (M, F)."""

    def construct(self, a: Tensor, x: Tensor, runs: Tensor, factors: Tensor) -> Tensor:
        """All runs, which cover the columns."""
        return self.kernel(a, x, runs, factors)

    def bprop(self, a: Tensor, x: Tensor, runs: Tensor, factors: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The sums of each scalar, and scaled columns."""
        return (
            column_totals(dout, x, runs, factors, a),
            scaled_columns(a, dout, runs, factors),
            self.zeros(runs),
            self.zeros(factors),
        )


class _ColumnTotals(Kernel):
    """The gradient of (8) in a, from g and x (M, F); ``like`` has its shape."""

    def construct(self, g: Tensor, x: Tensor, runs: Tensor, factors: Tensor, like: Tensor) -> Tensor:
        """All runs."""
        return self.kernel(g, x, runs, factors, like)

    def bprop(
        self, g: Tensor, x: Tensor, runs: Tensor, factors: Tensor, like: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient takes the place of a."""
        return (
            scaled_columns(dout, x, runs, factors),
            scaled_columns(dout, g, runs, factors),
            self.zeros(runs),
            self.zeros(factors),
            self.zeros(like),
        )


class _GateSlopes(Kernel):
    """The gradient of (9), (M, F), from its input y (M, F) and a cotangent d (M, G); its own in smaller pieces.

    Args: those of ``Gate``.
    """

    def __init__(self, scalars: int, gates: int, runs: np.ndarray, constants: Sequence[float], dtype: mstype.Type):
        super().__init__("gate_slopes", lambda *shapes: shapes[0])
        columns = int(runs[:, 1].sum())
        self.split, self.join = split_and_join((scalars, gates, columns))
        self.split_cotangent, self.join_cotangent = split_and_join((scalars, columns))
        self.runs, self.factors = Tensor(runs, mstype.int32), Tensor(np.ones(len(runs)), dtype)
        self.of_scalars, self.of_gates = (Tensor(constant, dtype) for constant in constants)
        self.one, self.two = Tensor(1.0, dtype), Tensor(2.0, dtype)
        self.sigmoid = ops.Sigmoid()

    def construct(self, y: Tensor, d: Tensor, runs: Tensor, constants: Tensor) -> Tensor:
        """Rows of both."""
        return self.kernel(y, d, runs, constants)

    def bprop(self, y: Tensor, d: Tensor, runs: Tensor, constants: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """For y = (s, g, x), d = (d_s, d_x) and a cotangent (v_s, v_g, v_x)."""
        s, g, x = self.split(y)
        d_s, d_x = self.split_cotangent(d)
        v_s, v_g, v_x = self.split(dout)
        part = self.sigmoid(g)
        a = self.of_gates * part
        a_1 = a * (self.one - part)  # slope of a
        a_2 = a_1 * (self.one - self.two * part)
        of_y = self.join(
            (
                swish_curvature(s, self.of_scalars * d_s * v_s),
                a_2 * v_g * self.totals(d_x, x, g) + a_1 * self.totals(v_x, d_x, g),
                self.scaled(a_1 * v_g, d_x),
            )
        )
        of_d = self.join_cotangent(
            (swish_slope(s, self.of_scalars * v_s), self.scaled(a_1 * v_g, x) + self.scaled(a, v_x))
        )
        return of_y, of_d, self.zeros(runs), self.zeros(constants)

    def scaled(self, a: Tensor, x: Tensor) -> Tensor:
        """(8)."""
        return scaled_columns(a, x, self.runs, self.factors)

    def totals(self, g: Tensor, x: Tensor, like: Tensor) -> Tensor:
        """Its gradient in a."""
        return column_totals(g, x, self.runs, self.factors, like)


class _Gate(Kernel):
    """(9) (M, G) from y (M, F).

    Args:
        slopes: its gradient.
    """

    def __init__(self, slopes: Callable[..., Tensor]):
        super().__init__("gate", lambda *shapes: [shapes[0][0], shapes[3][1]])
        self.slopes = slopes

    def construct(self, y: Tensor, runs: Tensor, constants: Tensor, like: Tensor) -> Tensor:
        """Rows; ``like`` has G columns."""
        return self.kernel(y, runs, constants, like)

    def bprop(self, y: Tensor, runs: Tensor, constants: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slopes."""
        return self.slopes(y, dout, runs, constants), self.zeros(runs), self.zeros(constants), self.zeros(like)


class Gate(nn.Cell):
    """(9) as a cell.

    Args:
        scalars, gates: numbers of them.
        runs: (S, 3) the table, for the columns after them.
        constants: c and c'.
        dtype: of the rows.
    """

    def __init__(self, scalars: int, gates: int, runs: np.ndarray, constants: Sequence[float], dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.gate = _Gate(_GateSlopes(scalars, gates, runs, constants, dtype))
        self.runs, self.constants = Tensor(runs, mstype.int32), Tensor(np.array(constants), dtype)
        self.like = Tensor(np.zeros((1, scalars + int(runs[:, 1].sum()))), dtype)

    def construct(self, y: Tensor) -> Tensor:
        """(M, scalars + gates + columns) to (M, scalars + columns)."""
        return self.gate(y, self.runs, self.constants, self.like)


scaled_columns = _ScaledColumns("scaled_columns", lambda *shapes: shapes[1])
column_totals = _ColumnTotals("column_totals", lambda *shapes: shapes[4])
