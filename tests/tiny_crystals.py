"""Small crystals with force constants: alloys of two metals in the structure of CsCl, by ASE's EMT."""

from __future__ import annotations

import itertools
from pathlib import Path

import ase
import numpy as np
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT

from data_tools.crystals import Crystal, table_of_crystals
from data_tools.graph import Structure, StructureTable

METALS = {"Al": 4.05, "Ni": 3.5, "Cu": 3.61, "Pd": 3.88, "Ag": 4.06, "Pt": 3.92, "Au": 4.06}  # constants of fcc
STEP = 0.01  # Angstrom


def supercell_of(one: str, other: str) -> ase.Atoms:
    """Eight primitive cells of an alloy, 16 atoms; nothing acts on an atom."""
    constant = (METALS[one] ** 3 / 4 + METALS[other] ** 3 / 4) ** (1 / 3)
    primitive = bulk(one + other, "cesiumchloride", a=constant)
    return make_supercell(primitive, 2 * np.eye(3))


def rows_of(atoms: ase.Atoms, chosen: list[int]) -> np.ndarray:
    """(K, n, 3, 3) second derivatives of some atoms by central differences of forces, eV/Angstrom^2."""
    blocks = np.zeros((len(chosen), len(atoms), 3, 3))
    for (place, atom), axis in itertools.product(enumerate(chosen), range(3)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * STEP
            moved.calc = EMT()
            forces.append(moved.get_forces())
        blocks[place, :, axis] = (forces[1] - forces[0]) / (2 * STEP)
    return blocks


def crystal(one: str, other: str) -> Crystal:
    """An alloy, its two primitive atoms and their rows."""
    atoms = supercell_of(one, other)
    p2s = [int(np.flatnonzero(atoms.symbols == symbol)[0]) for symbol in (one, other)]
    return Crystal(
        supercell=Structure(atoms.numbers.astype(np.int32), atoms.positions, atoms.cell.array, f"{one}{other}"),
        primitive_cell=atoms.cell.array / 2,
        p2s=np.array(p2s),
        s2p=np.where(atoms.symbols == one, *p2s),
        masses=atoms.get_masses(),
        blocks=rows_of(atoms, p2s),
    )


def alloys(count: int = 21) -> StructureTable:
    """The first so many of the 21 alloys."""
    pairs = itertools.islice(itertools.combinations(METALS, 2), count)
    return table_of_crystals(Path("made"), [crystal(*pair) for pair in pairs], "EMT")
