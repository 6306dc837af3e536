"""Quantities by which structures are compared: elements, sizes, distances, charges and unpaired electrons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_tools.graph import StructureTable
from data_tools.graphs.neighbors import ragged_range
from data_tools.graphs.packed import PackedGraphs

STRUCTURES_AT_ONCE = 2000
#: labels that tell the charge of a structure, and those that tell its unpaired electrons, with what is added to them
CHARGES = ("charge", "total_charge")
UNPAIRED = (("radical_electrons", 0), ("multiplicity", -1))


@dataclass(frozen=True, eq=False)
class Observed:
    """What is compared of M structures with A atoms and P pairs within the cutoff.

    Attributes:
        numbers: (A,) atomic numbers.
        n_atoms: (M,) atoms per structure.
        receivers, senders: (P,) atoms of each pair, numbered in the flat arrays; each pair once.
        distances: (P,) Angstrom.
        periodic: (M,) bool.
        charges: (M,) total charges, NaN where unknown.
        unpaired: (M,) unpaired electrons, NaN where unknown.
    """

    numbers: np.ndarray
    n_atoms: np.ndarray
    receivers: np.ndarray
    senders: np.ndarray
    distances: np.ndarray
    periodic: np.ndarray
    charges: np.ndarray
    unpaired: np.ndarray

    @cached_property
    def owner(self) -> np.ndarray:
        """(A,) the structure of each atom."""
        return np.repeat(np.arange(len(self.n_atoms)), self.n_atoms)

    @cached_property
    def nearest(self) -> np.ndarray:
        """(A,) distance to the nearest neighbour, Angstrom; infinite without one within the cutoff."""
        nearest = np.full(len(self.numbers), np.inf)
        np.minimum.at(nearest, self.receivers, self.distances)
        np.minimum.at(nearest, self.senders, self.distances)
        return nearest

    @cached_property
    def odd(self) -> np.ndarray:
        """(M,) bool: an odd number of electrons; unknown charges count as 0."""
        protons = np.bincount(self.owner, weights=self.numbers, minlength=len(self.n_atoms))
        return np.rint(protons - np.nan_to_num(self.charges)).astype(np.int64) % 2 == 1

    @cached_property
    def skeleton(self) -> Observed:
        """The same structures without their hydrogen atoms and without what was derived of these."""
        heavy = self.numbers > 1
        new, pairs = np.cumsum(heavy) - 1, heavy[self.receivers] & heavy[self.senders]
        return dataclasses.replace(
            self,
            numbers=self.numbers[heavy],
            n_atoms=np.bincount(self.owner[heavy], minlength=len(self.n_atoms)),
            receivers=new[self.receivers[pairs]],
            senders=new[self.senders[pairs]],
            distances=self.distances[pairs],
        )

    def in_parts(self, limit: float) -> np.ndarray:
        """(M,) bool: which structures pairs up to ``limit`` (Angstrom) do not join to one part."""
        from scipy.sparse import coo_matrix  # noqa: PLC0415  (heavy)
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

        near, size = self.distances <= limit, len(self.numbers)
        if not size:
            return np.zeros(len(self.n_atoms), bool)
        links = coo_matrix((np.ones(near.sum(), bool), (self.receivers[near], self.senders[near])), (size, size))
        _, part = connected_components(links, directed=False)
        _, first = np.unique(part, return_index=True)
        return np.bincount(self.owner[first], minlength=len(self.n_atoms)) > 1


def observe(packed: PackedGraphs, rows: np.ndarray) -> Iterator[Observed]:
    """Structures of a data set, some thousand at a time, in the order of ``rows``."""
    table = packed.table
    charges, unpaired = charges_of(table), unpaired_of(table)
    periodic = np.zeros(len(table), bool) if table.cells is None else table.cells.any(axis=(1, 2))
    for start in range(0, len(rows), STRUCTURES_AT_ONCE):
        some = np.asarray(rows[start : start + STRUCTURES_AT_ONCE])
        atoms, pairs = packed.atoms_of(some), ragged_range(packed.pair_starts[some], packed.n_pairs[some])
        positions, n_atoms = table.positions[atoms].astype(np.float64), table.n_atoms[some]
        first = np.repeat(np.cumsum(n_atoms) - n_atoms, packed.n_pairs[some])
        receivers, senders = packed.pair_receivers[pairs] + first, packed.pair_senders[pairs] + first
        vectors = positions[senders] - positions[receivers]
        if packed.pair_shifts is not None:
            vectors += packed.pair_shifts[pairs]
        distances = np.sqrt((vectors * vectors).sum(-1))
        yield Observed(
            table.numbers[atoms].astype(np.int64), n_atoms, receivers, senders, distances, periodic[some],
            charges[some], unpaired[some],
        )  # fmt: skip


def charges_of(table: StructureTable) -> np.ndarray:
    """(M,) total charges in the file, for a structure or as ``initial_charges`` of its atoms; else NaN."""
    for name in CHARGES:
        values = table.of_structures.get(name)
        if values is not None and values.ndim == 1:
            return values
    of_atoms = table.of_atoms.get("initial_charges")
    if of_atoms is not None and of_atoms.ndim == 1:
        owner = np.repeat(np.arange(len(table)), table.n_atoms)
        return np.bincount(owner, weights=of_atoms, minlength=len(table))
    return np.full(len(table), np.nan)


def unpaired_of(table: StructureTable) -> np.ndarray:
    """(M,) unpaired electrons in the file; else NaN."""
    for name, added in UNPAIRED:
        values = table.of_structures.get(name)
        if values is not None and values.ndim == 1:
            return values + added
    return np.full(len(table), np.nan)
