"""Neighbour pairs within a cutoff, for many molecules at once and for one periodic structure.

A pair (i, j) stands for the two edges j -> i and i -> j (see the law of pairs in ``data_tools.graph``).  There is no
cap on the number of neighbours: a capped list is not symmetric and its energy is not smooth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from data_tools.graph import DataError

DENSE_LIMIT = 400  # atoms; above it a k-d tree is cheaper than all n (n - 1) / 2 distances
CHUNK_PAIRS = 1_000_000  # candidate pairs examined at a time: about 60 MB of temporaries
COINCIDENT = 0.1  # Angstrom; no two nuclei of a real structure are this close, and derivatives of r are undefined at 0
DENSEST = 0.5  # atoms per cubic Angstrom; diamond has 0.18
ROUNDED = 1e-9  # of a cell
DENSE_CUBE = 64  # atoms; how many there are in a small cube says little about density


def index_dtype(largest: int) -> type:
    """The smallest unsigned integer type that holds ``largest``: atom numbers are most of a packed file."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32


def molecule_pairs(
    positions: np.ndarray,
    n_atoms: np.ndarray,
    cutoff: float,
    describe: Callable[[int], str] = "structure {}".format,
    report: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs i < j closer than ``cutoff`` in each of M molecules.

    Molecules of equal size are handled together, so the cost is a few NumPy calls per size, not per molecule.

    Args:
        positions: (A, 3) Angstrom, molecules one after the other.
        n_atoms: (M,) atoms per molecule.
        cutoff: Angstrom; pairs at exactly this distance are left out.
        describe: names molecule k in an error.
        report: called with the number of molecules just finished (progress).

    Returns:
        receivers (P,), senders (P,): atom numbers inside their molecule, receivers ascending; n_pairs (M,) int64.

    Raises:
        DataError: two atoms of a molecule coincide, or there are more of them in a place than matter has.
    """
    n_atoms = np.asarray(n_atoms, np.int64)
    starts = np.concatenate(([0], np.cumsum(n_atoms)[:-1])).astype(np.int64)
    small = index_dtype(int(n_atoms.max(initial=0)))
    n_pairs = np.zeros(len(n_atoms), np.int64)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # molecules (ascending), receivers, senders
    for size in np.unique(n_atoms):
        members = np.flatnonzero(n_atoms == size)
        step = max(1, CHUNK_PAIRS // max(1, size * (size - 1) // 2)) if size <= DENSE_LIMIT else 1
        for chunk in np.split(members, np.arange(step, len(members), step)):
            block = positions[starts[chunk][:, None] + np.arange(size)].astype(np.float64)  # (m, n, 3)
            if size > DENSE_LIMIT:
                _refuse_crowd(block[0], cutoff, describe(int(chunk[0])))
            which, receivers, senders, squared = _pairs_of_block(block, cutoff)
            if len(squared) and squared.min() < COINCIDENT**2:
                k = np.argmin(squared)
                raise DataError(
                    f"{describe(int(chunk[which[k]]))}: atoms {receivers[k]} and {senders[k]} are "
                    f"{np.sqrt(squared[k]):.1e} Angstrom apart, expected distinct atoms; remove the duplicate atom"
                )
            n_pairs[chunk] = np.bincount(which, minlength=len(chunk))
            found.append((chunk, receivers.astype(small), senders.astype(small)))
            if report is not None:
                report(len(chunk))
    return *_in_molecule_order(found, n_pairs, small), n_pairs


def _pairs_of_block(block: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of m equally large molecules (m, n, 3): molecule, i, j and squared distance, sorted by (molecule, i, j)."""
    size = block.shape[1]
    if size > DENSE_LIMIT:
        from scipy.spatial import cKDTree  # noqa: PLC0415  only large systems need it

        tree = cKDTree(block[0])
        nearest, places = tree.query(block[0], k=2)
        closest = int(nearest[:, 1].argmin())
        if nearest[closest, 1] < COINCIDENT:  # of many atoms on one point one pair is enough, and all would be too many
            pair = np.sort(places[[closest]], axis=1)
            return np.zeros(1, np.int64), pair[:, 0], pair[:, 1], nearest[[closest], 1] ** 2
        pairs = np.sort(tree.query_pairs(cutoff, output_type="ndarray"), axis=1)
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        difference = block[0, pairs[:, 1]] - block[0, pairs[:, 0]]
        squared = (difference * difference).sum(-1)
        keep = squared < cutoff**2
        return np.zeros(keep.sum(), np.int64), pairs[keep, 0], pairs[keep, 1], squared[keep]
    first, second = np.triu_indices(size, 1)
    squared = np.zeros((len(block), len(first)))
    for axis in range(3):  # one axis at a time keeps the temporaries three times smaller
        difference = block[:, second, axis] - block[:, first, axis]
        squared += difference * difference
    which, pair = np.nonzero(squared < cutoff**2)
    return which, first[pair], second[pair], squared[which, pair]


def _refuse_crowd(positions: np.ndarray, cutoff: float, name: str) -> None:
    """Before memory is taken for the pairs of a crowd: N atoms (N, 3) on one point have N (N - 1) / 2.

    Raises:
        DataError: more atoms in some cube than matter has.
    """
    crowd = np.unique(np.floor(positions / cutoff), axis=0, return_counts=True)[1].max(initial=0)
    if crowd > max(DENSEST * cutoff**3, DENSE_CUBE):
        raise DataError(
            f"{name}: {crowd} atoms in a cube of {cutoff:g} Angstrom, more than any matter has; check the unit"
        )


def _in_molecule_order(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], n_pairs: np.ndarray, small: type
) -> tuple[np.ndarray, np.ndarray]:
    """Put the pairs, found size by size, where their molecules stand in the data set."""
    starts = np.concatenate(([0], np.cumsum(n_pairs)[:-1])).astype(np.int64)
    receivers: np.ndarray = np.empty(n_pairs.sum(), small)
    senders: np.ndarray = np.empty(n_pairs.sum(), small)
    for chunk, chunk_receivers, chunk_senders in found:
        place = ragged_range(starts[chunk], n_pairs[chunk])
        receivers[place], senders[place] = chunk_receivers, chunk_senders
    return receivers, senders


def ragged_range(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenation of ``arange(start, start + length)`` for each row, without a Python loop.

    ``ragged_range([5, 9], [2, 3])`` is ``[5, 6, 9, 10, 11]``.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(np.asarray(starts, np.int64) - (ends - lengths), lengths)


def periodic_pairs(
    positions: np.ndarray, cell: np.ndarray, cutoff: float, name: str = "structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs within ``cutoff`` in a periodic structure, images included (an atom may pair with its own image).

    Args:
        positions: (N, 3) Angstrom.
        cell: (3, 3) lattice vectors as rows, Angstrom.
        cutoff: Angstrom.
        name: names the structure in an error.

    Returns:
        receivers, senders (P,) int64 with receivers ascending; shifts (P, 3) float64 Angstrom, so that
        positions[sender] + shift - positions[receiver] is the vector of the edge.

    Raises:
        DataError: two atoms coincide, or the cell is flat or holds more atoms than matter does.
    """
    volume = abs(np.linalg.det(cell))
    areas = [np.linalg.norm(np.cross(cell[k - 2], cell[k - 1])) for k in range(3)]
    if volume < COINCIDENT * max(areas) or len(positions) > volume * DENSEST:
        raise DataError(
            f"{name}: expected a cell at least {COINCIDENT} Angstrom high with at most {DENSEST:g} atoms per cubic "
            f"Angstrom, found {len(positions)} atoms in a volume of {volume:.3g}; check the cell and its unit"
        )
    cell = np.asarray(cell, np.float64)
    fractions = np.asarray(positions, np.float64) @ np.linalg.inv(cell)
    home = np.floor(fractions).astype(np.int64)
    _refuse_crowd((fractions - home) @ cell, cutoff, name)
    reach = cutoff * np.array(areas) / volume  # how many cells the cutoff is, along each vector
    receivers, senders, images, distances = _pairs_of_images(fractions - home, cell, cutoff, reach)
    images = images - home[senders] + home[receivers]
    if len(distances) and distances.min() < COINCIDENT:
        k = int(np.argmin(distances))
        raise DataError(f"{name}: atoms {receivers[k]} and {senders[k]} coincide; remove the duplicate atom")
    # of (i, j, S) and (j, i, -S) keep one: i < j, or for an atom and its own image the first non-zero S positive
    leading = np.sign(images[np.arange(len(images)), (images != 0).argmax(axis=1)])
    keep = (receivers < senders) | ((receivers == senders) & (leading > 0))
    receivers, senders, images = receivers[keep], senders[keep], images[keep]
    order = np.lexsort((senders, receivers))
    return receivers[order], senders[order], images[order] @ cell


def _pairs_of_images(
    fractions: np.ndarray, cell: np.ndarray, cutoff: float, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both directions of all pairs of an atom in the cell and an image of an atom.

    Args:
        fractions: (N, 3) between 0 and 1.
        cell: (3, 3) lattice vectors as rows, Angstrom.
        cutoff: Angstrom.
        reach: (3,) of the cutoff, in cells.

    Returns:
        receivers, senders (K,), the cell of the image of the sender (K, 3) int64, distances (K,) Angstrom.
    """
    most = np.ceil(reach).astype(np.int64)
    shifts = np.indices(2 * most + 1).reshape(3, -1).T - most  # (S, 3)
    coordinates = (fractions[None] + shifts[:, None]).reshape(-1, 3)
    near = ((coordinates > -reach - ROUNDED) & (coordinates < 1 + reach + ROUNDED)).all(axis=1).nonzero()[0]
    here, there = (cKDTree(points @ cell) for points in (fractions, coordinates[near]))
    found = here.sparse_distance_matrix(there, cutoff, output_type="ndarray")
    shift, sender = np.divmod(near[found["j"]], len(fractions))
    keep = (found["v"] < cutoff) & ((found["i"] != sender) | shifts[shift].any(axis=1))
    return found["i"][keep], sender[keep], shifts[shift[keep]], found["v"][keep]
