"""models/e3 beside mindchemistry.e3, the other layers of E(3) for MindSpore, where that can be imported."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from models.e3.irreps import Irreps
from models.e3.layout import channels_last
from models.e3.linear import Linear
from models.e3.nonlinear import Gate
from models.e3.spherical_harmonics import NORMALIZATIONS, SphericalHarmonics
from models.e3.tensor_product import Coupling, FullyConnectedTensorProduct
from models.e3.wigner import wigner_3j

o3 = pytest.importorskip("mindchemistry.e3.o3", reason="mindchemistry is not installed")
theirs = pytest.importorskip("mindchemistry.e3.nn")

INPUT, ATTRIBUTES, OUTPUT = "3x0e+2x1o+1x2e", "1x0e+1x1o+1x2e", "4x0e+2x1o+2x1e+1x2e"
KINDS = {"dtype": ms.float64, "ncon_dtype": ms.float64}


def features(irreps: str, seed: int) -> np.ndarray:
    """In the layout of both e3nn and mindchemistry."""
    return np.random.default_rng(seed).normal(size=(5, Irreps(irreps).dim))


def here(irreps: str, x: np.ndarray) -> Tensor:
    """With channels last."""
    return Tensor(x[:, channels_last(Irreps(irreps))])


def agree(irreps: Irreps, found: Tensor, expected: Tensor, limit: float) -> bool:
    """Whether features with channels last are those of mindchemistry."""
    return np.abs(found.asnumpy() - expected.asnumpy()[:, channels_last(irreps)]).max() < limit


@pytest.mark.parametrize("text", ["2x1o+3x0e+1x1o", "1x2e+1x0o+2x0e+1x2e", "128x0e+64x1o"])
def test_irreps(text):
    ours, others = Irreps(text), o3.Irreps(text)
    assert (str(ours), ours.dim, ours.lmax) == (str(others), others.dim, others.lmax)
    assert str(ours.simplify()) == str(others.simplify())
    assert str(ours.sort().irreps.simplify()) == str(others.sort().irreps.simplify())


def test_wigner_3j():
    for degrees in ((0, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 3), (2, 2, 2), (3, 2, 1)):
        expected = o3.wigner_3j(*degrees).asnumpy()
        assert np.abs(wigner_3j(*degrees) - expected).max() < 1e-6  # theirs is float32


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_harmonics(normalization):
    irreps = Irreps.spherical_harmonics(4)
    r = Tensor(features("1x1o", 0))
    others = o3.SphericalHarmonics(str(irreps), True, normalization, dtype=ms.float64)
    ours = SphericalHarmonics(4, True, normalization, ms.float64)
    assert np.abs(ours(r).asnumpy() - others(r).asnumpy()).max() < 1e-6


def test_a_fully_connected_product():
    irreps = [Irreps(text) for text in (INPUT, ATTRIBUTES, OUTPUT)]
    others = o3.FullyConnectedTensorProduct(INPUT, ATTRIBUTES, OUTPUT, **KINDS)
    coupling = Coupling(
        irreps[1], sorted({part.ir for part in irreps[0]}), sorted({part.ir for part in irreps[2]}), ms.float64,
        ms.float64,
    )  # fmt: skip
    ours = FullyConnectedTensorProduct(
        irreps[0], irreps[2], coupling, "component", "element", True, False, ms.float64, ms.float64
    )
    assert ours.numel == others.weight_numel
    ours.weight.set_data(Tensor(others.weights.asnumpy()))
    x, a = features(INPUT, 1), features(ATTRIBUTES, 2)
    y = ours(here(INPUT, x), coupling(Tensor(a)))
    assert agree(irreps[2], y, others(Tensor(x), Tensor(a)), 1e-5)


def test_a_linear_layer():
    output = "4x0e+3x1o+1x2e"
    others, ours = o3.Linear(INPUT, output, **KINDS), Linear(INPUT, output, False, ms.float64)
    ours.weight.set_data(Tensor(others.weights.asnumpy()))
    x = features(INPUT, 3)
    assert agree(Irreps(output), ours(here(INPUT, x)), others(Tensor(x)), 1e-5)


def test_a_gate():
    """Theirs has constants of its own numbers drawn at each start."""
    parts, gated = ("3x0e", "3x0e"), "2x1o+1x2e"
    others = theirs.Gate(parts[0], [ms.ops.tanh], parts[1], [ms.ops.sigmoid], gated, **KINDS)
    ours = Gate(parts[0], ["tanh"], parts[1], ["sigmoid"], gated, False, ms.float64)
    assert str(ours.irreps_in) == str(others.irreps_in.simplify())
    x = features(str(ours.irreps_in), 4)
    y = others(Tensor(x))
    assert agree(ours.irreps_out, ours(here(str(ours.irreps_in), x)), y, 0.01 * np.abs(y.asnumpy()).max())
