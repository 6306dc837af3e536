"""models/e3/spherical_harmonics.py: e3nn's numbers, equivariance, and derivatives to third order, at zero too."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from helpers import rotations
from mindspore import Tensor

from models.e3.irreps import Irreps
from models.e3.spherical_harmonics import NORMALIZATIONS, SphericalHarmonics
from models.e3.wigner import representation

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "e3nn_pieces.npz")
LMAX = 6
pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.mark.parametrize("normalize", [False, True], ids=["polynomials", "directions"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_harmonics_of_e3nn(normalization, normalize):
    found = SphericalHarmonics(LMAX, normalize, normalization, ms.float64)(Tensor(GOLDEN["sh/x"])).asnumpy()
    expected = [GOLDEN[f"sh/l{degree}_{normalization}_normalize{int(normalize)}"] for degree in range(LMAX + 1)]
    for place, theirs in zip(Irreps.spherical_harmonics(LMAX).slices(), expected, strict=True):
        assert np.abs(found[:, place] - theirs).max() <= 1e-12 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("lmax", range(4))
def test_lower_degrees_are_the_first_columns(lmax):
    x = Tensor(GOLDEN["sh/x"])
    every = SphericalHarmonics(LMAX, True, "component", ms.float64)(x).asnumpy()
    found = SphericalHarmonics(lmax, True, "component", ms.float64)(x).asnumpy()
    assert found.shape == (len(every), (lmax + 1) ** 2)
    assert np.abs(found - every[:, : found.shape[1]]).max() < 1e-13


def test_rotation_and_inversion():
    harmonics = SphericalHarmonics(LMAX, True, "component", ms.float64)
    x = np.random.default_rng(0).normal(size=(20, 3))
    before = harmonics(Tensor(x)).asnumpy()
    for matrix in rotations(4):
        turned = harmonics(Tensor(x @ matrix.T)).asnumpy()
        expected = before @ representation(Irreps.spherical_harmonics(LMAX), matrix).T
        assert np.abs(turned - expected).max() < 1e-12


def test_gradient_of_e3nn():
    harmonics = SphericalHarmonics(4, True, "component", ms.float64)
    x, cotangent = GOLDEN["sh/x"][: len(GOLDEN["sh/ct_l0to4"])], Tensor(GOLDEN["sh/ct_l0to4"])

    def weighted(vectors):
        return (harmonics(vectors) * cotangent).sum()

    gradient = ms.jit(ms.grad(weighted))(Tensor(x)).asnumpy()
    expected = GOLDEN["sh/grad_l0to4_component_normalize1"]
    length = np.linalg.norm(x, axis=1)
    there = length > 1e-6
    assert np.abs(gradient[there] - expected[there]).max() <= 1e-11 * np.abs(expected[there]).max()
    assert np.isfinite(gradient).all() and not gradient[length == 0].any()


@pytest.mark.parametrize("normalize", [False, True], ids=["polynomials", "directions"])
def test_derivatives_to_third_order(normalize):
    """Against central differences of the order before; at a vector of length 0 finite, and 0 for a direction."""
    harmonics = SphericalHarmonics(LMAX, normalize, "component", ms.float64)
    random = np.random.default_rng(1)
    x, v, w = (random.normal(size=(6, 3)) for _ in range(3))
    x[-1] = 0.0
    weights = Tensor(random.normal(size=(6, (LMAX + 1) ** 2)))
    directions = Tensor(v), Tensor(w)

    def value(vectors):
        y = harmonics(vectors) * weights
        return (y * y).sum()

    def first(vectors):
        return (ms.grad(value)(vectors) * directions[0]).sum()

    def second(vectors):
        return (ms.grad(first)(vectors) * directions[1]).sum()

    step = 1e-5
    for function in (value, first, second):
        compiled, gradient = ms.jit(function), ms.jit(ms.grad(function))(Tensor(x)).asnumpy()
        assert np.isfinite(gradient).all()
        if normalize:
            assert not gradient[-1].any()
        moved = random.normal(size=x.shape)
        moved[-1] = 0.0  # there a direction has no derivative
        ahead, behind = (float(compiled(Tensor(x + sign * step * moved)).asnumpy()) for sign in (1, -1))
        found = (gradient * moved).sum()
        assert abs((ahead - behind) / (2 * step) - found) <= 1e-6 * np.abs(gradient * moved).sum()


def test_single_precision():
    x = GOLDEN["sh/x"]
    exact = SphericalHarmonics(LMAX, True, "component", ms.float64)(Tensor(x)).asnumpy()
    found = SphericalHarmonics(LMAX, True, "component", ms.float32)(Tensor(x.astype(np.float32))).asnumpy()
    there = np.linalg.norm(x, axis=1) > 1e-6
    assert np.abs(found - exact)[there].max() < 1e-5


@pytest.mark.parametrize(("lmax", "normalization"), [(2, "unit"), (-1, "norm")])
def test_bad_settings(lmax, normalization):
    with pytest.raises(ValueError, match="expected one of component, norm, integral"):
        SphericalHarmonics(lmax, True, normalization, ms.float64)
