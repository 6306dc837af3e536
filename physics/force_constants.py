"""Force constants: full and compact, what breaks their symmetries, and the nearest ones that do not.

Letters: n atoms of the supercell, p of its primitive cell.  Compact blocks (p, n, 3, 3) are the rows of the full matrix
(n, n, 3, 3) that belong to the atoms of ``p2s``; all other rows follow by lattice translations.  All in eV/Angstrom^2.

Nothing is projected unless it is asked for.  Every projection gives a new crystal and is orthogonal: of all force
constants with the symmetry it gives those nearest to the input, by the sum of squares over all entries.  The three
projections commute, so ``projected`` has all three symmetries to rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.lattice_translations import LatticeTranslations
from physics.space_group import space_group_of

KEPT = 1e-6  # in lattice vectors of the supercell: a rotation that maps them to whole numbers


def full_of(crystal: Crystal) -> np.ndarray:
    """(n, n, 3, 3) the blocks of all pairs, by lattice translations.

    Raises:
        DataError: the supercell is no repetition of the primitive cell.
    """
    translations, atoms = LatticeTranslations(crystal), np.arange(crystal.n_atoms)
    return crystal.blocks[translations.of_primitive[:, None], translations.back(atoms[:, None], atoms)]


def compact_of(full: np.ndarray, p2s: np.ndarray) -> np.ndarray:
    """(p, n, 3, 3) the rows of the atoms that stand for the primitive cell.

    Args:
        full: (n, n, 3, 3).
        p2s: (p,) int.
    """
    if full.ndim != 4 or full.shape[0] != full.shape[1] or full.shape[2:] != (3, 3):
        raise DataError(f"expected full force constants (n, n, 3, 3), got {full.shape}; compact ones need no change")
    return full[p2s]


def sum_rule(blocks: np.ndarray) -> np.ndarray:
    """(p, 3, 3) what the blocks of each atom add up to: 0 where a translation of all atoms costs no energy.

    Args:
        blocks: (p, n, 3, 3) compact, or (n, n, 3, 3) full.
    """
    return blocks.sum(axis=1)


def exchanged(crystal: Crystal) -> np.ndarray:
    """(p, n, 3, 3) the transposed blocks of the exchanged pairs: equal to the blocks of an energy's derivatives.

    Raises:
        DataError: the supercell is no repetition of the primitive cell.
    """
    translations, atoms = LatticeTranslations(crystal), np.arange(crystal.n_atoms)
    others = translations.back(atoms, crystal.p2s[:, None])
    return crystal.blocks[translations.of_primitive, others].swapaxes(-1, -2)


def exchange_asymmetry(crystal: Crystal) -> np.ndarray:
    """(p, n, 3, 3) each block minus the transposed one of the exchanged pair: 0 for second derivatives.

    Raises:
        DataError: the supercell is no repetition of the primitive cell.
    """
    return crystal.blocks - exchanged(crystal)


def exchange_symmetric(crystal: Crystal) -> Crystal:
    """The nearest force constants with exchange symmetry: the mean of each block and its exchanged one."""
    return dataclasses.replace(crystal, blocks=(crystal.blocks + exchanged(crystal)) / 2)


def translation_invariant(crystal: Crystal) -> Crystal:
    """The nearest force constants whose blocks add up to 0 over the second atom, and over the first.

    What is missing is spread over all pairs alike, which changes each block by about 1/n of it.
    """
    kinds, n = LatticeTranslations(crystal).of_primitive, crystal.n_atoms
    rows = crystal.blocks.sum(axis=1)
    columns = np.stack([crystal.blocks[:, kinds == kind].sum(axis=(0, 1)) for kind in range(crystal.n_primitive)])
    mean = rows.sum(axis=0) / (n * crystal.n_primitive)
    blocks = crystal.blocks - rows[:, None] / n - columns[kinds] / n + mean
    return dataclasses.replace(crystal, blocks=blocks)


def symmetrized(crystal: Crystal) -> Crystal:
    """The nearest force constants with the space group of the supercell: the mean over its operations.

    The operations are those that spglib finds for the primitive cell (1e-5 Angstrom) and that leave the lattice of the
    supercell as it is; of a supercell that is longer in one direction there may be fewer than of the crystal.

    Raises:
        DataError: the supercell is no repetition of the primitive cell, or see ``space_group_of``.
    """
    translations, group = LatticeTranslations(crystal), space_group_of(crystal)
    lattice = crystal.primitive_cell
    steps = np.rint(crystal.supercell.cell @ np.linalg.inv(lattice))
    total, count = np.zeros_like(crystal.blocks), 0
    for rotation, moved, offsets in zip(group.rotations, group.permutations, group.offsets, strict=True):
        image = steps @ rotation.T @ np.linalg.inv(steps)
        if np.abs(image - np.rint(image)).max() > KEPT:
            continue
        kinds = translations.of_primitive
        atoms = translations.at(moved[kinds], translations.cells @ rotation.T + offsets[kinds])
        firsts = atoms[crystal.p2s][:, None]
        blocks = crystal.blocks[translations.of_primitive[firsts], translations.back(firsts, atoms)]
        cartesian = lattice.T @ rotation @ np.linalg.inv(lattice.T)
        total += cartesian.T @ blocks @ cartesian
        count += 1
    return dataclasses.replace(crystal, blocks=total / count)


def projected(crystal: Crystal) -> Crystal:
    """The nearest force constants with the space group, exchange symmetry and both sums 0."""
    return translation_invariant(exchange_symmetric(symmetrized(crystal)))
