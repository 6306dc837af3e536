"""One compiled kernel as a cell; the modules beside this one give the kernels their derivatives."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any

import joblib
from mindspore import nn, ops

from models.cpu_kernels.build import library

PROCESSES_HERE = "GEOSPORE_LOCAL_PROCESSES"  # of this run on this machine, from scripts/run_distribute_train.sh
LOOPBACK = ("127.", "localhost", "::1")


def share_of_cores(environment: Mapping[str, str] = os.environ) -> int:
    """Threads of one process: the cores that it may use, divided among the processes of its run on this machine.

    The cores are those of a container that has a share of the machine, or the user's LOKY_MAX_CPU_COUNT; not
    OMP_NUM_THREADS: MindSpore sets it to 1 for its children, whatever the user wanted.
    """
    count = environment.get(PROCESSES_HERE, "")
    if not count and environment.get("MS_SCHED_HOST", "").startswith(LOOPBACK):
        count = environment.get("MS_WORKER_NUM", "")  # msrun itself says only how many there are on all servers
    bound = "MSRUN_CPU_LIST" in environment  # msrun has given each process cores of its own
    among = int(count) if count.isdecimal() and environment.get("MS_ROLE") and not bound else 1
    return max(1, joblib.cpu_count() // max(1, among))


LIBRARY = library()
ctypes.CDLL(LIBRARY).set_threads(share_of_cores())


class Kernel(nn.Cell):
    """A cell around one kernel; its index inputs have no gradient.

    Args:
        name: of the kernel in kernels.cc; the result has the precision of its first input.
        shape: makes the shape of the result from those of the inputs, or a tuple of the shapes of several results.
        results: how many there are.
    """

    def __init__(self, name: str, shape: Callable[..., Any], results: int = 1):
        super().__init__(auto_prefix=False)
        self.kernel = ops.Custom(f"{LIBRARY}:{name}", shape, _types(results), "aot")
        self.zeros = ops.ZerosLike()


def _types(results: int) -> Callable[..., Any]:
    """The precision of each result: that of the first input."""
    return (lambda *types: types[0]) if results == 1 else lambda *types: (types[0],) * results


def same(*shapes: list[int]) -> list[int]:
    """The shape of the first input."""
    return shapes[0]
