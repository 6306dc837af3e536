"""The parts of equivariant networks that have operators of their own, each beside its formula in NumPy."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_e3.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from models import DTYPES
from models.attention import ReceiverSoftmax
from models.e3.channels import Spread, runs_of
from models.e3.irreps import Irreps
from models.e3.layout import padding, split_and_join
from models.e3.norm import EPS, InstanceNorm
from models.e3.scalar_functions import SmoothLeakyReLU, Tanh
from models.graph_ops import gather
from scripts.doctor_parts.doctor_formulas import Operator, sigmoid, signed


def e3(dtype: str) -> list[Operator]:
    """All of them; four nodes (4, 4) have a scalar and a vector."""
    kind, irreps = DTYPES[dtype], Irreps("1x0e+1x1o")
    split, join = split_and_join([1, 3])
    pad: Any = padding(4, 6)
    spread = Spread(runs_of(irreps), 2.0, kind)

    def rejoined(x):
        first, second = split(x)
        return join((first * first, second * second * second))

    def padded(x):
        row = pad((x * x).sum(0))
        return row * row * row

    def scaled(x):
        return x * spread(x[:, :2])

    def smooth_leaky_relu(x):
        return 0.2 * x + 0.8 * x * sigmoid(x)

    weights, graphs = Tensor(np.array([1.0, 6.0, 8.0, 1.0]), kind), Tensor(np.array([0, 0, 0, 1], np.int32))
    largest = ops.UnsortedSegmentMax()

    def heaviest(x):
        return x * x * gather(largest(weights, graphs, 2), graphs).reshape(-1, 1)

    softmax, falling = ReceiverSoftmax(4, True, kind), Tensor([[1.0], [0.7], [0.0], [0.5]], kind)

    def attention(x):
        return softmax(x, falling, graphs, weights[:2])

    def numpy_attention(x):
        powers = falling.asnumpy() * np.exp(x)
        return powers / (1 + np.array([*3 * [powers[:3].sum(0)], powers[3]]))

    x = signed(4, 4)
    return [
        Operator("ReceiverSoftmax", attention, numpy_attention, x),
        Operator("Split and Join", rejoined, lambda x: np.concatenate((x[:, :1] ** 2, x[:, 1:] ** 3), 1), x),
        Operator("padding", padded, lambda x: np.append((x * x).sum(0) ** 3, [0, 0]), x),
        Operator("Spread", scaled, lambda x: 2 * x * x[:, [0, 1, 1, 1]], x),
        Operator("UnsortedSegmentMax", heaviest, lambda x: x * x * np.array([[8.0], [8.0], [8.0], [1.0]]), x),
        Operator("Tanh", Tanh(kind), np.tanh, x),
        Operator("SmoothLeakyReLU", SmoothLeakyReLU(kind), smooth_leaky_relu, x),
        Operator("InstanceNorm", *instance_norm(kind, irreps), x),
    ]


def instance_norm(kind: mstype.Type, irreps: Irreps) -> tuple[Callable[[Tensor], Tensor], Callable]:
    """The cell and its formula, for a graph of three nodes and one of one."""
    graphs, nodes = Tensor(np.array([0, 0, 0, 1], np.int32)), Tensor(np.ones(4), kind)
    norm = InstanceNorm(irreps, kind)

    def apply(x):
        return norm(x, graphs, nodes, nodes[:2])

    def normalised(x):
        centred = x - x.mean(0) * np.array([1, 0, 0, 0])
        squares = (centred**2).mean(0)
        return centred / np.sqrt(np.array([squares[0], *3 * [squares[1:].mean()]]) + EPS)

    def formula(x):
        return np.concatenate((normalised(x[:3]), normalised(x[3:])))

    return apply, formula
