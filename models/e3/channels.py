"""The channels of a feature, the copies of its irreps, and the components that belong to each.

Channels are numbered in the order of the irreps, the copies of an irrep one after the other, as e3nn numbers the
weights of its norms.  Components stand as ``layout`` has them.
"""

from __future__ import annotations

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


class _Copies(nn.Cell):
    """The columns of each irrep, once for each of its components.

    This cell and ``_Totals`` are each other's gradient.  As products of matrices, which are one operator each, they
    take 1.5 times as long on a CPU.

    Args:
        irreps: all of them with copies.
    """

    def __init__(self, irreps: Irreps):
        super().__init__(auto_prefix=False)
        self.parts = tuple((mul, ir.dim, sum(part.mul for part in irreps[:k])) for k, (mul, ir) in enumerate(irreps))
        self.slice, self.concat = ops.Slice(), ops.Concat(-1)
        self.gradient: tuple = ()

    def construct(self, channels: Tensor) -> Tensor:
        """(N, C) to (N, dim)."""
        components: tuple = ()
        for mul, times, start in self.parts:
            part = self.slice(channels, (0, start), (channels.shape[0], mul))
            for _ in range(times):
                components = (*components, part)
        return self.concat(components)

    def bprop(self, channels: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradients of all copies of a column add up."""
        return (self.gradient[0](dout),)


class _Totals(nn.Cell):
    """The sum over the components of each channel; see ``_Copies``.

    Args:
        irreps: all of them with copies.
    """

    def __init__(self, irreps: Irreps):
        super().__init__(auto_prefix=False)
        self.parts = tuple((mul, ir.dim, place.start) for (mul, ir), place in zip(irreps, irreps.slices(), strict=True))
        self.slice, self.concat, self.add = ops.Slice(), ops.Concat(-1), ops.AddN()
        self.gradient: tuple = ()

    def construct(self, components: Tensor) -> Tensor:
        """(N, dim) to (N, C)."""
        totals: tuple = ()
        for mul, times, start in self.parts:
            terms: tuple = ()
            for k in range(times):
                terms = (*terms, self.slice(components, (0, start + k * mul), (components.shape[0], mul)))
            totals = (*totals, terms[0] if times == 1 else self.add(terms))
        return self.concat(totals)

    def bprop(self, components: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient of a sum goes to every term."""
        return (self.gradient[0](dout),)


class Spread(nn.Cell):
    """A number of each channel for all its components.

    Args:
        irreps: C channels of ``dim`` components.
        dtype: of the numbers.
    """

    def __init__(self, irreps: Irreps, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.needless = all(ir.l == 0 for _, ir in irreps)
        self.on_cpu = on_cpu()
        self.matrix, self.multiply = Tensor(spreading(irreps), dtype), ops.MatMul()  # one operator
        self.copies, totals = _Copies(irreps), _Totals(irreps)
        # in tuples, for a cell that owns the other as its part would own itself
        self.copies.gradient, totals.gradient = (totals,), (self.copies,)

    def construct(self, channels: Tensor) -> Tensor:
        """(N, C) to (N, dim)."""
        if self.needless:
            return channels
        return self.copies(channels) if self.on_cpu else self.multiply(channels, to_type(self.matrix, channels.dtype))
