"""What the energy of a potential must obey, of an ASE calculator, and its second derivatives beside differences.

    (1)  E(R r, R cell) = E(r, cell)         rotation, and its forces turn with it
    (2)  E(r + t) = E(r)                     translation
    (3)  E of the atoms in another order     permutation, and its forces change places with them

The structure is displaced at random first: in a symmetric one forces and many faults vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from data_tools.graph import Structure
from physics.checks import STIFFNESS, Check

DISPLACED = 0.05  # Angstrom, standard deviation of the random displacements
STEP = 0.01  # Angstrom, of differences
SEED = 0


def atoms_of(structure: Structure, calculator: Any = None) -> Atoms:
    """A structure as ASE has it, with a calculator where one is given."""
    periodic = structure.cell is not None
    atoms = Atoms(numbers=structure.numbers, positions=structure.positions, cell=structure.cell, pbc=periodic)
    atoms.calc = calculator
    return atoms


def check_energy(structure: Structure, calculator: Any) -> list[Check]:
    """Laws (1) to (3); value: change of the energy an atom in eV, NaN where the calculator gives none for these atoms.

    Relative: norm of the change of the forces over that of the forces.

    Args:
        structure: a crystal or a molecule.
        calculator: an ASE calculator.
    """
    random = np.random.default_rng(SEED)
    n = len(structure.numbers)
    positions = structure.positions + random.normal(0, DISPLACED, (n, 3))
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)  # a proper one
    order, shift = random.permutation(n), random.uniform(-3, 3, 3)
    cell, numbers = structure.cell, structure.numbers
    turned = None if cell is None else cell @ rotation.T
    energy, forces = _evaluate(Structure(numbers, positions, cell), calculator)

    def compare(name: str, changed: Structure, expected: np.ndarray) -> Check:
        other, found = _evaluate(changed, calculator)
        size = float(np.linalg.norm(forces)) or np.nan
        return Check(name, abs(other - energy) / n, "eV/atom", float(np.linalg.norm(found - expected)) / size)

    return [
        compare("rotation", Structure(numbers, positions @ rotation.T, turned), forces @ rotation.T),  # (1)
        compare("translation", Structure(numbers, positions + shift, cell), forces),  # (2)
        compare("permutation", Structure(numbers[order], positions[order], cell), forces[order]),  # (3)
    ]


def difference_blocks(structure: Structure, calculator: Any, rows: Sequence[int], step: float = STEP) -> np.ndarray:
    """(p, n, 3, 3) d^2 E / dr_i dr_j in eV/Angstrom^2 by central differences of forces.

    Args:
        structure: of n atoms.
        calculator: an ASE calculator.
        rows: p atoms, those that are displaced.
        step: how far, in both directions of each axis, Angstrom.
    """
    atoms = atoms_of(structure, calculator)
    blocks = np.empty((len(rows), len(atoms), 3, 3))
    for row, atom in enumerate(rows):
        for axis in range(3):
            found = []
            for sign in (1, -1):
                atoms.positions[:] = structure.positions
                atoms.positions[atom, axis] += sign * step
                found.append(np.array(atoms.get_forces(), np.float64))
            blocks[row, :, axis] = (found[1] - found[0]) / (2 * step)
    return blocks


def check_differences(blocks: np.ndarray, structure: Structure, calculator: Any, rows: Sequence[int]) -> Check:
    """Force constants beside central differences; relative: norm of the deviations over that of the force constants.

    Args:
        blocks: (p, n, 3, 3) eV/Angstrom^2, to be compared.
        structure: of n atoms.
        calculator: an ASE calculator.
        rows: the p atoms that the blocks belong to.
    """
    deviation = blocks - difference_blocks(structure, calculator, rows)
    size = float(np.linalg.norm(blocks)) or np.nan
    return Check("differences", float(np.abs(deviation).max()), STIFFNESS, float(np.linalg.norm(deviation)) / size)


def _evaluate(structure: Structure, calculator: Any) -> tuple[float, np.ndarray]:
    """Energy in eV and forces in eV/Angstrom."""
    atoms = atoms_of(structure, calculator)
    forces = np.array(atoms.get_forces(), np.float64)
    try:
        return float(atoms.get_potential_energy()), forces
    except PropertyNotImplementedError:
        return np.nan, forces
