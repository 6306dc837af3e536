"""Compact force constants of many structures: their sizes, and those of some rows or of several tables together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, ForceConstants
from data_tools.graphs.neighbors import ragged_range

BLOCKS_AT_ONCE = 1_000_000  # of which values are checked: 9 MB of temporaries
#: whose rows each field of ``ForceConstants`` has, and the shape of a row
OWNERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "blocks": ("blocks", (3, 3)),
    "n_primitive": ("structures", ()),
    "p2s": ("primitive_atoms", ()),
    "s2p": ("atoms", ()),
    "masses": ("atoms", ()),
    "primitive_cells": ("structures", (3, 3)),
    "born": ("primitive_atoms", (3, 3)),
    "dielectric": ("structures", (3, 3)),
    "space_groups": ("structures", ()),
    "lowest_frequencies": ("structures", (2,)),
}


def block_counts(constants: ForceConstants, n_atoms: np.ndarray) -> np.ndarray:
    """(M,) int64 blocks of each structure: atoms of its primitive cell times atoms of its supercell.

    Args:
        constants: of M structures.
        n_atoms: (M,) atoms of each supercell.
    """
    return constants.n_primitive * n_atoms


def root_mean_squares(constants: ForceConstants, n_atoms: np.ndarray) -> np.ndarray:
    """(M,) float64 root mean square over the numbers of all blocks of each structure, eV/Angstrom^2; NaN without any.

    Args:
        constants: of M structures.
        n_atoms: (M,) atoms of each supercell.
    """
    counts = block_counts(constants, n_atoms)
    ends, result = np.cumsum(counts), np.full(len(n_atoms), np.nan)
    for row in np.flatnonzero(counts):
        result[row] = np.sqrt(np.mean(np.square(constants.blocks[ends[row] - counts[row] : ends[row]])))
    return result


def check_force_constants(path: Path, constants: ForceConstants, n_atoms: np.ndarray) -> None:
    """Check sizes and values; ``path`` names the file in errors.

    Raises:
        DataError: sizes that do not add up, a primitive atom that is not in its supercell, a map of atoms that leads
            elsewhere, a primitive cell without volume, or a value that is not finite.
    """
    rows, atoms, cells = len(n_atoms), int(n_atoms.sum()), constants.n_primitive
    sizes_known = cells.shape == (rows,) and bool(((cells >= 0) & (cells <= n_atoms)).all())
    counts = {"structures": rows, "atoms": atoms}
    counts["primitive_atoms"] = int(cells.sum()) if sizes_known else 0
    counts["blocks"] = int(block_counts(constants, n_atoms).sum()) if sizes_known else 0
    expected = {name: (counts[owner], *row) for name, (owner, row) in OWNERS.items()}
    wrong = [name for name, shape in expected.items() if getattr(constants, name).shape != shape]
    if not sizes_known or wrong:
        shapes = ", ".join(
            f"{name} {getattr(constants, name).shape} instead of {expected[name]}"
            for name in wrong[:3] or ["n_primitive"]
        )
        raise DataError(
            f"{path}: expected force constants of {rows} structures with {atoms} atoms, {counts['primitive_atoms']} "
            f"primitive atoms and {counts['blocks']} blocks, found {shapes}; the file is inconsistent"
        )
    _check_maps(path, constants, n_atoms)
    _check_values(path, constants, n_atoms)


def _check_maps(path: Path, constants: ForceConstants, n_atoms: np.ndarray) -> None:
    """Primitive atoms are atoms of their supercell, and every atom of it belongs to one of them."""
    cells, p2s, s2p = constants.n_primitive, constants.p2s, constants.s2p
    outside = bool(((p2s < 0) | (p2s >= np.repeat(n_atoms, cells))).any())
    has = np.repeat(cells > 0, n_atoms)
    outside = outside or bool(((s2p < 0) | (s2p >= np.repeat(n_atoms, n_atoms)))[has].any())
    if not outside:
        starts = np.cumsum(n_atoms) - n_atoms
        primitive = np.zeros(len(s2p), bool)
        primitive[p2s + np.repeat(starts, cells)] = True
        of_atoms = s2p + np.repeat(starts, n_atoms)
        outside = not bool(primitive[of_atoms[has]].all())
    if outside:
        raise DataError(
            f"{path}: expected p2s to name atoms of the supercell and s2p atoms of p2s, found others; the file is "
            "inconsistent"
        )


def _check_values(path: Path, constants: ForceConstants, n_atoms: np.ndarray) -> None:
    """Blocks are finite, masses and primitive cells positive, and what may be missing is finite or NaN."""
    cells, blocks = constants.n_primitive, len(constants.blocks)
    parts = (constants.blocks[start : start + BLOCKS_AT_ONCE] for start in range(0, blocks, BLOCKS_AT_ONCE))
    masses = constants.masses[np.repeat(cells > 0, n_atoms)]
    if not all(np.isfinite(part).all() for part in parts) or not ((masses > 0) & (masses < np.inf)).all():
        raise DataError(f"{path}: expected finite force constants and positive masses, found others; correct the file")
    lattices = constants.primitive_cells[cells > 0]
    if not np.isfinite(lattices).all() or not (np.abs(np.linalg.det(lattices)) > 0).all():
        raise DataError(f"{path}: expected primitive cells with a volume, found others; correct the file")
    if any(np.isinf(getattr(constants, name)).any() for name in ("born", "dielectric", "lowest_frequencies")):
        raise DataError(
            f"{path}: expected finite Born charges, permittivities and frequencies, found infinite ones; correct the "
            "file"
        )


def select_force_constants(
    constants: ForceConstants, n_atoms: np.ndarray, rows: np.ndarray, atoms: np.ndarray
) -> ForceConstants:
    """Those of the structures ``rows``, in that order.

    Args:
        constants: of M structures.
        n_atoms: (M,) atoms of each supercell.
        rows: (K,) row numbers.
        atoms: the atoms of these structures in the flat arrays, in that order.
    """
    cells, blocks = constants.n_primitive, block_counts(constants, n_atoms)
    chosen = {
        "structures": rows,
        "atoms": atoms,
        "primitive_atoms": ragged_range((np.cumsum(cells) - cells)[rows], cells[rows]),
        "blocks": ragged_range((np.cumsum(blocks) - blocks)[rows], blocks[rows]),
    }
    return ForceConstants(**{name: getattr(constants, name)[chosen[owner]] for name, (owner, _) in OWNERS.items()})


def join_force_constants(
    several: Sequence[ForceConstants | None], n_atoms: Sequence[np.ndarray]
) -> ForceConstants | None:
    """Those of several tables as one; None where no table has any.

    Args:
        several: per table its force constants, if any.
        n_atoms: per table the atoms of each supercell.
    """
    if all(one is None for one in several):
        return None
    filled = [none_of(sizes) if one is None else one for one, sizes in zip(several, n_atoms, strict=True)]
    return ForceConstants(**{name: np.concatenate([getattr(one, name) for one in filled]) for name in OWNERS})


def none_of(n_atoms: np.ndarray) -> ForceConstants:
    """The force constants of structures that have none."""
    structures, atoms = len(n_atoms), int(n_atoms.sum())
    return ForceConstants(
        blocks=np.zeros((0, 3, 3)),
        n_primitive=np.zeros(structures, np.int64),
        p2s=np.zeros(0, np.int64),
        s2p=np.full(atoms, -1, np.int64),
        masses=np.full(atoms, np.nan),
        primitive_cells=np.zeros((structures, 3, 3)),
        born=np.zeros((0, 3, 3)),
        dielectric=np.full((structures, 3, 3), np.nan),
        space_groups=np.zeros(structures, np.int64),
        lowest_frequencies=np.full((structures, 2), np.nan),
    )
