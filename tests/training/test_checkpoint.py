"""Checkpoints: what goes in comes out, whatever is damaged is one error, and a file is there whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from safetensors.numpy import save_file

from training import checkpoint as checkpoints
from training.checkpoint import BEST, LAST, Checkpoint, CheckpointError, load, save
from training.weights import assign, parameters_of

INFORMATION = {
    "config": {"model": {"name": "schnet", "cutoff": 5.0}},
    "task": {"name": "gap", "unit": "eV"},
    "elements": [1, 6],
    "progress": {"best_valid_mae": float("inf"), "history": [{"epoch": 1, "lr": 1e-4}]},
    "note": "Bäume",
}


def example() -> Checkpoint:
    random = np.random.default_rng(0)
    model = {"a.weight": random.normal(size=(3, 4)).astype(np.float32), "b": random.normal(size=2), "c": np.float64([])}
    return Checkpoint(
        model=model,
        ema={"a.weight": model["a.weight"] + 1},
        optimizer={"first.a.weight": np.zeros((3, 4), np.float32), "step": np.array(7)},
        information=INFORMATION,
    )


@pytest.fixture
def stored(tmp_path):
    save(tmp_path / BEST, example())
    return tmp_path / BEST


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.information == expected.information
    for group in checkpoints.GROUPS:
        ours, theirs = getattr(found, group), getattr(expected, group)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype and ours[name].shape == value.shape
            np.testing.assert_array_equal(ours[name], value)


def test_round_trip(stored):
    assert_equal(load(stored), example())


def test_arrays_that_are_not_contiguous(tmp_path):
    values = np.arange(12.0).reshape(3, 4).T
    save(tmp_path / BEST, Checkpoint({"w": values}))
    np.testing.assert_array_equal(load(tmp_path / BEST).model["w"], values)


def test_weights_are_the_moving_average_where_there_is_one():
    one = example()
    np.testing.assert_array_equal(one.weights["a.weight"], one.ema["a.weight"])
    np.testing.assert_array_equal(one.weights["b"], one.model["b"])


def test_a_folder_stands_for_its_best_checkpoint_else_its_last(tmp_path):
    with pytest.raises(CheckpointError, match="found neither"):
        load(tmp_path)
    save(tmp_path / LAST, Checkpoint({"w": np.zeros(1)}))
    assert load(tmp_path).model["w"] == 0
    save(tmp_path / BEST, Checkpoint({"w": np.ones(1)}))
    assert load(tmp_path).model["w"] == 1


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path / BEST, example())
    finally:
        os.umask(before)
    assert (tmp_path / BEST).stat().st_mode & 0o777 == 0o640


def test_a_file_cut_anywhere_is_refused(stored):
    whole = stored.read_bytes()
    for length in {*range(0, len(whole), 37), *range(16), len(whole) - 1}:
        stored.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(stored)) as caught:
            load(stored)
        assert "\n" not in str(caught.value)


def test_a_changed_byte_anywhere_is_refused(stored):
    whole = stored.read_bytes()
    for place in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[place] ^= 0x11
        stored.write_bytes(damaged)
        try:
            found = load(stored)
        except CheckpointError:
            continue
        assert_equal(found, example())  # the byte was padding of the header


@pytest.mark.parametrize(
    "content, words",
    [(b"", "truncated or damaged"), (b"PK\x03\x04 a zip file of torch", "truncated or damaged"), (None, "convert")],
)
def test_a_foreign_file_is_refused(content, words, tmp_path):
    path = tmp_path / "foreign.safetensors"
    if content is None:
        save_file({"weight": np.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load(path)


@pytest.mark.parametrize("kind, size", [("F8_E4M3", 8), ("F4", 16), ("BF16", 4)])
def test_numbers_that_numpy_lacks_are_refused(kind, size, tmp_path):
    header = json.dumps({"model/a": {"dtype": kind, "shape": [size], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "small.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match=r"small\.safetensors: expected a checkpoint"):
        load(tmp_path / "small.safetensors")


def test_another_version_is_refused(stored):
    whole = stored.read_bytes()
    stored.write_bytes(whole.replace(b"geospore-checkpoint-2", b"geospore-checkpoint-9"))
    with pytest.raises(CheckpointError, match="geospore-checkpoint-9"):
        load(stored)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(failing, stored, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (checkpoints.os, "fsync", fail), "replace": (Path, "replace", fail)}[failing])
    with pytest.raises(OSError, match="No space"):
        save(stored, Checkpoint({"w": np.zeros(1000)}))
    monkeypatch.undo()
    assert [path.name for path in stored.parent.iterdir()] == [BEST]
    assert_equal(load(stored), example())


def test_a_process_killed_while_it_writes_leaves_the_old_file(stored):
    """The name of a checkpoint never stands for half a file, however often the process dies."""
    code = (
        "import os, sys, numpy as np\n"
        "from training import checkpoint as c\n"
        "c.os.fsync = lambda _: os.kill(os.getpid(), 9)\n"  # after the bytes are written, before the rename
        "c.save(sys.argv[1], c.Checkpoint({'w': np.zeros(1000)}))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(stored)], cwd=root, timeout=300, check=False)
    assert done.returncode == -9
    assert_equal(load(stored), example())
    save(stored, Checkpoint({"w": np.ones(1)}))
    assert load(stored).model["w"] == 1


class Small(nn.Cell):
    def __init__(self):
        super().__init__()
        self.inner = Parameter(Tensor(np.zeros((2, 3), np.float32)), name="inner")
        self.table = Parameter(Tensor(np.ones(2, np.float32)), name="table", requires_grad=False)
        self.scalar = Parameter(Tensor(np.float32(0)), name="scalar")


def test_assign_sets_every_parameter_buffers_included():
    cell = Small()
    values = {"inner": np.full((2, 3), 2.0), "table": np.full(2, 3.0), "scalar": np.array(4.0)}
    assign(cell, values)
    found = parameters_of(cell)
    assert found.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize(
    "change, words",
    [
        ({"table": None}, "1 missing"),
        ({"other": np.zeros(1)}, "1 unknown"),
        ({"inner": np.zeros((3, 2))}, "expected shape"),
    ],
)
def test_weights_of_another_model_change_nothing(change, words):
    cell = Small()
    values = {"inner": np.full((2, 3), 2.0), "table": np.full(2, 3.0), "scalar": np.array(4.0)} | change
    with pytest.raises(CheckpointError, match=words):
        assign(cell, {name: value for name, value in values.items() if value is not None})
    np.testing.assert_array_equal(parameters_of(cell)["inner"], 0.0)


def test_nothing_is_pickled(stored):
    """The header is JSON and the rest are numbers."""
    whole = stored.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    assert json.loads(header["__metadata__"]["information"]) == INFORMATION
