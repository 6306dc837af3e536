"""A stream of probes in batches: every probe once and in order, batches of equal weight, few shapes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import molecule, molecules

from data_tools.graph import StructureTable
from data_tools.graphs.batching import build_graph
from data_tools.graphs.budgets import fitting
from data_tools.graphs.packed import pack
from data_tools.graphs.probes import SHAPES, batches_of_probes, ragged_of, sizes_of

AT_ONCE = 1000


def batches_of(sizes, rows, compilation=0):
    """Batches of a stream with so many probes of each structure, after a check that none is lost and that all fit."""
    sizes, owners = np.array(sizes), np.repeat(np.arange(len(sizes)), rows)
    batches = batches_of_probes(sizes, owners, AT_ONCE, compilation)
    covered = [number for part, _ in batches for number in range(part.start, part.stop)]
    assert covered == list(range(len(owners)))
    totals = np.array([sizes[owners[part]].sum(axis=0) for part, _ in batches])
    for (part, budget), total in zip(batches, totals, strict=True):
        assert budget == fitting(total, batches.budgets)
        assert budget.graphs > part.stop - part.start
    return batches, totals


def test_batches_of_one_structure_are_equal_and_share_a_shape():
    batches, totals = batches_of([(9, 72, 0)], [27])
    assert totals[:, 1].tolist() == [9 * 72] * 3, "not 13, 13 and 1"
    batches, totals = batches_of([(60, 300, 0)], [180], compilation=10**6)
    assert set(totals[:, 1]) == {900} and len(batches) == 60 and len(batches.budgets) == 1


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_many_structures(seed):
    """No batch is too full but for a structure that is too large by itself, and few are nearly empty."""
    random = np.random.default_rng(seed)
    edges = 2 * random.integers(1, AT_ONCE // 4, 300)
    batches, totals = batches_of(np.stack((edges // 8 + 1, edges, 3 * edges), axis=1), random.integers(0, 40, 300))
    costs = totals.max(axis=1)
    assert all(cost <= AT_ONCE or part.stop - part.start == 1 for cost, (part, _) in zip(costs, batches, strict=True))
    assert (costs[:-1] + costs[1:]).mean() > AT_ONCE
    assert len(batches.budgets) <= SHAPES and sum(budget.nodes > 0 for budget in batches.budgets) > 1


def test_structures_that_are_too_large_stand_alone():
    batches, _ = batches_of([(30, 200, 0), (500, 5000, 0), (30, 200, 0)], [30, 3, 30])
    sizes = [part.stop - part.start for part, budget in batches if budget.edges > 5000]
    assert sizes == [1, 1, 1] and max(part.stop - part.start for part, _ in batches) <= 6


def test_atoms_without_neighbours_fill_a_batch_too():
    batches, totals = batches_of([(1, 0, 0), (500, 4, 0)], [3000, 3])
    assert totals[:, 0].max() <= AT_ONCE
    assert all(budget.edges and budget.triplets for budget in batches.budgets), "tensors must not be empty"


def test_a_shape_must_save_more_than_its_compilation_costs():
    sizes, rows = [(10, 500, 0), (100, 10_000, 0)], [30, 30]
    padding = 15 * 9_000  # edges, at one shape
    assert len(batches_of(sizes, rows, compilation=padding // 2)[0].budgets) == 2
    assert len(batches_of(sizes, rows, compilation=padding * 2)[0].budgets) == 1


def test_no_probes():
    batches = batches_of_probes(np.array([(3, 6, 0)]), np.zeros(0, np.int64), AT_ONCE, 0)
    assert len(batches) == 0 and not list(batches)


@pytest.mark.parametrize("triplets", [False, True])
def test_packed_structures_are_the_same_as_graphs(triplets):
    structures = [*molecules(), molecule("H2")]
    table = StructureTable(
        np.concatenate([one.numbers for one in structures]), np.concatenate([one.positions for one in structures]),
        np.array([len(one.numbers) for one in structures]), np.arange(4),
    )  # fmt: skip
    packed = pack(table, 3.0)
    object.__setattr__(packed, "triplets", triplets)
    graphs = [build_graph(structure, 3.0, triplets) for structure in structures]
    assert np.array_equal(sizes_of(packed), sizes_of(graphs)) and sizes_of(graphs)[:, 2].any() == triplets
    owners = np.array([2, 2, 0, 3, 1])
    taken, joined = ragged_of(packed, owners), ragged_of(graphs, owners)
    for name, one, other in zip(taken._fields, taken, joined, strict=True):
        if name.startswith("triplet"):
            assert len(one) == len(other)
        elif one is not None:
            assert np.array_equal(one, other), name
    assert sizes_of([]).shape == (0, 3)
