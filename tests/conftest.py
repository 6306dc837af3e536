"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import logging
import os

os.environ.setdefault("GLOG_v", "3")  # as the programs have it, whichever test comes first

import mindspore as ms
import pytest
from cloud_jobs import server
from helpers import CASES, LINES, PATHS, Bench, on_path
from tiny_runs import write_molecules

from experiment import provenance

CORES = os.sched_getaffinity(0)
provenance.GIT_SECONDS = provenance.COMPARE_SECONDS = 60.0  # a run does not wait so long for git; a test does


def pytest_configure(config):
    """Each worker of pytest-xdist keeps to one core: MindSpore's threads wait by spinning, in each other's way."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        cores = sorted(CORES)
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="module", autouse=True)
def nothing_to_collect():
    """MindSpore collects garbage at each compilation: what is there before a file's tests is not searched again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def every_core():
    """What a test starts may use the whole machine."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def caplog(caplog):
    """What the project logs comes here too after a program has run in this process and kept its log to itself."""
    log = logging.getLogger("geospore")
    before = log.level, log.propagate
    log.setLevel(logging.NOTSET)
    log.propagate = True
    yield caplog
    log.setLevel(before[0])
    log.propagate = before[1]


@pytest.fixture
def same_mode():
    """After a test the mode is what it was before; the programs choose one."""
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


@pytest.fixture
def graph_mode(same_mode):
    """GRAPH mode for one test, and then what it was before."""
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request):
    """Each line of the table of models."""
    return request.param


@pytest.fixture(scope="session", params=LINES, ids=lambda line: f"{line[0].name}-{line[1]}")
def bench(request):
    """The model of a line on one path with its compiled functions, kept for all laws; its tests run together."""
    return Bench(*request.param)


@pytest.fixture(params=PATHS)
def path(request):
    """What a test builds computes with the kernels, and then with MindSpore's operators."""
    with on_path(request.param):
        yield request.param


@pytest.fixture(scope="session")
def molecules(tmp_path_factory):
    """A file of 80 molecules that small runs train on."""
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.npz", range(80))


@pytest.fixture
def cloud(tmp_path, monkeypatch, molecules):
    """A server of a platform whose bucket holds those molecules."""
    return server(tmp_path, monkeypatch, molecules)
