"""Triplets against three nested loops and the list of the original, however the graphs come, and with ghosts."""

import dataclasses
import itertools
from pathlib import Path

import ase.build
import numpy as np
import pytest

from data_tools.graph import Budget, DataError, Structure, StructureTable
from data_tools.graphs.batching import build_graph, join, pad, shards, take
from data_tools.graphs.budgets import batch_sizes, choose_budgets
from data_tools.graphs.loader import evaluation_batches, training_batches
from data_tools.graphs.packed import pack
from data_tools.graphs.triplets import count_triplets, pair_triplets
from data_tools.labels.providers import StoredLabels

GOLDEN = Path(__file__).parents[1] / "golden" / "dimenetpp_pyg_small.npz"
CUTOFF = 3.0


def structure(atoms, periodic=False):
    cell = np.array(atoms.cell) if periodic else None
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, cell)


def rattled(name, seed):
    atoms = ase.build.molecule(name)
    atoms.rattle(0.05, seed=seed)
    return structure(atoms)


MOLECULES = {name: rattled(name, seed) for seed, name in enumerate(("CH3CH2OH", "H", "C6H6", "H2", "H2O"))}
SKEWED = ase.Atoms("HO", [[0.1, 0.2, 0.3], [1.1, 0.4, 2.0]], cell=[[3, 0, 0], [1.5, 2.7, 0], [0.4, -1.2, 3.1]])
CRYSTALS = {
    "an atom and its images": (structure(ase.build.bulk("Cu"), True), 4.0),
    "two atoms": (structure(ase.build.bulk("NaCl", "rocksalt", 5.64), True), 4.1),
    "skewed": (structure(SKEWED, True), 3.6),
    "one pair of images": (Structure(np.array([1], np.int32), np.zeros((1, 3)), np.diag([2.0, 9.0, 9.0])), 3.0),
}
STRUCTURES = {name: (one, CUTOFF) for name, one in MOLECULES.items()} | CRYSTALS


def by_loops(senders, receivers, shifts, real):
    """(out, in) for each pair of edges that meet, unless one is the other turned round, the image included."""
    return [
        (out, into)
        for out in real
        for into in real
        if receivers[into] == senders[out]
        and not (senders[into] == receivers[out] and np.allclose(shifts[into], -shifts[out], atol=1e-6))
    ]


def listed(graph):
    return list(zip(graph.triplet_out.tolist(), graph.triplet_in.tolist(), strict=True))


@pytest.mark.parametrize("name", STRUCTURES)
def test_triplets_of_a_structure(name):
    graph = build_graph(*STRUCTURES[name], triplets=True)
    half = len(graph.senders) // 2
    assert listed(graph) == by_loops(graph.senders, graph.receivers, graph.shifts, range(2 * half))  # in this order
    assert graph.triplet_in.dtype == graph.triplet_out.dtype == np.int32
    degrees = np.bincount(graph.receivers, minlength=len(graph.numbers))
    count = count_triplets(np.array([len(degrees)]), np.array([half]), graph.receivers[:half], graph.senders[:half])
    assert len(graph.triplet_in) == (degrees * (degrees - 1)).sum() == count[0]
    expected = {"H": 0, "H2": 0, "H2O": 6, "an atom and its images": 18 * 17, "two atoms": 2 * 18 * 17}
    assert len(graph.triplet_in) == expected.get(name, len(graph.triplet_in))
    assert not len(build_graph(*STRUCTURES[name]).triplet_in)


def test_images_count():
    """In a chain of one atom only the edge to the neighbour it came from is left out, not the one to the other side."""
    graph = build_graph(*CRYSTALS["one pair of images"], triplets=True)
    assert listed(graph) == [(0, 0), (1, 1)]  # straight on, twice the same edge one cell further


def test_triplets_are_those_of_the_original():
    golden = np.load(GOLDEN)
    starts = np.searchsorted(golden["batch"], np.arange(golden["batch"].max() + 2))
    graphs = [
        build_graph(Structure(golden["z"][first:last], golden["pos"][first:last]), 5.0, triplets=True)
        for first, last in itertools.pairwise(starts)
    ]
    batch = join(graphs)
    edges = np.stack((np.r_[batch.senders, batch.receivers], np.r_[batch.receivers, batch.senders]), 1).tolist()
    theirs = golden["edge_index"].T.tolist()
    found = {(*edges[into], *edges[out]) for into, out in zip(batch.triplet_in, batch.triplet_out, strict=True)}
    expected = {(*theirs[into], *theirs[out]) for into, out in zip(golden["idx_kj"], golden["idx_ji"], strict=True)}
    assert found == expected and len(found) == len(batch.triplet_in) == len(golden["idx_kj"])


def packed_of(structures, cutoff):
    cells = np.stack([np.zeros((3, 3)) if one.cell is None else one.cell for one in structures])
    table = StructureTable(
        numbers=np.concatenate([one.numbers for one in structures]),
        positions=np.concatenate([one.positions for one in structures]),
        n_atoms=np.array([len(one.numbers) for one in structures]),
        ids=np.arange(len(structures)),
        cells=cells if cells.any() else None,
    )
    return dataclasses.replace(pack(table, cutoff), triplets=True)


@pytest.fixture(params=["molecules", "crystals too"])
def structures(request):
    return [*MOLECULES.values(), *([one for one, _ in CRYSTALS.values()] if request.param != "molecules" else [])]


def test_rows_of_a_data_set_and_joined_graphs_have_the_same_triplets(structures):
    packed = packed_of(structures, CUTOFF)
    rows = np.random.default_rng(0).permutation(np.r_[: len(structures), 0, 2])
    taken, joined = take(packed, rows), join([build_graph(structures[row], CUTOFF, triplets=True) for row in rows])
    for name in ("senders", "receivers", "triplet_in", "triplet_out"):
        assert np.array_equal(getattr(taken, name), getattr(joined, name)), name
    assert taken.triplet_out.dtype == np.int32 and packed.n_triplets[rows].sum() == len(taken.triplet_out) > 0
    plain = dataclasses.replace(packed, triplets=False)
    assert not len(take(plain, rows).triplet_in) and not plain.n_triplets.any()
    assert np.array_equal(plain.costs, 2 * plain.n_pairs) and (packed.costs - plain.costs == packed.n_triplets).all()


@pytest.mark.parametrize("ghosts", [0, 11])
def test_padding_keeps_triplets_and_their_order(structures, ghosts):
    batch = take(packed_of(structures, CUTOFF), np.arange(len(structures))[::-1])
    nodes, pairs, count = len(batch.numbers), len(batch.senders), len(batch.triplet_in)
    budget = Budget(nodes + 3, 2 * (pairs + 7), count + ghosts, len(structures) + 2)
    inputs = pad(batch, budget, CUTOFF, np.float64).inputs
    half, real = budget.edges // 2, np.r_[:pairs, pairs + 7 : 2 * pairs + 7]
    assert listed(inputs)[:count] == by_loops(inputs.senders, inputs.receivers, inputs.shifts, real)
    assert inputs.triplet_in.dtype == np.int32 and (np.diff(inputs.triplet_out) >= 0).all()
    vectors = inputs.positions[inputs.senders] + inputs.shifts - inputs.positions[inputs.receivers]
    into, out = inputs.triplet_in[count:], inputs.triplet_out[count:]
    assert len(into) == ghosts and (np.r_[into, out] % half >= pairs).all()
    assert (inputs.receivers[into] == inputs.senders[out]).all()
    assert ((vectors[into] * vectors[out]).sum(-1) == 0).all()  # right angles, one cutoff long
    assert (np.linalg.norm(vectors[np.r_[into, out]], axis=-1) == CUTOFF).all()


@pytest.mark.parametrize("names", [["H2"], ["H"], ["H", "H2", "H"], []])
def test_batches_without_a_triplet_get_ghosts(names):
    """No tensor of a model that uses triplets may be empty."""
    every = ["H", "H2", "H2O"]
    packed = packed_of([MOLECULES[name] for name in every], CUTOFF)
    rows = np.array([every.index(name) for name in names], int)
    budget = choose_budgets(batch_sizes(packed, [rows]) if names else np.zeros((1, 3), int), 3, 1, packed.triplets)[0]
    inputs = pad(take(packed, rows), budget, CUTOFF).inputs
    assert len(inputs.triplet_in) == budget.triplets > 0
    sink = budget.nodes - 1
    assert (inputs.senders[inputs.triplet_in] == sink).all() and (inputs.receivers[inputs.triplet_out] == sink).all()


def test_counts_do_not_depend_on_the_chunk_size(monkeypatch, structures):
    packed = packed_of(structures, CUTOFF)
    monkeypatch.setattr("data_tools.graphs.triplets.PAIRS_AT_ONCE", 5)
    assert np.array_equal(packed.n_triplets, [len(take(packed, np.array([k])).triplet_in) for k in range(len(packed))])


def test_more_triplets_than_an_index_can_count_are_refused(monkeypatch):
    monkeypatch.setattr("data_tools.graphs.triplets.MOST", 5)
    with pytest.raises(DataError, match=r"3 atoms with 6 edges: expected at most 5 triplets in a batch, found 6; use"):
        pair_triplets(np.array([0, 0, 1]), np.array([1, 2, 2]), 3)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_batch_of_a_run_has_its_triplets(processes):
    """Also where a part of a batch, or the whole of it, has none."""
    names = np.random.default_rng(1).choice([*MOLECULES, "H2", "H"], 41)
    packed = packed_of([MOLECULES[name] for name in names], CUTOFF)
    rows, found = np.arange(len(packed)), np.zeros(3, int)
    for rank in range(processes):
        batches = training_batches(packed, rows, StoredLabels(packed), 4, 0, 3, 3, np.float32, rank, processes)
        for epoch in range(3):
            for batch in batches.epoch(epoch):
                inputs, real = batch.part.inputs, take(packed, batch.part.ids)
                count = len(real.triplet_in)
                owners = inputs.node_graph[inputs.senders[inputs.triplet_in]]
                assert (owners[:count] < len(real.n_atoms)).all() and not inputs.graph_mask[owners[count:]].any()
                found[epoch] += count
        assert all(len(ghosts.inputs.triplet_in) for ghosts in batches.ghost_batches())
        assert 0 < batches.waste["triplets"] < 100
    assert (found == packed.n_triplets.sum()).all()
    evaluated = [len(take(packed, rows[batch.ids]).triplet_in) for batch in evaluation_batches(packed, rows, 8)]
    assert sum(evaluated) == packed.n_triplets.sum() and max(evaluated) < 2 * np.mean(evaluated)


def test_parts_of_a_batch_have_nearly_the_same_triplets():
    """Ethanol (504 triplets at 5 Angstrom) and five atoms in a row that all neighbour each other (60)."""
    row = Structure(np.ones(5, np.int32), np.arange(5)[:, None] * np.array([0.9, 0, 0]))
    packed = packed_of([MOLECULES["CH3CH2OH"], row, row, row, row, MOLECULES["CH3CH2OH"]], 5.0)
    assert packed.n_triplets.tolist() == [504, 60, 60, 60, 60, 504]
    parts = shards(np.arange(6), packed.costs, 2)
    assert batch_sizes(packed, parts)[:, 2].tolist() == [624, 624]
