"""What a train step makes small, as data: a tuple of terms, and where each tensor of a step stands.

    loss = sum_k weight_k (1 / n_k) sum error_k(prediction_k - target_k)

The inner sum runs over the numbers of term k that are known: structures for energies, components for forces, stress
and products with Hessians.  n_k counts them in the whole batch, over all processes, so that the sums over the
processes are means over the batch however many structures each of them holds.

A control for models that are not equivariant: a term of products with Hessians Phi may have beside its error

    weight_k soft (1 / n_k) sum norm_error(Phi(R x) R v - R (Phi(x) v))

with another random rotation or reflection R of each structure x and its probe v in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from data_tools.graph import GraphBatch, GraphInputs, value_name
from models.graph_ops import gather
from physics.derivatives import observables
from training.losses import ERRORS, FREQUENCY, STRUCTURE_ERRORS, absolute_error, masked_sum, norm_error

#: quantity of a term: the observable that predicts it
OBSERVED = {"energy": "energy", "forces": "forces", "stress": "virial", "hessian_product": "hessian_product"}
ROTATIONS = "rotations"  # of each structure, (3, 3): with which it is compared with itself
VOLUME = "volume"  # of each structure, Angstrom^3: divides a virial
MASS_WEIGHT = "mass_weight"  # of each atom, without a unit: makes the mass-weighted product of a product
BESIDE = (VOLUME, MASS_WEIGHT, ROTATIONS)  # targets of a batch that no term predicts
OF_ATOMS = ("forces", "hessian_product")  # the other quantities are of structures
OF_OPTIMIZER = ("lr", "epsilon", "weight decay")


class Term(NamedTuple):
    """One summand of the loss.

    Attributes:
        quantity: what is compared, of ``OBSERVED``; its target in a batch has the same name.  ``energy`` is the value
            of a structure, whatever the target of the run is.  Of several tasks each term is one output, and its name
            ``value_name`` of its number.
        weight: of the mean error.
        error: one of ``losses.LOSSES``.
        equivariance: ``soft`` above, of a ``hessian_product``; 0: no structure is rotated.
    """

    quantity: str
    weight: float = 1.0
    error: str = "mse"
    equivariance: float = 0.0


class Layout:
    """Where each tensor of a step stands in its arguments; nothing else knows a position.

    The ten graph inputs, the probe field where a term needs one, the rotations, the volumes and the weights of atoms
    where a term needs them, the values and the mask of each term, the count of each term, the loss scale, and lr',
    eps', wd' of the optimiser.

    Args:
        terms: of the objective, each quantity once.

    Attributes:
        terms: of the objective.
        place: name of a tensor to its position: ``forces``, ``forces mask``, ``forces count``, ``loss scale``, ...
        of_model: how many tensors, the first, the observables are computed from.
        of_loss: how many tensors, the first, loss and gradient are computed from.

    Raises:
        ValueError: no terms, one that is not in the table, or one twice.
    """

    def __init__(self, terms: Sequence[Term]):
        self.terms = tuple(terms)
        quantities = [term.quantity for term in self.terms]
        if (
            not quantities
            or len(set(quantities)) < len(quantities)
            or (set(quantities) - set(OBSERVED) and not of_outputs(self.terms))
        ):
            raise ValueError(f"terms {quantities}: expected some of {', '.join(OBSERVED)}, each once")
        probes = ["probes"] if "hessian_product" in quantities else []
        rotations = [ROTATIONS] if any(term.equivariance for term in self.terms) else []
        volumes = [VOLUME] if "stress" in quantities else []
        weights = [MASS_WEIGHT] if any(term.error == FREQUENCY for term in self.terms) else []
        values = [name for quantity in quantities for name in (quantity, f"{quantity} mask")]
        counts = [f"{quantity} count" for quantity in quantities]
        beside = [*probes, *rotations, *volumes, *weights]
        names = [*GraphInputs._fields, *beside, *values, *counts, "loss scale", *OF_OPTIMIZER]
        self.place = {name: position for position, name in enumerate(names)}
        self.of_model = len(GraphInputs._fields) + len(probes)
        self.of_loss = len(names) - len(OF_OPTIMIZER)

    def arguments(
        self, batch: GraphBatch, known: Mapping[str, int], scale: float, scalars: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """The arguments of a step.

        Args:
            batch: this process's part, with a target for each term.
            known: how many numbers of each target the whole batch has.
            scale: the loss scale.
            scalars: lr', eps' and wd' of the optimiser.
        """
        arrays: dict[str, Any] = dict(zip(GraphInputs._fields, batch.inputs, strict=True))
        arrays |= {"probes": batch.probes, **{name: batch.targets.get(name) for name in BESIDE}}
        for quantity, *_ in self.terms:
            arrays[quantity], arrays[f"{quantity} mask"] = batch.targets[quantity], batch.masks[quantity]
            arrays[f"{quantity} count"] = _number(max(1, known[quantity]))  # a batch without labels has no divisor
        arrays["loss scale"] = _number(scale)
        arrays |= {name: _number(value) for name, value in zip(OF_OPTIMIZER, scalars, strict=True)}
        return tuple(Tensor.from_numpy(arrays[name]) for name in self.place)


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def loss_of(model: Callable[..., Any], layout: Layout, dtype: mstype.Type) -> Callable[..., Any]:
    """The loss of a model, for use inside a compiled function.

    Args:
        model: graph inputs to (G,) values.
        layout: of the arguments.
        dtype: of the model.

    Returns:
        the first ``layout.of_loss`` arguments of a step to the scaled loss, and to a vector (1 + terms,) of the loss
        and the mean absolute error of each term.
    """
    terms, place, of_model = layout.terms, layout.place, layout.of_model
    widths = getattr(model, "log_widths", None)
    if of_outputs(terms):
        observe = _outputs(model, len(terms))
    else:
        observe = observables(model, [OBSERVED[term.quantity] for term in terms])
    compared = tuple(_comparison(term, place, dtype) for term in terms)
    scale = place["loss scale"]

    has_soft = ROTATIONS in place
    soft: Callable[..., Any] = _soft_equivariance(observe, layout, dtype) if has_soft else _as_it_is
    weighted = _learned_weight(model, terms, place) if of_outputs(terms) and widths is not None else _as_it_is

    def forward(*arguments):
        found = observe(*arguments[:of_model])
        loss, error = compared[0](found[0], arguments)
        loss = weighted(0, loss, arguments)
        errors: tuple = (error,)
        for k in range(1, len(compared)):
            more, error = compared[k](found[k], arguments)
            loss = loss + weighted(k, more, arguments)
            errors = (*errors, error)
        if has_soft:
            loss = loss + soft(found, arguments)
        return loss * arguments[scale], ops.stack((loss, *errors))

    return forward


def _as_it_is(k, loss, arguments):
    return loss


def _soft_equivariance(observe: Callable[..., Any], layout: Layout, dtype: mstype.Type) -> Callable[..., Any]:
    """What is observed and the arguments of a step to how far products of rotated structures are from rotated ones."""
    place, of_model = layout.place, layout.of_model
    k = next(k for k, term in enumerate(layout.terms) if term.equivariance)
    term = layout.terms[k]
    mask, count = place[f"{term.quantity} mask"], place[f"{term.quantity} count"]
    positions, shifts, probes = place["positions"], place["shifts"], place["probes"]
    owner, receivers, graphs = place["node_graph"], place["receivers"], place["graph_mask"]
    weight, unit = Tensor(term.weight * term.equivariance, dtype), Tensor(np.eye(3).reshape(1, 9), dtype)

    def penalty(found, arguments):
        known = arguments[graphs].reshape(-1, 1)
        of_graphs = arguments[place[ROTATIONS]].reshape(-1, 9) + (1 - known) * unit  # ghosts stay where they are
        of_nodes = gather(of_graphs, arguments[owner])  # (N, 9)
        of_edges = gather(of_nodes, arguments[receivers])  # (E, 9)
        inputs: tuple = ()
        for at in range(of_model):
            one = arguments[at]
            if at in (positions, probes):
                one = _rotated(of_nodes, one)
            elif at == shifts:
                one = _rotated(of_edges, one)
            inputs = (*inputs, one)
        again = observe(*inputs)[k]
        counted = arguments[mask]
        difference = norm_error(again * counted, _rotated(of_nodes, found[k]) * counted)
        return weight * masked_sum(difference, counted) / arguments[count]

    return penalty


def _rotated(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(K, 9) matrices times (K, 3) vectors."""
    return (matrices.reshape(-1, 3, 3) * vectors.reshape(-1, 1, 3)).sum(-1)


def _learned_weight(model: Any, terms: Sequence[Term], place: Mapping[str, int]) -> Callable[..., Any]:
    """Number and loss L of a term, and the arguments of a step, to L / w + log w with the learned width w.

    Of the logarithm this process has the share that it has of the labels of the batch; a term without labels has none.
    """
    masks = tuple(place[f"{term.quantity} mask"] for term in terms)
    counts = tuple(place[f"{term.quantity} count"] for term in terms)

    def weighted(k, loss, arguments):
        mask, log_width = arguments[masks[k]], model.log_widths[k]
        share = masked_sum(mask, mask) / arguments[counts[k]]
        return ops.exp(-log_width) * loss + share * log_width

    return weighted


def of_outputs(terms: Sequence[Term]) -> bool:
    """Whether the terms are the outputs of one network, in their order."""
    return [term.quantity for term in terms] == [value_name(k) for k in range(len(terms))]


def _outputs(model: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The columns of what a model says, (G,) each."""

    def columns(*inputs):
        values = model(*inputs)  # (G, C)
        found: tuple = ()
        for k in range(count):
            found = (*found, values[:, k])
        return found

    return columns


def _comparison(term: Term, place: Mapping[str, int], dtype: mstype.Type) -> Callable[..., Any]:
    """What a term observes and the arguments of a step to its share of the loss and its mean absolute error."""
    value, mask, count = (place[f"{term.quantity}{part}"] for part in ("", " mask", " count"))
    error, volume = _error_of(term, place), place.get(VOLUME, 0)
    is_stress = term.quantity == "stress"
    weight = Tensor(term.weight, dtype)  # a Python float is rounded to float32 even beside float64 tensors

    def compare(prediction, arguments):
        if is_stress:
            prediction = stress_of(prediction, arguments[volume])
        label, counted, known = arguments[value], arguments[mask], arguments[count]
        prediction = prediction * counted  # as the label, 0 where it is not known: no part of the length of a vector
        loss = masked_sum(error(prediction, label, counted, arguments), counted) / known
        return weight * loss, masked_sum(absolute_error(prediction, label), counted) / known

    return compare


def _error_of(term: Term, place: Mapping[str, int]) -> Callable[..., Any]:
    """Prediction, label, what is counted, and the arguments of a step, to the error of each number."""
    if term.error in ERRORS:
        alone = ERRORS[term.error]

        def error(prediction, label, counted, arguments):
            return alone(prediction, label)
    elif term.error in STRUCTURE_ERRORS:
        of_structures, of_atoms = STRUCTURE_ERRORS[term.error], term.quantity in OF_ATOMS
        owner, graphs = place["node_graph"], place["graph_mask"]

        def error(prediction, label, counted, arguments):
            owners = (arguments[owner], arguments[graphs]) if of_atoms else ()
            return of_structures(prediction, label, counted, owners)
    else:
        weight = place[MASS_WEIGHT]

        def error(prediction, label, counted, arguments):
            return norm_error(prediction * arguments[weight], label * arguments[weight])

    return error


def stress_of(virial: Tensor, volume: Tensor) -> Tensor:
    """Stress -W / V (G, 3, 3), positive in tension; what has no volume, as molecules and ghosts, is divided by 1."""
    positive = volume > 0
    return -virial / ops.select(positive, volume, ops.OnesLike()(volume)).reshape(-1, 1, 1)
