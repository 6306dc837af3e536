"""Whether energies and forces belong together: between near frames the energy changes by the work of the forces.

For frames a and b, b turned onto a (W. Kabsch, Acta Cryst. A 32, 922 (1976)):

    E_b - E_a = -(F_a + F_b) / 2 . (R_b - R_a) + third order                                                       (1)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_tools.graph import StructureTable
from data_tools.tables import select_rows

STARTS = 100  # frames that are looked at, each with the one that follows it: of a trajectory these are near
MOST_ATOMS = 500_000  # over all pairs of frames of one molecule: what takes a fraction of a second
PAIRS = 50  # the nearest; more would be further apart, fewer a matter of chance
FEWEST = 20
FARTHEST, NEAREST = 0.4, 1e-3  # Angstrom, root mean square displacement; nearer frames are one frame twice


class Agreement(NamedTuple):
    """How the two sides of (1) compare over the nearest pairs.

    Attributes:
        ratio: root mean square of the changes of the energy over that of the works; 1 where units agree.
        correlation: about zero, between -1 and 1; negative where the forces have the wrong sign.
        distance: root mean square displacement of the farthest pair, Angstrom.
    """

    ratio: float
    correlation: float
    distance: float


def agreement(table: StructureTable, energy: str, forces: str) -> Agreement | None:
    """Compare the labels ``energy`` (M,) and ``forces`` (A, 3) of a table.

    Args:
        table: any structures; those without a cell, of the same elements in the same order, are taken for frames.
        energy: name of a label of structures.
        forces: name of a label of atoms.

    Returns:
        None where the labels are missing or fewer than ``FEWEST`` pairs are near.
    """
    energies, vectors = table.of_structures.get(energy), table.of_atoms.get(forces)
    if energies is None or vectors is None or energies.ndim != 1 or vectors.shape[1:] != (3,):
        return None
    starts = np.unique(np.linspace(0, len(table) - 1, min(len(table), STARTS)).astype(np.int64))
    rows = np.unique(np.concatenate([starts, np.minimum(starts + 1, len(table) - 1)]))
    compared = [_compare(*frames) for frames in _molecules(select_rows(table, rows), energy, forces)]
    work, change, distance = np.concatenate([np.zeros((3, 0)), *compared], axis=1)
    near = np.flatnonzero((distance > NEAREST) & (distance < FARTHEST))
    near = near[np.argsort(distance[near])[:PAIRS]]
    squares = np.sum(work[near] ** 2), np.sum(change[near] ** 2)
    if len(near) < FEWEST or not min(squares) > 0:
        return None
    correlation = np.sum(work[near] * change[near]) / np.sqrt(squares[0] * squares[1])
    return Agreement(float(np.sqrt(squares[1] / squares[0])), float(correlation), float(distance[near].max()))


def _molecules(table: StructureTable, energy: str, forces: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions (K, N, 3), forces (K, N, 3) and energies (K,) of each molecule with several frames."""
    ends = np.cumsum(table.n_atoms)
    groups: dict[bytes, list[int]] = {}
    for row, (start, end) in enumerate(zip(ends - table.n_atoms, ends, strict=True)):
        periodic = table.cells is not None and np.any(table.cells[row])
        whole = np.isfinite(table.of_structures[energy][row]) and np.isfinite(table.of_atoms[forces][start:end]).all()
        if whole and not periodic and end - start > 1:
            groups.setdefault(np.asarray(table.numbers[start:end]).tobytes(), []).append(row)
    molecules = []
    for rows in groups.values():
        most = int(np.sqrt(2 * MOST_ATOMS / table.n_atoms[rows[0]]))
        if len(rows) > 1 and most > 1:
            frames = select_rows(table, np.array(rows[:most]))
            shape = (len(frames), -1, 3)
            molecules.append(
                (
                    frames.positions.reshape(shape),
                    frames.of_atoms[forces].reshape(shape),
                    frames.of_structures[energy],
                )
            )
    return molecules


def _compare(positions: np.ndarray, forces: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Work, change of the energy and displacement of every pair of K frames: (3, K (K - 1) / 2)."""
    positions = positions - positions.mean(axis=1, keepdims=True)
    a, b = np.triu_indices(len(positions), 1)
    left, _, right = np.linalg.svd(np.einsum("pni,pnj->pij", positions[b], positions[a]))
    right[:, 2] *= np.sign(np.linalg.det(left @ right))[:, None]  # a rotation, no mirror image
    turn = left @ right
    displacement = positions[b] @ turn - positions[a]
    work = -((forces[a] + forces[b] @ turn) / 2 * displacement).sum(axis=(1, 2))  # (1)
    distance = np.sqrt((displacement**2).sum(axis=2).mean(axis=1))
    return np.stack([work, energies[b] - energies[a], distance])
