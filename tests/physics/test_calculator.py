"""The ASE calculator: derivatives, symmetries, neighbour lists with a skin, shapes, crystals and mistakes."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import warnings

import ase.build
import ase.io
import mindspore as ms
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from helpers import ONE_BLOCK, Case, assert_close, build, rotations

from data_tools.coverage.learned_range import LearnedRange, learn
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.graphs.batching import build_graph
from data_tools.graphs.packed import pack
from data_tools.labels.statistics import WIDTH, Normalizer
from physics.calculator import Calculator, OutsideWarning, UndeterminedEnergy
from physics.skin_list import SkinList
from training.step import compile_count

CASE = Case("small", "schnet", ONE_BLOCK, 3.0)  # a cutoff shorter than ethanol
ELEMENTS = [1, 6, 8, 12]
SCALE, REFERENCE = 2.5, -100.0  # eV


@pytest.fixture(scope="module", autouse=True)
def graph_mode_here():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


def make_calculator(dtype: str = "float64", skin: float = 0.4, triplets: bool = False) -> Calculator:
    """A model with random weights, energies of which have a scale and a reference per atom."""
    references = np.full(WIDTH, np.nan)
    references[ELEMENTS] = REFERENCE
    normalizer = Normalizer(SCALE, 0.0, references=references)
    return Calculator(build(CASE, dtype), normalizer, [*ELEMENTS, 9], CASE.cutoff, skin, triplets)


def learned_of(*structures: Atoms) -> LearnedRange:
    """The range of a model that has learned energies of these structures of one size."""
    table = StructureTable(
        np.concatenate([one.numbers for one in structures]), np.concatenate([one.positions for one in structures]),
        np.array([len(one) for one in structures]), np.arange(len(structures)),
    )  # fmt: skip
    return learn(pack(table, CASE.cutoff), np.arange(len(structures)), references=True)


def distorted_ethanol(seed: int) -> Atoms:
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.1, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def calculator():
    return make_calculator()


@pytest.fixture
def ethanol(calculator):
    """Distorted, at a place of its own, with the calculator of the module."""
    atoms = distorted_ethanol(3)
    atoms.positions += [3.0, -2.0, 1.0]
    atoms.calc = calculator
    return atoms


def test_forces_are_the_slope_of_the_energy(ethanol):
    forces, step = ethanol.get_forces(), 1e-4
    differences = np.zeros_like(forces)
    for place in np.ndindex(forces.shape):
        for sign in (1, -1):
            moved = ethanol.copy()
            moved.positions[place] += sign * step
            moved.calc = ethanol.calc
            differences[place] -= sign * moved.get_potential_energy() / (2 * step)
    assert_close(forces, differences, "differences")
    assert np.abs(forces).max() > 0.1, "a flat potential proves nothing"


def test_turned_moved_and_mirrored(ethanol):
    energy, forces = ethanol.get_potential_energy(), ethanol.get_forces()
    for matrix in rotations(2):
        ethanol.positions = ethanol.positions @ matrix + [10.0, 20.0, -30.0]
        assert_close(np.array(ethanol.get_potential_energy()), np.array(energy), "symmetry")
        assert_close(ethanol.get_forces(), forces @ matrix, "symmetry")
        forces = forces @ matrix


def test_scale_and_references_give_electronvolts(ethanol):
    """The same model with another law: E = scale o + offset, F and H by the scale alone."""
    own = ethanol.calc
    energy, forces, hessian = ethanol.get_potential_energy(), ethanol.get_forces(), own.get_hessian(ethanol)
    other = make_calculator()
    other.normalizer = Normalizer(2 * SCALE, 1.0)
    other.energy_and_forces, other.product = own.energy_and_forces, own.product
    ethanol.calc = other
    output = (energy - 9 * REFERENCE) / SCALE
    assert ethanol.get_potential_energy() == pytest.approx(2 * SCALE * output + 1.0, abs=1e-12)
    assert ethanol.get_potential_energy(force_consistent=True) == ethanol.get_potential_energy()
    np.testing.assert_allclose(ethanol.get_forces(), 2 * forces, atol=1e-13)
    np.testing.assert_allclose(other.get_hessian(ethanol), 2 * hessian, atol=1e-12)


def test_float32_far_from_the_origin(ethanol):
    single = distorted_ethanol(3)
    single.calc = make_calculator("float32")
    energy, forces = single.get_potential_energy(), single.get_forces()
    single.positions += 5000.0
    assert single.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    assert_close(single.get_forces(), forces, "precision")
    assert_close(forces, ethanol.get_forces(), "precision")


def test_one_call_for_energy_and_forces_and_none_without_a_change(ethanol, monkeypatch):
    calculator, calls = ethanol.calc, []
    compiled = calculator.energy_and_forces
    monkeypatch.setattr(calculator, "energy_and_forces", lambda *inputs: calls.append(1) or compiled(*inputs))
    calculator.reset()
    ethanol.get_potential_energy()
    ethanol.get_forces()[:] = 0.0  # a copy: what the calculator keeps does not change
    assert np.abs(ethanol.get_forces()).max() > 0.1
    calculator.get_hessian(ethanol)
    ethanol.set_initial_charges(np.ones(9))
    ethanol.get_forces()
    assert len(calls) == 1
    assert set(calculator.results) == set(calculator.implemented_properties) - {"stress"}
    assert calculator.get_property("hessian", ethanol, allow_calculation=False).shape == (27, 27)
    ethanol.positions[0, 0] += 0.01
    assert ethanol.get_properties(["energy"])["energy"] == ethanol.get_potential_energy()
    assert len(calls) == 2 and calculator.get_property("hessian", ethanol, allow_calculation=False) is None


def test_the_skin_changes_nothing_but_the_number_of_searches(calculator):
    """Atoms wander for 150 steps; pairs enter and leave the cutoff."""
    fresh = make_calculator(skin=0.0)
    fresh.energy_and_forces, fresh.budgets = calculator.energy_and_forces, calculator.budgets
    atoms = distorted_ethanol(7)
    random = np.random.default_rng(0)
    velocities = random.normal(0.0, 0.02, atoms.positions.shape)
    calculator.calculate(atoms)
    shapes = compile_count(calculator.energy_and_forces)
    home, edges, searches, steps = atoms.positions.copy(), [], calculator.neighbors.searches, 150
    for _ in range(steps):
        velocities += -0.01 * (atoms.positions - home) + random.normal(0.0, 0.004, velocities.shape)
        atoms.positions += velocities
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = fresh
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
        edges.append(len(calculator.neighbors(calculator._structure(atoms)).senders))
    change = np.diff(edges)
    assert (change > 0).sum() > 3 and (change < 0).sum() > 3, "no pair crossed the cutoff"
    assert 1 <= calculator.neighbors.searches - searches < steps / 3
    assert fresh.neighbors.searches == steps
    assert compile_count(calculator.energy_and_forces) == shapes


def test_a_list_ends_with_its_cell_and_its_elements(calculator):
    neighbors = SkinList(3.0, 0.4)
    atoms = ase.build.bulk("MgO", "rocksalt", a=4.2, cubic=True)

    def edges() -> int:
        return len(neighbors(calculator._structure(atoms)).senders)

    first = edges()
    atoms.positions[0] += 0.19 / np.sqrt(3)
    assert edges() <= first and neighbors.searches == 1
    atoms.positions[1] += 0.21 / np.sqrt(3)
    edges()
    assert neighbors.searches == 2, "an atom has moved more than half the skin"
    atoms.set_cell(atoms.cell * 0.7, scale_atoms=True)
    assert edges() > first and neighbors.searches == 3
    atoms.numbers[0], atoms.pbc = 6, False
    edges()
    assert neighbors.searches == 4
    with pytest.raises(ValueError, match="skin -1"):
        SkinList(3.0, -1.0)


@pytest.mark.parametrize("crystal", [False, True])
def test_triplets_follow_from_the_edges_within_the_cutoff(crystal):
    """Not from those of the skin, which the model does not see."""
    atoms = ase.build.bulk("NaCl", "rocksalt", 5.64) if crystal else distorted_ethanol(4)
    cell = np.array(atoms.cell) if crystal else None
    neighbors = SkinList(2.95, 0.6, triplets=True)
    for step in range(3):
        atoms.rattle(0.05, seed=step)
        structure = Structure(atoms.numbers, atoms.positions.copy(), cell)
        graph, expected = neighbors(structure), build_graph(structure, 2.95, triplets=True)
        degrees = np.bincount(graph.receivers, minlength=len(atoms))
        assert len(graph.triplet_in) == len(expected.triplet_in) == (degrees * (degrees - 1)).sum() > 0
        assert np.array_equal(graph.receivers[graph.triplet_in], graph.senders[graph.triplet_out])
    assert neighbors.searches == 1


def test_one_shape_for_moving_atoms_with_triplets():
    """A model that does not look at them says the same; no shape is without any."""
    plain, calculator = make_calculator(), make_calculator(triplets=True)
    for seed in range(4):
        atoms = distorted_ethanol(seed)
        if seed < 2:
            assert calculator.get_potential_energy(atoms) == pytest.approx(plain.get_potential_energy(atoms), abs=1e-9)
        graph = calculator.neighbors(calculator._structure(atoms))
        assert 0 < len(graph.triplet_in) < calculator._budget(graph).triplets
    assert compile_count(calculator.energy_and_forces) == len(calculator.budgets) == 1
    for atoms in (Atoms("H"), Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])):
        assert calculator._budget(calculator._graph(atoms)).triplets > 0


def test_no_compilation_for_another_structure_of_the_same_size(caplog):
    calculator = make_calculator()
    for name, seed in (("CH3CH2OH", 0), ("CH3OCH3", 1), ("CH3CH2OH", 2), ("H2COH", 3)):
        atoms = ase.build.molecule(name)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = calculator
        atoms.get_forces()
        if name != "H2COH":
            calculator.get_hessian(atoms)
    assert compile_count(calculator.energy_and_forces) == 2, "one shape for 9 atoms, one for 5"
    assert compile_count(calculator.product) == 1
    line = Atoms("H15", np.arange(15)[:, None] * [1.5, 0.0, 0.0], calculator=calculator)
    line.get_forces()
    with caplog.at_level(logging.DEBUG, logger="geospore"):
        line.positions *= 0.3
        line.get_forces()
    assert "from shape" in caplog.text
    count = compile_count(calculator.energy_and_forces)
    for factor in (3.0, 0.5, 0.7):
        line.positions *= factor
        line.get_forces()
    assert compile_count(calculator.energy_and_forces) == count <= 4


def test_hessian_is_symmetric_exact_and_blind_to_translations(ethanol):
    hessian, step = ethanol.calc.get_hessian(ethanol), 1e-4
    assert hessian.shape == (27, 27) and hessian.dtype == np.float64
    scale = np.abs(hessian).max()
    assert np.abs(hessian - hessian.T).max() < 1e-12 * scale
    assert np.abs(hessian.reshape(27, 9, 3).sum(axis=1)).max() < 1e-12 * scale
    differences = np.zeros_like(hessian)
    for row in range(27):
        for sign in (1, -1):
            moved = ethanol.copy()
            moved.positions[row // 3, row % 3] += sign * step
            moved.calc = ethanol.calc
            differences[row] -= sign * moved.get_forces().ravel() / (2 * step)
    assert_close(hessian, differences, "differences")
    assert np.array_equal(ethanol.calc.get_property("hessian", ethanol), ethanol.calc.get_hessian(ethanol))


def test_both_modes_agree(ethanol):
    found = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        ethanol.calc.reset()
        found.append((ethanol.get_potential_energy(), ethanol.get_forces(), ethanol.calc.get_hessian(ethanol)))
    ms.set_context(mode=ms.GRAPH_MODE)
    for one, other in zip(*found, strict=True):
        assert_close(np.asarray(one), np.asarray(other), "modes")


def test_a_crystal_is_its_supercell(calculator):
    crystal = ase.build.bulk("MgO", "rocksalt", a=4.2, cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.calc = calculator
    energy, forces = crystal.get_potential_energy(), crystal.get_forces()
    assert np.abs(forces).max() > 0.01
    supercell = crystal.repeat((2, 2, 2))
    supercell.calc = calculator
    assert_close(np.array(supercell.get_potential_energy() / 8), np.array(energy), "symmetry")
    assert_close(supercell.get_forces(), np.tile(forces, (8, 1)), "symmetry")
    crystal.positions[3] += crystal.cell.array.sum(axis=0)
    assert_close(np.array(crystal.get_potential_energy()), np.array(energy), "symmetry")
    hessian = calculator.get_hessian(crystal)
    assert np.abs(hessian - hessian.T).max() < 1e-12 * np.abs(hessian).max()
    assert np.abs(hessian.reshape(24, 8, 3).sum(axis=1)).max() < 1e-12 * np.abs(hessian).max()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda atoms: atoms.numbers.__setitem__(0, 7), "has not learned N, only H, C, O, Mg"),
        # no energy of the free atom is known
        (lambda atoms: atoms.numbers.__setitem__(0, 9), "has not learned F"),
        (lambda atoms: atoms.numbers.__setitem__(0, 0), "has not learned X"),
        (lambda atoms: setattr(atoms, "pbc", [True, True, False]), r"\[True, True, False\]"),
        (lambda atoms: setattr(atoms, "pbc", True), "cell"),
        (lambda atoms: atoms.positions.__setitem__((0, 0), np.nan), "finite positions"),
        (lambda atoms: atoms.positions.__setitem__(0, atoms.positions[1]), "apart"),
        (lambda atoms: atoms.__delitem__(range(9)), "got none"),
    ],
    ids=["element", "no reference", "ghost", "slab", "no cell", "nan", "coincide", "empty"],
)
def test_what_it_cannot_compute_is_one_clear_error(ethanol, change, words):
    change(ethanol)
    with pytest.raises(DataError, match=words) as raised:
        ethanol.get_potential_energy()
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=words):  # the second time too
        ethanol.get_forces()


def test_no_atoms_yet():
    with pytest.raises(DataError, match="no atoms yet"):
        make_calculator().get_hessian()


def limited(calculator: Calculator, *structures: Atoms) -> Calculator:
    """A calculator of the same model that has learned these structures."""
    copied = copy.copy(calculator)
    copied.reset()
    copied.learned, copied.neighbors = learned_of(*structures), SkinList(CASE.cutoff, 0.4)
    return copied


def test_outside_of_what_was_learned_is_a_warning_once_for_each_kind(calculator):
    calculator = limited(calculator, distorted_ethanol(0), distorted_ethanol(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (0, 1):
            calculator.get_potential_energy(distorted_ethanol(seed))
    assert calculator.outside == {}
    near, far = distorted_ethanol(0), ase.build.molecule("CH3OH")
    near.positions[8] = near.positions[7] + [0.0, 0.0, 0.5]
    with pytest.warns(OutsideWarning, match="C2OH6 is outside of what the model has learned: H-H at 0.50 A") as told:
        calculator.get_forces(near)
    assert "close" in calculator.outside and all("\n" not in str(one.message) for one in told)
    with pytest.warns(OutsideWarning, match="6 atoms, training had 9"):
        calculator.get_forces(far)
    assert {"size", "composition"} <= set(calculator.outside)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for atoms in (near, far):
            calculator.get_forces(atoms)
    calculator.get_forces(distorted_ethanol(0))
    assert calculator.outside == {}


def test_atoms_that_come_close_between_two_searches(calculator):
    atoms = distorted_ethanol(0)
    calculator = limited(calculator, atoms)
    calculator.get_forces(atoms)
    axis = atoms.positions[1] - atoms.positions[0]
    axis *= 0.18 / np.linalg.norm(axis)
    atoms.positions[:2] += [axis, -axis]
    with pytest.warns(OutsideWarning, match="C-C at"):
        calculator.get_forces(atoms)
    assert calculator.neighbors.searches == 1 and "close" in calculator.outside
    atoms.positions[:2] -= [axis, -axis]
    calculator.get_forces(atoms)
    assert calculator.outside == {} and calculator.neighbors.searches == 1


def test_charges_that_atoms_have_been_given(calculator):
    atoms = distorted_ethanol(0)
    calculator = limited(calculator, atoms)
    for at, (change, kind) in enumerate((
        (lambda atoms: atoms.info.__setitem__("charge", -2), "charge"),
        (lambda atoms: atoms.set_initial_charges([1.0] + [0.0] * 8), "charge"),
        (lambda atoms: atoms.set_initial_magnetic_moments([1.0, 1.0] + [0.0] * 7), "radical"),
        (lambda atoms: atoms.set_initial_charges([0.4, -0.4] + [0.0] * 7), None),
    )):  # fmt: skip
        given = atoms.copy()
        change(given)
        given.positions += 0.001 * (at + 1)
        calculator.get_forces(given)
        assert kind is None or kind in calculator.outside
    assert calculator.outside == {}


def test_an_energy_without_a_reference(calculator):
    plain, methanol = calculator, ase.build.molecule("CH3OH")
    methanol.calc = calculator = limited(plain, distorted_ethanol(0))
    for _ in range(2):
        for force_consistent in (False, True):
            with pytest.raises(UndeterminedEnergy, match="COH4: training gives no reference energy") as raised:
                methanol.get_potential_energy(force_consistent=force_consistent)
            assert isinstance(raised.value, DataError | PropertyNotImplementedError) and "\n" not in str(raised.value)
        np.testing.assert_allclose(methanol.get_forces(), plain.get_forces(methanol), atol=1e-12)
    assert set(calculator.results) == {"forces"}
    np.testing.assert_allclose(calculator.get_hessian(methanol), plain.get_hessian(methanol), atol=1e-12)
    text = io.StringIO()
    ase.io.write(text, methanol, format="extxyz")
    assert "forces" in text.getvalue() and "energy" not in text.getvalue()
    ether = ase.build.molecule("CH3OCH3")
    assert calculator.get_potential_energy(ether) == pytest.approx(plain.get_potential_energy(ether), abs=1e-10)


def test_results_are_those_that_ase_knows(ethanol, tmp_path):
    hessian = ethanol.calc.get_hessian(ethanol)
    frozen = SinglePointCalculator(ethanol, **ethanol.calc.results)
    assert frozen.get_potential_energy() == ethanol.get_potential_energy()
    for name in ("one.xyz", "one.traj", "one.json"):
        ase.io.write(tmp_path / name, ethanol)
        again = ase.io.read(tmp_path / name)
        assert again.get_potential_energy() == pytest.approx(ethanol.get_potential_energy(), abs=1e-6)
    assert np.array_equal(ethanol.calc.get_hessian(ethanol), hessian)
    hessian[:] = 0.0
    assert np.abs(ethanol.calc.get_hessian(ethanol)).max() > 1.0, "it is a copy"


def test_a_copy_shares_the_model_and_nothing_else(ethanol):
    energy, compiled = ethanol.get_potential_energy(), compile_count(ethanol.calc.energy_and_forces)
    for copied in (copy.deepcopy(ethanol), ethanol.copy()):
        copied.calc = copied.calc or copy.copy(ethanol.calc)
        assert copied.calc is not ethanol.calc and copied.calc.energy_and_forces is ethanol.calc.energy_and_forces
        assert copied.get_potential_energy() == energy
        copied.positions[0] += 0.3
        assert copied.get_potential_energy() != energy
        assert ethanol.calc.results["energy"] == energy == ethanol.get_potential_energy()
        assert copied.calc.neighbors is not ethanol.calc.neighbors and copied.calc.results is not ethanol.calc.results
    assert compile_count(ethanol.calc.energy_and_forces) == compiled


def test_images_of_a_band_side_by_side(ethanol):
    """ASE computes them one after the other or in threads; copies share one compiled model."""
    forces, end = [], ethanol.copy()
    end.rattle(0.05, seed=1)
    for parallel in (False, True):
        images = [*(ethanol.copy() for _ in range(4)), end.copy()]
        for image in images:
            image.calc = copy.deepcopy(ethanol.calc)
        band = NEB(images, parallel=parallel, method="improvedtangent")
        band.interpolate()
        forces.append(band.get_forces())
    np.testing.assert_allclose(forces[0], forces[1], atol=1e-12)
    assert np.abs(forces[0]).max() > 0.1


def test_a_model_in_memory_cannot_be_pickled(ethanol):
    with pytest.raises(TypeError, match="load_calculator") as raised:
        pickle.dumps(ethanol)
    assert "\n" not in str(raised.value)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ethanol.calc.nonsense
