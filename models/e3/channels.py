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
from models.e3.layout import split_and_join


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


class Spread(nn.Cell):
    """A number of each channel for all its components.

    A product with a matrix of 0 and 1 is one operator.  A CPU copies runs of memory in 60 % of its time.

    Args:
        irreps: C channels of ``dim`` components.
        dtype: of the numbers.
    """

    def __init__(self, irreps: Irreps, dtype: mstype.Type):
        super().__init__()
        irreps = with_copies(irreps)
        self.times = tuple(ir.dim for _, ir in irreps)
        self.needless = not any(times > 1 for times in self.times)
        self.on_cpu, self.one_irrep = on_cpu(), len(irreps) == 1
        self.matrix = None if self.on_cpu else Tensor(spreading(irreps), dtype)
        self.multiply = ops.MatMul()
        self.split, _ = split_and_join([mul for mul, _ in irreps])
        _, self.join = split_and_join([mul for mul, ir in irreps for _ in range(ir.dim)])

    def construct(self, channels: Tensor) -> Tensor:
        """(N, C) to (N, dim)."""
        if self.needless:
            return channels
        if not self.on_cpu:
            return self.multiply(channels, self.matrix)
        parts: tuple = (channels,) if self.one_irrep else self.split(channels)
        components: tuple = ()
        for k in range(len(self.times)):
            for _ in range(self.times[k]):
                components = (*components, parts[k])
        return self.join(components)
