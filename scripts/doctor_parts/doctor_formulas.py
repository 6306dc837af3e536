"""What the doctor's tables of operators are written with."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_formulas.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mindspore import Tensor


class Operator(NamedTuple):
    """An operator of MindSpore, the same in NumPy, and where it is tried.

    Attributes:
        name: in the table.
        apply: a tensor to a tensor.
        formula: an array to an array.
        at: x; at least 0.1 from every point where the operator is not smooth.
        orders: the highest derivative that the suite needs.
    """

    name: str
    apply: Callable[..., Tensor]
    formula: Callable[[np.ndarray], np.ndarray]
    at: np.ndarray
    orders: int = 3


def positive(*shape: int) -> np.ndarray:
    """Random numbers from 0.4 to 1.6."""
    return np.random.default_rng(len(shape)).uniform(0.4, 1.6, shape)


def signed(*shape: int) -> np.ndarray:
    """The same with random signs."""
    return positive(*shape) * np.random.default_rng(7).choice((-1.0, 1.0), shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))
