"""Properties of a user's own data: tables of SMILES or files, extended xyz, npz and databases, and what is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.db import connect

from data_tools.dataset import make_dataset, open_graphs, open_two_files, resolve_task
from data_tools.formats import geometry_cache, smiles
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.graphs.packed_folder import save
from data_tools.labels.own_property import NO_UNIT, size_suspicions, target_of
from data_tools.labels.splits import make_split
from data_tools.labels.targets import TARGETS

TABLE = """\ufeffname;Canonical SMILES;logP;note;S (mol/L)
ethanol;CCO;-0.1;a;1
broken;C(C;0.5;b;2
ethane;CC;1.0;c;
methane;C;NaN;;3
salt;[Na+].[Cl-];2;d;4

water;O;-0.8;e;5
"""


def written(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refused(path: Path, label: str, *words: str, **options: object) -> None:
    """The message is one line that names the file and holds all of ``words``."""
    with pytest.raises(DataError) as caught:
        open_graphs(path, 3.0, labels=[label], **options)
    message = str(caught.value)
    assert message.startswith(str(path.parent)) and "\n" not in message, message
    assert all(word in message for word in words), message


def test_a_table_of_smiles(tmp_path):
    """Semicolons and a byte-order mark; rows without label or geometry are left out and counted."""
    table = open_graphs(written(tmp_path, TABLE), 3.0, labels=["logP"]).table
    assert table.names == ("ethanol", "ethane", "water") and table.ids.tolist() == [0, 2, 5]
    assert table.of_structures["logP"].tolist() == [-0.1, 1.0, -0.8]
    assert set(table.unread) == {"name", "Canonical SMILES", "note", "S (mol/L)"}
    remarks = table.remarks
    assert remarks[0] == "1 of 6 structures have no logP and are left out"
    assert "left out: 'C(C' in line 3" in remarks[1] and "2 fragments" in remarks[2]
    assert remarks[3] == "2 of 5 molecules have no geometry and are left out"
    named = open_graphs(tmp_path / "mine.csv", 3.0, keys={"S": "S (mol/L)"}, labels=["S"]).table
    assert named.of_structures["S"].tolist() == [1.0, 3.0, 5.0] and named.names == ("ethanol", "methane", "water")
    both = open_graphs(tmp_path / "mine.csv", 3.0, labels=["logP", "S (mol/L)"]).table
    np.testing.assert_array_equal(both.of_structures["logP"], [-0.1, 1.0, np.nan, -0.8])
    np.testing.assert_array_equal(both.of_structures["S (mol/L)"], [1.0, np.nan, 3.0, 5.0])


def test_geometries_are_made_once(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, TABLE)
    first = read_table(path, labels=["logP"])
    cache = geometry_cache.cache_of(path)
    monkeypatch.setattr(smiles, "_embed", lambda record: pytest.fail(f"{record.smiles} is made again"))
    again = read_table(path, labels=["logP"])
    np.testing.assert_array_equal(again.positions, first.positions)
    assert again.names == first.names and again.remarks == first.remarks and again.source == first.source
    assert again.of_structures["charge"].tolist() == first.of_structures["charge"].tolist()
    monkeypatch.undo()
    written(tmp_path, TABLE + "ammonia;N;0;;\n")  # only what is new is made
    assert read_table(path, labels=["logP"]).names[-1] == "ammonia" and "N" in geometry_cache.load(cache)
    layout = geometry_cache.LAYOUT
    monkeypatch.setattr(geometry_cache, "LAYOUT", geometry_cache.EARLIER[0])
    geometry_cache.save(cache, {"N": "of an earlier version"})
    monkeypatch.setattr(geometry_cache, "LAYOUT", layout)
    assert len(read_table(path, labels=["logP"])) == 4 and not isinstance(geometry_cache.load(cache)["N"], str)
    for foreign in (b"notes of a user", cache.read_bytes()[:200]):
        cache.write_bytes(foreign)
        assert len(read_table(path, labels=["logP"])) == 4 and cache.read_bytes() == foreign
        assert "the geometries are not kept" in capsys.readouterr().err
    cache.unlink()
    cache.mkdir()  # where it cannot be written, it is not
    assert len(read_table(path, labels=["logP"])) == 4
    assert sorted(tmp_path.iterdir()) == [path, cache]


@pytest.mark.parametrize(("label", "text", "words"), [
    ("logp", None, ("found name, Canonical SMILES, logP", "did you mean 'logP'?")),
    ("gaps", None, ("did you mean 'gap'?",)),
    ("note", None, ("expected a number as note in line 2, found 'a'",)),
    ("gap", None, ("expected gap among",)),
    ("mu", "smiles,dipole_moment\nC,1\n", ("another name of the built-in target mu", 'data.keys="mu=dipole_moment"')),
    ("E", "smiles,E\nC,1 eV\nCC,2\n", ("target.unit", "numbers without a unit")),
    ("E", "smiles,E\nC,1 eV\nCC,2.5e3kcal/mol\n", ("several units", "eV in line 2, kcal/mol in line 3")),
    ("E", "smiles,E,E units\nC,1,eV\nCC,2,\nCCC,3,kcal/mol\n", ("one unit", "eV in line 2, kcal/mol in line 4")),
    ("E", 'smiles,E\nC,"1,5"\n', ("write a decimal point",)),
    ("E", "smiles,E\nC,1_000\n", ("expected a number as E in line 2",)),
    ("E", "smiles,E\nC,inf\n", ("finite",)),
    ("E", "smiles,E\nC,\nCC,nan\n", ("all 2 fields are empty",)),
    ("E", "smiles,E,E\nC,1,2\n", ("expected one column E, found 2",)),
    ("E", "smiles,E\nC,1\nCC\n", ("expected 2 columns as in the header in line 3, found 1",)),
    ("E", "smiles,E\nC,1,7\n", ("found 3",)),
    ("E", "smiles,E\n", ("at least one row",)),
    ("E", "smiles,E\nC(C,1\nCC.C,2\n", ("none of 2 SMILES can be used", "line 2")),
    ("E", "x,E\nC,1\n", ("a column smiles, its columns are 'x', 'E'", "a column file")),
    ("E", "file,E\n../out.xyz,1\n", ("line 2", "in the folder of the table or below", "'../out.xyz'")),
    ("E", "file,E\n/etc/passwd,1\n", ("in the folder of the table or below",)),
    ("E", "file,E\nC:\\a.xyz,1\n", ("in the folder of the table or below",)),
    ("E", "file,E\nmine.csv,1\n", ("expected a file .xyz",)),
    ("E", "file,E\n,1\n", ("expected the name of a file, found nothing",)),
    ("E", "file,E\nnone.cif,1\n", ("found nothing there",)),
])  # fmt: skip
def test_what_a_table_may_not_be(label, text, words, tmp_path):
    refused(written(tmp_path, TABLE if text is None else text), label, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) in (["mine.csv"], ["mine.csv", "mine.csv.geometries.npz"])


def test_a_table_of_files(tmp_path):
    """Molecules and crystals; cells are kept, and the bytes of the files belong to the identity of the data."""
    (tmp_path / "cells").mkdir()
    salt, gas = ase.build.bulk("NaCl", "rocksalt", 5.6), ase.build.molecule("H2O")
    salt.write(tmp_path / "cells" / "salt.cif")
    salt.write(tmp_path / "cells" / "POSCAR", format="vasp")
    gas.write(tmp_path / "water.xyz", format="xyz")
    path = written(tmp_path, "band gap,file\n5.0,cells/salt.cif\n,none.xyz\n4.9,cells/POSCAR\n7,water.xyz\n")
    table = open_graphs(path, 3.0, labels=["band gap"]).table
    assert table.names == ("cells/salt.cif", "cells/POSCAR", "water.xyz") and table.ids.tolist() == [0, 2, 3]
    assert table.of_structures["band gap"].tolist() == [5.0, 4.9, 7.0] and table.n_atoms.tolist() == [2, 2, 3]
    np.testing.assert_allclose(np.abs(np.linalg.det(table.cells)), [5.6**3 / 4] * 2 + [0], atol=1e-4)
    gas.rattle(0.01)
    gas.write(tmp_path / "water.xyz", format="xyz")
    assert read_table(path, labels=["band gap"]).source != table.source
    ase.io.write(tmp_path / "water.xyz", [gas, gas], format="xyz")
    refused(path, "band gap", "water.xyz: expected one structure, found 2")


def test_other_formats(tmp_path):
    """Extended xyz, npz, a database and packed graphs; structures without the label are left out."""
    frames = [ase.build.molecule(name) for name in ("H2O", "CH4", "NH3")]
    for frame, value in zip(frames, (1.5, None, -2.0), strict=True):
        frame.info.update({} if value is None else {"tm": value}, energy=0.0)
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    with connect(tmp_path / "a.db") as database:
        for frame in frames:
            found = {key: frame.info[key] for key in ("tm",) if key in frame.info}
            database.write(ase.Atoms(frame.numbers, frame.positions), found, data={"vector": [1.0, 2.0], **found})
    np.savez(
        tmp_path / "a.npz", n_atoms=[3, 5, 4], Z=np.concatenate([frame.numbers for frame in frames]),
        R=np.concatenate([frame.positions for frame in frames]), tm=[1.5, np.nan, -2.0], text=["a", "b", "c"],
    )  # fmt: skip
    for name in ("a.xyz", "a.db", "a.npz"):
        packed = open_graphs(tmp_path / name, 3.0, labels=["tm"])
        assert packed.table.of_structures["tm"].tolist() == [1.5, -2.0], name
        assert packed.table.remarks == ("1 of 3 structures have no tm and are left out",)
        refused(tmp_path / name, "TM", "did you mean 'tm'?")
        save(packed, tmp_path / f"{name} packed")
        assert open_graphs(tmp_path / f"{name} packed", 3.0, labels=["tm"]).table.of_structures["tm"].tolist() == [
            1.5,
            -2,
        ]
    refused(tmp_path / "a.npz", "text", "expected text with shape (3,)")
    refused(tmp_path / "a.db", "vector", "expected numbers")
    both = open_two_files(str(tmp_path / "a.xyz"), str(tmp_path / "a.xyz"), 3.0, labels=["tm"]).table
    assert len(both) == 4 and len(both.remarks) == 2
    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert connection.execute("SELECT count(*) FROM systems").fetchone() == (3,)


def test_frames_with_several_units_are_refused(tmp_path):
    frames = [ase.build.molecule("H2O") for _ in range(2)]
    for frame, unit in zip(frames, ("eV", "kcal/mol"), strict=True):
        frame.info |= {"tm": 1.0, "unit": unit}
    ase.io.write(tmp_path / "a.xyz", frames)
    refused(tmp_path / "a.xyz", "tm", "expected one unit in all frames", "eV in the frame of line 1, kcal/mol in")
    assert len(open_graphs(tmp_path / "a.xyz", 3.0)) == 2  # to predict


def test_the_target_of_a_property():
    own = target_of(" logP ", "log(mol/L)", own=True)
    assert (own.name, own.unit, own.is_own) == ("logP", "log(mol/L)", True) and target_of("x", "", True).unit == NO_UNIT
    assert target_of("GAP", "eV", own=True) is TARGETS["gap"]
    task = resolve_task("logP", unit="kJ", own=True)
    assert (task.readout, task.standardisation, task.to_dict()["unit"]) == ("mean", "per_molecule", "kJ")
    assert resolve_task("logP", "sum", own=True).standardisation == "per_element"
    assert resolve_task("logP", "attention", own=True).standardisation == "per_molecule"
    for name, unit, own, words in (
        ("gap", "Hartree", True, "built-in one in eV"), ("logP", "", False, "unknown target 'logP'"),
        ("a\nb", "", True, "printable"), ("x", "u" * 41, True, "at most 40"), ("", "", True, "expected a target"),
        ("charge", "", True, "data.keys"), ("forces", "", True, "with the target energy"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            target_of(name, unit, own)
    with pytest.raises(DataError, match="dipole"):
        resolve_task("logP", "dipole", own=True)


def test_a_readout_that_does_not_fit_is_suspected():
    own, n_atoms = target_of("x", own=True), np.arange(5, 25)
    counts = np.eye(119, dtype=int)[[6]] * n_atoms[:, None]
    rough = np.random.default_rng(0).normal(size=20)
    for readout, labels, words in (
        ("mean", 3.0 * n_atoms + rough, "extensive"), ("attention", 3.0 * n_atoms + rough, "extensive"),
        ("sum", rough, "intensive"),
    ):  # fmt: skip
        (line,) = size_suspicions(own, readout, labels, counts)
        assert words in line and "correlation" in line
        (line,) = size_suspicions(own, readout, labels, counts, "target.readouts=x=")
        assert line.endswith(f"try --set target.readouts=x={'mean' if readout == 'sum' else 'sum'}")
        assert not size_suspicions(own, {"mean": "sum", "attention": "sum", "sum": "mean"}[readout], labels, counts)
        assert not size_suspicions(TARGETS["gap"], readout, labels, counts)
        assert not size_suspicions(own, readout, labels, counts[[4] * 20])


def test_energies_are_extensive_though_they_do_not_follow_the_number_of_atoms():
    """Total energies depend on which atoms there are; of few structures with a sum nothing is said."""
    own, random = target_of("x", own=True), np.random.default_rng(0)
    atoms, counts = random.integers((2, 3, 0), (20, 9, 5), (60, 3)), np.zeros((60, 119), int)
    counts[:, [1, 6, 8]] = atoms
    energies = atoms @ [-16.0, -1036.0, -2044.0] + random.normal(size=60)
    assert abs(np.corrcoef(energies, counts.sum(1))[0, 1]) < 0.6
    (line,) = size_suspicions(own, "mean", energies, counts)
    assert "extensive" in line and not size_suspicions(own, "sum", energies, counts)
    assert not size_suspicions(own, "mean", random.normal(size=60), counts)
    assert not size_suspicions(own, "sum", random.normal(size=20), counts[:20])


def test_a_constant_property_is_refused(tmp_path):
    path = written(tmp_path, "smiles,x\n" + "".join(f"{'C' * n},3\n" for n in range(1, 11)))
    packed = open_graphs(path, 3.0, labels=["x"])
    with pytest.raises(DataError, match="x: expected labels that vary, found 3 for all 8"):
        make_dataset(packed, make_split("random", packed.table), resolve_task("x", own=True))
