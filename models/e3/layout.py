"""How features of several irreps lie in memory here: channels last.

e3nn keeps the 2 l + 1 components of a copy beside each other.  Here the copies of an irrep, its channels, lie beside
each other for each component, so that mixing channels is one product of matrices and a component is a run of memory:

    e3nn    (N, sum of mul (2 l + 1))   in each irrep (mul, 2 l + 1)
    here    (N, sum of (2 l + 1) mul)   in each irrep (2 l + 1, mul)

Both are the same where all irreps are scalars, or have one copy.  ``channels_last`` leads from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from models.e3.irreps import Irreps


def channels_last(irreps: Irreps) -> np.ndarray:
    """Where each number of a feature stands in e3nn's layout, (dim,): that layout, taken at these places, is ours."""
    places = np.arange(irreps.dim)
    return np.concatenate(
        [
            places[part].reshape(mul, ir.dim).T.reshape(-1)
            for part, (mul, ir) in zip(irreps.slices(), irreps, strict=True)
        ]
        or [places]
    )


class Split(nn.Cell):
    """Parts of the last axis of a matrix, (N, sum of widths) to one (N, width) for each.

    Split and Join are each other's gradient: MindSpore's own gradients of such operators have no page.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__(auto_prefix=False)
        self.starts = tuple(int(sum(widths[:k])) for k in range(len(widths)))
        self.widths = tuple(map(int, widths))
        self.slice = ops.Slice()
        self.gradient: tuple = ()

    def construct(self, x: Tensor) -> tuple:
        """(N, sum of widths) to [(N, width)]."""
        parts: tuple = ()
        for k in range(len(self.widths)):
            parts = (*parts, self.slice(x, (0, self.starts[k]), (x.shape[0], self.widths[k])))
        return parts

    def bprop(self, x: Tensor, out: tuple, dout: tuple) -> tuple:
        """The gradients of the parts, side by side."""
        return (self.gradient[0](dout),)


class Join(nn.Cell):
    """Matrices side by side; see ``Split``."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.concat = ops.Concat(-1)
        self.gradient: tuple = ()

    def construct(self, parts: tuple) -> Tensor:
        """[(N, width)] to (N, sum of widths)."""
        return self.concat(parts)

    def bprop(self, parts: tuple, out: Tensor, dout: Tensor) -> tuple:
        """The part of the gradient that belongs to each."""
        return (self.gradient[0](dout),)


class _Alone(nn.Cell):
    """One part is the whole."""

    def construct(self, x: Tensor) -> tuple:
        """(N, width) to [(N, width)]."""
        return (x,)


class _Whole(nn.Cell):
    """The whole is the one part."""

    def construct(self, parts: tuple) -> Tensor:
        """[(N, width)] to (N, width)."""
        return parts[0]


def split_and_join(widths: Sequence[int]) -> tuple[nn.Cell, nn.Cell]:
    """``Split`` and ``Join`` for parts of these widths."""
    if len(widths) < 2:
        return _Alone(auto_prefix=False), _Whole(auto_prefix=False)
    split, join = Split(widths), Join()
    # in tuples, for a cell that owns the other as its part would own itself
    split.gradient, join.gradient = (join,), (split,)
    return split, join
