"""models/e3/tensor_product.py: e3nn's numbers and gradients, equivariance, weights of each row, third derivatives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from helpers import rotations
from mindspore import Tensor

from models.e3.depthwise_product import DepthwiseTensorProduct
from models.e3.irreps import Irreps, IrrepsError
from models.e3.layout import channels_last
from models.e3.tensor_product import Coupling, FullyConnectedTensorProduct
from models.e3.wigner import representation

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "e3nn_pieces.npz")
FULLY = ["fctp_component", "fctp_norm", "fctp2_component", "fctp2_norm"]
pytestmark = pytest.mark.usefixtures("graph_mode")


def here(irreps: Irreps, features: np.ndarray) -> Tensor:
    """Features of e3nn with their channels last."""
    return Tensor(features[:, channels_last(irreps)])


def there(irreps: Irreps, features: Tensor) -> np.ndarray:
    """And back."""
    return features.asnumpy()[:, np.argsort(channels_last(irreps))]


def irreps_of(name: str) -> list[Irreps]:
    return [Irreps(str(text)) for text in GOLDEN[f"{name}/irreps"]]


def coupling_of(first: Irreps, second: Irreps, output: Irreps) -> Coupling:
    return Coupling(
        second, sorted({part.ir for part in first}), sorted({part.ir for part in output}), ms.float64, ms.float64
    )


class Products:
    """A fully connected product that takes its attributes as they are, in e3nn's layout.

    Attributes:
        compiled: the same, of one graph for each shape: cells that are called with a tuple compile at every call.
    """

    def __init__(self, first: Irreps, second: Irreps, output: Irreps, normalization: str = "component"):
        self.irreps = first, second, output
        self.coupling = coupling_of(*self.irreps)
        self.cell = FullyConnectedTensorProduct(
            first, output, self.coupling, normalization, "element", False, False, ms.float64, ms.float64
        )
        self.compiled = ms.jit(self.__call__)

    def __call__(self, x, attributes, weights):
        return self.cell(x, self.coupling(attributes), weights)


@pytest.mark.parametrize("name", FULLY)
def test_values_and_gradients_of_e3nn(path, name):
    product = Products(*irreps_of(name), name.split("_")[1])
    first, second, output = product.irreps
    x, a = here(first, GOLDEN[f"{name}/x1"]), here(second, GOLDEN[f"{name}/x2"])
    w, cotangent = Tensor(GOLDEN[f"{name}/w"]), here(output, GOLDEN[f"{name}/ct"])
    assert product.cell.numel == len(w)

    def weighted(x, a, w):
        y = product(x, a, w)
        return (y * cotangent).sum(), y

    gradients, (y,) = ms.jit(ms.grad(weighted, (0, 1, 2), has_aux=True))(x, a, w)
    assert np.abs(there(output, y) - GOLDEN[f"{name}/y"]).max() < 1e-12
    assert np.abs(there(first, gradients[0]) - GOLDEN[f"{name}/dx1"]).max() < 1e-12
    assert np.abs(there(second, gradients[1]) - GOLDEN[f"{name}/dx2"]).max() < 1e-12
    assert np.abs(gradients[2].asnumpy() - GOLDEN[f"{name}/dw"]).max() < 1e-11


@pytest.mark.parametrize("name", ["uvu_element", "uvu_path", "uvu_none"])
def test_depthwise_products_of_e3nn(path, name):
    first, second, output = irreps_of(name)
    coupling = coupling_of(first, second, output)
    product = DepthwiseTensorProduct(
        first, coupling, output, "component", name.split("_")[1], False, ms.float64, ms.float64
    )
    x, a = here(first, GOLDEN[f"{name}/x1"]), here(second, GOLDEN[f"{name}/x2"])
    y = product(x, coupling(a), Tensor(GOLDEN[f"{name}/w"]))
    assert product.irreps_out == output.simplify()
    assert np.abs(there(product.irreps_out, y) - GOLDEN[f"{name}/y"]).max() < 1e-12
    first_row = product(x, coupling(a), Tensor(GOLDEN[f"{name}/w"][:1]))  # one row of weights for all
    assert np.abs(first_row.asnumpy()[0] - y.asnumpy()[0]).max() < 1e-13


def test_rotation_and_inversion(path):
    product = Products(*irreps_of("fctp2_component"))
    first, second, output = product.irreps
    random = np.random.default_rng(0)
    x, a = random.normal(size=(6, first.dim)), random.normal(size=(6, second.dim))
    w = Tensor(random.normal(size=product.cell.numel))
    before = there(output, product.compiled(here(first, x), here(second, a), w))
    for matrix in rotations(4):
        of_x, of_a, of_y = (representation(irreps, matrix) for irreps in product.irreps)
        turned = there(output, product.compiled(here(first, x @ of_x.T), here(second, a @ of_a.T), w))
        assert np.abs(turned - before @ of_y.T).max() < 1e-10


def test_weights_of_each_row(path):
    product = Products(*irreps_of("fctp2_component"))
    first, second, _ = product.irreps
    random = np.random.default_rng(1)
    x, a = Tensor(random.normal(size=(4, first.dim))), Tensor(random.normal(size=(4, second.dim)))
    weights = random.normal(size=(4, product.cell.numel))
    together = product.compiled(x, a, Tensor(weights)).asnumpy()
    for k in range(4):
        alone = product.compiled(x[k : k + 1], a[k : k + 1], Tensor(weights[k])).asnumpy()
        assert np.abs(together[k] - alone[0]).max() < 1e-12


def test_several_copies_of_the_attributes(path):
    """(u v w) with v > 1 is the sum over the copies."""
    first, output = Irreps("3x0e+2x1o"), Irreps("2x0e+3x1o")
    whole, one = Products(first, Irreps("2x0e+2x1o"), output), Products(first, Irreps("1x0e+1x1o"), output)
    random = np.random.default_rng(2)
    x, a = random.normal(size=(5, first.dim)), random.normal(size=(5, 8))
    shapes = [(3, 2, 2), (3, 2, 3), (2, 2, 3), (2, 2, 2)]  # paths 0e 0e, 0e 1o, 1o 0e, 1o 1o
    pieces = [random.normal(size=shape) for shape in shapes]
    weights = Tensor(np.concatenate([piece.reshape(-1) for piece in pieces]))
    found = there(output, whole.compiled(here(first, x), here(whole.irreps[1], a), weights))
    parts = []
    for v in range(2):
        attributes = a[:, [v, 2 + 3 * v, 3 + 3 * v, 4 + 3 * v]]
        own = Tensor(np.concatenate([piece[:, v].reshape(-1) for piece in pieces]))
        parts.append(there(output, one.compiled(here(first, x), here(one.irreps[1], attributes), own)))
    assert np.abs(found - (parts[0] + parts[1]) / 2**0.5).max() < 1e-12


def test_third_derivatives(path):
    first, second, output = Irreps("2x0e+2x1o"), Irreps("1x0e+1x1o"), Irreps("2x0e+1x1o")
    product = Products(first, second, output)
    random = np.random.default_rng(3)
    sizes = [(3, first.dim), (3, second.dim), (product.cell.numel,)]
    point = [random.normal(size=size) for size in sizes]
    way = [random.normal(size=size) for size in sizes]

    def cubic(x, a, w):
        y = product(x, a, w)
        return (y * y * y).sum()

    first_order = ms.grad(cubic, (0, 1, 2))

    def along(function):
        def derivative(x, a, w):
            gradients = function(x, a, w)
            return (
                (gradients[0] * directions[0]).sum()
                + (gradients[1] * directions[1]).sum()
                + (gradients[2] * directions[2]).sum()
            )

        return derivative

    directions = [Tensor(one) for one in way]
    second_order = ms.grad(along(first_order), (0, 1, 2))
    orders = [ms.jit(cubic), ms.jit(along(first_order)), ms.jit(along(second_order)),
              ms.jit(along(ms.grad(along(second_order), (0, 1, 2))))]  # fmt: skip
    step = 1e-4
    ahead, behind = ([Tensor(p + sign * step * d) for p, d in zip(point, way, strict=True)] for sign in (1, -1))
    known = orders if path == "kernels" else orders[:-1]  # the third of the operators compiles for a minute
    for lower, higher in pairwise(known):
        slope = (float(lower(*ahead)) - float(lower(*behind))) / (2 * step)
        assert float(higher(*map(Tensor, point))) == pytest.approx(slope, rel=1e-5)


def test_outputs_that_nothing_couples_to():
    with pytest.raises(IrrepsError, match="1x1e"):
        Products(Irreps("4x0e"), Irreps("1x0e+1x1o"), Irreps("2x0e+1x1e"))
    with pytest.raises(IrrepsError, match="one copy"):
        coupling = coupling_of(Irreps("2x0e"), Irreps("2x0e"), Irreps("2x0e"))
        DepthwiseTensorProduct(
            Irreps("2x0e"), coupling, Irreps("0e"), "component", "element", False, ms.float64, ms.float64
        )
