"""Products of small matrices with blocks of features and then with matrices made of weights: (6) and (7) in one pass.

(10)  y_p = z_p B_p + b,   z_s[e] = T_s[e] x_s[i_e]     with the tables of ``row_blocks`` and ``mixtures``

It is linear in x, in T and in w, so contracted with g it is one number, and each gradient is linear in the others.  z,
which is much larger than all of them, is never written to memory: the gradient in w computes it anew.

The last inputs of every cell are the tables: two indices, all segments, those with an x, parts, entries, factors, and a
row of zeros as wide as y.
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel
from models.cpu_kernels.products import column_sums


class _Coupled(Kernel):
    """(10) (M, W) from x (N, F), T (M, K), w (numel,) and b (W,)."""

    def construct(
        self, x: Tensor, t: Tensor, w: Tensor, b: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor,
    ) -> Tensor:  # fmt: skip
        """All parts."""
        return self.kernel(x, t, w, b, first, second, segments, linear, parts, entries, factors, none)

    def bprop(
        self, x: Tensor, t: Tensor, w: Tensor, b: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradients in x, T and w, and the sum over rows."""
        of_x, of_t = coupled_gradients(dout, t, w, x, first, second, segments, linear, parts, entries, factors, none)
        return (
            of_x,
            of_t,
            coupled_weights(dout, x, t, w, first, second, segments, linear, parts, entries, factors, none),
            column_sums(dout),
            self.zeros(first),
            self.zeros(second),
            self.zeros(segments),
            self.zeros(linear),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(none),
        )


class _CoupledGradients(Kernel):
    """The gradients of (10) in x and in T, from g (M, W), T, w and x: both are made of the gradient in z."""

    def construct(
        self, g: Tensor, t: Tensor, w: Tensor, x: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """All segments."""
        return self.kernel(g, t, w, x, first, second, segments, linear, parts, entries, factors, none)

    def bprop(
        self, g: Tensor, t: Tensor, w: Tensor, x: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor, out: tuple, dout: tuple,
    ) -> tuple:  # fmt: skip
        """The gradients take the places of x and of T, one at a time."""
        x_, t_ = dout
        zeros = none.reshape(-1)
        of_x, of_t = coupled_gradients(g, t_, w, x_, first, second, linear, linear, parts, entries, factors, none)
        return (
            coupled(x_, t, w, zeros, first, second, linear, linear, parts, entries, factors, none)
            + coupled(x, t_, w, zeros, first, second, segments, linear, parts, entries, factors, none),
            of_t,
            coupled_weights(g, x_, t, w, first, second, linear, linear, parts, entries, factors, none)
            + coupled_weights(g, x, t_, w, first, second, segments, linear, parts, entries, factors, none),
            of_x,
            self.zeros(first),
            self.zeros(second),
            self.zeros(segments),
            self.zeros(linear),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(none),
        )


class _CoupledWeights(Kernel):
    """The gradient of (10) in w, from g (M, W), x and T; ``like`` has the shape of w."""

    def construct(
        self, g: Tensor, x: Tensor, t: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor,
    ) -> Tensor:  # fmt: skip
        """All entries."""
        return self.kernel(g, x, t, like, first, second, segments, linear, parts, entries, factors, none)

    def bprop(
        self, g: Tensor, x: Tensor, t: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of w."""
        of_x, of_t = coupled_gradients(g, t, dout, x, first, second, segments, linear, parts, entries, factors, none)
        return (
            coupled(x, t, dout, none.reshape(-1), first, second, segments, linear, parts, entries, factors, none),
            of_x,
            of_t,
            self.zeros(like),
            self.zeros(first),
            self.zeros(second),
            self.zeros(segments),
            self.zeros(linear),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(none),
        )


coupled = _Coupled("coupled", lambda *shapes: [shapes[1][0], shapes[11][1]])
coupled_gradients = _CoupledGradients("coupled_gradients", lambda *shapes: (shapes[3], shapes[1]), 2)
coupled_weights = _CoupledWeights("coupled_weights", lambda *shapes: shapes[3])
