"""A graph convolution and a Transformer that predict force constants of pairs; NOT equivariant, a control.

This is the baseline that a study of force constants often begins with.  The components of the vectors between atoms
enter as plain numbers: a crystal that is turned has other force constants than the turned ones, and what the model says
of a structure depends on how its file happens to place it.  It is here to show what that costs beside models that obey
the symmetry; do not use it for anything else.  It does not depend on the order of atoms, on the origin or on the choice
of the cell, and obeys the sum rule and exchange symmetry.

    (1)  x_i  = a[Z_i]                                                   described elements
    (2)  g_ij = W' swish(W [r_ij / c, e(d_ij)] + b)                      raw components, and Gaussians of the distance
    (3)  x_i <- x_i + W' swish(W (1 / sqrt(n)) sum_j f_ij x_j * g_ij)      graph convolution
    (4)  s_ij^h = q_i^h . k_ij^h / sqrt(A),                              heads h of A features
         q_i = W norm(x_i),  k_ij = W (norm(x_j) + g_ij),  v_ij = W (norm(x_j) + g_ij)
    (5)  x_i <- x_i + W sum_j a_ij v_ij,                                 a: ``attention``, (1) there, of s and f
    (6)  x_i <- x_i + W' swish(W norm(x_i) + b) + b'
    (7)  B_ij = f_ij S (R(x_i, x_j, g_ij) + R(x_j, x_i, g_ji))           R: two layers to six numbers

W are matrices, one for each place where the letter stands, f is the polynomial envelope of the cutoff c, n the average
number of neighbours, and S takes six numbers to a symmetric matrix; ``block_model`` says what B means.  (3) to (6) are
a block.  Attention is over the neighbours of an atom, images included, of which padding is none: f is 0 there.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.attention import ReceiverSoftmax
from models.blocks import Dense, TwoLayers
from models.e3.irreps import Irreps
from models.e3.layout import split_and_join
from models.e3.norm import EquivariantLayerNorm
from models.element_descriptions import DescribedElements
from models.graph_ops import both_ways, edge_vectors, gather, pair_total, safe_norm, segment_sum, to_type
from models.precision import Precision
from models.radial import GaussianBasis, PolynomialEnvelope
from models.swish import Swish

ENVELOPE_EXPONENT = 5
SYMMETRIC = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # places of the six numbers of a symmetric matrix


def symmetric_matrices() -> np.ndarray:
    """S: six numbers to the rows of a symmetric matrix, (6, 9)."""
    places = np.zeros((6, 3, 3))
    for number, (row, column) in enumerate(SYMMETRIC):
        places[number, row, column] = places[number, column, row] = 1.0
    return places.reshape(6, 9)


def two_layers(inputs: int, features: int, outputs: int, dtype: mstype.Type) -> TwoLayers:
    """W' swish(W x + b) + b'."""
    return TwoLayers(inputs, features, outputs, Swish(), dtype)


class Attention(nn.Cell):
    """Equations (4) and (5).

    Args:
        features: F, of an atom.
        heads: H, a divisor of F.
        dtype: of the parameters.
    """

    def __init__(self, features: int, heads: int, dtype: mstype.Type):
        super().__init__()
        self.query, self.key, self.value, self.output = (Dense(features, features, dtype, False) for _ in range(4))
        self.softmax, self.multiply = ReceiverSoftmax(heads, True, dtype), ops.MatMul()
        of_head = np.repeat(np.eye(heads), features // heads, 0)  # (F, H)
        self.of_head, self.spread = Tensor((features / heads) ** -0.5 * of_head, dtype), Tensor(of_head.T, dtype)

    def construct(self, x: Tensor, g: Tensor, envelope: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Normalised features (N, F), g (E, F) and f (E, 1) of the edges to an update (N, F)."""
        neighbours = gather(x, senders) + g  # (E, F)
        logits = self.multiply(gather(self.query(x), receivers) * self.key(neighbours), self.of_head)  # (E, H)  (4)
        weights = self.multiply(self.softmax(logits, envelope, receivers, x), self.spread)  # (E, F)
        return self.output(segment_sum(weights * self.value(neighbours), receivers, x))  # (N, F)  (5)


class Block(nn.Cell):
    """Equations (3) to (6).

    Args:
        features: F, of an atom.
        heads: H.
        average_degree: n.
        dtype: of the parameters.
    """

    def __init__(self, features: int, heads: int, average_degree: float, dtype: mstype.Type):
        super().__init__()
        self.scale = Tensor(average_degree**-0.5, dtype)
        self.convolution = two_layers(features, features, features, dtype)
        scalars = Irreps([(features, "0e")])
        self.norm_1, self.norm_2 = EquivariantLayerNorm(scalars, dtype), EquivariantLayerNorm(scalars, dtype)
        self.attention = Attention(features, heads, dtype)
        self.feed_forward = two_layers(features, 2 * features, features, dtype)

    def construct(self, x: Tensor, g: Tensor, envelope: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Features (N, F), g (E, F) and f (E, 1) of the edges to features (N, F)."""
        summed = segment_sum(gather(x, senders) * g * envelope, receivers, x)  # (N, F)
        x = x + self.convolution(summed * self.scale)  # (3)
        x = x + self.attention(self.norm_1(x), g, envelope, receivers, senders)  # (4), (5)
        return x + self.feed_forward(self.norm_2(x))  # (6)


class GraphTransformer(nn.Cell):
    """The network of the module's equations.

    Args:
        features: F, of an atom.
        blocks: number of blocks.
        heads: H, a divisor of F.
        cutoff: c, Angstrom; the graph must hold every pair closer than this.
        gaussians: functions e.
        average_degree: n.
        kinds: precisions of parameters and arithmetic, all the same.

    Raises:
        ValueError: heads that do not divide the features, or mixed precision.
    """

    def __init__(
        self,
        features: int,
        blocks: int,
        heads: int,
        cutoff: float,
        gaussians: int,
        average_degree: float,
        kinds: Precision,
    ):
        super().__init__()
        if features % heads:
            raise ValueError(f"features {features}, heads {heads}: expected a multiple of the heads")
        if kinds.edges != kinds.weights:
            raise ValueError("amp_level: expected O0, there is no float16 in the graph transformer")
        dtype = kinds.weights
        self.dtype, self.per_cutoff = dtype, Tensor(1 / cutoff, dtype)
        self.elements = DescribedElements(features, dtype)
        offsets = np.linspace(0.0, cutoff, gaussians)
        self.gaussians = GaussianBasis(offsets, -0.5 / (offsets[1] - offsets[0]) ** 2, dtype)
        self.envelope = PolynomialEnvelope(cutoff, ENVELOPE_EXPONENT, dtype)
        _, self.join_edge = split_and_join([3, gaussians])
        self.edge = two_layers(3 + gaussians, features, features, dtype)
        self.blocks = nn.CellList([Block(features, heads, average_degree, dtype) for _ in range(blocks)])
        _, self.join_ends = split_and_join([features] * 3)
        self.readout = two_layers(3 * features, features, 6, dtype)
        self.symmetric, self.multiply = Tensor(symmetric_matrices(), dtype), ops.MatMul()

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
    ) -> tuple:
        """Graph inputs to B (P, 9)."""
        kind, pairs = self.dtype, senders.shape[0] // 2
        vectors = edge_vectors(to_type(positions, kind), senders, receivers, to_type(shifts, kind))  # (E, 3)
        distances = safe_norm(vectors[:pairs])  # (P, 1)
        of_pairs = self.envelope(distances)
        envelope = both_ways(of_pairs)  # (E, 1)
        g = self.edge(self.join_edge((vectors * self.per_cutoff, both_ways(self.gaussians(distances)))))  # (E, F)  (2)
        x = self.elements(numbers)  # (N, F)  (1)
        for k in range(len(self.blocks)):
            x = self.blocks[k](x, g, envelope, receivers, senders)  # (3)-(6)
        ends = self.join_ends((gather(x, receivers), gather(x, senders), g))  # (E, 3 F)
        return (self.multiply(pair_total(self.readout(ends)), self.symmetric) * of_pairs,)  # (P, 9)  (7)
