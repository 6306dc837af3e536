"""models/e3/dropout.py: whole copies and whole graphs, the same numbers for the same step."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from e3_laws import as_e3nn, assert_equivariant, here
from mindspore import Tensor

from models.e3.dropout import DropPath, EquivariantDropout
from models.e3.irreps import Irreps
from models.random import WORD, random_layers, set_keys

IRREPS = Irreps("6x0e+5x1o+4x2e")
KEPT = WORD / (WORD - round(0.3 * WORD))  # what is kept is multiplied with it
NODE_GRAPH = np.repeat(np.arange(16, dtype=np.int32), 3)


def features(seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, (48, IRREPS.dim))


def factors(irreps, found, x):
    """(N, C) what the components of each channel were multiplied with, which must be one number."""
    result = []
    for (mul, ir), place in zip(irreps, irreps.slices(), strict=True):
        ratio = (found / x)[:, place].reshape(len(x), mul, ir.dim)
        assert np.abs(ratio - ratio[:, :, :1]).max() < 1e-14
        result.append(ratio[:, :, 0])
    return np.concatenate(result, 1)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["GRAPH", "PYNATIVE"])
def test_copies_are_dropped_whole(path, same_mode, mode):
    ms.set_context(mode=mode)
    layer, x = EquivariantDropout(IRREPS, 0.3, ms.float64).set_train(True), features()
    drawn = []
    for step in (1, 2, 1):
        set_keys(random_layers(layer), 0, step)
        found = as_e3nn(IRREPS, layer(Tensor(here(IRREPS, x))).asnumpy())
        drawn.append(factors(IRREPS, found, x))
        dropped = drawn[-1] == 0
        np.testing.assert_allclose(drawn[-1][~dropped], KEPT, rtol=1e-14)
        assert abs(dropped.mean() - 0.3) < 5 * (0.3 * 0.7 / dropped.size) ** 0.5  # standard deviations
        assert dropped.any(0).all() and not dropped.all(0).any()  # in each channel other nodes
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])


def test_rotation_and_inversion():
    layer = EquivariantDropout(IRREPS, 0.3, ms.float64).set_train(True)
    set_keys(random_layers(layer), 0, 1)
    assert_equivariant(layer, IRREPS, IRREPS, features(1))


def test_graphs_are_dropped_whole(path):
    layer, x = DropPath(0.3, IRREPS.dim, ms.float64).set_train(True), features(2)
    set_keys(random_layers(layer), 0, 3)
    ratio = layer(Tensor(x), Tensor(NODE_GRAPH), Tensor(np.ones(16))).asnumpy() / x
    of_graph = ratio[::3, 0]
    np.testing.assert_allclose(ratio, np.repeat(of_graph, 3)[:, None] * np.ones(x.shape), rtol=1e-14)
    np.testing.assert_allclose(of_graph[of_graph > 0], KEPT, rtol=1e-14)
    assert 0 < np.count_nonzero(of_graph) < 16


def test_evaluation_and_a_rate_of_zero():
    x = Tensor(features(3))
    graphs = Tensor(NODE_GRAPH), Tensor(np.ones(16))
    for rate, trains in ((0.3, False), (0.0, True)):
        layer, path = EquivariantDropout(IRREPS, rate, ms.float64), DropPath(rate, IRREPS.dim, ms.float64)
        np.testing.assert_array_equal(layer.set_train(trains)(x).asnumpy(), x.asnumpy())
        np.testing.assert_array_equal(path.set_train(trains)(x, *graphs).asnumpy(), x.asnumpy())
        assert bool(random_layers(layer)) == bool(random_layers(path)) == bool(rate)


def test_the_gradient_goes_where_the_value_went(graph_mode):
    layer, x = EquivariantDropout(IRREPS, 0.3, ms.float64).set_train(True), features(4)
    set_keys(random_layers(layer), 0, 1)

    def total(x):
        return layer(x).sum()

    gradient = ms.jit(ms.grad(total))(Tensor(x)).asnumpy()
    np.testing.assert_allclose(gradient * x, layer(Tensor(x)).asnumpy(), rtol=1e-14)
