"""A run that was killed or stopped at any moment and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import MINI, REPOSITORY, light, options, read_rows, small_run

import train
from scripts.benchmarks.soak_resume import differences
from training import checkpoint as checkpoints
from training import loop

pytestmark = pytest.mark.usefixtures("same_mode")

EPOCHS = 3  # of two steps each
SETTINGS = {
    "training__epochs": EPOCHS, "schedule__name": "cosine", "optimizer__ema_decay": 0.9, "run__save_minutes": 0.0,
    "run__log_every": 1, "training__loss_scale": "dynamic",
}  # fmt: skip

#: the child runs train.py and kills itself the n-th time that it comes to a place
CHILD = """
import os, signal, sys
place, count, folder, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
import train
from pathlib import Path
from training import checkpoint, loop, objective

def deadly(function, when=lambda *arguments: True, after=False):
    left = [count]
    def wrapped(*arguments, **named):
        left[0] -= bool(when(*arguments))
        result = function(*arguments, **named) if after or left[0] > 0 else None
        if left[0] <= 0:
            os.kill(os.getpid(), NUMBER)
        return function(*arguments, **named) if result is None and not after else result
    return wrapped

NUMBER = signal.SIGTERM if place == "stop" else signal.SIGKILL
if place in ("before a step", "stop"):
    objective.Layout.arguments = deadly(objective.Layout.arguments)
elif place == "half a checkpoint":  # its bytes are written, but it has no name yet
    checkpoint.os.fsync = deadly(os.fsync)
elif place == "between two names":  # the last checkpoint has its older name, the new one has none
    Path.replace = deadly(Path.replace, lambda path, target: Path(target).name == checkpoint.LAST)
elif place == "after the best":
    loop.save = deadly(loop.save, lambda path, *rest: Path(path).name == checkpoint.BEST, after=True)
sys.exit(train.main(arguments))
"""


@pytest.fixture(scope="module")
def whole(molecules, tmp_path_factory):
    """The run that nothing interrupts."""
    return small_run(molecules, tmp_path_factory.mktemp("runs") / "whole", **SETTINGS)


def run_until(place, count, molecules, folder):
    """Start the program in a process of its own that ends at the given place; its exit code and its last words."""
    arguments = options(molecules, folder, "--config", str(MINI), **light(**SETTINGS))
    command = [sys.executable, "-c", CHILD, place, str(count), str(folder), *arguments]
    environment = {**os.environ, "GLOG_v": "3"}
    done = subprocess.run(
        command, check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=environment
    )
    return done.returncode, done.stderr


def assert_same_run(first, second):
    """Parameters, moving average, optimiser and metrics.csv are equal bit for bit."""
    assert not differences(first, second)


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("before a step", 1 + 4),  # one call belongs to compiling
        ("half a checkpoint", 4),
        ("between two names", 2 + 2),  # two names are given before the first step
        ("after the best", 1),
    ],
)
def test_a_killed_process_resumes(place, count, molecules, whole, tmp_path):
    folder = tmp_path / "cut"
    code, _ = run_until(place, count, molecules, folder)
    assert code == -signal.SIGKILL
    left = {path.name for path in folder.iterdir()}
    assert any(name.startswith("last") for name in left) and "metrics.json" not in left
    if place == "between two names":
        assert checkpoints.LAST not in left
    assert any(".partial-" in name for name in left) == (place in ("half a checkpoint", "between two names"))
    assert train.main(["--resume", str(folder)]) == 0
    assert_same_run(whole, folder)
    assert not any(".partial-" in path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def stopped(molecules, tmp_path_factory):
    """A run that was asked to stop in its second epoch, the exit code and the last words."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    return folder, *run_until("stop", 1 + 3, molecules, folder)


def test_a_stopped_process_saves_and_leaves(stopped, whole, tmp_path):
    folder = tmp_path / "cut"
    there, code, words = stopped
    assert code == 128 + signal.SIGTERM
    assert words.strip().splitlines()[-1].startswith("stopped by SIGTERM after step ") and "Traceback" not in words
    shutil.copytree(there, folder)
    assert train.main(["--resume", str(folder)]) == 0
    assert_same_run(whole, folder)


def test_one_epoch_and_a_resumed_one_are_two_epochs(molecules, tmp_path):
    average = {"optimizer__ema_decay": 0.9}
    whole = small_run(molecules, tmp_path / "whole", training__epochs=2, **average)
    parts = small_run(molecules, tmp_path / "parts", training__epochs=1, **average)
    assert train.main(["--resume", str(parts), "--epochs", "2"]) == 0
    assert_same_run(whole, parts)
    log = (parts / "train.log").read_text()
    assert "resumed after epoch 1" in log and log.count("  command: python train.py ") == 2
    origin = json.loads((parts / "metrics.json").read_text())["provenance"]
    assert "--config" in origin["command"] and origin["data"] == checkpoints.load(whole).information["source"]
    (later,) = origin["resumed"]
    assert later["command"] == f"python train.py --resume {parts} --epochs 2" and later["started"] >= origin["started"]
    assert checkpoints.load(parts / checkpoints.LAST).information["provenance"] == origin
    earlier = checkpoints.load(parts / "last-1.safetensors").information["provenance"]
    assert earlier == origin | {"resumed": []}


def test_other_batches_begin_the_epoch_again(stopped, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(stopped[0], folder)
    position = checkpoints.load(folder / checkpoints.LAST).information["progress"]["position"]
    assert position == 1
    assert train.main(["--resume", str(folder), "--batch_size", "8"]) == 0
    assert "epoch 2 begins again" in (folder / "train.log").read_text()
    progress = checkpoints.load(folder / checkpoints.LAST).information["progress"]
    assert (progress["epoch"], progress["step"]) == (EPOCHS, 3 + 2 * 4)


def test_a_checkpoint_whose_sums_have_no_counts(molecules, whole, tmp_path, monkeypatch):
    """An older version kept none: the weights go on as they would, the errors of that epoch are of its other steps."""
    folder, saved = tmp_path / "cut", loop.save

    def interrupt(path, checkpoint, **named):
        progress = checkpoint.information["progress"]
        if progress["step"] == 3 and path.name == checkpoints.LAST:
            assert len(progress["sums"]) == 5
            del progress["sums"][4:]
            saved(path, checkpoint, **named)
            raise KeyboardInterrupt
        saved(path, checkpoint, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", interrupt)
        assert train.main(options(molecules, folder, "--config", str(MINI), **light(**SETTINGS))) == 130
    assert train.main(["--resume", str(folder)]) == 0
    assert (
        "of an older version: train errors and speed of epoch 2 are those from here on"
        in (folder / "train.log").read_text()
    )
    ends = [checkpoints.load(path / checkpoints.LAST) for path in (whole, folder)]
    for group in checkpoints.GROUPS:
        for name, value in getattr(ends[0], group).items():
            np.testing.assert_array_equal(getattr(ends[1], group)[name], value, err_msg=name)
    expected, found = (read_rows(path / "metrics.csv") for path in (whole, folder))
    for row, (one, other) in enumerate(zip(expected, found, strict=True)):
        same = {name for name, value in one.items() if other[name] == value}
        assert set(one) - same == (set() if row != 1 else {"train_loss", "train_mae"})


def test_a_damaged_checkpoint_is_skipped(molecules, whole, tmp_path, monkeypatch, capsys):
    folder, saved = tmp_path / "cut", loop.save

    def interrupt(path, checkpoint, **named):
        saved(path, checkpoint, **named)
        if checkpoint.information["progress"]["step"] == 4 and path.name == checkpoints.LAST:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", interrupt)
        assert train.main(options(molecules, folder, "--config", str(MINI), **light(**SETTINGS))) == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "interrupted by Ctrl-C (SIGINT)"
    last = folder / checkpoints.LAST
    last.write_bytes(last.read_bytes()[:-100])
    assert train.main(["--resume", str(folder)]) == 0
    assert "skipped a checkpoint: " in capsys.readouterr().out
    assert_same_run(whole, folder)


def test_no_whole_checkpoint_is_one_line(molecules, tmp_path, capsys):
    folder = small_run(molecules, tmp_path / "run")
    for file in folder.glob("last*.safetensors"):
        file.write_bytes(b"nothing")
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 2
    words = capsys.readouterr().err
    assert words.startswith("error: ") and words.count("\n") == 1 and "truncated or damaged" in words


def test_a_full_disk_leaves_the_last_checkpoint(molecules, whole, tmp_path, monkeypatch, capsys):
    folder, calls = tmp_path / "full", []

    def no_space(number):
        calls.append(number)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", no_space)
        assert train.main(options(molecules, folder, "--config", str(MINI), **light(**SETTINGS))) == 2
    words = capsys.readouterr().err
    assert words.startswith("error: ") and "No space left" in words and words.count("\n") == 1
    assert train.main(["--resume", str(folder)]) == 0
    assert_same_run(whole, folder)


def test_the_newest_are_kept(molecules, tmp_path):
    folder = small_run(molecules, tmp_path / "run", **{**SETTINGS, "run__keep": 3})
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert names == ["best.safetensors", "last-1.safetensors", "last-2.safetensors", "last.safetensors"]
    steps = [checkpoints.load(folder / name).information["progress"]["step"] for name in (names[3], *names[1:3])]
    assert steps == sorted(steps, reverse=True)
    # a new run in the same folder starts without the checkpoints of the old one
    small_run(molecules, folder, "--overwrite")
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["best.safetensors", "last.safetensors"]
