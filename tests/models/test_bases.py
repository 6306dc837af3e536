"""The bases of DimeNet++: against SciPy and the original, in both precisions, with derivatives to the third order."""

from __future__ import annotations

from fractions import Fraction
from functools import cache, partial
from itertools import pairwise
from math import factorial
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from numpy.polynomial import Legendre, Polynomial
from scipy.optimize import brentq
from scipy.special import spherical_jn

from models.angular import SphericalBesselBasis, ZonalHarmonics, spherical_bessel, spherical_bessel_zeros
from models.radial import BesselBasis, PolynomialEnvelope
from physics.derivatives import Compiled

GOLDEN = Path(__file__).parents[1] / "golden" / "dimenet_bases.npz"
TYPES = {"float32": (mstype.float32, np.float32), "float64": (mstype.float64, np.float64)}
#: largest error of a value, relative to the largest value of its degree; 7e-7 and 6e-15 were measured
VALUES = {"float32": 1e-6, "float64": 2e-14}
EPSILON = np.finfo(np.float64).eps


# --- what SciPy says --------------------------------------------------------------------------------------------------


@cache
def zeros_of(degrees, count):
    """By the interlacing of zeros, with SciPy's function and SciPy's solver."""
    zeros = np.pi * np.arange(1, count + degrees)
    rows = [zeros[:count]]
    for degree in range(1, degrees):
        between = partial(spherical_jn, degree)
        zeros = np.array([brentq(between, *pair, xtol=1e-14) for pair in pairwise(zeros)])
        rows.append(zeros[:count])
    return np.array(rows)


def radial_derivatives(zeros, x, orders=3):
    """R_ln and its derivatives by x, (orders + 1, P, L, N): j_l' = (l j_(l-1) - (l+1) j_(l+1)) / (2l+1), repeated."""
    degrees, count = zeros.shape
    every = np.arange(degrees + orders)
    step = np.diag(every[1:] / (2 * every[1:] + 1), -1) - np.diag(every[1:] / (2 * every[1:] - 1), 1)
    result = np.empty((orders + 1, len(x), degrees, count))
    for degree, row in enumerate(zeros):
        values = np.array([spherical_jn(k, row * x[:, None]) for k in every])  # (., P, N)
        normaliser = np.sqrt(2) / np.abs(spherical_jn(degree + 1, row))
        for order in range(orders + 1):
            power = np.linalg.matrix_power(step, order)[degree]
            result[order, :, degree] = np.tensordot(power, values, 1) * row**order * normaliser
    return result


def envelope(exponent=5):
    """x u(x) as in the paper."""
    p = exponent + 1
    return Polynomial([1] + [0] * (p - 1) + [-(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2])


def envelope_derivatives(x, pole, orders=3):
    """x u(x), or u(x), and derivatives by x, (orders + 1, P); 0 from x = 1 on."""
    values = np.array([envelope().deriv(order)(x) for order in range(orders + 1)])
    if pole:
        poles = np.array([(-1) ** k * np.prod(np.arange(1, k + 1)) / x ** (k + 1) for k in range(orders + 1)])
        values = leibniz(values, poles)
    return np.where(x < 1, values, 0)


def leibniz(first, second):
    """Derivatives of a product from those of its factors, along axis 0."""
    rows = []
    for order in range(len(first)):
        binomials = Polynomial([1, 1]) ** order
        rows.append(sum(c * first[k] * second[order - k] for k, c in enumerate(binomials.coef)))
    return np.array(rows)


def derivatives_of(cell, points, columns, dtype):
    """Value and derivatives to the third order of each column, (4, P, columns), compiled; ``points`` (P,)."""

    def value(x, choice):
        return (cell(x) * choice).sum()

    first = ops.GradOperation()(value)

    def first_sum(x, choice):
        return first(x, choice).sum()

    second = ops.GradOperation()(first_sum)

    def second_sum(x, choice):
        return second(x, choice).sum()

    third = ops.GradOperation()(second_sum)

    def everything(x, choice):
        return cell(x), first(x, choice), second(x, choice), third(x, choice)

    rows, choice = np.repeat(points, columns)[:, None], np.tile(np.eye(columns), (len(points), 1))
    value, *slopes = Compiled(cell, everything)(Tensor(rows.astype(dtype)), Tensor(choice.astype(dtype)))
    values = value.asnumpy()[::columns][None]  # (1, P, columns)
    return np.concatenate([values, [slope.asnumpy().reshape(-1, columns) for slope in slopes]])


def assert_each(found, expected, tolerance, axes):
    """The largest difference over ``axes``, relative to the largest expected value there; NaN never passes."""
    error = np.abs(found - expected).max(axes) / np.abs(expected).max(axes)
    assert (error <= tolerance).all(), f"{error} exceeds {tolerance}"


# --- spherical Bessel functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "count"), [(7, 8), (1, 1), (14, 3)])
def test_zeros_are_those_of_scipy(degrees, count):
    found = spherical_bessel_zeros(degrees, count)
    assert found.shape == (degrees, count) and found.dtype == np.float64
    np.testing.assert_allclose(found, zeros_of(degrees, count), rtol=2e-15)


def test_the_function_behind_them_is_that_of_scipy():
    arguments = np.concatenate([np.geomspace(1e-6, 1, 50), np.linspace(1, 45, 500)])
    for degree in range(14):
        expected = spherical_jn(degree, arguments)
        # against exact fractions this function is right to 4e-14, SciPy's to 1e-13
        np.testing.assert_allclose(spherical_bessel(degree, arguments), expected, rtol=1.2e-13, atol=1e-16)


class NoEnvelope(nn.Cell):
    """Lets the radial part through as it is."""

    def construct(self, distances):
        return ops.ones_like(distances)


def spherical_expected(zeros, x, kind):
    factor = {"none": np.ones_like(x), "smooth": envelope()(x), "pole": envelope()(x) / x}[kind]
    return radial_derivatives(zeros, np.where(x < 1, x, 1), 0)[0] * np.where(x < 1, factor, 0)[:, None, None]


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize(("cutoff", "degrees", "count"), [(3.0, 7, 8), (5.0, 4, 3), (8.0, 1, 1), (8.0, 7, 8)])
def test_spherical_basis_is_that_of_scipy(precision, cutoff, degrees, count):
    dtype, numpy_type = TYPES[precision]
    distances = np.linspace(0.1, cutoff, 1000, endpoint=False).astype(numpy_type)
    for kind in ("smooth", "pole", "none"):
        basis = SphericalBesselBasis(degrees, count, cutoff, 5, False, dtype)  # anew: what is compiled does not change
        basis.with_pole = kind == "pole"
        if kind == "none":
            basis.envelope = NoEnvelope()
        found = basis(Tensor(distances[:, None])).asnumpy().reshape(-1, degrees, count)
        assert found.dtype == numpy_type
        expected = spherical_expected(zeros_of(degrees, count), distances.astype(np.float64) / cutoff, kind)
        assert_each(found, expected, VALUES[precision], (0, 2))


def test_many_functions_and_tiny_distances():
    zeros = zeros_of(12, 12)
    basis = SphericalBesselBasis(12, 12, 5.0, 5, False, mstype.float64)
    distances = np.concatenate([np.geomspace(0.01, 0.1, 50), np.linspace(0.1, 5, 500), [5.0, 5.01, 6.0]])
    found = basis(Tensor(distances[:, None])).asnumpy().reshape(-1, 12, 12)
    assert_each(found, spherical_expected(zeros, distances / 5, "smooth"), 5e-14, (0, 2))
    assert not found[-3:].any()


def compare_derivatives(cell, cutoff, columns, numpy_type, expected_at, tolerances):
    """From 0.5 Angstrom to the cutoff against ``expected_at``; finite from 0.01 Angstrom on; 0 where the ghosts are.

    At tiny distances the derivatives of sin(w x) / x cancel: in float32 the third keeps three digits at 0.05 Angstrom.
    """
    tiny = np.geomspace(0.01, 0.4, 5)
    distances = np.concatenate([tiny, np.linspace(0.5, cutoff - 0.01, 30), [cutoff]]).astype(numpy_type)
    found = derivatives_of(cell, distances, columns, numpy_type)
    assert found.dtype == numpy_type and np.isfinite(found).all() and not found[:, -1].any()
    expected = expected_at(distances[len(tiny) :].astype(np.float64) / cutoff)
    expected /= cutoff ** np.arange(4).reshape(-1, *[1] * (expected.ndim - 1))
    found = found[:, len(tiny) :].reshape(expected.shape)
    for order, tolerance in enumerate(tolerances):
        axes = (0, expected.ndim - 2)  # distances and, for the spherical basis, the functions of a degree
        assert_each(found[order], expected[order], tolerance, axes)


@pytest.mark.parametrize(
    ("precision", "bugs", "tolerances"),
    [
        ("float64", False, (4e-15, 1e-14, 4e-14, 2e-13)),
        ("float64", True, (4e-7,) * 4),  # the rounded zeros and normalisers of the original
        ("float32", False, (1e-6,) * 4),
    ],
)
def test_derivatives_of_the_spherical_basis(precision, bugs, tolerances):
    dtype, numpy_type = TYPES[precision]
    zeros = zeros_of(7, 6)

    def expected_at(x):
        radial = radial_derivatives(zeros, x)
        return leibniz(radial, envelope_derivatives(x, bugs)[..., None, None] * np.ones_like(radial))

    basis = SphericalBesselBasis(7, 6, 5.0, 5, bugs, dtype)
    compare_derivatives(basis, 5.0, 42, numpy_type, expected_at, tolerances)


# --- envelope and Bessel basis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0, 1, 5, 8])
def test_envelope_is_the_polynomial_of_the_paper(exponent):
    distances = np.append(np.linspace(0.1, 4.99, 200), [5.0, 5.1, 50.0])
    x = distances / 5
    expected = np.where(x < 1, envelope(exponent)(x), 0)
    for dtype, numpy_type in TYPES.values():
        cell, column = PolynomialEnvelope(5.0, exponent, dtype), Tensor(distances[:, None].astype(numpy_type))
        smooth, pole = cell(column).asnumpy()[:, 0], cell.with_pole(column).asnumpy()[:, 0]
        eps = np.finfo(numpy_type).eps
        np.testing.assert_allclose(smooth, expected, atol=8 * eps + 200 * EPSILON, rtol=0)
        np.testing.assert_allclose(pole * x, smooth, atol=4 * eps, rtol=0)
        assert not smooth[-3:].any() and not pole[-3:].any()


@pytest.mark.parametrize(
    ("precision", "tolerances"), [("float64", (2e-15, 4e-15, 1e-14, 1e-13)), ("float32", (1e-6, 1e-6, 4e-6, 1.5e-5))]
)
def test_derivatives_of_the_bessel_basis(precision, tolerances):
    dtype, numpy_type = TYPES[precision]
    frequencies = np.pi * np.arange(1, 7)

    def expected_at(x):
        sines = np.array([frequencies**k * np.sin(x[:, None] * frequencies + k * np.pi / 2) for k in range(4)])
        return leibniz(sines, envelope_derivatives(x, True)[..., None] * np.ones_like(sines))

    compare_derivatives(BesselBasis(6, 5.0, 5, dtype), 5.0, 6, numpy_type, expected_at, tolerances)


def test_frequencies_are_trained():
    basis = BesselBasis(5, 5.0, 5, mstype.float64)
    assert [parameter.name for parameter in basis.trainable_params()] == ["frequencies"]
    np.testing.assert_array_equal(basis.frequencies.asnumpy(), np.pi * np.arange(1, 6))
    basis.frequencies.set_data(Tensor(np.linspace(1.0, 20.0, 5)))
    random = np.random.default_rng(0)
    distances, weights = random.uniform(0.5, 5, (30, 1)), random.normal(size=(30, 5))

    def loss(column, factors):
        return (basis(column) * factors).sum()

    gradient = Compiled(basis, ms.grad(loss, None, basis.frequencies))(Tensor(distances), Tensor(weights)).asnumpy()
    x = distances / 5
    expected = (weights * envelope()(x) * np.cos(x * np.linspace(1.0, 20.0, 5))).sum(0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=1e-13)


# --- zonal harmonics --------------------------------------------------------------------------------------------------


def zonal(degrees, cosines, order=0):
    rows = [Legendre.basis(degree).deriv(order)(cosines) for degree in range(degrees)]
    return np.sqrt((2 * np.arange(degrees) + 1) / (4 * np.pi)) * np.array(rows).T


def exact_zonal(degrees, cosines):
    """In exact fractions: in float64, SciPy's function is up to 38 epsilon off for l < 12 and NumPy's 12."""
    rows = []
    for cosine in map(Fraction, cosines.tolist()):
        row = [Fraction(1), cosine]
        for l in range(1, degrees - 1):  # noqa: E741
            row.append(((2 * l + 1) * cosine * row[l] - l * row[l - 1]) / (l + 1))
        rows.append([float(value) for value in row[:degrees]])
    return np.sqrt((2 * np.arange(degrees) + 1) / (4 * np.pi)) * np.array(rows)


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize(("degrees", "tolerance"), [(1, 0.5), (2, 0.5), (7, 6), (12, 20)])
def test_zonal_harmonics_are_exact_to_some_epsilon(precision, degrees, tolerance):
    dtype, numpy_type = TYPES[precision]
    cosines = np.cos(np.linspace(0, np.pi, 101)).astype(numpy_type)
    expected = exact_zonal(degrees, cosines)
    found = ZonalHarmonics(degrees, 1, dtype)(Tensor(cosines)).asnumpy()
    assert found.shape == expected.shape and found.dtype == numpy_type
    assert np.abs(found - expected).max() <= tolerance * np.finfo(numpy_type).eps
    repeated = ZonalHarmonics(degrees, 3, dtype)(Tensor(cosines[:, None])).asnumpy()
    # not the same bits: a product of matrices may round otherwise where it is wider
    assert np.abs(repeated - np.repeat(expected, 3, 1)).max() <= tolerance * np.finfo(numpy_type).eps


def test_derivatives_of_the_zonal_harmonics():
    """Also of straight and folded triplets, where an angle would have none."""
    cosines = np.array([1.0, -1.0, 0.0, 0.3, -0.9])
    for dtype, numpy_type in TYPES.values():
        found = derivatives_of(ZonalHarmonics(7, 1, dtype), cosines, 7, numpy_type)
        rounded = cosines.astype(numpy_type).astype(np.float64)
        expected = np.array([zonal(7, rounded, order) for order in range(4)])
        scale = np.maximum(np.abs(expected).max(1, keepdims=True), 1e-300)
        assert (np.abs(found - expected) <= 20 * np.finfo(numpy_type).eps * scale).all()


# --- the original -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "degrees", "count"), [("s7r6", 7, 6), ("s4r3", 4, 3)])
def test_the_original_with_its_bugs(name, degrees, count):
    """Equal to float64 rounding, plus what the original's own closed forms of j_l lose at small arguments.

    They add terms (l + k)! / (2^k k! (l - k)! y^(k+1)), k = 0 ... l, times a sine or cosine, which cancel to
    y^l / (2l + 1)!!: the error allowed is a small multiple of epsilon times the sum of the terms; 8 was measured.
    """
    with np.load(GOLDEN) as golden:
        arrays = {key.removeprefix(f"{name}/"): golden[key] for key in golden}
    distances, cosines = arrays["dist"], np.cos(arrays["angle"])
    column, x = Tensor(distances[:, None]), distances / 5
    zeros = spherical_bessel_zeros(degrees, count)
    np.testing.assert_array_equal(zeros.astype(np.float32), arrays["jn_zeros_f32"])

    smooth = PolynomialEnvelope(5.0, 5, mstype.float64).with_pole(Tensor(arrays["envelope_x"][:, None] * 5))
    u = arrays["envelope_p5_64"]
    closed_form = EPSILON * 50 / x[:, None]  # 28 + 48 + 21 roundings of numbers that cancel at x = 1
    assert (np.abs(smooth.asnumpy()[:, 0] - u) <= closed_form[:, 0]).all()
    radial = BesselBasis(count, 5.0, 5, mstype.float64)(column).asnumpy()
    assert (np.abs(radial - arrays["rbf64"]) <= 2 * closed_form).all()
    harmonics = ZonalHarmonics(degrees, 1, mstype.float64)(Tensor(cosines)).asnumpy()
    np.testing.assert_allclose(harmonics, arrays["Yl064"], atol=3e-14, rtol=0)

    basis = SphericalBesselBasis(degrees, count, 5.0, 5, True, mstype.float64)
    spread = ZonalHarmonics(degrees, count, mstype.float64)(Tensor(cosines)).asnumpy()
    found = (basis(column).asnumpy() * spread).reshape(-1, degrees, count)
    expected = arrays["sbf64"].reshape(found.shape)
    arguments = zeros * x[:, None, None]
    terms = np.zeros_like(arguments)
    for degree, k in ((row, k) for row in range(degrees) for k in range(row + 1)):
        factor = factorial(degree + k) / (2**k * factorial(k) * factorial(degree - k))
        terms[:, degree] += factor / arguments[:, degree] ** (k + 1)
    normalisers = np.sqrt(2) / np.abs([spherical_jn(k + 1, row) for k, row in enumerate(zeros)])
    terms *= normalisers * np.abs(u)[:, None, None]
    largest = np.abs(expected[distances >= 0.6]).max()
    assert (np.abs(found - expected) <= 1e-14 * largest + 12 * EPSILON * terms).all()


def test_the_bugs_are_two():
    """Beside the pole, the rounded constants alone: 2.4e-6 at most, and not 0."""
    distances = Tensor(np.linspace(0.1, 4.9, 500)[:, None])
    right = SphericalBesselBasis(7, 6, 5.0, 5, False, mstype.float64)(distances).asnumpy()
    wrong = SphericalBesselBasis(7, 6, 5.0, 5, True, mstype.float64)(distances).asnumpy()
    difference = np.abs(wrong * distances.asnumpy() / 5 - right).max()
    assert 1e-7 < difference < 2.4e-6


def test_sizes_that_make_no_basis_are_refused():
    for make in (
        lambda: SphericalBesselBasis(0, 6, 5.0, 5, False, mstype.float32),
        lambda: SphericalBesselBasis(7, 0, 5.0, 5, False, mstype.float32),
        lambda: SphericalBesselBasis(7, 6, 0.0, 5, False, mstype.float32),
        lambda: BesselBasis(0, 5.0, 5, mstype.float32),
        lambda: BesselBasis(6, -1.0, 5, mstype.float32),
        lambda: PolynomialEnvelope(5.0, -1, mstype.float32),
        lambda: ZonalHarmonics(0, 1, mstype.float32),
        lambda: ZonalHarmonics(7, 0, mstype.float32),
    ):
        with pytest.raises(ValueError, match="expected"):
            make()
