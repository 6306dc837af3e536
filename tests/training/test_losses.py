"""Losses against NumPy: what masks and ghosts count, and the gradients that training follows."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from training.losses import ERRORS, LOSSES, masked_sum

LAWS = {
    "mse": lambda difference: difference**2,
    "mae": np.abs,
    "huber": lambda difference: np.where(np.abs(difference) < 1, difference**2 / 2, np.abs(difference) - 0.5),
    "norm": np.abs,  # of numbers
}
SLOPES = {
    "mse": lambda difference: 2 * difference,
    "mae": np.sign,
    "huber": lambda difference: np.clip(difference, -1, 1),
    "norm": np.sign,
}
PREDICTION = np.array([0.0, 1.5, -3.0, 0.4, 7.0, 2.0])
LABEL = np.array([0.3, 1.0, 2.0, 0.4, -1.0, 3.0])
MASK = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])  # a missing label among the real ones


def loss_of(name, prediction, label, mask):
    return masked_sum(ERRORS[name](Tensor(prediction), Tensor(label)), Tensor(mask))


def test_the_table_of_losses():
    assert set(LOSSES) == set(ERRORS) == set(LAWS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_law(name, dtype):
    arrays = [array.astype(dtype) for array in (PREDICTION, LABEL, MASK)]
    found = loss_of(name, *arrays).asnumpy()
    assert found.dtype == dtype
    assert found == pytest.approx(LAWS[name](PREDICTION - LABEL)[MASK == 1].sum(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_reaches_counted_graphs_only(name):
    def function(prediction):
        return masked_sum(ERRORS[name](prediction, Tensor(LABEL)), Tensor(MASK))

    found = ms.jit(ms.grad(function))(Tensor(PREDICTION)).asnumpy()
    np.testing.assert_allclose(found, SLOPES[name](PREDICTION - LABEL) * MASK, rtol=1e-6, atol=1e-12)


def test_the_norm_of_vectors_does_not_depend_on_the_axes():
    """It is the length of the error, which is the same in every frame; right vectors have no slope and no NaN."""
    random = np.random.default_rng(0)
    prediction, label, mask = random.normal(size=(5, 3)), random.normal(size=(5, 3)), np.ones((5, 3))
    label[2] = prediction[2]
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    found, turned = (
        loss_of("norm", a, b, mask).asnumpy() for a, b in ((prediction, label), (prediction @ turn, label @ turn))
    )
    lengths = np.linalg.norm(prediction - label, axis=1)
    assert found == pytest.approx(np.sqrt(3) * lengths.sum(), rel=1e-6) == pytest.approx(turned, rel=1e-6)
    assert loss_of("mae", prediction @ turn, label @ turn, mask).asnumpy() != pytest.approx(
        loss_of("mae", prediction, label, mask).asnumpy(), rel=1e-3
    )

    def function(values):
        return masked_sum(ERRORS["norm"](values, Tensor(label)), Tensor(mask))

    slope = ms.jit(ms.grad(function))(Tensor(prediction)).asnumpy()
    expected = np.sqrt(3) * (prediction - label) / np.maximum(lengths, 1e-3)[:, None]
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_ghosts_change_nothing(name):
    """However large what the model says about the ghost graph, whose label is 0."""
    padded = [np.append(array, value) for array, value in ((PREDICTION, 1e6), (LABEL, 0.0), (MASK, 0.0))]
    assert loss_of(name, *padded).asnumpy() == loss_of(name, PREDICTION, LABEL, MASK).asnumpy()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_ghosts_has_loss_zero_and_no_gradient(name):
    def function(prediction):
        return masked_sum(ERRORS[name](prediction, Tensor(LABEL)), Tensor(np.zeros(6)))

    assert loss_of(name, PREDICTION, LABEL, np.zeros(6)).asnumpy() == 0
    np.testing.assert_array_equal(ms.jit(ms.grad(function))(Tensor(PREDICTION)).asnumpy(), 0.0)
