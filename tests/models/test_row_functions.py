"""The kernels of gates and harmonics: derivatives along tangents, of every order, beside the operators."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore import dtype as mstype
from test_cpu_kernels import ORDER_LIMITS, call, derivatives, joined, needs_kernels, reals, threaded, together

from models import cpu_kernels
from models.e3.nonlinear import Gate
from models.e3.spherical_harmonics import SphericalHarmonics
from physics.derivatives import Compiled

__all__ = ["threaded"]  # a fixture

ROWS, MODES = 21, (ms.GRAPH_MODE, ms.PYNATIVE_MODE)  # more rows than vectors that the kernels take at once
HARMONICS = [(0, True), (1, True), (2, True), (3, True), (2, False), (4, False)]


def both_of(make) -> list[nn.Cell]:
    """A cell with kernels and the same with operators."""
    fused = make()
    with cpu_kernels.without_kernels():
        plain = make()
    assert fused.kernel is not None and plain.kernel is None
    return [fused, plain]


def gates(kind: str) -> list[nn.Cell]:
    dtype = getattr(mstype, kind)
    return both_of(lambda: Gate("5x0e", ["silu"], "3x0e+2x0e", ["sigmoid"] * 2, "3x1o+2x2e", False, dtype))


def harmonics(lmax: int, normalize: bool, kind: str) -> list[nn.Cell]:
    return both_of(lambda: SphericalHarmonics(lmax, normalize, "component", getattr(mstype, kind)))


def fourth_order(function, probes: list):
    """The gradient of the cubes of a function along two probes, and the gradient of that along a third."""

    def value(x):
        y = function(x)
        return (y * y * y).sum()

    def along(gradient, probe):
        def projected(x):
            return (gradient(x) * probe).sum()

        return projected

    for probe in probes:
        value = along(ms.grad(value), probe)
    return ms.grad(value)


def of_square(cell: nn.Cell):
    """A function whose tangents depend on x, as those within a network do, so that their gradients count."""

    def function(x):
        return cell(x + x * x)

    return function


def compare(cells: list[nn.Cell], x: Tensor, probes: list[Tensor], limit: float) -> None:
    """Values and three orders, and in float64 a fourth, where tangents are put together and taken apart."""
    found = []
    for cell in cells:
        function = of_square(cell)
        results = Compiled(cell, together(derivatives(function, probes[:1], probes[1:2])))(x)
        if x.dtype == mstype.float64:  # in a graph of its own: MindSpore does not compile all orders of a kernel in one
            results = (*results, Compiled(cell, fourth_order(function, probes))(x))
        found.append([joined(one) for one in results])
    for order, (one, other) in enumerate(zip(*found, strict=True)):
        difference = np.abs(one - other).max() / np.abs(other).max()
        assert difference < limit, f"order {order}: {difference:.1e}"


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ORDER_LIMITS)
def test_gates_are_the_same_with_and_without_kernels(kind, mode, same_mode):
    ms.set_context(mode=mode)
    x, *probes = (reals(ROWS, 5 + 5 + 9 + 10, dtype=kind, seed=k) for k in range(4))
    compare(gates(kind), x, probes, 10 * ORDER_LIMITS[kind])


@needs_kernels
@pytest.mark.parametrize("kind", ORDER_LIMITS)
@pytest.mark.parametrize(("lmax", "normalize"), HARMONICS[1:])
def test_harmonics_are_the_same_with_and_without_kernels(lmax, normalize, kind, graph_mode):
    x, *probes = (reals(ROWS, 3, dtype=kind, seed=k) for k in range(4))
    x = x + 0.4 * x / (x * x).sum(-1, keepdims=True).sqrt()  # none is short, which would be all that is compared
    x[4] = 0.0  # whose derivatives are 0 where it is divided by its length
    compare(harmonics(lmax, normalize, kind), x, probes, 20 * ORDER_LIMITS[kind])


@needs_kernels
def test_harmonics_in_pynative_mode_and_without_compilation(same_mode):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    x, *probes = (reals(ROWS, 3, seed=k) for k in range(4))
    cells = harmonics(2, True, "float64")
    compare(cells, x, probes, 1e-12)
    slopes = [ms.grad(lambda r, cell=cell: (cell(r) * cell(r) * cell(r)).sum())(x).asnumpy() for cell in cells]
    np.testing.assert_allclose(*slopes, rtol=0, atol=1e-13)


# --- called directly --------------------------------------------------------------------------------------------------


def row_function(name: str, kind: str) -> tuple[list[np.ndarray], int, int]:
    """Table, numbers and ``like`` of a kernel, and its widths."""
    if name == "gate":
        cell, width = gates(kind)[0].kernel, 29
    else:
        lmax, normalize = HARMONICS[int(name[-1])]
        cell, width = harmonics(lmax, normalize, kind)[0].kernel, 3
    tables = [one.asnumpy() for one in (cell.table, cell.numbers, cell.like)]
    return tables, width, tables[2].shape[1]


@needs_kernels
@pytest.mark.parametrize("name", ["gate", *(f"harmonics {k}" for k in range(len(HARMONICS)))])
def test_every_order_is_the_slope_of_the_one_before(name, threaded):
    """Central differences in float64; and B is the gradient of A."""
    (table, numbers, like), width, width_out = row_function(name, "float64")
    kernel, (random, step) = name.partition(" ")[0], (np.random.default_rng(1), 1e-5)
    y, d = random.normal(size=(ROWS, width)) + 0.3, random.normal(size=(ROWS, width_out))

    def tangents(rows, v):
        if not v:
            return call(threaded[1], kernel, [rows, table, numbers, like], (ROWS, width_out))
        inputs = [rows, np.concatenate(v), table, numbers, like]
        return call(threaded[1], f"{kernel}_tangents", inputs, (ROWS, width_out))

    def slopes(rows, v):
        if not v:
            return call(threaded[1], f"{kernel}_slopes", [rows, d, table, numbers], (ROWS, width))
        inputs = [rows, np.concatenate(v), d, table, numbers]
        return call(threaded[1], f"{kernel}_slope_tangents", inputs, (ROWS, width))

    v: list[np.ndarray] = []
    for _ in range(6):
        w = random.normal(size=(ROWS, width))
        gradient = (slopes(y, v) * w).sum(1)
        for function in (tangents, slopes):
            found = function(y, [*v, w])
            expected = (function(y + step * w, v) - function(y - step * w, v)) / (2 * step)
            assert np.abs(found - expected).max() <= 1e-7 * np.abs(expected).max() + 1e-9
        v.append(w)
        along = (tangents(y, v) * d).sum(1)
        np.testing.assert_allclose(gradient, along, rtol=0, atol=1e-11 * np.abs(along).max() + 1e-30)


@needs_kernels
@pytest.mark.parametrize("name", ["gate", "harmonics 2"])
def test_no_rows_and_what_is_not_a_number(name, threaded):
    (table, numbers, like), width, width_out = row_function(name, "float32")
    kernel = name.partition(" ")[0]
    for rows in (0, 3):
        y, d = np.full((rows, width), 0.7, np.float32), np.ones((rows, width_out), np.float32)
        y[1:2] = np.nan
        for found in (
            call(threaded[1], kernel, [y, table, numbers, like], (rows, width_out)),
            call(threaded[1], f"{kernel}_tangents", [y, y, table, numbers, like], (rows, width_out)),
            call(threaded[1], f"{kernel}_slopes", [y, d, table, numbers], (rows, width)),
            call(threaded[1], f"{kernel}_slope_tangents", [y, y, d, table, numbers], (rows, width)),
        ):
            assert len(found) == rows
            assert np.isnan(found[1:2]).any() == (rows > 0) and np.isfinite(found[::2]).all()


@needs_kernels
def test_threads_share_the_work_and_repeat_their_bits(threaded):
    random = np.random.default_rng(0)
    for name in ("gate", "harmonics 2"):
        (table, numbers, like), width, width_out = row_function(name, "float32")
        kernel, rows = name.partition(" ")[0], 30001
        y, v, w, d = (random.normal(size=(rows, size)).astype(np.float32) for size in (width, width, width, width_out))
        both = np.concatenate((v, w))
        for suffix, inputs, columns in (
            ("", [y, table, numbers, like], width_out),
            ("_tangents", [y, both, table, numbers, like], width_out),
            ("_slopes", [y, d, table, numbers], width),
            ("_slope_tangents", [y, both, d, table, numbers], width),
        ):
            alone, *others = (call(threaded[k], kernel + suffix, inputs, (rows, columns)) for k in (1, 2, 3))
            assert all(np.array_equal(alone, other) for other in others)
