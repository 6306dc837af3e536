"""Laws of the databases of ASE and of ISO17's folder: what ASE writes is what is read, and mistakes are one line."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import ase
import ase.io.jsonio
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.db.core import bytes_to_object

from data_tools.formats.iso17 import ID_FILES, REFERENCE, TEST_WITHIN
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.labels.splits import make_split

ISOMER = [6] * 7 + [8] * 2 + [1] * 10
PLACES = np.stack(np.meshgrid(range(3), range(3), range(3)), axis=-1).reshape(-1, 3)[: len(ISOMER)] * 1.4


def frames(count: int, seed: int = 0) -> list[dict]:
    random = np.random.default_rng(seed)
    return [
        {
            "positions": PLACES + random.normal(0, 0.05, (19, 3)),
            "total_energy": float(random.normal(-11000, 1)),
            "atomic_forces": random.normal(size=(19, 3)),
        }
        for _ in range(count)
    ]


def write(path: Path, made: list[dict]) -> Path:
    """As published: the energy among the key-value pairs, the forces in the data."""
    with connect(path) as database:
        for one in made:
            atoms = ase.Atoms(ISOMER, one["positions"])
            data = {"atomic_forces": one["atomic_forces"]}
            database.write(atoms, total_energy=one["total_energy"], data=data)
    return path


def change(path: Path, statement: str, *values: object) -> Path:
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()
    return path


def as_version_8(path: Path, encode=ase.io.jsonio.encode) -> Path:
    """The data as text, as in the databases of 2017."""
    with sqlite3.connect(path) as database:
        for number, data in database.execute("SELECT id, data FROM systems").fetchall():
            text = encode(bytes_to_object(data))
            database.execute("UPDATE systems SET data=? WHERE id=?", (text, number))
        database.execute("UPDATE information SET value='8' WHERE name='version'")
    database.close()
    return path


def write_folder(folder: Path, train: str = "1\n3\n4\n", valid: str = "2\n5\n") -> tuple[list[dict], list[dict]]:
    reference, within = frames(5), frames(2, seed=1)
    write(folder / REFERENCE, reference)
    write(folder / TEST_WITHIN, within)
    write(folder / "test_other.db", frames(1, seed=2))
    (folder / ID_FILES["train"]).write_text(train)
    (folder / ID_FILES["valid"]).write_text(valid)
    return reference, within


def assert_holds(table, made: list[dict]) -> None:
    assert table.numbers.reshape(-1, 19).tolist() == [ISOMER] * len(made) and set(table.label_names) == {
        "energy",
        "forces",
    }
    np.testing.assert_array_equal(table.positions, np.concatenate([one["positions"] for one in made]))
    np.testing.assert_array_equal(table.of_structures["energy"], [one["total_energy"] for one in made])
    np.testing.assert_array_equal(table.of_atoms["forces"], np.concatenate([one["atomic_forces"] for one in made]))


# ---- one database ----------------------------------------------------------------------------------------------------


def test_a_database_as_published(tmp_path):
    made = frames(6)
    path = write(tmp_path / "test_other.db", made)
    before = path.read_bytes()
    table = read_table(path)
    assert_holds(table, made)
    assert table.ids.tolist() == [1, 2, 3, 4, 5, 6] and table.names[2] == "row 3"
    assert table.split is None and table.cells is None and "test_other.db sha256 " in table.source
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("encode", [
    ase.io.jsonio.encode, lambda data: json.dumps({name: value.tolist() for name, value in data.items()}),
], ids=["arrays", "lists"])  # fmt: skip
def test_databases_of_2017_keep_text(tmp_path, encode):
    made = frames(3)
    assert_holds(read_table(as_version_8(write(tmp_path / "old.db", made), encode)), made)


def test_ids_skip_rows_that_were_deleted(tmp_path):
    made = frames(4)
    path = write(tmp_path / "some.db", made)
    with connect(path) as database:
        del database[2]
    table = read_table(path)
    assert_holds(table, [made[row] for row in (0, 2, 3)])
    assert table.ids.tolist() == [1, 3, 4]


def test_without_an_ending_and_in_a_folder_with_odd_letters(tmp_path):
    folder = tmp_path / "a?b#c%20"
    folder.mkdir()
    made = frames(1)
    write(tmp_path / "one.db", made).rename(folder / "3195389")
    assert_holds(read_table(folder / "3195389"), made)


def test_labels_of_a_calculator(tmp_path):
    """Molecules of any size; what one lacks is NaN, what all lack is no label."""
    water = ase.Atoms("OH2", [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    water.calc = SinglePointCalculator(water, energy=-2.0, forces=np.arange(9.0).reshape(3, 3))
    with connect(tmp_path / "any.db") as database:
        database.write(water)
        database.write(ase.Atoms("He"), total_energy=-1)
    table = read_table(tmp_path / "any.db")
    assert table.n_atoms.tolist() == [3, 1] and table.of_structures["energy"].tolist() == [-2, -1]
    np.testing.assert_array_equal(table.of_atoms["forces"], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [np.nan] * 3])
    with connect(tmp_path / "bare.db") as database:
        database.write(ase.Atoms("He"))
    assert read_table(tmp_path / "bare.db").label_names == ()


def test_progress_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data_tools.progress_bar.SECONDS_BETWEEN_LINES", -1.0)
    read_table(write(tmp_path / "some.db", frames(3)), progress=True)
    assert "reading some.db: 2 of 3 molecules" in capsys.readouterr().err


# ---- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "valid"), [("1\n3\n4\n", "2\n5\n"), ("3\n0\n2\n", "1\n4\n")], ids=["ids", "positions"]
)
def test_folder_as_published(tmp_path, train, valid):
    reference, within = write_folder(tmp_path, train, valid)
    table = read_table(tmp_path)
    assert_holds(table, reference + within)
    assert table.split.tolist() == ["train", "valid", "train", "train", "valid", "test", "test"]
    assert table.ids.tolist() == list(range(7)) and table.names[5] == "test_within.db row 1"
    split = make_split("labelled", table)
    assert split.train.tolist() == [0, 2, 3] and split.valid.tolist() == [1, 4] and split.test.tolist() == [5, 6]
    assert table.source.count("sha256") == 2


def test_rows_that_no_list_names_are_left_out_and_counted(tmp_path):
    reference, within = write_folder(tmp_path, "5\n", "2\n")
    table = read_table(tmp_path)
    assert_holds(table, [reference[1], reference[4], *within])
    assert table.split.tolist() == ["valid", "train", "test", "test"]
    assert "; 3 rows in neither list, test_within.db" in table.source


FOLDERS = {
    "id that is not there": ({"train": "1\n9\n"}, ("train_ids.txt", "found 9")),
    "id between the rows": ({"valid": "-1\n"}, ("validation_ids.txt", "found -1")),
    "id in both lists": ({"train": "1\n2\n"}, ("validation_ids.txt", "twice")),
    "id twice": ({"train": "1\n1\n"}, ("train_ids.txt", "twice")),
    "words": ({"train": "1\ntwo\n"}, ("train_ids.txt", "whole numbers", "two")),
    "huge id": ({"train": "1\n" + "9" * 30}, ("train_ids.txt", "whole numbers")),
    "no ids": ({"train": "\n"}, ("train_ids.txt", "whole numbers")),
}


@pytest.mark.parametrize("mistake", FOLDERS)
def test_mistakes_in_the_lists(mistake, tmp_path):
    changes, words = FOLDERS[mistake]
    write_folder(tmp_path, **changes)
    assert_one_line(tmp_path, *words)


@pytest.mark.parametrize("name", [*ID_FILES.values(), TEST_WITHIN])
def test_a_file_of_the_folder_is_missing(name, tmp_path):
    write_folder(tmp_path)
    (tmp_path / name).unlink()
    assert_one_line(tmp_path, name, "found nothing there")


# ---- what is no sound database ---------------------------------------------------------------------------------------


def assert_one_line(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) - len(str(path)) < 500
    for word in words:
        assert word in message


def values_of(column: str, value: object):
    return lambda path: change(path, f"UPDATE systems SET {column}=? WHERE id=2", value)


def view(path: Path) -> None:
    """Rows without end, made while they are read."""
    change(path, "ALTER TABLE systems RENAME TO others")
    columns = "numbers, positions, pbc, energy, forces, key_value_pairs, data"
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
    change(path, f"CREATE VIEW systems AS {endless} SELECT n.id AS id, {columns} FROM n, others")


def generated(path: Path) -> None:
    """A blob of 999 MB that takes no place in the file."""
    change(path, "ALTER TABLE systems RENAME COLUMN positions TO others")
    change(path, "ALTER TABLE systems ADD COLUMN positions BLOB GENERATED ALWAYS AS (zeroblob(999000000)) VIRTUAL")


def array(shape: list, kind: str, values: object) -> str:
    return json.dumps({"atomic_forces": {"__ndarray__": [shape, kind, values]}})


def cut(keep: float):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


DATABASES = {
    "cut short": (cut(0.5), ("cut short or damaged",)),
    "cut in its head": (lambda path: path.write_bytes(path.read_bytes()[:50]), ("cut short or damaged",)),
    "text": (lambda path: path.write_text("hello"), ("expected a database of ASE (sqlite)",)),
    "empty": (lambda path: path.write_bytes(b""), ("empty file",)),
    "foreign": (lambda path: change(path, "DROP TABLE systems"), ("without its table systems",)),
    "other columns": (lambda path: change(path, "ALTER TABLE systems DROP COLUMN data"), ("columns data",)),
    "a view": (view, ("without its table systems",)),
    "generated columns": (generated, ("columns positions",)),
    "no rows": (lambda path: change(path, "DELETE FROM systems"), ("at least one structure",)),
    "being written": (lambda path: Path(f"{path}-journal").write_bytes(b"x"), ("some.db-journal", "close its writer")),
    "no numbers": (values_of("numbers", None), ("row 2",)),
    "half a number": (values_of("numbers", b"\x01\x00\x00"), ("row 2",)),
    "text for positions": (values_of("positions", "0 0 0"), ("row 2",)),
    "positions of another molecule": (values_of("positions", bytes(24 * 18)), ("row 2",)),
    "NaN position": (values_of("positions", np.full((19, 3), np.nan).tobytes()), ("finite coordinates", "row 2")),
    "unknown element": (values_of("numbers", np.full(19, 119, np.int32).tobytes()), ("atomic numbers", "row 2")),
    "energy in words": (values_of("key_value_pairs", '{"total_energy": "low"}'), ("row 2", "low")),
    "infinite energy": (values_of("key_value_pairs", '{"total_energy": 1e999}'), ("row 2", "finite energy")),
    "pairs that are no JSON": (values_of("key_value_pairs", "{"), ("row 2",)),
    "pairs without end": (values_of("key_value_pairs", "[" * 100_000), ("row 2",)),
    "forces of another molecule": (values_of("data", array([18, 3], "float64", [0.0] * 54)), ("row 2", "[18, 3]")),
    "forces that are missing": (values_of("data", array([19, 3], "float64", [0.0] * 56)), ("row 2",)),
    "forces without end": (values_of("data", array([10**9, 3], "float64", [0.0])), ("row 2", "shape")),
    "forces in words": (values_of("data", array([19, 3], "str", ["x"] * 57)), ("row 2",)),
    "forces that are objects": (
        values_of("data", (8).to_bytes(8, "little") + array([19, 3], "object", 0).encode()), ("row 2",)
    ),
    "forces beyond the data": (
        values_of("data", (8).to_bytes(8, "little") + array([19, 3], "float64", 10**6).encode()), ("row 2",)
    ),
    "data that are no JSON": (values_of("data", b"\x80\x04\x95" + bytes(30)), ("row 2",)),
    "infinite force": (values_of("forces", np.full((19, 3), np.inf).tobytes()), ()),
    "a crystal": (values_of("pbc", 7), ("row 2 periodic", "extended xyz")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DATABASES)
def test_every_mistake_is_one_line(mistake, tmp_path):
    damage, words = DATABASES[mistake]
    path = write(tmp_path / "some.db", frames(8))
    if mistake == "infinite force":
        change(path, "UPDATE systems SET data='{}' WHERE id=2")
    damage(path)
    assert_one_line(path, *words)


def test_bytes_lost_in_the_middle_are_never_a_traceback(tmp_path):
    whole = write(tmp_path / "whole.db", frames(8)).read_bytes()
    random, refused = np.random.default_rng(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        start = random.integers(100, len(whole))
        size = len(damaged[start : start + 300])
        damaged[start : start + size] = random.bytes(size)
        (tmp_path / "damaged.db").write_bytes(damaged)
        try:
            read_table(tmp_path / "damaged.db")
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused >= 20  # most places hold indices and text that nobody reads


def test_a_folder_of_something_else(tmp_path):
    shutil.copy(write(tmp_path / "some.db", frames(1)), tmp_path / "other.db")
    assert_one_line(tmp_path, "ISO17", REFERENCE, "found neither")
