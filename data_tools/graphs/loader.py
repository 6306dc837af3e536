"""The batches of a run: which rows stand in which batch, at which shape, ready in time."""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from data_tools.graph import Budget, DataError, GraphBatch, Labels, Provider
from data_tools.graphs.batching import balanced_chunks, chunks, epoch_order, pad, shards, take
from data_tools.graphs.budgets import batch_sizes, choose_budgets, fitting, run_sizes, waste
from data_tools.graphs.noise import displacements
from data_tools.graphs.packed import PackedGraphs
from data_tools.graphs.rotations import RotatedLabels, random_rotations, rotated
from data_tools.tables import name_of_row

Item = TypeVar("Item")
AHEAD = 4  # batches made before they are asked for


class Batch(NamedTuple):
    """What one process gets of a training batch.

    Attributes:
        part: its molecules, padded, with their ``targets``.
        rows: all molecules of the batch, over all processes.
        known: per target how many finite numbers the whole batch has, over all processes; components for forces.
    """

    part: GraphBatch
    rows: np.ndarray
    known: dict[str, int]


@dataclass(frozen=True)
class TrainingBatches:
    """All batches of a training run, in the order that (seed, epoch) gives, at a few static shapes.

    Several processes share each batch: each gets a part, all parts of a batch are padded to one shape, and the order
    of the molecules does not depend on the number of processes.

    Attributes:
        packed: the data set.
        rows: (M,) training rows; one that comes k times in an epoch stands there k times, and has draw k e + i of its
            labels when it comes for the i-th time in epoch e.
        provider: gives the labels of rows at such draws.
        batch_size: graphs in a whole batch; the last of an epoch may hold fewer.
        seed: of the order.
        rank, size: this process, and how many share a batch.
        budgets: static shapes, smallest first; every batch of the run fits one.
        used: how many batches of the first epoch have each of these shapes.
        waste: percent of padded ``nodes``, ``edges`` and, if any, ``triplets`` that are ghosts, over the first epoch.
        dtype: of floating arrays.
        rotate: whether every structure is rotated or reflected at random, with its labels.
        noise: standard deviation of the noise on each coordinate, Angstrom; labels stay as they are.
    """

    packed: PackedGraphs
    rows: np.ndarray
    provider: Provider
    batch_size: int
    seed: int
    rank: int
    size: int
    budgets: list[Budget]
    used: list[int]
    waste: dict[str, float]
    dtype: type
    rotate: bool = False
    noise: float = 0.0

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start`` on, made ahead by a thread."""
        order = epoch_order(len(self.rows), self.seed, epoch)
        return prefetch(self._batch(places, epoch) for places in chunks(order, self.batch_size)[start:])

    @cached_property
    def _times(self) -> np.ndarray:
        """(2, M) how often each row comes in an epoch, and the how manieth of them a place is."""
        _, inverse, counts = np.unique(self.rows, return_inverse=True, return_counts=True)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        earlier = np.empty(len(self.rows), np.int64)
        earlier[np.argsort(inverse, kind="stable")] = np.arange(len(self.rows)) - firsts
        return np.stack((counts[inverse], earlier))

    def _batch(self, places: np.ndarray, epoch: int) -> Batch:
        rows, (times, earlier) = self.rows[places], self._times[:, places]
        draws = times * epoch + earlier
        parts = shards(np.arange(len(rows)), self.packed.costs[rows], self.size)
        own, of_parts = parts[self.rank], [rows[part] for part in parts]
        # the shape must hold the largest part: all processes run the same graph
        budget = fitting(batch_sizes(self.packed, of_parts).max(axis=0), self.budgets)
        labels = self.provider(rows, draws)
        of_own = labels if self.size == 1 else self.provider(rows[own], draws[own])
        rotations, moves = self._changes(rows[own], draws[own])
        part = fitted_batch(self.packed, rows[own], [budget], of_own, self.dtype, rotations, moves)
        return Batch(part, rows, known_of(labels))

    def _changes(self, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Rotations (K, 3, 3) and displacements (N, 3) of the structures of a batch; None where there are none."""
        rotations = random_rotations(self.seed, rows, draws) if self.rotate else None
        if not self.noise:
            return rotations, None
        return rotations, displacements(self.seed, rows, draws, self.packed.table.n_atoms[rows], self.noise)

    def ghost_batches(self) -> Iterator[GraphBatch]:
        """A batch of nothing but ghosts for each shape, to compile with."""
        nothing = np.zeros(0, np.int64)
        for budget in self.budgets:
            yield fitted_batch(self.packed, nothing, [budget], self.provider(nothing, nothing), self.dtype)

    def names(self, rows: np.ndarray) -> str:
        """The names of the structures of some rows, for messages."""
        return ", ".join(name_of_row(self.packed.table, int(row)) for row in rows)


def training_batches(
    packed: PackedGraphs,
    rows: np.ndarray,
    provider: Provider,
    batch_size: int,
    seed: int,
    epochs: int,
    shapes: int,
    dtype: type = np.float32,
    rank: int = 0,
    size: int = 1,
    rotate: bool = False,
    noise: float = 0.0,
) -> TrainingBatches:
    """Choose the shapes of a run and return its batches; ``shapes`` is the most static shapes.

    Raises:
        DataError: fewer molecules in a batch than processes.
    """
    if min(batch_size, len(rows)) < size:
        raise DataError(
            f"a batch of {min(batch_size, len(rows))} molecules: expected at least one for each of {size} processes; "
            "use a larger batch or fewer processes"
        )
    sizes = run_sizes(packed, rows, batch_size, seed, epochs, size)
    largest = sizes.max(axis=1)
    budgets = choose_budgets(largest, math.ceil(min(batch_size, len(rows)) / size), shapes, packed.triplets)
    per_epoch = math.ceil(len(rows) / batch_size)
    shapes_used = [fitting(size, budgets) for size in largest[:per_epoch]]
    used = [shapes_used.count(budget) for budget in budgets]
    wasted = waste(sizes[:per_epoch], budgets)
    if rotate:
        provider = RotatedLabels(provider, packed, seed)
    return TrainingBatches(
        packed, rows, provider, batch_size, seed, rank, size, budgets, used, wasted, dtype, rotate, noise
    )


def evaluation_batches(
    packed: PackedGraphs,
    rows: np.ndarray,
    batch_size: int,
    dtype: type = np.float32,
    budget: Budget | None = None,
    rank: int = 0,
    size: int = 1,
) -> Iterator[GraphBatch]:
    """Every row once, in batches of nearly equal size and of one shape; ``ids`` are positions in ``rows``.

    Args:
        packed: the data set.
        rows: (M,) rows to evaluate.
        batch_size: the most graphs in a batch.
        dtype: of floating arrays.
        budget: the shape; None chooses the smallest that holds every batch.
        rank, size: only every ``size``-th batch, from number ``rank`` on.
    """
    if not len(rows):
        return
    budget = budget or evaluation_budget(packed, [rows], batch_size)
    for places in balanced_chunks(np.arange(len(rows)), packed.costs[rows], batch_size)[rank::size]:
        yield dataclasses.replace(fitted_batch(packed, rows[places], [budget], None, dtype), ids=places)


def evaluation_budget(packed: PackedGraphs, sets: Iterable[np.ndarray], batch_size: int) -> Budget:
    """One shape that holds every batch of several sets of rows, so that all of them are evaluated by one graph."""
    batches = [batch for rows in sets for batch in balanced_chunks(rows, packed.costs[rows], batch_size)]
    return choose_budgets(batch_sizes(packed, batches), max(len(batch) for batch in batches), 1, packed.triplets)[0]


def fitted_batch(
    packed: PackedGraphs,
    rows: np.ndarray,
    budgets: list[Budget],
    labels: Labels | None = None,
    dtype: type = np.float32,
    rotations: np.ndarray | None = None,
    moves: np.ndarray | None = None,
) -> GraphBatch:
    """The given rows, with their labels, at the smallest of the budgets that holds them.

    Graphs, not labels, are rotated by ``rotations`` (K, 3, 3), and their atoms displaced by ``moves`` (N, 3).
    """
    batch = take(packed, rows)
    if rotations is not None:
        batch = rotated(batch, rotations)
    if moves is not None:
        batch = batch._replace(positions=batch.positions + moves)
    budget = fitting((len(batch.numbers), 2 * len(batch.senders), len(batch.triplet_in)), budgets)
    return pad(batch, budget, packed.cutoff, dtype, labels, rows)


def known_of(labels: Labels) -> dict[str, int]:
    """How many finite numbers each label has."""
    return {name: int(np.isfinite(values).sum()) for name, values in (labels.of_graphs | labels.of_nodes).items()}


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items while a thread makes the next few; an error in the thread is raised here."""
    ready: queue.Queue = queue.Queue(AHEAD)
    stopped = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(end)
        except BaseException as error:  # raised again where the items are used
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
