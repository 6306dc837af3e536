"""What the tests of models/e3 share: features with channels last, equivariance, and derivatives to third order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class SecondDerivative:
    """The second derivative of a number along two directions, and its gradient, compiled.

    The number is f, a sum of squares of what a cell makes of x, with random weights.

    Args:
        cell: of float64 tensors, to one tensor.
        x: an example.
        others: what the cell needs beside.
        trains: whether the cell is in training.
        random: for weights and directions.
    """

    def __init__(self, cell, x: np.ndarray, others: Sequence[Tensor], trains: bool, random: np.random.Generator):
        self.cell, self.others = cell.set_train(trains), others
        self.parameters = ms.ParameterTuple(cell.trainable_params())
        self.squares = random.uniform(-1, 1, cell(Tensor(x), *others).shape)
        self.directions = random.normal(size=(2, *x.shape))
        first_way, second_way = map(Tensor, self.directions)
        weights = Tensor(self.squares)

        def value(x):
            y = cell(x, *others)
            return (y * y * weights).sum()

        def first(x):
            return (ms.grad(value)(x) * first_way).sum()

        def second(x):
            return (ms.grad(first)(x) * second_way).sum()

        self.compiled = Compiled(cell, ms.value_and_grad(second, 0, self.parameters or None))
        self.compiled.trains = trains

    def value(self, x: np.ndarray) -> float:
        """f, from the cell's values alone."""
        y = self.cell(Tensor(x), *self.others).asnumpy()
        return float((y * y * self.squares).sum())

    def difference(self, x: np.ndarray, step: float) -> float:
        """The second derivative from values of f."""
        v, w = step * self.directions
        corners = self.value(x + v + w) - self.value(x + v - w) - self.value(x - v + w) + self.value(x - v - w)
        return corners / (4 * step**2)

    def __call__(self, x: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """The second derivative, and its gradient in x, "x", and in each parameter, by name."""
        found, gradients = self.compiled(Tensor(x))
        gradients = (gradients[0], *gradients[1]) if len(self.parameters) else (gradients,)
        names = ["x", *(parameter.name for parameter in self.parameters)]
        return float(found.asnumpy()), {name: one.asnumpy() for name, one in zip(names, gradients, strict=True)}

    def along(self, x: np.ndarray, ways: dict[str, np.ndarray], step: float) -> float:
        """The slope of the second derivative along changes of x and of the parameters, from its values."""
        before = [parameter.asnumpy() for parameter in self.parameters]
        ends = []
        for change in (step, -step, 0.0):
            for parameter, start in zip(self.parameters, before, strict=True):
                parameter.set_data(Tensor(start + change * ways[parameter.name]))
            ends.append(self(x + change * ways["x"])[0] if change else 0.0)
        return (ends[0] - ends[1]) / (2 * step)


def assert_three_orders(
    cell: nn.Cell, x: np.ndarray, *others: Tensor, finite_at: np.ndarray, trains: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Derivatives to third order against central differences; what is compiled is what training on Hessians needs.

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
    random, tolerance = np.random.default_rng(seed), TOLERANCES["differences"]
    second = SecondDerivative(cell, x, others, trains, random)
    assert all(np.isfinite(gradient).all() for gradient in second(finite_at)[1].values())
    found, gradients = second(x)
    # without the error of second order in the step
    extrapolated = (4 * second.difference(x, 2e-4) - second.difference(x, 4e-4)) / 3
    assert abs(extrapolated - found) <= tolerance * abs(found)

    ways = {name: random.normal(size=gradient.shape) for name, gradient in gradients.items()}
    products = [(gradient * ways[name]).sum() for name, gradient in gradients.items()]
    scale = sum(map(abs, products))
    assert np.isfinite(scale)
    assert abs(second.along(x, ways, 1e-5) - sum(products)) <= tolerance * scale
    return gradients
