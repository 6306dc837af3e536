"""The kernels of functions under a polynomial envelope: every order, beside formulas and beside the operators."""

from __future__ import annotations

import ctypes
from math import comb, factorial, perm

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from numpy.polynomial import Polynomial
from numpy.polynomial.hermite import hermval
from test_cpu_kernels import ORDER_LIMITS, call, derivatives, joined, needs_kernels, reals, threaded, together

from models import cpu_kernels
from models.equivariant_layers import PairBasis
from models.radial import PolynomialEnvelope
from physics.derivatives import Compiled

__all__ = ["threaded"]  # a fixture

PAIRS, WAVES, CUTOFF, SHARPNESS = 30, 5, 3.0, -2.5
EXPONENTS = (0, 1, 5, 8)
CENTRES = np.linspace(0.6, 2.4, 4)
WIDTH = WAVES + len(CENTRES)
MULTIPLES = np.arange(1.0, WAVES + 1)[None]
FREQUENCIES = np.pi / CUTOFF * MULTIPLES
NUMBERS = np.array([CUTOFF, SHARPNESS, *CENTRES])
SCALES = np.random.default_rng(9).uniform(0.3, 1.2, (PAIRS, 1))
INSIDE = np.linspace(0.8, 2.99, PAIRS)[:, None]
ORDERS = range(8)
TYPES = {"float64": (1e-12, 8), "float32": (3e-6, 4)}  # limits, and orders up to which sin(w d) / d keeps them
MODES = (ms.GRAPH_MODE, ms.PYNATIVE_MODE)


def leibniz(one: list, other: list, order: int) -> np.ndarray:
    """A derivative of a product from those of its factors."""
    return sum(comb(order, j) * one[j] * other[order - j] for j in range(order + 1))


def envelope(d: np.ndarray, exponent: int, power: int, order: int) -> np.ndarray:
    """A derivative of f^power, from those of its factors, of which the other one has no cancellation."""
    rest, x = 1 - d / CUTOFF, d / CUTOFF
    series = Polynomial([(k + 1) * (k + 2) / 2 for k in range(exponent + 1)]) ** power
    cubes = [perm(3 * power, j) * (-1 / CUTOFF) ** j * rest ** max(3 * power - j, 0) for j in range(order + 1)]
    return leibniz(cubes, [series.deriv(j)(x) / CUTOFF**j for j in range(order + 1)], order)


def exact(d: np.ndarray, s: np.ndarray, exponent: int, power: int, order: int) -> np.ndarray:
    """Derivatives of the functions (13) by the formulas of their factors, (P, K)."""
    orders = range(order + 1)
    f = [envelope(d, exponent, power, j) for j in orders]
    sines = [FREQUENCIES**j * np.sin(FREQUENCIES * d + j * np.pi / 2) / MULTIPLES for j in orders]
    poles = [(-1) ** j * factorial(j) / d ** (j + 1) for j in orders]
    waves = [leibniz(sines, poles, j) for j in orders]
    y, size = (s * d - CENTRES) * (-SHARPNESS) ** 0.5, (-SHARPNESS) ** 0.5 * s  # exp(-y^2), dy/dd
    bells = [(-size) ** j * hermval(y, np.eye(order + 1)[j]) * np.exp(-y * y) for j in orders]
    return np.concatenate([leibniz(f, waves, order), leibniz(f, bells, order)], 1)


def number(value: int) -> np.ndarray:
    return np.array(value, np.int32)


def layout(exponent: int, power: int) -> np.ndarray:
    return np.array([WAVES, exponent, power], np.int32)


def of_kernel(
    library: ctypes.CDLL, d: np.ndarray, s: np.ndarray, exponent: int, power: int, order: int, kind: str
) -> tuple[np.ndarray, ...]:
    """What the four kernels of (14) find for y, z and t of ``factors``."""
    d, s, numbers = d.astype(kind), s.astype(kind), NUMBERS.astype(kind)
    t, y, z = (array.astype(kind) for array in factors(len(d)))
    tables, wide, tall = [layout(exponent, power), numbers, number(order)], y.shape, d.shape
    return (
        call(library, "pair_functions", [d, s, y, *tables], wide),
        call(library, "scaled_pair_functions", [d, s, t, y, *tables], wide),
        call(library, "pair_function_sums", [d, s, y, z, *tables], tall),
        call(library, "scaled_pair_function_sums", [d, s, t, y, z, *tables], tall),
    )


def factors(pairs: int) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(3)
    return random.normal(size=(pairs, 1)), random.normal(size=(pairs, WIDTH)), random.normal(size=(pairs, WIDTH))


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("exponent", "power"), [(0, 1), (5, 1), (5, 2), (8, 2)])
def test_every_order_of_the_functions_is_that_of_the_formulas(kind, exponent, power, threaded):
    d, s = INSIDE.astype(kind).astype(np.float64), SCALES.astype(kind).astype(np.float64)
    t, y, z = (array.astype(kind).astype(np.float64) for array in factors(PAIRS))
    limit, orders = TYPES[kind]
    for order in range(orders):
        e = exact(d, s, exponent, power, order)
        sums = (y * z * e).sum(1, keepdims=True)
        found = of_kernel(threaded[1], d, s, exponent, power, order, kind)
        for result, right in zip(found, (y * e, t * y * e, sums, t * sums), strict=True):
            difference = np.abs(result - right).max(0) / np.abs(right).max(0)
            assert (difference < limit).all(), f"order {order}: {difference.max():.1e}"


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_order_of_the_envelope_is_that_of_the_polynomial(kind, exponent, threaded):
    d, (t, *_) = INSIDE.astype(kind), (array.astype(kind) for array in factors(PAIRS))
    cutoff = NUMBERS[:1].astype(kind)
    for order in ORDERS:
        right = envelope(d.astype(np.float64), exponent, 1, order)
        scaled = call(threaded[1], "envelope_slopes", [d, t, number(exponent), cutoff, number(order)], d.shape)
        size = np.abs(right).max() or 1.0  # 0 where the polynomial has a smaller degree
        np.testing.assert_allclose(scaled, t * right, rtol=0, atol=TYPES[kind][0] * size * np.abs(t).max())
    value = call(threaded[1], "envelope", [d, number(exponent), cutoff], d.shape)
    np.testing.assert_allclose(value, envelope(d.astype(np.float64), exponent, 1, 0), rtol=0, atol=TYPES[kind][0])


@needs_kernels
@pytest.mark.parametrize("kind", TYPES)
def test_all_is_zero_from_the_cutoff_on(kind, threaded):
    """Exactly, at every order: at the cutoff are the edges of ghosts."""
    d = np.array([CUTOFF, CUTOFF * (1 + 2 * np.finfo(kind).eps), 3.1, 50.0, 1e30])[:, None]
    for order in ORDERS:
        for found in of_kernel(threaded[1], d, SCALES[:5], 5, 1, order, kind):
            assert not found.any()
        inputs = [d.astype(kind), factors(5)[0].astype(kind), number(5), NUMBERS[:1].astype(kind), number(order)]
        assert not call(threaded[1], "envelope_slopes", inputs, d.shape).any()


@needs_kernels
@pytest.mark.parametrize("pairs", [0, 1])
def test_graphs_of_no_or_one_pair(pairs, threaded):
    for order in (0, 3, 5):
        for found in of_kernel(threaded[1], INSIDE[:pairs], SCALES[:pairs], 5, 2, order, "float32"):
            assert len(found) == pairs and np.isfinite(found).all()


@needs_kernels
def test_what_is_not_a_number_stays_visible(threaded):
    d = INSIDE.copy()
    d[3] = np.nan
    for found in of_kernel(threaded[1], d, SCALES, 5, 1, 2, "float64"):
        assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, 0)).all()


@needs_kernels
def test_threads_share_the_work_and_repeat_their_bits(threaded):
    random = np.random.default_rng(0)
    d, s = random.uniform(0.5, 3.2, (20000, 1)), random.uniform(0.3, 1.2, (20000, 1))
    alone = of_kernel(threaded[1], d, s, 5, 1, 3, "float32")
    for threads in (2, 3):
        for found, right in zip(of_kernel(threaded[threads], d, s, 5, 1, 3, "float32"), alone, strict=True):
            assert np.array_equal(found, right)


# --- as cells ---------------------------------------------------------------------------------------------------------


def operators(d: Tensor, s: Tensor, f: Tensor) -> Tensor:
    """(13) in MindSpore's operators, (P, K), of an envelope or its square."""
    kind = d.dtype
    waves = ops.sin(d * Tensor(FREQUENCIES, kind)) / (d * Tensor(MULTIPLES, kind))
    reduced = s * d - Tensor(CENTRES[None], kind)
    return ops.concat((waves, ops.exp(Tensor(SHARPNESS, kind) * (reduced * reduced))), 1) * f


def some_distances(x: Tensor) -> Tensor:
    """From 1 to beyond the cutoff; a fifth of normal numbers are beyond."""
    return x * x + 1


def cells(dtype: mstype.Type, s: Tensor) -> dict:
    """Functions of kernels and the same in operators, with the shapes of their arguments."""
    fused = cpu_kernels.load()
    basis, f = fused.EnvelopedBasis(CUTOFF, 5, WAVES, CENTRES, SHARPNESS, dtype), fused.Envelope(CUTOFF, 5, dtype)
    with cpu_kernels.without_kernels():
        plain = PolynomialEnvelope(CUTOFF, 5, dtype)

    def functions(x, y):
        return basis(some_distances(x), s, y, y)[0]

    def plain_functions(x, y):
        d = some_distances(x)
        return y * operators(d, s, plain(d))

    def sums(x, y, z):
        return basis(some_distances(x), s, y, z)[1]

    def plain_sums(x, y, z):
        d = some_distances(x)
        return (y * z * operators(d, s, plain(d) * plain(d))).sum(1, keepdims=True)

    def envelopes(x):
        return f(some_distances(x))

    def plain_envelopes(x):
        return plain(some_distances(x))

    wide = (PAIRS, WIDTH)
    return {
        "functions": (functions, plain_functions, ((PAIRS, 1), wide)),
        "sums": (sums, plain_sums, ((PAIRS, 1), wide, wide)),
        "envelope": (envelopes, plain_envelopes, ((PAIRS, 1),)),
    }


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ORDER_LIMITS)
@pytest.mark.parametrize("name", ["functions", "sums", "envelope"])
def test_three_orders_equal_those_of_the_operators(name, kind, mode, same_mode):
    ms.set_context(mode=mode)
    fused, plain, shapes = cells(getattr(mstype, kind), Tensor(SCALES.astype(kind)))[name]
    arguments, probes, more = (
        [reals(*shape, dtype=kind, seed=10 * k + j) for j, shape in enumerate(shapes)] for k in range(3)
    )
    functions = [together(derivatives(one, probes, more)) for one in (fused, plain)]
    pairs = zip(*(Compiled(nn.Cell(), function)(*arguments) for function in functions), strict=True)
    for order, results in enumerate(pairs):
        found, expected = map(joined, results)
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        assert difference < 3 * ORDER_LIMITS[kind], f"order {order}: {difference:.1e}"


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_without_compilation_and_that_of_constants(mode, same_mode):
    ms.set_context(mode=mode)
    s, (_, y, z) = Tensor(SCALES), map(Tensor, factors(PAIRS))
    basis = cpu_kernels.load().EnvelopedBasis(CUTOFF, 5, WAVES, CENTRES, SHARPNESS, mstype.float64)

    def total(d, scales):
        return basis(d, scales, y, z)[0].sum() + basis(d, scales, y, z)[1].sum()

    of_d, of_s = ms.grad(total, (0, 1))(Tensor(INSIDE), s)
    once, twice = exact(INSIDE, SCALES, 5, 1, 1), exact(INSIDE, SCALES, 5, 2, 1)
    expected = (y.asnumpy() * (once + z.asnumpy() * twice)).sum(1, keepdims=True)
    np.testing.assert_allclose(of_d.asnumpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert of_s.shape == s.shape and not of_s.asnumpy().any()


def of_pairs(cell: PairBasis, numbers: Tensor, first: Tensor, second: Tensor):
    """Both results of the basis, side by side, of distances and descriptions."""

    def function(d, u):
        values, numbers_of_pairs = cell(d, numbers, u, first, second)
        return ops.concat((values, numbers_of_pairs), 1)

    return function


@needs_kernels
@pytest.mark.parametrize("kind", ORDER_LIMITS)
def test_basis_of_pairs_is_the_same_with_and_without_kernels(kind, graph_mode):
    """With ghosts: pairs at the cutoff and beyond it."""
    settings = WAVES, 4, 6, CUTOFF, getattr(mstype, kind)
    with cpu_kernels.without_kernels():
        made = [PairBasis(*settings)]
    made.append(PairBasis(*settings))
    ms.load_param_into_net(made[1], made[0].parameters_dict())
    assert made[0].kernel is None and made[1].kernel is not None
    d = INSIDE.copy()
    d[-2:, 0] = CUTOFF, 3.5
    random = np.random.default_rng(1)
    numbers, ends = Tensor(random.integers(0, 90, 7).astype(np.int32)), random.integers(0, 7, (2, PAIRS))
    first, second = (Tensor(end.astype(np.int32)) for end in ends)
    arguments, probes, more = (
        [Tensor(d.astype(kind)) if k == 0 else reals(PAIRS, 1, dtype=kind, seed=k), reals(7, 6, dtype=kind, seed=k + 3)]
        for k in range(3)
    )
    results = []
    for cell in made:
        functions = together(derivatives(of_pairs(cell, numbers, first, second), probes, more))
        results.append(Compiled(cell, functions)(*arguments))
    for order, (expected, found) in enumerate(zip(*results, strict=True)):
        right = joined(expected)
        difference = np.abs(joined(found) - right).max() / np.abs(right).max()
        assert difference < 5 * ORDER_LIMITS[kind], f"order {order}: {difference:.1e}"
