"""Kernels in C++ for the layers where MindSpore's operators on a CPU need many passes over memory.

``build`` compiles kernels.cc, ``fused`` gives the kernels their derivatives.  A layer asks ``load`` when it is made; it
has the same mathematics in MindSpore's operators for other devices, for float16, and where nothing can be compiled.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import mindspore as ms
from mindspore import dtype as mstype

from models.cpu_kernels.build import find_or_build, library

_left_out: list[bool] = []  # one entry for each block of ``without_kernels`` that is open


def device_target() -> str:
    """The device that layers are made for: CPU, GPU or Ascend."""
    return ms.get_context("device_target")


def on_cpu() -> bool:
    """Whether layers are made for a CPU, some of whose operators are slow: there other operators do the same."""
    return device_target() == "CPU"


def load(dtype: mstype.Type = mstype.float32) -> ModuleType | None:
    """The module ``fused``, if the device is the CPU and the kernels are compiled, now or before; else nothing.

    Args:
        dtype: what the layer computes in; there are no kernels for float16.
    """
    if dtype == mstype.float16 or _left_out or not on_cpu() or not library():
        return None
    return importlib.import_module("models.cpu_kernels.fused")


@contextmanager
def without_kernels() -> Iterator[None]:
    """Layers that are made in this block have MindSpore's operators instead of kernels."""
    _left_out.append(True)
    try:
        yield
    finally:
        _left_out.pop()


def state() -> str:
    """Whether the kernels are used on a CPU, and if not, why."""
    file, reason = find_or_build()
    return "compiled" if file else f"none, MindSpore's operators instead: {reason}"
