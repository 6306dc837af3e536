"""Static shapes: optimal on small inputs against brute force, and good enough on the shipped molecules."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_tools import qm9
from data_tools.formats.readers import read_table
from data_tools.graph import Budget, DataError
from data_tools.graphs.batching import chunks, epoch_order, shards, take
from data_tools.graphs.budgets import MARGIN, batch_sizes, choose_budgets, fitting, run_sizes, waste
from data_tools.graphs.packed import pack


@pytest.fixture(scope="module")
def packed():
    return pack(read_table(qm9.SAMPLE_FILE), 5.0)


def sizes_of(edges, atoms=None, triplets=None):
    edges = np.asarray(edges)
    return np.stack((edges // 10 if atoms is None else atoms, edges, 0 * edges if triplets is None else triplets), 1)


def total_cost(sizes, budgets):
    return sum(sum(fitting(size, budgets)[:3]) for size in sizes)


def brute_force_cost(sizes, max_shapes):
    """The cheapest padded total over every choice of up to ``max_shapes`` batches as shapes, without rounding."""
    order = np.maximum.accumulate(sizes[np.argsort(sizes[:, 1] + sizes[:, 2], kind="stable")], axis=0)
    best = np.inf
    for count in range(max_shapes):
        for inner in itertools.combinations(range(len(order) - 1), count):
            ends = [*inner, len(order) - 1]
            starts = [0, *[end + 1 for end in inner]]
            cost = sum((end - start + 1) * order[end].sum() for start, end in zip(starts, ends, strict=True))
            best = min(best, cost)
    return best


@pytest.mark.parametrize("max_shapes", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_choice_is_optimal(monkeypatch, max_shapes, seed):
    monkeypatch.setattr(
        "data_tools.graphs.budgets._rounded", lambda size, graphs, _: Budget(*map(int, size), graphs + 1)
    )
    random = np.random.default_rng(seed)
    edges = 2 * random.integers(50, 400, 11)
    sizes = sizes_of(edges, random.integers(10, 60, 11), random.integers(0, 900, 11))
    budgets = choose_budgets(sizes, 8, max_shapes)
    assert len(budgets) <= max_shapes
    cost = sum(min(sum(budget[:3]) for budget in budgets if all(size <= budget[:3])) for size in sizes)
    assert cost <= brute_force_cost(sizes, max_shapes)


def test_every_batch_fits_and_shapes_ascend():
    random = np.random.default_rng(0)
    sizes = sizes_of(2 * random.integers(200, 900, 500), random.integers(50, 90, 500))
    budgets = choose_budgets(sizes, 16, 4)
    assert 1 <= len(budgets) <= 4 and budgets == sorted(budgets)
    assert all(budget.edges % 32 == 0 and budget.nodes % 8 == 0 and budget.graphs == 17 for budget in budgets)
    for size in sizes:
        budget = fitting(size, budgets)
        assert size[0] < budget.nodes and size[1] <= budget.edges
    one = choose_budgets(sizes, 16, 1)
    assert len(one) == 1 and total_cost(sizes, budgets) < total_cost(sizes, one)


def test_equal_batches_need_one_shape():
    assert len(choose_budgets(sizes_of([100] * 30), 4, 4)) == 1
    assert choose_budgets(sizes_of([100]), 4, 3) == [Budget(16, 128, 0, 5)]


def test_bad_requests_are_refused():
    with pytest.raises(DataError, match="shapes 0: expected 1 or more"):
        choose_budgets(sizes_of([100]), 4, 0)
    with pytest.raises(DataError, match="a batch of 90 atoms, 900 edges and 0 triplets exceeds the largest budget"):
        fitting(np.array([90, 900, 0]), choose_budgets(sizes_of([100, 200]), 4, 2))


def test_sizes_are_those_of_the_batches(packed):
    batches = chunks(epoch_order(100, 0, 0), 16)
    for size, rows in zip(batch_sizes(packed, batches), batches, strict=True):
        batch = take(packed, rows)
        assert size.tolist() == [len(batch.numbers), 2 * len(batch.senders), 0]


def test_a_run_is_covered_to_its_last_epoch(packed):
    rows = np.arange(0, 3000, 7)
    sizes = run_sizes(packed, rows, 16, seed=5, epochs=4)[:, 0]
    assert len(sizes) == 4 * -(-len(rows) // 16)
    budgets = choose_budgets(sizes, 16, 3)
    for epoch in range(4):
        for size in batch_sizes(packed, chunks(rows[epoch_order(len(rows), 5, epoch)], 16)):
            fitting(size, budgets)


def test_a_long_run_is_sampled_and_given_a_margin(packed, monkeypatch):
    monkeypatch.setattr("data_tools.graphs.budgets.SIMULATED_ROWS", 10_100)
    rows = np.arange(400)
    sizes = run_sizes(packed, rows, 16, seed=0, epochs=1000)[:, 0]
    assert len(sizes) == 25 * 25 + 1  # 25 epochs fit into so many rows
    assert (sizes[-1] >= MARGIN * sizes[:-1].max(axis=0)).all()
    budgets = choose_budgets(sizes, 16, 3)
    for epoch in range(25, 60):
        for size in batch_sizes(packed, chunks(rows[epoch_order(400, 0, epoch)], 16)):
            fitting(size, budgets)


@pytest.mark.parametrize("batch_size", [16, 32, 128])
def test_waste_on_the_shipped_molecules(packed, batch_size):
    """The promise: under 10 % of the edges at batch 32 and 128, with at most 4 shapes."""
    sizes = run_sizes(packed, np.arange(10_000), batch_size, seed=0, epochs=3)[:, 0]
    budgets = choose_budgets(sizes, batch_size, 4)
    lost = waste(sizes[:, None], budgets)
    assert len(budgets) <= 4 and 0 < lost["edges"] < 10 and 0 < lost["nodes"] < 10
    padded = np.array([fitting(size, budgets)[1] for size in sizes])
    assert lost["edges"] == pytest.approx(100 * (1 - sizes[:, 1].sum() / padded.sum()))


def test_waste_of_triplets_on_the_shipped_molecules(packed):
    """The promise: under 12 % of the triplets at batch 32, with at most 4 shapes."""
    carried = dataclasses.replace(packed, triplets=True)
    sizes = run_sizes(carried, np.arange(10_000), 32, seed=0, epochs=3)[:, 0]
    budgets = choose_budgets(sizes, 32, 4, carried.triplets)
    lost = waste(sizes[:, None], budgets)
    assert len(budgets) <= 4 and 0 < lost["triplets"] < 12 and lost["edges"] < 10 and lost["nodes"] < 10
    for rows, size in zip(chunks(epoch_order(10_000, 0, 0), 32)[:3], sizes, strict=False):
        assert len(take(carried, rows).triplet_in) == size[2]


def test_a_shape_has_room_for_the_edges_of_ghost_triplets():
    sizes = np.array([[20, 90, 300], [22, 93, 240]])
    budget = choose_budgets(sizes, 4, 1, triplets=True)[0]
    assert budget == Budget(24, 128, 512, 5)
    assert choose_budgets(sizes * [1, 1, 0], 4, 1, triplets=True)[0].triplets == 256  # no tensor is empty
    wider = budget._replace(edges=160)
    assert [fitting((20, edges, 300), [budget, wider]) for edges in (124, 126)] == [budget, wider]
    assert fitting((20, 128, 0), [budget._replace(triplets=0)]).edges == 128


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_of_a_batch_are_of_nearly_equal_size(packed, processes):
    """All processes run the shape of the largest part, so what the others lack is waste."""
    rows = np.arange(5000)
    whole = run_sizes(packed, rows, 32, seed=3, epochs=2)
    parts = run_sizes(packed, rows, 32, seed=3, epochs=2, parts=processes)
    np.testing.assert_array_equal(parts.sum(axis=1), whole[:, 0])
    full = parts[:150]
    assert (full[:, :, 1].max(axis=1) / full[:, :, 1].mean(axis=1)).mean() < 1.05
    budgets = choose_budgets(parts.max(axis=1), 32 // processes, 4)
    assert waste(parts, budgets)["edges"] < 15


def test_a_batch_smaller_than_the_processes_leaves_some_without_any(packed):
    assert [len(part) for part in shards(np.arange(2), np.array([3, 5]), 4)] == [1, 1, 0, 0]
    sizes = batch_sizes(packed, shards(np.arange(2), packed.n_pairs[:2], 4))
    assert (sizes[:2, 0] > 0).all() and not sizes[2:].any()
