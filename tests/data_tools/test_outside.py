"""What training structures covered, and which others are outside: every kind, and no false alarm on real data."""

from __future__ import annotations

import dataclasses
import json
import pickle

import ase.build
import numpy as np
import pytest
from ase import Atoms

from data_tools import qm9
from data_tools.coverage import outside
from data_tools.coverage.learned_range import CLOSER, FURTHER, LearnedRange, learn, longest_link, spanning
from data_tools.coverage.observed import observe
from data_tools.coverage.outside import Finding, Outside, compare
from data_tools.formats import md17
from data_tools.formats.readers import read_table
from data_tools.graph import StructureTable
from data_tools.graphs import packed as cache
from data_tools.labels.statistics import element_counts, undetermined

CUTOFF = 5.0


def packed_of(*structures: Atoms, cutoff: float = CUTOFF, of_atoms: dict | None = None, **labels) -> cache.PackedGraphs:
    """Structures of ASE as a packed data set, with labels of structures and of atoms."""
    cells = np.stack([np.array(one.cell) if one.pbc.all() else np.zeros((3, 3)) for one in structures])
    table = StructureTable(
        numbers=np.concatenate([one.numbers for one in structures]).astype(np.int32),
        positions=np.concatenate([one.positions for one in structures]),
        n_atoms=np.array([len(one) for one in structures]),
        ids=np.arange(len(structures)),
        of_structures={name: np.asarray(values, np.float64) for name, values in labels.items()},
        of_atoms={name: np.asarray(values, np.float64) for name, values in (of_atoms or {}).items()},
        cells=cells if cells.any() else None,
    )
    return cache.pack(table, cutoff)


def kinds(learned: LearnedRange, *structures: Atoms, **labels) -> list[str]:
    packed = packed_of(*structures, **labels)
    return compare(learned, packed, np.arange(len(packed))).column()


def every(packed: cache.PackedGraphs) -> np.ndarray:
    return np.arange(len(packed))


@pytest.fixture(scope="module")
def shipped() -> cache.PackedGraphs:
    return cache.pack(read_table(qm9.SAMPLE_FILE), CUTOFF)


@pytest.fixture(scope="module")
def of_molecules(shipped) -> LearnedRange:
    """Of the 10,834 training molecules of the shipped QM9, as a checkpoint keeps it."""
    learned = learn(shipped, np.flatnonzero(shipped.table.split == "train"), references=True)
    return LearnedRange.from_dict(json.loads(json.dumps(learned.to_dict())))


@pytest.fixture(scope="module")
def frames() -> cache.PackedGraphs:
    return cache.pack(read_table(md17.SAMPLE_TRAIN), CUTOFF)


@pytest.fixture(scope="module")
def of_ethanol(frames) -> LearnedRange:
    return learn(frames, np.arange(950), references=True)


def test_the_shipped_molecules_are_inside(shipped, of_molecules):
    assert of_molecules.n_atoms == (6, 29) and of_molecules.periodic == (False,) and not of_molecules.odd_electrons
    found = compare(of_molecules, shipped, every(shipped))
    assert not found.findings and set(found.column()) == {""} and not found.undetermined.any()


def test_frames_of_a_trajectory_are_inside(frames, of_ethanol):
    test = cache.pack(read_table(md17.SAMPLE_TEST), CUTOFF)
    assert not compare(of_ethanol, frames, every(frames)).findings
    assert not compare(of_ethanol, test, every(test)).findings
    few = learn(frames, np.arange(50), references=True)
    assert not compare(few, test, every(test)).findings


def two(name: str, distance: float) -> Atoms:
    one, other = ase.build.molecule(name), ase.build.molecule(name)
    other.positions += [0.0, 0.0, distance + np.ptp(one.positions[:, 2])]
    return one + other


def methylammonium() -> Atoms:
    atoms = ase.build.molecule("H3CNH2")
    nitrogen = atoms.positions[atoms.numbers == 7][0]
    others = atoms.positions[np.linalg.norm(atoms.positions - nitrogen, axis=1) < 1.7]
    away = nitrogen - others[np.linalg.norm(others - nitrogen, axis=1) > 0.1].mean(axis=0)
    return atoms + Atoms("H", [nitrogen + 1.03 * away / np.linalg.norm(away)])


def test_every_kind_of_molecule_outside(of_molecules):
    ethanol = ase.build.molecule("CH3CH2OH")
    stretched = ethanol.copy()
    stretched.positions[stretched.numbers == 1] *= 1.6
    squeezed = ethanol.copy()
    squeezed.positions *= 0.8
    polymer = Atoms("C12H28", np.zeros((40, 3)))
    polymer.positions[:] = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:40] * 1.3
    crystal = ethanol.copy()
    crystal.center(vacuum=4.0)
    crystal.pbc = True
    cases = {
        "": [ethanol, ase.build.molecule("C6H6"), ase.build.molecule("CH3CHO")],
        "size": [ase.build.molecule("H2O"), ase.build.molecule("CH4")],
        "size, apart": [Atoms("O2", [[0, 0, 0], [0, 0, 9.0]])],
        "size, radical": [ase.build.molecule("CH3"), Atoms("N")],
        "radical": [methylammonium()],
        "periodic": [crystal],
        "close": [squeezed],
        "apart": [two("H2O", 2.0), two("CH3OH", 9.0), two("CH4", 2.5)],
    }
    for expected, structures in cases.items():
        assert kinds(of_molecules, *structures) == [expected] * len(structures), expected
    assert kinds(of_molecules, polymer)[0].startswith("size")
    assert "apart" in kinds(of_molecules, stretched)[0]
    assert kinds(of_molecules, Atoms("O")) == ["size"]  # a lone atom has no neighbour to be far from


def test_charges_and_unpaired_electrons_that_the_file_tells(of_molecules):
    ion, ethanol = methylammonium(), ase.build.molecule("CH3CH2OH")
    assert kinds(of_molecules, ion, ethanol, ethanol, charge=[1, 0, np.nan]) == ["charge", "", ""]
    assert kinds(of_molecules, ethanol, ethanol, total_charge=[-2, 0]) == ["charge", ""]
    assert kinds(of_molecules, ethanol, of_atoms={"initial_charges": [0.5] * 4 + [-0.4] * 5}) == [""]
    assert kinds(of_molecules, ion, of_atoms={"initial_charges": [0.125] * 8}) == ["charge"]
    assert kinds(of_molecules, ethanol, ethanol, radical_electrons=[2, 0]) == ["radical", ""]
    assert kinds(of_molecules, ethanol, ethanol, multiplicity=[1, 3]) == ["", "radical"]
    packed = packed_of(ion, charge=[1])
    (line,) = compare(of_molecules, packed, every(packed)).lines("ion {}".format)
    assert line == "1 of 1 structures outside of what the model has learned (first: ion 0): charge +1, training had 0"


def test_ions_and_radicals_are_inside_where_training_had_them():
    ion, radical, ethanol = methylammonium(), ase.build.molecule("CH3CH2O"), ase.build.molecule("CH3CH2OH")
    packed = packed_of(ion, radical, ethanol, charge=[1, 0, 0], radical_electrons=[0, 1, 0])
    learned = learn(packed, every(packed), references=False)
    assert learned.charges == (0, 1) and learned.unpaired == 1 and learned.odd_electrons
    assert kinds(learned, ion, radical, charge=[1, 0], radical_electrons=[0, 1]) == ["", ""]
    assert kinds(learned, ion, radical, charge=[2, 0], radical_electrons=[0, 2]) == ["charge", "radical"]


def test_compositions_without_a_reference(of_ethanol, of_molecules):
    methanol, ether, ethanol = (ase.build.molecule(name) for name in ("CH3OH", "CH3OCH3", "CH3CH2OH"))
    assert kinds(of_ethanol, methanol, ethanol) == ["size, composition", ""]
    packed = packed_of(ethanol, methanol, ether, two("CH3CH2OH", 2.0))
    assert compare(of_ethanol, packed, every(packed)).undetermined.tolist() == [False, True, False, False]
    assert not compare(of_molecules, packed, every(packed)).undetermined.any()
    free = dataclasses.replace(of_ethanol, compositions=None)
    assert kinds(free, methanol) == ["size"]


def test_a_spanning_set_decides_as_all_compositions_do():
    random = np.random.default_rng(0)
    basis = random.integers(0, 6, (3, 5))
    counts = np.zeros((200, 119), np.int32)
    counts[:, [1, 6, 7, 8, 16]] = random.integers(0, 4, (200, 3)) @ basis
    counts = counts[counts.any(axis=1)]
    few = spanning(counts)
    assert len(few) == 3 and all((row == counts).all(axis=1).any() for row in few)
    others = np.zeros((300, 119), np.int32)
    others[:100] = counts[random.integers(0, len(counts), 100)] + counts[random.integers(0, len(counts), 100)]
    others[100:, [1, 6, 7, 8, 16]] = random.integers(0, 9, (200, 5))
    found = undetermined(few, others)
    assert found.tolist() == undetermined(counts, others).tolist() and found[100:].any() and not found[:100].any()


def test_limits_are_those_of_the_rule(of_molecules):
    """C-C and the factor that heat may add; the shortest C-C of QM9 is a triple bond."""
    assert of_molecules.shortest[6, 6] == pytest.approx(1.199, abs=0.001)
    pair, fewer = Atoms("C2", np.zeros((2, 3))), dataclasses.replace(of_molecules, n_atoms=(2, 12))
    for factor, expected in ((CLOSER + 0.01, ""), (CLOSER - 0.01, "close")):
        pair.positions[1, 2] = factor * of_molecules.shortest[6, 6]
        assert kinds(fewer, pair) == [expected]
    apart = dataclasses.replace(of_molecules, shortest=of_molecules.shortest | {(8, 8): 3.2}, n_atoms=(2, 12))
    pair = Atoms("O2", np.zeros((2, 3)))
    for distance, expected in ((2.2, True), (2.5, False)):  # 0.66 A is the radius of oxygen
        pair.positions[1, 2] = distance
        assert ("close" in kinds(apart, pair)[0]) == expected
    benzene = ase.build.molecule("C6H6")
    direction = benzene.positions[6] - benzene.positions[0]
    for factor, expected in ((FURTHER - 0.01, ""), (FURTHER + 0.01, "apart")):
        benzene.positions[6] = benzene.positions[0] + direction / np.linalg.norm(direction) * (
            factor * of_molecules.isolation[1]
        )
        assert kinds(of_molecules, benzene) == [expected]


def test_crystals():
    """Links go through images; an odd number of electrons in a cell means nothing."""
    gold = ase.build.bulk("Au", cubic=True)
    packed = packed_of(gold, gold.repeat((1, 1, 2)))
    learned = learn(packed, every(packed), references=True)
    assert learned.periodic == (True,) and learned.link == pytest.approx(4.08 / np.sqrt(2), abs=0.011)
    thin = gold.copy()
    thin.set_cell(gold.cell * [1, 1, 2])
    molecule = ase.build.molecule("H2O")
    assert kinds(learned, gold, ase.build.bulk("Au"), gold.repeat(3)) == ["", "", ""]
    assert kinds(learned, thin) == [""]  # a slab: every atom still has its neighbours
    assert "periodic" in kinds(learned, molecule)[0]


def test_a_checkpoint_holds_it_as_text(of_molecules, of_ethanol, frames):
    for learned in (of_molecules, of_ethanol):
        text = json.dumps(learned.to_dict(), allow_nan=False)
        again = LearnedRange.from_dict({**json.loads(text), "something": "newer"})
        assert json.dumps(again.to_dict()) == text == json.dumps(pickle.loads(pickle.dumps(learned)).to_dict())
    apart = packed_of(two("H2O", 9.0))
    learned = learn(apart, every(apart), references=False)
    assert learned.to_dict()["link"] is None
    assert kinds(LearnedRange.from_dict(learned.to_dict()), two("H2O", 30.0)) == [""]


@pytest.mark.parametrize(
    "change",
    [
        {"n_atoms": 3}, {"n_atoms": [1]}, {"shortest": {"H": 1.0}}, {"shortest": {"H-Xx": 1.0}}, {"shortest": []},
        {"isolation": {"H": "far"}}, {"link": float("nan")}, {"charges": None}, {"compositions": [{}]},
        {"compositions": [{"Xx": 1}]}, {"compositions": 5}, {"periodic": 1}, {"unpaired": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_one_is_refused(of_ethanol, change):
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
        LearnedRange.from_dict(of_ethanol.to_dict() | change)


def test_many_structures_are_compared_some_at_a_time(of_molecules, monkeypatch):
    names = ("CH3CH2OH", "H2O", "C6H6", "CH4", "CH3OH", "CH3")
    packed = packed_of(*map(ase.build.molecule, names))
    whole = compare(of_molecules, packed, every(packed)[::-1])
    monkeypatch.setattr(outside, "STRUCTURES_AT_ONCE", 2)
    monkeypatch.setattr("data_tools.coverage.observed.STRUCTURES_AT_ONCE", 2)
    parts = compare(of_molecules, packed, every(packed)[::-1])
    assert parts.column() == whole.column() == ["size, radical", "", "size", "", "size", ""]
    assert parts.lines(str) == whole.lines(str)


def test_the_longest_link():
    line = Atoms("C4", [[0, 0, 0], [0, 0, 1.5], [0, 0, 3.8], [0, 0, 4.9]])
    packed = packed_of(line)
    (found,) = observe(packed, every(packed))
    assert longest_link(found, 0.0) == pytest.approx(2.3, abs=0.0101)
    assert longest_link(found, 3.0) == 3.0
    near = packed_of(line, cutoff=2.0)
    (found,) = observe(near, every(near))
    assert longest_link(found, 0.0) == np.inf
    assert found.in_parts(1.5).tolist() == [True]


def test_a_model_that_does_not_know_its_range():
    packed = packed_of(ase.build.molecule("H2O"))
    found = compare(None, packed, every(packed))
    assert found.column() == ["unknown"] and found.lines(str) == [] and not found.undetermined.any()


def test_labels_of_atoms_are_not_charges():
    """An array per atom called charge is no total charge."""
    packed = packed_of(ase.build.molecule("CH3CH2OH"), of_atoms={"charge": [0.3] * 9})
    (found,) = observe(packed, every(packed))
    assert np.isnan(found.charges).all() and element_counts(found.numbers, found.n_atoms)[0, 6] == 2


def test_two_ranges_together_name_what_either_names():
    one = Outside(3, [Finding("size", np.array([False, False, True]), "3 atoms")], True)
    other = Outside(
        3,
        [
            Finding("composition", np.array([True, False, False]), "no reference"),
            Finding("size", np.array([False, True, False]), "2 atoms"),
        ],
        True,
    )
    for joined in (one.joined(other), other.joined(one)):
        assert joined.column() == ["composition", "size", "size"] and joined.known
        assert joined.lines(str)[0] == "2 of 3 structures outside of what the model has learned (first: 1): 2 atoms"
        assert joined.undetermined.tolist() == [True, False, False]
    assert one.joined(Outside(3, [], False)).column() == ["unknown"] * 3
