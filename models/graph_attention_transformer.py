"""Equiformer's graph attention transformer: attention over neighbours whose messages are tensor products.

Paper: Liao and Smidt, ICLR 2023 (arXiv 2206.11990), with nonlinear messages.

    (1)  x_i  = a[Z_i] + (1 / sqrt(D)) sum_j f_ij L(1 (x)_w Y(r_ij))            element, and degree of the edges
    (2)  w_ij = f_ij R(e(d_ij))                                                 R: linear, layer norm, swish
    (3)  m_ij = (L x_j + L x_i) (x)_w Y(r_ij)                                   depthwise tensor product
    (4)  a_ij^h = f_ij exp(s_ij^h) / (1 + sum_k f_ik exp(s_ik^h)),   s_ij^h = c^h . leaky(L m_ij)^h
    (5)  v_ij = L(gate(L m_ij) (x) Y(r_ij))                                     with weights of its own
    (6)  x_i <- x_i + L(sum_j a_ij v_ij),   x_i <- x_i + L gate(L x_i)          both after a layer norm of x
    (7)  q_i  = (1 / sqrt(M)) L silu(L h_i),   h_i = norm(x_i)                  atom value, reduced by the readout
    (8)  q_i  = sum_j f_ij (1 / sqrt(M D)) L silu(L (h_i + h_j))                instead of (7), ``values="edges"``

L are linear layers of irreps, one for each place where the letter stands, with a bias on scalars (L x_i in (3) has
none).  In (4) each head h has channels of its own in s and in v.  D and M are average numbers of neighbours and of
atoms.  The last update of (6) leads to scalars alone, and there x_i is taken by a linear layer too.

f falls to 0 at the cutoff with its first two derivatives, and so does what a neighbour contributes: an energy and its
second derivatives are continuous.  Without it (``envelope="none"``, the paper) f = 1 and the 1 in (4) is missing.

Irreps such as ``64x1e`` without odd ones beside them break the mirror: harmonics of odd degree then count as even, and
a molecule and its mirror image have different energies.  The authors' published models for QM9 are of this kind, save
one.

Departures: f and (8).  ``elements="described"`` is that of SchNet.  The element of a node has 119 rows, of which QM9
uses five.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import AddBias
from models.e3.channels import with_copies
from models.e3.depthwise_product import prepared
from models.e3.dropout import DropPath, EquivariantDropout
from models.e3.irreps import Irreps
from models.e3.mixed_product import MixedProduct
from models.e3.nonlinear import Activation
from models.e3.norm import EquivariantLayerNorm
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling
from models.element_descriptions import DescribedElements
from models.elements import ElementEmbedding
from models.graph_attention import (
    SCALAR,
    FeedForward,
    GraphAttention,
    RadialWeights,
    Shapes,
    depthwise,
    linear,
)
from models.graph_ops import PairDistances, both_ways, edge_vectors, gather, segment_sum, to_type
from models.precision import Precision
from models.radial import NoCutoff, PolynomialEnvelope, ScaledBesselBasis, TrainedGaussians

BASES = ("gaussian", "bessel")
NORMS = ("layer", "smooth", "none")
FLOOR = 1.0  # of a smooth norm
ENVELOPES = ("polynomial", "none")
ELEMENTS = ("free", "described")
VALUES = ("nodes", "edges")
ENVELOPE_EXPONENT = 5  # the polynomial 1 - 28 x^6 + 48 x^7 - 21 x^8 of x = d / cutoff


def breaks_mirror(node: str | Irreps) -> bool:
    """Whether irreps of a node hold an even one of odd degree, such as 1e, and no odd one at all."""
    present = [part.ir for part in Irreps(node) if part.mul]
    return any(ir.l % 2 == 1 for ir in present) and all(ir.p == 1 for ir in present)


def with_scalars(text: str) -> Irreps:
    """Irreps, of which those without a copy are left out.

    Raises:
        ValueError: there is no scalar.
    """
    irreps = with_copies(text)
    if SCALAR not in irreps:
        raise ValueError(f"irreps {text!r}: expected scalars among them, such as 128x0e+64x1o+32x2e")
    return irreps


def normalization(norm: str, irreps: Irreps, dtype: mstype.Type) -> nn.Cell:
    """One of ``NORMS``."""
    if norm == "none":
        return nn.Identity()
    return EquivariantLayerNorm(irreps, dtype, FLOOR) if norm == "smooth" else EquivariantLayerNorm(irreps, dtype)


def placement(node: Irreps, dtype: mstype.Type) -> Tensor:
    """What puts scalars where the 0e of a node are, (scalars, dim)."""
    place = np.concatenate([np.full(part.dim, part.ir == SCALAR) for part in node])
    return Tensor(np.eye(node.dim)[place], dtype)


def coupling_of(shapes: Shapes, lmax: int, dtype: mstype.Type) -> Coupling:
    """Of each irrep of a node with Y to all that a product leads to."""
    attributes = Irreps.spherical_harmonics(lmax, 1 if breaks_mirror(shapes.node) else -1)
    reached = dict.fromkeys([SCALAR, *(part.ir for part in shapes.node + shapes.head)])
    return Coupling(attributes, [part.ir for part in shapes.node], list(reached), dtype, dtype)


def _check(names: tuple, kinds: Precision, average_degree: float, average_nodes: float) -> None:
    """Raises ValueError for a name that is none of its choices, for float16, and for averages that are none."""
    for name, choices in names:
        if name not in choices:
            raise ValueError(f"{name!r}: expected one of {', '.join(choices)}")
    if kinds.edges != kinds.weights:
        raise ValueError("amp_level: expected O0, there is no float16 in the graph attention transformer")
    if min(average_degree, average_nodes) <= 0:
        raise ValueError(f"average_degree {average_degree:g}, average_nodes {average_nodes:g}: expected more than 0")


class Embedding(nn.Cell):
    """The element in (1), with a bias, as the scalars of a node."""

    def __init__(self, node: Irreps, elements: str, dtype: mstype.Type):
        super().__init__()
        scalars = node.count(SCALAR)
        free = elements == "free"
        self.elements = ElementEmbedding(scalars, Normal(1.0), dtype) if free else DescribedElements(scalars, dtype)
        self.bias = Parameter(initializer("zeros", (scalars,), dtype), name="bias")
        self.place, self.multiply, self.add_bias = placement(node, dtype), ops.MatMul(), AddBias()

    def construct(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N,) to (N, dim)."""
        return self.multiply(self.add_bias(self.elements(numbers), self.bias), self.place)


class EdgeDegree(nn.Cell):
    """The sum of (1): what the geometry of its edges says of an atom, whatever the elements are."""

    def __init__(self, shapes: Shapes, coupling: Coupling, average_degree: float, dtype: mstype.Type):
        super().__init__()
        node = shapes.node
        scalars = node.count(SCALAR)
        self.weight = Parameter(initializer(Normal(1.0), (scalars,), dtype), name="weight")
        self.bias = Parameter(initializer("zeros", (scalars,), dtype), name="bias")
        self.place, self.multiply = placement(node, dtype), ops.MatMul()
        self.product = depthwise(node, coupling, node, dtype)
        self.radial = RadialWeights(shapes, self.product.numel, dtype)
        self.project = linear(self.product.irreps_out, node, dtype)
        self.mixed = MixedProduct(self.product, (self.project,))
        self.scale = Tensor(average_degree**-0.5 * np.ones((1, node.dim)), dtype)

    def construct(self, edges: tuple, like: Tensor) -> Tensor:
        """What layers read of the edges to (N, dim); ``like`` has N rows."""
        basis, envelope, attributes, receivers, _ = edges
        of_edges = both_ways(envelope)  # (E, 1)
        constant = self.multiply((self.weight + self.bias).reshape(1, -1), self.place)  # (1, dim)
        rows = self.multiply(ops.ones_like(of_edges), constant)  # (E, dim)
        (found,) = self.mixed(rows, attributes, self.radial(basis, envelope))
        scales = self.multiply(of_edges, self.scale)  # (E, dim)
        return segment_sum(found * scales, receivers, like)


class Block(nn.Cell):
    """Equations (3) to (6)."""

    def __init__(
        self,
        shapes: Shapes,
        irreps_out: Irreps,
        coupling: Coupling,
        norm: str,
        smooth: bool,
        rates: tuple[float, float, float],
        dtype: mstype.Type,
    ):
        super().__init__()
        node, (alpha_drop, proj_drop, drop_path) = shapes.node, rates
        self.norm_1, self.norm_2 = normalization(norm, node, dtype), normalization(norm, node, dtype)
        self.attention = GraphAttention(shapes, coupling, smooth, alpha_drop, proj_drop, dtype)
        self.feed_forward = FeedForward(node, shapes.mlp, irreps_out, proj_drop, dtype)
        self.shortcut: Any = None if irreps_out == node else linear(node, irreps_out, dtype)
        self.drop_first, self.drop_second = (DropPath(drop_path, one.dim, dtype) for one in (node, irreps_out))

    def construct(self, nodes: Tensor, edges: tuple, node_graph: Tensor, graph_mask: Tensor) -> Tensor:
        """(N, dim) to (N, dim of the result)."""
        update = self.attention(self.norm_1(nodes), edges)
        nodes = nodes + self.drop_first(update, node_graph, graph_mask)
        update = self.drop_second(self.feed_forward(self.norm_2(nodes)), node_graph, graph_mask)
        return update + (nodes if self.shortcut is None else self.shortcut(nodes))


class Head(nn.Cell):
    """Equation (7) after the norm, and the layers of (8)."""

    def __init__(self, features: Irreps, rate: float, average_nodes: float, dtype: mstype.Type):
        super().__init__()
        if features.count(SCALAR) != features.dim:
            raise ValueError(f"irreps_features {features}: expected scalars, such as 512x0e")
        self.hidden, self.output = linear(features, features, dtype), linear(features, Irreps("1x0e"), dtype)
        self.drop, self.silu = EquivariantDropout(features, rate, dtype), Activation(features, ["silu"], dtype)
        self.scale = Tensor(average_nodes**-0.5, dtype)

    def construct(self, nodes: Tensor) -> Tensor:
        """(N, F) to (N, 1)."""
        return self.output(self.silu(self.hidden(self.drop(nodes)))) * self.scale


class GraphAttentionTransformer(nn.Cell):
    """Equiformer of the module's equations.

    Args:
        irreps: of a node.
        irreps_head: of a head's share of v.
        irreps_mlp: between the two layers of a feed-forward network.
        irreps_features: of a node after the last block, scalars.
        blocks: updates (6).
        heads: H.
        lmax: largest degree of the harmonics Y.
        cutoff: Angstrom; the graph must hold every pair closer than this.
        basis: one of ``BASES``, e of (2).
        radial: number of radial functions.
        radial_features: size of the hidden layers of R.
        radial_layers: how many.
        norm: one of ``NORMS``.
        envelope: one of ``ENVELOPES``.
        elements: one of ``ELEMENTS``.
        values: one of ``VALUES``: (7) or (8).
        recompute: keep nothing of a block for its derivative, compute it again instead.
        average_degree: D.
        average_nodes: M.
        alpha_drop: rate of the dropout of a_ij.
        proj_drop: rate of the dropout of the updates.
        out_drop: rate of the dropout of the features that are read.
        drop_path: probability that a graph skips an update.
        kinds: precisions of parameters and arithmetic, all the same.

    Raises:
        ValueError: a name or irreps that cannot be, or numbers that do not fit each other.

    Attributes:
        of_operators: most layers have no kernel; products of the Hessian keep more for it (``physics.memory``).
    """

    of_operators = True

    def __init__(
        self,
        irreps: str,
        irreps_head: str,
        irreps_mlp: str,
        irreps_features: str,
        blocks: int,
        heads: int,
        lmax: int,
        cutoff: float,
        basis: str,
        radial: int,
        radial_features: int,
        radial_layers: int,
        norm: str,
        envelope: str,
        elements: str,
        values: str,
        recompute: bool,
        average_degree: float,
        average_nodes: float,
        alpha_drop: float,
        proj_drop: float,
        out_drop: float,
        drop_path: float,
        kinds: Precision,
    ):
        super().__init__()
        names = ((basis, BASES), (norm, NORMS), (envelope, ENVELOPES), (elements, ELEMENTS), (values, VALUES))
        _check(names, kinds, average_degree, average_nodes)
        node, head, mlp, features = map(with_scalars, (irreps, irreps_head, irreps_mlp, irreps_features))
        head = head.sort(even_first=True).irreps.simplify()
        shapes = Shapes(node, head, mlp, features, heads, radial, radial_features, radial_layers)
        dtype, smooth = kinds.weights, envelope == "polynomial"
        self.irreps, self.dtype = node, dtype
        self.distances, self.harmonics = PairDistances(dtype), SphericalHarmonics(lmax, True, "component", dtype)
        self.coupling = coupling_of(shapes, lmax, dtype)
        self.prepare = prepared(self.coupling)
        bases: dict[str, Callable[..., nn.Cell]] = {"gaussian": TrainedGaussians, "bessel": ScaledBesselBasis}
        self.basis = bases[basis](radial, cutoff, dtype)
        self.envelope: nn.Cell = PolynomialEnvelope(cutoff, ENVELOPE_EXPONENT, dtype) if smooth else NoCutoff()
        self.embedding = Embedding(node, elements, dtype)
        self.edge_degree = EdgeDegree(shapes, self.coupling, average_degree, dtype)
        rates, results = (alpha_drop, proj_drop, drop_path), [node] * (blocks - 1) + [features]
        self.blocks = nn.CellList([Block(shapes, one, self.coupling, norm, smooth, rates, dtype) for one in results])
        for block in self.blocks if recompute else ():
            block.recompute()
        self.norm, self.head = normalization(norm, features, dtype), Head(features, out_drop, average_nodes, dtype)
        self.of_edges, self.edge_scale = values == "edges", Tensor(average_degree**-0.5, dtype)

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
        """Graph inputs to atom values (N, 1) and node features (N, F)."""
        graph_mask = to_type(graph_mask, self.dtype)
        nodes, edges = self.begin(numbers, positions, senders, receivers, shifts)
        for block in self.blocks:
            nodes = block(nodes, edges, node_graph, graph_mask)  # (2)-(6)
        nodes = self.norm(nodes)  # (N, F)
        if not self.of_edges:
            return self.head(nodes), nodes  # (7)
        pairs = edges[0].shape[0]
        ends = gather(nodes, receivers[:pairs]) + gather(nodes, senders[:pairs])  # (P, F)
        values = self.head(ends) * edges[1] * self.edge_scale  # (P, 1)
        return segment_sum(both_ways(values), receivers, nodes), nodes  # (8)

    def begin(
        self, numbers: Tensor, positions: Tensor, senders: Tensor, receivers: Tensor, shifts: Tensor
    ) -> tuple[Tensor, tuple]:
        """Equation (1), features (N, dim), and what layers read of the edges."""
        kind = self.dtype
        positions, shifts = to_type(positions, kind), to_type(shifts, kind)
        distances = self.distances(positions, senders, receivers, shifts)  # (P, 1)
        harmonics = self.harmonics(edge_vectors(positions, senders, receivers, shifts))  # (E, (lmax + 1)^2)
        edges = self.basis(distances), self.envelope(distances), self.prepare(harmonics), receivers, senders
        nodes = self.embedding(numbers)
        return nodes + self.edge_degree(edges, nodes), edges  # (N, dim)  (1)

    def attention(self, *graph: Tensor) -> tuple:
        """Graph inputs to the attention a_ij of each block in turn: (E, H) of the edges j -> i."""
        node_graph, _, graph_mask = graph[-3:]
        graph_mask = to_type(graph_mask, self.dtype)
        nodes, edges = self.begin(*graph[:5])
        found: tuple = ()
        for block in self.blocks:
            found = (*found, block.attention.attend(block.norm_1(nodes), edges)[1])
            nodes = block(nodes, edges, node_graph, graph_mask)
        return found
