"""The batches of a run: which rows stand in which batch, at which shape, ready in time."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data_tools.batching import balanced_chunks, chunks, epoch_order, pad, take
from data_tools.budgets import batch_sizes, choose_budgets, fitting, run_sizes, waste
from data_tools.cache import PackedGraphs
from data_tools.graph import Budget, GraphBatch

Item = TypeVar("Item")
AHEAD = 4  # batches made before they are asked for


@dataclass(frozen=True)
class TrainingBatches:
    """All batches of a training run, in the order that (seed, epoch) gives, at a few static shapes.

    Attributes:
        packed: the data set.
        rows: (M,) training rows.
        labels: (rows of the data set,) standardised labels.
        batch_size: graphs in a batch; the last of an epoch may hold fewer.
        seed: of the order.
        budgets: static shapes, smallest first; every batch of the run fits one.
        waste: percent of padded ``nodes`` and ``edges`` that are ghosts, over the first epoch.
        dtype: of floating arrays.
    """

    packed: PackedGraphs
    rows: np.ndarray
    labels: np.ndarray
    batch_size: int
    seed: int
    budgets: list[Budget]
    waste: dict[str, float]
    dtype: type

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[GraphBatch]:
        """The batches of one epoch from number ``start`` on, made ahead by a thread.

        The label's name in ``targets`` is ``label``.
        """
        order = self.rows[epoch_order(len(self.rows), self.seed, epoch)]
        return prefetch(
            fitted_batch(self.packed, rows, self.budgets, self.labels, self.dtype)
            for rows in chunks(order, self.batch_size)[start:]
        )

    def ghost_batches(self) -> Iterator[GraphBatch]:
        """A batch of nothing but ghosts for each shape, to compile with."""
        for budget in self.budgets:
            yield fitted_batch(self.packed, np.zeros(0, np.int64), [budget], self.labels, self.dtype)


def training_batches(
    packed: PackedGraphs,
    rows: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    epochs: int,
    shapes: int,
    dtype: type = np.float32,
) -> TrainingBatches:
    """Choose the shapes of a run and return its batches; ``shapes`` is the most static shapes."""
    sizes = run_sizes(packed, rows, batch_size, seed, epochs)
    budgets = choose_budgets(sizes, min(batch_size, len(rows)), shapes)
    per_epoch = math.ceil(len(rows) / batch_size)
    return TrainingBatches(packed, rows, labels, batch_size, seed, budgets, waste(sizes[:per_epoch], budgets), dtype)


def evaluation_batches(
    packed: PackedGraphs, rows: np.ndarray, batch_size: int, dtype: type = np.float32, budget: Budget | None = None
) -> Iterator[GraphBatch]:
    """Every row once, in batches of nearly equal size and of one shape; ``ids`` says which rows they are.

    Args:
        packed: the data set.
        rows: (M,) rows to evaluate.
        batch_size: the most graphs in a batch.
        dtype: of floating arrays.
        budget: the shape; None chooses the smallest that holds every batch.
    """
    batches = balanced_chunks(rows, packed.n_pairs[rows], batch_size)
    if not batches:
        return
    budget = budget or evaluation_budget(packed, [rows], batch_size)
    for chunk in batches:
        yield fitted_batch(packed, chunk, [budget], None, dtype)


def evaluation_budget(packed: PackedGraphs, sets: Iterable[np.ndarray], batch_size: int) -> Budget:
    """One shape that holds every batch of several sets of rows, so that all of them are evaluated by one graph."""
    batches = [batch for rows in sets for batch in balanced_chunks(rows, packed.n_pairs[rows], batch_size)]
    return choose_budgets(batch_sizes(packed, batches), max(len(batch) for batch in batches), 1)[0]


def fitted_batch(
    packed: PackedGraphs,
    rows: np.ndarray,
    budgets: list[Budget],
    labels: np.ndarray | None = None,
    dtype: type = np.float32,
) -> GraphBatch:
    """The given rows at the smallest of the budgets that holds them; the label's name in ``targets`` is ``label``."""
    batch = take(packed, rows)
    budget = fitting((len(batch.numbers), 2 * len(batch.senders), len(batch.triplet_in)), budgets)
    targets = {} if labels is None else {"label": labels[rows]}
    return pad(batch, budget, packed.cutoff, dtype, targets, rows)


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
