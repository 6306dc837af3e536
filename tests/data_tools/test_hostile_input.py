"""Hostile input: more than a thousand damaged files over every reader, and a sample of them through the programs.

Each is accepted with a sound result or refused by one line that names the file; see ``hostile_run.judge``.  One case
again: ``python tests/hostile_run.py FOLDER SEED NUMBER NUMBER+1``.  Table of counts: results/system/hostile_input.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hostile_arrays import Payload
from hostile_cases import formats, make_case
from hostile_seeds import seeds
from tiny_runs import LIGHT, MINI, options

import train
from scripts import convert_weights, prepare_qm9

pytestmark = pytest.mark.usefixtures("same_mode")

CASES, SEED = 1785, 0
OUTCOMES = ("accepted", "refused", "FAILED")
RUNNER = Path(__file__).parents[1] / "hostile_run.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All cases, in a process with bounded memory; (format, harm, number) and how each ended."""
    folder = tmp_path_factory.mktemp("hostile") / "cases"
    command = [sys.executable, str(RUNNER), str(folder), str(SEED), "0", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"died in {lines[-1:]}: {done.stderr[-2000:]}"
    return [before | after for before, after in zip(lines[::2], lines[1::2], strict=True)]


def test_every_case_is_accepted_or_refused_in_one_line(results):
    counts = Counter((row["format"], row["outcome"]) for row in results)
    print(f"\n{'format':22s}" + "".join(f"{outcome:>10s}" for outcome in OUTCOMES))
    for name in sorted({row["format"] for row in results}):
        print(f"{name:22s}" + "".join(f"{counts[name, outcome]:10d}" for outcome in OUTCOMES))
    total = Counter(row["outcome"] for row in results)
    print(f"{'all ' + str(len(results)):22s}" + "".join(f"{total[outcome]:10d}" for outcome in OUTCOMES))
    slowest, largest = max(row["seconds"] for row in results), max(row["megabytes"] for row in results)
    print(f"seed {SEED}; slowest case {slowest:.1f} s, largest growth of memory in a case {largest} MB")
    failed = [row for row in results if row["outcome"] == "FAILED"]
    assert not failed, "\n".join(f"seed {SEED} number {row['number']}: {row}" for row in failed[:20])
    assert len(results) >= 1000


def test_the_cases_harm(results):
    """A generator whose cases were all accepted, or never got to a reader, would test nothing."""
    refused = Counter(row["format"] for row in results if row["outcome"] == "refused")
    for name in {row["format"] for row in results}:
        assert refused[name] >= 10, name
    assert {"npz_pickle", "npz_bomb", "bomb", "links_and_devices", "document", "pipe"} <= {r["harm"] for r in results}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    Payload.marker = str(folder / "code_was_run")
    return formats(seeds(folder))


def write(table, format_name: str, harm: str, place: Path) -> Path:
    """The first case of a format with a harm of this name."""
    names = list(table)
    for turn, one in enumerate(table[format_name].harms):
        if getattr(one, "name", getattr(one, "__name__", "")) == harm:
            return make_case(table, SEED, turn * len(names) + names.index(format_name), place).path
    raise AssertionError(f"{format_name} has no harm {harm}")


PREPARED = {
    ("npz", "npz_pickle"): "expected arrays", ("npz", "npz_bomb"): "inflates", ("npz", "truncate"): "cut short",
    ("npz", "pipe"): "a pipe or a device", ("tar.gz", "bomb"): "bytes",
    ("tar.gz", "trailing_bomb"): "inflates", ("tar.bz2", "empty"): "empty file",
    ("tar", "nothing_inside"): "found nothing", ("xyz", "first_token"): "expected",
    ("xyz", "in_utf16"): "UTF-8", ("sdf", "device"): "a pipe or a device", ("smiles", "loop"): "expected",
}  # fmt: skip


def refused(capfd, program, arguments: list, *words: str) -> None:
    """Exit code 2, one line on standard error, no traceback."""
    capfd.readouterr()
    assert program([str(argument) for argument in arguments]) == 2
    shown = capfd.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1 and "Traceback" not in shown, shown
    for word in words:
        assert word in shown


@pytest.mark.parametrize("case", PREPARED, ids=" ".join)
def test_prepare_refuses(case, table, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    path = write(table, *case, tmp_path / "in")
    output = tmp_path / "packed"
    refused(capfd, prepare_qm9.main, ["--source", path, "--output", output], path.name, PREPARED[case])
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("case", [("npz", "npz_header"), ("xyz", "empty"), ("npz", "folder")], ids=" ".join)
def test_train_refuses_data(case, table, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    path = write(table, *case, tmp_path / "in")
    light = {key.replace(".", "__"): value for key, value in LIGHT.items()}
    refused(capfd, train.main, options(path, tmp_path / "run", "--config", str(MINI), **light), str(path))
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("harm", ["document", "pipe", "device", "noise"])
def test_train_refuses_configurations(harm, table, tmp_path, capfd, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    refused(capfd, train.main, ["--config", write(table, "config", harm, tmp_path / "in")])
    assert os.listdir(tmp_path) == ["in"]
    assert not Path(Payload.marker).exists()


@pytest.mark.parametrize("case", [("checkpoint", "safetensors_length"), ("checkpoint contents", "parameters")])
def test_eval_refuses_checkpoints(case, table, tmp_path, capfd):
    import eval as program  # noqa: PLC0415  a name that shadows the builtin

    (tmp_path / "in").mkdir()
    path = write(table, *case, tmp_path / "in")
    refused(capfd, program.main, ["--ckpt", path, "--output", tmp_path / "out"], str(path))
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("case", [("weights npz", "npz_pickle"), ("weights pt", "torch_file")], ids=" ".join)
def test_convert_refuses_weights(case, table, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    path = write(table, *case, tmp_path / "in")
    words = ["--source", "pyg-schnet", "--weights", path, "--config", MINI, "--output", tmp_path / "out.safetensors"]
    refused(capfd, convert_weights.main, words, str(path))
    assert os.listdir(tmp_path) == ["in"]
    assert not Path(Payload.marker).exists()


def test_a_file_where_the_output_should_be(table, tmp_path, capfd):
    """As good as a folder without permission to write, which means nothing to the superuser."""
    path = tmp_path / "molecules.npz"
    path.write_bytes(np.random.default_rng(0).bytes(10))
    refused(capfd, prepare_qm9.main, ["--source", path, "--output", path / "packed"], str(path))
    assert os.listdir(tmp_path) == ["molecules.npz"]
