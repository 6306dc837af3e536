"""The channels of a feature, the copies of its irreps, and the components that belong to each.

Channels are numbered in the order of the irreps, the copies of an irrep one after the other, as e3nn numbers the
weights of its norms.  Components stand as ``layout`` has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.cpu_kernels import on_cpu
from models.e3.irreps import Irreps
from models.graph_ops import to_type


def with_copies(irreps: str | Irreps) -> Irreps:
    """The irreps that have a copy; no component changes its place."""
    return Irreps([part for part in Irreps(irreps) if part.mul])


def channel_numbers(irreps: Irreps) -> np.ndarray:
    """(dim,) the channel of each component."""
    numbers, start = [np.zeros(0, int)], 0
    for mul, ir in irreps:
        numbers.append(start + np.tile(np.arange(mul), ir.dim))
        start += mul
    return np.concatenate(numbers)


def spreading(irreps: Irreps) -> np.ndarray:
    """(C, dim) 1 where a component belongs to a channel, else 0."""
    return (channel_numbers(irreps) == np.arange(irreps.num_irreps)[:, None]).astype(float)


def runs_of(irreps: Irreps) -> list[tuple[int, int]]:
    """The first channel and the number of channels of every component, as they follow each other in a feature."""
    starts = np.cumsum([0, *(mul for mul, _ in irreps)])
    return [(int(start), mul) for start, (mul, ir) in zip(starts[:-1], irreps, strict=True) for _ in range(ir.dim)]


class _Copies(nn.Cell):
    """The columns of each run, side by side.

    This cell and ``_Totals`` are each other's gradient.  As products of matrices, which are one operator each, they
    take 1.5 times as long on a CPU.

    Args:
        runs: see ``Spread``.
    """

    def __init__(self, runs: Sequence[tuple[int, int]]):
        super().__init__(auto_prefix=False)
        different = sorted(set(runs))
        self.parts = tuple(different)
        self.order = tuple(different.index(run) for run in runs)
        self.slice, self.concat = ops.Slice(), ops.Concat(-1)
        self.gradient: tuple = ()

    def construct(self, channels: Tensor) -> Tensor:
        """(N, C) to (N, dim)."""
        parts: tuple = ()
        for start, mul in self.parts:
            parts = (*parts, self.slice(channels, (0, start), (channels.shape[0], mul)))
        components: tuple = ()
        for k in self.order:
            components = (*components, parts[k])
        return self.concat(components)

    def bprop(self, channels: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradients of all copies of a column add up."""
        return (self.gradient[0](dout),)


class _Totals(nn.Cell):
    """The sum over the runs of each channel; see ``_Copies``.

    Args:
        runs: see ``Spread``.
    """

    def __init__(self, runs: Sequence[tuple[int, int]]):
        super().__init__(auto_prefix=False)
        starts = np.cumsum([0, *(mul for _, mul in runs)])
        places = [tuple(int(starts[k]) for k, same in enumerate(runs) if same == run) for run in sorted(set(runs))]
        self.parts = tuple((mul, place) for (_, mul), place in zip(sorted(set(runs)), places, strict=True))
        self.slice, self.concat, self.add = ops.Slice(), ops.Concat(-1), ops.AddN()
        self.gradient: tuple = ()

    def construct(self, components: Tensor) -> Tensor:
        """(N, dim) to (N, C)."""
        totals: tuple = ()
        for mul, places in self.parts:
            terms: tuple = ()
            for place in places:
                terms = (*terms, self.slice(components, (0, place), (components.shape[0], mul)))
            totals = (*totals, terms[0] if len(terms) == 1 else self.add(terms))
        return self.concat(totals)

    def bprop(self, components: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient of a sum goes to every term."""
        return (self.gradient[0](dout),)


class Spread(nn.Cell):
    """A number of each channel for all its components, times a constant.

    Args:
        runs: the first channel and the number of channels of each component; runs are equal or have none in common.
        factor: the constant.
        dtype: of the numbers.
    """

    def __init__(self, runs: Sequence[tuple[int, int]], factor: float, dtype: mstype.Type):
        super().__init__()
        channels = np.concatenate([start + np.arange(mul) for start, mul in runs])
        self.needless = bool((np.diff(channels) == 1).all())
        self.on_cpu = on_cpu()
        matrix = factor * (channels == np.arange(channels.max() + 1)[:, None])  # (C, dim)
        self.matrix, self.multiply = Tensor(matrix, dtype), ops.MatMul()  # one operator
        self.factor = None if factor == 1 else Tensor(factor, dtype)
        self.copies, totals = _Copies(runs), _Totals(runs)
        # in tuples, for a cell that owns the other as its part would own itself
        self.copies.gradient, totals.gradient = (totals,), (self.copies,)

    def construct(self, channels: Tensor) -> Tensor:
        """(N, C) to (N, dim)."""
        if not self.on_cpu and not self.needless:
            return self.multiply(channels, to_type(self.matrix, channels.dtype))
        scaled = channels if self.factor is None else channels * to_type(self.factor, channels.dtype)
        return scaled if self.needless else self.copies(scaled)
