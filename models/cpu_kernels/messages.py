"""Sums over neighbours of weighted products of small matrices with blocks of features: (11) of edges, in one pass.

(12)  y_s[i] = sum_(e: i_e = i) f_s w_s[p_e] T_s[e] x_s[j_e]     for the segments s of a table of ``row_blocks``

i_e and j_e are the receiver and the sender of edge e; edge e + P is the reverse of edge e, and both have the row p_e of
w.  It is linear in x, T and w, so contracted with g it is one number, and each gradient is linear in the others.

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
        of_t, of_w = message_gradients(dout, x, t, w, receivers, senders, table, places, factors)
        return (
            message_senders(dout, t, w, receivers, senders, table, places, factors, x),
            of_t,
            of_w,
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
        of_t, of_w = message_gradients(g, dout, t, w, receivers, senders, table, places, factors)
        return (
            messages(dout, t, w, receivers, senders, table, places, factors, g),
            of_t,
            of_w,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


class _MessageGradients(Kernel):
    """The gradients of (12) in T (E, K) and in w (P, C), from g (N, W), x, T and w."""

    def construct(
        self, g: Tensor, x: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor,
        places: Tensor, factors: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """All segments."""
        return self.kernel(g, x, t, w, receivers, senders, table, places, factors)

    def bprop(
        self, g: Tensor, x: Tensor, t: Tensor, w: Tensor, receivers: Tensor, senders: Tensor, table: Tensor,
        places: Tensor, factors: Tensor, out: tuple, dout: tuple,
    ) -> tuple:  # fmt: skip
        """The gradients take the places of T and of w, one at a time."""
        t_, w_ = dout
        rest = receivers, senders, table, places, factors
        of_t, of_w = message_gradients(g, x, t_, w_, *rest)
        return (
            messages(x, t_, w, *rest, g) + messages(x, t, w_, *rest, g),
            message_senders(g, t_, w, *rest, x) + message_senders(g, t, w_, *rest, x),
            of_t,
            of_w,
            self.zeros(receivers),
            self.zeros(senders),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
        )


messages = _Messages("messages", lambda *shapes: [shapes[0][0], shapes[8][1]])
message_senders = _MessageSenders("message_senders", lambda *shapes: [shapes[0][0], shapes[8][1]])
message_gradients = _MessageGradients("message_gradients", lambda *shapes: (shapes[2], shapes[3]), 2)
