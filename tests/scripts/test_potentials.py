"""scripts/peers/potentials.py with a calculator of ASE: force constants, choice of materials, resuming, mistakes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from data_tools.crystals import Crystal, table_of_crystals
from data_tools.graph import Structure
from scripts.peers import potential_forces, potentials

EMT_NAME = "ase.calculators.emt:EMT"


def metal(symbol: str, name: str) -> Crystal:
    """2 x 2 x 2 cubic cells of a metal whose force constants are those of the EMT potential, row by row."""
    atoms = bulk(symbol, cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    places, rows = atoms.positions.copy(), []
    for axis in range(3):
        forces = []
        for step in (0.01, -0.01):
            atoms.positions = places
            atoms.positions[0, axis] += step
            forces.append(atoms.get_forces())
        rows.append((forces[1] - forces[0]) / 0.02)
    blocks = np.stack(rows, axis=1)[None]  # (1, n, 3, 3)
    primitive = bulk(symbol).cell.array
    size = len(atoms)
    cell = Structure(atoms.numbers.astype(np.int32), places, atoms.cell.array, name)
    return Crystal(cell, primitive, np.zeros(1, np.int64), np.zeros(size, np.int64), atoms.get_masses(), blocks)


@pytest.fixture(scope="module")
def metals():
    return [metal("Cu", "mp-30"), metal("Al", "mp-134"), metal("Ag", "mp-8566")]


@pytest.fixture
def data(metals, tmp_path, monkeypatch):
    """A file that reads as the three metals."""
    file = tmp_path / "crystals.npz"
    file.write_bytes(b"packed")
    table = table_of_crystals(file, metals, "three metals")
    monkeypatch.setattr(potentials, "read_table", lambda path: table)
    return file


def arguments(data: Path, folder: Path, calculator: str = EMT_NAME) -> list[str]:
    words = ["--data", data, "--calculators", calculator, "--output", folder / "out", "--page", folder / "peers.md"]
    return [str(word) for word in (*words, "--every", 2)]


def test_the_potential_that_made_the_reference_has_no_error(data, tmp_path, capfd):
    assert potentials.main(arguments(data, tmp_path)) == 0
    text = capfd.readouterr()
    assert "zero" in text.out and "mean of pair and shell" in text.out and "mp-30: " in text.out
    record = json.loads((tmp_path / "peers.json").read_text())
    assert record["materials"] == ["mp-30", "mp-8566"] and record["training_materials"] == 1
    found = record["errors"][EMT_NAME]
    assert max(found["frobenius"]) < 2e-3 and max(found["frequency_mae"]) < 5e-3
    assert min(record["errors"]["zero"]["frobenius"]) == 1
    assert {"Python", "ase"} <= set(record["potentials"][EMT_NAME]["packages"])
    page = (tmp_path / "peers.md").read_text()
    assert f"| MAE | eV/A^2 | {record['summary']['all materials']['zero']['mae']['mean']:.3f} / " in page
    assert "PBEsol" in page and "one in 2 from the first on" in page


def test_called_again_it_computes_only_what_is_missing(data, tmp_path, capfd):
    assert potentials.main(arguments(data, tmp_path)) == 0
    forces = tmp_path / "out" / EMT_NAME.replace(":", "_")
    first = {path.name: path.stat().st_mtime_ns for path in forces.glob("*.npz")}
    assert set(first) == {"mp-30.npz", "mp-8566.npz"}
    (forces / "mp-30.npz").unlink()
    page = (tmp_path / "peers.json").read_text()
    capfd.readouterr()
    assert potentials.main(arguments(data, tmp_path)) == 0
    assert "1 of 2 materials are there" in capfd.readouterr().out
    assert (forces / "mp-8566.npz").stat().st_mtime_ns == first["mp-8566.npz"]
    errors = [json.loads(text)["errors"] for text in (page, (tmp_path / "peers.json").read_text())]
    assert errors[0] == errors[1]


def test_forces_of_other_cells_are_not_taken(data, metals, tmp_path):
    folder = tmp_path / "displaced"
    potentials.write_displaced(metals[:1], folder)
    before = (folder / "mp-30.npz").read_bytes()
    potentials.write_displaced(metals[:1], folder)
    assert (folder / "mp-30.npz").read_bytes() == before
    target = tmp_path / "mp-30.npz"
    potential_forces.compute(EMT(), folder / "mp-30.npz", target)
    assert potential_forces.belongs_to(target, potential_forces.sha256(folder / "mp-30.npz"))
    cell = metals[0].supercell
    wider = dataclasses.replace(cell, positions=cell.positions * 1.01, cell=cell.cell * 1.01)
    other = dataclasses.replace(metals[0], supercell=wider, primitive_cell=metals[0].primitive_cell * 1.01)
    potentials.write_displaced([other], folder)
    assert not potential_forces.belongs_to(target, potential_forces.sha256(folder / "mp-30.npz"))
    assert not potentials.blocks_of([other], folder, tmp_path)


def test_the_choice_of_materials(data, metals):
    named = [dataclasses.replace(metals[0], supercell=dataclasses.replace(metals[0].supercell, name=f"mp-{number}"))
             for number in (100, 9, 20, 3)]  # fmt: skip
    table = table_of_crystals(data, named, "four")
    assert potentials.choose(table, 32, 2, 100) == ([3, 2], [0, 1])  # sorted by number: 3, 9, 20, 100
    assert potentials.choose(table, 32, 2, 1) == ([3], [0, 1, 2])
    with pytest.raises(potentials.DataError, match="at most 31 atoms, got 0"):
        potentials.choose(table, 31, 2, 100)


@pytest.mark.parametrize(
    "change, words",
    [
        (["--calculators", "mace"], "expected chgnet, 7net-0, 7net-l3i5 or module:Class, got mace"),
        (["--calculators", "no_such_package:Class"], "no_such_package:Class cannot be made"),
        (["--every", "1"], "--every 1: expected at least 2"),
        (["--page", "peers.txt"], "expected the name of a Markdown file"),
        (["--peer_python", "/no/such/python"], "--peer_python /no/such/python: expected an interpreter"),
    ],
)
def test_mistakes_are_lines(change, words, data, tmp_path, capfd):
    assert potentials.main([*arguments(data, tmp_path), *change]) == 2
    text = capfd.readouterr().err
    assert words in text and "Traceback" not in text and not (tmp_path / "peers.md").exists()


def test_a_material_that_the_calculator_refuses_is_left_out_by_name(data, metals, tmp_path, capfd):
    """EMT has no parameters for zinc."""
    zinc = metals[0].supercell
    zinc = dataclasses.replace(zinc, numbers=np.full_like(zinc.numbers, 30), name="mp-79")
    displaced = tmp_path / "displaced"
    potentials.write_displaced([dataclasses.replace(metals[0], supercell=zinc), metals[1]], displaced)
    potentials.run_peer(potentials.sys.executable, EMT_NAME, displaced, tmp_path / "forces")
    assert "skipped mp-79" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "forces").glob("*.npz")] == ["mp-134.npz"]
