"""What is computed for several layers, or for both edges of a pair, at once: values and derivatives of each alone."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from models.blocks import ShiftedSoftplus, SideBySide, TwoLayers
from models.graph_ops import PairSum, both_ways, edge_vectors, opposite_ways, pair_vectors

pytestmark = pytest.mark.usefixtures("graph_mode")
B, M, INPUTS, HIDDEN, OUTPUTS = 3, 11, 5, 4, 6


class Alone(nn.Cell):
    """The networks one by one, as one tensor."""

    def __init__(self, networks, last):
        super().__init__()
        self.networks, self.last = nn.CellList(networks), last

    def construct(self, x):
        outputs: tuple = ()
        for network in self.networks:
            outputs = (*outputs, network(x) if self.last is None else self.last(network(x)))
        return ops.stack(outputs)


class Together(nn.Cell):
    """The same networks side by side, as one tensor."""

    def __init__(self, networks, last):
        super().__init__()
        self.networks, self.side_by_side = nn.CellList(networks), SideBySide(networks, last)

    def construct(self, x):
        outputs = self.side_by_side(x)
        return outputs if isinstance(outputs, Tensor) else ops.stack(outputs)


def derivatives(cell, x, weights):
    """The value, the slope along a direction, and the gradients of the slope's square in x and in every weight."""

    def slope(x):
        return (ms.grad(cubes_of(cell))(x) * x).sum()

    def squared(x):
        first = slope(x)
        return first * first

    gradient = ms.jit(ms.value_and_grad(squared, 0, weights))
    value, (of_x, of_weights) = gradient(x)
    return [cell(x), value, of_x, *of_weights]


def cubes_of(cell):
    """The sum of the cubes of what a cell returns."""

    def cubes(x):
        y = cell(x)
        return (y * y * y).sum()

    return cubes


@pytest.mark.parametrize("last", [False, True], ids=["plain", "activated"])
def test_networks_side_by_side(path, last):
    """In float64 on both paths, where operators join the parameters of all networks."""
    ms.set_seed(1)
    activation = ShiftedSoftplus(ms.float64)
    networks = [TwoLayers(INPUTS, HIDDEN, OUTPUTS, activation, ms.float64) for _ in range(B)]
    random = np.random.default_rng(0)
    weights = [parameter for network in networks for parameter in network.trainable_params()]
    for number, weight in enumerate(weights):
        weight.name = f"weight{number}"
        weight.set_data(Tensor(random.normal(size=weight.shape)))
    x = Tensor(random.normal(size=(M, INPUTS)))
    alone, together = (kind(networks, activation if last else None) for kind in (Alone, Together))
    assert together.side_by_side.on_cpu == (path == "kernels")
    assert [parameter.name for parameter in together.trainable_params()] == [weight.name for weight in weights]
    expected, found = (derivatives(cell, x, ms.ParameterTuple(weights)) for cell in (alone, together))
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.asnumpy() - theirs.asnumpy()).max() <= 1e-12 * np.abs(theirs.asnumpy()).max()


def test_networks_side_by_side_in_half_precision(path):
    """float16 inputs: as each network alone, to the rounding of float16."""
    networks = [TwoLayers(INPUTS, HIDDEN, OUTPUTS, ShiftedSoftplus(ms.float32), ms.float32) for _ in range(B)]
    x = Tensor(np.random.default_rng(0).normal(size=(M, INPUTS)).astype(np.float16))
    found, expected = Together(networks, None)(x), Alone(networks, None)(x)
    assert found.dtype == expected.dtype == ms.float16
    assert np.allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-2, atol=4e-3)


class Vectors(nn.Cell):
    """Vectors of the pairs, both ways, from all edges or from the first half."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs

    def construct(self, positions, senders, receivers, shifts):
        if self.pairs:
            return opposite_ways(pair_vectors(positions, senders, shifts))
        return edge_vectors(positions, senders, receivers, shifts)


def along(function, v):
    """The derivative of a scalar function along v."""

    def result(x):
        return (ms.grad(function)(x) * v).sum()

    return result


def orders_of(cell, graph, x, v):
    """Values, and gradients of the sum of |r|^4 and of its first and second derivative along v."""

    def quartic(x):
        vectors = cell(x, *graph)
        squared = (vectors * vectors).sum(-1)
        return (squared * squared).sum()

    functions = (quartic, along(quartic, v), along(along(quartic, v), v))
    return [cell(x, *graph), *(ms.jit(ms.grad(function))(x) for function in functions)]


def test_vectors_of_pairs():
    """Of a random graph with shifts: values and derivatives to third order of a function of them."""
    random = np.random.default_rng(0)
    first, second = random.integers(0, 6, 15), random.integers(0, 6, 15)
    half = random.normal(size=(15, 3))
    senders, receivers = np.concatenate((first, second)), np.concatenate((second, first))
    graph = [Tensor(array.astype(np.int32)) for array in (senders, receivers)] + [Tensor(np.concatenate((half, -half)))]
    x, v = Tensor(random.normal(size=(6, 3))), Tensor(random.normal(size=(6, 3)))
    results = [orders_of(Vectors(pairs), graph, x, v) for pairs in (False, True)]
    for ours, theirs in zip(*results, strict=True):
        assert np.abs(ours.asnumpy() - theirs.asnumpy()).max() <= 1e-12 * np.abs(theirs.asnumpy()).max()


class Messages(nn.Cell):
    """Sums over pairs of several filters, one after the other."""

    def __init__(self, features, matrices):
        super().__init__()
        self.pair_sum = PairSum(features, matrices, ms.float64)

    def construct(self, nodes, first, second, envelope, receivers, senders):
        filters = (first, second) if self.pair_sum.on_cpu else ops.stack((first, second))  # as SideBySide has them
        filters = self.pair_sum.prepare(filters, envelope)
        nodes = self.pair_sum(nodes, filters[0], receivers, senders)
        return self.pair_sum(nodes, filters[1], receivers, senders)


@pytest.mark.parametrize("matrices", [False, True], ids=["factors", "matrices"])
def test_sums_over_pairs(path, matrices):
    """m_i = sum_j f W x_j, written out with loops."""
    random = np.random.default_rng(0)
    atoms, pairs, features = 5, 9, 3
    ends = random.integers(0, atoms, (2, pairs))
    receivers, senders = np.concatenate(ends), np.concatenate(ends[::-1])
    nodes, envelope = random.normal(size=(atoms, features)), random.random((pairs, 1))
    shape = (2, pairs, features * features if matrices else features)
    filters = random.normal(size=shape)
    arguments = (nodes, *filters, envelope, receivers.astype(np.int32), senders.astype(np.int32))
    found = Messages(features, matrices)(*map(Tensor, arguments)).asnumpy()
    for one in filters:
        sums = np.zeros_like(nodes)
        for edge, (i, j) in enumerate(zip(receivers, senders, strict=True)):
            w = one[edge % pairs]
            moved = w.reshape(features, features) @ nodes[j] if matrices else w * nodes[j]
            sums[i] += envelope[edge % pairs] * moved
        nodes = sums
    assert np.abs(found - nodes).max() <= 1e-12 * np.abs(nodes).max()


def test_both_ways_of_several_filters():
    """(B, P, F) as (P, F): the second half of the edges repeats the first."""
    values = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert np.array_equal(both_ways(Tensor(values)).asnumpy(), np.concatenate((values, values), 1))
