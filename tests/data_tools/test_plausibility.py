"""Suspicions about units: none for what is right, and the right one for every swapped unit."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.collections import g2
from published_files import PACKED
from tiny_runs import small_run, write_molecules

import eval as evaluation
from data_tools.formats.readers import read_table
from data_tools.graph import Structure, StructureTable
from data_tools.labels.plausibility import ENERGIES, FORCE_LABELS, LENGTHS, unit_suspicions
from data_tools.tables import select_rows, table_of_structures
from data_tools.units import BOHR, HARTREE, KCAL_PER_MOL, QM9_UNITS
from scripts import prepare_qm9

TOTALS = ("U0", "U", "H", "G")


@pytest.fixture(scope="module")
def qm9() -> StructureTable:
    return read_table(PACKED)


def table_of(*frames: ase.Atoms) -> StructureTable:
    structures = [
        Structure(one.numbers.astype(np.int32), one.positions, np.array(one.cell) if one.pbc.all() else None)
        for one in frames
    ]
    return table_of_structures(Path("made"), structures, "made")


def scaled(table: StructureTable, factor: float) -> StructureTable:
    cells = None if table.cells is None else table.cells * factor
    return dataclasses.replace(table, positions=table.positions * factor, cells=cells)


def labelled(table: StructureTable, **labels: np.ndarray) -> StructureTable:
    return dataclasses.replace(
        table,
        of_structures={name: values for name, values in labels.items() if name not in FORCE_LABELS},
        of_atoms={name: values for name, values in labels.items() if name in FORCE_LABELS},
    )


def crystals() -> list[ase.Atoms]:
    return [
        ase.build.bulk("Cu"), ase.build.bulk("Si"), ase.build.bulk("Na", cubic=True), ase.build.bulk("Cs"),
        ase.build.bulk("NaCl", "rocksalt", 5.64), ase.build.bulk("CsCl", "cesiumchloride", 4.12),
        ase.build.bulk("MgO", "rocksalt", 4.21, cubic=True), ase.build.fcc111("Pt", (2, 2, 3), vacuum=8, periodic=True),
    ]  # fmt: skip


def skewed(atoms: ase.Atoms) -> ase.Atoms:
    """The same crystal in a cell whose shortest lattice vectors are sums of many of its own."""
    made = atoms.copy()
    made.set_cell(np.array([[1, 0, 0], [9, 1, 0], [7, -5, 1]]) @ atoms.cell.array)
    return made


def right_tables() -> list[tuple[str, StructureTable]]:
    random = np.random.default_rng(0)
    made = [(f"molecule {name}", table_of(ase.build.molecule(name))) for name in g2.names]
    made += [(f"crystal {one.symbols}", table_of(one)) for one in crystals()]
    made += [("all", table_of(*crystals(), ase.build.molecule("H2O")))]
    made += [("skewed", table_of(skewed(ase.build.bulk("Cu", cubic=True))))]
    made += [(f"{one} in a box of {size}", table_of(ase.Atoms(one, cell=[size] * 3, pbc=True)))
             for one in ("H", "Fe", "Cs", "Xe") for size in (7, 8, 9, 12)]  # fmt: skip
    made += [(f"{gas} crystal", table_of(ase.build.bulk(gas))) for gas in ("Ne", "Ar", "Kr", "Xe")]
    made += [("argon cluster", table_of(ase.Atoms("Ar13", random.uniform(0, 12, (13, 3)))))]
    made += [("ions", table_of(ase.Atoms("Na"), ase.Atoms("Cl"), ase.Atoms("Ca")))]
    for pair in ("H2", "LiF", "Zn2"):
        distances = np.linspace(0.6, 6, 40)
        made += [(f"{pair} apart", table_of(*(ase.Atoms(pair, [(0, 0, 0), (0, 0, r)]) for r in distances)))]
    shaken = [ase.build.molecule("CH3CH2OH") for _ in range(50)]
    for one in shaken:
        one.positions += random.normal(0, 0.12, one.positions.shape)
    return [*made, ("shaken", table_of(*shaken))]


@pytest.mark.parametrize(("name", "table"), [pytest.param(*case, id=case[0]) for case in right_tables()])
def test_right_structures_raise_no_suspicion(name, table):
    assert unit_suspicions(table) == []


def test_right_qm9_raises_no_suspicion(qm9):
    assert unit_suspicions(qm9) == []
    for row in range(0, len(qm9), 250):  # each alone: nothing of a table helps
        assert unit_suspicions(select_rows(qm9, np.array([row]))) == []


@pytest.mark.parametrize("unit", LENGTHS)
def test_swapped_lengths(unit, qm9):
    swapped = 1 / LENGTHS[unit]
    for table in (qm9, select_rows(qm9, np.array([5])), table_of(ase.build.molecule("H2O"))):
        (line,) = unit_suspicions(labelled(scaled(table, swapped)))
        assert line.startswith("positions: ") and f"this looks like {unit} " in line
        assert f"multiply by {LENGTHS[unit]:.6g})" in line


@pytest.mark.parametrize("atoms", crystals(), ids=lambda atoms: str(atoms.symbols))
def test_crystals_in_bohr(atoms):
    """Of the alkali metals the small cells could hold free atoms as well; larger cells of them are detected too."""
    small = [] if "Na2" in str(atoms.symbols) or "Cs" == str(atoms.symbols) else [atoms, skewed(atoms)]
    for one in (*small, atoms.repeat(2)):
        (line,) = unit_suspicions(scaled(table_of(one), 1 / BOHR))
        assert "this looks like Bohr (then multiply by 0.529177)" in line


@pytest.mark.parametrize("unit", ENERGIES)
@pytest.mark.parametrize("name", [*TOTALS, "energy", "gap", "homo", "zpve"])
def test_swapped_energies(name, unit, qm9):
    right = qm9.of_structures["U0" if name == "energy" else name]
    (line,) = unit_suspicions(labelled(qm9, **{name: right / ENERGIES[unit]}))
    assert line.startswith(f"{name}: ") and f"{unit} (then multiply by {ENERGIES[unit]:.6g})" in line
    if name in TOTALS:  # they decide alone
        assert "or" not in line.split("this looks like")[1].split()


def test_one_line_for_a_file_in_one_wrong_unit(qm9):
    """The gap alone cannot tell eV for Hartree from kcal/mol for eV; with the total energies it can."""
    energies = {name: values * HARTREE for name, values in qm9.of_structures.items() if QM9_UNITS[name] == "eV"}
    (line,) = unit_suspicions(labelled(qm9, **energies))
    assert "likewise U, H, G, gap, lumo - homo, homo, zpve" in line
    assert line.count("where") == 1 and "eV where Hartree is expected (then multiply by 0.0367493)" in line
    (line,) = unit_suspicions(labelled(qm9, gap=energies["gap"]))
    assert "kcal/mol where eV is expected" in line and "or eV where Hartree is expected" in line


def test_undecidable_energies_raise_no_suspicion(qm9):
    """Pseudopotentials, atomisation energies and one orbital alone fit no other unit."""
    atomisation = np.array([-4.6 * count for count in qm9.n_atoms])
    for energies in (
        atomisation,
        qm9.of_structures["U0"] * 0.2,
        qm9.of_structures["U0"] - qm9.of_structures["U0"].mean(),
    ):
        assert unit_suspicions(labelled(qm9, energy=energies)) == []
    assert unit_suspicions(labelled(qm9, lumo=qm9.of_structures["lumo"] / HARTREE)) == []
    assert unit_suspicions(labelled(select_rows(qm9, np.array([3])), homo=np.array([-0.3]))) == []  # an anion
    missing = np.full(len(qm9), np.nan)
    assert unit_suspicions(labelled(qm9, U0=missing, gap=missing, energy=np.ones((len(qm9), 2)))) == []


def test_forces(qm9):
    """Of molecules near 500 K; those near equilibrium are as small in eV/Angstrom as the others in Hartree/Bohr."""
    random = np.random.default_rng(0)
    forces = random.normal(0, 1.0, qm9.positions.shape)
    assert unit_suspicions(labelled(qm9, forces=forces)) == []
    assert unit_suspicions(labelled(qm9, forces=forces * BOHR / HARTREE)) == []
    (line,) = unit_suspicions(labelled(qm9, forces=forces / KCAL_PER_MOL))
    assert line.startswith("forces: ") and "kcal/mol/Angstrom (then multiply by 0.0433641)" in line


def test_a_large_table_costs_little(qm9):
    large = select_rows(qm9, np.tile(np.arange(len(qm9)), 6))
    assert len(large) > 130_000
    unit_suspicions(qm9)  # the first call imports
    started = time.process_time()
    unit_suspicions(large)
    assert time.process_time() - started < 1.0  # measured: 0.04 s


def test_programs_warn_and_go_on(tmp_path, capsys, same_mode):
    molecules = write_molecules(tmp_path / "bohr.npz", range(0, 11000, 170))
    with np.load(molecules) as file:
        arrays = dict(file)
    np.savez(molecules, **arrays | {"R": arrays["R"] / BOHR})
    assert prepare_qm9.main(["--source", str(molecules), "--output", str(tmp_path / "packed")]) == 0
    assert capsys.readouterr().err.count("warning: positions: ") == 1
    run = small_run(molecules, tmp_path / "run")
    assert (run / "train.log").read_text().count("warning: positions: ") == 1
    assert evaluation.main(["--ckpt", str(run), "--data", str(molecules)]) == 0
    capsys.readouterr()
    ase.io.write(tmp_path / "one.xyz", ase.Atoms("OH2", ase.build.molecule("H2O").positions / BOHR), format="xyz")
    assert evaluation.main(["--ckpt", str(run), "--input", str(tmp_path / "one.xyz")]) == 0
    out, err = capsys.readouterr()
    assert "this looks like Bohr" in err and "warning" not in out and out.startswith("name,gap")
