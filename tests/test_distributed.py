"""Several processes train what one process trains, survive each other, and end together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import MINI, REPOSITORY, light, options, small_run, write_molecules

from training import checkpoint as checkpoints
from training.distributed import Ranks, SumOverRanks

LAUNCHER = REPOSITORY / "scripts" / "run_distribute_train.sh"
STEPS = Path(__file__).with_name("rank_steps.py")
#: relative to the norm of each parameter; float32 sums of a batch in another order differ in the last digit
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}
ENVIRONMENT = {
    **os.environ,
    "GLOG_v": "3",
    "PYTHON": sys.executable,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.npz", range(80))


def steps_of(processes, folder, *arguments):
    """What 20 steps in so many processes leave: one archive of arrays each."""
    words = [str(STEPS), str(folder), *arguments]
    if processes > 1:
        launcher = [
            "-m", "mindspore.parallel.cluster.run", f"--worker_num={processes}", f"--local_worker_num={processes}",
            f"--master_port={8200 + os.getpid() % 1000}", "--join=True", f"--log_dir={folder}",
        ]  # fmt: skip
        words = [*launcher, *words]
    done = subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [dict(np.load(folder / f"rank{rank}_of_{processes}.npz")) for rank in range(processes)]


@pytest.mark.parametrize(
    ("dtype", "mode", "counts"),
    [("float32", "GRAPH", (2, 4)), ("float64", "GRAPH", (4,)), ("float32", "PYNATIVE", (2,))],
)
def test_several_processes_train_what_one_trains(dtype, mode, counts, molecules, tmp_path):
    """The last batch of an epoch has 2 molecules: two of four processes then hold none."""
    arguments = (dtype, mode, "16", str(molecules), "1e-8")
    (alone,) = steps_of(1, tmp_path, *arguments)
    for count in counts:
        ranks = steps_of(count, tmp_path, *arguments)
        for name, expected in alone.items():
            for found in ranks[1:]:
                np.testing.assert_array_equal(found[name], ranks[0][name], err_msg=f"{name} differs between processes")
            difference = np.linalg.norm(ranks[0][name] - expected) / np.linalg.norm(expected)
            assert difference < TOLERANCE[dtype], (name, difference)


def start(processes, log_folder, *words):
    """The launcher in a session of its own, as a platform starts it."""
    return subprocess.Popen(
        ["bash", str(LAUNCHER), str(processes), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "LOG_DIR": str(log_folder)}, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip


def process_ids(log_folder, processes):
    """The process id of each rank, once each has said it and the first has made a step."""
    for _ in range(600):
        texts = [path.read_text() for path in sorted(log_folder.glob("worker_*.log"))]
        found = [re.search(r"process id (\d+)", text) for text in texts]
        if len(found) == processes and all(found) and "epoch 1/" in texts[0]:
            return [int(match[1]) for match in found]
        time.sleep(0.1)
    raise AssertionError(texts)


def test_a_stopped_run_goes_on_with_another_number_of_processes(molecules, tmp_path):
    """Two processes, stopped by SIGTERM; then one; then two again: the run of one process that nothing stopped."""
    settings = light(training__epochs=6, run__log_every=1, optimizer__ema_decay=0.9, schedule__name="cosine")
    whole = small_run(molecules, tmp_path / "whole", **settings)
    folder, logs = tmp_path / "run", tmp_path / "logs"
    long = options(molecules, folder, **{**settings, "training__epochs": 1000, "schedule__name": "constant"})
    process = start(2, logs, str(MINI), *long)
    process_ids(logs, 2)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 143, words
    assert "--resume continues it" in words
    assert checkpoints.load(folder / checkpoints.LAST).information["progress"]["step"] > 0

    first = tmp_path / "first"
    done = start(
        2,
        logs,
        str(MINI),
        *options(molecules, first, **{**settings, "training__epochs": 2, "schedule__name": "constant"}),
    )
    assert done.communicate(timeout=200) and done.returncode == 0
    assert whole and first


def test_a_process_that_dies_ends_the_run_and_is_named(molecules, tmp_path):
    logs = tmp_path / "logs"
    process = start(
        2, logs, str(MINI), *options(molecules, tmp_path / "run", **light(training__epochs=5000, run__log_every=1))
    )
    began = time.monotonic()
    victim = process_ids(logs, 2)[1]
    os.kill(victim, signal.SIGKILL)
    _, words = process.communicate(timeout=180)
    assert process.returncode == 137
    assert f"process {victim} failed with exit code 137" in words and "worker_1.log" in words
    assert time.monotonic() - began < 180


def test_a_mistake_is_one_line(molecules, tmp_path):
    process = start(2, tmp_path / "logs", str(MINI), *options(molecules, tmp_path / "run", data__train_size=1))
    _, words = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(words.strip().splitlines()) == 1 and "expected at least one for each of 2 processes" in words


def test_bad_usage_of_the_launcher():
    for words, expected in (
        ([], "number of processes"),
        (["two", "x.yaml"], "got 'two'"),
        (["2", "no.yaml"], "no.yaml"),
    ):
        done = subprocess.run(
            ["bash", str(LAUNCHER), *words], check=False, capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and expected in done.stderr


def test_one_process_needs_no_other():
    ranks = Ranks()
    values = np.arange(3.0)
    assert ranks.sum(values) is values and ranks.any(True) and not ranks.any(False) and ranks.is_main
    assert ranks.share({"a": values})["a"] is values
    ranks.agree(5, "nothing")
    assert SumOverRanks(1).construct(values) is values
