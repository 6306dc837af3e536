"""The shell scripts that start the programs: what they pass on, where logs and runs are, and the exit code."""

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

from configs.loading import ConfigError, load_config
from configs.writing import config_to_yaml
from data_tools.graph import DataError
from scripts.quickstart_plan import OTHER_PROFILES, PROFILE, plan

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
    assert done.returncode == 0 and "best" not in done.stderr and "valid structures" in log_of(done.stdout).read_text()
    done = call("run_eval.sh", "runs/nothing", folder=folder, environment=environment)
    assert done.returncode == 2 and "error: runs/nothing" in log_of(done.stdout).read_text()


def test_a_signal_reaches_the_program(training):
    folder, arguments = training
    command = ["bash", str(SCRIPTS / "run_standalone_train.sh"), *arguments, "--set", "training.epochs=100000"]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHON": sys.executable}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    metrics = folder / "runs" / "small" / "metrics.csv"  # after the first epoch; a checkpoint is there before it begins
    while process.poll() is None and not metrics.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # the whole group, tee included
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in out.splitlines()[-1] and "stopped by SIGTERM" in log_of(out).read_text()


def stored_run(folder, *pairs, finished=True):
    """A folder that looks like a run of the quickstart with these settings."""
    folder.mkdir(parents=True)
    given = [("run.output", str(folder)), *(tuple(pair.split("=")) for pair in pairs)]
    (folder / "config.yaml").write_text(config_to_yaml(load_config(REPOSITORY / PROFILE, given)))
    (folder / "last.safetensors").touch()
    if finished:
        (folder / "metrics.json").touch()
    return folder


FOLDERS = {
    "": "runs/quickstart",
    "--target gap": "runs/quickstart",
    "--target U0": "runs/quickstart_U0",
    "--target=U0": "runs/quickstart_U0",
    "--set target.name=U0": "runs/quickstart_U0",
    "--set=target.name=U0": "runs/quickstart_U0",
    "--target homo --set target.name=mu": "runs/quickstart_mu",
    "--target energy_U0": "runs/quickstart_U0",
    "--target U0 --output mine": "mine",
    "--output=mine": "mine",
    "--set run.output=mine": "mine",
    "--seed 1 --epochs 2": "runs/quickstart",
}


@pytest.mark.parametrize("options, folder", FOLDERS.items(), ids=FOLDERS)
def test_the_quickstart_has_a_folder_for_each_target(options, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, arguments = plan(options.split())
    assert str(run) == folder
    assert arguments == ["--config", PROFILE, *options.split(), "--output", folder]


CRYSTALS = OTHER_PROFILES["crystals"]


@pytest.mark.parametrize("options, folder", {
    "": "runs/quickstart_crystals", "--epochs 2": "runs/quickstart_crystals", "--output mine": "mine",
    "--target gap": "runs/quickstart_crystals_gap",
}.items())  # fmt: skip
def test_the_quickstart_of_crystals(options, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, arguments = plan(["crystals", *options.split()])
    assert str(run) == folder and arguments == ["--config", CRYSTALS, *options.split(), "--output", folder]


def test_a_finished_quickstart_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path / "runs" / "quickstart")
    for options in ([], ["--target", "gap"], ["--epochs", "20"], ["--output", "runs/quickstart"]):
        assert plan(options)[1] == [], options
    assert plan(["--dry_run"])[1][0] == "--config"


OTHER_RUNS = {
    "options after a plain run": ((), "--subset_size 200 --epochs 1", ("train_size 10000 ins", "epochs 20 ins")),
    "a plain run after options": (("training.epochs=1",), "", ("training.epochs 1 instead of 20",)),
    "a subset before": (("data.train_size=200",), "", ("data.train_size 200 instead of 10000",)),
    "another target in a folder": (("target.name=U0",), "--output runs/quickstart", ("target.name 'U0' ins",)),
    "the recipe of an earlier version": (("target.readout=sum", "training.loss=mse"), "", ("readout 'sum'", "'mse'")),
    "another seed": ((), "--seed 1", ("run.seed 0 instead of 1",)),
    "pictures that were not drawn": (("run.plots=false",), "--set run.plots=true", ("run.plots False ins",)),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("stored, options, words", OTHER_RUNS.values(), ids=OTHER_RUNS)
def test_the_quickstart_names_a_run_with_other_settings(stored, options, words, finished, tmp_path, monkeypatch):
    """Where the run is unfinished, train.py decides about what the options change."""
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path / "runs" / "quickstart", *stored, finished=finished)
    if not finished and options and "--output" not in options:
        assert plan(options.split())[1] == ["--resume", "runs/quickstart", *options.split()]
        return
    with pytest.raises(ConfigError) as caught:
        plan(options.split())
    for word in (*words, "not applied", "--output FOLDER", "finished run"):
        assert word in str(caught.value)


def test_the_quickstart_continues_a_run_with_its_own_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path / "mine", "training.epochs=3", "data.file=own.xyz", "data.split=random", "data.train_size=70",
               finished=False)  # fmt: skip
    own = ["--epochs", "3", "--set", "data.file=own.xyz", "--set", "data.split=random"]  # the size has adapted
    assert plan([*own[:2], "--output", "mine", *own[2:]]) == (Path("mine"), ["--resume", "mine", *own])


@pytest.mark.parametrize(
    "options, words", {"--config x": "--config", "--resume x": "--resume", "--target foo": "unknown target 'foo'",
                       "--epoch 3": "did you mean --epochs"}.items()
)  # fmt: skip
def test_what_the_quickstart_refuses(options, words):
    with pytest.raises((ConfigError, DataError), match=words):
        plan(options.split())


@pytest.fixture
def ready(tmp_path):
    """An environment that is ready, whose Python only prints how train.py is called."""
    python = tmp_path / "an environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"""#!/usr/bin/env bash
if [[ "$1" == train.py ]]; then printf '%s\\n' "$@"; exit "${{ECHO_CODE:-0}}"; fi
exec {sys.executable} "$@"
""")
    python.chmod(0o755)
    words = 'source scripts/environment.sh; _stamp "$1" requirements.txt'
    stamp = subprocess.run(["bash", "-c", words, "-", python], cwd=REPOSITORY, capture_output=True, check=True).stdout
    (tmp_path / "an environment" / ".requirements").write_bytes(stamp)
    return {**os.environ, "GEOSPORE_VENV": str(tmp_path / "an environment"), "PYTHON": ""}


def test_the_quickstart_itself(ready, tmp_path):
    folder = tmp_path / "my run"
    arguments = ["--output", folder, "--set", "data.file=a b"]
    done = call("quickstart.sh", *arguments, folder=tmp_path, environment={**ready, "ECHO_CODE": "3"})
    assert (done.returncode, done.stderr) == (3, "")
    command = ["train.py", "--config", PROFILE, *map(str, arguments), "--output", str(folder)]
    assert done.stdout.splitlines() == command
    stored_run(folder)
    done = call("quickstart.sh", "--output", folder, folder=tmp_path, environment=ready)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished" in done.stdout and "an\\ environment/bin/activate" in done.stdout
    done = call("quickstart.sh", "crystals", "--output", tmp_path / "other", folder=tmp_path, environment=ready)
    assert done.returncode == 0 and done.stdout.splitlines()[:3] == ["train.py", "--config", CRYSTALS]
    done = call("quickstart.sh", "--output", folder, "--epochs", "1", folder=tmp_path, environment=ready)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "training.epochs 20 instead of 1" in done.stderr and not done.stdout


def test_another_environment_is_not_emptied(tmp_path):
    """Its Python prints what pip would install; a folder without .made is never made anew."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    for file in ("pyvenv.cfg", "precious"):
        (folder / file).touch()
    (folder / "bin" / "python").write_text('#!/usr/bin/env bash\n[[ "$1" == -m ]] && echo "$@"\nexit 0\n')
    (folder / "bin" / "python").chmod(0o755)
    words = 'source scripts/environment.sh; environment "$1" requirements.txt'
    done = subprocess.run(
        ["bash", "-c", words, "-", folder], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "pip install" in done.stdout and (folder / "precious").exists()
    (folder / "bin" / "python").write_text("#!/usr/bin/env bash\nexit 1\n")
    done = subprocess.run(
        ["bash", "-c", words, "-", folder], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and (folder / "precious").exists()
