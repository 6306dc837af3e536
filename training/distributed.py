"""Several processes that train one model together: who is who, sums over all of them, and agreement.

Processes are started by msrun, which tells each its part by environment variables.  A run that was not started by msrun
is one process; every function here then costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.communication import get_group_size, get_rank, init

from training.interruption import killable
from training.launch import RankError, advice, is_launched, is_scheduler

WAIT_SECONDS = "1800"  # for the slowest process; a dead one is noticed by msrun within seconds
PARTS = 3  # float32 numbers that hold one float64


class SumOverRanks(nn.Cell):
    """The sum of a vector over all processes, equal on each of them to the last bit.

    float64 has no all-reduce, and on a CPU the all-gather rounds it to float32 without a word (MindSpore 2.10): its
    numbers travel as three float32 each and are added in the order of the ranks.

    Args:
        size: number of processes.
    """

    def __init__(self, size: int):
        super().__init__(auto_prefix=False)
        self.size = size
        if size > 1:
            self.reduce, self.gather = ops.AllReduce(), ops.AllGather()

    def construct(self, vector: Tensor) -> Tensor:
        """(K,) to (K,)."""
        if self.size == 1:
            return vector
        if vector.dtype != mstype.float64:
            return self.reduce(vector)
        parts: tuple = ()
        rest = vector
        for _ in range(PARTS):
            part = ops.cast(rest, mstype.float32)
            parts = (*parts, part)
            rest = rest - ops.cast(part, mstype.float64)
        gathered = ops.cast(self.gather(ops.concat(parts, 0)), mstype.float64)  # (size * PARTS * K,)
        return gathered.reshape(self.size, PARTS, -1).sum(1).sum(0)


@dataclass(frozen=True)
class Ranks:
    """Which process of its run this one is.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes: float32 or float64, any shape; every process must call it."""
        if self.size == 1:
            return values
        flat = Tensor(np.ascontiguousarray(values).reshape(-1))
        # construct itself, operator by operator: called as a cell it would be compiled for every shape
        return SumOverRanks(self.size).construct(flat).asnumpy().reshape(values.shape)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process must call it."""
        return bool(flag) if self.size == 1 else bool(self.sum(np.array([flag], np.float32))[0])

    def share(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of the first process, on every process; the others pass arrays of the same names and shapes."""
        mine = arrays if self.is_main else {name: np.zeros_like(value) for name, value in arrays.items()}
        return {name: self.sum(mine[name]) for name in sorted(mine)}  # in one order on all of them

    def wait(self) -> None:
        """Return when every process has called it."""
        self.any(False)

    def agree(self, value: int, what: str) -> None:
        """Make sure that a number below 2^32 is the same on every process.

        Raises:
            RankError: it is not.
        """
        numbers = np.zeros(self.size)
        numbers[self.rank] = value
        numbers = self.sum(numbers)
        other = np.flatnonzero(numbers != numbers[0])
        if len(other):
            raise RankError(
                f"{what}: expected the same on all {self.size} processes, rank {other[0]} differs from rank 0; give "
                "every server the same files and options"
            )


def join() -> Ranks:
    """Meet the other processes of the run, see ``training.launch``; the device must have been chosen.

    msrun also starts a scheduler with the same command: it serves the others here and never returns.

    Raises:
        RankError: they cannot be met.
    """
    if not is_launched():
        return Ranks()
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", WAIT_SECONDS)
    if is_scheduler():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it ends when the others have saved their state and left
    try:
        with contextlib.nullcontext() if is_scheduler() else killable():
            init()
    except (RuntimeError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise RankError(f"the processes of the run could not meet ({reason.rstrip('.')}); {advice()}") from None
    return Ranks(get_rank(), get_group_size())
