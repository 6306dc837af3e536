"""Derivatives of an energy: forces, virials, Hessian-vector products and Hessians.

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
structure of the batch its own H v.  One-hot probes give rows, and replicas of a structure in one batch give as many
rows at once.

The unit is the model's: energies in eV with positions in Angstrom give eV/Angstrom, eV and eV/Angstrom^2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from data_tools.graph import GraphInputs
from models.graph_ops import gather, segment_sum

QUANTITIES = ("energy", "forces", "virial", "hessian_product")
PRODUCT = "hessian_product"
POSITIONS, RECEIVERS, SHIFTS, NODE_GRAPH, GRAPH_MASK = (
    GraphInputs._fields.index(name) for name in ("positions", "receivers", "shifts", "node_graph", "graph_mask")
)
EDGES_AT_ONCE = 16384  # or triplets; more replicas in one batch than fill the machine only cost memory


class DerivativeError(RuntimeError):
    """A derivative that cannot be computed here: one line with the reason and what to do."""


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
        if self.known or ms.get_context("mode") == ms.GRAPH_MODE:
            return super().__call__(*arguments)
        require_compilation()
        self.set_train(self.trains)
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


def observables(model: Callable[..., Any], wanted: Sequence[str]) -> Callable[..., Any]:
    """A function that returns what follows from an energy, for use inside a compiled function.

    Everything of first order comes from one gradient; what is not wanted is not computed.  All of it can be
    differentiated again.  Energies beside a derivative come out as the gradient of sum_g w_g E_g with respect to
    weights w of 1, and so are part of the same graph: the ``has_aux`` outputs of ``ms.value_and_grad`` pass no gradient
    on, without a word, and a second call of the model costs a second backward pass in a train step.

    Args:
        model: graph inputs to (G,) energies.
        wanted: names among ``QUANTITIES``.

    Returns:
        graph inputs, followed by a probe field v (N, 3) where ``hessian_product`` is wanted, to a tuple in the order of
        ``wanted``: ``energy`` (G,), ``forces`` (N, 3), ``virial`` (G, 3, 3) and ``hessian_product`` (N, 3), equations
        (1) to (3).  Ghosts have forces, virials and products of 0.

    Raises:
        DerivativeError: another name.
    """
    wanted = tuple(wanted)
    unknown = [name for name in wanted if name not in QUANTITIES]
    if unknown:
        raise DerivativeError(f"{unknown[0]}: expected one of {', '.join(QUANTITIES)}")
    if wanted == ("energy",):
        return lambda *inputs: (model(*inputs),)
    derive, product = _slopes(model), _product(model)
    with_product = PRODUCT in wanted

    def function(*arguments):
        inputs = arguments[:-1] if with_product else arguments
        energy, slope, slope_of_shifts = derive(*inputs)
        found: tuple = ()
        for name in wanted:
            if name == "energy":
                found = (*found, energy)
            elif name == "forces":
                found = (*found, -slope)
            elif name == "virial":
                found = (*found, _virial(inputs, slope, slope_of_shifts))
            else:
                found = (*found, product(*arguments))
        return found

    return function


def _slopes(model: Callable[..., Any]) -> Callable[..., Any]:
    """Graph inputs to energies (G,), dE/dr (N, 3) and dE/ds (E, 3)."""

    def weighted(*arguments):
        return (model(*arguments[:-1]) * arguments[-1]).sum()

    derive = ops.GradOperation(get_all=True)(weighted)

    def function(*inputs):
        mask = inputs[GRAPH_MASK]
        ones = ops.cast(mask >= 0, mask.dtype)  # not ones_like: a constant would get no gradient, without a word
        gradients = derive(*inputs, ones)
        return gradients[-1], gradients[POSITIONS], gradients[SHIFTS]

    return function


def _virial(inputs: tuple, slope: Tensor, slope_of_shifts: Tensor) -> Tensor:
    """Equation (2) from dE/dr (N, 3) and dE/ds (E, 3), (G, 3, 3)."""
    of_nodes, graphs = inputs[NODE_GRAPH], inputs[GRAPH_MASK]
    of_edges = gather(of_nodes, inputs[RECEIVERS])
    by_nodes = segment_sum(_outer(slope, inputs[POSITIONS]), of_nodes, graphs)
    by_edges = segment_sum(_outer(slope_of_shifts, inputs[SHIFTS]), of_edges, graphs)
    # what a ghost edge gives to the ghost graph is a rounded zero
    return -((by_nodes + by_edges) * graphs.reshape(-1, 1)).reshape(-1, 3, 3)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """The products left_a right_b of each row of two (K, 3) tensors, (K, 9)."""
    return (left.expand_dims(2) * right.expand_dims(1)).reshape(-1, 9)


def _product(model: Callable[..., Any]) -> Callable[..., Any]:
    """Graph inputs and a probe field (N, 3) to equation (3), (N, 3)."""
    derive = _slopes(model)

    def projected(*arguments):
        return (derive(*arguments[:-1])[1] * arguments[-1]).sum()

    return ms.grad(projected, POSITIONS)


class EnergyAndForces(Compiled):
    """Energies (G,) and forces (N, 3), equation (1); ghosts have force 0."""

    def __init__(self, model: nn.Cell):
        super().__init__(model, observables(model, ("energy", "forces")))


class HessianProduct(Compiled):
    """H v (N, 3) for graph inputs and a probe field v (N, 3), equation (3); one compilation for each shape."""

    def __init__(self, model: nn.Cell):
        super().__init__(model, _product(model))


def replicate(inputs: GraphInputs, copies: int) -> GraphInputs:
    """So many copies of a batch in one; the law of pairs holds, and each copy keeps its ghosts.

    Args:
        inputs: arrays of N nodes, E edges, T triplets, G graphs.
        copies: k.

    Returns:
        arrays of k N nodes and so on; node n of copy c is node c N + n.
    """
    nodes, graphs, half = len(inputs.numbers), len(inputs.graph_mask), len(inputs.senders) // 2
    copy = np.arange(copies)

    def edges(values: np.ndarray, offset: int) -> np.ndarray:
        """(E, ...) in two halves, each repeated; ``offset`` is added once a copy."""
        halves = values.reshape(2, 1, half, *values.shape[1:])
        steps = (copy * offset).reshape(1, copies, 1, *(1,) * (values.ndim - 1)).astype(values.dtype)
        return np.ascontiguousarray((halves + steps).reshape(-1, *values.shape[1:]))

    def others(values: np.ndarray, offset: int = 0) -> np.ndarray:
        steps = (copy * offset).reshape(copies, *(1,) * values.ndim).astype(values.dtype)
        return np.ascontiguousarray((values[None] + steps).reshape(-1, *values.shape[1:]))

    def triplets(values: np.ndarray) -> np.ndarray:
        """Edge e of copy c is edge c E/2 + e, its reverse e + E/2 stands in the second half."""
        shifted = values[None] + (copy * half).reshape(copies, 1) + np.where(values < half, 0, (copies - 1) * half)
        return shifted.reshape(-1).astype(values.dtype)

    return GraphInputs(
        numbers=others(inputs.numbers),
        positions=others(inputs.positions),
        senders=edges(inputs.senders, nodes),
        receivers=edges(inputs.receivers, nodes),
        shifts=edges(inputs.shifts, 0),
        triplet_in=triplets(inputs.triplet_in),
        triplet_out=triplets(inputs.triplet_out),
        node_graph=others(inputs.node_graph, graphs),
        node_mask=others(inputs.node_mask),
        graph_mask=others(inputs.graph_mask),
    )


def hessian(
    product: HessianProduct, inputs: GraphInputs, atoms: Sequence[int] | None = None, replicas: int = 0
) -> np.ndarray:
    """Rows of the Hessian of one structure, or of several structures in one batch beside each other.

    Args:
        product: of the model; called once for each chunk of probes, always at the same shape.
        inputs: arrays of one batch, the real atoms before the ghosts.
        atoms: whose rows; None means all N atoms.
        replicas: rows at once; 0 chooses as many as fill the machine.

    Returns:
        (K, 3, N, 3) for K atoms: d2E / dr_(i a) dr_(j b), of the inputs' dtype.
    """
    nodes, count = len(inputs.numbers), int(np.sum(inputs.node_mask > 0))
    rows = np.arange(count) if atoms is None else np.asarray(atoms, np.int64)
    if rows.size and not (0 <= rows.min() and rows.max() < count):
        raise DerivativeError(f"rows of atoms 0 to {count - 1} expected, got {rows.min()} to {rows.max()}")
    probes = [(atom, axis) for atom in rows for axis in range(3)]
    most = replicas or max(1, EDGES_AT_ONCE // max(1, len(inputs.senders), len(inputs.triplet_in)))
    calls = -(-len(probes) // most)
    at_once = -(-len(probes) // max(1, calls))
    fixed = tuple(Tensor(array) for array in replicate(inputs, at_once)) if calls else ()
    result = np.empty((len(probes), count, 3), inputs.positions.dtype)
    for start in range(0, len(probes), at_once or 1):
        chunk = probes[start : start + at_once]
        field = np.zeros((at_once, nodes, 3), inputs.positions.dtype)
        for copy, (atom, axis) in enumerate(chunk):
            field[copy, atom, axis] = 1.0
        rows_of_chunk = product(*fixed, Tensor(field.reshape(-1, 3))).asnumpy().reshape(at_once, nodes, 3)
        result[start : start + len(chunk)] = rows_of_chunk[: len(chunk), :count]
    return result.reshape(len(rows), 3, count, 3)
