"""Networks that differ in their weights alone: one is compiled, with the weights of one model after the other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from mindspore import Tensor, nn

from physics.calculator import COMPILED
from physics.derivatives import Compiled


class NetworkInTurn:
    """A network that several models compute with in turn.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Cell):
        self.parameters = _parameters(model)
        self.weights: Mapping[str, Tensor] = {}

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Have the weights of a model, by the names of the parameters; those of before need not be put in again."""
        if weights is not self.weights:
            for name, parameter in self.parameters.items():
                parameter.set_data(weights[name])
            self.weights = weights


class InTurn:
    """A compiled function of such a network, with the weights of one model.

    Args:
        function: of the network.
        network: that network.
        weights: of the model.

    Attributes:
        model: the network, whose weights may be those of another model between two calls.
    """

    def __init__(self, function: Compiled, network: NetworkInTurn, weights: Mapping[str, Tensor]):
        self.function, self.network, self.weights, self.model = function, network, weights, function.model

    def __call__(self, *arguments: Tensor) -> Any:
        """What the function gives."""
        self.network.take(self.weights)
        return self.function(*arguments)


def compile_once(calculators: Sequence[Any], kinds: Sequence[Hashable]) -> None:
    """Let calculators whose networks differ in their weights alone compute with what is compiled for one of them.

    Three potentials of two kinds are compiled twice instead of three times.  The weights change place in 0.2 ms.

    Args:
        calculators: K of ``physics.calculator``, or what else has compiled functions of these names.
        kinds: (K) equal where the networks are alike.
    """
    groups: dict[Hashable, list[Any]] = {}
    for calculator, kind in zip(calculators, kinds, strict=True):
        groups.setdefault(kind, []).append(calculator)
    for group in groups.values():
        if len(group) > 1:
            _share(group)


def _share(calculators: Sequence[Any]) -> None:
    functions = {name: value for name, value in vars(calculators[0]).items() if name in COMPILED}
    weights = [
        {name: Tensor(one.asnumpy().copy()) for name, one in _parameters(calculator.product.model).items()}
        for calculator in calculators
    ]
    network = NetworkInTurn(calculators[0].product.model)
    for calculator, own in zip(calculators, weights, strict=True):
        for name, function in functions.items():
            setattr(calculator, name, InTurn(function, network, own))


def _parameters(model: nn.Cell) -> dict[str, Any]:
    """Weights and buffers, by name."""
    return {parameter.name: parameter for parameter in model.get_parameters()}
