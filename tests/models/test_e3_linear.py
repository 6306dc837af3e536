"""models/e3/linear.py: e3nn's numbers, weights and biases, and equivariance."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from e3_laws import GOLDEN, as_e3nn, assert_equivariant, here, random_parameters
from mindspore import Tensor

from models.e3.irreps import Irreps, IrrepsError
from models.e3.linear import Linear

KINDS = {"float64": (ms.float64, np.float64, 1e-12), "float32": (ms.float32, np.float32, 2e-6)}
#: equal irreps apart from each other, in another order in the output, and irreps that reach no output
SCATTERED = "2x1o+3x0e+1x2e+2x0e+2x1o+1x0o", "2x0e+3x1o+1x0e+2x1o"


def by_paths(layer, x):
    """e3nn's definition of the layer in NumPy and its layout."""
    irreps_in, irreps_out = layer.irreps_in, layer.irreps_out
    weight, start = layer.weight.asnumpy(), 0
    result = np.zeros((len(x), irreps_out.dim))
    for part, source in zip(irreps_in, irreps_in.slices(), strict=True):
        for other, target in zip(irreps_out, irreps_out.slices(), strict=True):
            if part.ir == other.ir:
                matrix = weight[start : start + part.mul * other.mul].reshape(part.mul, other.mul)
                start += matrix.size
                copies = x[:, source].reshape(-1, part.mul, part.ir.dim)
                mixed = np.einsum("uv,nui->nvi", matrix, copies) / irreps_in.count(part.ir) ** 0.5
                result[:, target] += mixed.reshape(len(x), -1)
    assert start == len(weight)
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["linear", "linear2"])
def test_numbers_of_e3nn(path, name, kind):
    dtype, numbers, tolerance = KINDS[kind]
    irreps_in, irreps_out = GOLDEN[f"{name}/irreps"].tolist()
    layer = Linear(irreps_in, irreps_out, name == "linear", True, dtype)
    layer.weight.set_data(Tensor(GOLDEN[f"{name}/w"].astype(numbers)))
    if layer.bias is not None:
        layer.bias.set_data(Tensor(GOLDEN[f"{name}/b"].astype(numbers)))
    found = layer(Tensor(here(irreps_in, GOLDEN[f"{name}/x"]).astype(numbers))).asnumpy()
    expected = GOLDEN[f"{name}/y"]
    assert found.dtype == numbers
    assert np.abs(as_e3nn(irreps_out, found) - expected).max() <= tolerance * np.abs(expected).max()


def test_parameters_of_e3nn():
    layer = Linear(*SCATTERED, True, True, ms.float32)
    assert [(one.name, one.shape) for one in layer.trainable_params()] == [("weight", (35,)), ("bias", (3,))]
    assert not layer.bias.asnumpy().any() and 0.5 < layer.weight.asnumpy().std() < 1.5
    assert [one.name for one in Linear("3x1o", "2x1o", True, True, ms.float32).trainable_params()] == ["weight"]


def test_equal_irreps_apart_from_each_other(path):
    layer = Linear(*SCATTERED, False, True, ms.float64)
    x = np.random.default_rng(1).normal(size=(5, Irreps(SCATTERED[0]).dim))
    found = as_e3nn(SCATTERED[1], layer(Tensor(here(SCATTERED[0], x))).asnumpy())
    np.testing.assert_allclose(found, by_paths(layer, x), rtol=0, atol=1e-14)


def test_rotation_and_inversion(path):
    layer = random_parameters(Linear(*SCATTERED, True, True, ms.float64))
    x = np.random.default_rng(2).normal(size=(5, Irreps(SCATTERED[0]).dim))
    assert_equivariant(layer, *SCATTERED, x)


def test_no_copy_changes_nothing():
    random = np.random.default_rng(3)
    layer, other = (
        Linear("2x0e+0x1o+1x2e", "0x1e+2x0e", True, True, ms.float64),
        Linear("2x0e+2e", "2x0e", True, True, ms.float64),
    )
    for parameter, copy in zip(layer.trainable_params(), other.trainable_params(), strict=True):
        copy.set_data(parameter)
    x = Tensor(random.normal(size=(3, 7)))
    np.testing.assert_array_equal(layer(x).asnumpy(), other(x).asnumpy())


@pytest.mark.parametrize("irreps_out, words", [("2x0e+1x1e", "no 1e in the input"), ("0x0e", "at least one irrep")])
def test_an_output_that_no_input_reaches(irreps_out, words):
    with pytest.raises(IrrepsError, match=words) as caught:
        Linear("2x0e+1x1o", irreps_out, True, True, ms.float32)
    assert "\n" not in str(caught.value)
