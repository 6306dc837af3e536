"""All weights of a model as one vector, and back.

Weights of one shape stand beside each other, so that each group of them is joined by one operator and taken apart by
one: a model repeats few shapes in many layers, and an accelerator starts every operator alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

#: a function of each element of tuples; a Python loop would nest a call for each weight, and the compiler allows 1,000
each = ops.HyperMap()


class Group(NamedTuple):
    """Weights of one shape.

    Attributes:
        first, last: their places among the weights, the last excluded.
        start, end: where their numbers begin and end in the vector.
        shape: of each.
    """

    first: int
    last: int
    start: int
    end: int
    shape: tuple[int, ...]


def by_shape(weights: Iterable[Parameter]) -> ParameterTuple:
    """The weights in another order: those of one shape beside each other."""
    groups: dict[tuple[int, ...], list[Parameter]] = {}
    for weight in weights:
        groups.setdefault(tuple(weight.shape), []).append(weight)
    return ParameterTuple(weight for group in groups.values() for weight in group)


class Flat(nn.Cell):
    """Tensors of the shapes of the weights to one vector (K,).

    Args:
        weights: as ``by_shape`` orders them.

    Attributes:
        size: K.
    """

    def __init__(self, weights: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.names = tuple(weight.name for weight in weights)
        groups: list[Group] = []
        last = end = 0
        for shape, members in groupby(tuple(weight.shape) for weight in weights):
            first, start, count = last, end, len(list(members))
            last, end = first + count, start + count * int(np.prod(shape, dtype=np.int64))
            groups.append(Group(first, last, start, end, shape))
        self.groups, self.size = tuple(groups), end

    def construct(self, arrays: tuple) -> Tensor:
        """Tensors in the order of the weights to (K,)."""
        rows: tuple = ()
        for first, last, _, _, _ in self.groups:
            members = arrays[first:last]
            row = ops.stack(members) if last > first + 1 else members[0]
            rows = (*rows, row.reshape(-1))
        return ops.concat(rows, 0)

    def assign(self, weights: ParameterTuple, vector: Tensor) -> tuple:
        """Give each weight its part of (K,), inside a graph, which must depend on what is returned."""
        done: tuple = ()
        for first, last, start, end, shape in self.groups:
            part = vector[start:end].reshape(last - first, *shape)
            parts = ops.unstack(part) if last > first + 1 else (part.reshape(shape),)
            done = (*done, each(ops.assign, weights[first:last], parts))
        return done

    def joined(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """One array for each weight, by its name, as (K,)."""
        return np.concatenate([parts[name].reshape(-1) for name in self.names])

    def parts(self, vector: Tensor) -> dict[str, np.ndarray]:
        """What (K,) holds for each weight, by its name; copies."""
        values = vector.asnumpy()
        result: dict[str, np.ndarray] = {}
        for first, last, start, end, shape in self.groups:
            arrays = values[start:end].reshape(last - first, *shape)
            result |= {name: array.copy() for name, array in zip(self.names[first:last], arrays, strict=True)}
        return result
