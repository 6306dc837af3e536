"""How programs begin and are interrupted, and what variables of a launcher mean."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import MINI, REPOSITORY, light, options, small_run

from experiment import startup
from training import interruption, launch
from training.launch import RankError, check_launch, is_launched, launched_rank

PROGRAMS = ["train.py", "eval.py", *(f"examples/{name}.py" for name in ("dynamics", "optimise", "vibrations"))]
SCRIPTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in (REPOSITORY / "scripts").rglob("*.py")
    if path.name != "__init__.py"
)
CLUSTER = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": "8118"}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, of which there are none before."""
    for name in (*launch.CLUSTER, *launch.TABLES, *launch.SIZES, *launch.NUMBERS, launch.TOPOLOGY_TIMEOUT):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MS_ROLE": "MS_WORKER"}, "without MS_WORKER_NUM, MS_SCHED_HOST, MS_SCHED_PORT"),
        ({"MS_ROLE": "worker"}, "expected MS_WORKER or MS_SCHED"),
        ({**CLUSTER, "MS_SCHED_PORT": "http"}, "MS_SCHED_PORT=http: expected a whole number"),
        ({**CLUSTER, "MS_SCHED_PORT": "99999"}, "expected a port"),
        ({**CLUSTER, "MS_WORKER_NUM": "0"}, "expected 1 or more"),
        ({**CLUSTER, "MS_NODE_ID": "one"}, "MS_NODE_ID=one"),
        ({"RANK_SIZE": "many"}, "RANK_SIZE=many: expected a whole number"),
    ],
)
def test_variables_that_make_no_sense(variables, expected, environment):
    environment(**variables)
    with pytest.raises(RankError, match=expected) as error:
        check_launch("CPU")
    assert f"unset {next(iter(variables))}" in str(error.value) and "--device_num" in str(error.value)


def test_a_scheduler_that_is_not_there_is_not_waited_for(environment, monkeypatch):
    monkeypatch.setattr(launch, "ANSWER_SECONDS", 0.5)
    environment(**{**CLUSTER, "MS_SCHED_PORT": free_port()})
    with pytest.raises(RankError, match=r"no scheduler answers at 127.0.0.1:\d+.*unset MS_ROLE MS_WORKER_NUM"):
        check_launch("CPU")


def test_a_scheduler_that_comes_later_is_waited_for(environment):
    port = free_port()
    environment(**{**CLUSTER, "MS_SCHED_PORT": port})
    late = f"import socket, time; time.sleep(0.5); s = socket.create_server(('127.0.0.1', {port})); time.sleep(20)"
    with subprocess.Popen([sys.executable, "-S", "-c", late]) as scheduler:
        check_launch("CPU")
        scheduler.kill()


def test_a_scheduler_without_its_port(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment(**{**CLUSTER, "MS_ROLE": "MS_SCHED", "MS_SCHED_PORT": str(taken.getsockname()[1])})
        with pytest.raises(RankError, match=r"cannot have 127\.0\.0\.1.*in use"):
            check_launch("CPU")


def test_a_number_of_processes_alone_starts_none(environment, tmp_path, caplog):
    """Platforms set it in any case; on a CPU nothing depends on it."""
    environment(RANK_SIZE="8", RANK_ID="3", DEVICE_ID="5", RANK_TABLE_FILE=str(tmp_path / "table"))
    check_launch("CPU")
    assert "RANK_SIZE=8 is ignored" in caplog.text and not is_launched() and launched_rank() == 0
    with pytest.raises(RankError, match="RANK_SIZE=8 without msrun"):
        check_launch("Ascend")
    environment(RANK_TABLE_FILE=str(tmp_path / "table"))
    with pytest.raises(RankError, match="table: expected a file"):
        check_launch("Ascend")
    (tmp_path / "table").touch()
    check_launch("Ascend")
    assert is_launched() and launched_rank() == 3


def test_other_variables_of_msrun_alone_mean_nothing(environment):
    environment(**{name: value for name, value in CLUSTER.items() if name != "MS_ROLE"}, RANK_ID="3")
    check_launch("CPU")
    assert not is_launched() and launched_rank() == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_python_without_the_requirements_is_one_line(program, tmp_path):
    """``-S``: nothing but the standard library."""
    command = [sys.executable, "-S", "-E", str(REPOSITORY / program), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "has no mindspore, numpy" in done.stderr and "requirements.txt" in done.stderr + "requirements.txt"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_the_requirements_is_one_line_or_a_part(script):
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(REPOSITORY / script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and (done.stdout + done.stderr).count("\n") == 1, done.stderr
    assert " has no " in done.stderr or " is a part of " in done.stdout


def test_what_is_missing(monkeypatch, tmp_path):
    assert startup.unusable() == ""
    assert "has no nowhere;" in startup.unusable(("numpy", "nowhere"))
    assert "has no scikit-learn;" in startup.unusable(("sklearn",)) if not startup.installed("sklearn") else True
    (tmp_path / "empty_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not startup.installed("empty_folder")
    monkeypatch.setattr(startup, "version", lambda _: "2.1.0")
    assert "NumPy 2.1.0, expected 1.26" in startup.unusable()
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert "too old" in startup.unusable()


PROGRAM = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from training.interruption import StopRequest, undone_by_interruption, watch
watch()
def begun():
    print("begun", flush=True)
    time.sleep(300)
{body}
"""
BODIES = {
    "alone": ("begun()", [signal.SIGINT], 130),
    "asked to end": ("begun()", [signal.SIGTERM], 143),
    "in an import": ("sys.meta_path.insert(0, type('F', (), dict(find_spec=lambda *_: begun())))\nimport x",
                     [signal.SIGINT], 130),
    "stopping": ("with StopRequest() as s, undone_by_interruption(lambda: print('undone')):\n"
                 "    print('begun', flush=True)\n    while not s.requested: time.sleep(0.01)\n    begun()",
                 [signal.SIGINT, signal.SIGINT], 130),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_an_interruption_is_one_line(name):
    body, signals, code = BODIES[name]
    program = PROGRAM.format(root=str(REPOSITORY), body=body)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for number in signals:  # a second one before the first is seen would be the same one
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (code, f"{interruption.words(signals[-1])}\n")


@pytest.mark.usefixtures("same_mode")
def test_ctrl_c_while_mindspore_compiles(molecules, tmp_path):
    """One line, nothing of MindSpore's in the working folder, and the run that was to be replaced is as it was."""
    finished = small_run(molecules, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    words = options(molecules, finished, "--config", str(MINI), "--overwrite", **light(model__blocks=6))
    process = subprocess.Popen(
        [sys.executable, "-u", str(REPOSITORY / "train.py"), *words], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "padding waste" not in (line := process.stdout.readline()) and line:
        pass
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (130, "interrupted by Ctrl-C (SIGINT)\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_launch_with_a_taken_port_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            ["bash", str(REPOSITORY / "scripts" / "run_distribute_train.sh"), "2", str(MINI)], capture_output=True,
            text=True, cwd=tmp_path, check=False, timeout=300,
            env={**os.environ, "PYTHON": sys.executable, "PORT": str(taken.getsockname()[1])},
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "in use" in done.stderr
    assert not list(Path(tmp_path).iterdir())
