"""Weighted products with matrices made of attributes, and mixtures of what comes out or sums of it, in one pass.

(11)  y_p = z_p B_p + b,   z_s[e] = f_s w_s[e] T_s[e] x_s[j_e],   T[e] = sum_k c_k a_k[e]

y_p = z_p B_p are the mixtures of (7); without parts y_i = sum_(i_e = i) z[e].  i_e and j_e are two indices, receivers
and senders (M,), into rows of y and of x (N,); where they have length 1 both are e itself.  a (M, A) has rows e; w has
a row for each, one for the rows e and e + M / 2, or one for all.  The segments s are those of (6) in ``row_blocks``.

(11) without b is linear in x, a, w and B, so contracted with g it is one number S(g; x, a, w, B).  Six cells serve
every order:

    products   y              tangents             D y
    gradients  dS / d(x,a,w)  gradient_tangents    D dS / d(x,a,w)
    mixtures   dS / dB        mixture_tangents     D dS / dB

where D is the derivative along tangents x', a', w': the sum over the factors, of which each is replaced by its tangent
in turn.  A derivative of D along other tangents has six terms, two factors replaced, which are three tangents at
factors that are tangents themselves, with one of those left out.

The last inputs of every cell are the tables: receivers, senders, layout and numbers.  Layout holds the counts of
segments, of terms of T, of parts, of entries, of elements of T and of columns of z, and then segments, the first
weight of each, terms (element, attribute) by attribute, parts and entries; numbers the factors of segments, terms and
entries.
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel
from models.cpu_kernels.products import column_sums


class _Products(Kernel):
    """(11) (M, W) from x, a, w, B and b (W,)."""

    def construct(
        self, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, b: Tensor, receivers: Tensor, senders: Tensor, layout:
        Tensor, numbers: Tensor,
    ) -> Tensor:  # fmt: skip
        """All parts."""
        return self.kernel(x, a, w, mix, b, receivers, senders, layout, numbers)

    def bprop(
        self, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, b: Tensor, receivers: Tensor, senders: Tensor, layout:
        Tensor, numbers: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradients of S, and the sum over rows."""
        of_x, of_a, of_w = mixed_gradients(dout, x, a, w, mix, receivers, senders, layout, numbers)
        return (
            of_x,
            of_a,
            of_w,
            mixed_mixtures(dout, x, a, w, receivers, senders, layout, numbers, mix),
            column_sums(dout),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
        )


class _Tangents(Kernel):
    """D y (M, W); ``like`` has W columns."""

    def construct(
        self, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers: Tensor,
        senders: Tensor, layout: Tensor, numbers: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All parts."""
        return self.kernel(x, a, w, mix, x_, a_, w_, receivers, senders, layout, numbers, like)

    def bprop(
        self, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers: Tensor,
        senders: Tensor, layout: Tensor, numbers: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """D S with the gradient as g."""
        of_x, of_a, of_w = mixed_gradient_tangents(dout, x, a, w, mix, x_, a_, w_, receivers, senders, layout, numbers)
        of_x_, of_a_, of_w_ = mixed_gradients(dout, x, a, w, mix, receivers, senders, layout, numbers)
        return (
            of_x,
            of_a,
            of_w,
            mixed_mixture_tangents(dout, x, a, w, x_, a_, w_, receivers, senders, layout, numbers, mix),
            of_x_,
            of_a_,
            of_w_,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(like),
        )


class _Gradients(Kernel):
    """dS / d(x, a, w)."""

    def construct(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, receivers: Tensor, senders: Tensor, layout:
        Tensor, numbers: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, a, w, mix, receivers, senders, layout, numbers)

    def bprop(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, receivers: Tensor, senders: Tensor, layout:
        Tensor, numbers: Tensor, out: tuple, dout: tuple,
    ) -> tuple:  # fmt: skip
        """Contracted with their gradients it is D S along those."""
        x_, a_, w_ = dout
        of_x, of_a, of_w = mixed_gradient_tangents(g, x, a, w, mix, x_, a_, w_, receivers, senders, layout, numbers)
        return (
            mixed_tangents(x, a, w, mix, x_, a_, w_, receivers, senders, layout, numbers, g),
            of_x,
            of_a,
            of_w,
            mixed_mixture_tangents(g, x, a, w, x_, a_, w_, receivers, senders, layout, numbers, mix),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
        )


class _GradientTangents(Kernel):
    """D dS / d(x, a, w)."""

    def construct(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers:
        Tensor, senders: Tensor, layout: Tensor, numbers: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, a, w, mix, x_, a_, w_, receivers, senders, layout, numbers)

    def bprop(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, mix: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers:
        Tensor, senders: Tensor, layout: Tensor, numbers: Tensor, out: tuple, dout: tuple,
    ) -> tuple:  # fmt: skip
        """Contracted with u, v, o it is the derivative of D S along these: two factors of S are replaced."""
        u, v, o = dout
        nothing = self.zeros(x)
        of_x, of_a, of_w = mixed_gradient_tangents(g, x_, a_, w_, mix, u, v, o, receivers, senders, layout, numbers)
        of_x_, of_a_, of_w_ = mixed_gradient_tangents(g, x, a, w, mix, u, v, o, receivers, senders, layout, numbers)
        return (
            mixed_tangents(u, a, w, mix, nothing, a_, w_, receivers, senders, layout, numbers, g)
            + mixed_tangents(x_, a, w, mix, nothing, v, o, receivers, senders, layout, numbers, g)
            + mixed_tangents(x, a_, w_, mix, nothing, v, o, receivers, senders, layout, numbers, g),
            of_x,
            of_a,
            of_w,
            mixed_mixture_tangents(g, u, a, w, nothing, a_, w_, receivers, senders, layout, numbers, mix)
            + mixed_mixture_tangents(g, x_, a, w, nothing, v, o, receivers, senders, layout, numbers, mix)
            + mixed_mixture_tangents(g, x, a_, w_, nothing, v, o, receivers, senders, layout, numbers, mix),
            of_x_,
            of_a_,
            of_w_,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
        )


class _Mixtures(Kernel):
    """dS / dB (numel,); ``like`` has its shape."""

    def construct(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, layout: Tensor, numbers:
        Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All entries."""
        return self.kernel(g, x, a, w, receivers, senders, layout, numbers, like)

    def bprop(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, layout: Tensor, numbers:
        Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """S with the gradient as B."""
        of_x, of_a, of_w = mixed_gradients(g, x, a, w, dout, receivers, senders, layout, numbers)
        return (
            mixed_products(x, a, w, dout, self.zeros(g[0]), receivers, senders, layout, numbers),
            of_x,
            of_a,
            of_w,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(like),
        )


class _MixtureTangents(Kernel):
    """D dS / dB (numel,); ``like`` has its shape."""

    def construct(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers: Tensor,
        senders: Tensor, layout: Tensor, numbers: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All entries."""
        return self.kernel(g, x, a, w, x_, a_, w_, receivers, senders, layout, numbers, like)

    def bprop(
        self, g: Tensor, x: Tensor, a: Tensor, w: Tensor, x_: Tensor, a_: Tensor, w_: Tensor, receivers: Tensor,
        senders: Tensor, layout: Tensor, numbers: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """D S with the gradient as B."""
        of_x, of_a, of_w = mixed_gradient_tangents(g, x, a, w, dout, x_, a_, w_, receivers, senders, layout, numbers)
        of_x_, of_a_, of_w_ = mixed_gradients(g, x, a, w, dout, receivers, senders, layout, numbers)
        return (
            mixed_tangents(x, a, w, dout, x_, a_, w_, receivers, senders, layout, numbers, g),
            of_x,
            of_a,
            of_w,
            of_x_,
            of_a_,
            of_w_,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(like),
        )


mixed_products = _Products("mixed_products", lambda *shapes: [shapes[0][0], shapes[4][0]])
mixed_tangents = _Tangents("mixed_tangents", lambda *shapes: [shapes[0][0], shapes[11][1]])
mixed_gradients = _Gradients("mixed_gradients", lambda *shapes: tuple(shapes[1:4]), 3)
mixed_gradient_tangents = _GradientTangents("mixed_gradient_tangents", lambda *shapes: tuple(shapes[1:4]), 3)
mixed_mixtures = _Mixtures("mixed_mixtures", lambda *shapes: shapes[8])
mixed_mixture_tangents = _MixtureTangents("mixed_mixture_tangents", lambda *shapes: shapes[11])
