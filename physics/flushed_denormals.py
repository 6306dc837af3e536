"""Denormals are 0 while a compiled cell runs: numbers below 1.2e-38 (float32) or 2.2e-308 (float64).

Some processors take a hundred times as long with them.  MindSpore flushes them in the threads that its actors have, not
in that of Python, which runs the graph itself on a machine with one core, and not in the queues of PYNATIVE mode.  A
thread begins as the one that makes it, so all of these are flushed if the caller is while they are made and while it
runs a graph.  The caller gets its own setting back: NumPy keeps denormals, and warns where it does not.
"""

from __future__ import annotations

import ctypes
import platform
from types import TracebackType

LIBRARY = "libm.so.6"  # glibc
#: of the environment of floating-point numbers (fenv_t of glibc): which 32 bits control them, and what flushes there
CONTROL = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
SIZE = 8  # of fenv_t at most, in 32 bits


class Flushed:
    """``with Flushed():`` no denormals in this thread, nor in those that it makes; where this is not known, nothing."""

    def __enter__(self) -> None:
        if MATHEMATICS is not None:
            self.before = (ctypes.c_uint32 * SIZE)()
            MATHEMATICS.fegetenv(self.before)
            flushed = type(self.before)(*self.before)
            flushed[PLACE] |= BITS
            MATHEMATICS.fesetenv(flushed)

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if MATHEMATICS is not None:
            MATHEMATICS.fesetenv(self.before)


def _library() -> ctypes.CDLL | None:
    """The C library of mathematics, where its environment is the one of ``CONTROL``."""
    if platform.system() != "Linux" or platform.machine() not in CONTROL:
        return None
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:  # another C library
        return None


MATHEMATICS = _library()
PLACE, BITS = CONTROL.get(platform.machine(), (0, 0))
