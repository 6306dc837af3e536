"""Crystals of springs: force constants that are known, obey every law, and break one where a test asks for it.

A spring of stiffness k along the unit vector e gives Phi_ij = -k e e^T; it is at rest, so that no atom has a force and
the energy does not change with a rotation.  Its supercell is so large that no two images of an atom are within reach.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.formats.cell_files import crystal_of_setting
from data_tools.formats.phonopy_cells import AUTO, Setting
from data_tools.graph import Structure

REACH = 3.2  # Angstrom


def along(vector: np.ndarray) -> np.ndarray:
    """(3, 3) of a spring whose stiffness falls with its length, eV/Angstrom^2."""
    length = np.linalg.norm(vector)
    return (6.0 - length) * np.outer(vector, vector) / length**2


def joined(structure: Structure, times: int, spring: Callable[[np.ndarray], np.ndarray] = along) -> Crystal:
    """A supercell of ``times`` cells along each axis with a spring between all atoms within reach."""
    atoms = PhonopyAtoms(numbers=structure.numbers, cell=structure.cell, positions=structure.positions)
    crystal = crystal_of_setting(Setting("springs", atoms, times * np.eye(3, dtype=int), AUTO))
    cell, positions = crystal.supercell.cell, crystal.supercell.positions
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ cell
    blocks = np.zeros_like(crystal.blocks)
    for row, atom in enumerate(crystal.p2s):
        for other, image in itertools.product(range(crystal.n_atoms), images):
            vector = positions[other] + image - positions[atom]
            if 0 < np.linalg.norm(vector) < REACH:
                blocks[row, other] -= spring(vector)
                blocks[row, atom] += spring(vector)
    return dataclasses.replace(crystal, blocks=blocks)


def skewed() -> Structure:
    """Three elements in a cell without symmetry."""
    cell = np.array([[3.6, 0.1, 0.0], [0.7, 3.9, 0.2], [-0.4, 0.5, 4.1]])
    fractions = np.array([[0.02, 0.05, 0.01], [0.48, 0.57, 0.08], [0.41, 0.03, 0.55]])
    return Structure(np.array([8, 14, 12], np.int32), fractions @ cell, cell, "skewed")


def rock_salt() -> Structure:
    """Two elements in a cubic cell of eight atoms."""
    sites = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    return Structure(np.array([12] * 4 + [8] * 4, np.int32), 2.1 * sites, 4.2 * np.eye(3), "MgO")
