"""Derivatives of energies: right to third order, compiled in both modes, whatever the padding and the chunks."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import pytest
from helpers import CASES, TOLERANCES, assert_close, build, make_batch, molecule, molecules, on_path
from mindspore import Tensor, nn

from data_tools.graph import Budget, Structure
from physics.derivatives import (
    Compiled,
    DerivativeError,
    EnergyAndForces,
    HessianProduct,
    observables,
)
from training.device import MODES
from training.objective import Term
from training.optimizer import AdamW
from training.step import TrainStep, to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

CASE = CASES[0]


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
    """In GRAPH mode MindSpore would call itself without end, beyond what the stack holds."""
    monkeypatch.setenv("MS_JIT", "0")
    model = build(CASE)
    for mode in MODES.values():
        ms.set_context(mode=mode)
        with pytest.raises(DerivativeError, match="unset it"):
            EnergyAndForces(model)(*to_tensors(make_batch(molecules(), CASE.cutoff).inputs))
    ms.set_context(mode=ms.PYNATIVE_MODE)
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


# --- Hessian products -------------------------------------------------------------------------------------------------


def test_structures_of_a_batch_do_not_see_each_other():
    """One product with a probe in every structure gives each its own H v; whole Hessians stand in test_hessian.py."""
    ms.set_context(mode=ms.GRAPH_MODE)
    structures, product = molecules(), HessianProduct(build(CASE))
    sizes = np.array([len(structure.numbers) for structure in structures])
    starts = np.cumsum(sizes) - sizes

    def products(probed):
        """H v of the same batch with a probe in some of the structures."""
        batch = make_batch(structures, CASE.cutoff)
        field = np.zeros((len(batch.inputs.numbers), 3))
        field[starts[probed], 0] = 1.0
        return product(*to_tensors(batch.inputs), Tensor(field)).asnumpy()

    together = products([0, 1, 2])
    for k in range(3):
        own, alone = slice(starts[k], starts[k] + sizes[k]), products([k])
        assert_close(together[own], alone[own], "symmetry")
        assert np.abs(alone[own]).max() > 0.1
        alone[own] = 0.0
        assert not alone.any(), "also those of the ghosts"


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


#: each mode and each path once, with a budget of its own
MADE = {"GRAPH": ("operators", Budget(14, 60, 0, 6)), "PYNATIVE": ("kernels", Budget(30, 100, 0, 7))}


class ThirdOrder:
    """Linear molecules and an atom without neighbours: their loss and its gradients, in one mode."""

    def __init__(self, mode):
        self.mode, (path, self.budget) = mode, MADE[mode]
        with on_path(path):
            self.compiled = ProductLoss(build(CASE))
        self.unchanged = self()

    def __call__(self):
        ms.set_context(mode=MODES[self.mode])
        structures = [*(molecule(name, rattle=0.0) for name in LINEAR), Structure(np.array([18]), np.zeros((1, 3)))]
        field = np.zeros((self.budget.nodes, 3))
        field[:11] = np.random.default_rng(3).normal(size=(11, 3))
        inputs = to_tensors(make_batch(structures, CASE.cutoff, self.budget).inputs)
        loss, gradients = self.compiled(*inputs, Tensor(field))
        return float(loss.asnumpy()), [gradient.asnumpy() for gradient in gradients]


third_order = functools.cache(ThirdOrder)


@pytest.mark.parametrize("mode", MADE)
def test_third_derivatives(mode):
    """Against differences; finite for linear molecules and an atom without neighbours."""
    third, random = third_order(mode), np.random.default_rng(4)
    loss, gradients = third.unchanged
    assert np.isfinite(loss) and all(np.isfinite(gradient).all() for gradient in gradients)
    weights = third.compiled.weights
    before = [weight.asnumpy().copy() for weight in weights]
    direction = [random.normal(size=values.shape) for values in before]
    losses = []
    for sign in (1, -1):
        for weight, values, change in zip(weights, before, direction, strict=True):
            weight.set_data(Tensor(values + sign * 1e-5 * change))
        losses.append(third()[0])
    slope = sum(float((gradient * change).sum()) for gradient, change in zip(gradients, direction, strict=True))
    assert_close(np.array((losses[0] - losses[1]) / 2e-5), np.array(slope), "differences")


def test_third_derivatives_depend_neither_on_the_budget_nor_on_mode_and_path():
    first, second = map(third_order, MADE)
    assert first.budget != second.budget
    (loss, gradients), (other_loss, other) = first.unchanged, second.unchanged
    largest = max(np.abs(gradient).max() for gradient in gradients)
    assert_close(np.array(other_loss), np.array(loss), "padding")
    for one, two in zip(gradients, other, strict=True):
        assert_close(two, one, "gradients", scale=largest)


def test_no_tolerance_hides_anything():
    assert TOLERANCES["differences"] <= 1e-6 and TOLERANCES["gradients"] <= 1e-10
