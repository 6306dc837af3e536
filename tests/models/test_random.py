"""Random numbers against the same law in NumPy, their statistics, and dropout in training and evaluation."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from models import random as random_module
from models.random import WORD, Dropout, RandomWords, key_of, random_layers, set_keys

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}
SHAPE = (576, 128)
#: (seed, step, rank, layer)
KEYS = ((3, 1, 1, 2), (3, 2, 1, 2), (3, 2**31 - 1, 1, 2), (0, 1, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1))
ALLOWED = 5.0  # standard deviations of a statistic that is nearly normal: once in 2 million


@pytest.fixture(params=MODES)
def mode(request, same_mode):
    ms.set_context(mode=MODES[request.param])
    return request.param


def law(size, key):
    """Equation (1) with whole numbers of 64 bits."""
    count, key = np.arange((size + 1) // 2, dtype=np.int64), key.astype(np.int64)
    left, right = count // WORD, (count % WORD + key[0]) % WORD
    for k in key[1:]:
        left, right = right, (left + k + right * right // 64) % WORD
    return np.concatenate([left, right])[:size]


def draw(seed=0, step=1, rank=0, layer=0):
    """Numbers of one shape by the law, which those of a layer are to the bit: the next test."""
    return law(int(np.prod(SHAPE)), key_of(seed, step, rank, layer)).reshape(SHAPE)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("GRAPH", (7,)), ("GRAPH", (1001, 33)), *(("PYNATIVE", shape) for shape in ((1,), (7,), (3, 4, 5), SHAPE))],
    indirect=["mode"],
)
def test_the_numbers_are_those_of_the_law(mode, shape):
    words = RandomWords()
    for seed, step, rank, layer in KEYS:
        key = key_of(seed, step, rank, layer)
        words.key_of_step.set_data(Tensor(key))
        found = words(Tensor(np.zeros(shape, np.float32))).asnumpy()
        np.testing.assert_array_equal(found, law(found.size, key).reshape(shape))
        assert found.dtype == np.float32
    if mode == "GRAPH":
        assert len(words.compile_cache) == 1


def test_the_last_number_of_the_largest_layer():
    """Float32 holds every intermediate number exactly: the law at the end of its range, done in float32 by NumPy."""
    key = key_of(0, 1, 0, 0)
    count = np.arange(random_module.LARGEST - 5, random_module.LARGEST, dtype=np.int64)
    left, right = count // WORD, (count % WORD + int(key[0])) % WORD
    single = np.float32(WORD)
    first = np.floor(count.astype(np.float32) / single)
    second = count.astype(np.float32) - first * single + key[0]
    second -= single * np.floor(second / single)
    for k in key[1:]:
        left, right = right, (left + int(k) + right * right // 64) % WORD
        total = first + k + np.floor(second * second * np.float32(1 / 64))
        first, second = second, total - single * np.floor(total / single)
    np.testing.assert_array_equal((first, second), (left, right))
    with pytest.raises(ValueError, match="expected at most 33554432"):
        random_module._count.fn(random_module.LARGEST + 1)


def deviation(counts):
    """Of counts from equal ones, in standard deviations of chi squared."""
    expected = counts.sum() / counts.size
    return (((counts - expected) ** 2 / expected).sum() - counts.size + 1) / np.sqrt(2 * (counts.size - 1))


def pairs(first, second):
    """How far two rows of numbers are from independent, by their leading 6 bits."""
    return deviation(np.bincount((first // 64 * 64 + second // 64).reshape(-1), minlength=4096))


def test_every_number_is_as_frequent():
    found = [deviation(np.bincount(draw(step=step).reshape(-1), minlength=WORD)) for step in range(1, 41)]
    assert max(map(abs, found)) < ALLOWED and abs(np.mean(found)) < ALLOWED / np.sqrt(40)


def test_neighbours_within_a_layer_are_independent():
    found = []
    for step in range(1, 6):
        numbers = draw(step=step).reshape(-1)
        for apart in (1, 2, 3, 4, 7, 64, 127, 128, 129, 4096, numbers.size // 2 - 1, numbers.size // 2):
            found.append(pairs(numbers[:-apart], numbers[apart:]))
    assert max(map(abs, found)) < ALLOWED and abs(np.mean(found)) < ALLOWED / np.sqrt(len(found))


@pytest.mark.parametrize("other", [{"step": 2}, {"seed": 1}, {"rank": 1}, {"layer": 1}], ids=str)
def test_steps_seeds_processes_and_layers_are_independent(other):
    base = {"seed": 0, "step": 1, "rank": 0, "layer": 0}
    found = []
    for k in range(10):
        first = base | {"step": 1 + 20 * k}
        found.append(pairs(draw(**first), draw(**{key: first[key] + other.get(key, 0) for key in first})))
    assert max(map(abs, found)) < ALLOWED and abs(np.mean(found)) < ALLOWED / np.sqrt(10)


def test_elements_are_independent_over_the_steps():
    """Signs of 256 elements in 4,096 steps: pairs and fours in a pattern, and the spectrum of random matrices."""
    steps, elements = 4096, 256
    signs = np.stack([law(elements, key_of(7, step, 0, 0)) < WORD // 2 for step in range(steps)]) * 2.0 - 1
    assert np.abs(signs.mean(0)).max() * np.sqrt(steps) < ALLOWED
    product = signs.T @ signs / steps
    assert np.abs(product[np.triu_indices(elements, 1)]).max() * np.sqrt(steps) < ALLOWED + 0.5
    edge = (1 + np.sqrt(elements / steps)) ** 2  # Marchenko and Pastur 1967
    assert np.linalg.eigvalsh(product)[-1] < 1.05 * edge
    for apart, other in ((1, 2), (1, 64), (3, 128), (2, 32)):
        i = np.arange(elements - apart - other)
        fours = (signs[:, i] * signs[:, i + apart] * signs[:, i + other] * signs[:, i + apart + other]).mean(0)
        assert np.abs(fours).max() * np.sqrt(steps) < ALLOWED and np.std(fours) * np.sqrt(steps) < 1.2


class Net(nn.Cell):
    """Two layers of dropout with weights beside them."""

    def __init__(self, rate=0.1, dtype=ms.float32):
        super().__init__()
        self.first, self.middle, self.second = Dropout(rate, dtype), nn.Dense(4, 4, dtype=dtype), Dropout(rate, dtype)

    def construct(self, x):
        return self.second(self.first(x) * 2)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("GRAPH", np.float32), ("GRAPH", np.float16), ("PYNATIVE", np.float64), ("PYNATIVE", np.float16)],
    indirect=["mode"],
)
def test_dropout_in_training_and_evaluation(mode, kind):
    net, x = Net(0.1, ms.float64 if kind == np.float64 else ms.float32), np.full((50, 41), 0.7, kind)
    layers = random_layers(net)
    assert len(layers) == 2
    set_keys(layers, seed=3, step=8, rank=1)
    np.testing.assert_array_equal(net.set_train(False)(Tensor(x)).asnumpy(), 2 * x)
    found = net.set_train(True)(Tensor(x)).asnumpy()
    keep = [law(x.size, key_of(3, 8, 1, layer)).reshape(x.shape) >= round(0.1 * WORD) for layer in range(2)]
    scale = kind(WORD / (WORD - round(0.1 * WORD)))
    np.testing.assert_array_equal(found, x * (keep[0] * scale) * 2 * (keep[1] * scale))
    assert found.dtype == kind
    assert not np.array_equal(*keep)


def test_each_step_has_other_numbers_and_none_is_compiled(graph_mode):
    net, x = Net().set_train(True), Tensor(np.ones((64, 32), np.float32))
    found = []
    for step in (1, 2, 3, 2):
        set_keys(random_layers(net), 0, step)
        found.append(net(x).asnumpy())
    np.testing.assert_array_equal(found[1], found[3])
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])
    assert len(net.compile_cache) == 1


def test_the_mean_is_kept(graph_mode):
    net, x = Net(0.25).set_train(True), Tensor(np.ones(SHAPE, np.float32))
    means = []
    for step in range(20):
        set_keys(random_layers(net), 0, step)
        means.append(net(x).asnumpy().mean() / 2)
    spread = np.sqrt((1 / 0.75**2 - 1) / (20 * np.prod(SHAPE)))
    assert abs(np.mean(means) - 1) < ALLOWED * spread


def test_the_gradient_goes_where_the_value_went(mode):
    layer = Dropout(0.5).set_train(True)
    set_keys(random_layers(layer), 1, 1)
    x = Tensor(np.full((9, 8), 3.0, np.float32))
    gradient = ms.jit(ms.grad(total_of(layer)))(x).asnumpy()
    np.testing.assert_array_equal(gradient * 3, layer(x).asnumpy())
    assert set(np.unique(gradient)) == {0.0, 2.0}


def total_of(layer):
    def total(x):
        return layer(x).sum()

    return total


def test_a_rate_of_zero_has_no_numbers():
    layer = Dropout(0.0).set_train(True)
    x = Tensor(np.ones(3, np.float32))
    assert not random_layers(layer) and not list(layer.get_parameters())
    np.testing.assert_array_equal(layer(x).asnumpy(), x.asnumpy())


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="expected at least 0 and less than 1"):
        Dropout(rate)


def test_keys_are_those_of_the_seed_sequence():
    """NumPy promises the same words for ever; a change would give every resumed run other numbers."""
    assert key_of(5, 6, 7, 8).tolist() == [1367, 2026, 2600, 2041, 3905, 546, 3079]
