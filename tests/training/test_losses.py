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
}
SLOPES = {
    "mse": lambda difference: 2 * difference,
    "mae": np.sign,
    "huber": lambda difference: np.clip(difference, -1, 1),
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
