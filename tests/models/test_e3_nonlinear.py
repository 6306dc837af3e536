"""models/e3/nonlinear.py and scalar_functions.py: e3nn's numbers, parities, equivariance and derivatives."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from e3_laws import GOLDEN, as_e3nn, assert_equivariant, assert_three_orders, here, random_parameters
from mindspore import Tensor, nn

from models.e3.irreps import Irreps, IrrepsError
from models.e3.linear import Linear
from models.e3.nonlinear import Activation, Gate
from models.e3.scalar_functions import FUNCTIONS

#: the arguments of a gate, and e3nn's irreps of its input and output
GATES = {
    "gate": ("16x0e", ["silu"], "8x0e", ["sigmoid"], "4x1o+4x2e"),
    "gate2": ("8x0e+8x0o", ["silu", "tanh"], "4x0e+4x0o", ["sigmoid", "tanh"], "4x1o+4x2e"),
}
#: gated irreps that the sorted input puts together, and gates that part an irrep
SCATTERED = ("2x0e+1x0o", ["silu", "abs"], "3x0e+3x0o", ["sigmoid", "tanh"], "2x1o+1x2e+3x1o")
CLOSED = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "ssp": lambda x: np.log(np.exp(x) / 2 + 0.5),
    "abs": np.abs,
    "smooth_leaky_relu": lambda x: 0.6 * x + 0.4 * x * (2 / (1 + np.exp(-x)) - 1),
}


def test_constants_of_e3nn():
    known = {key.split("/")[1]: float(GOLDEN[key]) for key in GOLDEN.files if key.startswith("normalize2mom/")}
    known["smooth_leaky_relu"] = known.pop("smooth_leaky_relu_0.2")
    assert {name: function.constant for name, function in FUNCTIONS.items()} == known


@pytest.mark.parametrize("dtype, numbers, tolerance", [(ms.float64, np.float64, 1e-14), (ms.float32, np.float32, 2e-6)])
def test_functions(path, dtype, numbers, tolerance):
    x = np.linspace(-9, 9, 73).astype(numbers).reshape(-1, 1)
    for name, function in FUNCTIONS.items():
        if (path, name, numbers) == ("operators", "tanh", np.float32):
            continue  # MindSpore's operator on a CPU is off by 1e-4; that path is not for a CPU
        found = Activation("0e", [name], dtype)(Tensor(x)).asnumpy()
        expected = function.constant * CLOSED[name](x.astype(np.float64))
        assert found.dtype == numbers
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max(), name
        mirrored = CLOSED[name](-x.astype(np.float64)) * function.parity
        assert np.allclose(mirrored, CLOSED[name](x.astype(np.float64))) == bool(function.parity)


@pytest.mark.parametrize("name", GATES)
def test_numbers_of_e3nn(path, name):
    gate = Gate(*GATES[name], False, ms.float64)
    assert (str(gate.irreps_in), str(gate.irreps_out)) == tuple(GOLDEN[f"{name}/irreps"])
    found = gate(Tensor(here(gate.irreps_in, GOLDEN[f"{name}/x"]))).asnumpy()
    assert np.abs(as_e3nn(gate.irreps_out, found) - GOLDEN[f"{name}/y"]).max() <= 1e-13
    single = Gate(*GATES[name], False, ms.float32)
    found = single(Tensor(here(gate.irreps_in, GOLDEN[f"{name}/x"]).astype(np.float32))).asnumpy()
    assert np.abs(as_e3nn(gate.irreps_out, found) - GOLDEN[f"{name}/y"]).max() <= 1e-5


def test_equal_irreps_apart_from_each_other(path):
    """e3nn: the sorted input has the scalars before the gates, and the first copies of an irrep first."""
    gate = Gate(*SCATTERED, False, ms.float64)
    assert str(gate.irreps_in) == "4x0o+5x0e+5x1o+1x2e"
    assert str(gate.irreps_out) == "2x0e+1x0e+2x1o+1x2e+3x1e"
    x = np.random.default_rng(0).normal(size=(4, gate.irreps_in.dim))
    odd, even, vectors, others = np.split(x, np.cumsum([4, 5, 15]), axis=1)
    factors = [FUNCTIONS["sigmoid"].constant * CLOSED["sigmoid"](even[:, 2:]), 1.5937334472592695 * np.tanh(odd[:, 1:])]
    gates, vectors = np.concatenate(factors, 1)[:, :, None], vectors.reshape(4, 5, 3)
    expected = [
        FUNCTIONS["silu"].constant * CLOSED["silu"](even[:, :2]),
        FUNCTIONS["abs"].constant * np.abs(odd[:, :1]),
        (gates[:, :2] * vectors[:, :2]).reshape(4, -1),
        gates[:, 2] * others,
        (gates[:, 3:] * vectors[:, 2:]).reshape(4, -1),
    ]
    found = as_e3nn(gate.irreps_out, gate(Tensor(here(gate.irreps_in, x))).asnumpy())
    np.testing.assert_allclose(found, np.concatenate(expected, 1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("arguments", [*GATES.values(), SCATTERED], ids=[*GATES, "scattered"])
def test_rotation_and_inversion(path, arguments):
    gate = Gate(*arguments, False, ms.float64)
    x = np.random.default_rng(1).normal(size=(5, gate.irreps_in.dim))
    assert_equivariant(gate, gate.irreps_in, gate.irreps_out, x)


def test_activations_of_several_irreps():
    irreps, functions = "2x0e+3x0o+2x1o+1x0o", ["tanh", "abs", None, "tanh"]
    layer = Activation(irreps, functions, ms.float64)
    assert str(layer.irreps_out) == "2x0e+3x0e+2x1o+1x0o"
    x = np.random.default_rng(2).normal(size=(5, 12))
    assert_equivariant(layer, irreps, layer.irreps_out, x)
    moved = layer(Tensor(x)).asnumpy()
    np.testing.assert_array_equal(moved[:, 5:11], x[:, 5:11])
    np.testing.assert_allclose(moved[:, 2:5], FUNCTIONS["abs"].constant * np.abs(x[:, 2:5]))


def test_gates_without_scalars_and_scalars_without_gates():
    x = np.random.default_rng(3).normal(size=(4, 8))
    gate = Gate("", [], "2x0e", ["sigmoid"], "2x1o", False, ms.float64)
    expected = x[:, 2:] * np.tile(FUNCTIONS["sigmoid"].constant * CLOSED["sigmoid"](x[:, :2]), 3)
    np.testing.assert_allclose(gate(Tensor(x)).asnumpy(), expected, rtol=1e-14)
    scalars = Gate("8x0e", ["silu"], "", [], "", False, ms.float64)
    expected = FUNCTIONS["silu"].constant * CLOSED["silu"](x)
    np.testing.assert_allclose(scalars(Tensor(x)).asnumpy(), expected, rtol=1e-14)
    assert scalars.irreps_out == Irreps("8x0e")


def test_derivatives_to_third_order(path, graph_mode):
    """Of a linear layer with a gate, in the features and in the weights; at features of zero too."""
    gate = Gate("1x0e", ["smooth_leaky_relu"], "1x0e+1x0o", ["sigmoid", "tanh"], "2x1o", False, ms.float64)
    layer = random_parameters(Linear("1x0o+1x0e+2x1o", gate.irreps_in, True, True, ms.float64))
    x = np.random.default_rng(4).normal(size=(3, layer.irreps_in.dim))
    gradients = assert_three_orders(nn.SequentialCell(layer, gate), x, finite_at=0 * x)
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    "irreps, functions, words",
    [
        ("2x0o", ["silu"], "silu of 0o: expected an even or odd function"),
        ("2x0e+1x1o", ["silu", "silu"], "silu of 1o: expected a scalar"),
        ("2x0e", ["gelu"], "'gelu': expected one of silu, sigmoid"),
        ("2x0e+1x1o", ["silu"], "expected 2, one for each irrep of 2x0e[+]1x1o"),
    ],
)
def test_activations_that_do_not_fit(irreps, functions, words):
    with pytest.raises(IrrepsError, match=words) as caught:
        Activation(irreps, functions, ms.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("2x0e", ["silu"], "1x0e", ["sigmoid"], "2x1o"), "one scalar for each of the 2 copies of 2x1o, got 1x0e"),
        (("1x1o", [None], "1x0e", ["sigmoid"], "1x1o"), "expected scalars, 0e or 0o, before"),
        (("2x0e", ["silu"], "1x0o", ["sigmoid"], "1x1o"), "sigmoid of 0o: expected an even or odd function"),
    ],
)
def test_gates_that_do_not_fit(arguments, words):
    with pytest.raises(IrrepsError, match=words):
        Gate(*arguments, False, ms.float32)
