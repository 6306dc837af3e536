"""models/e3/edge_frame.py and frame_product.py: rotations, their derivatives, and the products that they replace."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import pytest
from helpers import on_path, rotations
from mindspore import Tensor

from models.e3.edge_frame import EdgeFrames, IntoFrame, OutOfFrame
from models.e3.frame_product import FrameGate, FrameTensorProduct
from models.e3.irreps import Irreps, IrrepsError
from models.e3.layout import channels_last
from models.e3.nonlinear import Gate
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling, FullyConnectedTensorProduct
from models.e3.wigner import representation

pytestmark = pytest.mark.usefixtures("graph_mode")
INPUT, OUTPUT = Irreps("3x0e+2x1o+2x2e+1x0e"), Irreps("5x0e+1x1o+2x2e")
LMAX, LMAX_ATTRIBUTES = 2, 3


def vectors(seed: int = 0) -> np.ndarray:
    """Random ones, both poles, their neighbourhood, and the plane between the two ways to rotate."""
    special = [[0, 2, 0], [0, -2, 0], [1e-9, -1.5, 0], [1e-4, 1.5, 1e-4], [1, 0, 0.5], [1, -1e-12, 0.5]]
    return np.concatenate([special, np.random.default_rng(seed).normal(size=(6, 3))])


def pair():
    """The same product in the frame and outside, with the same weights."""
    inside = FrameTensorProduct(INPUT, OUTPUT, LMAX_ATTRIBUTES, "element", ms.float64, ms.float64)
    coupling = Coupling(Irreps.spherical_harmonics(LMAX_ATTRIBUTES), sorted({p.ir for p in INPUT}),
                        sorted({p.ir for p in OUTPUT}), ms.float64, ms.float64)  # fmt: skip
    outside = FullyConnectedTensorProduct(
        INPUT, OUTPUT, coupling, "component", "element", True, True, ms.float64, ms.float64
    )
    random = np.random.default_rng(0)
    assert inside.numel == outside.numel and np.array_equal(inside.fan_in, outside.fan_in)
    for name, size in (("weight", inside.numel), ("bias", 5)):
        values = random.normal(size=size)
        for cell in (inside, outside):
            getattr(cell, name).set_data(Tensor(values))
    frames, into, out = (
        EdgeFrames(LMAX, ms.float64, ms.float64),
        IntoFrame(INPUT, LMAX, ms.float64),
        OutOfFrame(OUTPUT, LMAX, ms.float64),
    )
    harmonics = SphericalHarmonics(LMAX_ATTRIBUTES, True, "component", ms.float64)

    def in_frame(x, r):
        d = frames(r)
        return out(inside(into(x, d)), d)

    def direct(x, r):
        return outside(x, coupling(harmonics(r)))

    return in_frame, direct


def test_a_product_in_the_frame(path):
    in_frame, direct = pair()
    x = Tensor(np.random.default_rng(1).normal(size=(12, INPUT.dim)))
    found, expected = (ms.jit(one)(x, Tensor(vectors())).asnumpy() for one in (in_frame, direct))
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


def derivatives(function):
    """Three orders in the vectors, as compiled functions of these."""
    random = np.random.default_rng(2)
    x, v, w = (Tensor(random.normal(size=(12, n))) for n in (INPUT.dim, 3, 3))

    def value(r):
        y = function(x, r)
        return (y * y * y).sum()

    def second(r):
        return (ms.grad(value)(r) * v).sum()

    def third(r):
        return (ms.grad(second)(r) * w).sum()

    return [ms.jit(ms.grad(each)) for each in (value, second, third)]


@functools.cache
def of_the_direct_product():
    """Its derivatives, with kernels."""
    with on_path("kernels"):
        _, direct = pair()
    return [each(Tensor(vectors())).asnumpy() for each in derivatives(direct)]


def test_its_derivatives_to_third_order(path):
    """Those of the direct product, whose harmonics are polynomials; at the poles too."""
    in_frame, _ = pair()
    orders = 3 if path == "kernels" else 2  # the third of the operators compiles for a minute
    for found, theirs in zip(derivatives(in_frame)[:orders], of_the_direct_product()[:orders], strict=True):
        assert np.abs(found(Tensor(vectors())).asnumpy() - theirs).max() < 1e-10 * np.abs(theirs).max()


def test_into_the_frame_and_out_of_it(path):
    irreps = Irreps("2x0e+3x1o+2x2e+1x3o")
    frames, into, out = (
        EdgeFrames(3, ms.float64, ms.float64),
        IntoFrame(irreps, 3, ms.float64),
        OutOfFrame(irreps, 3, ms.float64),
    )
    x, d = np.random.default_rng(3).normal(size=(12, irreps.dim)), frames(Tensor(vectors()))
    assert np.abs(out(into(Tensor(x), d), d).asnumpy() - x).max() < 1e-12
    harmonics = SphericalHarmonics(3, True, "component", ms.float64)(Tensor(vectors()))
    z = IntoFrame(Irreps.spherical_harmonics(3), 3, ms.float64)(harmonics, d)
    rows = z.asnumpy()
    assert np.abs(rows[:, :4] - np.sqrt([1, 3, 5, 7])).max() < 1e-12  # of m = 0
    assert np.abs(rows[:, 4:]).max() < 1e-12


def test_a_vector_of_length_zero(path):
    frames, into = EdgeFrames(LMAX, ms.float64, ms.float64), IntoFrame(INPUT, LMAX, ms.float64)
    x = Tensor(np.random.default_rng(6).normal(size=(2, INPUT.dim)))

    def value(r):
        z = into(x, frames(r))
        return (z * z * z).sum()

    assert np.isfinite(ms.jit(ms.grad(value))(Tensor(np.zeros((2, 3)))).asnumpy()).all()


def test_the_gate_in_the_frame(path):
    irreps, gated = Irreps("3x0e+2x1o+1x2e"), Irreps("6x0e+2x1o+1x2e")
    gate = Gate("3x0e", ["silu"], "3x0e", ["sigmoid"], "2x1o+1x2e", False, ms.float64)
    d = EdgeFrames(LMAX, ms.float64, ms.float64)(Tensor(vectors()))
    x = Tensor(np.random.default_rng(4).normal(size=(12, gated.dim)))
    found = OutOfFrame(irreps, LMAX, ms.float64)(
        FrameGate(irreps, ms.float64, ms.float64)(IntoFrame(gated, LMAX, ms.float64)(x, d)), d
    )
    assert np.abs(found.asnumpy() - gate(x).asnumpy()).max() < 1e-12


def test_other_parities_are_refused():
    with pytest.raises(IrrepsError, match="natural parity"):
        FrameTensorProduct(Irreps("2x0e+1x1e"), Irreps("2x0e"), 2, "none", ms.float64, ms.float64)


def test_rotation_and_inversion(path):
    in_frame = ms.jit(pair()[0])
    r, x = vectors(), np.random.default_rng(5).normal(size=(12, INPUT.dim))
    forth, back = channels_last(INPUT), np.argsort(channels_last(OUTPUT))
    before = in_frame(Tensor(x[:, forth]), Tensor(r)).asnumpy()[:, back]
    for matrix in rotations(4):
        of_x, of_y = representation(INPUT, matrix), representation(OUTPUT, matrix)
        turned = in_frame(Tensor((x @ of_x.T)[:, forth]), Tensor(r @ matrix.T)).asnumpy()[:, back]
        assert np.abs(turned - before @ of_y.T).max() < 1e-10
