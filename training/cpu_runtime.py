"""How MindSpore launches the operators of a compiled graph on a CPU with few cores.

With at least two threads to dispatch them, the runtime launches operators in the order of a plan.  It takes 18 % of the
cores for this, so below twelve cores it has one, and every operator waits for a message instead: a train step of a
small network then spends more time on messages than on mathematics.  Two threads change that on any machine with two
cores.

The plan's launches go through a queue whose reader waits by spinning, which on two cores takes the core that the
operators need: ``new_pipeline:False`` is MindSpore's own word for the queue whose reader sleeps.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import mindspore as ms

SWITCHES = "MS_DEV_RUNTIME_CONF"  # of MindSpore, read when the first operator runs
SLEEPING_QUEUE = "new_pipeline:False"
SHARE = 0.18  # of the cores dispatch operators
DISPATCH_THREADS = 2


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def planned_launches() -> Iterator[None]:
    """Around the first operator of the process: choose launches from a plan, where MindSpore would not.

    What the user has chosen, in the environment or by a call, stays.
    """
    if cores() < DISPATCH_THREADS or int(SHARE * cores()) >= DISPATCH_THREADS or SWITCHES in os.environ:
        yield
        return
    with contextlib.suppress(RuntimeError):  # chosen before
        ms.runtime.dispatch_threads_num(DISPATCH_THREADS)
    os.environ[SWITCHES] = SLEEPING_QUEUE
    try:
        with silent_output():  # MindSpore repeats the variable on standard output
            yield
    finally:
        del os.environ[SWITCHES]


@contextlib.contextmanager
def silent_output() -> Iterator[None]:
    """Nothing reaches standard output, not even from C++."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
