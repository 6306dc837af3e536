"""SchNet: continuous-filter convolutions on atoms.

Papers: Schuett et al., NeurIPS 2017 (arXiv 1706.08566), and J. Chem. Phys. 148, 241722 (2018).

    (1)  x_i^0     = a[Z_i]                                        embedding of the element
    (2)  W_ij      = filter(e(d_ij)) f_cut(d_ij)                   dense - ssp - dense on Gaussians of the distance
    (3)  m_i       = sum_j (W_in x_j) * W_ij                       continuous-filter convolution, elementwise product
    (4)  x_i^{t+1} = x_i^t + dense(ssp(dense(m_i)))                residual update
    (5)  q_i       = dense(act(dense(x_i^T)))                      atom value, reduced by ``models.heads.Readout``

W_ij depends on the distance alone, so it is computed for all interactions at once, once for each pair of atoms, and
used for both directions: edge e + E/2 is the reverse of edge e (the law of pairs of the graph inputs).

Conventions:
    ``pyg``          torch_geometric: ssp in (5).
    ``schnetpack``   SiLU in (5).
    ``2017``         the first paper: Gaussians every 0.1 Angstrom with gamma = 10 / Angstrom^2, a second ssp after the
                     filter network, no f_cut (so the cutoff must exceed every distance).

Departures: ``elements="described"`` adds to (1) a function of the element's place in the periodic table and its radius
(``models.element_descriptions``), for data with few examples of each.  ``envelope="polynomial"`` replaces the cosine of
f_cut, whose curvature jumps at the cutoff, by a polynomial with continuous second derivatives.  ``filter="matrix"`` is
an ablation: (3) becomes m_i = sum_j W_ij (W_in x_j + b) with a full F' x F' matrix W_ij.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn
from mindspore.common.initializer import Normal, initializer

from models.blocks import Dense, ShiftedSoftplus, SideBySide, TwoLayers
from models.element_descriptions import DescribedElements
from models.elements import ElementEmbedding
from models.graph_ops import PairDistances, PairSum, to_type
from models.precision import Precision
from models.radial import CosineCutoff, GaussianBasis, NoCutoff, PolynomialEnvelope
from models.swish import Swish

CONVENTIONS = ("pyg", "schnetpack", "2017")
FILTERS = ("elementwise", "matrix")
ELEMENTS = ("free", "described")
ENVELOPES = ("cosine", "polynomial")
OUTPUT_INITS = ("glorot", "zeros")
SPACING_2017, GAMMA_2017 = 0.1, 10.0  # Angstrom, 1/Angstrom^2
ENVELOPE_EXPONENT = 5  # the polynomial 1 - 28 x^6 + 48 x^7 - 21 x^8 of x = d / cutoff


class Interaction(nn.Cell):
    """Equations (3) and (4), the update of the nodes, and the filter network of (2)."""

    def __init__(
        self,
        features: int,
        filters: int,
        gaussians: int,
        matrix: bool,
        pair_sum: PairSum,
        kinds: Precision,
    ):
        super().__init__()
        dtype, ssp = kinds.weights, ShiftedSoftplus(kinds.weights)
        self.filter = TwoLayers(gaussians, filters, filters * filters if matrix else filters, ssp, dtype)
        self.input = Dense(features, filters, dtype, bias=matrix)
        self.pair_sum = pair_sum
        self.update = TwoLayers(filters, features, features, ssp, dtype)

    def construct(self, nodes: Tensor, filters: tuple | Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Nodes (N, F), filters as ``PairSum`` takes them and the atoms of each edge (E,) to the update (N, F)."""
        messages = self.pair_sum(self.input(nodes), filters, receivers, senders)  # (N, F')  (3)
        return self.update(messages)  # (N, F)  (4)


class SchNet(nn.Cell):
    """SchNet of the module's equations.

    Args:
        features: F, size of an atom's feature vector.
        filters: F', size of a filter.
        blocks: number of interactions.
        gaussians: K, number of radial basis functions between 0 and ``cutoff``.
        cutoff: Angstrom; the graph must hold every pair closer than this.
        convention: one of ``CONVENTIONS``.
        filter: one of ``FILTERS``.
        elements: one of ``ELEMENTS``.
        envelope: one of ``ENVELOPES``; the convention ``2017`` has none.
        output_init: one of ``OUTPUT_INITS``, of the last layer's weights; with ``zeros`` an untrained network predicts
            0 everywhere instead of a large number that the first epochs must unlearn.
        outputs: C, values of an atom.
        kinds: precisions of parameters and arithmetic.

    Raises:
        ValueError: a name is unknown, or a polynomial envelope for the convention 2017.
    """

    def __init__(
        self,
        features: int,
        filters: int,
        blocks: int,
        gaussians: int,
        cutoff: float,
        convention: str,
        filter: str,
        elements: str,
        envelope: str,
        output_init: str,
        outputs: int,
        kinds: Precision,
    ):
        super().__init__()
        for name, names in (
            (convention, CONVENTIONS), (filter, FILTERS), (elements, ELEMENTS), (envelope, ENVELOPES),
            (output_init, OUTPUT_INITS),
        ):  # fmt: skip
            if name not in names:
                raise ValueError(f"{name!r}: expected one of {', '.join(names)}")
        paper, matrix, dtype = convention == "2017", filter == "matrix", kinds.weights
        if paper and envelope != "cosine":
            raise ValueError(f"envelope {envelope}: expected cosine, which the convention 2017 leaves out")
        self.kinds = kinds
        free = elements == "free"
        self.embedding = ElementEmbedding(features, Normal(1.0), dtype) if free else DescribedElements(features, dtype)
        self.distances = PairDistances(kinds.atoms)
        # evenly from 0 to the cutoff with the spacing as width, or the fixed grid of the first paper
        offsets = SPACING_2017 * np.arange(gaussians) if paper else np.linspace(0.0, cutoff, gaussians)
        self.basis = GaussianBasis(offsets, -GAMMA_2017 if paper else -0.5 / offsets[1] ** 2, dtype)
        if paper:
            self.envelope: nn.Cell = NoCutoff()
        elif envelope == "polynomial":
            self.envelope = PolynomialEnvelope(cutoff, ENVELOPE_EXPONENT, kinds.atoms)
        else:
            self.envelope = CosineCutoff(cutoff, kinds.atoms)
        self.pair_sum = PairSum(filters, matrix, kinds.edges)
        self.interactions = nn.CellList(
            [Interaction(features, filters, gaussians, matrix, self.pair_sum, kinds) for _ in range(blocks)]
        )
        networks = [interaction.filter for interaction in self.interactions]
        self.filters = SideBySide(networks, ShiftedSoftplus(dtype) if paper else None)
        activation = Swish() if convention == "schnetpack" else ShiftedSoftplus(dtype)
        self.value = TwoLayers(features, features // 2, outputs, activation, dtype)
        if output_init == "zeros":
            self.value.output.weight.set_data(initializer("zeros", (outputs, features // 2), dtype))

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
    ) -> tuple[Tensor, Tensor]:
        """Graph inputs to atom values (N, C) and node features (N, F)."""
        atoms, edges = self.kinds.atoms, self.kinds.edges
        distances = self.distances(to_type(positions, atoms), senders, receivers, to_type(shifts, atoms))  # (P, 1)
        gaussians = to_type(self.basis(distances), edges)  # (P, K)
        envelope = to_type(self.envelope(distances), edges)  # (P, 1)
        nodes = to_type(self.embedding(numbers), atoms)  # (N, F)  (1)
        filters = self.pair_sum.prepare(self.filters(gaussians), envelope)  # B of W, each (P, F')  (2)
        for k in range(len(self.interactions)):
            nodes = nodes + self.interactions[k](nodes, filters[k], receivers, senders)  # (N, F)  (3)-(4)
        return self.value(nodes), nodes  # (N, C)  (5)
