"""The kernels of row blocks, mixtures, both in one, and gates: what they compute, three orders, and their threads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from test_cpu_kernels import ORDER_LIMITS, call, derivatives, indices, joined, needs_kernels, reals, threaded, together

from models import cpu_kernels
from models.e3.channel_mixing import ChannelMixing, Part
from models.graph_ops import gather
from physics.derivatives import Compiled

__all__ = ["threaded"]  # a fixture

ROWS, NODES = 9, 5
FIRST, SECOND, OWN = indices(ROWS, NODES, 1), indices(ROWS, NODES, 2), Tensor(np.zeros(1, np.int32))
# of x (3 x 4 and 1 x 3 numbers) and T: (2, 3), (1, 3) with a stride of 6, (2, 1), and one number of T itself
SEGMENTS = [
    (0, 3, 4, 0, 3, 2, 0, 7, 0), (0, 3, 4, 6, 6, 1, 14, 4, 1), (12, 1, 3, 9, 1, 2, 4, 7, 1),
    (0, 0, 1, 11, 0, 1, 18, 1, 0),
]  # fmt: skip
X_WIDTH, T_WIDTH, Z_WIDTH = 15, 12, 20  # nothing stands in the last column of z
PARTS = [(0, 1, 5, 7, 0), (7, 2, 3, 4, 7)]  # columns 5 and 6 of z belong to none
ENTRIES = [(0, 0, 0, 0, 7, 5, 7), (0, 1, 2, 35, 3, 2, 3), (1, 0, 0, 35, 6, 3, 4), (1, 1, 1, 4, 2, 2, 2)]
FACTORS, WEIGHTS, IN_WIDTH, OUT_WIDTH = [0.7, -1.3, 0.4, 2.0], 51, 13, 15
# the same behind the segments, which write 5 of 7 columns of the first part
COUPLED_PARTS, COUPLED_WIDTH = [(0, 2, 7, 5, 0), (14, 1, 5, 4, 10)], 14
COUPLED_ENTRIES = [(0, 0, 0, 0, 5, 7, 5), (0, 1, 2, 35, 3, 2, 3), (1, 0, 0, 35, 6, 3, 4), (1, 3, 1, 4, 2, 2, 2)]
RUNS, SCALARS, GATES = [(0, 3, 0), (3, 2, 1), (5, 2, 1)], 2, 3  # 7 columns
CONSTANTS = (1.7, 1.8)
multiply, join, sigmoid = ops.MatMul(), ops.Concat(-1), ops.Sigmoid()


def table(rows: list) -> Tensor:
    return Tensor(np.array(rows), mstype.int32)


class Bilinear:
    """c_n = sum f a_k b_m over a list of (k, m, n, f), as three products of matrices."""

    def __init__(self, widths: tuple[int, int, int], terms: list[tuple[int, int, int, float]]):
        self.first, self.second, self.result = (np.zeros((width, len(terms))) for width in widths)
        for p, (*places, factor) in enumerate(terms):
            for matrix, place in zip((self.first, self.second, self.result), places, strict=True):
                matrix[place, p] = 1
            self.result[places[2], p] = factor

    def __call__(self, a, b):
        products = multiply(a, Tensor(self.first, a.dtype)) * multiply(b, Tensor(self.second, a.dtype))
        return multiply(products, Tensor(self.result.T.copy(), a.dtype))


def terms_of_blocks(end: int) -> list[tuple[int, int, int, float]]:
    """Of the segments that read an end; of all for the rows themselves, 2."""
    return [
        (x + j * width + c, t + i * t_stride + j, z + i * z_stride + c, 1.0)
        for x, columns, width, t, t_stride, rows, z, z_stride, this in SEGMENTS
        if columns and end in (2, this)
        for i in range(rows)
        for j in range(columns)
        for c in range(width)
    ]


def terms_of_mixture(parts: list, entries: list) -> list[tuple[int, int, int, float]]:
    return [
        (start + r * inner + row + u, weight + u * stride + v, out + r * outer + column + v, factor)
        for (part, row, column, weight, stride, rows, columns), factor in zip(entries, FACTORS, strict=True)
        for start, components, inner, outer, out in [parts[part]]
        for r in range(components)
        for u in range(rows)
        for v in range(columns)
    ]


BLOCKS = {end: Bilinear((X_WIDTH, T_WIDTH, Z_WIDTH), terms_of_blocks(end)) for end in (0, 1, 2)}
NUMBER = np.eye(T_WIDTH, Z_WIDTH, SEGMENTS[-1][6] - SEGMENTS[-1][3]) * (np.arange(T_WIDTH)[:, None] == SEGMENTS[-1][3])
MIXTURE = Bilinear((IN_WIDTH, WEIGHTS, OUT_WIDTH), terms_of_mixture(PARTS, ENTRIES))
BEHIND = Bilinear((Z_WIDTH, WEIGHTS, COUPLED_WIDTH), terms_of_mixture(COUPLED_PARTS, COUPLED_ENTRIES))
SCALES = np.zeros((GATES, 7))
for column, length, first in RUNS:
    SCALES[first + np.arange(length), column + np.arange(length)] = 1


def block_product(x, t):
    ends = BLOCKS[0](gather(x, FIRST), t) + BLOCKS[1](gather(x, SECOND), t)
    return ends + multiply(t, Tensor(NUMBER, t.dtype))


def block_product_of_own_rows(x, t):
    return BLOCKS[2](x, t) + multiply(t, Tensor(NUMBER, t.dtype))


def mixed_without_bias(z, w):
    return MIXTURE(z, w.reshape(-1, WEIGHTS))


def mixed(z, w, b):
    return mixed_without_bias(z, w) + b


def coupled(x, t, w, b):
    return BEHIND(block_product(x, t), w.reshape(-1, WEIGHTS)) + b


def coupled_of_own_rows(x, t, w, b):
    return BEHIND(block_product_of_own_rows(x, t), w.reshape(-1, WEIGHTS)) + b


def gate(y):
    scalars, gates, x = y[:, :SCALARS], y[:, SCALARS : SCALARS + GATES], y[:, SCALARS + GATES :]
    scales = multiply(sigmoid(gates), Tensor(CONSTANTS[1] * SCALES, y.dtype))
    return join((Tensor(CONSTANTS[0], y.dtype) * scalars * sigmoid(scalars), scales * x))


FUNCTIONS = {
    "block_product": (block_product, ((NODES, X_WIDTH), (ROWS, T_WIDTH))),
    "block_product of own rows": (block_product_of_own_rows, ((ROWS, X_WIDTH), (ROWS, T_WIDTH))),
    "mixed": (mixed, ((ROWS, IN_WIDTH), (WEIGHTS,), (OUT_WIDTH,))),
    "mixed_without_bias": (mixed_without_bias, ((ROWS, IN_WIDTH), (WEIGHTS,))),
    "mixed_without_bias by row": (mixed_without_bias, ((ROWS, IN_WIDTH), (ROWS, WEIGHTS))),
    "coupled": (coupled, ((NODES, X_WIDTH), (ROWS, T_WIDTH), (WEIGHTS,), (COUPLED_WIDTH,))),
    "coupled of own rows": (coupled_of_own_rows, ((ROWS, X_WIDTH), (ROWS, T_WIDTH), (WEIGHTS,), (COUPLED_WIDTH,))),
    "gate": (gate, ((ROWS, SCALARS + GATES + 7),)),
}


def kernel_of(name: str, dtype: str) -> Callable:
    """The kernel that a plain function describes, with the same arguments."""
    fused = cpu_kernels.load()
    factors = Tensor(np.array(FACTORS).astype(dtype))
    segments = [(*row[:-1], 2) for row in SEGMENTS] if "own" in name else SEGMENTS
    index = (OWN, OWN) if "own" in name else (FIRST, SECOND)
    every, linear = table(segments), table(segments[:-1])
    like_z, like_y, none = (Tensor(np.zeros((1, width), dtype)) for width in (Z_WIDTH, OUT_WIDTH, COUPLED_WIDTH))
    mixture = table(PARTS), table(ENTRIES), factors

    def block_product(x, t):
        return fused.block_product(x, t, *index, every, linear, like_z)

    def mixed(z, w, b):
        return fused.mixed(z, w, b, *mixture)

    def mixed_without_bias(z, w):
        return fused.mixed_without_bias(z, w, *mixture, like_y)

    def coupled(x, t, w, b):
        behind = table(COUPLED_PARTS), table(COUPLED_ENTRIES), factors, none
        return fused.coupled(x, t, w, b, *index, every, linear, *behind)

    cells = block_product, mixed, mixed_without_bias, coupled
    functions = {each.__name__: each for each in cells}
    if name == "gate":
        return fused.Gate(SCALARS, np.array(RUNS), CONSTANTS, factors.dtype)
    return functions[name.partition(" ")[0]]


def numbers_of(shapes: tuple, dtype: str) -> list[list[Tensor]]:
    """Arguments, and two directions; what a row of zeros multiplies is not computed."""
    numbers = [[reals(*shape, dtype=dtype, seed=10 * k + j) for j, shape in enumerate(shapes)] for k in range(3)]
    for k, each in enumerate((*numbers[0], *numbers[1])):
        if each.ndim == 2 and len(each) > 1:
            each[k % len(each)] = 0.0
    return numbers


def orders_of(function: Callable, shapes: tuple, dtype: str) -> list[np.ndarray]:
    """A function and three orders of its derivatives, as vectors."""
    arguments, *directions = numbers_of(shapes, dtype)
    results = Compiled(nn.Cell(), together(derivatives(function, *directions)))(*arguments)
    return [joined(one) for one in results]


@functools.cache
def exact_orders(plain: Callable, shapes: tuple) -> list[np.ndarray]:
    """The same of operators in float64, which kernels of float32 are compared with too."""
    return orders_of(plain, shapes, "float64")


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
def test_a_gradient_sums_the_rows_of_one_index(graph_mode):
    """``block_transpose`` as a function of its own, by which messages leave the frame of their edge."""
    fused, segments = cpu_kernels.load(), table(SEGMENTS[:-1])
    z, t, x = reals(ROWS, Z_WIDTH), reals(ROWS, T_WIDTH), reals(NODES, X_WIDTH)
    found = fused.block_transpose(z, t, FIRST, SECOND, segments, x, x).asnumpy()
    like = Tensor(np.zeros((1, Z_WIDTH)))
    product = fused.block_product(x, t, FIRST, SECOND, segments, segments, like).asnumpy()
    assert (found * x.asnumpy()).sum() == pytest.approx((product * z.asnumpy()).sum(), rel=1e-13)


def large_calls() -> dict[str, tuple]:
    """Inputs and shapes of the results of each kernel, large enough to be shared among threads."""
    random = np.random.default_rng(0)

    def array(*shape):
        return random.normal(size=shape).astype(np.float32)

    def ints(rows):
        return np.array(rows, np.int32)

    nodes, edges = 700, 5001
    ends = [random.integers(0, nodes, edges).astype(np.int32) for _ in range(2)]
    segments = ints([(0, 5, 36, 0, 5, 2, 0, 36, 0), (0, 5, 36, 0, 5, 2, 72, 36, 1)])
    own = ints([(0, 5, 36, 0, 5, 2, 0, 36, 2)])
    x, t, z, mine = array(nodes, 180), array(edges, 10), array(edges, 144), array(edges, 180)
    mixture = [ints([(0, 2, 72, 37, 0)]), ints([(0, 0, 0, 0, 37, 72, 37)]), array(1)]
    w, y, runs = array(72 * 37), array(edges, 74), ints([(0, 40, 0), (40, 31, 9)])
    constants = array(2)
    both = ints([(0, 5, 36, 0, 5, 2, 0, 72, 0), (0, 5, 36, 0, 5, 2, 36, 72, 1)])
    behind = [*ends, both, both, *mixture, array(1, 74)]
    behind_own = [*ends, own, own, ints([(0, 2, 36, 37, 0)]), ints([(0, 0, 0, 0, 37, 36, 37)]), array(1), array(1, 74)]
    by_row = [ints([(0, 2, 8, 9, 0)]), ints([(0, 0, 0, 0, 9, 8, 9)]), array(1)]
    few, many, result = array(edges, 16), array(edges, 72), array(edges, 18)
    return {
        "block_product": ([x, t, *ends, segments, z], z.shape),
        "block_transpose": ([z, t, *ends, segments, x, x], x.shape),
        "block_transpose of own rows": ([z, t, *ends, own, z, x], mine.shape),
        "block_matrices": ([z, x, *ends, segments, t], t.shape),
        "mixed": ([z, w, array(74), *mixture], y.shape),
        "mixed_inputs": ([y, w, *mixture, z], z.shape),
        "mixed_weights": ([y, z, *mixture, w], w.shape),
        "mixed_without_bias by row": ([few, many, *by_row, result], result.shape),
        "mixed_inputs by row": ([result, many, *by_row, few], few.shape),
        "mixed_weights by row": ([result, few, *by_row, many], many.shape),
        "coupled": ([x, t, w, array(74), *behind], y.shape),
        "coupled_gradients": ([y, t, w, x, *behind], x.shape, t.shape),
        "coupled_gradients of own rows": ([y, t, w[: 36 * 37], mine, *behind_own], mine.shape, t.shape),
        "coupled_weights": ([y, x, t, w, *behind], w.shape),
        "gate": ([array(edges, 5 + 40 + 71), runs, constants, array(1, 76)], (edges, 76)),
        "gate_slopes": ([array(edges, 116), array(edges, 76), runs, constants], (edges, 116)),
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
        np.testing.assert_allclose(results[0], alone, rtol=0, atol=5e-6 * np.abs(alone).max())


@needs_kernels
@pytest.mark.parametrize(
    "name",
    ["block_product", "mixed", "mixed_weights", "coupled_gradients", "coupled_weights", "gate_slopes"],
)
def test_what_is_not_a_number_stays_visible(name, threaded):
    inputs, *shapes = large_calls()[name]
    broken = [inputs[0].copy(), *inputs[1:]]
    broken[0][7, 3] = np.nan
    assert np.isnan(call(threaded[2], name, broken, *shapes)).any()


@pytest.mark.parametrize("start", [0, 3, 5])
def test_parts_stand_behind_each_other(start):
    """A gradient in z would keep that of one part where two read the same channels."""
    parts = [Part(0, 1, 4, 2), Part(start, 3, 2, 2)]
    with pytest.raises(ValueError, match=r"expected \[0, 4\]"):
        ChannelMixing(parts, [], 0, 0, mstype.float32, mstype.float32)
