"""From structures to padded batches of static shape: build_graph, take, pad, and the order of an epoch.

Ghosts (see ``pad``) are harmless physics, not zeros: they fill a batch up to its budget without reaching a real atom
and without a NaN in any derivative of any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_tools.graph import AtomGraph, Budget, DataError, GraphBatch, GraphInputs, Labels, Structure
from data_tools.graphs.neighbors import molecule_pairs, periodic_pairs, ragged_range
from data_tools.graphs.packed import PackedGraphs
from data_tools.graphs.triplets import pair_triplets


class RaggedBatch(NamedTuple):
    """Several graphs as flat arrays without padding; atom and pair numbers count through the batch (P pairs)."""

    numbers: np.ndarray  # (N,)
    positions: np.ndarray  # (N, 3) Angstrom
    n_atoms: np.ndarray  # (G,)
    receivers: np.ndarray  # (P,)
    senders: np.ndarray  # (P,)
    shifts: np.ndarray | None  # (P, 3) Angstrom; None means zero
    n_pairs: np.ndarray  # (G,)
    triplet_in: np.ndarray  # (T,) edges in the paired order of the batch: e < P, and its reverse e + P
    triplet_out: np.ndarray  # (T,) ascending


NO_TRIPLETS = np.zeros(0, np.int32)
GHOST_EDGES = 4  # that ghost triplets need: a pair along x and a pair along y


def build_graph(structure: Structure, cutoff: float, triplets: bool = False) -> AtomGraph:
    """The graph of one structure: every edge shorter than ``cutoff`` (Angstrom), both directions, no cap.

    Args:
        structure: a molecule or a crystal.
        cutoff: Angstrom.
        triplets: whether to list them, for models that use them.

    Raises:
        DataError: two atoms coincide.
    """
    size = len(structure.numbers)
    if structure.cell is None:
        pairs = molecule_pairs(structure.positions, np.array([size]), cutoff, lambda _: structure.name or "structure")
        receivers, senders, shifts = pairs[0], pairs[1], np.zeros((len(pairs[0]), 3))
    else:
        receivers, senders, shifts = periodic_pairs(structure.positions, structure.cell, cutoff, structure.name)
    graph = AtomGraph(
        numbers=np.asarray(structure.numbers, np.int32),
        positions=np.asarray(structure.positions, np.float64),
        senders=np.concatenate((senders, receivers)).astype(np.int32),
        receivers=np.concatenate((receivers, senders)).astype(np.int32),
        shifts=np.concatenate((shifts, -shifts)),
        triplet_in=NO_TRIPLETS,
        triplet_out=NO_TRIPLETS,
    )
    return with_triplets(graph) if triplets else graph


def with_triplets(graph: AtomGraph) -> AtomGraph:
    """The same graph with all triplets between its edges."""
    half = len(graph.senders) // 2
    into, out = pair_triplets(graph.receivers[:half], graph.senders[:half], len(graph.numbers))
    return dataclasses.replace(graph, triplet_in=into, triplet_out=out)


def join(graphs: Sequence[AtomGraph]) -> RaggedBatch:
    """Several graphs, one after the other."""
    n_atoms = np.array([len(graph.numbers) for graph in graphs], np.int64)
    n_pairs = np.array([len(graph.senders) // 2 for graph in graphs], np.int64)
    atoms_before = np.cumsum(n_atoms) - n_atoms
    pairs_before = np.cumsum(n_pairs) - n_pairs
    total = int(n_pairs.sum())
    halves = [slice(0, count) for count in n_pairs]

    def edges_of_batch(graph: int, edges: np.ndarray) -> np.ndarray:
        """Edge numbers of one graph to those of the batch, where the reverse half starts at the batch's P."""
        if not len(edges):
            return edges  # a batch may hold a hundred graphs, and most models use no triplets
        own = n_pairs[graph]
        return np.where(edges < own, edges, edges - own + total) + pairs_before[graph]

    triplet_in = np.concatenate([edges_of_batch(k, graph.triplet_in) for k, graph in enumerate(graphs)])
    triplet_out = np.concatenate([edges_of_batch(k, graph.triplet_out) for k, graph in enumerate(graphs)])
    order = np.argsort(triplet_out, kind="stable")  # the reverse halves of all graphs stand behind the first halves
    return RaggedBatch(
        numbers=np.concatenate([graph.numbers for graph in graphs]),
        positions=np.concatenate([graph.positions for graph in graphs]),
        n_atoms=n_atoms,
        receivers=np.concatenate([g.receivers[h] + a for g, h, a in zip(graphs, halves, atoms_before, strict=True)]),
        senders=np.concatenate([g.senders[h] + a for g, h, a in zip(graphs, halves, atoms_before, strict=True)]),
        shifts=np.concatenate([g.shifts[h] for g, h in zip(graphs, halves, strict=True)]),
        n_pairs=n_pairs,
        triplet_in=triplet_in[order],
        triplet_out=triplet_out[order],
    )


def take(packed: PackedGraphs, rows: np.ndarray) -> RaggedBatch:
    """The graphs of the given rows of a packed data set, in that order (no Python loop over molecules).

    Triplets are made here, where the data set's batches carry them.
    """
    table = packed.table
    n_atoms, n_pairs = table.n_atoms[rows], packed.n_pairs[rows]
    atoms = packed.atoms_of(rows)
    pairs = ragged_range(packed.pair_starts[rows], n_pairs)
    before = np.repeat(np.cumsum(n_atoms) - n_atoms, n_pairs)
    receivers, senders = packed.pair_receivers[pairs] + before, packed.pair_senders[pairs] + before
    into, out = pair_triplets(receivers, senders, len(atoms)) if packed.triplets else (NO_TRIPLETS, NO_TRIPLETS)
    return RaggedBatch(
        numbers=table.numbers[atoms],
        positions=table.positions[atoms],
        n_atoms=n_atoms,
        receivers=receivers,
        senders=senders,
        shifts=None if packed.pair_shifts is None else packed.pair_shifts[pairs],
        n_pairs=n_pairs,
        triplet_in=into,
        triplet_out=out,
    )


def pad(
    batch: RaggedBatch,
    budget: Budget,
    cutoff: float,
    dtype: type = np.float32,
    labels: Labels | None = None,
    ids: np.ndarray | None = None,
) -> GraphBatch:
    """Fill a batch up to its budget with ghosts; the only maker of ``GraphBatch``.

    All ghost nodes belong to the last graph.  Ghost edges are self-loops of the last node (the sink) with shifts of one
    cutoff along x, y, z in turn, so every envelope is exactly 0 there; ghost triplets pair an x edge with a y edge, so
    every angle is 90 degrees.  No message reaches a real node and every derivative stays finite.  Out edges still
    ascend.

    Args:
        batch: real graphs.
        budget: static shapes, ghosts included; edges even.
        cutoff: Angstrom, length of the ghost edges.
        dtype: of floating arrays.
        labels: of the real graphs and nodes; they become ``targets``, ``masks`` and ``probes``.
        ids: positions of the graphs in their data set, kept for error messages.

    Raises:
        DataError: the batch does not fit, with the differences; or the labels are not those of its graphs or nodes.
    """
    nodes, pairs, graphs, triplets = len(batch.numbers), len(batch.senders), len(batch.n_atoms), len(batch.triplet_in)
    _check_fits(Budget(nodes, 2 * pairs, triplets, graphs), budget)
    half, sink = budget.edges // 2, budget.nodes - 1

    numbers = _filled(batch.numbers, budget.nodes, 0, np.int32)
    positions = _filled(batch.positions, budget.nodes, 0, dtype)
    senders = np.full(budget.edges, sink, np.int32)
    receivers = np.full(budget.edges, sink, np.int32)
    senders[:pairs], senders[half : half + pairs] = batch.senders, batch.receivers
    receivers[:pairs], receivers[half : half + pairs] = batch.receivers, batch.senders
    shifts: np.ndarray = np.zeros((budget.edges, 3), dtype)
    if batch.shifts is not None:
        shifts[:pairs] = batch.shifts
    ghosts = np.arange(pairs, half)
    shifts[ghosts, (ghosts - pairs) % 3] = cutoff
    shifts[half:] = -shifts[:half]

    node_graph = np.full(budget.nodes, budget.graphs - 1, np.int32)
    node_graph[:nodes] = np.repeat(np.arange(graphs, dtype=np.int32), batch.n_atoms)
    inputs = GraphInputs(
        numbers=numbers,
        positions=positions,
        senders=senders,
        receivers=receivers,
        shifts=shifts,
        # the first ghost pair lies along x, the second along y; a real edge of the reverse half moves with that half
        triplet_in=_filled(_moved(batch.triplet_in, pairs, half), budget.triplets, half + pairs, np.int32),
        triplet_out=_filled(_moved(batch.triplet_out, pairs, half), budget.triplets, half + pairs + 1, np.int32),
        node_graph=node_graph,
        node_mask=_filled(np.ones(nodes), budget.nodes, 0, dtype),
        graph_mask=_filled(np.ones(graphs), budget.graphs, 0, dtype),
    )
    targets, masks, probes = _padded_labels(labels or Labels({}, {}), batch, budget, dtype)
    order = np.zeros(0, np.int64) if ids is None else np.asarray(ids, np.int64)
    return GraphBatch(inputs, targets, masks, probes, order)


def _check_fits(needed: Budget, budget: Budget) -> None:
    """One node and one graph stay free for the ghosts; ghost triplets need an x and a y ghost pair."""
    ghost_edges = GHOST_EDGES if budget.triplets > needed.triplets else 0
    over = Budget(
        needed.nodes + 1 - budget.nodes,
        needed.edges + ghost_edges - budget.edges,
        needed.triplets - budget.triplets,
        needed.graphs + 1 - budget.graphs,
    )
    if max(over) > 0 or budget.edges % 2:
        raise DataError(
            f"the graphs do not fit the budget {tuple(budget)} (nodes, edges, triplets, graphs; edges even): it lacks "
            f"{max(over.nodes, 0)} nodes, {max(over.edges, 0)} edges, {max(over.triplets, 0)} triplets and "
            f"{max(over.graphs, 0)} graphs; use a larger budget or fewer structures in a batch"
        )


def _filled(values: np.ndarray, length: int, ghost: float, dtype: type) -> np.ndarray:
    out: np.ndarray = np.full((length, *values.shape[1:]), ghost, dtype)
    out[: len(values)] = values
    return out


def _moved(edges: np.ndarray, pairs: int, half: int) -> np.ndarray:
    """Edge numbers after padding: the reverse of edge e stands at e + half instead of e + P."""
    return np.where(edges < pairs, edges, edges - pairs + half)


def _padded_labels(
    labels: Labels, batch: RaggedBatch, budget: Budget, dtype: type
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray | None]:
    """Targets, masks and probes of a batch; each label is padded to the graphs or the nodes, by its owner."""
    graphs, nodes = len(batch.n_atoms), len(batch.numbers)
    owners = (labels.of_graphs, graphs, budget.graphs, "graph"), (labels.of_nodes, nodes, budget.nodes, "node")
    targets: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for arrays, count, length, owner in owners:
        for name, values in arrays.items():
            if len(values) != count or name in targets:
                twice = " and one of the graphs of the same name" if name in targets else ""
                raise DataError(
                    f"label {name}: expected one row for each {owner}, {count} in this batch, got {len(values)}{twice}"
                )
            known = np.isfinite(values)
            target: np.ndarray = np.zeros((length, *values.shape[1:]), dtype)
            np.copyto(target[:count], values, casting="same_kind", where=known)
            targets[name] = target
            masks[name] = _filled(known, length, 0, dtype)
    if labels.probes is None:
        return targets, masks, None
    if labels.probes.shape != (nodes, 3):
        raise DataError(f"probes: expected shape {(nodes, 3)}, got {labels.probes.shape}")
    return targets, masks, _filled(labels.probes, budget.nodes, 0, dtype)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of ``count`` training rows in an epoch: a function of (seed, epoch), so a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def chunks(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches; the last may be smaller."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


def shards(rows: np.ndarray, sizes: np.ndarray, parts: int) -> list[np.ndarray]:
    """A batch divided into ``parts`` of nearly equal size, for as many processes; each keeps the order of the rows.

    The largest are dealt first, in turn and then in reverse turn.

    Args:
        rows: (M,) rows of the batch.
        sizes: (M,) their cost, e.g. pairs.
        parts: number of processes; with fewer rows than that, some parts are empty.
    """
    if parts == 1:
        return [rows]
    place = np.empty(len(rows), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(rows))
    turn, seat = place // parts, place % parts
    owner = np.where(turn % 2 == 0, seat, parts - 1 - seat)
    return [rows[owner == part] for part in range(parts)]


def balanced_chunks(rows: np.ndarray, sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of nearly equal size for evaluation, where order is free: sorted by size and dealt in turn.

    Args:
        rows: rows to distribute.
        sizes: their cost, e.g. pairs, same length as ``rows``.
        batch_size: the most graphs in a batch.
    """
    count = -(-len(rows) // batch_size)
    order = rows[np.argsort(-sizes, kind="stable")]
    dealt = [order[k::count] for k in range(count)]
    return [batch for batch in dealt if len(batch)]
