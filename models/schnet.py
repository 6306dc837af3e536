"""SchNet: continuous-filter convolutions on atoms.

Papers: Schuett et al., NeurIPS 2017 (arXiv 1706.08566), and J. Chem. Phys. 148, 241722 (2018).

    (1)  x_i^0     = a[Z_i]                                        embedding of the element
    (2)  W_ij      = filter(e(d_ij)) f_cut(d_ij)                   dense - ssp - dense on Gaussians of the distance
    (3)  m_i       = sum_j (W_in x_j) * W_ij                       continuous-filter convolution, elementwise product
    (4)  x_i^{t+1} = x_i^t + dense(ssp(dense(m_i)))                residual update
    (5)  q_i       = dense(act(dense(x_i^T)))                      atom value, reduced by ``models.heads.Readout``

W_ij depends on the distance alone, so it is computed once for each pair of atoms and used for both directions: edge
e + E/2 is the reverse of edge e (the law of pairs of the graph inputs).

Conventions:
    ``pyg``          torch_geometric: ssp in the head.
    ``schnetpack``   SiLU in the head.
    ``2017``         the first paper: Gaussians every 0.1 Angstrom with gamma = 10 / Angstrom^2, a second ssp after the
                     filter network, no f_cut (so the cutoff must exceed every distance).

``filter="matrix"`` is an ablation: (3) becomes m_i = sum_j W_ij (W_in x_j + b) with a full F x F matrix W_ij.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import Dense, ShiftedSoftplus, Softplus, Swish
from models.cpu_kernels import load
from models.graph_ops import PairDistances, gather, segment_mean, segment_sum, to_type
from models.heads import Readout
from models.precision import precision
from models.radial import CosineCutoff, GaussianBasis

CONVENTIONS = ("pyg", "schnetpack", "2017")
FILTERS = ("elementwise", "matrix")
OUTPUT_INITS = ("glorot", "zeros")
ELEMENTS = 100  # rows of the embedding, as in both originals; row 0 belongs to the ghosts
SPACING_2017, GAMMA_2017 = 0.1, 10.0  # Angstrom, 1/Angstrom^2


class FilterNetwork(nn.Cell):
    """Equation (2) without the cutoff: Gaussians to filters (P, outputs).

    The kernels for CPUs add biases in passing.  Without them only products of matrices and softplus are computed on the
    many pairs.  The biases are columns of the matrices: the last Gaussian is 1, and so is the last hidden value,
    softplus(ln(e - 1)).  The shift of the activation moves into the second bias:
    W (softplus(h) - ln 2) + b = W softplus(h) + (b - ln 2 sum_k W_k).
    """

    def __init__(
        self, gaussians: int, filters: int, outputs: int, final_activation: bool, fused: bool, dtype: mstype.Type
    ):
        super().__init__()
        self.hidden = Dense(gaussians, filters, dtype)
        self.output = Dense(filters, outputs, dtype)
        self.softplus = Softplus(dtype)
        self.final_activation = ShiftedSoftplus(dtype) if final_activation else None
        self.activation = ShiftedSoftplus(dtype) if fused else None
        self.multiply = ops.MatMul(transpose_b=True)
        self.log2 = Tensor(np.log(2.0), dtype)
        one = np.zeros((filters + 1, gaussians + 1))
        one[-1, -1] = np.log(np.expm1(1.0))
        self.one = Tensor(one, dtype)
        # not concat: it would round float64 parameters to float32 on a CPU
        self.pad_weight = ops.Pad(((0, 1), (0, 1)))
        self.pad_bias = ops.Pad(((0, 1), (gaussians, 0)))
        self.pad_output, self.pad_output_bias = ops.Pad(((0, 0), (0, 1))), ops.Pad(((0, 0), (filters, 0)))

    def construct(self, gaussians: Tensor) -> Tensor:
        """(P, K), or (P, K + 1) with a last column of ones where nothing is fused, to one filter a pair."""
        if self.activation is not None:
            result = self.output(self.activation(self.hidden(gaussians)))
        else:
            result = self.with_biases_as_columns(gaussians)
        return result if self.final_activation is None else self.final_activation(result)

    def with_biases_as_columns(self, gaussians: Tensor) -> Tensor:
        """(P, K + 1) to (P, outputs)."""
        bias = self.pad_bias(self.hidden.bias.reshape(-1, 1))
        hidden = self.pad_weight(self.hidden.weight) + (bias + self.one)  # (F' + 1, K + 1)
        bias = self.pad_output_bias((self.output.bias - self.log2 * self.output.weight.sum(1)).reshape(-1, 1))
        output = self.pad_output(self.output.weight) + bias  # (outputs, F' + 1)
        hidden, output = to_type(hidden, gaussians.dtype), to_type(output, gaussians.dtype)
        return self.multiply(self.softplus(self.multiply(gaussians, hidden)), output)  # (P, outputs)


class Interaction(nn.Cell):
    """Equations (3) and (4) without the residual sum."""

    def __init__(
        self,
        features: int,
        filters: int,
        gaussians: int,
        matrix: bool,
        final_activation: bool,
        kernels: ModuleType | None,
        dtype: mstype.Type,
    ):
        super().__init__()
        outputs = filters * filters if matrix else filters
        self.filter = FilterNetwork(gaussians, filters, outputs, final_activation, kernels is not None, dtype)
        self.pair_sum: Any = kernels.pair_sum if kernels else None
        self.input = Dense(features, filters, dtype, bias=matrix)
        self.update_hidden = Dense(filters, features, dtype)
        self.update_output = Dense(features, features, dtype)
        self.activation = ShiftedSoftplus(dtype)
        self.matrix = matrix
        self.filters = filters

    def construct(
        self, nodes: Tensor, gaussians: Tensor, envelope: Tensor | None, first: Tensor, second: Tensor
    ) -> Tensor:
        """The update (N, F) of the nodes.

        Args:
            nodes: (N, F).
            gaussians: what the filter network takes.
            envelope: (P, 1) where the sum is fused; else (P, outputs of the filter network), or None for no cutoff.
            first, second: (P,) the two atoms of each pair; where the sum is fused, (E,) of which the first half counts.
        """
        weights = self.filter(gaussians)  # (P, F')
        inputs = self.input(nodes)  # (N, F')
        if self.pair_sum is not None:
            summed = self.pair_sum(inputs, weights, envelope, first, second)  # (N, F')  (3)
        else:
            summed = self.summed(inputs, weights if envelope is None else weights * envelope, first, second)
        return self.update_output(self.activation(self.update_hidden(summed)))  # (4)

    def summed(self, inputs: Tensor, weights: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Equation (3) from W_in x (N, F') and the filters (P, outputs), (N, F')."""
        like, inputs = inputs, to_type(inputs, weights.dtype)
        to_first = self.message(weights, gather(inputs, second))  # (P, F')
        to_second = self.message(weights, gather(inputs, first))  # (P, F')
        to_first, to_second = to_type(to_first, like.dtype), to_type(to_second, like.dtype)
        return segment_sum(to_first, first, like) + segment_sum(to_second, second, like)

    def message(self, weights: Tensor, neighbours: Tensor) -> Tensor:
        """The filter applied to the neighbour's features, (P, F')."""
        if self.matrix:
            matrices = weights.reshape(-1, self.filters, self.filters)  # (P, F', F')
            return ops.bmm(matrices, neighbours.expand_dims(-1)).squeeze(-1)
        return weights * neighbours


class SchNet(nn.Cell):
    """SchNet of the module's equations.

    Args:
        features: F, size of an atom's feature vector.
        filters: F', size of a filter.
        blocks: number of interactions.
        gaussians: K, number of radial basis functions between 0 and ``cutoff``.
        cutoff: Angstrom; the graph must hold every pair closer than this.
        readout: see ``models.heads.Readout``.
        convention: one of ``CONVENTIONS``.
        filter: one of ``FILTERS``.
        output_init: one of ``OUTPUT_INITS``, of the last layer's weights; with ``zeros`` an untrained network predicts
            0 everywhere instead of a large number that the first epochs must unlearn.
        dtype: float32 or float64 parameters and arithmetic.
        amp_level: what is computed in float16; see ``models.precision``.

    Raises:
        ValueError: a number is not positive or a name is unknown.
    """

    def __init__(
        self,
        features: int = 128,
        filters: int = 128,
        blocks: int = 3,
        gaussians: int = 50,
        cutoff: float = 5.0,
        readout: str = "sum",
        convention: str = "pyg",
        filter: str = "elementwise",
        output_init: str = "glorot",
        dtype: mstype.Type = mstype.float32,
        amp_level: str = "O0",
    ):
        super().__init__()
        _check(locals())
        self.kinds = precision(amp_level, dtype)
        atoms = self.kinds.atoms
        paper = convention == "2017"
        self.embedding = Parameter(initializer(Normal(1.0), (ELEMENTS, features), dtype), name="embedding")
        kernels = load(self.kinds.edges) if filter == "elementwise" else None  # they sum elementwise products
        self.fused = kernels is not None
        self.distances = PairDistances(atoms)
        self.basis = _basis(gaussians, cutoff, paper, dtype, constant=not self.fused)
        self.envelope = None if paper else CosineCutoff(cutoff, atoms)
        # a product with ones spreads the envelope over the columns, five times as fast as broadcasting does on a CPU
        self.ones = Tensor(np.ones((1, filters * filters if filter == "matrix" else filters)), self.kinds.edges)
        self.spread = ops.MatMul()
        self.interactions = nn.CellList(
            [
                Interaction(features, filters, gaussians, filter == "matrix", paper, kernels, dtype)
                for _ in range(blocks)
            ]
        )
        self.head_hidden = Dense(features, features // 2, dtype)
        self.head_output = Dense(features // 2, 1, dtype)
        if output_init == "zeros":
            self.head_output.weight.set_data(initializer("zeros", (1, features // 2), dtype))
        self.head_activation = Swish() if convention == "schnetpack" else ShiftedSoftplus(dtype)
        self.readout = Readout(readout, atoms)

    def trace(
        self,
        numbers: Tensor,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> tuple:
        """Output (G,), node features (N, F), updates [(N, F)], head's hidden layer (N, F/2) and atom values (N, 1)."""
        pairs = senders.shape[0] // 2
        # a slice costs as much as a kernel; the kernels read the first half alone
        first, second = (receivers, senders) if self.fused else (receivers[:pairs], senders[:pairs])
        positions, shifts = to_type(positions, self.kinds.atoms), to_type(shifts, self.kinds.atoms)
        node_mask, graph_mask = to_type(node_mask, self.kinds.atoms), to_type(graph_mask, self.kinds.atoms)
        distances = self.distances(positions, senders, receivers, shifts)  # (P, 1)
        gaussians = to_type(self.basis(distances), self.kinds.edges)  # (P, K) or (P, K + 1)
        envelope: Tensor | None = None
        if self.envelope is not None:
            envelope = to_type(self.envelope(distances), self.kinds.edges)  # (P, 1)
            envelope = envelope if self.fused else self.spread(envelope, self.ones)  # or (P, F')
        elif self.fused:
            envelope = ops.ones_like(distances)
        nodes = to_type(gather(self.embedding, numbers), self.kinds.atoms)  # (N, F)  (1)
        updates: tuple = ()
        for interaction in self.interactions:
            update = interaction(nodes, gaussians, envelope, first, second)  # (N, F)  (2)-(4)
            updates = (*updates, update)
            nodes = nodes + update
        hidden = self.head_hidden(nodes)
        values = self.head_output(self.head_activation(hidden))  # (N, 1)  (5)
        output = self.readout(values, numbers, positions, node_graph, node_mask, graph_mask)
        return output, nodes, updates, hidden, values

    def construct(
        self,
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
        """Graph inputs to one value per graph, (G,)."""
        return self.trace(numbers, positions, senders, receivers, shifts, node_graph, node_mask, graph_mask)[0]

    def embed(
        self,
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
    ) -> tuple:
        """Output (G,) and the embedding of each graph, the mean of its final node features (G, F)."""
        result = self.trace(numbers, positions, senders, receivers, shifts, node_graph, node_mask, graph_mask)
        node_mask, graph_mask = to_type(node_mask, self.kinds.atoms), to_type(graph_mask, self.kinds.atoms)
        return result[0], segment_mean(result[1], node_graph, node_mask, graph_mask)


def _basis(gaussians: int, cutoff: float, paper: bool, dtype: mstype.Type, constant: bool) -> GaussianBasis:
    """Gaussians evenly from 0 to the cutoff with the spacing as width, or the fixed grid of the 2017 paper."""
    if paper:
        return GaussianBasis(SPACING_2017 * np.arange(gaussians), -GAMMA_2017, dtype, constant)
    offsets = np.linspace(0.0, cutoff, gaussians)
    return GaussianBasis(offsets, -0.5 / (offsets[1] - offsets[0]) ** 2, dtype, constant)


def _check(arguments: dict) -> None:
    """Refuse hyperparameters that could only fail later."""
    least = {"features": 2, "filters": 1, "blocks": 1, "gaussians": 2}
    for name, smallest in least.items():
        if int(arguments[name]) < smallest:
            raise ValueError(f"{name} {arguments[name]}: expected at least {smallest}")
    if not arguments["cutoff"] > 0:
        raise ValueError(f"cutoff {arguments['cutoff']} Angstrom: expected a positive number")
    choices = (("convention", CONVENTIONS), ("filter", FILTERS), ("output_init", OUTPUT_INITS))
    for name, allowed in choices:
        if arguments[name] not in allowed:
            raise ValueError(f"{name} {arguments[name]!r}: expected one of {', '.join(allowed)}")
