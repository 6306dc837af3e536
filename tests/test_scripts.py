"""scripts/run_standalone_train.sh and run_eval.sh: what they pass on, where the log is, and the exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import LIGHT, MINI, REPOSITORY, SMALL, write_molecules

SCRIPTS = REPOSITORY / "scripts"
#: an interpreter that prints how it was called
ECHO = """#!/usr/bin/env bash
printf '%s\\n' "${@:2}"
echo words of an error >&2
exit "${ECHO_CODE:-0}"
"""


@pytest.fixture
def echo(tmp_path):
    path = tmp_path / "echo python"
    path.write_text(ECHO)
    path.chmod(0o755)
    return {**os.environ, "PYTHON": str(path)}


def call(script, *arguments, folder, environment):
    command = ["bash", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def log_of(output):
    """The file that the first line names."""
    return Path(re.fullmatch(r"log: (/.*\.log)", output.splitlines()[0])[1])


PASSED_ON = {
    (): [],
    ("Ascend",): ["--device_target", "Ascend"],
    ("GPU", "3"): ["--device_target", "GPU", "--device_id", "3"],
    ("--seed", "1"): ["--seed", "1"],
    ("CPU", "--set", "data.file=a b"): ["--device_target", "CPU", "--set", "data.file=a b"],
    ("CPU", "0", "--lr", "-1"): ["--device_target", "CPU", "--device_id", "0", "--lr", "-1"],
}


@pytest.mark.parametrize("script, option", [("run_standalone_train.sh", "--config"), ("run_eval.sh", "--ckpt")])
@pytest.mark.parametrize("given", PASSED_ON)
def test_what_is_passed_on(script, option, given, echo, tmp_path):
    done = call(script, "my file", *given, folder=tmp_path, environment=echo)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1:-1] == [option, "my file", *PASSED_ON[given]] and lines[-1] == "words of an error"
    assert log_of(done.stdout).read_text() == done.stdout.partition("\n")[2]


@pytest.mark.parametrize("script", ["run_standalone_train.sh", "run_eval.sh"])
def test_the_exit_code_is_passed_on(script, echo, tmp_path):
    for code in (1, 2, 3, 143):
        done = call(script, "x", folder=tmp_path, environment={**echo, "ECHO_CODE": str(code)})
        assert done.returncode == code


@pytest.mark.parametrize("script", ["run_standalone_train.sh", "run_eval.sh"])
@pytest.mark.parametrize("arguments", [(), ("--epochs", "3"), ("--help",)])
def test_bad_usage_is_one_line(script, arguments, echo, tmp_path):
    done = call(script, *arguments, folder=tmp_path, environment=echo)
    assert done.returncode == 2 and not done.stdout and not (tmp_path / "runs").exists()
    assert re.fullmatch(rf"usage: bash scripts/{script} \w+ \[DEVICE_TARGET\] \[DEVICE_ID\] \[.*\]\n", done.stderr)


def test_no_interpreter_is_one_line(tmp_path):
    done = call("run_eval.sh", "x", folder=tmp_path, environment={**os.environ, "PYTHON": "no such python"})
    assert done.returncode == 2 and done.stderr.startswith("error: no such python") and done.stderr.count("\n") == 1


@pytest.fixture
def training(tmp_path):
    """The command line of a small run, in a folder with a space that holds the configuration and the data."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / MINI.name).write_bytes(MINI.read_bytes())
    write_molecules(folder / "molecules.npz", range(80))
    pairs = {**SMALL, **LIGHT, "data.file": "molecules.npz", "run.output": "runs/small"}
    settings = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return folder, [MINI.name, "CPU", "0", *settings]


def test_a_real_run_and_its_evaluation(training):
    folder, arguments = training
    environment = {**os.environ, "PYTHON": sys.executable}
    done = call("run_standalone_train.sh", *arguments, folder=folder, environment=environment)
    assert done.returncode == 0, done.stdout
    assert "everything is in runs/small" in log_of(done.stdout).read_text()
    done = call("run_eval.sh", "runs/small", "CPU", "0", "--split", "valid", folder=folder, environment=environment)
    assert done.returncode == 0 and "best" not in done.stderr and "valid molecules" in log_of(done.stdout).read_text()
    done = call("run_eval.sh", "runs/nothing", folder=folder, environment=environment)
    assert done.returncode == 2 and "error: runs/nothing" in log_of(done.stdout).read_text()


def test_a_signal_reaches_the_program(training):
    folder, arguments = training
    command = ["bash", str(SCRIPTS / "run_standalone_train.sh"), *arguments, "--set", "training.epochs=100000"]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHON": sys.executable}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not (folder / "runs" / "small" / "last.safetensors").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # the whole group, tee included
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in out.splitlines()[-1] and "stopped by SIGTERM" in log_of(out).read_text()
