"""One compiled kernel as a cell; the modules beside this one give the kernels their derivatives."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from mindspore import nn, ops

from models.cpu_kernels.build import library

LIBRARY = library()
# not OMP_NUM_THREADS: MindSpore sets it to 1 for its children, whatever the user wanted
ctypes.CDLL(LIBRARY).set_threads(len(os.sched_getaffinity(0)))


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
