"""What layers keep and draw, through the train step: behaviour, random numbers and running means in both modes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import BUDGET, molecules
from layered import SHARE, Layered, observed_by
from mindspore import ParameterTuple

from data_tools.graph import Budget, Labels
from data_tools.graphs.batching import build_graph, join, pad
from models.random import random_layers, set_keys
from physics.derivatives import EnergyAndForces
from training.checkpoint import Checkpoint
from training.objective import Term
from training.optimizer import AdamW, moments_of, operator_scalars
from training.step import EvaluationStep, TrainStep, compile_count, to_tensors
from training.weights import assign, parameters_of

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}
LARGER = Budget(nodes=48, edges=320, triplets=0, graphs=8)
CUTOFF = 3.0
ENERGIES, BOTH = (Term("energy"),), (Term("energy", 0.5, "mse"), Term("forces", 1.0, "mse"))


@pytest.fixture(params=MODES)
def mode(request, same_mode):
    ms.set_context(mode=MODES[request.param])
    return request.param


def batch_of(budget=BUDGET, dtype=np.float64, scale=1.0):
    """Three molecules with labels; a scale of 1e200 makes a loss infinite."""
    structures, random = molecules(), np.random.default_rng(1)
    atoms = sum(len(one.numbers) for one in structures)
    energies, forces = scale * random.normal(size=len(structures)), random.normal(size=(atoms, 3))
    labels = Labels({"energy": energies}, {"forces": forces})
    return pad(join([build_graph(one, CUTOFF) for one in structures]), budget, CUTOFF, dtype, labels)


class Run:
    """A model with its train and evaluation step."""

    def __init__(self, model, terms=ENERGIES, lr=1e-2, goes_on=True):
        self.model = model
        self.optimizer = AdamW(ParameterTuple(model.trainable_params()), 0.9, 0.999)
        self.step = TrainStep(model, self.optimizer, terms, goes_on=goes_on)
        self.evaluation = EvaluationStep(model)
        self.lr, self.made = lr, 0

    def train(self, batch):
        """The loss of one step, and whether it was made."""
        self.made += 1
        known = {name: int(mask.sum()) for name, mask in batch.masks.items()}
        scalars = operator_scalars(self.made, self.lr, 0.9, 0.999, 1e-8, 0.0)
        loss, _, finite = self.step(*self.step.layout.arguments(batch, known, 1.0, scalars))
        return float(loss.asnumpy()), float(finite.asnumpy())

    def evaluate(self, batch):
        """Outputs of the three molecules."""
        return self.evaluation(*to_tensors(batch.inputs))[0].asnumpy()[:3]


def squares(outputs, batch):
    """The loss of outputs."""
    return np.mean((outputs - batch.targets["energy"][:3]) ** 2)


def test_a_train_step_trains_and_everything_else_evaluates(mode):
    """Whatever was called before, and at a shape that comes up when another step has just set the model's behaviour."""
    run = Run(Layered(training_factor=3.0), lr=0.0)
    run.model.centre.value.set_data(ms.Tensor(observed_by(run.model, batch_of().inputs)))  # the same in both
    forces = EnergyAndForces(run.model)
    outputs = run.evaluate(batch_of())
    assert np.abs(outputs).max() > 0.1
    for budget in (BUDGET, LARGER, BUDGET):
        batch = batch_of(budget)
        for _ in range(2):
            loss, finite = run.train(batch)
            assert finite and loss == pytest.approx(squares(3 * outputs, batch), rel=1e-10)
            np.testing.assert_allclose(run.evaluate(batch), outputs, rtol=1e-10)
            np.testing.assert_allclose(forces(*to_tensors(batch.inputs))[0].asnumpy()[:3], outputs, rtol=1e-10)
    if mode == "GRAPH":
        assert (compile_count(run.step), compile_count(run.evaluation), compile_count(forces)) == (2, 2, 2)


def test_the_behaviour_that_somebody_else_set_is_not_compiled(mode):
    run, batch = Run(Layered(training_factor=3.0), lr=0.0), batch_of()
    run.model.centre.value.set_data(ms.Tensor(observed_by(run.model, batch.inputs)))
    run.model.set_train(True)
    outputs = run.evaluate(batch)
    run.evaluation.set_train(True)
    np.testing.assert_array_equal(run.evaluate(batch), outputs)
    run.step.set_train(False)
    assert run.train(batch)[0] == pytest.approx(squares(3 * outputs, batch), rel=1e-10)


def test_dropout_is_of_training_alone(mode):
    run, batch = Run(Layered(rate=0.5), lr=0.0), batch_of()
    run.model.centre.value.set_data(ms.Tensor(observed_by(run.model, batch.inputs)))
    layers, losses = random_layers(run.model), []
    outputs = run.evaluate(batch)
    for step in (1, 2, 3, 2, 1):
        set_keys(layers, 0, step)
        losses.append(run.train(batch)[0])
        np.testing.assert_array_equal(run.evaluate(batch), outputs)
    assert losses[0] == losses[4] and losses[1] == losses[3] and len(set(losses)) == 3
    assert abs(losses[0] - squares(outputs, batch)) > 1e-3 * losses[0]
    if mode == "GRAPH":
        assert compile_count(run.step) == compile_count(run.evaluation) == 1


def test_one_step_has_the_same_numbers_in_both_modes(same_mode):
    losses = []
    for mode in MODES.values():
        ms.set_context(mode=mode)
        run = Run(Layered(rate=0.5), BOTH)
        for step in (1, 2):
            set_keys(random_layers(run.model), 4, step)
            losses.append(run.train(batch_of())[0])
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-12) and losses[0] != losses[1]


@pytest.mark.parametrize(("terms", "dtype"), [(ENERGIES, "float32"), (BOTH, "float64")], ids=["energies", "forces"])
def test_a_running_mean_follows_its_law(mode, terms, dtype):
    """Beside the gradient and beside the gradient of a gradient: what the weights of each step make it observe."""
    run, kind = Run(Layered(dtype=getattr(ms, dtype)), terms), np.dtype(dtype).type
    expected = np.zeros(4)
    for budget in (BUDGET, LARGER, BUDGET, BUDGET):
        batch = batch_of(budget, kind)
        expected += SHARE * (observed_by(run.model, batch.inputs) - expected)
        assert run.train(batch)[1]
        np.testing.assert_allclose(run.model.centre.value.asnumpy(), expected, rtol=20 * np.finfo(dtype).eps)
        before = run.model.centre.value.asnumpy().copy()
        run.evaluate(batch)
        np.testing.assert_array_equal(run.model.centre.value.asnumpy(), before)
    assert np.abs(expected).min() > 0.01


def test_evaluation_uses_the_running_mean(mode):
    run, batch = Run(Layered()), batch_of()
    first = run.evaluate(batch)
    run.model.centre.value.set_data(ms.Tensor(np.full(4, 0.3)))
    assert np.abs(run.evaluate(batch) - first).max() > 0.01


@pytest.mark.parametrize(
    ("mode", "terms", "goes_on"),
    [("GRAPH", ENERGIES, True), ("GRAPH", BOTH, False), ("PYNATIVE", ENERGIES, False), ("PYNATIVE", BOTH, True)],
    indirect=["mode"],
)  # each two of the three meet
def test_a_step_that_is_not_finite_changes_nothing(mode, terms, goes_on):
    run = Run(Layered(rate=0.2), terms, goes_on=goes_on)
    for step in (1, 2):
        set_keys(random_layers(run.model), 0, step)
        assert run.train(batch_of())[1]
    before = {**parameters_of(run.model), **moments_of(run.optimizer)}
    loss, finite = run.train(batch_of(scale=1e200))
    assert not finite and not np.isfinite(loss)
    poisoned = batch_of()
    poisoned.inputs.positions[0] = np.nan  # what is observed then is not a number either
    assert not run.train(poisoned)[1]
    _, made = run.train(batch_of())
    after = {**parameters_of(run.model), **moments_of(run.optimizer)}
    assert bool(made) == goes_on
    for name, value in before.items():
        if goes_on:
            assert np.isfinite(after[name]).all()
        else:
            np.testing.assert_array_equal(after[name], value)
    assert np.array_equal(after["centre.value"], before["centre.value"]) != goes_on


def test_a_skipped_step_leaves_the_running_mean(mode):
    run = Run(Layered())
    run.train(batch_of())
    before = run.model.centre.value.asnumpy().copy()
    assert not run.train(batch_of(scale=1e200))[1]
    np.testing.assert_array_equal(run.model.centre.value.asnumpy(), before)


def test_checkpoints_hold_running_means_and_nothing_of_a_single_step():
    run = Run(Layered(rate=0.5))
    run.train(batch_of())
    kept = parameters_of(run.model)
    assert set(kept) == {"table", "bias", "out", "centre.value"}
    assert [item.name for item in run.model.trainable_params()] == ["table", "bias", "out"]
    names = {item.name for item in run.model.get_parameters()}
    assert names - set(kept) == {"centre.observed_of_step", "dropout.words.key_of_step"}
    other = Layered(rate=0.5)
    assign(other, Checkpoint(kept).weights)
    np.testing.assert_array_equal(other.centre.value.asnumpy(), run.model.centre.value.asnumpy())
    assign(Layered(), kept)  # a model without dropout has the same weights
