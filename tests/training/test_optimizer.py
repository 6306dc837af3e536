"""AdamW, clipping and the moving average against their laws in float64 and against torch's numbers."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from adamw_law import SETTINGS, STEPS, gradients, make, reference, start
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from training.optimizer import (
    DECAY_ON,
    AdamW,
    average_of,
    clip_by_norm,
    moments_of,
    operator_scalars,
)

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}
DTYPES = ("float32", "float64")


@pytest.fixture(params=MODES)
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[request.param])
    yield request.param
    ms.set_context(mode=before)


class Clip(nn.Cell):
    def construct(self, first, second, largest):
        clipped = clip_by_norm(ops.concat((first.reshape(-1), second.reshape(-1)), 0), 2.0)
        return clipped[: first.size].reshape(first.shape), clipped[first.size :].reshape(second.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adamw_against_the_law(mode, dtype):
    weights = start(dtype)
    _, _, update = make(weights)
    rounding = np.finfo(dtype).eps
    expected = reference(weights, gradients(STEPS, dtype), **SETTINGS)
    for step, (step_gradients, (law, path)) in enumerate(zip(gradients(STEPS, dtype), expected, strict=True), 1):
        for ours, theirs, length, weight in zip(update(step_gradients), law, path, weights, strict=True):
            # 2e-6 of the way so far, and the rounding of the weight itself at each step
            allowed = 2e-6 * length + step * rounding * (np.abs(weight) + length)
            assert np.all(np.abs(ours - theirs) <= allowed), step


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay_on", DECAY_ON)
def test_weights_with_rates_of_their_own(mode, dtype, decay_on):
    weights = start(dtype)
    _, _, update = make(weights, decay_on=decay_on, rates={"weight0": 0.1})
    settings = [{**SETTINGS, "lr": rate * SETTINGS["lr"]} for rate in (0.1, 1.0)]
    expected = [reference(weights, gradients(STEPS, dtype), **one, decay_on=decay_on) for one in settings]
    for step_gradients, *laws in zip(gradients(STEPS, dtype), *expected, strict=True):
        for k, ours in enumerate(update(step_gradients)):
            law, path = laws[k][0][k], laws[k][1][k]
            assert np.all(np.abs(ours - law) <= 2e-6 * path + STEPS * np.finfo(dtype).eps * (np.abs(law) + path))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_something_else_has_changed(mode, dtype):
    """They are taken when the optimiser is told, as after a checkpoint; the next step starts from them."""
    weights = start(dtype)
    parameters, optimizer, update = make(weights)
    first, second = list(gradients(2, dtype))
    stepped = update(first)
    for parameter, value in zip(parameters, stepped, strict=True):
        parameter.set_data(Tensor(value + 1))
    optimizer.take_weights()
    _, _, update_of_other = make(weights)
    update_of_other(first)
    for ours, plain, before in zip(update(second), update_of_other(second), stepped, strict=True):
        # the same step but for weight decay, which takes a share of the weight
        decay = SETTINGS["lr"] * SETTINGS["weight_decay"]
        assert np.allclose(ours - (before + 1), plain - before - decay, rtol=0, atol=1e-6)


# Made with torch 2.13, default dtype float64:
#   weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
#   optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
#   for t in range(5):
#       weight.grad = torch.tensor([0.3, -1e-6, 2.0]) * (t + 1) * (-1) ** t + 0.01
#       optimizer.step(); print(weight)
TORCH_ADAMW = [
    [0.8900003225796046, -2.07999, 0.39500004975121905],
    [0.9157830611624282, -2.159180814371833, 0.4273316123826594],
    [0.8710250042524174, -2.237578321599675, 0.3886165907078181],
    [0.8843176386968825, -2.3151937809637255, 0.407723217187279],
    [0.8523447397936164, -2.392030565585769, 0.38132848517450657],
]


def torch_gradients():
    for t in range(len(TORCH_ADAMW)):
        yield np.array([0.3, -1e-6, 2.0]) * (t + 1) * (-1) ** t + 0.01


def test_the_reference_is_torch():
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
    found = reference([np.array([1.0, -2.0, 0.5])], ([gradient] for gradient in torch_gradients()), **settings)
    np.testing.assert_allclose([weights[0] for weights, _ in found], TORCH_ADAMW, rtol=1e-12)


def test_adamw_against_torch(mode):
    weight = np.array([1.0, -2.0, 0.5])
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
    _, _, update = make([weight, weight], **settings)
    found = [update([gradient, gradient])[0] for gradient in torch_gradients()]
    np.testing.assert_allclose(found, TORCH_ADAMW, rtol=1e-6)


# The same with amsgrad=True and the gradient of the fourth step 100 times smaller: v falls, its largest value does not.
TORCH_AMSGRAD = [
    *TORCH_ADAMW[:3],
    [0.8338435069900918, -2.297216731406189, 0.357212477664576],
    [0.7676140279512988, -2.361818293893819, 0.29624067257356085],
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_amsgrad_against_torch(mode, dtype):
    weight = np.array([1.0, -2.0, 0.5], dtype)
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}
    _, optimizer, update = make([weight, weight], amsgrad=True, **settings)
    steps = [gradient * (0.01 if t == 3 else 1.0) for t, gradient in enumerate(torch_gradients())]
    found = [update([gradient.astype(dtype)] * 2)[1] for gradient in steps]
    np.testing.assert_allclose(found, TORCH_AMSGRAD, rtol=2e-6)
    assert {name.split(".")[0] for name in moments_of(optimizer)} == {"first", "second", "largest"}
    assert np.all(optimizer.largest.asnumpy() >= optimizer.second.asnumpy())


def test_three_steps_have_bias_correction():
    """Learning rate 0.01, weight decay 0.1, gradient 1, weight 1: torch gives 0.967033, no correction gives 0.8735."""
    _, _, update = make([np.ones(1), np.ones(1)], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        (weight, _) = update([np.ones(1), np.ones(1)])
    assert weight[0] == pytest.approx(0.9670329892997002, rel=1e-7)


@pytest.mark.parametrize("beta2", [0.99, 0.999, 0.9999])
def test_the_operators_scalars_hold_for_long_runs(beta2):
    """The operator in float64 with the decays it holds, rounded to float32, against the law over 5,000 steps."""
    random = np.random.default_rng(0)
    b1, b2 = float(np.float32(0.9)), float(np.float32(beta2))
    first = second = m = v = 0.0
    ours = theirs = 1.0
    for step in range(1, 5001):
        gradient = random.normal() + 0.3
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        lr, epsilon, decay = operator_scalars(step, 1e-3, 0.9, beta2, 1e-8, 0.01)
        update = lr * (m / (np.sqrt(v) + epsilon) + decay * ours)
        first, second = 0.9 * first + 0.1 * gradient, beta2 * second + (1 - beta2) * gradient**2
        corrected = np.sqrt(second / (1 - beta2**step)) + 1e-8
        expected = 1e-3 * (first / (1 - 0.9**step) / corrected + 0.01 * theirs)
        assert update == pytest.approx(expected, rel=1e-6, abs=1e-6 * 1e-3), step
        ours, theirs = ours - update, theirs - expected


def test_a_rate_of_zero_changes_nothing(mode):
    weights = start()
    _, _, update = make(weights, lr=0.0)
    for found, weight in zip(update(next(gradients(1))), weights, strict=True):
        np.testing.assert_array_equal(found, weight)


@pytest.mark.parametrize("size", [0.1, 3.0])
def test_clipping_limits_the_common_norm(mode, size):
    given = [np.full((4, 3), size), np.full(5, -size)]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in given))
    for found, gradient in zip(Clip()(*map(Tensor, given), Tensor(2.0)), given, strict=True):
        np.testing.assert_allclose(found.asnumpy(), gradient * min(1.0, 2.0 / norm), rtol=1e-6)


def test_clipping_zero_gradients(mode):
    for found in Clip()(Tensor(np.zeros((4, 3))), Tensor(np.zeros(5)), Tensor(2.0)):
        np.testing.assert_array_equal(found.asnumpy(), 0.0)


def test_clipped_updates_follow_the_law(mode):
    weights = start()
    clipped = []
    for step_gradients in gradients(5):
        norm = np.sqrt(sum((gradient**2).sum() for gradient in step_gradients))
        clipped.append([gradient * min(1.0, 0.5 / norm) for gradient in step_gradients])
    _, _, update = make(weights, clip_norm=0.5)
    for step_gradients, (law, path) in zip(gradients(5), reference(weights, clipped, **SETTINGS), strict=True):
        for ours, theirs, length in zip(update(step_gradients), law, path, strict=True):
            np.testing.assert_array_less(np.abs(ours - theirs), 5e-6 * length + 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_moving_average(mode, dtype):
    weights = start(dtype)
    _, optimizer, update = make(weights, ema_decay=0.9)
    averages = [weight.astype(np.float64) for weight in weights]
    for step_gradients in gradients(STEPS, dtype):
        current = update(step_gradients)
        averages = [0.9 * average + 0.1 * weight for average, weight in zip(averages, current, strict=True)]
    for found, expected in zip(average_of(optimizer).values(), averages, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_the_moving_average_of_a_constant_is_the_constant(mode):
    """Two rounded factors that do not add up to 1 would let it drift."""
    parameters, optimizer, update = make(start(), lr=0.0, ema_decay=0.9999)
    zeros = [np.zeros((4, 3)), np.zeros(5)]
    for _ in range(50):
        update(zeros)
    for average, weight in zip(average_of(optimizer).values(), parameters, strict=True):
        np.testing.assert_array_equal(average, weight.asnumpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("decay_on", DECAY_ON)
def test_a_step_that_is_not_finite_changes_nothing(mode, dtype, bad, decay_on):
    parameters, optimizer, update = make(start(dtype), clip_norm=1.0, ema_decay=0.9, decay_on=decay_on)
    for step_gradients in gradients(3, dtype):
        update(step_gradients)
    state = [*parameters, optimizer.first, optimizer.second, optimizer.average]
    before = [value.asnumpy().copy() for value in state]
    poisoned = next(gradients(1, dtype))
    poisoned[0][1, 2] = bad
    update(poisoned, finite=0.0)
    for value, old in zip(state, before, strict=True):
        np.testing.assert_array_equal(value.asnumpy(), old)
    assert not np.array_equal(update(next(gradients(1, dtype)))[0], before[0])


class ManySteps(nn.Cell):
    """As ``Step``, for any number of weights."""

    def __init__(self, optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, finite, lr, epsilon, decay, *step_gradients):
        return self.optimizer(self.optimizer.flat(step_gradients), finite, lr, epsilon, decay)


def test_any_number_of_weights_compiles(mode, dtype="float64"):
    """With everything that the optimiser can do; a call nested for each weight ended at about 85 of them."""
    random = np.random.default_rng(3)
    weights = [random.normal(size=(2, 1 + k % 20)).astype(dtype) for k in range(300)]
    given = [random.normal(size=weight.shape).astype(dtype) for weight in weights]
    parameters = ParameterTuple([Parameter(Tensor(weight), name=f"weight{k}") for k, weight in enumerate(weights)])
    optimizer = AdamW(parameters, SETTINGS["beta1"], SETTINGS["beta2"], 1e9, 0.9, amsgrad=True)
    scalars = (Tensor(value, ms.float32) for value in (1.0, *operator_scalars(1, **SETTINGS)))
    of_name = {parameter.name: Tensor(gradient) for parameter, gradient in zip(parameters, given, strict=True)}
    ManySteps(optimizer)(*scalars, *(of_name[weight.name] for weight in optimizer.weights))
    averages = average_of(optimizer)
    ((expected, path),) = reference(weights, [given], **SETTINGS)
    for found, law, length, old in zip(parameters, expected, path, weights, strict=True):
        average = averages[found.name]
        rounding = 2 * np.finfo(dtype).eps * np.abs(old)
        allowed = 2e-6 * length + rounding
        assert np.all(np.abs(found.asnumpy() - law) <= allowed)
        assert np.all(np.abs(average - (0.9 * old + 0.1 * law)) <= 0.1 * allowed + rounding)


@pytest.mark.parametrize("beta", [0.0, 0.99999999, 1 - 1e-12])
def test_decays_that_float32_rounds_to_one(beta):
    scalars = operator_scalars(1, 1e-3, beta, beta, 1e-8, 0.01)
    assert np.all(np.isfinite(scalars)) and scalars[0] > 0
    weights = start("float32")
    _, _, update = make(weights, beta1=beta, beta2=beta, lr=1e-3)
    for found, weight in zip(update(next(gradients(1, "float32"))), weights, strict=True):
        assert np.all(np.isfinite(found)) and 0 < np.abs(found - weight).max() < 1.3e-3
