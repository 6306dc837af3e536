"""How stiff bonds to hydrogen are by the forces of a file: their unit shows, whatever the level of theory.

Over frames of one molecule the force on a hydrogen along its bond falls with the bond's length d,

    F_H . (r_H - r_X) / d = -k (d - d_0) + what other atoms do                                                     (1)

and k is 17 (Si-H) to 48 (O-H) eV/Angstrom^2 in harmonic force fields and spectra; 30 for C-H.
"""

from __future__ import annotations

import numpy as np

from data_tools.graph import StructureTable

FEWEST_FRAMES, MOST_FRAMES = 20, 200
FEWEST_BONDS = 2
LONGEST_BOND = 1.3  # over the sum of covalent radii, the mean over frames; longer ones are hydrogen bonds
SMALLEST_SPREAD = 0.003  # Angstrom, standard deviation of a bond's length; below it other atoms decide
CORRELATION = -0.85  # of force and length in (1); -0.97 in rMD17
HYDROGEN = 1


def stiffness(table: StructureTable, forces: str) -> float | None:
    """The median of k in (1) over the bonds to hydrogen of a table.

    Args:
        table: any structures; those without a cell, of the same elements in the same order, are taken for frames.
        forces: name of a label (A, 3) in eV/Angstrom.

    Returns:
        eV/Angstrom^2; None where the label is missing or fewer bonds than ``FEWEST_BONDS`` follow (1).
    """
    values = table.of_atoms.get(forces)
    if values is None or values.shape[1:] != (3,):
        return None
    ends = np.cumsum(table.n_atoms)
    groups: dict[bytes, list[int]] = {}
    for row in np.unique(np.linspace(0, len(table) - 1, min(len(table), 2 * MOST_FRAMES)).astype(np.int64)):
        start, end = ends[row] - table.n_atoms[row], ends[row]
        periodic = table.cells is not None and np.any(table.cells[row])
        if not periodic and end - start > 1 and np.isfinite(values[start:end]).all():
            groups.setdefault(np.asarray(table.numbers[start:end]).tobytes(), []).append(row)
    found: list[float] = []
    for rows in groups.values():
        if len(rows) >= FEWEST_FRAMES:
            atoms = np.stack([np.arange(ends[row] - table.n_atoms[row], ends[row]) for row in rows[:MOST_FRAMES]])
            found += _of_frames(np.asarray(table.numbers)[atoms[0]], table.positions[atoms], values[atoms])
    return float(np.median(found)) if len(found) >= FEWEST_BONDS else None


def _of_frames(numbers: np.ndarray, positions: np.ndarray, forces: np.ndarray) -> list[float]:
    """K of each bond to hydrogen in K frames of one molecule: (N,), (K, N, 3), (K, N, 3)."""
    from ase.data import covalent_radii  # noqa: PLC0415  (heavy)

    found = []
    for hydrogen in np.flatnonzero(numbers == HYDROGEN)[:20]:
        vectors = positions[:, hydrogen][:, None] - positions  # (K, N, 3)
        lengths = np.linalg.norm(vectors, axis=-1)
        reach = covalent_radii[numbers] + covalent_radii[HYDROGEN]
        relative = np.where(numbers == HYDROGEN, np.inf, lengths.mean(axis=0) / reach)
        partner = int(relative.argmin())
        length = lengths[:, partner]
        if relative[partner] > LONGEST_BOND or length.std() < SMALLEST_SPREAD:
            continue
        along = (forces[:, hydrogen] * vectors[:, partner]).sum(axis=-1) / length
        if along.std() > 0 and np.corrcoef(length, along)[0, 1] < CORRELATION:
            found.append(float(-np.polyfit(length, along, 1)[0]))
    return found
