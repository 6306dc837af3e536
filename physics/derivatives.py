"""Derivatives of an energy: forces, virials and Hessian-vector products.

The only gradients of gradients in the project.  MindSpore 2.10 computes them wrongly, without a word, where the inner
gradient runs eagerly: for f(x) = (sum x)^2 the product of its Hessian with v comes out as 0 instead of 2 sum(v).
Everything here is therefore compiled, in PYNATIVE mode too.

    (1)  F_i    = -dE/dr_i
    (2)  W_ab   = -dE/d eps_ab = -sum_i (dE/dr_i)_a (r_i)_b - sum_e (dE/ds_e)_a (s_e)_b
    (3)  (Hv)_i = d/dr_i sum_j (dE/dr_j) . v_j           exact, for the cost of a few gradients

W is the virial of a strain eps, which takes every vector x to (1 + eps) x; s_e are the shifts of the edges, which move
as the cell does.  Its sign is that of extended xyz: the stress is -W / volume, positive in tension.  No strain is an
argument of a model, and it is the same (2) whether a model reads the shifts of all edges or of one of each pair.  For a
molecule all shifts are 0 and W = sum_i F_i r_i; for a crystal it does not depend on the origin either.

E is a sum over graphs, so the Hessian of a batch is block diagonal: one product with a probe field v (N, 3) gives every
structure of the batch its own H v.  Whole Hessians are made of them in ``physics.hessian``.

A model of force constants themselves has no energy.  It has a method ``hessian_product`` of the graph inputs and v,
which takes the place of (3), so that all that is made of products asks ``observables`` for both kinds alike.

The unit is the model's: energies in eV with positions in Angstrom give eV/Angstrom, eV and eV/Angstrom^2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from data_tools.graph import GraphInputs
from models.graph_ops import segment_sum
from physics.flushed_denormals import Flushed

QUANTITIES = ("energy", "forces", "virial", "hessian_product")
PRODUCT = "hessian_product"
POSITIONS, RECEIVERS, SHIFTS, NODE_GRAPH, GRAPH_MASK = (
    GraphInputs._fields.index(name) for name in ("positions", "receivers", "shifts", "node_graph", "graph_mask")
)


class DerivativeError(RuntimeError):
    """A derivative that cannot be computed here: one line with the reason and what to do."""

    exit_code = 2


class Outermost(nn.Cell):
    """A cell that Python calls with tensors, at no more cost than it must: a graph that exists is only run.

    At every call MindSpore describes all arguments anew and tells every cell within which graph it is compiled into.
    Only a compilation needs that; it is most of what Python spends on the forces of a small molecule.

    A graph keeps the behaviour, of training or of evaluation, that the cells have when it is compiled, and MindSpore
    finds it again by shapes and types alone.  Cells that share a model differ in it, so that each sets its own before
    it compiles, and before every eager call.

    Attributes:
        trains: whether the cells behave as in training.
    """

    trains = False

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.known: dict[tuple, str] = {}

    def __call__(self, *arguments: Tensor) -> Any:
        """The graph's outputs; once something is compiled, no more is checked than shapes and types."""
        with Flushed():
            if self.known:
                return self.compile_and_run(*arguments)
            self.set_train(self.trains)
            return super().__call__(*arguments)

    def compile(self, *arguments: Tensor) -> None:
        """Compile for the shapes and types of the arguments, or find what was compiled for them."""
        kind = tuple((argument.shape, argument.dtype) for argument in arguments)
        if (self.phase, kind) in self.known:
            self.arguments_key = self.known[self.phase, kind]
        else:
            self.set_train(self.trains)
            super().compile(*arguments)
            self.known[self.phase, kind] = self.arguments_key


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
        if not self.known:
            require_compilation()
        if self.known or ms.get_context("mode") == ms.GRAPH_MODE:
            return super().__call__(*arguments)
        self.set_train(self.trains)
        with Flushed():
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


def has_energy(model: Callable[..., Any]) -> bool:
    """Whether a model gives energies, or else, by a method ``hessian_product``, force constants themselves."""
    return not hasattr(model, PRODUCT)


def observables(model: Callable[..., Any], wanted: Sequence[str]) -> Callable[..., Any]:
    """A function that returns what follows from an energy, for use inside a compiled function.

    Everything of first order comes from one gradient; what is not wanted is not computed.  All of it can be
    differentiated again.  Energies beside a derivative come out as the gradient of sum_g w_g E_g with respect to the
    weights w, which are the mask of the graphs, and so are part of the same graph: the ``has_aux`` outputs of
    ``ms.value_and_grad`` pass no gradient on, without a word, and a second call of the model costs a second backward
    pass in a train step.

    Args:
        model: graph inputs to (G,) energies; or one without energies, see ``has_energy``.
        wanted: names among ``QUANTITIES``.

    Returns:
        graph inputs, followed by a probe field v (N, 3) where ``hessian_product`` is wanted, to a tuple in the order of
        ``wanted``: ``energy`` (G,), ``forces`` (N, 3), ``virial`` (G, 3, 3) and ``hessian_product`` (N, 3), equations
        (1) to (3).  Ghosts have forces, virials and products of 0.

    Raises:
        DerivativeError: another name, or something else than products of a model without energies.
    """
    wanted = tuple(wanted)
    unknown = [name for name in wanted if name not in QUANTITIES]
    if unknown:
        raise DerivativeError(f"{unknown[0]}: expected one of {', '.join(QUANTITIES)}")
    if not has_energy(model):
        return _own_product(model, wanted)
    derive = _slopes_and_product(model, wanted) if PRODUCT in wanted else _slopes(model)

    def energy_alone(*inputs):
        return (model(*inputs),)

    def function(*arguments):
        energy, slope, slope_of_shifts, *product = derive(*arguments)
        found: tuple = ()
        for name in wanted:
            if name == "energy":
                found = (*found, energy)
            elif name == "forces":
                found = (*found, -slope)
            elif name == "virial":
                found = (*found, _virial(arguments, slope, slope_of_shifts))
            else:
                found = (*found, *product)
        return found

    return energy_alone if wanted == ("energy",) else function


def _own_product(model: Any, wanted: tuple[str, ...]) -> Callable[..., Any]:
    """Graph inputs and a probe field v to the product that a model without energies has itself.

    Raises:
        DerivativeError: something else is wanted.
    """
    if wanted != (PRODUCT,):
        raise DerivativeError(f"{', '.join(wanted)}: expected {PRODUCT} alone of a model of force constants themselves")

    def product_alone(*arguments):
        return (model.hessian_product(*arguments),)

    return product_alone


def _slopes(model: Callable[..., Any]) -> Callable[..., Any]:
    """Graph inputs to energies (G,), dE/dr (N, 3) and dE/ds (E, 3)."""

    def weighted(*arguments):
        return (model(*arguments[:-1]) * arguments[-1]).sum()

    derive = ops.GradOperation(get_all=True)(weighted)

    def function(*inputs):
        gradients = derive(*inputs, inputs[GRAPH_MASK])  # not ones: a constant would get no gradient, without a word
        return gradients[-1], gradients[POSITIONS], gradients[SHIFTS]

    return function


def _virial(inputs: tuple, slope: Tensor, slope_of_shifts: Tensor) -> Tensor:
    """Equation (2) from dE/dr (N, 3) and dE/ds (E, 3), (G, 3, 3)."""
    graphs = inputs[GRAPH_MASK]
    of_nodes = segment_sum(_outer(slope_of_shifts, inputs[SHIFTS]), inputs[RECEIVERS], slope)  # (N, 9)
    of_graphs = segment_sum(of_nodes + _outer(slope, inputs[POSITIONS]), inputs[NODE_GRAPH], graphs)  # (G, 9)
    # what a ghost edge gives to the ghost graph is a rounded zero
    return -(of_graphs * graphs.reshape(-1, 1)).reshape(-1, 3, 3)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """The products left_a right_b of each row of two (K, 3) tensors, (K, 9)."""
    return (left.expand_dims(2) * right.expand_dims(1)).reshape(-1, 9)


def _slopes_and_product(model: Callable[..., Any], wanted: Sequence[str]) -> Callable[..., Any]:
    """Graph inputs and a probe field v to what ``_slopes`` returns, as far as it is wanted, and equation (3).

    All of it is one gradient: of p = v . dE/dr + u . E + z . dE/ds at u = 0 and z = 0, dp/dr is the product and dp/dv,
    dp/du and dp/dz are the others.  A second gradient of the model beside the first would be computed twice, and
    MindSpore 2.10 does not differentiate the two together.
    """
    derive, with_energy, with_shifts = _slopes(model), "energy" in wanted, "virial" in wanted

    def projected(*arguments):
        energy, slope, slope_of_shifts = derive(*arguments[:-3])
        v, u, z = arguments[-3:]
        result = (slope * v).sum()
        if with_energy:
            result = result + (energy * u).sum()
        if with_shifts:
            result = result + (slope_of_shifts * z).sum()
        return result

    gradient = ops.GradOperation(get_all=True)(projected)

    def function(*arguments):
        mask, shifts = arguments[GRAPH_MASK], arguments[SHIFTS]
        u, z = ops.cast(mask < 0, mask.dtype), ops.cast(shifts * shifts < 0, shifts.dtype)  # zeros, but no constants
        gradients = gradient(*arguments, u, z)
        return gradients[-2], gradients[-3], gradients[-1], gradients[POSITIONS]

    return function


class EnergyAndForces(Compiled):
    """Energies (G,) and forces (N, 3), equation (1); ghosts have force 0."""

    def __init__(self, model: nn.Cell):
        super().__init__(model, observables(model, ("energy", "forces")))


class HessianProduct(Compiled):
    """H v (N, 3) for graph inputs and a probe field v (N, 3), equation (3); one compilation for each shape."""

    def __init__(self, model: nn.Cell):
        derive = observables(model, (PRODUCT,))

        def product(*arguments):
            return derive(*arguments)[0]

        super().__init__(model, product)
