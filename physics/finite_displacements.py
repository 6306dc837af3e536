"""Force constants from forces in displaced supercells, by phonopy's displacements and its traditional solver.

Phi_ij = -dF_j / dr_i for the atoms i that symmetry does not relate; the others follow by the space group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from data_tools.crystals import Crystal
from physics.phonopy_bridge import cells_of

DISTANCE = 0.01  # Angstrom; that of the DFT calculations of phonondb
SYMMETRISATIONS = 1  # how often sum rule and exchange symmetry are enforced; phonopy's `level`


class Displaced(NamedTuple):
    """Supercells with one displaced atom each.

    Attributes:
        atoms: (D,) int64 the displaced atom.
        vectors: (D, 3) its displacement, Angstrom.
        positions: (D, n, 3) of all atoms, Angstrom.
    """

    atoms: np.ndarray
    vectors: np.ndarray
    positions: np.ndarray


def displaced_cells(crystal: Crystal, distance: float = DISTANCE) -> Displaced:
    """The fewest displacements from which all force constants of a crystal follow; its ``blocks`` are not read.

    Args:
        crystal: supercell and primitive cell.
        distance: of the displaced atom, Angstrom.

    Raises:
        DataError: phonopy cannot tell the symmetry of the atoms, or the cells do not fit.
    """
    phonon = cells_of(crystal, symmetry=True)
    phonon.generate_displacements(distance=distance)
    dataset: Any = phonon.dataset
    found = dataset["first_atoms"]
    atoms = np.array([one["number"] for one in found], np.int64)
    vectors = np.array([one["displacement"] for one in found], np.float64)
    positions = np.tile(np.asarray(crystal.supercell.positions, np.float64), (len(atoms), 1, 1))
    positions[np.arange(len(atoms)), atoms] += vectors
    return Displaced(atoms, vectors, positions)


def blocks_of_forces(
    crystal: Crystal, displaced: Displaced, forces: np.ndarray, symmetrisations: int = SYMMETRISATIONS
) -> np.ndarray:
    """Compact force constants (p, n, 3, 3) in eV/Angstrom^2.

    Args:
        crystal: whose ``p2s`` says which rows are returned; its ``blocks`` are not read.
        displaced: what ``displaced_cells`` returned for it.
        forces: (D, n, 3) in eV/Angstrom.
        symmetrisations: how often sum rule and exchange symmetry are enforced; 0: as the forces have them.
    """
    phonon = cells_of(crystal, symmetry=True)
    phonon.dataset = {
        "natom": crystal.n_atoms,
        "first_atoms": [
            {"number": int(atom), "displacement": vector.tolist(), "forces": np.array(force, np.float64)}
            for atom, vector, force in zip(displaced.atoms, displaced.vectors, forces, strict=True)
        ],
    }
    phonon.produce_force_constants(fc_calculator="traditional", calculate_full_force_constants=True)
    if symmetrisations:
        phonon.symmetrize_force_constants(level=symmetrisations)
    found: Any = phonon.force_constants
    return np.ascontiguousarray(found[crystal.p2s])
