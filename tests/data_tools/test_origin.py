"""Only what a format knows to be QM9 is treated as QM9: whole numbers from 1 are no gdb indices by themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.db import connect
from published_files import PACKED, RAW, RAW_FILES, write_gdb9
from tiny_runs import write_molecules

from data_tools.dataset import open_graphs
from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import pack
from data_tools.labels.splits import make_split
from data_tools.qm9 import read_uncharacterized
from data_tools.tables import join_tables, select_rows
from scripts import prepare_qm9

LEFT_OUT = int(read_uncharacterized()[0])


def molecules(path: Path, elements: tuple[int, ...] = (6, 8), **arrays: np.ndarray) -> Path:
    """Two diatomic molecules, numbered as a file likes."""
    places = np.array([[0, 0, z] for z in (0, 1.2)] * 2)
    np.savez(path, n_atoms=np.array([2, 2]), Z=np.array(elements * 2), R=places, **arrays)
    return path


def database(path: Path, rows: int = 60) -> Path:
    with connect(path) as file:
        for row in range(rows):
            file.write(ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.2]]), total_energy=-float(row))
    return path


def frames(path: Path, elements: str = "CO") -> Path:
    atoms = "".join(f"{symbol} 0 0 {z}\n" for z, symbol in enumerate(elements))
    comment = "Properties=species:S:1:pos:R:3 energy=-1 gdb_index="
    path.write_text("".join(f"2\n{comment}{index}\n{atoms}" for index in (1, LEFT_OUT)))
    return path


def test_who_knows_that_it_is_qm9(tmp_path):
    sdf, labels = write_gdb9(tmp_path, RAW_FILES)
    joined = tmp_path / "joined.xyz"
    joined.write_bytes(b"".join(path.read_bytes() for path in RAW_FILES))
    for path in (PACKED, RAW, RAW_FILES[0], sdf, labels, joined, frames(tmp_path / "a.xyz")):
        assert read_table(path).origin == "qm9", path
    (tmp_path / "plain.xyz").write_text("1\ngdb 1\nHe 0 0 0\n")
    others = (SAMPLE_TRAIN, database(tmp_path / "a.db"), tmp_path / "plain.xyz", molecules(tmp_path / "a.npz"))
    assert all(read_table(path).origin == "" for path in others)


def test_qm9_loses_the_uncharacterized(tmp_path):
    index = np.array([1, LEFT_OUT])
    for path in (molecules(tmp_path / "a.npz", gdb_index=index), frames(tmp_path / "a.xyz")):
        assert open_graphs(path, 3.0).table.ids.tolist() == [1], path
    with pytest.raises(DataError, match="leave gdb_index out of the file"):
        open_graphs(molecules(tmp_path / "b.npz", gdb_index=index + 10**6), 3.0)


def test_others_are_neither_cut_nor_refused(tmp_path):
    """Databases count from 1; an npz of sulphur, or of ten heavy atoms, is numbered by somebody else."""
    assert LEFT_OUT <= 60
    table = open_graphs(database(tmp_path / "a.db"), 3.0).table
    assert table.ids.tolist() == list(range(1, 61))
    for path in (
        molecules(tmp_path / "a.npz", (16, 8), gdb_index=np.array([1, LEFT_OUT])),
        frames(tmp_path / "a.xyz", "SO"),
        molecules(tmp_path / "b.npz", (16, 8), gdb_index=np.array([5, 5])),
    ):
        assert len(open_graphs(path, 3.0)) == 2  # fmt: skip
    chain = np.array([[0, 0, 1.3 * z] for z in range(10)])
    np.savez(tmp_path / "c.npz", n_atoms=[10], Z=[6] * 10, R=chain, gdb_index=[LEFT_OUT])
    assert len(open_graphs(tmp_path / "c.npz", 3.0)) == 1


def test_the_published_split_is_of_qm9(tmp_path):
    with pytest.raises(DataError, match="these data are not QM9"):
        make_split("cormorant", read_table(database(tmp_path / "a.db")))
    assert len(make_split("cormorant", read_table(PACKED)).train)


def test_only_qm9_is_prepared_as_qm9(tmp_path, capsys):
    words = ["--source", str(database(tmp_path / "a.db")), "--output", str(tmp_path / "packed")]
    assert prepare_qm9.main(words) == 2
    assert "this is not QM9; give other data to train.py as data.file" in capsys.readouterr().err
    assert not (tmp_path / "packed").exists()


def test_tables_keep_their_origin():
    qm9, frame = read_table(RAW), read_table(SAMPLE_TRAIN)
    assert select_rows(qm9, np.array([1])).origin == "qm9"
    assert join_tables([qm9, qm9], ("a", "b")).origin == "qm9" and join_tables([qm9, frame], ("a", "b")).origin == ""


@pytest.mark.parametrize("origin", ["qm9", ""])
def test_packed_graphs_keep_their_origin(tmp_path, origin):
    table = dataclasses.replace(read_table(write_molecules(tmp_path / "a.npz", range(3))), origin=origin)
    packed_folder.save(pack(table, 3.0), tmp_path / "packed")
    assert packed_folder.load(tmp_path / "packed").table.origin == origin
