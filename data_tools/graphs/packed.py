"""Packed graphs: every structure of a data set with its pairs, as flat arrays.

Only one half of the edges is kept, with atom numbers local to the structure: see the law of pairs in
``data_tools.graph``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tqdm import tqdm

from data_tools.graph import DataError, StructureTable
from data_tools.graphs.neighbors import index_dtype, molecule_pairs, periodic_pairs, ragged_range
from data_tools.graphs.triplets import count_triplets
from data_tools.tables import name_of_row


@dataclass(frozen=True)
class PackedGraphs:
    """A table of structures together with their neighbour pairs (M structures, A atoms, P pairs in all).

    Attributes:
        table: the structures, labels and identities; see ``StructureTable``.
        cutoff: Angstrom.
        n_pairs: (M,) int64 pairs per structure.
        pair_receivers, pair_senders: (P,) unsigned integers, atom numbers inside the structure; receivers ascend.
        pair_shifts: (P, 3) float64 Angstrom, image offset of the sender; None when no structure is periodic.
        notes: what else the manifest says.
        triplets: whether batches carry triplets; set by what opens the graphs for a model, not stored in files.
    """

    table: StructureTable
    cutoff: float
    n_pairs: np.ndarray
    pair_receivers: np.ndarray
    pair_senders: np.ndarray
    pair_shifts: np.ndarray | None = None
    notes: dict[str, object] = field(default_factory=dict)
    triplets: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def atom_starts(self) -> np.ndarray:
        """(M,) int64 first atom of each structure."""
        return np.concatenate(([0], np.cumsum(self.table.n_atoms)[:-1])).astype(np.int64)

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the atoms of some rows in the flat arrays, one structure after the other."""
        return ragged_range(self.atom_starts[rows], self.table.n_atoms[rows])

    @cached_property
    def pair_starts(self) -> np.ndarray:
        """(M,) int64 first pair of each structure."""
        return np.concatenate(([0], np.cumsum(self.n_pairs)[:-1])).astype(np.int64)

    @cached_property
    def n_triplets(self) -> np.ndarray:
        """(M,) int64 triplets that each structure brings into a batch: 0 where batches carry none."""
        if not self.triplets:
            return np.zeros(len(self), np.int64)
        return count_triplets(self.table.n_atoms, self.n_pairs, self.pair_receivers, self.pair_senders)

    @cached_property
    def costs(self) -> np.ndarray:
        """(M,) int64 edges and triplets of each structure, nearly all of its work; batches are balanced by it."""
        return 2 * self.n_pairs + self.n_triplets


def pack(table: StructureTable, cutoff: float, progress: bool = False) -> PackedGraphs:
    """Find the pairs of every structure of a table.

    Args:
        table: structures in Angstrom.
        cutoff: Angstrom, positive.
        progress: show a progress bar (a terminal) or nothing (a file).

    Raises:
        DataError: the cutoff is not positive, the table is empty, or two atoms coincide.
    """
    if not cutoff > 0:
        raise DataError(f"cutoff {cutoff} Angstrom: expected a positive number")
    if len(table) == 0:
        raise DataError("no structures to pack; expected at least one")

    file = table.source.partition(" sha256 ")[0]

    def describe(k: int) -> str:
        return f"{file}: {name_of_row(table, k)}" if file else name_of_row(table, k)

    with tqdm(total=len(table), desc="neighbours", unit="mol", disable=None if progress else True) as bar:
        if table.cells is not None:
            pairs, shifts = _pack_periodic(table, cutoff, describe, bar.update)
        else:
            pairs, shifts = molecule_pairs(table.positions, table.n_atoms, cutoff, describe, bar.update), None
    receivers, senders, n_pairs = pairs
    return PackedGraphs(table, float(cutoff), n_pairs, receivers, senders, shifts)


def _pack_periodic(
    table: StructureTable, cutoff: float, describe: Callable[[int], str], report: Callable[[int], object]
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Pairs of crystals, one structure at a time (each has its own cell); a zero cell marks a molecule."""
    assert table.cells is not None
    starts = np.concatenate(([0], np.cumsum(table.n_atoms))).astype(np.int64)
    receivers, senders, shifts = [], [], []
    for k in range(len(table)):
        positions = table.positions[starts[k] : starts[k + 1]]
        if np.any(table.cells[k]):
            one = periodic_pairs(positions, table.cells[k], cutoff, describe(k))
        else:
            first, second, _ = molecule_pairs(positions, table.n_atoms[k : k + 1], cutoff, lambda _, k=k: describe(k))  # type: ignore[misc]
            one = (first, second, np.zeros((len(first), 3)))
        receivers.append(one[0])
        senders.append(one[1])
        shifts.append(one[2])
        report(1)
    small = index_dtype(int(table.n_atoms.max()))
    n_pairs = np.array([len(r) for r in receivers], np.int64)
    pairs = (np.concatenate(receivers).astype(small), np.concatenate(senders).astype(small), n_pairs)
    return pairs, np.concatenate(shifts)
