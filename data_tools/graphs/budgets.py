"""A few static shapes for a run, chosen from its own batches so that padding wastes least and nothing ever overflows.

The order of every epoch is a function of (seed, epoch), so the sizes of all batches of a run are known before it
starts: the largest budget holds the largest batch of the whole run, and the others are placed where they save most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools.graph import Budget, DataError
from data_tools.graphs.batching import GHOST_EDGES, chunks, epoch_order, shards
from data_tools.graphs.packed import PackedGraphs

ROUND_NODES, ROUND_EDGES, ROUND_TRIPLETS = 8, 32, 256
CANDIDATES = 160  # quantiles between which the shapes are placed
SIMULATED_ROWS = 20_000_000  # epochs x molecules looked at in advance; beyond it a margin stands for the rest
MARGIN = 1.05


def batch_sizes(packed: PackedGraphs, batches: Sequence[np.ndarray]) -> np.ndarray:
    """(number of batches, 3) int64: atoms, edges and triplets of each batch of rows."""
    rows = np.concatenate(batches)
    counts = np.zeros((len(rows) + 1, 3), np.int64)  # one row more: an empty batch may begin behind the last
    counts[:-1] = np.stack((packed.table.n_atoms[rows], 2 * packed.n_pairs[rows], packed.n_triplets[rows]), axis=1)
    lengths = np.array([len(batch) for batch in batches])
    sums = np.add.reduceat(counts, np.cumsum(lengths) - lengths, axis=0)
    return sums * (lengths > 0)[:, None]  # reduceat gives an empty batch the row where it begins


def run_sizes(
    packed: PackedGraphs, rows: np.ndarray, batch_size: int, seed: int, epochs: int, parts: int = 1
) -> np.ndarray:
    """Sizes of every part of every batch of a run; large runs are sampled and given a margin.

    Returns:
        (number of batches, parts, 3) int64: atoms, edges and triplets.
    """
    looked_at = int(min(epochs, max(1, SIMULATED_ROWS // max(1, len(rows)))))
    sizes = np.concatenate(
        [
            batch_sizes(packed, [part for batch in batches for part in shards(batch, packed.costs[batch], parts)])
            for batches in (chunks(rows[epoch_order(len(rows), seed, e)], batch_size) for e in range(looked_at))
        ]
    ).reshape(-1, parts, 3)
    if looked_at < epochs:
        beyond = np.ceil(sizes.max(axis=(0, 1)) * MARGIN).astype(np.int64)
        sizes = np.concatenate((sizes, np.broadcast_to(beyond, (1, parts, 3))))
    return sizes


def choose_budgets(sizes: np.ndarray, graphs: int, max_shapes: int, triplets: bool = False) -> list[Budget]:
    """At most ``max_shapes`` budgets, smallest first, that hold every batch and minimise the padded total.

    Batches sorted by edges and triplets are cut into runs; each run's budget is its largest batch.  The best cuts among
    ``CANDIDATES`` quantiles are found by dynamic programming.

    Args:
        sizes: (B, 3) atoms, edges, triplets of each batch.
        graphs: real graphs in a full batch; the ghost graph is added here.
        max_shapes: 1 or more.
        triplets: whether batches carry triplets; then no shape is without any, for tensors must not be empty.
    """
    if max_shapes < 1:
        raise DataError(f"shapes {max_shapes}: expected 1 or more")
    needed = sizes[np.argsort(sizes[:, 1] + sizes[:, 2], kind="stable")]
    # a budget must also hold every smaller batch, so the running maximum is what counts (and cuts never interleave)
    largest = np.maximum.accumulate(needed, axis=0)
    cuts = np.unique(np.linspace(0, len(needed), min(CANDIDATES, len(needed)) + 1).astype(int))[1:]
    cost_of_cut = largest[cuts - 1].sum(axis=1).astype(np.float64)
    best, previous = _best_cuts(cuts, cost_of_cut, max_shapes)
    chosen, at = [], len(cuts) - 1
    for shapes in range(best, 0, -1):
        chosen.append(at)
        at = previous[shapes - 1][at]
    return [_rounded(largest[cuts[k] - 1], graphs, triplets) for k in sorted(chosen)]


def _best_cuts(cuts: np.ndarray, cost: np.ndarray, max_shapes: int) -> tuple[int, list[np.ndarray]]:
    """Cheapest way to end at each cut with 1, 2, ... shapes: the best count and the back pointers."""
    total = cuts * cost  # one shape for all batches up to the cut
    totals, previous = [total], [np.full(len(cuts), -1)]
    for _ in range(1, min(max_shapes, len(cuts))):
        # matrix[a, b]: all up to cut a with one shape fewer, then the batches between a and b at the cost of b
        matrix = totals[-1][:, None] + (cuts[None, :] - cuts[:, None]) * cost[None, :]
        matrix[cuts[:, None] >= cuts[None, :]] = np.inf
        previous.append(matrix.argmin(axis=0))
        totals.append(matrix.min(axis=0))
    best = int(np.argmin([values[-1] for values in totals]))
    return best + 1, previous


def _rounded(size: np.ndarray, graphs: int, triplets: bool) -> Budget:
    """Room for the sink and for two ghost pairs, rounded up so that near-equal budgets coincide."""
    nodes = -(-(int(size[0]) + 1) // ROUND_NODES) * ROUND_NODES
    edges = -(-(int(size[1]) + GHOST_EDGES) // ROUND_EDGES) * ROUND_EDGES
    of_triplets = -(-max(int(size[2]), int(triplets)) // ROUND_TRIPLETS) * ROUND_TRIPLETS
    return Budget(nodes, edges, of_triplets, graphs + 1)


def fitting(size: Sequence[int] | np.ndarray, budgets: Sequence[Budget]) -> Budget:
    """The smallest budget that holds a batch of (atoms, edges, triplets), with the edges of its ghost triplets.

    Raises:
        DataError: none does.
    """
    for budget in budgets:
        ghosts = GHOST_EDGES if budget.triplets else 0
        if size[0] < budget.nodes and size[1] + ghosts <= budget.edges and size[2] <= budget.triplets:
            return budget
    raise DataError(
        f"a batch of {size[0]} atoms, {size[1]} edges and {size[2]} triplets exceeds the largest budget "
        f"{tuple(budgets[-1])} (nodes, edges, triplets, graphs); use a smaller batch"
    )


def waste(sizes: np.ndarray, budgets: Sequence[Budget]) -> dict[str, float]:
    """Share of padded nodes, edges and, where there are any, triplets that are ghosts, in percent.

    Args:
        sizes: (B, parts, 3) of batches whose parts are padded to one shape.
        budgets: the shapes.
    """
    shapes = np.array([fitting(size, budgets)[:3] for size in sizes.max(axis=1)], np.float64)
    padded, real = sizes.shape[1] * shapes.sum(axis=0), sizes.sum(axis=(0, 1))
    names = ("nodes", "edges", "triplets")
    return {name: 100.0 * (1.0 - real[k] / padded[k]) for k, name in enumerate(names) if padded[k]}
