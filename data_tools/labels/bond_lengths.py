"""Nearest neighbours and the lengths that covalent radii make one expect: what shows the unit of positions."""

from __future__ import annotations

import numpy as np

from data_tools.graph import StructureTable

CENTRES = 8  # atoms of a structure whose nearest neighbours are looked for, spread over the structure
NOBLE_GASES = (2, 10, 18, 36, 54, 86)  # nothing binds them: their distances say nothing
RADIUS_UNKNOWN = 0.2  # Angstrom; stands for an element without a radius in ase.data.covalent_radii
SMALLEST_MOLECULE = 3  # atoms; two may have been pulled apart
SMALLEST_BOX = {1: 6.0, 2: 7.9}  # Angstrom, by number of atoms: a larger cell holds free atoms, not a crystal


def nearest_neighbours(table: StructureTable) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours of some atoms of each structure, nearest relative to the covalent radii.

    Returns:
        (K,) distance over sum of radii; (K,) sums of radii in Angstrom.  Free atoms and noble gases have none.
    """
    from ase.data import covalent_radii  # noqa: PLC0415  (heavy)

    radii = np.where(covalent_radii > RADIUS_UNKNOWN, covalent_radii, np.nan)
    ends = np.cumsum(table.n_atoms)
    ratios, sums = [np.zeros(0)], [np.zeros(0)]
    for row, (start, end) in enumerate(zip(ends - table.n_atoms, ends, strict=True)):
        numbers = np.asarray(table.numbers[start:end])
        cell = None if table.cells is None or not np.any(table.cells[row]) else np.asarray(table.cells[row])
        centres = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), CENTRES)).astype(np.int64))
        centres = centres[~np.isin(numbers[centres], NOBLE_GASES)]
        distances = _distances(np.asarray(table.positions[start:end], np.float64), centres, cell)
        reach = radii[numbers[centres]][:, None] + radii[numbers]
        relative = np.where(np.isfinite(reach), distances / reach, np.inf)
        nearest = relative.argmin(axis=1)[:, None]
        found = np.take_along_axis(relative, nearest, 1)[:, 0]
        ratios.append(found[np.isfinite(found)])
        sums.append(np.take_along_axis(reach, nearest, 1)[:, 0][np.isfinite(found)])
    return np.concatenate(ratios), np.concatenate(sums)


def _distances(positions: np.ndarray, centres: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """Distances (K, N) from some atoms to all, to the nearest image in a cell; infinite to the atom itself.

    Atoms that may be free have infinite distances: diatomic molecules, and one or two atoms in a large cell.

    Args:
        positions: (N, 3).
        centres: (K,) atom numbers.
        cell: (3, 3) lattice vectors as rows, or None.
    """
    own = centres[:, None] == np.arange(len(positions))
    vectors = positions - positions[centres][:, None]  # (K, N, 3)
    if cell is None:
        bound = len(positions) >= SMALLEST_MOLECULE
        return np.where(own | (not bound), np.inf, np.linalg.norm(vectors, axis=-1))
    from ase.geometry import minkowski_reduce  # noqa: PLC0415  (heavy)

    cell = minkowski_reduce(cell)[0]  # in a reduced cell the nearest image is at most one cell away
    fractional = np.linalg.solve(cell.T, vectors.reshape(-1, 3).T).T.reshape(vectors.shape)
    vectors = (fractional - np.round(fractional)) @ cell
    nearest = np.full(own.shape, np.inf)
    for image in np.ndindex(3, 3, 3):
        shift = (np.array(image) - 1) @ cell
        distance = np.linalg.norm(vectors + shift, axis=-1)
        nearest = np.minimum(nearest, np.where(own, np.inf, distance) if image == (1, 1, 1) else distance)
    shortest = np.linalg.norm(cell, axis=1).min()
    return np.where(shortest > SMALLEST_BOX.get(len(positions), np.inf), np.inf, nearest)
