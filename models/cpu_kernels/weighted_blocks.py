"""Products of small matrices with blocks of features whose channels have a weight each: (6) and (8) in one pass.

(11)  y_s[e] = f_s w_s[e] T_s[e] x_s[e]     for the segments s of a table of ``row_blocks``, all of own rows

w_s has a number for each channel, from a place of w on; w has a row for each row e, one for the rows e and e + M / 2,
or one for all.  It is linear in x, T and w, so contracted with g it is one number, and each gradient is linear in the
others.

The last inputs of every cell are the tables: segments, places and factors.
"""

from __future__ import annotations

from mindspore import Tensor

from models.cpu_kernels.kernel import Kernel


class _WeightedBlocks(Kernel):
    """(11) (M, W) from x (M, F), T (M, K) and w (M, C), (M / 2, C) or (1, C); ``like`` has W columns."""

    def construct(
        self, x: Tensor, t: Tensor, w: Tensor, table: Tensor, places: Tensor, factors: Tensor, like: Tensor
    ) -> Tensor:
        """All segments, which cover the columns."""
        return self.kernel(x, t, w, table, places, factors, like)

    def bprop(
        self, x: Tensor, t: Tensor, w: Tensor, table: Tensor, places: Tensor, factors: Tensor, like: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradients in x, T and w."""
        of_x, of_t = weighted_gradients(dout, t, w, x, table, places, factors)
        return (
            of_x,
            of_t,
            weighted_weights(dout, x, t, w, table, places, factors),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
            self.zeros(like),
        )


class _WeightedGradients(Kernel):
    """The gradients of (11) in x and in T, from g (M, W), T, w and x: both are made of w g."""

    def construct(
        self, g: Tensor, t: Tensor, w: Tensor, x: Tensor, table: Tensor, places: Tensor, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All segments."""
        return self.kernel(g, t, w, x, table, places, factors)

    def bprop(
        self, g: Tensor, t: Tensor, w: Tensor, x: Tensor, table: Tensor, places: Tensor, factors: Tensor,
        out: tuple, dout: tuple,
    ) -> tuple:  # fmt: skip
        """The gradients take the places of x and of T, one at a time."""
        x_, t_ = dout
        of_x, of_t = weighted_gradients(g, t_, w, x_, table, places, factors)
        return (
            weighted_blocks(x_, t, w, table, places, factors, g) + weighted_blocks(x, t_, w, table, places, factors, g),
            of_t,
            weighted_weights(g, x_, t, w, table, places, factors)
            + weighted_weights(g, x, t_, w, table, places, factors),
            of_x,
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
        )


class _WeightedWeights(Kernel):
    """The gradient of (11) in w, from g (M, W), x and T; ``like`` has the shape of w."""

    def construct(
        self, g: Tensor, x: Tensor, t: Tensor, like: Tensor, table: Tensor, places: Tensor, factors: Tensor
    ) -> Tensor:
        """All segments."""
        return self.kernel(g, x, t, like, table, places, factors)

    def bprop(
        self, g: Tensor, x: Tensor, t: Tensor, like: Tensor, table: Tensor, places: Tensor, factors: Tensor,
        out: Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of w."""
        of_x, of_t = weighted_gradients(g, t, dout, x, table, places, factors)
        return (
            weighted_blocks(x, t, dout, table, places, factors, g),
            of_x,
            of_t,
            self.zeros(like),
            self.zeros(table),
            self.zeros(places),
            self.zeros(factors),
        )


weighted_blocks = _WeightedBlocks("weighted_blocks", lambda *shapes: [shapes[0][0], shapes[6][1]])
weighted_gradients = _WeightedGradients("weighted_gradients", lambda *shapes: (shapes[3], shapes[1]), 2)
weighted_weights = _WeightedWeights("weighted_weights", lambda *shapes: shapes[3])
