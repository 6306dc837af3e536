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
        return (
            coupled_inputs(dout, t, w, x, first, second, segments, linear, parts, entries, factors, none),
            coupled_matrices(dout, x, w, t, first, second, segments, linear, parts, entries, factors, none),
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


class _CoupledInputs(Kernel):
    """The gradient of (10) in x, from g (M, W), T and w; ``like`` has the shape of x."""

    def construct(
        self, g: Tensor, t: Tensor, w: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments that have an x."""
        return self.kernel(g, t, w, like, first, second, segments, linear, parts, entries, factors, none)

    def bprop(
        self, g: Tensor, t: Tensor, w: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of x."""
        return (
            coupled(dout, t, w, none.reshape(-1), first, second, linear, linear, parts, entries, factors, none),
            coupled_matrices(g, dout, w, t, first, second, linear, linear, parts, entries, factors, none),
            coupled_weights(g, dout, t, w, first, second, linear, linear, parts, entries, factors, none),
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


class _CoupledMatrices(Kernel):
    """The gradient of (10) in T, from g (M, W), x and w; ``like`` has the shape of T."""

    def construct(
        self, g: Tensor, x: Tensor, w: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, w, like, first, second, segments, linear, parts, entries, factors, none)

    def bprop(
        self, g: Tensor, x: Tensor, w: Tensor, like: Tensor, first: Tensor, second: Tensor, segments: Tensor,
        linear: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, none: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of T."""
        return (
            coupled(x, dout, w, none.reshape(-1), first, second, segments, linear, parts, entries, factors, none),
            coupled_inputs(g, dout, w, x, first, second, segments, linear, parts, entries, factors, none),
            coupled_weights(g, x, dout, w, first, second, segments, linear, parts, entries, factors, none),
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
        return (
            coupled(x, t, dout, none.reshape(-1), first, second, segments, linear, parts, entries, factors, none),
            coupled_inputs(g, t, dout, x, first, second, segments, linear, parts, entries, factors, none),
            coupled_matrices(g, x, dout, t, first, second, segments, linear, parts, entries, factors, none),
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
coupled_inputs = _CoupledInputs("coupled_inputs", lambda *shapes: shapes[3])
coupled_matrices = _CoupledMatrices("coupled_matrices", lambda *shapes: shapes[3])
coupled_weights = _CoupledWeights("coupled_weights", lambda *shapes: shapes[3])
