"""The types that all packages share, and the one table of their shapes and units.

Letters: a batch has G graphs with N nodes, E edges and T triplets; a data set has M structures with A atoms.  A
structure has n of the atoms, and p of them in its primitive cell; B is the sum of p n over the structures.

| type           | field                   | shape, dtype         | meaning                                            |
|----------------|-------------------------|----------------------|----------------------------------------------------|
| Structure      | numbers                 | (n,) int32           | atomic numbers, 1 or larger                        |
|                | positions               | (n, 3) float64       | Angstrom                                           |
|                | cell                    | (3, 3) float64       | lattice vectors as rows, Angstrom; None: molecule  |
|                | name                    | str                  | what the file calls it (``gdb 57``, ``mp-149``)    |
| AtomGraph,     | numbers                 | (N,) int32           | atomic numbers, 0 = ghost                          |
| GraphInputs    | positions               | (N, 3) float         | Angstrom                                           |
|                | senders, receivers      | (E,) int32           | j -> i: neighbour j sends, centre i receives       |
|                | shifts                  | (E, 3) float         | Angstrom, image offset S @ cell, 0 for molecules   |
|                | triplet_in, triplet_out | (T,) int32           | edge k -> j, edge j -> i                           |
| GraphInputs    | node_graph              | (N,) int32           | the graph of each node                             |
|                | node_mask, graph_mask   | (N,), (G,) float     | 1 real, 0 ghost                                    |
| Budget         | nodes, ..., graphs      | int                  | N, E, T, G of a padded batch with its ghosts       |
| Labels         | of_graphs               | name: (G, ...)       | labels of real graphs; NaN: missing                |
|                | of_nodes                | name: (N, ...)       | labels of real nodes; NaN: missing                 |
|                | probes                  | (N, 3) float         | factors of second derivatives; None: no need       |
| GraphBatch     | inputs                  | GraphInputs          | at the shapes of one Budget                        |
|                | targets                 | name: (G or N, ...)  | labels of graphs, then nodes; ghosts, missing: 0   |
|                | masks                   | as targets           | 1 where the label counts                           |
|                | probes                  | (N, 3) float         | ghosts: 0; None where the labels have none         |
|                | ids                     | (real graphs,) int64 | their rows in the data set, in batch order         |
| StructureTable | numbers                 | (A,) int32           | atomic numbers, one structure after the other      |
|                | positions               | (A, 3) float64       | Angstrom                                           |
|                | n_atoms                 | (M,) int64           | n of each structure; they add up to A              |
|                | ids                     | (M,) int64           | number in the source; see origin                   |
|                | of_structures           | name: (M, ...) f64   | labels of structures; NaN: missing                 |
|                | of_atoms                | name: (A, ...) f64   | labels of atoms; NaN: missing                      |
|                | force_constants         | ForceConstants       | None where no structure has them                   |
|                | names                   | M str                | what the file calls them; empty: has no names      |
|                | cells                   | (M, 3, 3) float64    | as Structure.cell; 0: a molecule; None: no crystal |
|                | split                   | (M,) str             | ``train``, ``valid``, ``test``; None: unlabelled   |
|                | source                  | str                  | file name and sha256 of what was read, one line    |
|                | origin                  | str                  | whose numbers ids are: ``qm9`` (gdb indices), or   |
|                |                         |                      | empty: they mean nothing outside of the file       |
|                | unread                  | str, ...             | values of the file that are no labels here         |
|                | remarks                 | str, ...             | what of the file was left out, a line each         |
| ForceConstants | blocks                  | (B, 3, 3) float64    | eV/Angstrom^2, d^2 E / dr_p2s[i] dr_j, structure   |
|                |                         |                      | after structure: i of p and j of n, which varies   |
|                |                         |                      | fastest                                            |
|                | n_primitive             | (M,) int64           | p; 0: a structure without force constants          |
|                | p2s                     | (sum of p,) int64    | which atom, counted in its structure, stands for   |
|                |                         |                      | each primitive atom                                |
|                | s2p                     | (A,) int64           | which of these atoms, counted in its structure,    |
|                |                         |                      | each atom is a translation of; -1 where p = 0      |
|                | masses                  | (A,) float64         | atomic mass units; may be NaN where p = 0          |
|                | primitive_cells         | (M, 3, 3) float64    | lattice vectors as rows, Angstrom; 0 where p = 0   |
|                | born                    | (sum of p, 3, 3) f64 | Born effective charges, e; NaN: not available      |
|                | dielectric              | (M, 3, 3) float64    | relative permittivity, static, clamped ions; NaN:  |
|                |                         |                      | not available                                      |
|                | space_groups            | (M,) int64           | international number; 0: not determined            |
|                | lowest_frequencies      | (M, 2) float64       | THz, imaginary ones negative, of the force         |
|                |                         |                      | constants as they are: at Gamma without the three  |
|                |                         |                      | acoustic modes, and on a mesh away from Gamma; NaN |
| label of       | energy, U0, U, H, G     | (M,) float64         | eV, total                                          |
| structures     | homo, lumo, gap, zpve   | (M,) float64         | eV                                                 |
|                | stress                  | (M, 3, 3) float64    | eV/Angstrom^3, symmetric; tension positive (ASE)   |
|                | mu, alpha, r2, Cv       | (M,) float64         | D, a0^3, a0^2, cal/(mol K)                         |
| label of atoms | forces                  | (A, 3) float64       | eV/Angstrom                                        |

    r_ij = positions[senders] + shifts - positions[receivers]

Other labels keep the name and the unit of their file.  A label belongs to the structures or to the atoms because it
stands there: its shape tells nothing, for three crystals of one atom have as many atoms as structures.

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
    """Atoms in space, as a reader returns them: units are already Angstrom."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    name: str = ""


@dataclass(frozen=True)
class AtomGraph:
    """One structure with its edges, without ghosts; the law of pairs holds.

    ``triplet_in`` and ``triplet_out`` are empty for models that use no triplets.
    """

    numbers: np.ndarray
    positions: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray
    triplet_in: np.ndarray
    triplet_out: np.ndarray


class GraphInputs(NamedTuple):
    """The arrays (or tensors) of every model's ``construct``, in this order."""

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
    """Labels of some structures, in the order of a batch and without ghosts."""

    of_graphs: dict[str, np.ndarray]
    of_nodes: dict[str, np.ndarray]
    probes: np.ndarray | None = None


def value_name(k: int) -> str:
    """What a batch calls the label of the output k, of a network that has several: (G,), of graphs."""
    return f"value {k}"


Provider = Callable[[np.ndarray, int | np.ndarray], Labels]
"""Labels of rows of a data set, each at its own draw or all at one: the epoch, where a row comes once in an epoch.

A provider is a function of (seed, draw, row): what a row gets depends neither on the other rows nor on earlier calls,
so a resumed run and any number of processes see the same.
"""


@dataclass(frozen=True)
class GraphBatch:
    """A padded batch, made only by ``batching.pad`` so that its invariants always hold; the last graph is the ghost."""

    inputs: GraphInputs
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    probes: np.ndarray | None = None
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class DataError(ValueError):
    """Bad input at a boundary of the program: one line that says what was expected, what came and what to do."""

    exit_code = 2


@dataclass(frozen=True)
class ForceConstants:
    """Compact force constants of the structures of a table, which are supercells, one after the other."""

    blocks: np.ndarray
    n_primitive: np.ndarray
    p2s: np.ndarray
    s2p: np.ndarray
    masses: np.ndarray
    primitive_cells: np.ndarray
    born: np.ndarray
    dielectric: np.ndarray
    space_groups: np.ndarray
    lowest_frequencies: np.ndarray


@dataclass(frozen=True)
class StructureTable:
    """Many structures as flat arrays, in the project's units."""

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
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of all labels, those of structures first."""
        return (*self.of_structures, *self.of_atoms)
