"""How MindSpore's runtime is set up on a CPU with few cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training import cpu_runtime

ROOT = Path(__file__).resolve().parents[2]
# outputs and forces of an untrained SchNet of one block, in a process of its own: the runtime is set up once
PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from training.device import set_up
set_up("GRAPH", "CPU", 0, seed=0)
from helpers import CASES, Bench, molecules
import numpy as np
bench = Bench(next(case for case in CASES if case.name == "schnet-mean"))
np.savez(sys.argv[1], *bench.run(molecules()))
"""


def chosen(monkeypatch, cores: int) -> str | None:
    """What MindSpore finds in the environment on a machine with so many cores."""
    monkeypatch.setattr(cpu_runtime, "cores", lambda: cores)
    with cpu_runtime.planned_launches():
        return os.environ.get(cpu_runtime.SWITCHES)


@pytest.mark.parametrize(
    ("cores", "switch"), [(1, None), (2, cpu_runtime.SLEEPING_QUEUE), (11, cpu_runtime.SLEEPING_QUEUE), (12, None)]
)
def test_only_where_mindspore_would_send_messages(monkeypatch, cores, switch):
    monkeypatch.delenv(cpu_runtime.SWITCHES, raising=False)
    assert chosen(monkeypatch, cores) == switch
    assert cpu_runtime.SWITCHES not in os.environ  # children decide for themselves


def test_a_choice_of_the_user_stays(monkeypatch):
    monkeypatch.setenv(cpu_runtime.SWITCHES, "memory_statistics:False")
    assert chosen(monkeypatch, 2) == "memory_statistics:False"
    assert os.environ[cpu_runtime.SWITCHES] == "memory_statistics:False"


def test_silence_includes_what_is_not_python(capfd):
    with cpu_runtime.silent_output():
        os.write(1, b"from C++")
    os.write(1, b"afterwards")
    assert capfd.readouterr().out == "afterwards"


def test_planned_launches_change_no_number_and_print_nothing(tmp_path, every_core):
    """Outputs and forces on all cores, where operators are launched from a plan, beside those on one core."""
    results = []
    for cores in (sorted(os.sched_getaffinity(0)), sorted(os.sched_getaffinity(0))[:1]):
        file = tmp_path / f"{len(cores)}_{len(results)}.npz"
        program = f"import os; os.sched_setaffinity(0, {cores})"
        program += PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"))
        environment = {**os.environ, "GLOG_v": "3"}
        command = [sys.executable, "-c", program, str(file)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert (result.returncode, result.stdout) == (0, ""), result.stderr[-2000:]
        results.append(np.load(file))
    for name in results[0].files:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-10, atol=1e-12)
