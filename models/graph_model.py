"""A model: a network that describes nodes, and a head that makes one value a graph of it."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype

from models.graph_ops import segment_mean, to_type


class GraphModel(nn.Cell):
    """Graph inputs to one value a graph.

    The ten graph inputs, in the order of ``data_tools.graph.GraphInputs``, pass through as they come; each network
    spells their names in its ``construct``.

    Args:
        network: graph inputs to what the head takes, and node features (N, F).
        head: that and the graph inputs to one value a graph.
        widths: how many outputs have a width of their errors that is learned (``log_widths``, which only the loss of
            several tasks reads); 0: none.
        dtype: of these.
    """

    def __init__(self, network: nn.Cell, head: nn.Cell, widths: int = 0, dtype: mstype.Type = mstype.float32):
        super().__init__()
        self.network, self.head = network, head
        self.log_widths = Parameter(Tensor(np.zeros(widths), dtype), name="log_widths") if widths else None

    def construct(self, *graph: Tensor) -> Tensor:
        """Graph inputs to one value a graph, (G,), or (G, outputs)."""
        return self.head(self.network(*graph)[0], *graph)

    def embed(self, *graph: Tensor) -> tuple:
        """The value of each graph as above, and its embedding, the mean of its node features (G, F)."""
        values, features = self.network(*graph)
        node_graph, node_mask, graph_mask = graph[-3:]
        mask = to_type(node_mask, features.dtype)
        return self.head(values, *graph), segment_mean(features, node_graph, mask, graph_mask)
