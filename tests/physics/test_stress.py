"""Virial and stress: derivatives with respect to a strain, of every model in both modes, and what ASE gets of them."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import ase.build
import mindspore as ms
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.stress import full_3x3_to_voigt_6_stress
from helpers import DIMENETPP, ONE_BLOCK, Case, assert_close, build, molecule
from small_crystals import labelled, one_atom, repeated, skewed, strain_slope, strained, volumes

from data_tools.graph import Budget, DataError, Labels
from data_tools.labels.statistics import WIDTH, Normalizer
from physics.calculator import Calculator
from physics.derivatives import Compiled, DerivativeError, EnergyAndForces, HessianProduct, observables
from training.device import MODES
from training.objective import Layout, Term, loss_of
from training.step import compile_count, to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

BUDGET = Budget(40, 1200, 0, 5)
ALONE = Budget(12, 90, 0, 3)


# --- the virial -------------------------------------------------------------------------------------------------------


class Derived:
    """A model of the table with energies, forces and virials of structures, in one mode."""

    def __init__(self, case, mode):
        self.case, self.mode, model = case, mode, build(case)
        self.function = Compiled(model, observables(model, ("energy", "forces", "virial")))
        self.periodic = case.cutoff < 10  # without an envelope the cutoff must exceed every distance
        self.structures = [molecule("CH3CH2OH", 1), *([one_atom(), skewed()] if self.periodic else [])]

    def __call__(self, structures, budget=None):
        ms.set_context(mode=MODES[self.mode])
        batch = self.case.batch(structures, budget or (BUDGET if self.periodic else ALONE))
        return [values.asnumpy() for values in self.function(*to_tensors(batch.inputs))]


@pytest.fixture(scope="module", params=MODES)
def derived(case, request):
    return Derived(case, request.param)


def test_virial_is_the_slope_of_a_strain(derived):
    """Of molecules too, where it is the sum of F r; ghosts have exactly none."""
    structures, count = derived.structures, len(derived.structures)
    _, forces, virial = derived(structures)
    slope = strain_slope(lambda strain: derived([strained(one, strain) for one in structures])[0])
    for found, expected in zip(virial[:count], -slope, strict=False):
        assert_close(found, expected, "differences")
        assert_close(found, found.T, "symmetry")
    assert np.abs(virial[:count]).max() > 0.01, "a flat potential proves nothing"
    assert not virial[count:].any() and not forces[sum(len(one.numbers) for one in structures) :].any()
    assert_close(virial[0], forces[:9].T @ structures[0].positions, "symmetry")


def test_virial_depends_neither_on_the_origin_nor_on_the_budget(derived):
    structures, count = derived.structures, len(derived.structures)
    _, _, virial = derived(structures)
    moved = [dataclasses.replace(one, positions=one.positions + np.array([3.0, -20.0, 7.0])) for one in structures]
    assert_close(derived(moved)[2], virial, "symmetry")
    if derived.periodic:
        assert_close(derived(structures, Budget(64, 2000, 0, 7))[2][:count], virial[:count], "padding")
        for place, one in enumerate(structures):
            assert_close(derived([one])[2][0], virial[place], "symmetry")


def test_virial_of_several_cells(derived):
    """An energy that is a sum over atoms grows with the crystal, and its virial does."""
    if derived.case.hyperparameters.get("readout", "sum") != "sum" or not derived.periodic:
        pytest.skip("another readout, or no crystals")
    for crystal in (one_atom(), skewed()):
        energy, forces, virial = derived([crystal])
        for copies in (2, 3):
            energies, all_forces, virials = derived([repeated(crystal, copies)])
            assert_close(energies[0], copies * energy[0], "symmetry")
            assert_close(virials[0], copies * virial[0], "symmetry")
            size = len(crystal.numbers)
            assert_close(all_forces[: copies * size], np.tile(forces[:size], (copies, 1)), "symmetry")


def test_what_is_wanted_comes_in_its_order():
    model = build(Case("small", "schnet", ONE_BLOCK, 3.0))
    batch = Case("small", "schnet", ONE_BLOCK, 3.0).batch([molecule("H2O"), skewed()], BUDGET)
    inputs, probe = to_tensors(batch.inputs), np.random.default_rng(0).normal(size=(BUDGET.nodes, 3))
    energies, forces = EnergyAndForces(model)(*inputs)
    expected = {
        "energy": energies, "forces": forces, "hessian_product": HessianProduct(model)(*inputs, ms.Tensor(probe)),
    }  # fmt: skip
    wanted = ("hessian_product", "forces", "virial", "energy")
    for mode in MODES.values():
        ms.set_context(mode=mode)
        found = Compiled(model, observables(model, wanted))(*inputs, ms.Tensor(probe))
        for name, values in zip(wanted, found, strict=True):
            if name != "virial":
                assert_close(values.asnumpy(), expected[name].asnumpy(), "modes")
        (alone,) = Compiled(model, observables(model, ("virial",)))(*inputs)
        assert_close(alone.asnumpy(), found[2].asnumpy(), "modes")
    with pytest.raises(DerivativeError, match="dipole: expected one of energy, forces, virial, hessian_product"):
        observables(model, ("energy", "dipole"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["schnet", "dimenetpp"])
def test_gradients_of_a_loss_on_stress_do_not_depend_on_the_budget(model, mode):
    """And are those that differences of the loss give."""
    ms.set_context(mode=MODES[mode])
    case = Case("small", model, ONE_BLOCK if model == "schnet" else DIMENETPP, 3.0)
    network, layout = build(case), Layout([Term("stress", 3.0, "mse")])
    weights = ms.ParameterTuple(network.trainable_params())
    forward = loss_of(network, layout, ms.float64)
    compiled = Compiled(network, ms.value_and_grad(forward, None, weights, has_aux=True))
    structures, random = [molecule("H2O"), one_atom(), skewed()], np.random.default_rng(0)
    labels = 0.01 * random.normal(size=(3, 3, 3))
    labels[0] = np.nan  # the molecule

    def at(budget):
        batch = labelled(case, structures, budget, Labels({"stress": labels, "volume": volumes(structures)}, {}))
        arguments = layout.arguments(batch, {"stress": 18}, 1.0, (0.0, 1.0, 0.0))
        (loss, _), gradients = compiled(*arguments[: layout.of_loss])
        return float(loss.asnumpy()), [gradient.asnumpy() for gradient in gradients]

    (loss, gradients), (other_loss, others) = at(BUDGET), at(Budget(64, 2000, 0, 7))
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

SCALE, ELEMENTS = 2.5, [1, 6, 8, 12, 18]
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


def crystal(structure):
    return Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=True)


@pytest.mark.parametrize("case", [SCHNET_CASE, DIMENETPP_CASE], ids=["schnet", "dimenetpp"])
@pytest.mark.parametrize("structure", [one_atom(), skewed()], ids=["one atom", "skewed"])
def test_stress_is_the_slope_of_the_energy(case, structure, graph_mode):
    """ASE's order and sign, eV per cubic Angstrom, to 1e-8 of the largest component."""
    calculator = make_calculator(case)
    atoms = crystal(structure)
    atoms.calc = calculator
    stress = atoms.get_stress()

    def energy(strain):
        moved = crystal(strained(structure, (strain + strain.T) / 2))
        moved.calc = calculator
        return np.array([moved.get_potential_energy()])

    expected = full_3x3_to_voigt_6_stress(strain_slope(energy)[0]) / atoms.get_volume()
    assert stress.shape == (6,) and np.abs(stress).max() > 1e-4
    assert np.abs(stress - expected).max() <= 1e-8 * np.abs(expected).max()
    np.testing.assert_allclose(atoms.get_stress(voigt=False), atoms.get_stress(voigt=False).T)


def test_positive_in_tension(calculator, graph_mode):
    """An energy that falls when the crystal grows has a negative stress: it pushes."""
    atoms = crystal(one_atom())
    atoms.calc = calculator
    grown = crystal(strained(one_atom(), 1e-4 * np.eye(3)))
    grown.calc = calculator
    rises = grown.get_potential_energy() > atoms.get_potential_energy()
    assert (atoms.get_stress()[:3] > 0).all() == rises


def test_stress_does_not_grow_with_the_crystal(calculator, graph_mode):
    atoms = crystal(skewed())
    atoms.calc = calculator
    stress = atoms.get_stress()
    larger = atoms.repeat((2, 1, 2))
    larger.positions += [5.0, 50.0, -3.0]
    larger.calc = calculator
    assert_close(larger.get_stress(), stress, "symmetry", scale=np.abs(stress).max())
    single = crystal(skewed())
    single.calc = make_calculator(dtype="float32")
    assert_close(single.get_stress(), stress, "precision", scale=np.abs(stress).max())
    assert single.get_stress().dtype == np.float64


def test_one_call_gives_all_of_a_crystal_and_a_molecule_needs_no_virial(calculator, graph_mode, monkeypatch):
    calls = []
    for name in ("energy_and_forces", "with_virial"):
        compiled = getattr(calculator, name)
        monkeypatch.setattr(calculator, name, lambda *inputs, f=compiled, n=name: calls.append(n) or f(*inputs))
    atoms = crystal(skewed())
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
    atoms = crystal(skewed())
    atoms.calc = copy.deepcopy(calculator)
    assert atoms.calc.with_virial is calculator.with_virial
    atoms.get_stress()
    start, shapes = atoms.get_potential_energy(), compile_count(calculator.with_virial)
    volume, relaxation = atoms.get_volume(), LBFGS(FrechetCellFilter(atoms), maxstep=0.02, logfile=None)
    relaxation.run(fmax=1e-6, steps=8)
    assert atoms.get_potential_energy() < start - 1e-3 and atoms.get_volume() != volume
    assert compile_count(calculator.with_virial) <= shapes + 1  # more edges than the shape has room for
