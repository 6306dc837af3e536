"""A small network with everything that a layer may keep or draw: a running mean, dropout, and a note of its mode."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from models.graph_ops import edge_vectors, gather, segment_sum
from models.random import Dropout
from models.running import RunningMean

FEATURES, SHARE = 4, 0.1


class Layered(nn.Cell):
    """Energies from squared distances; in training the features are centred by their own mean, and some dropped.

    Args:
        rate: of the dropout.
        dtype: of weights and arithmetic.
        training_factor: what the outputs are multiplied with in training, to see which graph was compiled.
    """

    def __init__(self, rate: float = 0.0, dtype: ms.Type = ms.float64, training_factor: float = 1.0):
        super().__init__()
        random = np.random.default_rng(0)
        self.table = Parameter(Tensor(random.normal(size=(119, FEATURES)), dtype), name="table")
        self.bias = Parameter(Tensor(random.normal(size=FEATURES), dtype), name="bias")
        self.out = Parameter(Tensor(random.normal(size=(FEATURES, 1)), dtype), name="out")
        kind = np.float64 if dtype == ms.float64 else np.float32
        self.centre, self.dropout = RunningMean(np.zeros(FEATURES, kind), SHARE), Dropout(rate, dtype)
        self.factor = Tensor(training_factor, dtype)

    def construct(self, *graph):
        return self.embed(*graph)[0]

    def embed(self, *graph):
        numbers, positions, senders, receivers, shifts, _, _, node_graph, node_mask, graph_mask = graph
        features, mask = gather(self.table, numbers) + self.bias, node_mask.reshape(-1, 1)  # (N, F)
        vectors = edge_vectors(positions, senders, receivers, shifts)
        near = ops.exp(-(vectors * vectors).sum(-1, keepdims=True))  # (E, 1)
        x = (features + segment_sum(near * gather(features, senders), receivers, features)) * mask
        centre = self.centre(x.sum(0) / ops.maximum(node_mask.sum(), ops.ones_like(node_mask[0])))  # (F,)
        x = self.dropout(ops.tanh(x - centre))
        atoms = ops.matmul(x, self.out) * mask
        if self.training:
            atoms = atoms * self.factor
        return segment_sum(atoms, node_graph, graph_mask).reshape(-1), segment_sum(x * mask, node_graph, graph_mask)


def observed_by(model: Layered, inputs) -> np.ndarray:
    """(F,) what the model's running mean observes for some graph inputs, in float64 by NumPy."""
    table, bias = model.table.asnumpy().astype(np.float64), model.bias.asnumpy().astype(np.float64)
    features = table[inputs.numbers] + bias
    vectors = inputs.positions[inputs.senders] + inputs.shifts - inputs.positions[inputs.receivers]
    near = np.exp(-(vectors.astype(np.float64) ** 2).sum(1, keepdims=True))
    sums = np.zeros_like(features)
    np.add.at(sums, inputs.receivers, near * features[inputs.senders])
    real = inputs.node_mask > 0
    return (features + sums)[real].mean(0)
