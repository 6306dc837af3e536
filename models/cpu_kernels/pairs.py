"""Sums over the pairs of atoms.

(2)  m_i = sum_p c_p w_p x_j, with each of the two atoms of a pair in the place of i
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel, same


class _PairSum(Kernel):
    """(2) m (N, F) from x (N, F), w (P, F), c (P, 1) and the atoms of each pair (P,)."""

    def construct(self, x: Tensor, w: Tensor, c: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Both directions of each pair."""
        return self.kernel(x, w, c, first, second)

    def bprop(self, x: Tensor, w: Tensor, c: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Exchanges x and m: what i gets from j is weighted as what j gets from i."""
        return (
            pair_sum(dout, w, c, first, second),
            pair_filters(dout, x, c, first, second),
            pair_scales(dout, x, w, first, second),
            self.zeros(first),
            self.zeros(second),
        )


class _PairFilters(Kernel):
    """The gradient of (2) in w: c_p (g_i x_j + g_j x_i), (P, F)."""

    def construct(self, g: Tensor, x: Tensor, c: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Of g and x (N, F), c (P, 1)."""
        return self.kernel(g, x, c, first, second)

    def bprop(self, g: Tensor, x: Tensor, c: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of w."""
        return (
            pair_sum(x, dout, c, first, second),
            pair_sum(g, dout, c, first, second),
            pair_scales(g, x, dout, first, second),
            self.zeros(first),
            self.zeros(second),
        )


class _PairScales(Kernel):
    """The gradient of (2) in c: w_p . (g_i x_j + g_j x_i), (P, 1)."""

    def construct(self, g: Tensor, x: Tensor, w: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Of g and x (N, F), w (P, F)."""
        return self.kernel(g, x, w, first, second)

    def bprop(self, g: Tensor, x: Tensor, w: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of c."""
        return (
            pair_sum(x, w, dout, first, second),
            pair_sum(g, w, dout, first, second),
            pair_filters(g, x, dout, first, second),
            self.zeros(first),
            self.zeros(second),
        )


pair_sum = _PairSum("pair_sum", same)
pair_filters = _PairFilters("pair_filters", lambda *shapes: [shapes[2][0], shapes[0][1]])
pair_scales = _PairScales("pair_scales", lambda *shapes: [shapes[2][0], 1])
