"""A run on force constants that was killed or interrupted within an epoch and resumed is the whole one, bit for bit.

That probes, also random directions, are a function of seed, epoch and crystal: ``test_force_constant_probes.py``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from test_train_crystals import CONFIG, CUTOFF, SETTINGS
from tiny_crystals import alloys
from tiny_runs import REPOSITORY, column, read_rows

import train
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import pack
from scripts.benchmarks.soak_resume import differences
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")

SMALL = {"training.epochs": 3, "data.train_size": 6, "run.save_minutes": 0.0}  # a checkpoint after every step
STEPS = {"columns": 3, "rows": 18}  # of an epoch of six crystals in pairs, each with six rows

#: the program as it is started, which a signal of its own reaches before its n-th step
CHILD = """
import os, sys
from experiment.startup import begin
begin()
import train
from training import objective

number, left, made = int(sys.argv[1]), [int(sys.argv[2])], objective.Layout.arguments

def arguments(*values, **named):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), number)
    return made(*values, **named)

objective.Layout.arguments = arguments
sys.exit(train.main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "alloys"
    packed_folder.save(pack(alloys(), CUTOFF), path)
    return path


def words(file, folder, **more):
    """The command line of a run."""
    pairs = SETTINGS | SMALL | {key.replace("__", "."): value for key, value in more.items()}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return [*CONFIG, "--set", f"data.file={file}", "--output", str(folder), *changes]


def interrupted(number, count, arguments):
    """Exit code and last line of a process that gets a signal before its ``count``-th step."""
    command = [sys.executable, "-c", CHILD, str(number), str(1 + count), *arguments]  # one call belongs to compiling
    done = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "GLOG_v": "3"})  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def position(folder):
    """Epochs that are done, and steps of the next one."""
    progress = checkpoints.load(folder / checkpoints.LAST).information["progress"]
    return progress["epoch"], progress["position"]


def test_a_run_that_is_killed_in_an_epoch_of_columns(file, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train.main(words(file, whole)) == 0
    code, _ = interrupted(signal.SIGKILL, STEPS["columns"] + 2, words(file, cut))
    assert code == -signal.SIGKILL and position(cut) == (1, 1) and not (cut / "metrics.json").exists()
    assert train.main(["--resume", str(cut)]) == 0
    assert not differences(whole, cut)


def test_a_run_that_is_interrupted_in_an_epoch_of_all_rows(file, tmp_path):
    """With stress, which has its own error in the log and in the choice of the best model."""
    settings = {"training__stress_weight": 10, "training__probes": "rows", "training__loss": "adaptive"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train.main(words(file, whole, **settings)) == 0
    rows, log = read_rows(whole / "metrics.csv"), (whole / "train.log").read_text()
    assert column(rows, "train_stress_mae")[-1] < 0.5 * column(rows, "train_stress_mae")[0]
    assert column(rows, "step").tolist() == [18, 36, 54]
    assert f"valid stress MAE {1000 * column(rows, 'valid_stress_mae')[-1]:.4f} meV/A^3" in log
    scores = column(rows, "valid_mae") + 0.1 * column(rows, "valid_force_mae") + 10 * column(rows, "valid_stress_mae")
    assert json.loads((whole / "metrics.json").read_text())["best_epoch"] == int(np.argmin(scores)) + 1

    code, line = interrupted(signal.SIGINT, STEPS["rows"] + 5, words(file, cut, **settings))
    assert code == 128 + signal.SIGINT and line.startswith("stopped by SIGINT after step "), line
    epoch, done = position(cut)
    assert epoch == 1 and 4 <= done < STEPS["rows"] and not (cut / "metrics.json").exists()
    assert train.main(["--resume", str(cut)]) == 0
    assert set(differences(whole, cut)) <= {"metrics.csv"}
    for one, other in zip(rows, read_rows(cut / "metrics.csv"), strict=True):
        # the logarithm in the value of this loss was seen to differ by the last bit of a float32 from run to run
        assert float(other.pop("train_loss")) == pytest.approx(float(one.pop("train_loss")), rel=1e-6)
        assert one == other
