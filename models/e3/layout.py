"""How features of several irreps lie in memory here: channels last.

e3nn keeps the 2 l + 1 components of a copy beside each other.  Here the copies of an irrep, its channels, lie beside
each other for each component, so that mixing channels is one product of matrices and a component is a run of memory:

    e3nn    (N, sum of mul (2 l + 1))   in each irrep (mul, 2 l + 1)
    here    (N, sum of (2 l + 1) mul)   in each irrep (2 l + 1, mul)

Both are the same where all irreps are scalars, or have one copy.  ``channels_last`` leads from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from mindspore import Tensor, nn, ops

from models.e3.irreps import Irreps


def groups_of(irreps: Irreps) -> list[tuple[int, ...]]:
    """Runs of neighbouring irreps with the same number of copies."""
    runs = groupby(range(len(irreps)), lambda k: irreps[k].mul)
    return [tuple(members) for _, members in runs]


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


class _Padded(nn.Cell):
    """Zeros before and after a vector; this and ``_Cut`` are each other's gradient: that of Pad has none itself."""

    def __init__(self, width: int, padded: int, start: int):
        super().__init__(auto_prefix=False)
        self.pad = ops.Pad(((start, padded - start - width),))
        self.gradient: tuple = ()

    def construct(self, x: Tensor) -> Tensor:
        """(width,) to (padded,)."""
        return self.pad(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """What is not padding."""
        return (self.gradient[0](dout),)


class _Cut(nn.Cell):
    """Numbers of a vector beside each other."""

    def __init__(self, width: int, start: int):
        super().__init__(auto_prefix=False)
        self.width, self.start, self.slice = width, start, ops.Slice()
        self.gradient: tuple = ()

    def construct(self, x: Tensor) -> Tensor:
        """(padded,) to (width,)."""
        return self.slice(x, (self.start,), (self.width,))

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Zeros for the others."""
        return (self.gradient[0](dout),)


def padding(width: int, padded: int, start: int = 0) -> nn.Cell | None:
    """The cell that adds zeros to a vector of this width, which begins at ``start`` then; None where it needs none."""
    if width == padded:
        return None
    there, back = _Padded(width, padded, start), _Cut(width, start)
    # in tuples, for a cell that owns the other as its part would own itself
    there.gradient, back.gradient = (back,), (there,)
    return there


class Arrange(nn.Cell):
    """Columns of a matrix in another order; its gradient is the cell of the inverse order.

    Args:
        columns: (dim,) where each column of the result comes from.
    """

    def __init__(self, columns: np.ndarray):
        super().__init__(auto_prefix=False)
        runs = np.split(columns, np.flatnonzero(np.diff(columns) != 1) + 1)
        self.runs = tuple((int(run[0]), len(run)) for run in runs)
        self.slice, self.concat = ops.Slice(), ops.Concat(-1)
        self.gradient: tuple = ()

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        parts: tuple = ()
        for start, width in self.runs:
            parts = (*parts, self.slice(x, (0, start), (x.shape[0], width)))
        return self.concat(parts)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Every column where it came from."""
        return (self.gradient[0](dout),)


def arrangement(columns: np.ndarray) -> Arrange | None:
    """The cell for an order of columns; None where they stay where they are."""
    if (np.diff(columns) == 1).all():
        return None
    there, back = Arrange(columns), Arrange(np.argsort(columns))
    # in tuples, for a cell that owns the other as its part would own itself
    there.gradient, back.gradient = (back,), (there,)
    return there


class SideBySide(nn.Cell):
    """Two features of the same irreps as one with twice the copies, those of each irrep side by side.

    Args:
        irreps: of each.
    """

    def __init__(self, irreps: Irreps):
        super().__init__(auto_prefix=False)
        groups = groups_of(irreps)
        dims = [sum(irreps[b].ir.dim for b in group) for group in groups]
        muls = [irreps[group[0]].mul for group in groups]
        widths = [dim * mul for dim, mul in zip(dims, muls, strict=True)]
        self.split, _ = split_and_join(widths)
        _, self.join = split_and_join([2 * width for width in widths])
        self.pairs = tuple(split_and_join((mul, mul))[1] for mul in muls)
        self.muls = tuple(muls)

    def construct(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, dim) and (N, dim) to (N, 2 dim)."""
        one, other = self.split(first), self.split(second)
        parts: tuple = ()
        for k in range(len(self.muls)):
            mul = self.muls[k]
            pair = self.pairs[k]((one[k].reshape(-1, mul), other[k].reshape(-1, mul)))  # (N components, 2 copies)
            parts = (*parts, pair.reshape(first.shape[0], -1))
        return self.join(parts)
