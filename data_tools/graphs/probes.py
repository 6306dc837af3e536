"""A stream of probes of many structures, cut into batches that share a few static shapes.

A probe is a vector field on the atoms of one structure, for example 1 for one atom along one axis and 0 elsewhere.  A
structure stands in a batch once for each of its probes there, beside those of other structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.graph import AtomGraph, Budget
from data_tools.graphs.batching import RaggedBatch, join, take
from data_tools.graphs.budgets import choose_budgets, fitting
from data_tools.graphs.packed import PackedGraphs

SHAPES = 3  # the most that a stream is given, however different its structures are


@dataclass(frozen=True)
class ProbeBatches:
    """P probes in B batches, in the order of the stream; an iteration yields the probes of each batch and its shape.

    Attributes:
        starts: (B + 1,) number of the first probe of each batch, and P at the end.
        budgets: static shapes, smallest first.
        chosen: (B,) the shape of each batch.
    """

    starts: np.ndarray
    budgets: list[Budget]
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[tuple[slice, Budget]]:
        for start, stop, shape in zip(self.starts[:-1], self.starts[1:], self.chosen, strict=True):
            yield slice(int(start), int(stop)), self.budgets[shape]


def batches_of_probes(sizes: np.ndarray, owners: np.ndarray, at_once: int, compilation: int) -> ProbeBatches:
    """Cut a stream into batches of nearly equal size, and choose their shapes.

    Args:
        sizes: (M, 3) atoms, edges and triplets of each structure.
        owners: (P,) the structure of each probe.
        at_once: edges in a batch, or triplets or atoms where there are more; a structure that has more by itself stands
            alone.
        compilation: what one more shape costs, in atoms, edges and triplets of padding.
    """
    if not len(owners):
        return ProbeBatches(np.zeros(1, np.int64), [], np.zeros(0, np.int64))
    starts = _starts(np.clip(sizes.max(axis=1), 1, at_once)[owners], at_once)
    totals = np.add.reduceat(sizes[owners], starts[:-1])
    budgets = _budgets(totals, int(np.diff(starts).max()), compilation)
    chosen = np.array([budgets.index(fitting(total, budgets)) for total in totals])
    return ProbeBatches(starts, budgets, chosen)


def sizes_of(graphs: Sequence[AtomGraph] | PackedGraphs) -> np.ndarray:
    """(M, 3) int64 atoms, edges and triplets of each graph."""
    if isinstance(graphs, PackedGraphs):
        return np.stack((graphs.table.n_atoms, 2 * graphs.n_pairs, graphs.n_triplets), axis=1).astype(np.int64)
    counts = [(len(graph.numbers), len(graph.senders), len(graph.triplet_in)) for graph in graphs]
    return np.array(counts, np.int64).reshape(-1, 3)


def ragged_of(graphs: Sequence[AtomGraph] | PackedGraphs, owners: np.ndarray) -> RaggedBatch:
    """The graphs of some structures, one after the other; a structure may stand there several times."""
    if isinstance(graphs, PackedGraphs):
        return take(graphs, owners)
    return join([graphs[owner] for owner in owners])


def _starts(costs: np.ndarray, at_once: int) -> np.ndarray:
    """(B + 1,) where batches begin: as few as hold ``at_once`` each, and the fullest of them as small as it can be.

    Args:
        costs: (P,) of each probe, between 1 and ``at_once``.
        at_once: of a batch.
    """
    ends = np.cumsum(costs)
    fewest = len(_filled(ends, at_once))
    low, high = max(int(costs.max()), -(-int(ends[-1]) // (fewest - 1))), at_once
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if len(_filled(ends, middle)) > fewest else (low, middle)
    return np.array(_filled(ends, high))


def _filled(ends: np.ndarray, at_once: int) -> list[int]:
    """Where batches begin that are filled one after the other, and where the last one ends."""
    starts, taken = [0], 0
    while starts[-1] < len(ends):
        starts.append(int(np.searchsorted(ends, taken + at_once, side="right")))
        taken = int(ends[starts[-1] - 1])
    return starts


def _budgets(totals: np.ndarray, graphs: int, compilation: int) -> list[Budget]:
    """As many shapes as save more padding than their compilation costs."""
    choices: list[tuple[int, list[Budget]]] = []
    for shapes in range(1, SHAPES + 1):
        # ghost triplets in any case: whether a model uses triplets does not show in structures that have none
        budgets = choose_budgets(totals, graphs, shapes, triplets=True)
        padded = sum(sum(fitting(total, budgets)[:3]) for total in totals)
        choices.append((padded + shapes * compilation, budgets))
        if padded - totals.sum() < compilation:
            break
    return min(choices, key=lambda choice: choice[0])[1]
