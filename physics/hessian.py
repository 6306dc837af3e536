"""Hessians of many structures as a stream of rows, exact or by finite differences of forces.

    (1)  H_(i a) = H e_(i a)                                      e_(i a): 1 for axis a of atom i, 0 elsewhere; exact
    (2)  H_(i a) = (F(r - h e_(i a)) - F(r + h e_(i a))) / 2h     with an error that grows with h^2

A row of a structure of N atoms is an (N, 3) array.  Rows of molecules and crystals of every size fill batches together,
and all batches share a few static shapes, so give all structures at once.  Where a full batch takes more memory than
there is, batches are smaller.  The atoms of a crystal are those of its cell, as it was given: their images move along,
and the contributions of images to a row add up.

    stream = exact_rows(HessianProduct(model), graphs, cutoff, np.float64)
    print(stream)                                            what it will take
    hessians = stream.arrays()                               or one row at a time: for row in stream

The unit is the model's: energies in eV give eV/Angstrom^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, nn

from data_tools.graph import AtomGraph, Budget, DataError, Structure
from data_tools.graphs.batching import RaggedBatch, join, pad
from data_tools.graphs.packed import PackedGraphs
from data_tools.graphs.probes import ProbeBatches, batches_of_probes, ragged_of, sizes_of
from data_tools.graphs.triplets import count_triplets
from data_tools.progress_bar import track
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.memory import available, of_product
from physics.skin_list import SkinList

EDGES_AT_ONCE = 16384  # or triplets; more in one batch than fill the machine only cost memory
COMPILATION = 25 * EDGES_AT_ONCE  # of one more shape takes as long as that many edges in products
STEP = 0.01  # Angstrom, of finite differences
SHARE = 0.75  # of the memory that is available which batches may be made for; some is taken before they start


class Row(NamedTuple):
    """A row of a Hessian: d2E / dr_(atom axis) dr_(j b) as ``values`` (N, 3)."""

    structure: int
    atom: int
    axis: int
    values: np.ndarray


@dataclass(frozen=True)
class HessianRows:
    """The rows of M structures, computed while one iterates; ``str`` says what that will take.

    Attributes:
        probes: (P, 3) structure, atom and axis of each row, in the order of the stream.
        n_atoms: (M,).
        batches: of products, or of the two displaced structures of each row; ``batches.budgets`` are the shapes.
        compute: starts over and yields (N, 3) values for one row after the other.
        dtype: of the values.
        memory: bytes that the largest batch takes, estimated.
        limit: bytes that may be taken; None is what the machine has available when it starts.
        progress: whether to report it on stderr.
    """

    probes: np.ndarray
    n_atoms: np.ndarray
    batches: ProbeBatches
    compute: Callable[[], Iterator[np.ndarray]]
    dtype: type
    memory: float
    limit: float | None
    progress: bool

    def __len__(self) -> int:
        return len(self.probes)

    def __str__(self) -> str:
        """How many rows, products and shapes, and the memory."""
        shapes = ", ".join(f"{budget.nodes} atoms with {budget.edges} edges" for budget in self.batches.budgets)
        return (
            f"{len(self)} Hessian rows of {len(self.n_atoms)} structures in {len(self.batches)} batches of "
            f"{len(self.batches.budgets)} shapes ({shapes}), about {self.memory / 1e9:.1f} GB"
        )

    def __iter__(self) -> Iterator[Row]:
        """Every row, in order.

        Raises:
            DataError: a batch takes more memory than may be taken.
        """
        self._check(0.0)
        return self._rows()

    def arrays(self) -> list[np.ndarray]:
        """The Hessian of each structure, (K, 3, N, 3) for the K atoms whose rows were asked for.

        Raises:
            DataError: the arrays and a batch take more memory than may be taken.
        """
        atoms = np.bincount(self.probes[:, 0], minlength=len(self.n_atoms)) // 3
        self._check(float((9.0 * atoms * self.n_atoms).sum()) * np.dtype(self.dtype).itemsize)
        arrays: list[np.ndarray] = [
            np.empty((k, 3, n, 3), self.dtype) for k, n in zip(atoms, self.n_atoms, strict=True)
        ]
        places = (place for array in arrays for place in array.reshape(-1, *array.shape[2:]))
        for row, place in zip(self._rows(), places, strict=True):
            place[:] = row.values
        return arrays

    def _rows(self) -> Iterator[Row]:
        values = track(self.compute(), "Hessian", "rows", len(self), self.progress)
        for (structure, atom, axis), one in zip(self.probes.tolist(), values, strict=True):
            yield Row(structure, atom, axis, one)

    def _check(self, results: float) -> None:
        limit = available() if self.limit is None else self.limit
        if self.memory + results > limit:
            raise DataError(
                f"{self}, and {results / 1e9:.1f} GB of results: expected at most {limit / 1e9:.1f} GB, what is "
                "available; ask for the rows of fewer atoms or one row at a time, use smaller structures or a shorter "
                "cutoff, or set the limit"
            )


def exact_rows(
    product: HessianProduct,
    graphs: Sequence[AtomGraph] | PackedGraphs,
    cutoff: float,
    dtype: type,
    atoms: Sequence[Sequence[int] | None] | None = None,
    sizes: np.ndarray | None = None,
    limit: float | None = None,
    progress: bool = False,
) -> HessianRows:
    """Rows by equation (1), one product for each batch of probes.

    Args:
        product: of the model.
        graphs: M molecules and crystals, with triplets where the model uses them.
        cutoff: Angstrom, of the graphs.
        dtype: of the model's parameters.
        atoms: per structure, whose rows; None means all atoms.
        sizes: (M, 3) atoms, edges and triplets to choose the shapes for, where they are more than those of the graphs:
            structures that differ a little need no other shape then.
        limit: bytes of memory; None is what the machine has available.
        progress: whether to report it on stderr.

    Raises:
        DataError: an atom that a structure does not have.
    """
    own = sizes_of(graphs)
    probes = _probes(own[:, 0], atoms)
    batches, memory = _fitting(product, own if sizes is None else sizes, probes[:, 0], dtype, limit)

    def compute() -> Iterator[np.ndarray]:
        shape, standing = None, np.zeros(0, np.int64)
        for part, budget in batches:
            owners, atom, axis = probes[part].T
            if budget != shape or not np.array_equal(standing[: len(owners)], owners):
                shape, standing = budget, owners
                ragged = ragged_of(graphs, owners)
                inputs = _tensors(ragged, budget, cutoff, dtype)
                first = np.cumsum(ragged.n_atoms) - ragged.n_atoms
            field: np.ndarray = np.zeros((budget.nodes, 3), dtype)
            field[first[: len(owners)] + atom, axis] = 1.0
            values = product(*inputs, Tensor.from_numpy(field)).asnumpy()  # (1)
            yield from _of_graphs(values, ragged.n_atoms[: len(owners)])

    return HessianRows(probes, own[:, 0], batches, compute, dtype, memory, limit, progress)


def difference_rows(
    derive: EnergyAndForces,
    structures: Sequence[Structure],
    cutoff: float,
    dtype: type,
    triplets: bool = False,
    atoms: Sequence[Sequence[int] | None] | None = None,
    step: float = STEP,
    limit: float | None = None,
    progress: bool = False,
) -> HessianRows:
    """Rows by equation (2), from forces of two displaced structures each.

    The neighbours of every displaced structure are those within the cutoff, so that pairs enter and leave.

    Args:
        derive: energies and forces of the model.
        structures: M molecules and crystals.
        cutoff: Angstrom, of the model.
        dtype: of the model's parameters; the rows are float64.  In float32 rounding is some 1e-6 / step of a force.
        triplets: whether the model uses them.
        atoms: per structure, whose rows; None means all atoms.
        step: h, Angstrom.
        limit: bytes of memory; None is what the machine has available.
        progress: whether to report it on stderr.

    Raises:
        DataError: an atom that a structure does not have, coinciding atoms, a cell that is none, or a step that is not
            positive.
    """
    moved = _Displaced(structures, cutoff, triplets, step)
    sizes = np.array([moved.size(structure) for structure in range(len(structures))], np.int64).reshape(-1, 3)
    probes = _probes(sizes[:, 0], atoms)
    batches, memory = _fitting(derive, sizes, np.repeat(probes[:, 0], 2), dtype, limit)  # forwards, backwards

    def forces() -> Iterator[np.ndarray]:
        for part, budget in batches:
            numbers = range(part.start, part.stop)
            ragged = join([moved(probes[number // 2], (-1) ** number) for number in numbers])
            values = derive(*_tensors(ragged, budget, cutoff, dtype))[1]
            yield from _of_graphs(values.asnumpy().astype(np.float64), ragged.n_atoms)

    def compute() -> Iterator[np.ndarray]:
        both = forces()
        for forwards, backwards in zip(both, both, strict=True):
            yield (backwards - forwards) / (2 * step)  # (2)

    return HessianRows(probes, sizes[:, 0], batches, compute, np.float64, memory, limit, progress)


class _Displaced:
    """Structures with one atom displaced, and the neighbours that they have then.

    Args:
        structures: M of them.
        cutoff: Angstrom.
        triplets: whether to list them.
        step: how far an atom is displaced, Angstrom.

    Raises:
        DataError: see ``difference_rows``.
    """

    def __init__(self, structures: Sequence[Structure], cutoff: float, triplets: bool, step: float):
        if not 0 < step < np.inf:
            raise DataError(f"step {step}: expected a number of Angstrom above 0")
        self.structures, self.step = structures, step
        # a skin of two steps holds whatever an atom and its neighbour do; twice that is safe from rounding
        self.lists = [SkinList(cutoff, 4 * step, triplets) for _ in structures]
        for neighbors, structure in zip(self.lists, structures, strict=True):
            neighbors(structure)

    def __call__(self, probe: np.ndarray, sign: int) -> AtomGraph:
        """The graph of a structure whose atom has moved along an axis, forwards or backwards."""
        owner, atom, axis = probe
        positions = self.structures[owner].positions.copy()
        positions[atom, axis] += sign * self.step
        return self.lists[owner](dataclasses.replace(self.structures[owner], positions=positions))

    def size(self, structure: int) -> tuple[int, int, int]:
        """Atoms, and the most edges and triplets of a structure, however it is displaced."""
        neighbors = self.lists[structure]
        candidates = neighbors.candidates
        assert candidates is not None
        count, half = len(candidates.numbers), len(candidates.senders) // 2
        if not neighbors.triplets:
            return count, 2 * half, 0
        ends = candidates.receivers[:half], candidates.senders[:half]
        return count, 2 * half, int(count_triplets(np.array([count]), np.array([half]), *ends)[0])


def _fitting(
    derive: nn.Cell, sizes: np.ndarray, owners: np.ndarray, dtype: type, limit: float | None
) -> tuple[ProbeBatches, float]:
    """Batches of probes of some structures, and bytes of the largest: full ones, or smaller ones that fit.

    Where not even one row fits, the batches are as small as they can be, and refused when they start.
    """
    most = SHARE * available() if limit is None else limit
    at_once, largest = EDGES_AT_ONCE, int(sizes.max(initial=1))
    cell = getattr(derive, "model", derive)  # what several models compute with in turn is no cell itself
    while True:
        batches = batches_of_probes(sizes, owners, at_once, COMPILATION)
        memory = max((of_product(cell, budget, dtype) for budget in batches.budgets), default=0.0)
        if memory <= most or at_once <= largest:
            return batches, memory
        at_once = max(at_once // 2, largest)


def _probes(n_atoms: np.ndarray, atoms: Sequence[Sequence[int] | None] | None) -> np.ndarray:
    """(P, 3) structure, atom and axis of every row.

    Raises:
        DataError: an atom that a structure does not have.
    """
    chosen = [None] * len(n_atoms) if atoms is None else atoms
    tables = [np.zeros((0, 3), np.int64)]
    for structure, (count, some) in enumerate(zip(n_atoms.tolist(), chosen, strict=True)):
        rows = np.arange(count) if some is None else np.asarray(some, np.int64)
        if rows.size and not (0 <= rows.min() and rows.max() < count):
            raise DataError(
                f"structure {structure}: rows of atoms 0 to {count - 1} expected, got {rows.min()} to {rows.max()}"
            )
        axes = np.tile(np.arange(3), len(rows))
        tables.append(np.stack((np.full(len(axes), structure), np.repeat(rows, 3), axes), axis=1))
    return np.concatenate(tables)


def _tensors(ragged: RaggedBatch, budget: Budget, cutoff: float, dtype: type) -> tuple[Tensor, ...]:
    return tuple(Tensor.from_numpy(array) for array in pad(ragged, budget, cutoff, dtype).inputs)


def _of_graphs(values: np.ndarray, n_atoms: np.ndarray) -> Iterator[np.ndarray]:
    """The part of each graph of a batch."""
    start = 0
    for count in n_atoms.tolist():
        yield values[start : start + count]
        start += count
