"""SEGNN: steerable E(3) equivariant messages, whose nonlinearity is steered by the geometry of edges and nodes.

Paper: Brandstetter et al., ICLR 2022 (arXiv 2110.02905).

    (1)  a_ij = Y(r_ij / |r_ij|),  a_i = mean_j a_ij          attributes; the first component of a_i is 1
    (2)  f_i  = O_a(e[Z_i])                                   embedding of the element
    (3)  m_ij = gate(O_a(gate(O_a(f_i + f_j + |r_ij|^2))))    with a = a_ij; + puts irreps side by side
    (4)  f_i <- norm(f_i + O_a(gate(O_a(f_i + sum_j m_ij))))  with a = a_i
    (5)  q_i  = O_a(gate(O_a(f_i)))                           with a = a_i: scalars, read by ``models.heads``

O_a is a fully connected tensor product with the attributes a, with a bias on its scalars; without a normalisation other
than sqrt(2 l + 1) of the output, for the weights are drawn from +-1 / sqrt(products that are added).  Y have degrees 0
to ``lmax_attributes`` and e3nn's normalisation ``component``, and r_ij points from atom i to its neighbour j.

The network of the messages (3) is computed in the frame of each edge (``models.e3.edge_frame``), where a_ij has one
component of each degree and a product needs less than half of the multiplications.

Departures: (1) of an atom without neighbours is 1 and zeros, where the authors' code fails.  The element of a node has
119 rows, of which QM9 uses five.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Uniform

from models.blocks import AddBias, default_uniform
from models.e3.edge_frame import EdgeFrames, EndsIntoFrame, OutOfFrame
from models.e3.frame_product import FrameGate, FrameTensorProduct
from models.e3.hidden_irreps import hidden_irreps, with_gates
from models.e3.irreps import Irreps
from models.e3.layout import SideBySide, padding, split_and_join
from models.e3.nonlinear import Gate
from models.e3.norm import BatchNorm, InstanceNorm
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling, FullyConnectedTensorProduct
from models.elements import ElementEmbedding
from models.graph_ops import edge_vectors, gather, segment_mean, segment_sum, to_type
from models.precision import Precision
from models.swish import Swish

NORMS = ("instance", "batch", "none")
TASKS = ("graph", "node")
NODE_FEATURES = ("one_hot", "cormorant")
ELEMENTS_OF_QM9 = ("H", "C", "N", "O", "F")
CONTRACTIONS = {"float16": mstype.float16, "float32": mstype.float32, "float64": mstype.float64}


def draw_weights(product: Any, dtype: mstype.Type) -> None:
    """Weights and biases from +-1 / sqrt(products that are added in their output)."""
    for parameter, fan_in in ((product.weight, product.fan_in), (product.bias, product.fan_in_of_bias)):
        drawn = default_uniform((len(fan_in),), 1, mstype.float64).asnumpy() / np.sqrt(fan_in)
        parameter.set_data(Tensor(drawn, dtype))


class Embedding(nn.Cell):
    """Equation (2): the product with a one-hot vector is a row of a table, times the attribute of each degree.

    Args:
        irreps: of the nodes.
        node_features: ``one_hot``, the element; ``cormorant``, also the powers 1 and 2 of its atomic number, divided by
            the largest one in the graph (Anderson et al., arXiv 1906.04015).
        lmax: of the attributes.
        dtype: of the parameters.
    """

    def __init__(self, irreps: Irreps, node_features: str, lmax: int, dtype: mstype.Type):
        super().__init__()
        powers = 3 if node_features == "cormorant" else 1
        inputs = len(ELEMENTS_OF_QM9) * powers
        self.tables = nn.CellList(
            [ElementEmbedding(irreps.num_irreps, Uniform(inputs**-0.5), dtype) for _ in range(powers)]
        )
        self.bias = Parameter(default_uniform((irreps[0].mul,), inputs, dtype), name="bias")
        of_copies, of_attributes = np.zeros((irreps.num_irreps, irreps.dim)), np.zeros(((lmax + 1) ** 2, irreps.dim))
        copy, start = 0, 0
        for mul, ir in irreps:
            for component in range(ir.dim):
                columns = slice(start + component * mul, start + (component + 1) * mul)
                of_copies[copy : copy + mul, columns] = np.eye(mul)
                if ir.l <= lmax:
                    of_attributes[ir.l**2 + component, columns] = 1
            copy, start = copy + mul, start + mul * ir.dim
        self.of_copies, self.of_attributes = Tensor(of_copies, dtype), Tensor(of_attributes, dtype)
        self.pad: Any = padding(irreps[0].mul, irreps.dim)
        self.multiply, self.add_bias, self.largest = ops.MatMul(), AddBias(), ops.UnsortedSegmentMax()

    def construct(self, numbers: Tensor, attributes: Tensor, node_graph: Tensor, graph_mask: Tensor) -> Tensor:
        """Atomic numbers (N,), attributes (N, A), and the graph of each node to features (N, dim)."""
        features = self.tables[0](numbers)  # (N, copies)
        if len(self.tables) > 1:
            z = to_type(numbers, features.dtype)  # (N,)
            heaviest = gather(self.largest(z, node_graph, graph_mask.shape[0]), node_graph)
            share = (z / ops.maximum(heaviest, ops.ones_like(heaviest))).reshape(-1, 1)  # 0 for ghosts
            features = features + share * (self.tables[1](numbers) + share * self.tables[2](numbers))
        products = self.multiply(features, self.of_copies) * self.multiply(attributes, self.of_attributes)
        return self.add_bias(products, self.bias if self.pad is None else self.pad(self.bias))  # (N, dim)


class Message(nn.Cell):
    """Equation (3), in the frame of each edge, and its sum."""

    def __init__(self, irreps: Irreps, lmax_attributes: int, norm: str, contraction: mstype.Type, dtype: mstype.Type):
        super().__init__()
        inner, gated = with_gates(irreps), irreps.lmax > 0
        degree = max(irreps.lmax, 1)  # of the frames
        self.into = EndsIntoFrame(irreps, degree, contraction)
        self.out = OutOfFrame(irreps, degree, contraction)
        self.first = FrameTensorProduct(
            self.into.irreps_out, inner, lmax_attributes, "none", dtype, contraction, self.into.order
        )
        self.second = FrameTensorProduct(irreps, inner, lmax_attributes, "none", dtype, contraction)
        for product in (self.first, self.second):
            draw_weights(product, dtype)
        self.gate: Any = FrameGate(irreps, dtype, contraction) if gated else None
        self.swish = Swish()
        self.norm: Any = BatchNorm(irreps, dtype) if norm == "batch" else None

    def construct(self, nodes: Tensor, frames: Any, receivers: Tensor, senders: Tensor, edge_mask: Tensor) -> Tensor:
        """Features (N, dim) and frames of the edges to the sums of messages (N, dim)."""
        z = self.activate(self.first.of_ends(self.into, nodes, frames, receivers, senders))
        z = self.activate(self.second(z))
        if self.norm is None:
            return self.out.summed(z, frames, receivers, nodes)
        return segment_sum(self.norm(self.out(z, frames), edge_mask), receivers, nodes)

    def activate(self, z: Tensor) -> Tensor:
        """The gate, or the plain activation of scalars."""
        return self.swish(z) if self.gate is None else self.gate(z)


class SteerableLayer(nn.Cell):
    """O_a with the attributes of nodes, and after it a gate where one is asked for."""

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        gated: bool,
        coupling: Coupling,
        contraction: mstype.Type,
        dtype: mstype.Type,
        sides: int = 1,
    ):
        super().__init__()
        inner = with_gates(irreps_out) if gated and irreps_out.lmax else irreps_out
        self.product = FullyConnectedTensorProduct(
            irreps_in, inner, coupling, "component", "none", True, True, dtype, contraction, sides
        )
        draw_weights(self.product, dtype)
        self.activation: Any = None
        if gated and irreps_out.lmax:
            scalars, others = irreps_out[:1], Irreps(irreps_out[1:])
            gates = Irreps([(others.num_irreps, "0e")])
            self.activation = Gate(Irreps(scalars), ["silu"], gates, ["sigmoid"], others, False, dtype)
        elif gated:
            self.activation = Swish()

    def construct(self, x: Tensor, matrices: Any) -> Tensor:
        """Features (N, dim) and the coupling of the attributes to features (N, dim)."""
        y = self.product(x, matrices)
        return y if self.activation is None else self.activation(y)


class Layer(nn.Cell):
    """Equations (3) and (4)."""

    def __init__(
        self,
        irreps: Irreps,
        lmax_attributes: int,
        norm: str,
        coupling: Coupling,
        contraction: mstype.Type,
        dtype: mstype.Type,
    ):
        super().__init__()
        self.message = Message(irreps, lmax_attributes, norm, contraction, dtype)
        self.side_by_side = SideBySide(irreps)
        self.update_first = SteerableLayer(irreps + irreps, irreps, True, coupling, contraction, dtype, 2)
        self.update_second = SteerableLayer(irreps, irreps, False, coupling, contraction, dtype)
        self.norm: Any = None
        if norm == "instance":
            self.norm = InstanceNorm(irreps, dtype)
        elif norm == "batch":
            self.norm = BatchNorm(irreps, dtype)
        self.by_graph = norm == "instance"

    def construct(
        self,
        nodes: Tensor,
        matrices: Any,
        edges: tuple,
        receivers: Tensor,
        senders: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """Features (N, dim), the coupling of the node attributes, and frames and mask of the edges to (N, dim)."""
        messages = self.message(nodes, edges[0], receivers, senders, edges[1])
        update = self.update_first(self.side_by_side(nodes, messages), matrices)
        nodes = nodes + self.update_second(update, matrices)
        if self.norm is None:
            return nodes
        return self.norm(nodes, node_graph, node_mask, graph_mask) if self.by_graph else self.norm(nodes, node_mask)


class SEGNN(nn.Cell):
    """SEGNN of the module's equations.

    Args:
        features: size of the hidden irreps; see ``hidden_irreps``.
        blocks: number of layers (3) to (4).
        lmax: largest degree of the hidden irreps.
        lmax_attributes: largest degree of the attributes.
        cutoff: Angstrom; the graph must hold every pair closer than this.
        subspace: one of ``SUBSPACES``.
        norm: one of ``NORMS``.
        task: one of ``TASKS``: values of a node are pooled and read by a network (graph), or are the result (node).
        pooling: one of ``models.heads.OF_SEVERAL``, for the task ``graph``.
        node_features: one of ``NODE_FEATURES``.
        outputs: values of a graph or of a node.
        ncon_dtype: one of ``CONTRACTIONS``, the precision of the products with attributes.
        kinds: precisions of parameters and arithmetic, all the same.

    Attributes:
        pooled: values of a node that a graph's network reads; 0 for the task ``node``.
        pooling: how they are pooled.

    Raises:
        ValueError: a name is unknown, or numbers do not fit each other.
    """

    def __init__(
        self,
        features: int,
        blocks: int,
        lmax: int,
        lmax_attributes: int,
        cutoff: float,
        subspace: str,
        norm: str,
        task: str,
        pooling: str,
        node_features: str,
        outputs: int,
        ncon_dtype: str,
        kinds: Precision,
    ):
        super().__init__()
        if node_features == "gilmer":
            raise ValueError("node_features gilmer: they need bonds, which a structure does not have; expected one_hot "
                             "or cormorant")  # fmt: skip
        for name, names in (
            (norm, NORMS), (task, TASKS), (node_features, NODE_FEATURES), (ncon_dtype, CONTRACTIONS)
        ):  # fmt: skip
            if name not in names:
                raise ValueError(f"{name!r}: expected one of {', '.join(names)}")
        if kinds.edges != kinds.weights:
            raise ValueError("amp_level: expected O0; float16 in the contraction is ncon_dtype=float16")
        dtype, contraction = kinds.weights, CONTRACTIONS[ncon_dtype]
        irreps = hidden_irreps(features, lmax, lmax_attributes, subspace)
        attributes = Irreps.spherical_harmonics(lmax_attributes)
        self.irreps, self.dtype = irreps, dtype
        self.harmonics = SphericalHarmonics(lmax_attributes, True, "component", dtype)
        self.frames = EdgeFrames(max(lmax, 1), dtype, contraction)
        degrees = [part.ir for part in irreps]
        self.coupling = Coupling(attributes, degrees, degrees, dtype, contraction)
        self.first_component = Tensor(np.eye(1, attributes.dim), dtype)
        self.others = Tensor(1 - np.eye(1, attributes.dim), dtype)
        self.embedding = Embedding(irreps, node_features, lmax_attributes, dtype)
        self.layers = nn.CellList(
            [Layer(irreps, lmax_attributes, norm, self.coupling, contraction, dtype) for _ in range(blocks)]
        )
        self.pooling = pooling
        self.pooled = 0 if task == "node" else irreps.num_irreps * outputs
        read = Irreps([(outputs if task == "node" else self.pooled, "0e")])
        self.pre_pool_first = SteerableLayer(irreps, irreps, True, self.coupling, contraction, dtype)
        self.pre_pool_second = SteerableLayer(irreps, read, False, self.coupling, contraction, dtype)
        self.by_irreps, _ = split_and_join([part.dim for part in irreps])

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
        """Graph inputs to values of the nodes (N, pooled or outputs) and their scalars (N, copies of 0e)."""
        kind = self.dtype
        node_mask, graph_mask = to_type(node_mask, kind), to_type(graph_mask, kind)
        vectors = edge_vectors(to_type(positions, kind), senders, receivers, to_type(shifts, kind))  # (E, 3)
        edge_attributes = self.harmonics(vectors)  # (E, A)  (1)
        edge_mask = gather(node_mask, receivers)
        mean = segment_mean(edge_attributes, receivers, edge_mask, node_mask)  # (N, A)
        attributes = mean * self.others + self.first_component
        edges, matrices = (self.frames(vectors), edge_mask), self.coupling(attributes)
        nodes = self.embedding(numbers, attributes, node_graph, graph_mask)  # (N, dim)  (2)
        for layer in self.layers:
            nodes = layer(nodes, matrices, edges, receivers, senders, node_graph, node_mask, graph_mask)  # (3)-(4)
        values = self.pre_pool_second(self.pre_pool_first(nodes, matrices), matrices)  # (N, ...)  (5)
        return values, self.by_irreps(nodes)[0]
