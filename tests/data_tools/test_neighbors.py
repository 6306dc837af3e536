"""Neighbour pairs against brute force, against ASE for crystals, and at the edges of the definition."""

import ase
import ase.build
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from data_tools.graph import DataError, Structure
from data_tools.graphs.batching import build_graph
from data_tools.graphs.neighbors import DENSE_LIMIT, index_dtype, molecule_pairs, periodic_pairs, ragged_range


def brute_force(positions, cutoff):
    """All i < j with |r_i - r_j| < cutoff, the slow way."""
    return [
        (i, j)
        for i in range(len(positions))
        for j in range(i + 1, len(positions))
        if np.linalg.norm(positions[i] - positions[j]) < cutoff
    ]


def random_molecules(seed, sizes, width=4.0):
    random = np.random.default_rng(seed)
    return [random.uniform(0, width, (size, 3)) for size in sizes]


@pytest.mark.parametrize("cutoff", [0.8, 2.0, 50.0])
def test_pairs_of_many_molecules(cutoff):
    sizes = np.array([5, 1, 9, 5, 2, 12, 9, 1])
    parts = random_molecules(0, sizes)
    receivers, senders, n_pairs = molecule_pairs(np.concatenate(parts), sizes, cutoff)
    starts = np.cumsum(n_pairs) - n_pairs
    for part, start, count in zip(parts, starts, n_pairs, strict=True):
        found = list(zip(receivers[start : start + count], senders[start : start + count], strict=True))
        assert found == brute_force(part, cutoff)  # the same pairs, receivers ascending
    assert receivers.dtype == senders.dtype == np.uint8


def test_pairs_do_not_depend_on_the_chunk_size(monkeypatch):
    sizes = np.array([6] * 40 + [3] * 10)
    positions = np.concatenate(random_molecules(1, sizes))
    whole = molecule_pairs(positions, sizes, 2.0)
    monkeypatch.setattr("data_tools.graphs.neighbors.CHUNK_PAIRS", 40)
    finished = []
    small = molecule_pairs(positions, sizes, 2.0, report=finished.append)
    assert all(np.array_equal(a, b) for a, b in zip(whole, small, strict=True))
    assert sum(finished) == len(sizes) and len(finished) > 2


def test_the_cutoff_itself_is_outside():
    positions = np.array([[0.0, 0, 0], [0, 0, 2.0]])
    assert len(molecule_pairs(positions, np.array([2]), 2.0)[0]) == 0
    assert len(molecule_pairs(positions, np.array([2]), np.nextafter(2.0, 3.0))[0]) == 1


@pytest.mark.parametrize("extra", [0, 1])
def test_large_molecules_use_a_tree_and_find_the_same(extra):
    """At the limit the dense branch, above it the k-d tree."""
    size = DENSE_LIMIT + extra
    lattice = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), -1).reshape(-1, 3)[:size]  # distances exactly at the cutoff
    positions = lattice + np.where(np.arange(size) % 2, 0.01, 0.0)[:, None] * np.random.default_rng(0).normal(
        size=(size, 3)
    )
    receivers, senders, n_pairs = molecule_pairs(positions, np.array([size]), 2.0)
    difference = positions[:, None] - positions[None]
    close = np.triu((difference**2).sum(-1) < 4.0, 1)
    expected = np.argwhere(close)
    assert np.array_equal(np.stack((receivers, senders), 1), expected)
    assert n_pairs.tolist() == [len(expected)] and receivers.dtype == np.uint16


def test_no_molecule_and_single_atoms():
    empty = molecule_pairs(np.zeros((0, 3)), np.zeros(0, int), 5.0)
    assert [len(part) for part in empty] == [0, 0, 0]
    lonely = molecule_pairs(np.zeros((2, 3)), np.array([1, 1]), 5.0)
    assert len(lonely[0]) == 0 and lonely[2].tolist() == [0, 0]


def test_coincident_atoms_are_refused_by_name():
    positions = np.array([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [5, 0, 0.0005]])
    with pytest.raises(DataError, match=r"molecule 1: atoms 0 and 1 are 5\.0e-04 Angstrom apart"):
        molecule_pairs(positions, np.array([2, 2]), 3.0, "molecule {}".format)
    with pytest.raises(DataError, match="twins"):
        build_graph(Structure(np.array([1, 1]), np.zeros((2, 3)), name="twins"), 5.0)
    with pytest.raises(DataError, match="crystal: atoms 0 and 1 coincide"):
        periodic_pairs(np.zeros((2, 3)), np.eye(3) * 4, 3.0, "crystal")


def test_many_atoms_on_one_point_are_refused_at_once():
    """A tree of them has one leaf, whose pairs are all pairs."""
    with pytest.raises(DataError, match="heap: 100000 atoms in a cube"):
        molecule_pairs(np.zeros((100_000, 3)), np.array([100_000]), 5.0, lambda _: "heap")


CRYSTALS = {
    "one atom, cutoff beyond the cell": (ase.build.bulk("Cu"), 6.0),
    "two atoms": (ase.build.bulk("NaCl", "rocksalt", 5.64), 4.0),
    "skewed": (
        ase.Atoms("HO", [[0.1, 0.2, 0.3], [1.1, 0.4, 2.0]], cell=[[3, 0, 0], [1.5, 2.7, 0], [0.4, -1.2, 3.1]]),
        4.5,
    ),
    "atom outside the cell": (ase.Atoms("HO", [[-5.0, 0.2, 9.3], [1.1, 7.4, 2.0]], cell=np.eye(3) * 3.5), 3.6),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_periodic_pairs_are_those_of_ase(name):
    atoms, cutoff = CRYSTALS[name]
    atoms.pbc = True
    cell = np.array(atoms.cell)
    receivers, senders, shifts = periodic_pairs(atoms.positions, cell, cutoff)
    centre, neighbour, vectors = neighbor_list("ijD", atoms, cutoff)
    both = np.concatenate((receivers, senders)), np.concatenate((senders, receivers))
    found = np.concatenate((shifts, -shifts)) + atoms.positions[both[1]] - atoms.positions[both[0]]

    def rows(i, j, vector):
        return sorted(map(tuple, np.column_stack((i, j, vector.round(6) + 0.0)).tolist()))

    assert rows(*both, found) == rows(centre, neighbour, vectors)
    assert (np.diff(receivers) >= 0).all() and len(centre) == 2 * len(receivers) > 0
    images = np.linalg.solve(cell.T, shifts.T).T
    np.testing.assert_allclose(images, images.round(), atol=1e-9)  # whole lattice vectors


def test_a_graph_obeys_the_law_of_pairs():
    atoms = ase.build.bulk("NaCl", "rocksalt", 5.64)
    crystal = Structure(atoms.numbers, atoms.positions, np.array(atoms.cell))
    for structure in (crystal, Structure(np.arange(1, 8), random_molecules(3, [7])[0])):
        graph = build_graph(structure, 4.0)
        half = len(graph.senders) // 2
        assert np.array_equal(graph.senders[:half], graph.receivers[half:])
        assert np.array_equal(graph.receivers[:half], graph.senders[half:])
        assert np.array_equal(graph.shifts[:half], -graph.shifts[half:])
        assert (np.diff(graph.receivers[:half]) >= 0).all()
        assert graph.senders.dtype == graph.numbers.dtype == np.int32


@pytest.mark.parametrize(
    ("starts", "lengths"), [([5, 9], [2, 3]), ([], []), ([4, 4, 0], [0, 2, 0]), ([7], [0]), ([0, 10, 3], [1, 4, 2])]
)
def test_ragged_range(starts, lengths):
    expected = [
        number for start, length in zip(starts, lengths, strict=True) for number in range(start, start + length)
    ]
    assert ragged_range(np.array(starts, int), np.array(lengths, int)).tolist() == expected


def test_index_dtype_is_the_smallest():
    assert [index_dtype(n) for n in (0, 255, 256, 65535, 65536)] == [
        np.uint8,
        np.uint8,
        np.uint16,
        np.uint16,
        np.uint32,
    ]
