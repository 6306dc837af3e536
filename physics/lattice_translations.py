"""Atoms of a supercell that lattice translations carry into each other, in whole numbers."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_tools.crystals import Crystal
from data_tools.graph import DataError

TOLERANCE = 0.02  # of a primitive lattice vector: far above the rounding of files, far below a distance of atoms


class LatticeTranslations:
    """Which atom of a supercell lies where a lattice translation carries another one.

    Each atom b is the primitive atom ``of_primitive[b]``, moved by a lattice vector of the primitive cell; lattice
    vectors count modulo those of the supercell.

    Attributes:
        of_primitive: (n,) int64 the primitive atom, 0 to p - 1, of each atom.
        cells: (n, 3) int64 the lattice vector, in those of the primitive cell, from that primitive atom.
        steps: (3, 3) int64 the vectors of the supercell, in those of the primitive cell.
    """

    def __init__(self, crystal: Crystal):
        """Number the lattice vectors of the supercell.

        Raises:
            DataError: the supercell is no repetition of the primitive cell.
        """
        self.of_primitive = primitive_atoms(crystal)
        self.cells, self.steps = _lattice_vectors(crystal)
        steps = self.steps
        size, volume = len(self.cells), abs(round(np.linalg.det(steps)))
        # whole numbers: x inverse(steps) = x adjugate / determinant, and only the remainder of it counts
        self._adjugate = np.rint(np.linalg.inv(steps) * volume).astype(np.int64)
        self._volume = volume
        keys = self._number(self.of_primitive, self.cells)
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]
        primitive = crystal.n_primitive
        if size != primitive * volume or len(np.unique(keys)) != size:
            raise DataError(
                f"{crystal.name}: expected {volume} translations of {primitive} primitive atoms in the supercell, "
                f"found {size} atoms, {len(np.unique(keys))} of them different; check p2s, s2p and the primitive cell"
            )

    def at(self, kinds: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """(...) int64 which atom of the supercell is this primitive atom in this cell.

        Args:
            kinds: (...) int primitive atoms, 0 to p - 1.
            cells: (..., 3) int lattice vectors from them, inside the supercell or not.
        """
        return self._order[np.searchsorted(self._sorted, self._number(kinds, cells))]

    def back(self, atoms: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Where others are when each atom is moved onto its primitive atom.

        Args:
            atoms: (...) int atoms of the supercell; atom a moves by t_a onto p2s[of_primitive[a]].
            others: (...) int atoms, broadcast against ``atoms``.

        Returns:
            (...) int64 the atoms at r_others + t_a.
        """
        cells = self.cells[others] - self.cells[atoms]
        return self.at(np.broadcast_to(self.of_primitive[others], cells.shape[:-1]), cells)

    def _number(self, kinds: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """(...) int64 one number for a primitive atom and a lattice vector."""
        keys = (cells @ self._adjugate) % self._volume
        number = kinds
        for axis in range(3):
            number = number * self._volume + keys[..., axis]
        return number


def primitive_atoms(crystal: Crystal) -> np.ndarray:
    """(n,) int64 the primitive atom, 0 to p - 1, of each atom of the supercell."""
    place = np.full(crystal.n_atoms, -1)
    place[crystal.p2s] = np.arange(crystal.n_primitive)
    return place[crystal.s2p]


def with_first_atoms(crystal: Crystal) -> Crystal:
    """The same crystal where the first atom of all that are translations of each other stands for them.

    This is how phonopy chooses and orders the atoms of a primitive cell.  The order of the supercell stays.

    Raises:
        DataError: the supercell is no repetition of the primitive cell.
    """
    first = np.sort(np.unique(crystal.s2p, return_index=True)[1])
    if np.array_equal(first, crystal.p2s):
        return crystal
    translations = LatticeTranslations(crystal)
    kinds = translations.of_primitive[first]
    blocks = crystal.blocks[kinds[:, None], translations.back(first[:, None], np.arange(crystal.n_atoms))]
    born = None if crystal.born is None else crystal.born[kinds]
    return dataclasses.replace(
        crystal, p2s=first, s2p=first[np.argsort(kinds)][translations.of_primitive], blocks=blocks, born=born
    )


def _lattice_vectors(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) how far each atom is from its primitive atom, and (3, 3) the supercell, in primitive lattice vectors."""
    inverse = np.linalg.inv(crystal.primitive_cell)
    positions = crystal.supercell.positions
    cells = (positions - positions[crystal.s2p]) @ inverse
    steps = crystal.supercell.cell @ inverse
    rounded, lattice = np.rint(cells), np.rint(steps)
    distance = np.abs(cells - rounded).max(axis=1)
    worst = int(distance.argmax())
    if np.abs(steps - lattice).max() > TOLERANCE or not round(np.linalg.det(lattice)):
        raise DataError(
            f"{crystal.name}: expected a supercell of whole primitive cells, found {_text(steps)} of their vectors; "
            "check the primitive cell"
        )
    if distance[worst] > TOLERANCE:
        raise DataError(
            f"{crystal.name}: expected atom {worst} at a lattice vector from atom {crystal.s2p[worst]}, found it "
            f"{_text(cells[worst])} primitive vectors away; the atoms are in another order or s2p is wrong"
        )
    return rounded.astype(np.int64), lattice.astype(np.int64)


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.3g}" for value in values.reshape(-1))
