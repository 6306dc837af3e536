"""Losses against NumPy: what masks and ghosts count, and the gradients that training follows."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from configs.schema import TrainingConfig
from training.losses import ERRORS, FLOOR, FREQUENCY, LOSSES, STRUCTURE_ERRORS, masked_sum

#: of the numbers x and y of structures that have one number each
LAWS = {
    "mse": lambda x, y: (x - y) ** 2,
    "mae": lambda x, y: np.abs(x - y),
    "huber": lambda x, y: np.where(np.abs(x - y) < 1, (x - y) ** 2 / 2, np.abs(x - y) - 0.5),
    "norm": lambda x, y: np.abs(x - y),
    "adaptive": lambda x, y: np.log1p(np.abs(x - y) / FLOOR),
    "frobenius_norm": lambda x, y: np.abs(np.abs(x) - np.abs(y)) / np.abs(y),
}
SLOPES = {
    "mse": lambda x, y: 2 * (x - y),
    "mae": lambda x, y: np.sign(x - y),
    "huber": lambda x, y: np.clip(x - y, -1, 1),
    "norm": lambda x, y: np.sign(x - y),
    "adaptive": lambda x, y: np.sign(x - y) / (FLOOR + np.abs(x - y)),
    "frobenius_norm": lambda x, y: np.sign(np.abs(x) - np.abs(y)) * np.sign(x) / np.abs(y),
}
PREDICTION = np.array([0.0, 1.5, -3.0, 0.4, 7.0, 2.0])
LABEL = np.array([0.3, 1.0, 2.0, 0.4, -1.0, 3.0])
MASK = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])  # a missing label among the real ones


def error_of(name, prediction, label, mask):
    if name in ERRORS:
        return ERRORS[name](prediction, label)
    return STRUCTURE_ERRORS[name](prediction * mask, label * mask, mask, ())


def loss_of(name, prediction, label, mask):
    prediction, label, mask = Tensor(prediction), Tensor(label), Tensor(mask)
    return masked_sum(error_of(name, prediction, label, mask), mask)


def test_the_table_of_losses():
    assert set(LOSSES) == {*ERRORS, *STRUCTURE_ERRORS, FREQUENCY} == {*LAWS, FREQUENCY}
    assert LOSSES == TrainingConfig.__dataclass_fields__["loss"].metadata["choices"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAWS)
def test_the_law(name, dtype):
    arrays = [array.astype(dtype) for array in (PREDICTION, LABEL, MASK)]
    found = loss_of(name, *arrays).asnumpy()
    assert found.dtype == dtype
    assert found == pytest.approx(LAWS[name](PREDICTION, LABEL)[MASK == 1].sum(), rel=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_the_gradient_reaches_counted_graphs_only(name):
    def function(prediction):
        return masked_sum(error_of(name, prediction, Tensor(LABEL), Tensor(MASK)), Tensor(MASK))

    found = ms.jit(ms.grad(function))(Tensor(PREDICTION)).asnumpy()
    np.testing.assert_allclose(found, SLOPES[name](PREDICTION, LABEL) * MASK, rtol=1e-6, atol=1e-12)


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


def test_the_loss_of_norms_sees_neither_sign_nor_direction():
    """Nor at which atom of the structure a force acts; the length of the error sees all of it."""
    random = np.random.default_rng(0)
    label, mask, zero = random.normal(size=(6, 3)), np.ones((6, 3)), np.zeros((6, 3))
    owner, graphs = Tensor(np.array([0, 0, 0, 1, 1, 1], np.int32)), Tensor(np.ones(2))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))

    def blind(prediction):
        return STRUCTURE_ERRORS["frobenius_norm"](Tensor(prediction), Tensor(label), Tensor(mask), (owner, graphs))

    for wrong in (-label, label @ turn, label[[1, 2, 0, 4, 5, 3]]):
        assert np.abs(blind(wrong).asnumpy()).max() < 1e-12
        assert loss_of("norm", wrong, label, mask).asnumpy() > 0.5 * loss_of("norm", zero, label, mask).asnumpy()
    np.testing.assert_allclose(blind(zero).asnumpy(), 1.0)
    assert blind(label[[3, 4, 5, 0, 1, 2]]).asnumpy().min() > 0.01, "of another structure"


@pytest.mark.parametrize("name", LAWS)
def test_ghosts_change_nothing(name):
    """However large what the model says about the ghost graph, whose label is 0."""
    padded = [np.append(array, value) for array, value in ((PREDICTION, 1e6), (LABEL, 0.0), (MASK, 0.0))]
    assert loss_of(name, *padded).asnumpy() == loss_of(name, PREDICTION, LABEL, MASK).asnumpy()


@pytest.mark.parametrize("name", LAWS)
def test_a_batch_of_ghosts_has_loss_zero_and_no_gradient(name):
    def function(prediction):
        return masked_sum(error_of(name, prediction, Tensor(LABEL), Tensor(np.zeros(6))), Tensor(np.zeros(6)))

    assert loss_of(name, PREDICTION, LABEL, np.zeros(6)).asnumpy() == 0
    np.testing.assert_array_equal(ms.jit(ms.grad(function))(Tensor(PREDICTION)).asnumpy(), 0.0)
