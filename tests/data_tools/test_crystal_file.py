"""The packed file of crystals: what goes in comes out, in the same bytes each time, and many sources become one."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from crystal_samples import SMASO4, SODIUM_CHLORATE, ZINC_OXIDE, zinc_oxide

from data_tools.crystals import crystal_of
from data_tools.formats import crystal_batch
from data_tools.formats.crystal_batch import find_sources, make_part, make_parts, part_of
from data_tools.formats.crystal_file import join_crystal_files, read_crystal_file, write_crystals
from data_tools.formats.phonopy_files import read_crystal
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.labels.crystal_splits import chemical_systems, labels_by_material, split_by_chemical_system
from data_tools.labels.splits import make_split
from data_tools.qm9 import SAMPLES
from scripts import prepare_crystals


@pytest.fixture(scope="module")
def crystals():
    return [zinc_oxide(), read_crystal(SODIUM_CHLORATE), read_crystal(SMASO4, frequencies=False)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_round_trip(crystals, tmp_path):
    path, sources = tmp_path / "three.npz", ["a sha256 0", "b " + "x" * 200, "c"]
    write_crystals(path, crystals, sources)
    table, found = read_crystal_file(path)
    assert found == tuple(sources) and table.names == ("ZnO", "mp-23330", "mp-12929")
    assert table.source == f"three.npz sha256 {digest(path)}"
    for row, crystal in enumerate(crystals):
        back = crystal_of(read_table(path), row)
        for name, value in vars(crystal).items():
            other = getattr(back, name)
            if isinstance(value, np.ndarray):
                assert value.dtype == other.dtype and (value == other).all(), name
        assert back.space_group == crystal.space_group and (back.born is None) == (crystal.born is None)
        np.testing.assert_array_equal(back.lowest_frequencies, crystal.lowest_frequencies)
    assert os.listdir(tmp_path) == ["three.npz"]


def test_the_same_bytes(crystals, tmp_path):
    """Twice, and whether written at once or joined from parts."""
    sources = ["a", "bb", "ccc"]
    write_crystals(tmp_path / "1.npz", crystals, sources)
    write_crystals(tmp_path / "2.npz", crystals, sources)
    parts = [tmp_path / f"part{row}.npz" for row in range(3)]
    for part, crystal, source in zip(parts, crystals, sources, strict=True):
        write_crystals(part, [crystal], [source])
    joined = join_crystal_files(tmp_path / "3.npz", parts)
    assert digest(tmp_path / "1.npz") == digest(tmp_path / "2.npz") == digest(tmp_path / "3.npz")
    assert joined.names == read_table(tmp_path / "1.npz").names


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("format", lambda array: np.array("other")),
        ("n_atoms", lambda array: array + 1),
        ("n_atoms", lambda array: np.array([2**62, 2**62, 32])),
        ("force_constants_blocks", lambda array: array[:-1]),
        ("force_constants_blocks", lambda array: array * np.nan),
        ("force_constants_p2s", lambda array: array + 99),
        ("split", lambda array: np.array(["train", "mine", "test"])),
        ("cells", lambda array: array.reshape(-1)),
        ("numbers", lambda array: array.astype(np.int64) - 300),
        ("names", None),
    ],
)
def test_wrong_arrays(crystals, tmp_path, name, change):
    write_crystals(tmp_path / "good.npz", crystals, ["a", "b", "c"])
    arrays = dict(np.load(tmp_path / "good.npz"))
    changed = arrays.pop(name)
    np.savez(tmp_path / "bad.npz", **arrays, **({} if change is None else {name: change(changed)}))
    with pytest.raises(DataError, match=r"bad\.npz: expected") as error:
        read_table(tmp_path / "bad.npz")
    assert "\n" not in str(error.value)


def test_splits_of_materials_and_systems(crystals, tmp_path):
    """A name keeps its part when others come; all crystals of the same elements are in one part."""
    names = [f"mp-{number}" for number in range(5000)]
    labels = labels_by_material(names)
    shares = [(labels == part).mean() for part in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, (0.8, 0.1, 0.1), atol=0.02)
    assert (labels_by_material(names[100:200]) == labels[100:200]).all()
    assert (labels_by_material(names, seed=1) != labels).mean() > 0.2
    many = [crystals[row % 3] for row in range(9)]
    write_crystals(tmp_path / "many.npz", many, [""] * 9)
    table = read_table(tmp_path / "many.npz")
    assert chemical_systems(table)[:3] == ["O-Zn", "Cl-Na-O", "As-O-Sm"]
    split = split_by_chemical_system(table)
    for part in (split.train, split.valid, split.test):
        assert {row % 3 for row in part.tolist()} == {row % 3 for row in range(9) if row in part}
        assert len(part) % 3 == 0
    assert len(make_split("labelled", table).train) == int((table.split == "train").sum())


@pytest.fixture
def folder(tmp_path):
    """Two archives, a folder, and an archive that is cut short."""
    place = tmp_path / "in"
    place.mkdir()
    for file in (SODIUM_CHLORATE, SMASO4):
        shutil.copy(file, place)
    shutil.copytree(ZINC_OXIDE, place / "ZnO")
    (place / "broken.tar.lzma").write_bytes(SMASO4.read_bytes()[:900])
    return place


def test_prepare(folder, tmp_path, capsys):
    output = tmp_path / "out" / "crystals.npz"
    words = ["--source", str(folder), "--output", str(output), "--processes", "2"]
    assert prepare_crystals.main(words) == 0
    said = capsys.readouterr()
    assert "3 crystals of 4 sources, 1 skipped" in said.out and "skipped broken.tar.lzma" in said.err
    assert sorted(os.listdir(output.parent)) == ["crystals.npz", "crystals_by_system.npz", "crystals_log.csv"]
    log = {row["source"]: row for row in csv.DictReader((tmp_path / "out" / "crystals_log.csv").open())}
    assert "cut short" in log["broken.tar.lzma"]["skipped"] and log["ZnO"]["space_group"] == "186"
    table, sources = read_crystal_file(output)
    assert set(table.names) == {"ZnO", "mp-23330", "mp-12929"} and all("sha256" in source for source in sources)
    parts = make_split("file", table, file=output.with_name("crystals_by_system.npz"))
    assert len(parts.train) + len(parts.valid) + len(parts.test) == 3
    first = digest(output)
    assert prepare_crystals.main([*words[:-1], "1"]) == 0
    assert digest(output) == first


def test_work_that_is_done_is_not_done_again(folder, tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    parts.mkdir()
    sources = find_sources([folder])
    assert [source.name for source in sources] == [
        "broken.tar.lzma", SMASO4.name, SODIUM_CHLORATE.name, "ZnO"
    ]  # fmt: skip
    for source in sources:
        make_part(source, parts)
    part_of(sources[1], parts).write_bytes(b"half")
    sources[2].write_bytes(SMASO4.read_bytes())
    asked = []

    def run(left, *_):
        asked.extend(left)
        yield from ()
        return []

    monkeypatch.setattr(crystal_batch, "_run", run)
    done = list(make_parts(sources, parts, 1))
    assert {one.source for one in done} == {sources[0], sources[3]} and set(asked) == {sources[1], sources[2]}
    assert "cut short" in next(one.reason for one in done if one.source == sources[0])


def deadly(source: Path, folder: Path) -> crystal_batch.Outcome:
    """As ``make_part``, but the broken archive takes all memory."""
    if source.name.startswith("broken"):
        os.kill(os.getpid(), signal.SIGKILL)
    return make_part(source, folder)


def test_a_source_that_kills_its_process(folder, tmp_path, monkeypatch):
    """It alone is skipped, by name, and not tried again; what was read beside it is there."""
    parts = tmp_path / "parts"
    parts.mkdir()
    sources = find_sources([folder])
    monkeypatch.setattr(crystal_batch, "make_part", deadly)
    done = {one.source.name: one for one in make_parts(sources, parts, 2)}
    assert {name: one.reason for name, one in done.items() if one.reason} == {"broken.tar.lzma": crystal_batch.DIED}
    assert len(done) == 4 and all(one.part.is_file() == (not one.reason) for one in done.values())
    monkeypatch.setattr(crystal_batch, "_run", None)
    assert {one.source.name: one.reason for one in make_parts(sources, parts, 2)} == {
        name: one.reason for name, one in done.items()
    }


def test_nothing_to_read(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    output = tmp_path / "out.npz"
    for source, words in ((tmp_path / "in", "found none"), (tmp_path / "no", "nothing there")):
        assert prepare_crystals.main(["--source", str(source), "--output", str(output)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and words in said and said.count("\n") == 1
    assert os.listdir(tmp_path) == ["in"]
    assert prepare_crystals.main(["--source", str(tmp_path), "--output", str(tmp_path / "x.txt")]) == 2


def test_the_shipped_crystals():
    path = SAMPLES / "crystals_100.npz"
    table, sources = read_crystal_file(path)
    constants = table.force_constants
    assert constants is not None and len(table) == 100 and path.stat().st_size < 2_000_000
    assert all(re.fullmatch(r"materials-id-\S+\.tar\.lzma sha256 [0-9a-f]{64}", source) for source in sources)
    assert len(set(table.numbers.tolist())) == 61 and len(set(constants.space_groups.tolist())) == 44
    assert np.isfinite(constants.born).all() and int((constants.lowest_frequencies[:, 1] < -0.05).sum()) == 38
    assert [int(re.search(r"-(\d+)\.tar", source).group(1)) for source in sources] == constants.space_groups.tolist()
    assert (labels_by_material(table.names) == table.split).all()
    split, stored = (
        split_by_chemical_system(table),
        make_split("file", table, file=SAMPLES / "crystals_100_by_system.npz"),
    )
    for part in ("train", "valid", "test"):
        assert (getattr(split, part) == getattr(stored, part)).all()
    for row in range(100):
        blocks = crystal_of(table, row).blocks
        assert np.abs(blocks.sum(axis=1)).max() < 0.05 * np.abs(blocks).max()
