"""Energies and forces that one wrong factor fits both: no comparison of the two shows it, their sizes do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from data_tools.formats.md17 import SAMPLE_TEST, SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.graph import StructureTable
from data_tools.labels.bond_stiffness import stiffness
from data_tools.labels.plausibility import MULTIPLIED, unit_suspicions
from data_tools.tables import select_rows
from data_tools.units import BOHR, HARTREE, KCAL_PER_MOL

TWICE = next(iter(MULTIPLIED))
PER_EV = 1 / KCAL_PER_MOL  # kcal/mol per eV, 23.06


@pytest.fixture(scope="module")
def ethanol() -> StructureTable:
    return read_table(SAMPLE_TRAIN)


def rmd17(path: Path, energy: float, forces: float, shift: float = 0.0, layout: str = "rmd17") -> StructureTable:
    """The shipped frames in another unit: factors that take kcal/mol and kcal/mol/Angstrom there."""
    with np.load(SAMPLE_TEST) as file:
        arrays = dict(file)
    arrays["energies"], arrays["forces"] = (arrays["energies"] - shift) * energy, arrays["forces"] * forces
    names = {"nuclear_charges": "z", "coords": "R", "energies": "E", "forces": "F"} if layout == "md17" else None
    np.savez(path, **{names[name]: arrays[name] for name in names} if names else arrays)
    return read_table(path)


def extended(path: Path, frames: int, factor: float) -> StructureTable:
    """The shipped frames as extended xyz; ``factor`` times eV and eV/Angstrom."""
    made = []
    with np.load(SAMPLE_TEST) as file:
        for row in range(frames):
            atoms = ase.Atoms(file["nuclear_charges"], file["coords"][row])
            labels = {name: file[key][row] * KCAL_PER_MOL * factor for name, key in
                      (("energy", "energies"), ("forces", "forces"))}  # fmt: skip
            atoms.calc = SinglePointCalculator(atoms, **labels)
            made.append(atoms)
    ase.io.write(path, made, format="extxyz")
    return read_table(path)


@pytest.mark.parametrize("layout", ["rmd17", "md17"])
def test_an_npz_already_in_ev(tmp_path, layout):
    table = rmd17(tmp_path / "a.npz", KCAL_PER_MOL, KCAL_PER_MOL, layout=layout)
    energy, forces = unit_suspicions(table)
    assert energy.startswith("energy: ") and "eV where kcal/mol is expected (then multiply by 23.0605)" in energy
    assert forces.startswith("forces: along bonds to hydrogen") and "(then multiply by 23.0605)" in forces
    (line,) = unit_suspicions(select_rows(table, np.arange(3)))  # a few frames: the energies are enough
    assert line == energy.replace(energy.split(" eV per atom")[0], line.split(" eV per atom")[0])


def test_relative_energies_in_ev_of_an_npz(tmp_path):
    """The sizes of relative energies say nothing, and they fit the forces; the forces alone are too small."""
    (line,) = unit_suspicions(rmd17(tmp_path / "a.npz", KCAL_PER_MOL, KCAL_PER_MOL, shift=-97_000))
    assert line.startswith("forces: along bonds to hydrogen") and "eV/Angstrom where kcal/mol/Angstrom" in line


def test_an_npz_in_atomic_units(tmp_path):
    hartree = KCAL_PER_MOL / HARTREE
    energy, forces = unit_suspicions(rmd17(tmp_path / "a.npz", hartree, hartree * BOHR))
    assert energy.startswith("energy: ") and "Hartree where kcal/mol is expected (then multiply by 627.509)" in energy
    assert "forces per Bohr where per Angstrom is expected" in forces


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_xyz_multiplied_where_it_should_be_divided(tmp_path, frames):
    (line,) = unit_suspicions(extended(tmp_path / "a.xyz", frames, PER_EV**2))
    assert line.startswith("energy: ") and "likewise forces;" in line
    assert f"{TWICE} (then multiply by {KCAL_PER_MOL**2:.6g})" in line


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_xyz_in_kcal_per_mol(tmp_path, frames):
    energy, forces = unit_suspicions(extended(tmp_path / "a.xyz", frames, PER_EV))
    assert "kcal/mol where eV is expected (then multiply by 0.0433641)" in energy
    assert "kcal/mol/Angstrom (then multiply by 0.0433641)" in forces
    assert unit_suspicions(extended(tmp_path / "b.xyz", frames, 1.0)) == []


def crystals(energy: float, force: float) -> list[ase.Atoms]:
    """Rattled crystals with energies and forces of the sizes that VASP gives, in eV; ``energy`` per atom."""
    frames = []
    for seed in range(4):
        atoms = ase.build.bulk("NaCl", "rocksalt", 5.64, cubic=True)
        atoms.rattle(0.02, seed=seed)
        forces = np.random.default_rng(seed).normal(0, force, (len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy * len(atoms), forces=forces)
        frames.append(atoms)
    return frames


def test_crystals(tmp_path):
    """Pseudopotentials leave nothing to compare their energies with; forces beyond 50 eV/Angstrom are impossible."""

    def suspicions(factor: float, energy: float = -3.4) -> list[str]:
        ase.io.write(tmp_path / "a.xyz", crystals(energy * factor, 0.4 * factor), format="extxyz")
        return unit_suspicions(read_table(tmp_path / "a.xyz"))

    assert suspicions(1.0) == [] and suspicions(1.0, -8800.0) == []  # pseudopotentials, all electrons
    (line,) = suspicions(PER_EV**2)
    assert line.startswith("forces: typically ") and "expected below 4" in line
    ase.io.write(tmp_path / "a.xyz", crystals(-8800 * PER_EV, 0.001), format="extxyz")
    (line,) = unit_suspicions(read_table(tmp_path / "a.xyz"))
    assert line.startswith("energy: ") and "of all electrons of such atoms; no unit explains this" in line


@pytest.mark.parametrize("rows", [1, 5, 19, 20, 60, 1000])
def test_right_frames_of_any_level_of_theory(ethanol, rows):
    """Totals, relative energies, those of pseudopotentials and of atomisation, and forces alone."""
    table = select_rows(ethanol, np.arange(rows))
    energy = table.of_structures["energy"]
    shifted = energy - ethanol.of_structures["energy"].mean()
    for values in (energy, shifted, shifted - 33.0, shifted - 46.0, shifted - 750.0):
        assert unit_suspicions(dataclasses.replace(table, of_structures={"energy": values})) == []
    assert unit_suspicions(dataclasses.replace(table, of_structures={})) == []


def test_stiffness_of_bonds_to_hydrogen(ethanol):
    whole = stiffness(ethanol, "forces")
    assert whole is not None and 28 < whole < 34  # eV/Angstrom^2; C-H of force fields: 29 to 31
    for seed in range(20):
        some = np.random.default_rng(seed).choice(len(ethanol), 20, replace=False)
        found = stiffness(select_rows(ethanol, some), "forces")
        assert found is not None and 0.8 * whole < found < 1.2 * whole
    assert stiffness(select_rows(ethanol, np.arange(19)), "forces") is None
    assert stiffness(select_rows(ethanol, np.zeros(50, int)), "forces") is None  # one frame many times
    others = np.roll(ethanol.of_atoms["forces"], 9 * 7, axis=0)
    assert stiffness(dataclasses.replace(ethanol, of_atoms={"forces": others}), "forces") is None


def test_isotopes_are_said(tmp_path):
    (tmp_path / "a.xyz").write_text("3\nheavy water\nO 0 0 0.1\nD 0 0.76 -0.48\nD 0 -0.76 -0.48\n")
    (line,) = unit_suspicions(read_table(tmp_path / "a.xyz"))
    assert "(D, T) in the file is read as hydrogen" in line
