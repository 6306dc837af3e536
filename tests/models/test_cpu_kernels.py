"""The kernels for CPUs: what they compute, three orders of derivatives, and their threads."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import joblib
import mindspore as ms
import numpy as np
import pytest
from helpers import CASES, ONE_BLOCK, Bench, assert_close, molecules
from mindspore import Tensor, nn, ops

from models import cpu_kernels
from models.cpu_kernels import build
from models.graph_ops import edge_vectors, gather, safe_norm, segment_sum
from physics.derivatives import Compiled

needs_kernels = pytest.mark.skipif(not build.library(), reason="no C++ compiler on this machine")
ORDER_LIMITS = {"float64": 2e-14, "float32": 1e-5}

NODES, PAIRS, FEATURES, EDGES, TRIPLETS = 11, 30, 20, 25, 140


def reals(*shape: int, dtype: str = "float64", seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def indices(count: int, below: int, seed: int) -> Tensor:
    return Tensor(np.random.default_rng(seed).integers(0, below, count).astype(np.int32))


FIRST, SECOND = indices(PAIRS, NODES, 1), indices(PAIRS, NODES, 2)
SOURCE, TO = indices(TRIPLETS, EDGES, 3), indices(TRIPLETS, EDGES, 4)
ORDERS = [np.array(order, np.int32) for order in range(6)]
OFFSETS, COEFFICIENTS, FREQUENCY = np.linspace(-1, 2, 13), np.linspace(-1.5, -0.5, 13), 0.7
multiply, sigmoid = ops.MatMul(transpose_b=True), ops.Sigmoid()


def pair_sum(x, w, c):
    return segment_sum(c * w * gather(x, SECOND), FIRST, x) + segment_sum(c * w * gather(x, FIRST), SECOND, x)


def triplet_sum(x, r, w):
    return segment_sum(gather(x, SOURCE) * multiply(r, w), TO, x)


def linear(x, w, b):
    return multiply(x, w) + b


def swish(x):
    return x * sigmoid(x)


def shifted_softplus(x):
    return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x))) - Tensor(np.log(2.0), x.dtype)


def pair_vectors(x, shifts):
    return edge_vectors(x, SECOND, FIRST, shifts)


def gaussians(d):
    difference = d - Tensor(OFFSETS, d.dtype)
    return ops.exp(Tensor(COEFFICIENTS, d.dtype) * (difference * difference))


def cosine_cutoff(d):
    half = Tensor(0.5, d.dtype)
    return half * ops.cos(Tensor(FREQUENCY, d.dtype) * d) + half


FUNCTIONS = {
    "pair_vectors": (pair_vectors, ((NODES, 3), (PAIRS, 3))),
    "lengths": (safe_norm, ((PAIRS, 3),)),
    "gaussians": (gaussians, ((PAIRS, 1),)),
    "cosine_cutoff": (cosine_cutoff, ((PAIRS, 1),)),
    "pair_sum": (pair_sum, ((NODES, FEATURES), (PAIRS, FEATURES), (PAIRS, 1))),
    "triplet_sum": (triplet_sum, ((EDGES, 9), (TRIPLETS, 8), (9, 8))),
    "triplet_sum of another basis": (triplet_sum, ((EDGES, 5), (TRIPLETS, 3), (5, 3))),
    "linear": (linear, ((17, 6), (70, 6), (70,))),
    "linear_without_bias": (multiply, ((23, 70), (9, 70))),
    "swish": (swish, ((40, 7),)),
    "shifted_softplus": (shifted_softplus, ((40, 7),)),
}


def kernel_of(name: str):
    """The kernel that a plain function describes, with the same arguments."""
    name = name.partition(" ")[0]
    fused = cpu_kernels.load()

    def fused_pair_sum(x, w, c):
        return fused.pair_sum(x, w, c, FIRST, SECOND)

    def fused_triplet_sum(x, r, w):
        return fused.triplet_sum(x, r, w, SOURCE, TO)

    def fused_pair_vectors(x, shifts):
        return fused.pair_vectors(x, shifts, FIRST, SECOND)

    def fused_gaussians(d):
        return fused.gaussians(d, Tensor(OFFSETS, d.dtype), Tensor(COEFFICIENTS, d.dtype))

    def fused_cosine_cutoff(d):
        return fused.cosine_cutoff(d, Tensor(FREQUENCY, d.dtype))

    with_constants = {
        "pair_sum": fused_pair_sum,
        "triplet_sum": fused_triplet_sum,
        "pair_vectors": fused_pair_vectors,
        "gaussians": fused_gaussians,
        "cosine_cutoff": fused_cosine_cutoff,
    }
    return with_constants.get(name) or getattr(fused, name)


def derivatives(function, probes, more_probes):
    """The function, the gradient of the sum of its cubes, and gradients of that along probes, in all arguments."""
    places = tuple(range(len(probes)))

    def value(*x):
        y = function(*x)
        return (y * y * y).sum()

    def along(gradient, directions):
        def projected(*x):
            found = gradient(*x)
            found = found if isinstance(found, tuple) else (found,)
            total = 0
            for k in range(len(directions)):
                total = total + (found[k] * directions[k]).sum()
            return total

        return projected

    first = ms.grad(value, places)
    second = ms.grad(along(first, probes), places)
    third = ms.grad(along(second, more_probes), places)
    return [function, first, second, third]


def together(functions):
    """The results of several functions of the same arguments, in one graph."""

    def every(*x):
        results: tuple = ()
        for k in range(len(functions)):
            results = (*results, functions[k](*x))
        return results

    return every


def joined(results) -> np.ndarray:
    """One tensor or several as one vector."""
    results = results if isinstance(results, tuple) else (results,)
    return np.concatenate([result.asnumpy().ravel() for result in results])


@needs_kernels
@pytest.mark.parametrize("dtype", ORDER_LIMITS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_and_three_orders_of_their_derivatives_equal_the_operators(name, dtype, graph_mode):
    plain, shapes = FUNCTIONS[name]
    arguments, probes, more = (
        [reals(*shape, dtype=dtype, seed=10 * k + j) for j, shape in enumerate(shapes)] for k in range(3)
    )
    functions = [together(derivatives(one, probes, more)) for one in (kernel_of(name), plain)]
    pairs = zip(*(Compiled(nn.Cell(), function)(*arguments) for function in functions), strict=True)
    for order, results in enumerate(pairs):
        found, expected = map(joined, results)
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        assert difference < ORDER_LIMITS[dtype], f"order {order}: {difference:.1e}"


@needs_kernels
def test_length_of_the_zero_vector_has_derivatives_of_zero(graph_mode):
    """As ``safe_norm``, to third order: atoms may lie on each other."""
    zero, probe = Tensor(np.zeros((2, 3))), Tensor(np.ones((2, 3)))
    functions = together(derivatives(cpu_kernels.load().lengths, (probe,), (probe,)))
    for result in Compiled(nn.Cell(), functions)(zero):
        assert not joined(result).any()


@needs_kernels
def test_a_model_is_the_same_with_and_without_kernels(graph_mode):
    """Outputs, forces and the parameter gradients of a loss on both; of each model in test_contract.py."""
    case = next(case for case in CASES if case.name == "schnet-schnetpack")
    case = replace(case, hyperparameters=case.hyperparameters | ONE_BLOCK)
    fused, plain = Bench(case), Bench(case, "operators")
    for found, expected in zip(fused.run(molecules()), plain.run(molecules()), strict=True):
        assert_close(found, expected, "gradients")
    (loss, gradients), (plain_loss, plain_gradients) = fused.loss(molecules()), plain.loss(molecules())
    assert loss == pytest.approx(plain_loss, rel=1e-12)
    largest = max(float(np.abs(gradient).max()) for gradient in plain_gradients.values())
    for key, gradient in plain_gradients.items():
        assert_close(gradients[key], gradient, "gradients", scale=largest)


# --- called directly, with other numbers of threads -------------------------------------------------------------------


def call(library: ctypes.CDLL, name: str, inputs: list[np.ndarray], *shapes_out: tuple[int, ...]) -> np.ndarray:
    """What MindSpore does with a kernel: results of these shapes, of the precision of the first input, in a row."""
    results = [np.full(shape, np.nan, inputs[0].dtype) for shape in shapes_out]
    arrays = [*inputs, *results]
    data = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    ranks = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
    sizes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    shapes = (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(size) for size in sizes))
    types = (ctypes.c_char_p * len(arrays))(*(str(array.dtype).encode() for array in arrays))
    assert getattr(library, name)(len(arrays), data, ranks, shapes, types, None, None) == 0
    return np.concatenate([result.reshape(-1) for result in results]) if len(results) > 1 else results[0]


@pytest.fixture
def threaded(tmp_path):
    """Copies of the kernels with 1, 2 and 3 threads, whatever this process may use."""
    libraries = {}
    for threads in (1, 2, 3):
        copy = shutil.copy(build.library(), tmp_path / f"{threads}.so")
        libraries[threads] = ctypes.CDLL(str(copy))
        libraries[threads].set_threads(threads)
    return libraries


def large_calls() -> dict[str, tuple[list[np.ndarray], tuple[int, ...]]]:
    """Inputs and shape of the result of each kernel, large enough to be shared among threads."""
    random = np.random.default_rng(0)

    def array(*shape):
        return random.normal(size=shape).astype(np.float32)

    def index(count, below):
        return random.integers(0, below, count).astype(np.int32)

    nodes, pairs, edges, triplets = 300, 5000, 900, 9000
    ends, hops = [index(pairs, nodes), index(pairs, nodes)], [index(triplets, edges), index(triplets, edges)]
    x, w, c = array(nodes, 64), array(pairs, 64), array(pairs, 1)
    m, r, s = array(edges, 32), array(triplets, 8), array(32, 8)
    tall, wide, weight = array(3001, 70), array(3001, 50), array(50, 70)
    return {
        "swish": ([tall], tall.shape),
        "swish_slopes": ([tall, tall, ORDERS[2]], tall.shape),
        "shifted_softplus_slopes": ([tall, tall, ORDERS[1]], tall.shape),
        "pair_sum": ([x, w, c, *ends], x.shape),
        "pair_filters": ([x, x, c, *ends], w.shape),
        "pair_scales": ([x, x, w, *ends], c.shape),
        "triplet_sum": ([m, r, s, *hops], m.shape),
        "triplet_rows": ([m, m, s, *hops], r.shape),
        "triplet_weights": ([m, m, r, *hops], s.shape),
        "linear_without_bias": ([tall, weight], wide.shape),
        "linear_inputs": ([wide, weight], tall.shape),
        "linear_weights": ([wide, tall], weight.shape),
        "column_sums": ([tall], (70,)),
    }


@needs_kernels
@pytest.mark.parametrize("name", large_calls())
def test_threads_share_the_work_and_repeat_their_bits(name, threaded):
    inputs, shape = large_calls()[name]
    alone = call(threaded[1], name, inputs, shape)
    assert np.isfinite(alone).all()
    for threads in (2, 3):
        results = [call(threaded[threads], name, inputs, shape) for _ in range(5)]
        assert all(np.array_equal(result, results[0]) for result in results)
        np.testing.assert_allclose(results[0], alone, rtol=0, atol=5e-6 * np.abs(alone).max())


@needs_kernels
@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_too_small_for_full_precision_are_zero(threads, threaded):
    """They would take a hundred times as long, in the thread of the caller and in those that help."""
    x, w = np.full((4000, 64), 1e-22, np.float32), np.full((64, 64), 1e-22, np.float32)
    assert x[0, 0] * w[0, 0] > 0
    with ThreadPoolExecutor(1) as pool:  # as MindSpore calls kernels; the thread of Python stays as it is
        found = pool.submit(call, threaded[threads], "linear_without_bias", [x, w], (4000, 64)).result()
    assert not found.any() and np.float32(1e-22) * np.float32(1e-22) > 0


@needs_kernels
def test_no_more_threads_than_cores_that_may_be_used():
    program = """
import ctypes, os
from test_cpu_kernels import call, large_calls
from models.cpu_kernels import kernel
before = len(os.listdir("/proc/self/task"))
call(ctypes.CDLL(kernel.LIBRARY), "linear_weights", *large_calls()["linear_weights"])
print(len(os.listdir("/proc/self/task")) - before)
"""
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, *Path(__file__).parents[1:3]))
    for limit, helpers in (("1", 0), (str(joblib.cpu_count()), joblib.cpu_count() - 1)):
        environment = {**os.environ, "PYTHONPATH": path, "LOKY_MAX_CPU_COUNT": limit}
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert result.stdout.strip() == str(helpers), result.stderr


@needs_kernels
def test_activations_hold_at_every_size_of_argument(threaded):
    x = np.concatenate([np.linspace(-100, 100, 200001), [0.0, -0.0, 1e-30, -1e-30, 3e4, -3e4]]).astype(np.float32)
    exact = x.astype(np.float64)
    s = 1 / (1 + np.exp(-np.clip(exact, -700, 700)))
    expected = {
        "swish": exact * s,
        "swish_slopes": s + exact * s * (1 - s),
        "shifted_softplus": np.logaddexp(exact, 0) - np.log(2),
        "shifted_softplus_slopes": s,
    }
    for name, right in expected.items():
        inputs = [x, np.ones_like(x), ORDERS[1]] if name.endswith("slopes") else [x]
        found = call(threaded[1], name, inputs, x.shape)
        assert (np.abs(found - right) <= 4e-7 * np.maximum(np.abs(right), 0.5)).all(), name


@needs_kernels
@pytest.mark.parametrize("function", ["swish", "shifted_softplus"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_far_from_zero(function, dtype, threaded):
    """Where e^x is more than float64 holds: a network that diverges must not lose its gradient without a word."""
    x = np.array([-3e4, -1000.0, -720.0, 720.0, 1000.0, 3e4], dtype)
    for order in ORDERS[1:]:
        found = call(threaded[1], f"{function}_slopes", [x, np.ones_like(x), order], x.shape)
        np.testing.assert_allclose(found, (x > 0) * (order == 1), rtol=0, atol=1e-30)


@needs_kernels
@pytest.mark.parametrize("name", ["swish", "shifted_softplus"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_a_number_stays_visible(name, dtype, threaded):
    found = call(threaded[1], name, [np.array([np.nan, 1.0], dtype)], (2,))
    assert np.isnan(found[0]) and np.isfinite(found[1])


@needs_kernels
@pytest.mark.parametrize("name", ["linear_without_bias", "linear_weights", "column_sums"])
def test_products_let_what_is_not_a_number_through(name, threaded):
    inputs, shape = large_calls()[name]
    inputs[0][7, 3] = np.nan
    assert np.isnan(call(threaded[2], name, inputs, shape)).any()
