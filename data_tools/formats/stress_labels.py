"""Stresses and virials as files write them, to the label ``stress``: (3, 3), symmetric, eV/Angstrom^3, ASE's sign.

Nine numbers are a matrix, row after row or column after column, which is the same; six are ASE's (Voigt's) order xx,
yy, zz, yz, xz, xy.  A ``virial`` in eV has the sign of extended xyz (GAP, MACE): stress = -virial / volume, and the
stress is positive in tension.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError, StructureTable
from data_tools.tables import name_of_row

STRESS, VIRIAL = "stress", "virial"
VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # where the six numbers stand
ASYMMETRY, DISAGREEMENT = 1e-3, 1e-2  # of the largest component, that rounding in a file may explain
SMALLEST = 1e-5  # eV/Angstrom^3, 1.6 MPa: differences below it are none


def stress_of_frame(path: Path, line: int, written: Mapping[str, Any], cell: np.ndarray | None) -> np.ndarray | None:
    """The stress of a frame of extended xyz, (3, 3).

    Args:
        path: the file, for messages.
        line: where the frame has its keys.
        written: what stands there as ``stress`` and as ``virial``, if it does.
        cell: (3, 3) of the frame; None for a molecule.

    Returns:
        None where there is none: no key, a text without numbers, or zeros without a cell.

    Raises:
        DataError: numbers that are no stress, no cell beside them, or a stress and a virial that contradict each other.
    """
    found = {}
    for name in (STRESS, VIRIAL):
        values = _numbers(written.get(name))
        if values is None:
            continue
        tensor = full_tensor(path, name, f"in line {line}", values)
        if cell is not None:
            found[name] = -tensor / abs(np.linalg.det(cell)) if name == VIRIAL else tensor
        elif np.any(np.nan_to_num(tensor)):
            raise DataError(
                f"{path}: expected a cell beside the {name} in line {line}, found none; give the frame its Lattice, or "
                f"remove the {name}"
            )
    if len(found) == 2 and not _near(found[STRESS], found[VIRIAL], DISAGREEMENT):
        raise DataError(
            f"{path}: expected stress = -virial / volume in line {line}, found a stress of {_shown(found[STRESS])} and "
            f"from the virial {_shown(found[VIRIAL])} (xx, yy, zz in eV/Angstrom^3); correct one or remove it"
        )
    return found.get(STRESS, found.get(VIRIAL))


def stress_of_table(path: Path, table: StructureTable, values: np.ndarray) -> np.ndarray:
    """Values (M, ...) of the structures of a table as stresses (M, 3, 3); NaN where a structure has none.

    Raises:
        DataError: numbers that are no stress, or no cell beside them.
    """
    stress = np.full((len(table), 3, 3), np.nan)
    for row in np.flatnonzero(np.isfinite(values.reshape(len(table), -1)).any(axis=1)):
        stress[row] = full_tensor(path, STRESS, f"of {name_of_row(table, row)}", values[row])
        if table.cells is None or not table.cells[row].any():
            raise DataError(
                f"{path}: expected a cell beside the stress of {name_of_row(table, row)}, found none; give it one, or "
                "remove that structure"
            )
    return stress


def full_tensor(path: Path, name: str, where: str, values: np.ndarray) -> np.ndarray:
    """The symmetric matrix of six numbers, nine or (3, 3).

    Args:
        path, name, where: the file, the name of the values and their place, for messages.
        values: the numbers.

    Raises:
        DataError: another shape, or no symmetric matrix.
    """
    if values.shape not in ((6,), (9,), (3, 3)):
        raise DataError(
            f"{path}: expected 9 numbers, or 6 (xx, yy, zz, yz, xz, xy), as {name} {where}, found "
            f"{'one' if values.ndim == 0 else f'an array of shape {values.shape}'}; correct it"
        )
    tensor = values[VOIGT] if values.shape == (6,) else values.reshape(3, 3)
    if not _near(tensor, tensor.T, ASYMMETRY):
        row, column = np.unravel_index(np.nan_to_num(np.abs(tensor - tensor.T), nan=np.inf).argmax(), (3, 3))
        raise DataError(
            f"{path}: expected a symmetric {name} {where}, found {tensor[row, column]:g} and "
            f"{tensor[column, row]:g} at {'xyz'[row]}{'xyz'[column]} and {'xyz'[column]}{'xyz'[row]}; correct it"
        )
    return (tensor + tensor.T) / 2


def _numbers(value: Any) -> np.ndarray | None:
    """A value as an array of numbers; None for a text, and for nothing."""
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _near(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    largest = np.nan_to_num(np.abs(one)).max()
    return bool(np.allclose(one, other, rtol=0, atol=tolerance * largest + SMALLEST, equal_nan=True))


def _shown(tensor: np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in np.diagonal(tensor))
