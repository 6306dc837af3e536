"""One compiled train step and one compiled evaluation step.

The batch enters as separate tensors, because a tuple as one argument would be compiled anew at every call.  In GRAPH
mode the whole step is one graph.  In PYNATIVE mode loss and gradients are one compiled function and the optimiser runs
eagerly; ``MS_JIT=0`` in the environment makes everything eager, to step through it with a debugger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from data_tools.graph import GraphBatch, GraphInputs
from training.distributed import SumOverRanks
from training.losses import ERRORS, absolute_error, masked_sum
from training.optimizer import AdamW, flatten


class TrainStep(nn.Cell):
    """Forward, loss, gradients and update.

    Each process passes its part of a batch and the number of molecules in the whole batch, so that the sums over all
    processes are the means over the molecules of the batch, however many each process holds.

    A step whose loss or gradient is not finite changes nothing.  Without a loss scale neither does any step after it:
    the state stays that of the last good step until the host has noticed.

    Args:
        model: graph inputs to (G,) values.
        optimizer: updates the model's weights.
        loss: one of ``losses.LOSSES``.
        ranks: number of processes.
        goes_on: whether steps after one that is not finite are made; the host must then watch every step.
    """

    def __init__(self, model: nn.Cell, optimizer: AdamW, loss: str, ranks: int = 1, goes_on: bool = False):
        super().__init__(auto_prefix=False)
        self.model = model
        self.optimizer = optimizer
        self.goes_on = goes_on
        self.intact = Parameter(Tensor(1.0, mstype.float32), name="intact", requires_grad=False)
        error = ERRORS[loss]

        def forward(*arguments):
            labels, mask, count, scale = arguments[-4], arguments[-3], arguments[-2], arguments[-1]
            prediction = model(*arguments[:-4])  # (G,)
            loss = masked_sum(error(prediction, labels), mask) / count
            return loss * scale, loss, masked_sum(absolute_error(prediction, labels), mask) / count

        value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)
        sum_over_ranks = SumOverRanks(ranks)

        def gradient_loss_error(*arguments):
            (_, loss, absolute), gradients = value_and_gradients(*arguments)
            gradient = flatten(gradients) / arguments[-1]  # (K,)
            return sum_over_ranks(ops.concat((gradient, loss.reshape(1), absolute.reshape(1)), 0))  # (K + 2,)

        self.compiled_whole = ms.get_context("mode") == ms.GRAPH_MODE
        self.gradient_loss_error = gradient_loss_error if self.compiled_whole else ms.jit(gradient_loss_error)

    def construct(self, *arguments):
        """One update.

        Args:
            arguments: graph inputs, standardised labels (G,), their mask (G,), molecules in the whole batch, loss
                scale, and the optimiser's three scalars.

        Returns:
            loss, mean absolute error, and 1 if the step was made, 0 if it changed nothing.
        """
        vector = self.gradient_loss_error(*arguments[:-3])
        finite = ops.isfinite(ops.abs(vector).sum()).astype(mstype.float32)
        if not self.goes_on:
            finite = finite * self.intact
            finite = ops.depend(finite, ops.assign(self.intact, finite))
        done = self.optimizer(vector[:-2], finite, arguments[-3], arguments[-2], arguments[-1])
        return ops.depend(vector[-2], done), vector[-1], finite


def step_arguments(batch: GraphBatch, molecules: int, scale: float, scalars: Sequence[float]) -> tuple[Tensor, ...]:
    """What ``TrainStep`` takes.

    Args:
        batch: this process's part, with the label ``label``.
        molecules: labelled molecules in the whole batch.
        scale: the loss scale.
        scalars: lr', eps' and wd' of the optimiser.
    """
    return (
        *to_tensors(batch.inputs),
        Tensor.from_numpy(batch.targets["label"]),
        Tensor.from_numpy(batch.masks["label"]),
        *(Tensor(value, mstype.float32) for value in (molecules, scale, *scalars)),
    )


class EvaluationStep(nn.Cell):
    """Outputs (G,) and embeddings (G, F) of a batch."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, *inputs):
        """Graph inputs to output and embedding."""
        return self.model.embed(*inputs)


def predict(step: EvaluationStep, batches: Iterable[GraphBatch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``ids``, standardised outputs (M,) and embeddings (M, F) of every real graph of the batches, in batch order."""
    ids, outputs, embeddings = [np.zeros(0, np.int64)], [np.zeros(0)], []
    for batch in batches:
        output, embedding = step(*to_tensors(batch.inputs))
        count = len(batch.ids)
        ids.append(batch.ids)
        outputs.append(output.asnumpy()[:count].astype(np.float64))
        embeddings.append(embedding.asnumpy()[:count])
    return np.concatenate(ids), np.concatenate(outputs), np.concatenate(embeddings or [np.zeros((0, 0))])


def to_tensors(inputs: GraphInputs) -> tuple[Tensor, ...]:
    """The arrays of a batch as tensors, without a copy where the device is the host."""
    return tuple(Tensor.from_numpy(array) for array in inputs)


def compile_count(cell: nn.Cell) -> int:
    """How many graphs have been compiled for a cell."""
    return len(cell.compile_cache)
