"""One compiled train step and one compiled evaluation step.

The batch enters as separate tensors, because a tuple as one argument would be compiled anew at every call.  In GRAPH
mode the whole step is one graph.  In PYNATIVE mode loss and gradients are one compiled function and the optimiser runs
eagerly; ``MS_JIT=0`` in the environment makes everything eager, to step through it with a debugger, except a loss on
forces, whose gradient would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from data_tools.graph import GraphBatch, GraphInputs
from physics.derivatives import Compiled, Outermost, observables, require_compilation
from training.distributed import SumOverRanks
from training.objective import Layout, Term, loss_of
from training.optimizer import AdamW
from training.running_values import Observation, RunningValues, running_means


class TrainStep(Outermost):
    """Forward, loss, gradients and update.

    Each process passes its part of a batch and the counts of the whole batch, see ``training.objective``.

    A step whose loss or gradient is not finite changes nothing.  Without a loss scale neither does any step after it:
    the state stays that of the last good step until the host has noticed.

    Args:
        model: graph inputs to (G,) values.
        optimizer: updates the model's weights.
        terms: of the loss.
        ranks: number of processes.
        goes_on: whether steps after one that is not finite are made; the host must then watch every step.

    Attributes:
        layout: of the arguments.
    """

    trains = True

    def __init__(self, model: nn.Cell, optimizer: AdamW, terms: Sequence[Term], ranks: int = 1, goes_on: bool = False):
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.layout = Layout(terms)
        self.goes_on = goes_on
        self.intact = Parameter(Tensor(1.0, mstype.float32), name="intact", requires_grad=False)
        forward = loss_of(model, self.layout, optimizer.weights[0].dtype)
        value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)
        flat, sum_over_ranks, scale = optimizer.flat, SumOverRanks(ranks), self.layout.place["loss scale"]
        self.of_loss = self.layout.of_loss
        running = RunningValues(model, optimizer.weights[0].dtype, ranks) if running_means(model) else None
        self.running, self.observed = running, running.size if running else 0
        self.observation = Observation(model) if running else None

        def gradient_loss_errors(*arguments):
            (_, results), gradients = value_and_gradients(*arguments)
            gradient = flat(gradients) * ops.reciprocal(arguments[scale])  # (K,)
            parts = (gradient, results) if running is None else (gradient, results, running.observed())
            return sum_over_ranks(ops.concat(parts, 0))  # (K + 1 + terms + P,)

        self.compiled_whole = ms.get_context("mode") == ms.GRAPH_MODE
        if not self.compiled_whole and any(term.quantity != "energy" for term in self.layout.terms):
            require_compilation()
        self.gradient_loss_errors = gradient_loss_errors if self.compiled_whole else ms.jit(gradient_loss_errors)
        self.weights = optimizer.flat.size

    def __call__(self, *arguments: Tensor) -> Any:
        """One update, once the layers that keep a running value have noted what they observe."""
        if self.observation is not None:
            self.observation(*arguments[: len(GraphInputs._fields)])
        return super().__call__(*arguments)

    def compile(self, *arguments: Tensor) -> None:
        """Compile for the shapes and types of the arguments, or find what was compiled for them."""
        if self.observation is not None:
            self.observation.compile(*arguments[: len(GraphInputs._fields)])
        super().compile(*arguments)

    def construct(self, *arguments):
        """One update.

        Args:
            arguments: as ``layout.arguments`` makes them.

        Returns:
            loss, mean absolute error of each term (terms,), and 1 if the step was made, 0 if it changed nothing.
        """
        vector = self.gradient_loss_errors(*arguments[: self.of_loss])
        finite = ops.isfinite(ops.abs(vector).sum()).astype(mstype.float32)
        if not self.goes_on:
            finite = finite * self.intact
            finite = ops.depend(finite, ops.assign(self.intact, finite))
        end = vector.shape[0] - self.observed
        done = self.optimizer(vector[: self.weights], finite, *arguments[self.of_loss :])
        if self.running is not None:
            done = (done, self.running(vector[end:], finite))
        return ops.depend(vector[self.weights], done), vector[self.weights + 1 : end], finite


class EvaluationStep(Outermost):
    """Outputs (G,) and embeddings (G, F) of a batch, followed by what is wanted of ``physics.derivatives``.

    Args:
        model: the network.
        wanted: names of observables besides the outputs.
    """

    def __init__(self, model: nn.Cell, wanted: Sequence[str] = ()):
        super().__init__()
        self.model = model
        self.wanted = tuple(wanted)
        self.derive = Compiled(model, observables(model, wanted)) if wanted else None

    def construct(self, *inputs):
        """Graph inputs to a tuple."""
        output, embedding = self.model.embed(*inputs)
        if self.derive is None:
            return output, embedding
        return output, embedding, *self.derive(*inputs)


class Predicted(NamedTuple):
    """What a model says of M structures, standardised, in batch order.

    Attributes:
        ids: (M,) positions in the data set.
        outputs: (M,) float64, or (M, C) of a network with C outputs.
        embeddings: (M, F).
        forces: (atoms of these structures, 3); without rows where they were not asked for.
        virials: (M, 3, 3); without rows where they were not asked for.
    """

    ids: np.ndarray
    outputs: np.ndarray
    embeddings: np.ndarray
    forces: np.ndarray
    virials: np.ndarray


def predict(step: EvaluationStep, batches: Iterable[GraphBatch]) -> Predicted:
    """Evaluate every real graph of the batches."""
    ids: list[np.ndarray] = [np.zeros(0, np.int64)]
    outputs: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    derived = {"forces": [np.zeros((0, 3))], "virial": [np.zeros((0, 3, 3))]}
    for batch in batches:
        output, embedding, *others = step(*to_tensors(batch.inputs))
        count, atoms = len(batch.ids), int(batch.inputs.node_mask.sum())
        ids.append(batch.ids)
        outputs.append(output.asnumpy()[:count].astype(np.float64))
        embeddings.append(embedding.asnumpy()[:count])
        for name, value in zip(step.wanted, others, strict=True):
            derived[name].append(value.asnumpy()[: atoms if name == "forces" else count].astype(np.float64))
    return Predicted(
        np.concatenate(ids),
        np.concatenate(outputs or [np.zeros(0)]),
        np.concatenate(embeddings or [np.zeros((0, 0))]),
        np.concatenate(derived["forces"]),
        np.concatenate(derived["virial"]),
    )


def to_tensors(inputs: GraphInputs) -> tuple[Tensor, ...]:
    """The arrays of a batch as tensors, without a copy where the device is the host."""
    return tuple(Tensor.from_numpy(array) for array in inputs)


def compile_count(cell: nn.Cell) -> int:
    """How many graphs have been compiled for a cell."""
    return len(cell.compile_cache)
