"""Products of parts of each row with matrices that are made of one flat vector of weights.

(7)  y_p = z_p B_p + b,   B_p = sum_s f_s w_s     over the entries s of part p; z_p (rows, K), B_p (K, N), y_p (rows, N)

A row of the table of parts has the place of z_p, its rows, K, N and the place of y_p; one of the table of entries the
part, the row and the column of B_p from which on f_s w_s is added, and the place of w_s, its stride, rows and columns.
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel
from models.cpu_kernels.products import column_sums


class _Mixed(Kernel):
    """(7) (M, N) from z (M, K), w (numel,) and b (N,)."""

    def construct(self, z: Tensor, w: Tensor, b: Tensor, parts: Tensor, entries: Tensor, factors: Tensor) -> Tensor:
        """All parts."""
        return self.kernel(z, w, b, parts, entries, factors)

    def bprop(
        self, z: Tensor, w: Tensor, b: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, out: Tensor,
        dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The transposes in z and in w, and the sum over rows."""
        return (
            mixed_inputs(dout, w, parts, entries, factors, z),
            mixed_weights(dout, z, parts, entries, factors, w),
            column_sums(dout),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
        )


class _MixedWithoutBias(Kernel):
    """(7) without b; ``like`` has N columns."""

    def construct(self, z: Tensor, w: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor) -> Tensor:
        """All parts."""
        return self.kernel(z, w, parts, entries, factors, like)

    def bprop(
        self, z: Tensor, w: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor, out: Tensor,
        dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The transposes in z and in w."""
        return (
            mixed_inputs(dout, w, parts, entries, factors, z),
            mixed_weights(dout, z, parts, entries, factors, w),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(like),
        )


class _MixedInputs(Kernel):
    """The gradient of (7) in z, (M, K), from g (M, N) and w; ``like`` has K columns."""

    def construct(self, g: Tensor, w: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor) -> Tensor:
        """All parts."""
        return self.kernel(g, w, parts, entries, factors, like)

    def bprop(
        self, g: Tensor, w: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor, out: Tensor,
        dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of z."""
        return (
            mixed_without_bias(dout, w, parts, entries, factors, g),
            mixed_weights(g, dout, parts, entries, factors, w),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(like),
        )


class _MixedWeights(Kernel):
    """The gradient of (7) in w, (numel,), from g (M, N) and z (M, K); ``like`` has its shape."""

    def construct(self, g: Tensor, z: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor) -> Tensor:
        """All entries."""
        return self.kernel(g, z, parts, entries, factors, like)

    def bprop(
        self, g: Tensor, z: Tensor, parts: Tensor, entries: Tensor, factors: Tensor, like: Tensor, out: Tensor,
        dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of w."""
        return (
            mixed_without_bias(z, dout, parts, entries, factors, g),
            mixed_inputs(g, dout, parts, entries, factors, z),
            self.zeros(parts),
            self.zeros(entries),
            self.zeros(factors),
            self.zeros(like),
        )


mixed = _Mixed("mixed", lambda *shapes: [shapes[0][0], shapes[2][0]])
mixed_without_bias = _MixedWithoutBias("mixed_without_bias", lambda *shapes: [shapes[0][0], shapes[5][1]])
mixed_inputs = _MixedInputs("mixed_inputs", lambda *shapes: [shapes[0][0], shapes[5][1]])
mixed_weights = _MixedWeights("mixed_weights", lambda *shapes: shapes[5])
