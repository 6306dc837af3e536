"""Sums over the triplets of atoms.

(3)  s_o = sum_t x_in(t) (W r_t) over the triplets t with out(t) = o
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel, same


class _TripletSum(Kernel):
    """(3) s (E, I) from x (E, I), r (T, B), W (I, B) and the two edges of each triplet (T,)."""

    def construct(self, x: Tensor, r: Tensor, w: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """From the edges ``source`` to the edges ``to``."""
        return self.kernel(x, r, w, source, to)

    def bprop(self, x: Tensor, r: Tensor, w: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient in x runs the other way."""
        return (
            triplet_sum(dout, r, w, to, source),
            triplet_rows(dout, x, w, source, to),
            triplet_weights(dout, x, r, source, to),
            self.zeros(source),
            self.zeros(to),
        )


class _TripletRows(Kernel):
    """The gradient of (3) in r: W^T (g_to x_source), (T, B)."""

    def construct(self, g: Tensor, x: Tensor, w: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """Of g and x (E, I), W (I, B)."""
        return self.kernel(g, x, w, source, to)

    def bprop(self, g: Tensor, x: Tensor, w: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of r."""
        return (
            triplet_sum(x, dout, w, source, to),
            triplet_sum(g, dout, w, to, source),
            triplet_weights(g, x, dout, source, to),
            self.zeros(source),
            self.zeros(to),
        )


class _TripletWeights(Kernel):
    """The gradient of (3) in W: sum_t (g_to x_source) r_t^T, (I, B)."""

    def construct(self, g: Tensor, x: Tensor, r: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """Of g and x (E, I), r (T, B)."""
        return self.kernel(g, x, r, source, to)

    def bprop(self, g: Tensor, x: Tensor, r: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of W."""
        return (
            triplet_sum(x, r, dout, source, to),
            triplet_sum(g, r, dout, to, source),
            triplet_rows(g, x, dout, source, to),
            self.zeros(source),
            self.zeros(to),
        )


triplet_sum = _TripletSum("triplet_sum", same)
triplet_rows = _TripletRows("triplet_rows", lambda *shapes: [shapes[3][0], shapes[2][1]])
triplet_weights = _TripletWeights("triplet_weights", lambda *shapes: [shapes[0][1], shapes[2][1]])
