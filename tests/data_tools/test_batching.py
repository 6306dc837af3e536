"""What a padded batch promises: the law of pairs, ghosts that touch nothing, and the same graphs by either way in."""

import ase.build
import numpy as np
import pytest

from data_tools.graph import Budget, DataError, GraphInputs, Labels, Structure, StructureTable
from data_tools.graphs.batching import balanced_chunks, build_graph, chunks, epoch_order, join, pad, take
from data_tools.graphs.packed import pack

CUTOFF = 3.0
BUDGET = Budget(nodes=40, edges=300, triplets=0, graphs=6)


def structures(seed=0):
    random = np.random.default_rng(seed)
    names = ("CH3CH2OH", "H2O", "C6H6", "H")
    return [
        Structure(atoms.numbers.astype(np.int32), atoms.positions + random.normal(0, 0.05, atoms.positions.shape))
        for atoms in map(ase.build.molecule, names)
    ]


def table_of(molecules, **extra):
    return StructureTable(
        numbers=np.concatenate([m.numbers for m in molecules]),
        positions=np.concatenate([m.positions for m in molecules]),
        n_atoms=np.array([len(m.numbers) for m in molecules]),
        ids=np.arange(len(molecules)),
        **extra,
    )


def joined(molecules=None):
    return join([build_graph(one, CUTOFF) for one in molecules or structures()])


def same_inputs(first, second):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))


@pytest.fixture
def crystals():
    result = []
    for atoms in (ase.build.bulk("Cu"), ase.build.bulk("NaCl", "rocksalt", 5.64)):
        result.append(Structure(atoms.numbers.astype(np.int32), atoms.positions, np.array(atoms.cell)))
    return result


def test_shapes_and_types_are_those_of_the_table():
    inputs = pad(joined(), BUDGET, CUTOFF).inputs
    nodes, edges, triplets, graphs = BUDGET
    shapes = [
        (nodes,),
        (nodes, 3),
        (edges,),
        (edges,),
        (edges, 3),
        (triplets,),
        (triplets,),
        (nodes,),
        (nodes,),
        (graphs,),
    ]
    assert [array.shape for array in inputs] == shapes
    floats = {"positions", "shifts", "node_mask", "graph_mask"}
    for name, array in zip(GraphInputs._fields, inputs, strict=True):
        assert array.dtype == (np.float32 if name in floats else np.int32), name
        assert array.flags.c_contiguous
    assert pad(joined(), BUDGET, CUTOFF, np.float64).inputs.positions.dtype == np.float64


def test_real_part_is_the_graphs_one_after_the_other():
    graphs = [build_graph(one, CUTOFF) for one in structures()]
    inputs = pad(join(graphs), BUDGET, CUTOFF, np.float64).inputs
    half = BUDGET.edges // 2
    nodes = pairs = 0
    for number, graph in enumerate(graphs):
        size, own = len(graph.numbers), len(graph.senders) // 2
        atoms = slice(nodes, nodes + size)
        assert np.array_equal(inputs.numbers[atoms], graph.numbers)
        assert np.array_equal(inputs.positions[atoms], graph.positions)
        assert (inputs.node_graph[atoms] == number).all()
        for first, edges in ((pairs, slice(0, own)), (half + pairs, slice(own, None))):
            assert np.array_equal(inputs.senders[first : first + own], graph.senders[edges] + nodes)
            assert np.array_equal(inputs.receivers[first : first + own], graph.receivers[edges] + nodes)
        nodes, pairs = nodes + size, pairs + own
    assert inputs.node_mask.sum() == nodes and inputs.graph_mask.sum() == len(graphs)


def test_law_of_pairs_holds_for_ghosts_too(crystals):
    for batch in (joined(), join([build_graph(one, 4.0) for one in crystals])):
        inputs = pad(batch, BUDGET, 4.0).inputs
        half = BUDGET.edges // 2
        assert np.array_equal(inputs.senders[:half], inputs.receivers[half:])
        assert np.array_equal(inputs.receivers[:half], inputs.senders[half:])
        assert np.array_equal(inputs.shifts[:half], -inputs.shifts[half:])


def test_ghosts_touch_nothing_real():
    batch = joined()
    inputs = pad(batch, BUDGET, CUTOFF, np.float64).inputs
    nodes, pairs, half, sink = len(batch.numbers), len(batch.senders), BUDGET.edges // 2, BUDGET.nodes - 1
    assert (inputs.numbers[nodes:] == 0).all() and (inputs.node_mask[nodes:] == 0).all()
    assert (inputs.node_graph[nodes:] == BUDGET.graphs - 1).all() and inputs.graph_mask[-1] == 0
    assert (np.diff(inputs.node_graph) >= 0).all()
    ghosts = np.r_[pairs:half, half + pairs : BUDGET.edges]
    assert (inputs.senders[ghosts] == sink).all() and (inputs.receivers[ghosts] == sink).all()
    lengths = np.linalg.norm(inputs.shifts[ghosts], axis=1)
    assert (lengths == CUTOFF).all()
    axes = np.abs(inputs.shifts[pairs:half]).argmax(axis=1)
    assert axes[:6].tolist() == [0, 1, 2, 0, 1, 2]
    real = np.r_[:pairs, half : half + pairs]
    assert inputs.senders[real].max() < nodes and inputs.receivers[real].max() < nodes
    # a graph number without atoms belongs to nobody
    assert set(inputs.node_graph.tolist()) == {*range(len(batch.n_atoms)), BUDGET.graphs - 1}


def test_packed_rows_and_joined_graphs_give_the_same_batch(crystals):
    molecules = structures()
    packed = pack(table_of(molecules), CUTOFF)
    rows = np.array([2, 0, 3, 0])
    other = join([build_graph(molecules[row], CUTOFF) for row in rows])
    assert same_inputs(pad(take(packed, rows), BUDGET, CUTOFF).inputs, pad(other, BUDGET, CUTOFF).inputs)
    cells = np.stack([one.cell for one in crystals] + [np.zeros((3, 3))])
    mixed = [*crystals, molecules[1]]
    packed = pack(table_of(mixed, cells=cells), 4.0)
    other = join([build_graph(mixed[row], 4.0) for row in (2, 0, 1)])
    assert same_inputs(pad(take(packed, np.array([2, 0, 1])), BUDGET, 4.0).inputs, pad(other, BUDGET, 4.0).inputs)


def test_a_batch_of_ghosts_alone():
    packed = pack(table_of(structures()), CUTOFF)
    inputs = pad(take(packed, np.zeros(0, int)), BUDGET, CUTOFF).inputs
    assert inputs.node_mask.sum() == inputs.graph_mask.sum() == 0
    assert (inputs.senders == BUDGET.nodes - 1).all() and (np.linalg.norm(inputs.shifts, axis=1) == CUTOFF).all()


def test_exact_fit_and_overflow():
    batch = joined()
    nodes, edges, graphs = len(batch.numbers), 2 * len(batch.senders), len(batch.n_atoms)
    exact = Budget(nodes + 1, edges, 0, graphs + 1)
    assert pad(batch, exact, CUTOFF).inputs.node_mask.sum() == nodes
    for changed, words in (
        (exact._replace(nodes=nodes), "lacks 1 nodes, 0 edges, 0 triplets and 0 graphs"),
        (exact._replace(edges=edges - 4), "lacks 0 nodes, 4 edges"),
        (exact._replace(graphs=graphs - 1), "and 2 graphs; use a larger budget"),
        (exact._replace(edges=edges + 1), "edges even"),
    ):
        with pytest.raises(DataError, match=words):
            pad(batch, changed, CUTOFF)
    triplets = join([build_graph(structures()[1], CUTOFF, triplets=True)])
    count = len(triplets.triplet_in)
    with pytest.raises(DataError, match="lacks 0 nodes, 4 edges"):  # ghost triplets need an x and a y ghost pair
        pad(triplets, Budget(8, 2 * len(triplets.senders), count + 1, 2), CUTOFF)
    assert len(pad(triplets, Budget(8, 2 * len(triplets.senders), count, 2), CUTOFF).inputs.triplet_in) == count


def test_targets_of_graphs_and_atoms():
    batch = joined()
    values = np.array([1.5, np.nan, -2.0, 0.0])
    forces = np.random.default_rng(0).normal(size=(len(batch.numbers), 3))
    padded = pad(batch, BUDGET, CUTOFF, np.float64, Labels({"gap": values}, {"forces": forces}), np.array([7, 3, 9, 1]))
    assert padded.targets["gap"].tolist() == [1.5, 0, -2, 0, 0, 0] and padded.masks["gap"].tolist() == [
        1,
        0,
        1,
        1,
        0,
        0,
    ]
    assert np.array_equal(padded.targets["forces"][: len(forces)], forces)
    assert padded.masks["forces"].sum() == forces.size and padded.ids.tolist() == [7, 3, 9, 1]
    with pytest.raises(DataError, match="label gap: expected one row for each graph, 4 in this batch, got 3"):
        pad(batch, BUDGET, CUTOFF, labels=Labels({"gap": values[:3]}, {}))


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch():
    assert np.array_equal(epoch_order(50, 3, 7), np.random.default_rng([3, 7]).permutation(50))
    assert not np.array_equal(epoch_order(50, 3, 7), epoch_order(50, 3, 8))
    assert not np.array_equal(epoch_order(50, 3, 7), epoch_order(50, 4, 7))


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (2, 5), (0, 4)])
def test_chunks_hold_every_row_once(count, size):
    rows = np.random.default_rng(0).permutation(100)[:count]
    parts = chunks(rows, size)
    assert all(0 < len(part) <= size for part in parts) and len(parts) == -(-count // size)
    assert np.concatenate([np.zeros(0, int), *parts]).tolist() == rows.tolist()


@pytest.mark.parametrize(("count", "size"), [(103, 10), (1, 8), (16, 16), (0, 4)])
def test_balanced_chunks_are_nearly_equal(count, size):
    random = np.random.default_rng(1)
    rows, costs = random.permutation(1000)[:count], random.integers(5, 300, count)
    parts = balanced_chunks(rows, costs, size)
    assert sorted(np.concatenate([np.zeros(0, int), *parts]).tolist()) == sorted(rows.tolist())
    assert all(0 < len(part) <= size for part in parts)
    if len(parts) > 1:
        cost = dict(zip(rows.tolist(), costs.tolist(), strict=True))
        per_graph = [np.mean([cost[row] for row in part.tolist()]) for part in parts]
        assert max(per_graph) - min(per_graph) < 0.2 * costs.mean()
