"""One compiled kernel as a cell; the modules beside this one give the kernels their derivatives."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import joblib
from mindspore import nn, ops

from models.cpu_kernels.build import library

LIBRARY = library()
# the cores that the process may use, also where a container has a share of the machine, or the user's
# LOKY_MAX_CPU_COUNT; not OMP_NUM_THREADS: MindSpore sets it to 1 for its children, whatever the user wanted
ctypes.CDLL(LIBRARY).set_threads(joblib.cpu_count())


class Kernel(nn.Cell):
    """A cell around one kernel; its index inputs have no gradient.

    Args:
        name: of the kernel in kernels.cc; the result has the precision of its first input.
        shape: makes the shape of the result from those of the inputs.
    """

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(auto_prefix=False)
        self.kernel = ops.Custom(f"{LIBRARY}:{name}", shape, lambda *types: types[0], "aot")
        self.zeros = ops.ZerosLike()


def same(*shapes: list[int]) -> list[int]:
    """The shape of the first input."""
    return shapes[0]
