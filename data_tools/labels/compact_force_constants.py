"""Compact force constants of many structures: their sizes, and those of some rows or of several tables together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, ForceConstants
from data_tools.graphs.neighbors import ragged_range

BLOCKS_AT_ONCE = 1_000_000  # of which values are checked: 9 MB of temporaries


def block_counts(constants: ForceConstants, n_atoms: np.ndarray) -> np.ndarray:
    """(M,) int64 blocks of each structure: atoms of its primitive cell times atoms of its supercell.

    Args:
        constants: of M structures.
        n_atoms: (M,) atoms of each supercell.
    """
    return constants.n_primitive * n_atoms


def check_force_constants(path: Path, constants: ForceConstants, n_atoms: np.ndarray) -> None:
    """Check sizes and values; ``path`` names the file in errors.

    Raises:
        DataError: sizes that do not add up, a primitive atom that is not in its supercell, or a value that is not
            finite.
    """
    rows, atoms, cells = len(n_atoms), int(n_atoms.sum()), constants.n_primitive
    sizes_known = cells.shape == (rows,) and bool(((cells >= 0) & (cells <= n_atoms)).all())
    primitive = int(cells.sum()) if sizes_known else 0
    blocks = int(block_counts(constants, n_atoms).sum()) if sizes_known else 0
    expected = {"blocks": (blocks, 3, 3), "p2s": (primitive,), "masses": (atoms,)}
    found = {name: getattr(constants, name).shape for name in expected}
    if not sizes_known or found != expected:
        shapes = ", ".join(f"{name} {shape}" for name, shape in found.items())
        raise DataError(
            f"{path}: expected force constants of {rows} structures with {atoms} atoms, {primitive} primitive "
            f"atoms and {blocks} blocks, found {shapes}, n_primitive {cells.shape}; the file is inconsistent"
        )
    if ((constants.p2s < 0) | (constants.p2s >= np.repeat(n_atoms, cells))).any():
        raise DataError(f"{path}: expected p2s to name atoms of the supercell, found others; the file is inconsistent")
    parts = (constants.blocks[start : start + BLOCKS_AT_ONCE] for start in range(0, blocks, BLOCKS_AT_ONCE))
    masses = constants.masses[np.repeat(cells > 0, n_atoms)]
    if not all(np.isfinite(part).all() for part in parts) or not ((masses > 0) & (masses < np.inf)).all():
        raise DataError(f"{path}: expected finite force constants and positive masses, found others; correct the file")


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
    return ForceConstants(
        blocks=constants.blocks[ragged_range((np.cumsum(blocks) - blocks)[rows], blocks[rows])],
        n_primitive=cells[rows],
        p2s=constants.p2s[ragged_range((np.cumsum(cells) - cells)[rows], cells[rows])],
        masses=constants.masses[atoms],
    )


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
    return ForceConstants(
        blocks=np.concatenate([one.blocks for one in filled]),
        n_primitive=np.concatenate([one.n_primitive for one in filled]),
        p2s=np.concatenate([one.p2s for one in filled]),
        masses=np.concatenate([one.masses for one in filled]),
    )


def none_of(n_atoms: np.ndarray) -> ForceConstants:
    """The force constants of structures that have none."""
    return ForceConstants(
        np.zeros((0, 3, 3)), np.zeros(len(n_atoms), np.int64), np.zeros(0, np.int64), np.full(n_atoms.sum(), np.nan)
    )
