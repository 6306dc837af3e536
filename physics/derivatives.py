"""Derivatives of an energy with respect to positions: forces and Hessian-vector products.

The only gradients of gradients in the project.  MindSpore 2.10 computes them wrongly, without a word, where the inner
gradient runs eagerly: for f(x) = (sum x)^2 the product of its Hessian with v comes out as 0 instead of 2 sum(v).
Everything here is therefore compiled, in PYNATIVE mode too.

    (1)  F_i    = -dE/dr_i
    (2)  (Hv)_i = d/dr_i sum_j (dE/dr_j) . v_j           exact, for the cost of a few gradients

E is a sum over graphs, so the Hessian of a batch is block diagonal: one product with a probe field v (N, 3) gives every
structure of the batch its own H v.  Whole Hessians are made of them in ``physics.hessian``.

The unit is the model's: energies in eV with positions in Angstrom give eV/Angstrom and eV/Angstrom^2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from data_tools.graph import GraphInputs

POSITIONS, GRAPH_MASK = GraphInputs._fields.index("positions"), GraphInputs._fields.index("graph_mask")


class DerivativeError(RuntimeError):
    """A derivative that cannot be computed here: one line with the reason and what to do."""


class Outermost(nn.Cell):
    """A cell that Python calls with tensors, at no more cost than it must: a graph that exists is only run.

    At every call MindSpore describes all arguments anew and tells every cell within which graph it is compiled into.
    Only a compilation needs that; it is most of what Python spends on the forces of a small molecule.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.known: dict[tuple, str] = {}

    def __call__(self, *arguments: Tensor) -> Any:
        """The graph's outputs; once something is compiled, no more is checked than shapes and types."""
        return self.compile_and_run(*arguments) if self.known else super().__call__(*arguments)

    def compile(self, *arguments: Tensor) -> None:
        """Compile for the shapes and types of the arguments, or find what was compiled for them."""
        kind = (self.phase, *[(argument.shape, argument.dtype) for argument in arguments])
        if kind in self.known:
            self.arguments_key = self.known[kind]
        else:
            super().compile(*arguments)
            self.known[kind] = self.arguments_key


class Compiled(Outermost):
    """A function of tensors that is compiled in either mode, also as part of a larger graph.

    Args:
        model: whose parameters the function uses.
        function: tensors to tensors.
    """

    def __init__(self, model: nn.Cell, function: Callable[..., Any]):
        super().__init__()
        self.model = model
        self.function = function
        self.alone = ms.jit(function)

    def __call__(self, *arguments: Tensor) -> Any:
        """The function of the arguments.

        Raises:
            DerivativeError: compilation is switched off.
        """
        if self.known or ms.get_context("mode") == ms.GRAPH_MODE:
            return super().__call__(*arguments)
        require_compilation()
        return self.alone(*arguments)

    def construct(self, *arguments):
        """The function, as part of a graph."""
        return self.function(*arguments)


def require_compilation() -> None:
    """Make sure that compiled functions will be compiled.

    Raises:
        DerivativeError: MS_JIT=0 in the environment makes them eager.
    """
    if os.environ.get("MS_JIT") == "0":
        raise DerivativeError("MS_JIT=0 switches compilation off, and eager derivatives of forces are wrong: unset it")


def with_slope(model: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns energies and dE/dr, for use inside a compiled function.

    The energies come out as the gradient of sum_g w_g E_g with respect to weights w of 1.  They then are part of the
    same graph as dE/dr and can themselves be differentiated: the ``has_aux`` outputs of ``ms.value_and_grad`` pass no
    gradient on, without a word, and a second call of the model costs a second backward pass in a train step.

    Args:
        model: graph inputs to (G,) energies.

    Returns:
        graph inputs to (energies (G,), slope (N, 3)).
    """

    def weighted(*arguments):
        return (model(*arguments[:-1]) * arguments[-1]).sum()

    derive = ops.GradOperation(get_all=True)(weighted)

    def function(*inputs):
        mask = inputs[GRAPH_MASK]
        ones = ops.cast(mask >= 0, mask.dtype)  # not ones_like: a constant would get no gradient, without a word
        gradients = derive(*inputs, ones)
        return gradients[-1], gradients[POSITIONS]

    return function


class EnergyAndForces(Compiled):
    """Energies (G,) and forces (N, 3), equation (1); ghosts have force 0."""

    def __init__(self, model: nn.Cell):
        derive = with_slope(model)

        def function(*inputs):
            energies, slope = derive(*inputs)
            return energies, -slope

        super().__init__(model, function)


class HessianProduct(Compiled):
    """H v (N, 3) for graph inputs and a probe field v (N, 3), equation (2); one compilation for each shape."""

    def __init__(self, model: nn.Cell):
        derive = with_slope(model)

        def projected(*arguments):
            return (derive(*arguments[:-1])[1] * arguments[-1]).sum()

        super().__init__(model, ms.grad(projected, POSITIONS))
