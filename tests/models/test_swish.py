"""The swish of Ascend and GPU: one operator, with derivatives that are right to third order in every precision."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import on_path
from mindspore import Tensor, nn

from models.blocks import JoinedLinear, Linear
from models.swish import Swish, SwishOnDevice

X = np.concatenate([np.linspace(-20, 20, 401), [-80.0, 80.0]])
#: of the largest value of each order.  A sigmoid in float32 is good to 1e-6 on a CPU.  In the third order, the worst,
#: 8.4e-3, 2.7e-6 and 7.6e-15 were measured, and 7.0e-3, 2.5e-6 and 7.9e-15 of ``nn.SiLU``
TOLERANCES = {"float16": 1.2e-2, "float32": 5e-6, "float64": 2e-14}


def exact(x):
    """y = swish(x) and its first three derivatives in closed form."""
    s, rest = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    y, curved = x * s, 2 + x - 2 * x * s
    slope = s + y * rest
    return y, slope, s * rest * curved, s * rest * ((rest - s) * curved + 1 - 2 * slope)


def exact_product(x):
    """x y and its first three derivatives."""
    y, first, second, third = exact(x)
    return x * y, y + x * first, 2 * first + x * second, 3 * second + x * third


def exact_square(x):
    """y^2 and its first three derivatives, in which the slopes meet each other."""
    y, first, second, third = exact(x)
    return y * y, 2 * y * first, 2 * (first**2 + y * second), 2 * (3 * first * second + y * third)


def derivatives(function, x):
    """A function and its first three derivatives at each point, compiled."""

    def value(x):
        return function(x).sum()

    first = ms.grad(value)

    def slopes(x):
        return first(x).sum()

    second = ms.grad(slopes)

    def curvatures(x):
        return second(x).sum()

    third = ms.grad(curvatures)

    def every(x):
        return function(x), first(x), second(x), third(x)

    return ms.jit(every)(x)


def on_devices():
    """A swish as it is where the target is Ascend or GPU."""
    with on_path("operators"):
        return Swish()


def assert_orders(found, expected, dtype, factor=1):
    for order, (own, value) in enumerate(zip(found, expected, strict=True)):
        assert own.asnumpy().dtype == dtype
        error = np.abs(own.asnumpy().astype(np.float64) - value).max() / np.abs(value).max()
        assert error <= factor * TOLERANCES[dtype], f"order {order}: {error}"


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_values_and_derivatives_to_third_order(graph_mode, dtype):
    x = X.astype(dtype)
    assert_orders(derivatives(on_devices(), Tensor(x)), exact(x.astype(np.float64)), dtype)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", "product"), ("float32", "product"), ("float64", "product"), ("float64", "square")]
)
def test_other_cotangents_than_one(graph_mode, dtype, kind):
    """Where x and y are factors, every derivative passes through the cotangent of a slope too."""
    swish, x = on_devices(), X[np.abs(X) < 5].astype(dtype)

    def product(x):
        return x * swish(x)

    def square(x):
        return swish(x) * swish(x)

    function, exactly = (product, exact_product) if kind == "product" else (square, exact_square)
    assert_orders(derivatives(function, Tensor(x)), exactly(x.astype(np.float64)), dtype, 2)


def test_the_derivatives_are_those_of_mindspore(graph_mode):
    dtype = "float32"
    x = Tensor(X.astype(dtype))
    known = [order.asnumpy().astype(np.float64) for order in derivatives(nn.SiLU(), x)]
    assert_orders(derivatives(SwishOnDevice(), x), known, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_first_derivative_without_compilation(same_mode, dtype):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    x, swish = X.astype(dtype), on_devices()

    def value(x):
        return swish(x).sum()

    found = [swish(Tensor(x)), ms.grad(value)(Tensor(x))]
    assert_orders(found, exact(x.astype(np.float64))[:2], dtype)


class Apart(nn.Cell):
    """Products with several matrices, multiplied with each other and summed."""

    def __init__(self, together):
        super().__init__()
        self.layers = nn.CellList([Linear(5, 2, ms.float64) for _ in range(3)])
        self.joined = JoinedLinear(3, 2, ms.float64) if together else None

    def construct(self, x):
        weights: tuple = ()
        outputs: tuple = ()
        for layer in self.layers:
            weights, outputs = (*weights, layer.weight), (*outputs, layer(x))
        first, second, third = outputs if self.joined is None else self.joined(x, weights)
        return (first * first * second * third).sum()


def test_joined_products_are_those_of_each_matrix(graph_mode):
    """To third order, with respect to the weights at the end, in full float64."""
    random = np.random.default_rng(2)
    x, matrices = Tensor(random.normal(size=(7, 5))), random.normal(size=(3, 2, 5))
    apart, joined = orders(Apart(False), x, matrices), orders(Apart(True), x, matrices)
    for own, alone in zip(joined, apart, strict=True):
        np.testing.assert_allclose(own, alone, rtol=1e-13, atol=1e-13 * np.abs(alone).max())


def orders(model, x, matrices):
    """The value, the square of a product with the Hessian, and the gradients of that by the weights."""
    weights = ms.ParameterTuple(model.trainable_params())
    for weight, matrix in zip(weights, matrices, strict=True):
        weight.set_data(Tensor(matrix))
    first = ms.grad(model)

    def slope(x):
        return (first(x) * x * x).sum()

    second = ms.grad(slope)

    def squared(x):
        product = second(x)
        return (product * product).sum()

    value, gradients = ms.jit(ms.value_and_grad(squared, None, weights))(x)
    return [model(x).asnumpy(), value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)]
