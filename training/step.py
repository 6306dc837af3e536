"""One compiled train step and one compiled evaluation step.

The batch enters as separate tensors, because a tuple as one argument would be compiled anew at every call.  In GRAPH
mode the whole step is one graph.  In PYNATIVE mode loss and gradients are one compiled function and the optimiser runs
eagerly; ``MS_JIT=0`` in the environment makes everything eager, to step through it with a debugger.
"""

from __future__ import annotations

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from data_tools.graph import GraphBatch, GraphInputs
from training.losses import ERRORS, absolute_error, masked_mean
from training.optimizer import AdamW


class TrainStep(nn.Cell):
    """Forward, loss, gradients and update.

    Args:
        model: graph inputs to (G,) values.
        optimizer: updates the model's weights.
        loss: one of ``losses.LOSSES``.
    """

    def __init__(self, model: nn.Cell, optimizer: AdamW, loss: str):
        super().__init__(auto_prefix=False)
        self.model = model
        self.optimizer = optimizer
        error = ERRORS[loss]

        def forward(*arguments):
            labels, mask = arguments[-2], arguments[-1]  # (G,)
            prediction = model(*arguments[:-2])  # (G,)
            loss = masked_mean(error(prediction, labels), mask)
            return loss, masked_mean(absolute_error(prediction, labels), mask)

        gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)
        self.compiled_whole = ms.get_context("mode") == ms.GRAPH_MODE
        self.loss_and_gradients = gradients if self.compiled_whole else ms.jit(gradients)

    def construct(self, *arguments):
        """Graph inputs, standardised labels (G,), mask (G,) and the optimiser's three scalars to loss and error."""
        (loss, error), gradients = self.loss_and_gradients(*arguments[:-3])
        done = self.optimizer(gradients, arguments[-3], arguments[-2], arguments[-1])
        return ops.depend(loss, done), error


class EvaluationStep(nn.Cell):
    """Outputs (G,) and embeddings (G, F) of a batch."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, *inputs):
        """Graph inputs to output and embedding."""
        return self.model.embed(*inputs)


def predict(step: EvaluationStep, batches: Iterable[GraphBatch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, standardised outputs (M,) and embeddings (M, F) of every real graph of the batches, in batch order."""
    rows, outputs, embeddings = [], [], []
    for batch in batches:
        output, embedding = step(*to_tensors(batch.inputs))
        count = len(batch.ids)
        rows.append(batch.ids)
        outputs.append(output.asnumpy()[:count].astype(np.float64))
        embeddings.append(embedding.asnumpy()[:count])
    return np.concatenate(rows), np.concatenate(outputs), np.concatenate(embeddings)


def to_tensors(inputs: GraphInputs) -> tuple[Tensor, ...]:
    """The arrays of a batch as tensors, without a copy where the device is the host."""
    return tuple(Tensor.from_numpy(array) for array in inputs)


def compile_count(cell: nn.Cell) -> int:
    """How many graphs have been compiled for a cell."""
    return len(cell.compile_cache)
