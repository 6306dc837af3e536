"""Smaller cells of a crystal with force constants: what a supercell knows, in pieces that cost a fraction of it.

The lattice of a supercell S is part of that of the primitive cell Z.  Between the two lie other lattices,

    (1)  S <= L <= Z

and each is the lattice of a cell of its own, mostly not a repetition of the primitive cell along its axes
(Lloyd-Williams and Monserrat, Phys. Rev. B 92, 184301, 2015).  Its force constants are sums over the atoms of the
supercell that L carries into each other,

    (2)  Phi_L(i, J) = sum_(j in J) Phi_S(i, j)

exact for the supercell's, and they are second derivatives of the energy of the small cell.  It knows the supercell's
phonons at the wave vectors that are whole numbers on L: the dynamical matrices there are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce

from data_tools.crystals import Crystal
from data_tools.graph import Structure
from physics.lattice_translations import LatticeTranslations

TRIES = 60  # random lattices for each one that is wanted; most crystals have few
SMALL, LARGE, WHOLE = 24, 56, 64  # the most atoms of the cells that a model is trained on; see ``cells_to_train_on``
LARGE_TRIED = 4


def folded_cells(crystal: Crystal, most_atoms: int, count: int, seed: list[int]) -> list[Crystal]:
    """Different cells between the primitive cell and the supercell, at random.

    Args:
        crystal: the supercell.
        most_atoms: of a cell.
        count: the most cells.
        seed: of the choice.

    Returns:
        Them, without the supercell itself; none where the primitive cell has more atoms already.

    Raises:
        DataError: the supercell is no repetition of the primitive cell.
    """
    translations = LatticeTranslations(crystal)
    lattice = _normal_form(translations.steps)
    most = most_atoms // crystal.n_primitive
    rng = np.random.default_rng(seed)
    found: dict[bytes, np.ndarray] = {}
    for _ in range(TRIES * count):
        if len(found) == count or most < 1:
            break
        basis = lattice
        while round(np.prod(np.diag(basis))) > most:
            basis = _normal_form(np.vstack((basis, rng.choice(translations.cells)[None])))
        if round(np.prod(np.diag(basis))) < crystal.n_atoms // crystal.n_primitive:
            found.setdefault(basis.tobytes(), basis)
    return [_folded(crystal, translations, basis) for basis in found.values()]


def cells_to_train_on(crystal: Crystal, seed: int) -> list[Crystal]:
    """One or two cells that stand for a crystal in training, where many crystals count more than large ones.

    A random cell of at most ``SMALL`` atoms, or the primitive one; and the largest of a few random ones of at most
    ``LARGE`` atoms, or the supercell, if it has at most ``WHOLE``.

    Args:
        crystal: the supercell.
        seed: of the choice, which does not depend on other crystals.

    Raises:
        DataError: as ``folded_cells``.
    """
    key = int.from_bytes(hashlib.sha256(crystal.name.encode()).digest()[:8], "big")
    small = folded_cells(crystal, max(SMALL, crystal.n_primitive), 1, [seed, key, 0])
    least = small[0].n_atoms if small else 0
    larger = [one for one in folded_cells(crystal, LARGE, LARGE_TRIED, [seed, key, 1]) if one.n_atoms > least]
    if larger:
        return [*small, max(larger, key=lambda one: one.n_atoms)]
    return [*small, crystal] if crystal.n_atoms <= WHOLE or not small else small


def _folded(crystal: Crystal, translations: LatticeTranslations, basis: np.ndarray) -> Crystal:
    """Equation (2) for the lattice whose vectors are the rows of ``basis``, in those of the primitive cell."""
    cells = _remainder(translations.cells, basis)
    keys = np.column_stack((translations.of_primitive, cells))
    _, first, members = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    members = members.reshape(-1)
    first[members[crystal.p2s]] = crystal.p2s  # the primitive atoms stand for their classes
    blocks = np.zeros((crystal.n_primitive, len(first), 3, 3))
    np.add.at(blocks.transpose(1, 0, 2, 3), members, crystal.blocks.transpose(1, 0, 2, 3))
    supercell = crystal.supercell
    cell, _ = minkowski_reduce(basis @ crystal.primitive_cell)  # short vectors: a skewed cell has distant images
    return dataclasses.replace(
        crystal,
        supercell=Structure(supercell.numbers[first], supercell.positions[first], np.asarray(cell), supercell.name),
        p2s=members[crystal.p2s],
        s2p=members[crystal.s2p[first]],
        masses=crystal.masses[first],
        blocks=blocks,
    )


def _normal_form(vectors: np.ndarray) -> np.ndarray:
    """The Hermite normal form of a lattice: (k, 3) whole numbers to (3, 3), upper triangular, unique.

    The diagonal is positive, and what stands above a diagonal element is smaller than it and not negative.
    """
    rows = [row for row in np.asarray(vectors, np.int64).copy() if row.any()]
    basis = np.zeros((3, 3), np.int64)
    for axis in range(3):
        while True:
            leading = [row for row in rows if row[axis]]
            if len(leading) <= 1:
                break
            smallest = min(leading, key=lambda row: abs(row[axis]))
            for row in leading:
                if row is not smallest:
                    row[:] = row - (row[axis] // smallest[axis]) * smallest
        pivot = next(row for row in rows if row[axis])
        rows = [row for row in rows if row is not pivot]
        basis[axis] = pivot if pivot[axis] > 0 else -pivot
    for axis in (1, 2):
        for above in range(axis):
            basis[above] -= (basis[above, axis] // basis[axis, axis]) * basis[axis]
    return basis


def _remainder(cells: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """(n, 3) lattice vectors, less those of a lattice in normal form: one for each class."""
    rest = cells.copy()
    for axis in range(3):
        rest -= (rest[:, axis] // basis[axis, axis])[:, None] * basis[axis]
    return rest
