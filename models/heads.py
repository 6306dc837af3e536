"""Heads: from what a network says of its nodes to one value a graph.

A head is a cell whose ``construct`` takes what its network returns and the ten graph inputs.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from models.blocks import TwoLayers, default_uniform
from models.elements import ATOMIC_MASSES
from models.graph_ops import gather, safe_norm, segment_mean, segment_sum, to_type
from models.swish import Swish

ATTENTION = "attention"  # the readout of ``AttentionReadout``
OF_ATOM_VALUES = ("sum", "mean", "dipole", "electronic_spatial_extent")  # those of ``Readout``
READOUTS = (*OF_ATOM_VALUES, ATTENTION)
OF_SEVERAL = ("sum", "mean")  # readouts of more than one value an atom
FIRST_SHARPNESS = 0.01


class Readout(nn.Cell):
    """Reduce atom values q_i to one value per graph.

    sum: y = sum_i q_i.    mean: y = sum_i q_i / n.
    dipole: y = |sum_i q_i (r_i - r_c)| with the centre of mass r_c (Schuett et al., JCTC 15, 448, 2019).
    electronic_spatial_extent: y = sum_i q_i |r_i - r_c|^2 (the same paper).

    Args:
        kind: one of ``OF_ATOM_VALUES``.
        outputs: C, values of an atom; more than one only with the kinds ``sum`` and ``mean``.
        dtype: of the atom values and of the result.

    Raises:
        ValueError: unknown kind, or one that has no meaning for several values.
    """

    def __init__(self, kind: str, outputs: int, dtype: mstype.Type):
        super().__init__()
        if kind not in OF_ATOM_VALUES:
            raise ValueError(f"readout {kind!r}: expected one of {', '.join(OF_ATOM_VALUES)}")
        if outputs > 1 and kind not in OF_SEVERAL:
            raise ValueError(f"{outputs} outputs with the readout {kind}: expected one output")
        self.kind, self.dtype = kind, dtype
        if kind not in OF_SEVERAL:
            kept = mstype.float32 if dtype == mstype.float16 else dtype
            self.masses = Parameter(Tensor(ATOMIC_MASSES, kept), name="masses", requires_grad=False)

    def construct(
        self,
        values: Tensor,
        numbers: Tensor,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        triplet_in: Tensor,
        triplet_out: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """Atom values (N, C) and graph inputs to (G,), or (G, C) for C > 1."""
        graph_mask = to_type(graph_mask, self.dtype)
        if self.kind in OF_SEVERAL:
            return _flat(_pooled(self.kind, values, node_graph, to_type(node_mask, self.dtype), graph_mask))
        positions = to_type(positions, self.dtype)
        masses = to_type(gather(self.masses, numbers), self.dtype).reshape(-1, 1)  # (N, 1)
        # the ghost graph has no mass: give it 1 so that its centre is finite
        total_mass = segment_sum(masses, node_graph, graph_mask) + (1 - graph_mask).reshape(-1, 1)  # (G, 1)
        centre = segment_sum(masses * positions, node_graph, graph_mask) / total_mass  # (G, 3)
        relative = positions - gather(centre, node_graph)  # (N, 3)
        if self.kind == "dipole":
            return safe_norm(segment_sum(values * relative, node_graph, graph_mask)).reshape(-1)
        squared = (relative * relative).sum(-1, keepdims=True)  # (N, 1)
        return segment_sum(values * squared, node_graph, graph_mask).reshape(-1)


class AttentionReadout(nn.Cell):
    """A mean over atoms with learned weights: each atom has a value q_i and a score s_i.

    (1)  a_i = exp(t s_i) / sum_k exp(t s_k)      over the atoms k of the graph
    (2)  y   = sum_i a_i q_i

    t is a parameter, at 0 of which (2) is the mean; it begins near 0, not at 0, because the scores of a network whose
    last layer begins with zeros would have no gradient then.  Equal atoms have equal weights, so a supercell has the
    value of its cell.

    Args:
        outputs: C, values of a graph, each with scores of its own.
        dtype: of the atom values and of the result.
    """

    def __init__(self, outputs: int, dtype: mstype.Type):
        super().__init__()
        self.outputs, self.dtype = outputs, dtype
        kept = mstype.float32 if dtype == mstype.float16 else dtype
        self.sharpness = Parameter(Tensor(np.full(outputs, FIRST_SHARPNESS), kept), name="sharpness")
        self.largest, self.side_by_side = ops.UnsortedSegmentMax(), ops.Concat(1)

    def construct(
        self,
        values: Tensor,
        numbers: Tensor,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        triplet_in: Tensor,
        triplet_out: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """Values and then scores of the atoms (N, 2 C) and graph inputs to (G,), or (G, C) for C > 1."""
        weights = self.weights(values, node_graph, node_mask, graph_mask)
        return _flat(segment_sum(weights * values[:, : self.outputs], node_graph, graph_mask))  # (2)

    def contributions(self, values: Tensor, node_graph: Tensor, node_mask: Tensor, graph_mask: Tensor) -> Tensor:
        """What (2) adds up, a_i q_i, and then a_i, for the atoms: (N, 2 C) as of ``construct`` to (N, 2 C)."""
        weights = self.weights(values, node_graph, node_mask, graph_mask)
        return self.side_by_side((weights * values[:, : self.outputs], weights))

    def weights(self, values: Tensor, node_graph: Tensor, node_mask: Tensor, graph_mask: Tensor) -> Tensor:
        """Equation (1): (N, 2 C) as of ``construct`` to a (N, C), 0 for ghosts.

        Numerator and denominator are divided by the exponential of the largest term, which changes no derivative.
        """
        node_mask, graph_mask = to_type(node_mask, self.dtype), to_type(graph_mask, self.dtype)
        logits = values[:, self.outputs :] * to_type(self.sharpness, self.dtype)  # (N, C)
        top = ops.stop_gradient(self.largest(ops.stop_gradient(logits), node_graph, graph_mask.shape[0]))  # (G, C)
        powers = ops.exp(logits - gather(top, node_graph)) * node_mask.reshape(-1, 1)
        # the ghost graph has no atom: give it 1 so that its weights are finite
        total = segment_sum(powers, node_graph, graph_mask) + (1 - graph_mask).reshape(-1, 1)  # (G, C)
        return powers / gather(total, node_graph)


class ReadoutOfEach(nn.Cell):
    """Reduce C values of each atom to C values of the graph, each by its own readout.

    Args:
        kinds: C of ``READOUTS``.
        dtype: of the atom values and of the result.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kinds: tuple[str, ...], dtype: mstype.Type):
        super().__init__()
        self.dtype = dtype
        self.sums, self.means = (Tensor(_of_kind(kinds, kind), dtype) for kind in OF_SEVERAL)  # (1, C)
        self.places = tuple(k for k in range(len(kinds)) if kinds[k] not in OF_SEVERAL)  # of the other readouts
        self.readouts = nn.CellList([Readout(kinds[k], 1, dtype) for k in self.places])
        self.columns = tuple(Tensor(np.eye(len(kinds))[k : k + 1], dtype) for k in self.places)  # (1, C)

    def construct(
        self,
        values: Tensor,
        numbers: Tensor,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        triplet_in: Tensor,
        triplet_out: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """Atom values (N, C) and graph inputs to (G, C)."""
        mask = to_type(node_mask, self.dtype)
        graphs = to_type(graph_mask, self.dtype)
        sums, means = segment_sum(values, node_graph, graphs), segment_mean(values, node_graph, mask, graphs)
        found = self.sums * sums + self.means * means  # (G, C)
        for n in range(len(self.readouts)):
            k = self.places[n]
            one = self.readouts[n](
                values[:, k : k + 1], numbers, positions, senders, receivers, shifts, triplet_in, triplet_out,
                node_graph, node_mask, graph_mask,
            )  # fmt: skip
            found = found + one.reshape(-1, 1) * self.columns[n]
        return found


class PooledReadout(nn.Cell):
    """y = W' swish(W p + b) + b' of the values p of a graph: the sum of those of its nodes, or their mean (SEGNN).

    Args:
        kind: one of ``OF_SEVERAL``.
        features: values of a node.
        outputs: C, values of a graph.
        dtype: of the parameters.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str, features: int, outputs: int, dtype: mstype.Type):
        super().__init__()
        if kind not in OF_SEVERAL:
            raise ValueError(f"readout {kind!r}: expected one of {', '.join(OF_SEVERAL)} for pooled features")
        self.kind, self.dtype = kind, dtype
        self.layers = TwoLayers(features, features, outputs, Swish(), dtype)
        for layer in (self.layers.hidden, self.layers.output):
            layer.weight.set_data(default_uniform(layer.weight.shape, features, dtype))
            layer.bias.set_data(default_uniform(layer.bias.shape, features, dtype))

    def construct(
        self,
        values: Tensor,
        numbers: Tensor,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        triplet_in: Tensor,
        triplet_out: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """Values (N, features) of the nodes and graph inputs to (G,), or (G, C) for C > 1."""
        graph_mask = to_type(graph_mask, self.dtype)
        pooled = _pooled(self.kind, values, node_graph, to_type(node_mask, self.dtype), graph_mask)
        return _flat(self.layers(pooled))


def _of_kind(kinds: tuple[str, ...], kind: str) -> np.ndarray:
    """(1, C): 1 where a readout is of a kind, else 0."""
    return np.array([[float(one == kind) for one in kinds]])


def _pooled(kind: str, values: Tensor, node_graph: Tensor, node_mask: Tensor, graph_mask: Tensor) -> Tensor:
    """The sum over the nodes of each graph, or their mean: values (N, F) to (G, F)."""
    if kind == "sum":
        return segment_sum(values, node_graph, graph_mask)
    return segment_mean(values, node_graph, node_mask, graph_mask)


def _flat(values: Tensor) -> Tensor:
    """(G, 1) as (G,); (G, C) stays as it is."""
    return values.reshape(-1) if values.shape[1] == 1 else values
