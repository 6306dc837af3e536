"""What the tests of models/e3 share: features with channels last, equivariance, and derivatives to third order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from helpers import TOLERANCES, assert_close, rotations
from mindspore import Tensor, nn

from models.e3.irreps import Irreps
from models.e3.layout import channels_last
from models.e3.wigner import representation
from physics.derivatives import Compiled

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "e3nn_pieces.npz")


def here(irreps: Irreps | str, feature: np.ndarray) -> np.ndarray:
    """A feature in e3nn's layout with channels last."""
    return feature[:, channels_last(Irreps(irreps))]


def as_e3nn(irreps: Irreps | str, feature: np.ndarray) -> np.ndarray:
    """A feature with channels last in e3nn's layout."""
    result = np.empty_like(feature)
    result[:, channels_last(Irreps(irreps))] = feature
    return result


def random_parameters(cell: nn.Cell, seed: int = 0) -> nn.Cell:
    """Random numbers near 1 in every parameter with a gradient; a weight of 1 or a bias of 0 would hide mistakes."""
    random = np.random.default_rng(seed)
    for parameter in cell.trainable_params():
        parameter.set_data(Tensor(1 + 0.5 * random.normal(size=parameter.shape), parameter.dtype))
    return cell


def assert_equivariant(
    function: Callable[..., Tensor], irreps_in: Irreps | str, irreps_out: Irreps | str, x: np.ndarray, *others: Tensor
) -> None:
    """Rotations, reflections and the inversion of the input do the same to the output.

    Args:
        function: of a feature and other tensors.
        irreps_in, irreps_out: of the feature and of the result.
        x: the feature in e3nn's layout, (N, dim).
        *others: what the function needs beside.
    """
    irreps_in, irreps_out = Irreps(irreps_in), Irreps(irreps_out)
    before = as_e3nn(irreps_out, function(Tensor(here(irreps_in, x)), *others).asnumpy())
    for matrix in rotations(2):
        turned = x @ representation(irreps_in, matrix).T
        found = as_e3nn(irreps_out, function(Tensor(here(irreps_in, turned)), *others).asnumpy())
        assert_close(found, before @ representation(irreps_out, matrix).T, "symmetry")


def assert_three_orders(
    cell: nn.Cell, x: np.ndarray, *others: Tensor, finite_at: np.ndarray, trains: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Derivatives to third order, compiled, against central differences.

    f is a weighted sum of squares of what the cell makes of x.  Its second derivative along two directions is compared
    with differences of f, and the gradient of that, in x and in every parameter, with differences of the second.

    Args:
        cell: of float64 tensors, to one tensor.
        x: where, and what is differentiated.
        *others: what the cell needs beside.
        finite_at: another x, where the derivatives need only be finite.
        trains: whether the cell is in training.
        seed: of directions and weights.

    Returns:
        The gradients of the second derivative in x, "x", and in each parameter.
    """
    random = np.random.default_rng(seed)
    v, w = random.normal(size=(2, *x.shape))
    first_way, second_way = Tensor(v), Tensor(w)
    parameters = ms.ParameterTuple(cell.trainable_params())
    cell.set_train(trains)
    squares = random.uniform(-1, 1, cell(Tensor(x), *others).shape)
    weights = Tensor(squares)

    def value(x):
        y = cell(x, *others)
        return (y * y * weights).sum()

    def first(x):
        return (ms.grad(value)(x) * first_way).sum()

    def second(x):
        return (ms.grad(first)(x) * second_way).sum()

    seconds = Compiled(cell, ms.value_and_grad(second, 0, parameters or None))
    seconds.trains = trains


    def derivatives(x):
        found, gradients = seconds(Tensor(x))
        gradients = (gradients[0], *gradients[1]) if len(parameters) else (gradients,)
        return found.asnumpy(), [gradient.asnumpy() for gradient in gradients]

    assert all(np.isfinite(array).all() for array in derivatives(finite_at)[1])
    found, gradients = derivatives(x)
    step = 2e-4
    corners = [
        a * b * (cell(Tensor(x + step * (a * v + b * w)), *others).asnumpy() ** 2 * squares).sum()
        for a in (1, -1)
        for b in (1, -1)
    ]
    assert abs(sum(corners) / (4 * step**2) - found) <= TOLERANCES["differences"] * abs(found)

    gradients = {"x": gradients[0]} | {
        parameter.name: gradient for parameter, gradient in zip(parameters, gradients[1:], strict=True)
    }
    ways = {name: random.normal(size=gradient.shape) for name, gradient in gradients.items()}
    before = {parameter.name: parameter.asnumpy() for parameter in parameters}
    step, ends = 1e-5, []
    for sign in (1, -1):
        for parameter in parameters:
            parameter.set_data(Tensor(before[parameter.name] + sign * step * ways[parameter.name]))
        ends.append(derivatives(x + sign * step * ways["x"])[0])
    for parameter in parameters:
        parameter.set_data(Tensor(before[parameter.name]))
    products = {name: (gradient * ways[name]).sum() for name, gradient in gradients.items()}
    scale = sum(map(abs, products.values()))
    assert np.isfinite(scale)
    assert abs((ends[0] - ends[1]) / (2 * step) - sum(products.values())) <= TOLERANCES["differences"] * scale
    return gradients
