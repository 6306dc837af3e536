"""Several processes train what one process trains, survive each other, and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_crystals import alloys
from tiny_runs import MINI, REPOSITORY, column, light, options, read_rows, small_run

import train
from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import pack
from training import checkpoint as checkpoints
from training.distributed import Ranks, SumOverRanks

pytestmark = pytest.mark.usefixtures("every_core")

LAUNCHER = REPOSITORY / "scripts" / "run_distribute_train.sh"
STEPS = Path(__file__).parents[1] / "rank_steps.py"
#: relative to the norm of each parameter; float32 sums of a batch in another order differ in the last digit
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}
ENVIRONMENT = {
    **os.environ,
    "GLOG_v": "3",
    "MS_RETRY_INTERVAL_LOWER": "1",  # as scripts/run_distribute_train.sh has them
    "MS_RETRY_INTERVAL_UPPER": "2",
    "PYTHON": sys.executable,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def steps_of(processes, folder, mode, cases):
    """What 20 steps of each case in so many processes leave: one archive of arrays each, by the name of the case."""
    words = [str(STEPS), str(folder), mode, *(str(word) for name, case in cases.items() for word in (name, *case))]
    if processes > 1:
        launcher = [
            "-m", "mindspore.parallel.cluster.run", f"--worker_num={processes}", f"--local_worker_num={processes}",
            f"--master_port={free_port()}", "--join=True", f"--log_dir={folder}",
        ]  # fmt: skip
        words = [*launcher, *words]
    done = subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {
        name: [dict(np.load(folder / f"{name}_rank{rank}_of_{processes}.npz")) for rank in range(processes)]
        for name in cases
    }


@pytest.mark.parametrize(
    ("mode", "names", "count"),
    [("GRAPH", ("float32", "forces", "force constants"), 3), ("PYNATIVE", ("float32",), 2)],
    ids=["GRAPH", "PYNATIVE"],
)
def test_several_processes_train_what_one_trains(mode, names, count, molecules, tmp_path):
    """The last batch of an epoch has 2 structures: one of three processes then holds none.

    With forces, their components in the whole batch divide the sum over all processes; so do those of columns and of
    rows of force constants, of which ten steps each are made.
    """
    packed_folder.save(pack(alloys(14), 5.0), tmp_path / "alloys")
    every = {
        "float32": ("float32", molecules), "forces": ("float64", SAMPLE_TRAIN),
        "force constants": ("float64", tmp_path / "alloys"),
    }  # fmt: skip
    cases = {name: every[name] for name in names}
    alone, together = (steps_of(processes, tmp_path, mode, cases) for processes in (1, count))
    for case, ranks in together.items():
        assert ranks[0]["results"].shape[1] == (3 if case == "float32" else 4)  # loss, errors, finite
        for name, expected in alone[case][0].items():
            for found in ranks[1:]:
                np.testing.assert_array_equal(found[name], ranks[0][name], err_msg=f"{name} differs between processes")
            difference, size = np.linalg.norm(ranks[0][name] - expected), np.linalg.norm(expected)
            # a constant in the energy, which is 0 at the start, has no part in force constants
            assert size > 0 or (case == "force constants" and name.endswith("output.bias"))
            assert difference <= TOLERANCE[cases[case][0]] * size, (case, name, difference / size)


def start(processes, log_folder, *words, **environment):
    """The launcher in a session of its own, as a platform starts it."""
    return subprocess.Popen(
        ["bash", str(LAUNCHER), str(processes), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "LOG_DIR": str(log_folder), **environment}, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip


def process_ids(log_folder, processes):
    """The process id of each rank, once each has said it and the first has made a step."""
    for _ in range(3000):
        texts = [path.read_text() for path in sorted(log_folder.glob("worker_*.log"))]
        found = [re.search(r"process id (\d+)", text) for text in texts]
        if len(found) == processes and all(found) and "epoch 1/" in texts[0]:
            return [int(match[1]) for match in found]
        time.sleep(0.1)
    raise AssertionError(texts)


def test_a_run_goes_on_with_another_number_of_processes(molecules, tmp_path):
    """An epoch of two processes, one of one and one of two: as three of one."""
    settings = light(run__log_every=1, optimizer__ema_decay=0.9)
    whole = small_run(molecules, tmp_path / "whole", **settings, training__epochs=3)
    folder = tmp_path / "run"
    for epochs, processes in ((1, 2), (2, 1), (3, 2)):
        words = ["--resume", str(folder), "--epochs", str(epochs)]
        if epochs == 1:
            words = [str(MINI), *options(molecules, folder, **settings)]
        if processes == 1:
            assert train.main(words) == 0
        else:
            process = start(processes, tmp_path / "logs", *words)
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
    first, second = (read_rows(path / "metrics.csv") for path in (whole, folder))
    for name in first[0]:
        np.testing.assert_allclose(column(first, name), column(second, name), rtol=1e-5)
    first, second = (checkpoints.load(path / checkpoints.LAST) for path in (whole, folder))
    for group in checkpoints.GROUPS:
        for name, expected in getattr(first, group).items():
            assert np.linalg.norm(getattr(second, group)[name] - expected) <= 1e-4 * np.linalg.norm(expected), name
    predictions = [column(read_rows(path / "predictions.csv"), "predicted gap [eV]") for path in (whole, folder)]
    np.testing.assert_allclose(*predictions, rtol=1e-5)
    assert not list(folder.glob("worker*")) and {path.name for path in folder.iterdir()} == {
        path.name for path in whole.iterdir()
    }


def test_a_process_that_dies_ends_the_run_and_is_named(molecules, tmp_path):
    logs = tmp_path / "logs"
    process = start(
        2, logs, str(MINI), *options(molecules, tmp_path / "run", **light(training__epochs=5000, run__log_every=1))
    )
    victim = process_ids(logs, 2)[1]
    os.kill(victim, signal.SIGKILL)
    _, words = process.communicate(timeout=300)  # msrun alone would wait for ten minutes
    assert process.returncode == 137
    assert f"process {victim} failed with exit code 137" in words and "worker_1.log" in words


def test_a_mistake_is_one_line(molecules, tmp_path):
    """Also where MindSpore shall say nothing at all, msrun included."""
    arguments = options(molecules, tmp_path / "run", data__train_size=1)
    process = start(2, tmp_path / "logs", str(MINI), *arguments, GLOG_v="4")
    _, words = process.communicate(timeout=300)
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
