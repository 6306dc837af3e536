"""Cells of aluminium and others as files, calculators for them, and what phonopy itself makes of aluminium."""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

EMT_CLASS = "ase.calculators.emt:EMT"


class ForcesOnly(Calculator):
    """Springs to nothing: forces of 0, and neither energy nor stress."""

    implemented_properties = ("forces",)

    def calculate(self, atoms=None, properties=("forces",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"forces": np.zeros((len(atoms), 3))}


class NoNumbers(ForcesOnly):
    def calculate(self, atoms=None, properties=("forces",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"][0] = np.nan


class Springs(LennardJones):
    """A Lennard-Jones potential for rock salt of 4.2 Angstrom."""

    def __init__(self):
        super().__init__(sigma=1.9, epsilon=0.5, rc=6.0)


def write_cells(folder: Path) -> Path:
    """Good and bad cells; returns the folder."""
    aluminium = bulk("Al", cubic=True)
    aluminium.write(folder / "POSCAR", format="vasp")
    aluminium.write(folder / "Al.cif")
    aluminium.write(folder / "Al.xyz", format="extxyz")
    bulk("Cu", "bcc", a=2.9, cubic=True).write(folder / "bcc.vasp", format="vasp")
    bulk("NiAl", "cesiumchloride", a=2.9).write(folder / "NiAl.vasp", format="vasp")
    bulk("Si").write(folder / "Si.vasp", format="vasp")
    bulk("C").write(folder / "C.vasp", format="vasp")
    bulk("MgO", "rocksalt", a=4.2).write(folder / "MgO.vasp", format="vasp")
    left = aluminium.copy()
    left.set_cell(aluminium.cell[[1, 0, 2]], scale_atoms=False)
    left.write(folder / "left.xyz", format="extxyz")
    Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.7]]).write(folder / "molecule.xyz", format="extxyz")
    twice = aluminium + Atoms("Al", positions=[[0.01, 0, 0]])
    twice.write(folder / "twice.xyz", format="extxyz")
    (folder / "two.xyz").write_text(2 * (folder / "Al.xyz").read_text())
    (folder / "POSCAR_cut").write_text((folder / "POSCAR").read_text()[:60])
    return folder


def words(files: Path, output: Path, *more: str, structure: str = "POSCAR", source: str = "", times: str = "2 2 2"):
    """A command line; ``source`` replaces the calculator."""
    chosen = source.split() if source else ["--calculator", EMT_CLASS]
    supercell = ["--supercell", *times.split()] if times else []
    return ["--structure", str(files / structure), *chosen, *supercell, "--output", str(output), *more]


def record(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@functools.cache
def by_phonopy() -> Phonopy:
    """Aluminium as phonopy does it."""
    cell = bulk("Al", cubic=True)
    atoms = PhonopyAtoms(numbers=cell.numbers, positions=cell.positions, cell=cell.cell[:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Phonopy(atoms, 2 * np.eye(3, dtype=int), primitive_matrix="auto")
    found.generate_displacements(distance=0.01)
    forces = []
    for one in found.supercells_with_displacements:
        displaced = Atoms(numbers=one.numbers, positions=one.positions, cell=one.cell, pbc=True, calculator=EMT())
        forces.append(displaced.get_forces())
    found.forces = forces
    found.produce_force_constants()
    return found
