"""The kernels of weighted products with mixtures or sums behind them: results, three orders, and their threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mindspore import Tensor, nn
from test_block_kernels import (
    BLOCKS,
    FACTORS,
    OWN,
    ROWS,
    SEGMENTS,
    WEIGHTS,
    X_WIDTH,
    Z_WIDTH,
    Bilinear,
    exact_orders,
    multiply,
    orders_of,
    terms_of_mixture,
)
from test_block_kernels import T_WIDTH as ELEMENTS
from test_cpu_kernels import ORDER_LIMITS, call, derivatives, joined, needs_kernels, reals, threaded

from models import cpu_kernels
from models.graph_ops import both_ways, gather, segment_sum
from physics.derivatives import Compiled

__all__ = ["threaded"]  # a fixture

EDGES, NODES = 2 * (ROWS // 2), 5
RECEIVERS, SENDERS = (Tensor(np.array(ends, np.int32)) for ends in ([0, 0, 4, 1, 1, 3, 3, 4], [1, 3, 3, 4, 0, 0, 4, 1]))
# of the segments without that of a number: some weights belong to two
ROWS_OF_X = [(*row[:-1], 2) for row in SEGMENTS[:-1]]
PLACES, BLOCK_WEIGHTS, WIDTH = [0, 3, 5], 8, 18
OF_SEGMENTS = np.zeros((BLOCK_WEIGHTS, Z_WIDTH))
for (*_, width, _, _, rows, z, z_stride, _), place, factor in zip(ROWS_OF_X, PLACES, FACTORS[:3], strict=True):
    for row in range(rows):
        OF_SEGMENTS[place + np.arange(width), z + row * z_stride + np.arange(width)] = factor
# the numbers of T of two attributes, and a mixture of three parts, of which two read the first columns
TERMS = [(k, 0, 0.3 + k) for k in range(0, ELEMENTS, 2)] + [(k, 1, 0.8 - 0.2 * k) for k in range(ELEMENTS)]
COEFFICIENTS = np.zeros((2, ELEMENTS))
for element, attribute, coefficient in TERMS:
    COEFFICIENTS[attribute, element] = coefficient
PARTS = [(0, 2, 7, 5, 0), (14, 1, 4, 3, 10), (0, 1, 2, 9, 13)]
ENTRIES = [(0, 0, 0, 0, 5, 7, 5), (0, 1, 2, 35, 3, 2, 3), (1, 0, 0, 35, 3, 4, 3), (2, 0, 0, 10, 9, 2, 9)]
MIXED_WIDTH = 24  # nothing stands in the last two columns
MIXTURE = Bilinear((WIDTH, WEIGHTS, MIXED_WIDTH), terms_of_mixture(PARTS, ENTRIES))


def products(x, a, w):
    z = BLOCKS[2](x, multiply(a, Tensor(COEFFICIENTS, a.dtype))) * multiply(w, Tensor(OF_SEGMENTS, x.dtype))
    return z[:, :WIDTH]


def mixed(x, a, w, mix, b):
    return MIXTURE(products(x, a, w), mix.reshape(-1, WEIGHTS)) + b


def mixed_of_pairs(x, a, w, mix, b):
    return mixed(x, a, both_ways(w), mix, b)


def sums(x, a, w):
    return segment_sum(products(gather(x, SENDERS), a, both_ways(w)), RECEIVERS, x)


BEHIND = ((WEIGHTS,), (MIXED_WIDTH,))
FUNCTIONS = {
    "mixed": (mixed, ((ROWS, X_WIDTH), (ROWS, 2), (ROWS, BLOCK_WEIGHTS), *BEHIND)),
    "mixed, one row of weights": (mixed, ((ROWS, X_WIDTH), (ROWS, 2), (1, BLOCK_WEIGHTS), *BEHIND)),
    "mixed, weights of pairs": (mixed_of_pairs, ((EDGES, X_WIDTH), (EDGES, 2), (EDGES // 2, BLOCK_WEIGHTS), *BEHIND)),
    "products": (products, ((ROWS, X_WIDTH), (ROWS, 2), (ROWS, BLOCK_WEIGHTS))),
    "sums": (sums, ((NODES, X_WIDTH), (EDGES, 2), (EDGES // 2, BLOCK_WEIGHTS))),
}


def layout_of(
    segments: list, places: list, terms: list, parts: list, entries: list, elements: int, z: int
) -> np.ndarray:
    """The first table of ``models.cpu_kernels.mixed_products``."""
    counts = [len(segments), len(terms), len(parts), len(entries), elements, z]
    pairs = [(element, attribute) for element, attribute, _ in terms]
    tables = counts, segments, places, pairs, parts, entries
    return np.concatenate([np.array(each).reshape(-1) for each in tables]).astype(np.int32)


def kernel_of(name: str, dtype: str) -> Callable:
    """The kernel that a plain function describes, with the same arguments."""
    fused, coefficients = cpu_kernels.load(), [coefficient for *_, coefficient in TERMS]
    ends = (RECEIVERS, SENDERS) if name == "sums" else (OWN, OWN)
    behind = (PARTS, ENTRIES, FACTORS) if "mixed" in name else ([], [], [])
    layout = Tensor(layout_of(ROWS_OF_X, PLACES, TERMS, *behind[:2], ELEMENTS, WIDTH))
    numbers = Tensor(np.array([*FACTORS[:3], *coefficients, *behind[2]]).astype(dtype))
    none = Tensor(np.zeros(1, dtype)), Tensor(np.zeros(WIDTH, dtype))

    def function(x, a, w, *mixture):
        return fused.mixed_products(x, a, w, *(mixture or none), *ends, layout, numbers)

    return function


@needs_kernels
@pytest.mark.parametrize("dtype", ORDER_LIMITS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_and_three_orders_of_their_derivatives_equal_the_operators(name, dtype, graph_mode):
    plain, shapes = FUNCTIONS[name]
    pairs = zip(orders_of(kernel_of(name, dtype), shapes, dtype), exact_orders(plain, shapes), strict=True)
    for order, (found, expected) in enumerate(pairs):
        assert found.dtype == dtype
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        assert difference < ORDER_LIMITS[dtype], f"order {order}: {difference:.1e}"


@needs_kernels
@pytest.mark.parametrize("still", [("a", "w"), ("x", "w"), ("x", "a", "w"), ()])
@pytest.mark.parametrize("name", ["mixed, weights of pairs", "sums"])
def test_tangents_of_zero_are_passed_over(name, still, graph_mode):
    """The product with a Hessian along what changes few rows, or only some of the factors."""
    plain, shapes = FUNCTIONS[name]
    arguments, probes, more = (
        [reals(*shape, dtype="float64", seed=10 * k + j) for j, shape in enumerate(shapes)] for k in range(3)
    )
    for factor, probe in zip("xaw", probes, strict=False):
        probe[1 if factor not in still and len(probe) > 1 else 0 :] = 0.0  # of the others the first row alone changes
    found, expected = (
        joined(Compiled(nn.Cell(), derivatives(function, probes, more)[2])(*arguments))
        for function in (kernel_of(name, "float64"), plain)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * (1 + np.abs(expected).max()))


def large_calls() -> dict[str, tuple]:
    """Inputs and shapes of the results of each kernel, large enough to be shared among threads."""
    random = np.random.default_rng(0)

    def array(*shape):
        return random.normal(size=shape).astype(np.float32)

    nodes, edges = 700, 5002
    ends = [random.integers(0, nodes, edges // 2).astype(np.int32) for _ in range(2)]
    ends, none = [np.concatenate(ends), np.concatenate(ends[::-1])], [np.zeros(1, np.int32)] * 2
    segments, terms = [(0, 5, 37, 0, 5, 2, 0, 37, 2)], [(k, k % 3, 0.5) for k in np.argsort(np.arange(10) % 3)]
    parts, entries = [(0, 2, 37, 11, 0), (0, 1, 20, 3, 22)], [(0, 0, 0, 0, 11, 37, 11), (1, 0, 0, 407, 3, 20, 3)]
    mixed = [*none, layout_of(segments, [0], terms, parts, entries, 10, 74), array(1 + 10 + 2)]
    summed = [*ends, layout_of(segments, [0], terms, [], [], 10, 74), array(1 + 10)]
    x, of_nodes, a, mix = array(edges, 185), array(nodes, 185), array(edges, 3), array(467)
    weights = {"": array(edges, 37), " of pairs": array(edges // 2, 37), " of all rows": array(1, 37)}
    calls = {}
    for words, w in weights.items():
        g, factors, tangents = array(edges, 25), [x, a, w], [x[::-1].copy(), a[::-1].copy(), w[::-1].copy()]
        calls |= {
            f"mixed_products{words}": ([*factors, mix, array(25), *mixed], (edges, 25)),
            f"mixed_tangents{words}": ([*factors, mix, *tangents, *mixed, array(1, 25)], (edges, 25)),
            f"mixed_gradients{words}": ([g, *factors, mix, *mixed], x.shape, a.shape, w.shape),
            f"mixed_gradient_tangents{words}": ([g, *factors, mix, *tangents, *mixed], x.shape, a.shape, w.shape),
            f"mixed_mixtures{words}": ([g, *factors, *mixed, mix], mix.shape),
            f"mixed_mixture_tangents{words}": ([g, *factors, *tangents, *mixed, mix], mix.shape),
        }
    w, g, one = weights[" of pairs"], array(nodes, 74), array(1)
    factors, tangents = [of_nodes, a, w], [of_nodes[::-1].copy(), a[::-1].copy(), w[::-1].copy()]
    results = of_nodes.shape, a.shape, w.shape
    return calls | {
        "mixed_products summed": ([*factors, one, array(74), *summed], g.shape),
        "mixed_tangents summed": ([*factors, one, *tangents, *summed, g], g.shape),
        "mixed_gradients summed": ([g, *factors, one, *summed], *results),
        "mixed_gradient_tangents summed": ([g, *factors, one, *tangents, *summed], *results),
    }


@needs_kernels
@pytest.mark.parametrize("name", large_calls())
def test_threads_share_the_work_and_repeat_their_bits(name, threaded):
    inputs, *shapes = large_calls()[name]
    kernel = name.partition(" ")[0]
    alone = call(threaded[1], kernel, inputs, *shapes)
    assert np.isfinite(alone).all()
    for threads in (2, 3):
        results = [call(threaded[threads], kernel, inputs, *shapes) for _ in range(3)]
        assert all(np.array_equal(result, results[0]) for result in results)
        np.testing.assert_allclose(results[0], alone, rtol=0, atol=2e-5 * np.abs(alone).max())


@needs_kernels
@pytest.mark.parametrize("name", [name for name in large_calls() if "of pairs" in name or "summed" in name])
def test_what_is_not_a_number_stays_visible(name, threaded):
    inputs, *shapes = large_calls()[name]
    broken = [inputs[0].copy(), *inputs[1:]]
    broken[0][7, 3] = np.nan
    assert np.isnan(call(threaded[2], name.partition(" ")[0], broken, *shapes)).any()


@needs_kernels
@pytest.mark.parametrize("name", ["mixed_tangents of pairs", "mixed_tangents summed", "mixed_gradient_tangents"])
def test_small_numbers_are_no_zeros(name, threaded):
    """A tangent of small numbers changes results as little, but is none of zero."""
    kernel = name.partition(" ")[0]
    inputs, *shapes = large_calls()[name]
    first = 5 if kernel == "mixed_gradient_tangents" else 4
    tangents = [np.float32(1e-30) * each for each in inputs[first : first + 3]]
    small = [*inputs[:first], *tangents, *inputs[first + 3 :]]
    found, expected = (call(threaded[1], kernel, each, *shapes) for each in (small, inputs))
    np.testing.assert_allclose(found * np.float32(1e30), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
