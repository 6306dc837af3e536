"""One compiled train step and one compiled evaluation step.

The batch enters as separate tensors, because a tuple as one argument would be compiled anew at every call.  In GRAPH
mode the whole step is one graph.  In PYNATIVE mode loss and gradients are one compiled function and the optimiser runs
eagerly; ``MS_JIT=0`` in the environment makes everything eager, to step through it with a debugger, except a loss on
forces, whose gradient would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from data_tools.graph import GraphBatch, GraphInputs
from physics.derivatives import EnergyAndForces, Outermost, require_compilation, with_slope
from training.distributed import SumOverRanks
from training.losses import ERRORS, absolute_error, masked_sum
from training.optimizer import AdamW, flatten
from training.running_values import RunningValues, running_means


class Objective(NamedTuple):
    """What a train step makes small.

        loss = energy_weight mean_molecules error(y - y0) + force_weight mean_components error(F - F0)

    Attributes:
        loss: the error, one of ``losses.LOSSES``.
        energy_weight: of the energies; without forces it would only scale the loss, and is not used.
        force_weight: of the forces; 0 means that nothing but the labels of molecules is learned.
    """

    loss: str
    energy_weight: float = 1.0
    force_weight: float = 0.0


class TrainStep(Outermost):
    """Forward, loss, gradients and update.

    Each process passes its part of a batch and the number of molecules in the whole batch, so that the sums over all
    processes are the means over the molecules of the batch, however many each process holds.

    A step whose loss or gradient is not finite changes nothing.  Without a loss scale neither does any step after it:
    the state stays that of the last good step until the host has noticed.

    Args:
        model: graph inputs to (G,) values.
        optimizer: updates the model's weights.
        objective: the loss.
        ranks: number of processes.
        goes_on: whether steps after one that is not finite are made; the host must then watch every step.
    """

    trains = True

    def __init__(self, model: nn.Cell, optimizer: AdamW, objective: Objective, ranks: int = 1, goes_on: bool = False):
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.goes_on = goes_on
        self.intact = Parameter(Tensor(1.0, mstype.float32), name="intact", requires_grad=False)
        dtype = optimizer.weights[0].dtype
        forward = _with_forces(model, objective, dtype) if objective.force_weight else _without_forces(model, objective)
        value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)
        sum_over_ranks = SumOverRanks(ranks)
        running = RunningValues(model, dtype, ranks) if running_means(model) else None
        self.running, self.observed = running, running.size if running else 0

        def gradient_loss_errors(*arguments):
            (_, results), gradients = value_and_gradients(*arguments)
            gradient = flatten(gradients) * ops.reciprocal(arguments[-1])  # (K,)
            parts = (gradient, results) if running is None else (gradient, results, running.observed(results))
            return sum_over_ranks(ops.concat(parts, 0))  # (K + 1 + errors + P,)

        self.compiled_whole = ms.get_context("mode") == ms.GRAPH_MODE
        if objective.force_weight and not self.compiled_whole:
            require_compilation()
        self.gradient_loss_errors = gradient_loss_errors if self.compiled_whole else ms.jit(gradient_loss_errors)
        self.weights = sum(weight.size for weight in optimizer.weights)

    def construct(self, *arguments):
        """One update.

        Args:
            arguments: as ``step_arguments`` makes them.

        Returns:
            loss, mean absolute errors (1,) or (2,) of energies and forces, and 1 if the step was made, 0 if it changed
            nothing.
        """
        vector = self.gradient_loss_errors(*arguments[:-3])
        finite = ops.isfinite(ops.abs(vector).sum()).astype(mstype.float32)
        if not self.goes_on:
            finite = finite * self.intact
            finite = ops.depend(finite, ops.assign(self.intact, finite))
        end = vector.shape[0] - self.observed
        done = self.optimizer(vector[: self.weights], finite, arguments[-3], arguments[-2], arguments[-1])
        if self.running is not None:
            done = (done, self.running(vector[end:], finite))
        return ops.depend(vector[self.weights], done), vector[self.weights + 1 : end], finite


def _without_forces(model: nn.Cell, objective: Objective) -> Callable[..., Any]:
    """Arguments to the scaled loss and to (loss, absolute error)."""
    error = ERRORS[objective.loss]

    def forward(*arguments):
        labels, mask, count, scale = arguments[-4:]
        prediction = model(*arguments[:-4])  # (G,)
        loss = masked_sum(error(prediction, labels), mask) / count
        absolute = masked_sum(absolute_error(prediction, labels), mask) / count
        return loss * scale, ops.stack((loss, absolute))

    return forward


def _with_forces(model: nn.Cell, objective: Objective, dtype: mstype.Type) -> Callable[..., Any]:
    """Arguments to the scaled loss and to (loss, absolute error of energies, absolute error of force components)."""
    error = ERRORS[objective.loss]
    # tensors, because a Python float is rounded to float32 even beside float64 tensors
    energy_weight, force_weight = Tensor(objective.energy_weight, dtype), Tensor(objective.force_weight, dtype)
    derive = with_slope(model)

    def forward(*arguments):
        labels, mask, forces, force_mask, count, components, scale = arguments[-7:]
        prediction, slope = derive(*arguments[:-7])  # (G,), (N, 3)
        energy_loss = masked_sum(error(prediction, labels), mask) / count
        force_loss = masked_sum(error(-slope, forces), force_mask) / components
        loss = energy_weight * energy_loss + force_weight * force_loss
        absolute = masked_sum(absolute_error(prediction, labels), mask) / count
        absolute_forces = masked_sum(absolute_error(-slope, forces), force_mask) / components
        return loss * scale, ops.stack((loss, absolute, absolute_forces))

    return forward


def step_arguments(
    batch: GraphBatch, known: Mapping[str, int], scale: float, scalars: Sequence[float]
) -> tuple[Tensor, ...]:
    """What ``TrainStep`` takes: graph inputs; values and mask of each target; their counts, loss scale, lr', eps', wd'.

    Args:
        batch: this process's part, with the target ``energy`` (G,) and, for a loss on forces, ``forces`` (N, 3).
        known: how many numbers of each target the whole batch has.
        scale: the loss scale.
        scalars: lr', eps' and wd' of the optimiser.
    """
    targets = [Tensor.from_numpy(part[name]) for name in batch.targets for part in (batch.targets, batch.masks)]
    counts = [max(1, known[name]) for name in batch.targets]  # frames without forces have none to divide by
    numbers = (Tensor.from_numpy(np.array(value, np.float32)) for value in (*counts, scale, *scalars))
    return (*to_tensors(batch.inputs), *targets, *numbers)


class EvaluationStep(Outermost):
    """Outputs (G,) and embeddings (G, F) of a batch; with ``forces`` also the forces (N, 3), after the outputs."""

    def __init__(self, model: nn.Cell, forces: bool = False):
        super().__init__()
        self.model = model
        self.derive = EnergyAndForces(model) if forces else None

    def construct(self, *inputs):
        """Graph inputs to output, forces where they are asked for, and embedding."""
        output, embedding = self.model.embed(*inputs)
        if self.derive is None:
            return output, embedding
        return output, self.derive(*inputs)[1], embedding


class Predicted(NamedTuple):
    """What a model says of M structures, standardised, in batch order.

    Attributes:
        ids: (M,) positions in the data set.
        outputs: (M,) float64.
        embeddings: (M, F).
        forces: (atoms of these structures, 3); without rows where they were not asked for.
    """

    ids: np.ndarray
    outputs: np.ndarray
    embeddings: np.ndarray
    forces: np.ndarray


def predict(step: EvaluationStep, batches: Iterable[GraphBatch]) -> Predicted:
    """Evaluate every real graph of the batches."""
    ids, outputs, embeddings, forces = [np.zeros(0, np.int64)], [np.zeros(0)], [], [np.zeros((0, 3))]
    for batch in batches:
        output, *slope, embedding = step(*to_tensors(batch.inputs))
        count = len(batch.ids)
        ids.append(batch.ids)
        outputs.append(output.asnumpy()[:count].astype(np.float64))
        embeddings.append(embedding.asnumpy()[:count])
        forces += [one.asnumpy()[: int(batch.inputs.node_mask.sum())].astype(np.float64) for one in slope]
    return Predicted(
        np.concatenate(ids),
        np.concatenate(outputs),
        np.concatenate(embeddings or [np.zeros((0, 0))]),
        np.concatenate(forces),
    )


def to_tensors(inputs: GraphInputs) -> tuple[Tensor, ...]:
    """The arrays of a batch as tensors, without a copy where the device is the host."""
    return tuple(Tensor.from_numpy(array) for array in inputs)


def compile_count(cell: nn.Cell) -> int:
    """How many graphs have been compiled for a cell."""
    return len(cell.compile_cache)
