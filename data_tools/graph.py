"""The types that every room shares, and the one table of their shapes and units.

Letters, used everywhere: N nodes, E edges, T triplets, G graphs, F features.

| name                    | shape, dtype  | meaning                                                                  |
|-------------------------|---------------|--------------------------------------------------------------------------|
| numbers                 | (N,) int32    | atomic numbers, 0 = ghost                                                |
| positions               | (N, 3) float  | Angstrom                                                                 |
| senders, receivers      | (E,) int32    | edge j -> i: neighbour j sends, centre i receives                        |
| shifts                  | (E, 3) float  | Angstrom, image offset S @ cell, zero for molecules                      |
| triplet_in, triplet_out | (T,) int32    | edge k->j, edge j->i                                                     |
| node_graph              | (N,) int32    | the graph of each node                                                   |
| node_mask, graph_mask   | (N,), (G,)    | 1 real, 0 ghost                                                          |

    r_ij = positions[senders] + shifts - positions[receivers]

The law of pairs: E is even, and edge e + E/2 is the reverse of edge e (senders and receivers swapped, shifts negated).
A neighbour list without a cap on neighbours is symmetric, so every graph can be stored this way; what depends on the
distance alone (radial basis, filters) is then computed once per pair, on the first half.  In the first half of a single
structure the receivers ascend.

A triplet is any edge k -> j followed by any edge j -> i but its own reverse; see ``data_tools.graphs.triplets``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Structure:
    """Atoms in space, as a reader returns them: units are already Angstrom.

    Attributes:
        numbers: (N,) int32 atomic numbers, 1 or larger.
        positions: (N, 3) float64, Angstrom.
        cell: (3, 3) float64 lattice vectors as rows, Angstrom; None for a molecule.
        name: what the file calls it (``gdb 57``, a SMILES, ``frame 3``); shown in errors and predictions.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    name: str = ""


@dataclass(frozen=True)
class AtomGraph:
    """One structure with its edges: ragged arrays of the table above, without ghosts.

    The law of pairs holds.  ``triplet_in`` and ``triplet_out`` are empty for models that use no triplets.
    """

    numbers: np.ndarray
    positions: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray
    triplet_in: np.ndarray
    triplet_out: np.ndarray


class GraphInputs(NamedTuple):
    """The arrays (or tensors) of every model's ``construct``, in this order; see the module's table."""

    numbers: np.ndarray
    positions: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray
    triplet_in: np.ndarray
    triplet_out: np.ndarray
    node_graph: np.ndarray
    node_mask: np.ndarray
    graph_mask: np.ndarray


class Budget(NamedTuple):
    """Static shapes of one padded batch, ghosts included."""

    nodes: int
    edges: int
    triplets: int
    graphs: int


class Labels(NamedTuple):
    """Labels of some structures, in the order of a batch and without ghosts: G graphs of N nodes in all.

    Attributes:
        of_graphs: per name, an array with leading dimension G; NaN where there is no label.
        of_nodes: per name, an array with leading dimension N; NaN where there is no label.
        probes: (N, 3) the vectors that second derivatives are multiplied with; None where nothing needs them.
    """

    of_graphs: dict[str, np.ndarray]
    of_nodes: dict[str, np.ndarray]
    probes: np.ndarray | None = None


#: Labels of rows of a data set in an epoch.  A provider is a function of (seed, epoch, row): what a row gets depends
#: neither on the other rows nor on the calls before, so a resumed run and any number of processes see the same.
Provider = Callable[[np.ndarray, int], Labels]


@dataclass(frozen=True)
class GraphBatch:
    """A padded batch, made only by ``batching.pad`` so that its invariants always hold.

    Attributes:
        inputs: arrays of the table, at the shapes of one ``Budget``; the last graph is the ghost graph.
        targets: per name, an array with leading dimension G (labels of graphs, which come first) or N (labels of
            nodes); ghosts hold 0.
        masks: per name, the same shape; 1 where the label counts, 0 for ghosts and missing labels.
        probes: (N, 3), 0 for ghosts; None where the labels have none.
        ids: (number of real graphs,) int64 positions of the graphs in the data set, in batch order.
    """

    inputs: GraphInputs
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    probes: np.ndarray | None = None
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class DataError(ValueError):
    """Bad input at a boundary of this room: one line that says what was expected, what came and what to do."""


@dataclass(frozen=True)
class ForceConstants:
    """Compact force constants of the structures of a table, one after the other: M supercells, A atoms in all.

    A structure with p atoms in its primitive cell and n in all, which are the supercell, has the p n blocks
    Phi(p2s[i], j): i counts the primitive atoms, j the atoms, and j varies fastest.  A structure without force
    constants has p = 0.  P is the sum of p, B that of p n.

    Attributes:
        blocks: (B, 3, 3) float64 eV/Angstrom^2, d^2 E / dr_p2s[i] dr_j.
        n_primitive: (M,) int64 atoms of each primitive cell.
        p2s: (P,) int64 the atom of the supercell that stands for each primitive atom, counted inside its structure.
        masses: (A,) float64 atomic mass units; NaN in structures without force constants where they are unknown.
    """

    blocks: np.ndarray
    n_primitive: np.ndarray
    p2s: np.ndarray
    masses: np.ndarray


@dataclass(frozen=True)
class StructureTable:
    """Many structures as flat arrays (M structures, A atoms in all), in the project's units.

    Attributes:
        numbers: (A,) int32 atomic numbers of all structures, one after the other.
        positions: (A, 3) float64, Angstrom.
        n_atoms: (M,) int64 atoms per structure; they add up to A.
        ids: (M,) int64 identity in the source (QM9: the 1-based gdb index; else 0, 1, 2, ...).
        of_structures: per label of structures, a float64 array with leading dimension M; NaN where one lacks it.
        of_atoms: per label of atoms, a float64 array with leading dimension A; NaN where one lacks it.
        force_constants: of some of the structures; None where no structure has them.
        names: per structure, what the file calls it; empty when the file has no names.
        cells: (M, 3, 3) float64 lattice vectors as rows, Angstrom; None when no structure is periodic.
        split: (M,) str ``train`` / ``valid`` / ``test`` where the file labels its rows; None otherwise.
        source: one line: file name and sha256 of what was read.
        origin: the data set whose numbering the ids are, as the reader knows from the format: ``qm9`` where they are
            gdb indices; empty where they mean nothing outside of the file.
        unread: names of values in the file that are no labels here, as far as the reader knows them.
    """

    numbers: np.ndarray
    positions: np.ndarray
    n_atoms: np.ndarray
    ids: np.ndarray
    of_structures: dict[str, np.ndarray] = field(default_factory=dict)
    of_atoms: dict[str, np.ndarray] = field(default_factory=dict)
    force_constants: ForceConstants | None = None
    names: tuple[str, ...] = ()
    cells: np.ndarray | None = None
    split: np.ndarray | None = None
    source: str = ""
    origin: str = ""
    unread: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of all labels, those of structures first."""
        return (*self.of_structures, *self.of_atoms)
