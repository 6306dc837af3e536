"""models/e3/wigner.py: laws of Wigner's symbols and matrices, and e3nn's numbers for both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import rotations

from models.e3.irreps import Irreps
from models.e3.wigner import representation, wigner_3j, wigner_D

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "e3nn_pieces.npz")
TRIPLES = [
    (l1, l2, l3) for l1 in range(5) for l2 in range(5) for l3 in range(abs(l1 - l2), min(l1 + l2, 6) + 1)
]  # fmt: skip


def proper(count, seed=0):
    """Random rotations."""
    return [matrix * np.sign(np.linalg.det(matrix)) for matrix in rotations(count, seed)]


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("w3j/")])
def test_symbols_of_e3nn(name):
    assert np.abs(wigner_3j(*map(int, name[4:].split("_"))) - GOLDEN[name]).max() < 1e-14


@pytest.mark.parametrize("degrees", TRIPLES, ids=str)
def test_a_symbol_is_the_invariant_tensor(degrees):
    """Equation (2), norm 1, and the sign of an exchange of two degrees."""
    symbol = wigner_3j(*degrees)
    for rotation in proper(3):
        turned = symbol
        for axis, degree in enumerate(degrees):
            turned = np.moveaxis(np.tensordot(wigner_D(degree, rotation), turned, (1, axis)), 0, axis)
        assert np.abs(turned - symbol).max() < 1e-13
    assert np.isclose(np.linalg.norm(symbol), 1, rtol=0, atol=1e-14)
    exchanged = wigner_3j(degrees[1], degrees[0], degrees[2]).transpose(1, 0, 2)
    assert np.abs(exchanged - (-1) ** sum(degrees) * symbol).max() < 1e-14


def test_degrees_that_do_not_couple():
    with pytest.raises(ValueError, match="expected"):
        wigner_3j(1, 1, 3)


def test_a_symbol_is_shared_and_cannot_be_changed():
    assert wigner_3j(1, 2, 3) is wigner_3j(1, 2, 3)
    with pytest.raises(ValueError, match="read-only"):
        wigner_3j(1, 2, 3)[0, 0, 0] = 1.0


@pytest.mark.parametrize("degree", range(12))
def test_rotation_matrices(degree):
    """A representation of the group: D(R S) = D(R) D(S), orthogonal, the identity of the identity."""
    first, second = proper(2, seed=degree)[1:]
    matrix = wigner_D(degree, first)
    assert np.abs(matrix @ wigner_D(degree, second) - wigner_D(degree, first @ second)).max() < 1e-12
    assert np.abs(matrix @ matrix.T - np.eye(2 * degree + 1)).max() < 1e-12
    assert np.abs(wigner_D(degree, np.eye(3)) - np.eye(2 * degree + 1)).max() < 1e-13
    assert np.array_equal(wigner_D(degree, -first), matrix), "the parity is a factor of its own"


def test_rotation_matrices_of_e3nn():
    rotation = GOLDEN["wd/R"]
    for degree in range(5):
        assert np.abs(wigner_D(degree, rotation) - GOLDEN[f"wd/D{degree}"]).max() < 1e-13
    irreps = "8x0e+8x1o+4x2e+2x1e+3x0o"
    assert np.abs(representation(Irreps(irreps), rotation) - GOLDEN[f"wd/D_{irreps}"]).max() < 1e-13
    assert np.abs(representation(Irreps(irreps), -rotation) - GOLDEN[f"wd/D_inv_{irreps}"]).max() < 1e-13


@pytest.mark.parametrize("matrix", [np.ones((3, 3)), 2 * np.eye(3), np.eye(2), np.zeros((3, 3))], ids=str)
def test_what_is_no_rotation(matrix):
    with pytest.raises(ValueError, match="expected an orthogonal matrix"):
        wigner_D(1, matrix)
