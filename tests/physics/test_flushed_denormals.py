"""Denormals are 0 in what runs a compiled cell, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from physics.flushed_denormals import MATHEMATICS, Flushed

ROOT = Path(__file__).resolve().parents[2]
SMALL = np.full(8, 1e-20, np.float32)  # whose squares are denormal
# one core, where MindSpore comes to run graphs in the thread of Python; PYNATIVE, whose queues are threads of their own
PROGRAM = f"""
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from mindspore import Tensor, nn
from physics.derivatives import Compiled
from training.device import set_up
set_up("PYNATIVE", "CPU", 0, seed=0)
values = Tensor(np.full(1000, 1e-20, np.float32))
def squared(x):
    return x * x
square = Compiled(nn.Cell(), squared)
compiled = sum(np.count_nonzero(square(values).asnumpy()) for _ in range(30))
print(compiled, np.count_nonzero((values * values).asnumpy()), np.float32(1e-20) * np.float32(1e-20) != 0)
"""
known = pytest.mark.skipif(MATHEMATICS is None, reason="how to flush them is not known here")


@known
def test_threads_begin_as_the_one_that_makes_them():
    found = {}

    def square(name: str) -> None:
        found[name] = np.count_nonzero(SMALL * SMALL)

    square("before")
    with Flushed():
        square("here")
        with Flushed():
            pass
        thread = threading.Thread(target=square, args=("thread",))
        thread.start()
        thread.join()
    square("after")
    assert found == {"before": 8, "here": 0, "thread": 0, "after": 8}


@known
def test_graphs_and_operators_flush_and_numpy_does_not(tmp_path):
    program = tmp_path / "program.py"  # MindSpore reads the source of what it compiles
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "GLOG_v": "3"}
    command = [sys.executable, str(program)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert result.stdout.split() == ["0", "0", "True"], result.stderr[-2000:]
