"""Sums over neighbours of weighted products of small matrices with blocks of features: (11) of edges, in one pass.

(12)  y_s[i] = sum_(e: i_e = i) f_s w_s[p_e] T_s[e] x_s[j_e]     for the segments s of a table of ``row_blocks``

i_e and j_e are the receiver and the sender of edge e; edge e + P is the reverse of edge e, and both have the row p_e of
w.  It is linear in x, T and w, so contracted with g it is one number, and each gradient is linear in the others.  Each
is a kernel of its own: parameters need none in T, and a fixed geometry none in T and w.

The last inputs of every cell are the tables: segments, places and factors, as for (11).
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel


class _Messages(Kernel):
    """(12) (N, W) from x (N, F), T (E, K) and w (P, C); ``like`` has W columns."""

    def construct(
        self, x: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments, which cover the columns."""
        return self.kernel(x, t, w, receivers, senders, table, places, factors, like)

    def bprop(
        self, x: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradients in x, T and w."""
        rest = receivers, senders, table, places, factors
        return (
            message_senders(dout, t, w, *rest, x),
            message_matrices(dout, x, w, *rest, t),
            message_weights(dout, x, t, *rest, w),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


class _MessageSenders(Kernel):
    """The gradient of (12) in x, (N, F), from g (N, W), T and w; ``like`` has F columns."""

    def construct(
        self, g: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments."""
        return self.kernel(g, t, w, receivers, senders, table, places, factors, like)

    def bprop(
        self, g: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of x."""
        rest = receivers, senders, table, places, factors
        return (
            messages(dout, t, w, *rest, g),
            message_matrices(g, dout, w, *rest, t),
            message_weights(g, dout, t, *rest, w),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


class _MessageMatrices(Kernel):
    """The gradient of (12) in T, (E, K), from g (N, W), x and w; ``like`` has the shape of T."""

    def construct(
        self, g: Tensor, x: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, w, receivers, senders, table, places, factors, like)

    def bprop(
        self, g: Tensor, x: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of T."""
        rest = receivers, senders, table, places, factors
        return (
            messages(x, dout, w, *rest, g),
            message_senders(g, dout, w, *rest, x),
            message_weights(g, x, dout, *rest, w),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


class _MessageWeights(Kernel):
    """The gradient of (12) in w, (P, C), from g (N, W), x and T; ``like`` has the shape of w."""

    def construct(
        self, g: Tensor, x: Tensor, t: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor,
    ) -> Tensor:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, t, receivers, senders, table, places, factors, like)

    def bprop(
        self, g: Tensor, x: Tensor, t: Tensor, receivers: Tensor, senders: Tensor, table: Tensor, places: Tensor,
        factors: Tensor, like: Tensor, out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of w."""
        rest = receivers, senders, table, places, factors
        return (
            messages(x, t, dout, *rest, g),
            message_senders(g, t, dout, *rest, x),
            message_matrices(g, x, dout, *rest, t),
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


messages = _Messages("messages", lambda *shapes: [shapes[0][0], shapes[8][1]])
message_senders = _MessageSenders("message_senders", lambda *shapes: [shapes[0][0], shapes[8][1]])
message_matrices = _MessageMatrices("message_matrices", lambda *shapes: shapes[8])
message_weights = _MessageWeights("message_weights", lambda *shapes: shapes[8])
