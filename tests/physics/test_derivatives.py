"""Derivatives of energies: right to third order, compiled in both modes, whatever the padding and the chunks."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from helpers import CASES, TOLERANCES, Bench, assert_close, build, make_batch, molecule, molecules
from mindspore import Tensor, nn

from data_tools.graph import Budget, Structure
from data_tools.graphs.batching import build_graph, join, pad
from models import build_model
from physics.derivatives import (
    Compiled,
    DerivativeError,
    EnergyAndForces,
    HessianProduct,
    hessian,
    observables,
    replicate,
)
from scripts.weights.weight_files import read_weights
from scripts.weights.weight_maps import convert
from training import checkpoint
from training.device import MODES
from training.objective import Term
from training.optimizer import AdamW
from training.step import TrainStep, compile_count, to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

GOLDEN = Path(__file__).parents[1] / "golden"
CASE = CASES[0]
ALONE = Budget(nodes=12, edges=90, triplets=0, graphs=2)


# --- the fault that this room exists for ------------------------------------------------------------------------------


def square_of_sum(x):
    return x.sum() * x.sum()


def projected(x, v):
    return (ms.grad(square_of_sum)(x) * v).sum()


def test_eager_gradients_of_gradients_are_wrong_and_compiled_ones_are_right():
    """H = 2 for every pair of components; should the eager line fail one day, MindSpore has been mended."""
    x, v = Tensor(np.array([1.0, 2.0, 3.0])), Tensor(np.array([0.5, -1.0, 4.0]))
    right = np.full(3, 2 * 3.5)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert np.array_equal(ms.grad(projected)(x, v).asnumpy(), np.zeros(3))
    for mode in MODES.values():
        ms.set_context(mode=mode)
        compiled = Compiled(nn.Cell(), ms.grad(projected))
        assert np.array_equal(compiled(x, v).asnumpy(), right)


def test_nothing_is_computed_where_compilation_is_switched_off(monkeypatch):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setenv("MS_JIT", "0")
    model = build(CASE)
    with pytest.raises(DerivativeError, match="unset it"):
        EnergyAndForces(model)(*to_tensors(make_batch(molecules(), CASE.cutoff).inputs))
    optimizer = AdamW(ms.ParameterTuple(model.trainable_params()), 0.9, 0.999)
    with pytest.raises(DerivativeError, match="unset it"):
        TrainStep(model, optimizer, [Term("energy"), Term("forces")])


def test_energies_of_a_compiled_slope_can_be_differentiated():
    """The has_aux outputs of value_and_grad would have no gradient, and a constant weight would make them zero."""
    model = build(CASE)
    derive = observables(model, ("energy", "forces"))

    def total(*inputs):
        return derive(*inputs)[0].sum()

    inputs = to_tensors(make_batch(molecules(), CASE.cutoff).inputs)
    for mode in MODES.values():
        ms.set_context(mode=mode)
        slope = Compiled(model, ms.grad(total, 1))(*inputs).asnumpy()
        outputs, forces = EnergyAndForces(model)(*inputs)
        assert_close(slope, -forces.asnumpy(), "symmetry")
        assert_close(outputs.asnumpy(), model(*inputs).asnumpy(), "modes")


# --- Hessians ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    ms.set_context(mode=ms.GRAPH_MODE)
    return Bench(CASE)


@pytest.fixture(scope="module")
def product(bench):
    return HessianProduct(bench.model)


def inputs_of(structure, budget=ALONE):
    return make_batch([structure], CASE.cutoff, budget).inputs


def full(product, structure, budget=ALONE, **options):
    return hessian(product, inputs_of(structure, budget), **options)


@pytest.mark.parametrize("mode", MODES)
def test_hessian_is_the_difference_of_forces(mode):
    ms.set_context(mode=MODES[mode])
    model = build(CASE)
    derive, structure, step = EnergyAndForces(model), molecule("CH3CH2OH", 1), 1e-4
    found = full(HessianProduct(model), structure)
    moved = []
    for sign in (1, -1):
        for k in range(27):
            positions = structure.positions.reshape(-1).copy()
            positions[k] += sign * step
            forces = derive(*to_tensors(inputs_of(Structure(structure.numbers, positions.reshape(-1, 3)))))[1]
            moved.append(forces.asnumpy()[:9].reshape(-1))
    rows = np.array(moved).reshape(2, 27, 27)
    differences = (rows[1] - rows[0]) / (2 * step)
    assert_close(found.reshape(27, 27), differences, "differences")
    assert_close(found.reshape(27, 27), found.reshape(27, 27).T, "symmetry")
    assert_close(found.sum(axis=2), np.zeros((9, 3, 3)), "symmetry", scale=np.abs(found).max())  # translations


@pytest.mark.parametrize("mode", MODES)
def test_hessian_equals_that_of_torch(mode):
    ms.set_context(mode=MODES[mode])
    with np.load(GOLDEN / "schnet_pyg_lite_hessian.npz") as golden:
        numbers, positions, expected = (golden[key] for key in ("z", "pos", "hessian64"))
    model = build_model("schnet", features=64, filters=64, blocks=2, gaussians=25, cutoff=5.0, dtype="float64")
    parameters = convert("pyg-schnet", dict(read_weights(GOLDEN / "schnet_pyg_lite.npz")))
    checkpoint.assign(model, {name: np.asarray(value, np.float64) for name, value in parameters.items()})
    graph = build_graph(Structure(numbers.astype(np.int32), positions), 5.0)
    batch = pad(join([graph]), ALONE, 5.0, np.float64)
    found = hessian(HessianProduct(model), batch.inputs).reshape(27, 27)
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()


def test_rows_are_the_same_however_they_are_computed(product):
    structure = molecule("CH3CH2OH", 1)
    whole = full(product, structure)
    for replicas in (1, 4, 27):
        assert_close(full(product, structure, replicas=replicas), whole, "symmetry")
    assert_close(full(product, structure, atoms=[5, 0], replicas=4), whole[[5, 0]], "symmetry")
    assert full(product, structure, atoms=[]).shape == (0, 3, 9, 3)
    assert_close(full(product, structure, Budget(20, 150, 0, 3)), whole, "padding")
    for atoms in ([9], [-1]):
        with pytest.raises(DerivativeError, match=r"0 to 8 expected"):
            full(product, structure, atoms=atoms)


def test_one_compilation_serves_every_probe(bench):
    product = HessianProduct(bench.model)
    ms.set_context(mode=ms.GRAPH_MODE)
    for seed in (1, 2):
        full(product, molecule("CH3CH2OH", seed), replicas=9)
    assert compile_count(product) == 1
    full(product, molecule("H2O"), replicas=1)
    assert compile_count(product) == 2


def test_structures_of_a_batch_do_not_see_each_other(bench, product):
    """One product with a probe in every structure gives each its own H v."""
    structures = molecules()
    batch = make_batch(structures, CASE.cutoff)
    probes = np.zeros((len(batch.inputs.numbers), 3))
    sizes = np.array([len(structure.numbers) for structure in structures])
    starts = np.cumsum(sizes) - sizes
    probes[starts, 0] = 1.0
    together = product(*to_tensors(batch.inputs), Tensor(probes)).asnumpy()
    for start, size, structure in zip(starts, sizes, structures, strict=True):
        alone = full(product, structure, Budget(16, 160, 0, 2), atoms=[0])[0, 0]
        assert_close(together[start : start + size], alone, "symmetry")
    assert not together[int(sizes.sum()) :].any()


def test_replicas_are_what_pad_makes_of_copies():
    """Also the triplets, whose edges move with the halves."""
    graph = build_graph(molecule("H2O", 2), CASE.cutoff, triplets=True)
    nodes, triplets = 3 + 2, 6 + 3
    single = pad(join([graph]), Budget(nodes, 6 + 8, triplets, 2), CASE.cutoff, np.float64).inputs
    copies = replicate(single, 3)
    assert [len(array) for array in copies] == [3 * len(array) for array in single]
    half = len(copies.senders) // 2
    assert np.array_equal(copies.senders[:half], copies.receivers[half:])
    assert np.array_equal(copies.receivers[:half], copies.senders[half:])
    for edges in ("triplet_in", "triplet_out"):
        numbers, first = getattr(copies, edges).reshape(3, triplets), getattr(single, edges)
        for copy in range(3):
            for found, expected in zip(numbers[copy], first, strict=True):
                assert copies.senders[found] == single.senders[expected] + nodes * copy
                assert copies.receivers[found] == single.receivers[expected] + nodes * copy
                assert np.array_equal(copies.shifts[found], single.shifts[expected])


def test_two_models_do_not_share_what_is_compiled():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    inputs = to_tensors(make_batch(molecules(), CASE.cutoff).inputs)
    results = [EnergyAndForces(build(CASE, seed=seed))(*inputs)[1].asnumpy() for seed in (0, 1, 0)]
    assert np.array_equal(results[0], results[2]) and not np.allclose(results[0], results[1])


# --- third order, and the edge of what is smooth ----------------------------------------------------------------------


class ProductLoss(Compiled):
    """Sum of squares of H v, and its gradients with respect to every parameter: a third derivative."""

    def __init__(self, model):
        weights = ms.ParameterTuple(model.trainable_params())
        derive = HessianProduct(model).function

        def loss(*arguments):
            found = derive(*arguments) * arguments[8].reshape(-1, 1)
            return (found * found).sum()

        super().__init__(model, ms.value_and_grad(loss, None, weights))
        self.weights = weights


LINEAR = ("HCN", "C2H2", "CO2")


@pytest.mark.parametrize("mode", MODES)
def test_third_derivatives(mode):
    """Against differences; finite for linear molecules and an atom without neighbours, and equal for two budgets."""
    ms.set_context(mode=MODES[mode])
    model = build(CASE)
    compiled, random = ProductLoss(model), np.random.default_rng(3)
    structures = [*(molecule(name, rattle=0.0) for name in LINEAR), Structure(np.array([18]), np.zeros((1, 3)))]
    probes = random.normal(size=(11, 3))

    def at(budget):
        inputs = make_batch(structures, CASE.cutoff, budget).inputs
        field = np.zeros((budget.nodes, 3))
        field[:11] = probes
        loss, gradients = compiled(*to_tensors(inputs), Tensor(field))
        return float(loss.asnumpy()), [gradient.asnumpy() for gradient in gradients]

    budget = Budget(14, 60, 0, 6)
    loss, gradients = at(budget)
    assert np.isfinite(loss) and all(np.isfinite(gradient).all() for gradient in gradients)
    largest = max(np.abs(gradient).max() for gradient in gradients)
    other_loss, other = at(Budget(30, 100, 0, 7))
    assert_close(np.array(other_loss), np.array(loss), "padding")
    for one, two in zip(gradients, other, strict=True):
        assert_close(two, one, "gradients", scale=largest)
    before = [weight.asnumpy().copy() for weight in compiled.weights]
    direction = [random.normal(size=values.shape) for values in before]
    losses = []
    for sign in (1, -1):
        for weight, values, change in zip(compiled.weights, before, direction, strict=True):
            weight.set_data(Tensor(values + sign * 1e-5 * change))
        losses.append(at(budget)[0])
    slope = sum(float((gradient * change).sum()) for gradient, change in zip(gradients, direction, strict=True))
    assert_close(np.array((losses[0] - losses[1]) / 2e-5), np.array(slope), "differences")


def test_no_tolerance_hides_anything():
    assert TOLERANCES["differences"] <= 1e-6 and TOLERANCES["gradients"] <= 1e-10
