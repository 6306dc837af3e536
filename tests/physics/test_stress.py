"""Virial and stress: derivatives with respect to a strain, of every model in both modes, and what ASE gets of them."""

from __future__ import annotations

import copy
import functools
import warnings

import ase.build
import mindspore as ms
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGSLineSearch
from ase.stress import full_3x3_to_voigt_6_stress
from helpers import CASES, DIMENETPP, ONE_BLOCK, Case, assert_close, build, crystals, molecule, moved, on_path, repeated
from strains import labelled, strain_slope, volumes

from data_tools.graph import Budget, DataError, Labels
from data_tools.labels.statistics import WIDTH, Normalizer
from physics.calculator import Calculator
from physics.derivatives import Compiled, DerivativeError, EnergyAndForces, HessianProduct, observables
from training.device import MODES
from training.objective import Layout, Term, loss_of
from training.step import compile_count, to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

BUDGET, LARGER = Budget(24, 240, 0, 5), Budget(40, 400, 0, 7)
MADE = {"GRAPH": "kernels", "PYNATIVE": "operators"}  # each mode once, each path once


# --- the virial -------------------------------------------------------------------------------------------------------


def in_both(case):
    """One line of each model has both modes; its other lines differ in what the virial does not see."""
    return case.name == case.model


class Derived:
    """A model of the table with energies, forces and virials of structures, in one mode and on one path.

    It is compiled for one budget where a case has two modes: another for each.
    """

    def __init__(self, place, mode):
        self.case, self.mode = CASES[place], mode
        self.budget = BUDGET if mode == "GRAPH" else LARGER
        with on_path(MADE[mode]):
            model = build(self.case)
        self.function = Compiled(model, observables(model, ("energy", "forces", "virial")))
        self.structures = [molecule("CH3CH2OH", 1), *([] if "crystals" in self.case.exempt else crystals())]

    def __call__(self, structures, budget=None):
        ms.set_context(mode=MODES[self.mode])
        batch = self.case.batch(structures, budget or self.budget)
        return [values.asnumpy() for values in self.function(*to_tensors(batch.inputs))]


derived_of = functools.cache(Derived)


@pytest.fixture(
    scope="module",
    params=[(place, mode) for place, case in enumerate(CASES) for mode in MADE if mode == "GRAPH" or in_both(case)],
    ids=lambda line: f"{CASES[line[0]].name}-{line[1]}",
)
def derived(request):
    return derived_of(*request.param)


def test_virial_is_the_slope_of_a_strain(derived):
    """Of molecules too, where it is the sum of F r; ghosts have exactly none."""
    structures, count = derived.structures, len(derived.structures)
    _, forces, virial = derived(structures)
    slope = strain_slope(lambda change: derived([moved(one, change) for one in structures])[0])
    for found, expected in zip(virial[:count], -slope[:count], strict=True):
        assert_close(found, expected, "differences")
        assert_close(found, found.T, "symmetry")
    assert np.abs(virial[:count]).max() > 0.01, "a flat potential proves nothing"
    assert not virial[count:].any() and not forces[sum(len(one.numbers) for one in structures) :].any()
    assert_close(virial[0], forces[:9].T @ structures[0].positions, "symmetry")


def test_virial_depends_neither_on_the_origin_nor_on_the_budget(derived):
    """Where a case has both modes, the larger budget is that of the other one: neither matters, nor do the kernels."""
    structures, count = derived.structures, len(derived.structures)
    _, _, virial = derived(structures)
    offset = np.array([3.0, -20.0, 7.0])
    assert_close(derived([moved(one, np.eye(3), offset) for one in structures])[2], virial, "symmetry")
    if not in_both(derived.case):
        assert_close(derived(structures, LARGER)[2][:count], virial[:count], "padding")
    elif derived.mode == "PYNATIVE":
        other = derived_of(CASES.index(derived.case), "GRAPH")
        assert other.budget != derived.budget
        assert_close(virial[:count], other(structures)[2][:count], "padding")
    for place, one in enumerate(structures):
        assert_close(derived([one])[2][0], virial[place], "symmetry")


def test_virial_of_several_cells(derived):
    """That of an energy which is a sum over atoms grows with the crystal; that of a mean is the same."""
    if "crystals" in derived.case.exempt:
        pytest.skip(derived.case.exempt["crystals"])
    mean = derived.case.hyperparameters.get("readout") in ("mean", "attention")
    _, _, virial = derived(crystals())
    for times in ((2, 1, 1), (1, 1, 2)):
        _, _, larger = derived([repeated(one, times) for one in crystals()])
        assert_close(larger[:2], virial[:2] * (1 if mean else 2), "symmetry")


SMALL = Case("small", "schnet", ONE_BLOCK, 3.0)


def test_what_is_wanted_comes_in_its_order():
    model, batch = build(SMALL), SMALL.batch([molecule("H2O"), *crystals()], BUDGET)
    inputs, probe = to_tensors(batch.inputs), np.random.default_rng(0).normal(size=(BUDGET.nodes, 3))
    energies, forces = EnergyAndForces(model)(*inputs)
    expected = {
        "energy": energies, "forces": forces, "hessian_product": HessianProduct(model)(*inputs, ms.Tensor(probe)),
    }  # fmt: skip
    wanted = ("hessian_product", "forces", "virial", "energy")
    (expected["virial"],) = Compiled(model, observables(model, ("virial",)))(*inputs)
    for mode in MODES.values():
        ms.set_context(mode=mode)
        found = Compiled(model, observables(model, wanted))(*inputs, ms.Tensor(probe))
        for name, values in zip(wanted, found, strict=True):
            assert_close(values.asnumpy(), expected[name].asnumpy(), "modes")
    with pytest.raises(DerivativeError, match="dipole: expected one of energy, forces, virial, hessian_product"):
        observables(model, ("energy", "dipole"))


@pytest.mark.parametrize(("model", "mode"), [("schnet", "PYNATIVE"), ("dimenetpp", "GRAPH")])
def test_gradients_of_a_loss_on_stress_do_not_depend_on_the_budget(model, mode):
    """And are those that differences of the loss give."""
    ms.set_context(mode=MODES[mode])
    case = SMALL if model == "schnet" else Case("small", model, DIMENETPP, 3.0)
    network, layout = build(case), Layout([Term("stress", 3.0, "mse")])
    weights = ms.ParameterTuple(network.trainable_params())
    forward = loss_of(network, layout, ms.float64)
    compiled = Compiled(network, ms.value_and_grad(forward, None, weights, has_aux=True))
    structures, random = [molecule("H2O"), *crystals()], np.random.default_rng(0)
    labels = 0.01 * random.normal(size=(3, 3, 3))
    labels[0] = np.nan  # the molecule

    def at(budget):
        batch = labelled(case, structures, budget, Labels({"stress": labels, "volume": volumes(structures)}, {}))
        arguments = layout.arguments(batch, {"stress": 18}, 1.0, (0.0, 1.0, 0.0))
        (loss, _), gradients = compiled(*arguments[: layout.of_loss])
        return float(loss.asnumpy()), [gradient.asnumpy() for gradient in gradients]

    (loss, gradients), (other_loss, others) = at(BUDGET), at(LARGER)
    assert_close(np.array(other_loss), np.array(loss), "padding")
    largest = max(np.abs(gradient).max() for gradient in gradients)
    assert 0 < largest < np.inf
    for one, other in zip(gradients, others, strict=True):
        assert_close(other, one, "gradients", scale=largest)
    before, losses = [weight.asnumpy().copy() for weight in weights], []
    direction = [random.normal(size=values.shape) for values in before]
    for sign in (1, -1):
        for weight, values, change in zip(weights, before, direction, strict=True):
            weight.set_data(ms.Tensor(values + sign * 1e-5 * change))
        losses.append(at(BUDGET)[0])
    slope = sum(float((gradient * change).sum()) for gradient, change in zip(gradients, direction, strict=True))
    assert_close(np.array((losses[0] - losses[1]) / 2e-5), np.array(slope), "differences")


# --- the calculator ---------------------------------------------------------------------------------------------------

SCALE, ELEMENTS = 2.5, [1, 6, 8, 12, 14, 29]
#: cutoffs that no pair crosses while the crystals below are strained
SCHNET_CASE, DIMENETPP_CASE = Case("s", "schnet", ONE_BLOCK, 3.2), Case("d", "dimenetpp", DIMENETPP, 3.2)


def make_calculator(case=SCHNET_CASE, dtype="float64"):
    references = np.full(WIDTH, np.nan)
    references[ELEMENTS] = -3.0
    normalizer = Normalizer(SCALE, 0.0, references=references)
    return Calculator(build(case, dtype), normalizer, ELEMENTS, case.cutoff, triplets=case.model == "dimenetpp")


@pytest.fixture(scope="module")
def calculator():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield make_calculator()
    ms.set_context(mode=before)


@pytest.fixture(autouse=True)
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def atoms_of(structure):
    return Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=True)


@pytest.mark.parametrize("case", [SCHNET_CASE, DIMENETPP_CASE], ids=["schnet", "dimenetpp"])
def test_stress_is_the_slope_of_the_energy(case, graph_mode):
    """ASE's order and sign, eV per cubic Angstrom, to 1e-8 of the largest component."""
    calculator = make_calculator(case)
    for structure in reversed(crystals()):  # the second fits into the shape of the first
        atoms = atoms_of(structure)
        atoms.calc = calculator
        stress = atoms.get_stress()

        def energy(change, structure=structure):
            strained = atoms_of(moved(structure, (change + change.T) / 2))
            strained.calc = calculator
            return np.array([strained.get_potential_energy()])

        expected = full_3x3_to_voigt_6_stress(strain_slope(energy)[0]) / atoms.get_volume()
        assert stress.shape == (6,) and np.abs(stress).max() > 1e-4
        assert np.abs(stress - expected).max() <= 1e-8 * np.abs(expected).max()


def test_positive_in_tension(calculator, graph_mode):
    """An energy that falls when the crystal grows has a negative stress: it pushes."""
    copper, _ = crystals()
    atoms, grown = atoms_of(copper), atoms_of(moved(copper, 1.0001 * np.eye(3)))
    atoms.calc = calculator
    grown.calc = calculator
    rises = grown.get_potential_energy() > atoms.get_potential_energy()
    assert (atoms.get_stress()[:3] > 0).all() == rises


def test_stress_does_not_grow_with_the_crystal(calculator, graph_mode):
    atoms = atoms_of(crystals()[1])
    atoms.calc = calculator
    stress = atoms.get_stress()
    larger = atoms.repeat((2, 1, 2))
    larger.positions += [5.0, 50.0, -3.0]
    larger.calc = calculator
    assert_close(larger.get_stress(), stress, "symmetry", scale=np.abs(stress).max())
    single = atoms_of(crystals()[1])
    single.calc = make_calculator(dtype="float32")
    assert_close(single.get_stress(), stress, "precision", scale=np.abs(stress).max())
    assert single.get_stress().dtype == np.float64


def test_one_call_gives_all_of_a_crystal_and_a_molecule_needs_no_virial(calculator, graph_mode, monkeypatch):
    calls = []
    for name in ("energy_and_forces", "with_virial"):
        compiled = getattr(calculator, name)
        monkeypatch.setattr(calculator, name, lambda *inputs, f=compiled, n=name: calls.append(n) or f(*inputs))
    atoms = atoms_of(crystals()[1])
    atoms.calc = calculator
    atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energy()
    atoms.get_stress()[:] = 0.0  # a copy
    assert np.abs(atoms.get_stress()).max() > 1e-4 and calls == ["with_virial"]
    water = ase.build.molecule("H2O")
    water.calc = calculator
    water.get_forces()
    for _ in range(2):
        with pytest.raises(PropertyNotImplementedError, match="OH2: a molecule has no stress; give it a cell"):
            water.get_stress()
    water.get_potential_energy()
    assert calls == ["with_virial", "energy_and_forces"]
    assert "stress" not in calculator.results
    water.set_cell([8.0, 8.0, 8.0])
    water.pbc = (True, True, False)
    with pytest.raises(DataError, match="for a slab or a wire set pbc to True with vacuum"):
        water.get_stress()
    water.pbc = True
    stress = water.get_stress()
    water.set_cell([8.0, 8.0, 16.0])
    np.testing.assert_allclose(water.get_stress(), stress / 2, atol=1e-15)  # the volume is that of the cell


def test_a_crystal_relaxes_with_its_cell(calculator, graph_mode):
    """FrechetCellFilter needs stress, energy and forces that belong together; shapes stay compiled."""
    atoms = atoms_of(crystals()[1])
    atoms.calc = copy.deepcopy(calculator)
    assert atoms.calc.with_virial is calculator.with_virial
    atoms.get_stress()
    start, shapes = atoms.get_potential_energy(), compile_count(calculator.with_virial)
    volume, relaxation = atoms.get_volume(), BFGSLineSearch(FrechetCellFilter(atoms), maxstep=0.02, logfile=None)
    relaxation.run(fmax=1e-6, steps=5)
    assert atoms.get_potential_energy() < start - 1e-3 and abs(atoms.get_volume() / volume - 1) > 1e-3
    assert compile_count(calculator.with_virial) <= shapes + 1  # more edges than the shape has room for
