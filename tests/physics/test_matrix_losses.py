"""What losses of whole matrices see of the force constants of a crystal, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_crystals import rows_of, supercell_of

from physics.matrix_losses import eigenvalue_loss, norm_loss, squared_loss

LOSSES = (squared_loss, norm_loss, eigenvalue_loss)


@pytest.fixture(scope="module")
def matrix():
    """(48, 48) of AlCu, whose cubic supercell has triple eigenvalues."""
    rows = rows_of(supercell_of("Al", "Cu"), list(range(16))).transpose(0, 2, 1, 3).reshape(48, 48)
    return (rows + rows.T) / 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_gradient_is_the_slope_and_zero_belongs_to_equal_matrices(loss, matrix):
    random = np.random.default_rng(0)
    wrong, change = (one + one.T for one in random.normal(size=(2, 48, 48)))
    predicted = matrix + 0.1 * wrong
    values = [loss(predicted + sign * 1e-5 * change, matrix)[0] for sign in (1, -1)]
    value, gradient = loss(predicted, matrix)
    assert (gradient * change).sum() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
    assert value > 1e-3 and loss(matrix, matrix)[0] < 1e-25


def test_norms_are_blind_to_the_sign(matrix):
    """Every mode of the flipped crystal is unstable."""
    assert np.linalg.eigvalsh(-matrix)[0] < -10
    assert norm_loss(-matrix, matrix)[0] == 0 and not norm_loss(-matrix, matrix)[1].any()
    zero = squared_loss(np.zeros_like(matrix), matrix)[0]
    assert squared_loss(-matrix, matrix)[0] == pytest.approx(4 * zero)
    assert eigenvalue_loss(-matrix, matrix)[0] > zero


def test_norms_that_differ_by_rounding_alone_are_equal(matrix):
    """Else the gradient would be one or the other of the two at the kink."""
    for factor in (1 - 2e-15, 1, 1 + 2e-15):
        assert not norm_loss(factor * matrix, matrix)[1].any()
    for factor in (1 - 1e-12, 1 + 1e-12):
        value, gradient = norm_loss(factor * matrix, matrix)
        assert value == pytest.approx(1e-12, rel=1e-2)
        assert np.linalg.norm(gradient) == pytest.approx(1 / np.linalg.norm(matrix))


def test_norms_and_eigenvalues_are_blind_to_the_modes(matrix):
    """The displacements of all atoms turned against the lattice: another crystal with the same frequencies."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    every = np.kron(np.eye(16), turn)
    turned = every @ matrix @ every.T
    for loss in (norm_loss, eigenvalue_loss):
        value, gradient = loss(turned, matrix)
        assert value < 1e-13 and np.abs(gradient).max() < 1e-2 * np.abs(squared_loss(turned, matrix)[1]).max()
    assert squared_loss(turned, matrix)[0] > 0.05 * squared_loss(np.zeros_like(matrix), matrix)[0]
    np.testing.assert_allclose(turned.reshape(16, 3, 16, 3).sum(axis=2), 0, atol=1e-2)  # the sum rule sees nothing


def test_vectors_of_a_degenerate_pair_are_not_compared(matrix):
    """Two matrices that differ by rounding have other vectors there; their products with a probe are the same."""
    values, vectors = np.linalg.eigh(matrix)
    (first, *_) = np.flatnonzero(np.diff(values) < 1e-6 * values[-1])
    pair = vectors[:, first : first + 2]
    split = 1e-9 * (pair[:, :1] + pair[:, 1:]) @ (pair[:, :1] + pair[:, 1:]).T
    others = np.linalg.eigh(matrix + split)[1][:, first : first + 2]
    assert np.abs(np.abs((pair * others).sum(axis=0)) - 1).max() > 0.1
    assert squared_loss(matrix + split, matrix)[0] < 1e-18
    probe = np.random.default_rng(2).normal(size=48)
    np.testing.assert_allclose((matrix + split) @ probe, matrix @ probe, atol=1e-7)
