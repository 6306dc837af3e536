"""DimeNet++: messages between atoms that know the angles between them.

Papers: Gasteiger et al., ICLR 2020 (arXiv 2003.03123) and the ++ variant, arXiv 2011.14115.  A message m_ji lives on
each edge j -> i; it is updated from the messages m_kj that end where it begins:

    (1)  e_RBF(d)        = u(d/c) sin(f_n d/c)                                       ``radial.BesselBasis``
    (2)  e_SBF(d, a)     = u(d/c) j_l(z_ln d/c) Y_l0(a)                              ``angular``
    (3)  m_ji            = s(W [h_i, h_j, s(W e_RBF(d_ji))])                         embedding
    (4)  m_kj'           = s(W_down (s(W_kj m_kj) * W e_RBF(d_kj)))                  what a neighbour sends
    (5)  m_ji'           = s(W_ji m_ji) + s(W_up sum_k m_kj' * W e_SBF(d_kj, a_kji)) what an edge receives
    (6)  m_ji           += residual layers and a skip from before the block
    (7)  t_i             = MLP(W_up sum_j m_ji * W e_RBF(d_ji))                      after the embedding and each block
    (8)  y               = sum_i sum_blocks t_i                                      ``models.heads.Readout``

s is the swish x sigmoid(x).  The angle is the one between r_i - r_j and r_j - r_k, as in the ++ variant; only its
cosine enters, so there is no arc function and straight lines are nothing special.

By the law of pairs of the graph inputs edge e + E/2 is the reverse of edge e, so that distances and radial functions
are computed once for each pair.  (3) is taken apart: W h_i is computed for each atom, not for each edge.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Uniform

from models.angular import SphericalBesselBasis, ZonalHarmonics
from models.blocks import JoinedLinear, Linear, Product, ResidualLayer, SwishLinear, default_uniform
from models.elements import ElementEmbedding
from models.graph_ops import TripletSum, both_ways, edge_vectors, gather, opposite_ways, safe_norm, segment_sum, to_type
from models.precision import Precision
from models.radial import BesselBasis
from models.swish import Swish

OUTPUT_INITS = ("zeros", "orthogonal")


class TripletBasis(nn.Cell):
    """Equation (2)."""

    def __init__(
        self,
        spherical: int,
        radial: int,
        cutoff: float,
        envelope_exponent: int,
        reference_bugs: bool,
        dtype: mstype.Type,
    ):
        super().__init__()
        self.radial = SphericalBesselBasis(spherical, radial, cutoff, envelope_exponent, reference_bugs, dtype)
        self.harmonics = ZonalHarmonics(spherical, radial, dtype)

    def construct(self, vectors: Tensor, distances: Tensor, triplet_in: Tensor, triplet_out: Tensor) -> Tensor:
        """Vectors (P, 3) of the pairs, their lengths (P, 1) and the edges of each triplet (T,) to (T, L R)."""
        directions = vectors / distances  # (P, 3)
        directions = opposite_ways(directions)  # (E, 3)
        cosines = (gather(directions, triplet_in) * gather(directions, triplet_out)).sum(-1)  # (T,)
        of_edges = both_ways(self.radial(distances))  # (E, L R)
        return gather(of_edges, triplet_in) * self.harmonics(cosines)  # (T, L R)


class Embedding(nn.Cell):
    """Equation (3)."""

    def __init__(self, features: int, radial: int, dtype: mstype.Type):
        super().__init__()
        self.features = features
        self.elements = ElementEmbedding(features, Uniform(3.0**0.5), dtype)
        self.radial = SwishLinear(radial, features, dtype)
        self.radial.weight.set_data(default_uniform((features, radial), radial, dtype))
        self.radial.bias.set_data(default_uniform((features,), radial, dtype))
        self.weight = Parameter(default_uniform((features, 3 * features), 3 * features, dtype), name="weight")
        self.bias = Parameter(default_uniform((features,), 3 * features, dtype), name="bias")
        self.product, self.swish, self.unstack, self.add = Product(), Swish(), ops.Unstack(1, 3), ops.AddN()

    def construct(self, numbers: Tensor, radial: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Atomic numbers (N,) and radial basis (E, R) to messages (E, F)."""
        first, second, third = self.unstack(self.weight.reshape(self.features, 3, self.features))  # (F, F) each
        atoms = self.elements(numbers)  # (N, F)
        of_receivers = self.product(atoms, first, self.bias)  # (N, F)
        of_senders = self.product(atoms, second, None)  # (N, F)
        of_receivers, of_senders = to_type(of_receivers, radial.dtype), to_type(of_senders, radial.dtype)
        of_edges = self.product(self.radial(radial), third, None)  # (E, F)
        return self.swish(self.add((gather(of_receivers, receivers), gather(of_senders, senders), of_edges)))  # (E, F)


class Interaction(nn.Cell):
    """Equations (4) to (6)."""

    def __init__(
        self,
        features: int,
        interaction_features: int,
        basis_features: int,
        radial: int,
        spherical: int,
        layers_before_skip: int,
        layers_after_skip: int,
        dtype: mstype.Type,
    ):
        super().__init__()
        self.radial_first = Linear(radial, basis_features, dtype)
        self.radial_second = Linear(basis_features, features, dtype)
        self.spherical_first = Linear(spherical * radial, basis_features, dtype)
        self.spherical_second = Linear(basis_features, interaction_features, dtype)
        self.join, self.product, self.triplet_sum = ops.MatMul(), Product(), TripletSum()
        self.source, self.target = SwishLinear(features, features, dtype), SwishLinear(features, features, dtype)
        self.down = SwishLinear(features, interaction_features, dtype, bias=False)
        self.up = SwishLinear(interaction_features, features, dtype, bias=False)
        self.before_skip = nn.SequentialCell([ResidualLayer(features, dtype) for _ in range(layers_before_skip)])
        self.skip = SwishLinear(features, features, dtype)
        self.after_skip = nn.SequentialCell([ResidualLayer(features, dtype) for _ in range(layers_after_skip)])

    def construct(
        self, messages: Tensor, radial: Tensor, spherical: Tensor, triplet_in: Tensor, triplet_out: Tensor
    ) -> Tensor:
        """Messages (E, F), radial basis (E, R) and spherical basis after ``spherical_first`` (T, B) to messages."""
        # nothing stands between the two layers of the radial basis: their product is one pass over the edges
        weight = self.join(self.radial_second.weight, self.radial_first.weight)  # (F, R)
        sent = self.down(self.source(messages) * self.product(radial, weight, None))  # (E, I)  (4)
        summed = self.triplet_sum(sent, spherical, self.spherical_second.weight, triplet_in, triplet_out)  # (E, I)
        hidden = self.target(messages) + self.up(summed)  # (E, F)  (5)
        return self.after_skip(self.skip(self.before_skip(hidden)) + messages)  # (E, F)  (6)


class Output(nn.Cell):
    """Equation (7)."""

    def __init__(
        self, features: int, radial: int, output_features: int, layers: int, outputs: int, init: str, dtype: mstype.Type
    ):
        super().__init__()
        self.radial = Linear(radial, features, dtype)
        self.up = Linear(features, output_features, dtype)
        self.hidden = nn.SequentialCell([SwishLinear(output_features, output_features, dtype) for _ in range(layers)])
        self.output = Linear(output_features, outputs, dtype, zeros=init == "zeros")

    def construct(self, messages: Tensor, radial: Tensor, receivers: Tensor, like: Tensor) -> Tensor:
        """Messages (E, F) and radial basis (E, R) to atom values (N, outputs), N and the precision being ``like``'s."""
        products = to_type(messages * self.radial(radial), like.dtype)
        summed = segment_sum(products, receivers, like)  # (N, F)
        return self.output(self.hidden(self.up(summed)))


class DimeNetPlusPlus(nn.Cell):
    """DimeNet++ of the module's equations.

    Args:
        features: F, size of a message.
        blocks: number of interactions.
        interaction_features: I, size of a message on its way through (5).
        basis_features: B, size between the two layers that a basis passes through.
        output_features: size of the hidden layers of (7).
        spherical: L, number of degrees l = 0 ... L - 1 in (2).
        radial: R, number of radial functions in (1) and for each degree in (2).
        cutoff: Angstrom; the graph must hold every pair closer than this, and its triplets.
        envelope_exponent: of the polynomial u.
        layers_before_skip, layers_after_skip: residual layers of (6).
        output_layers: hidden layers of (7).
        outputs: values of an atom.
        output_init: one of ``OUTPUT_INITS``, of the last layer of (7).  With ``zeros`` an untrained network predicts 0
            everywhere, and its first step changes nothing but that layer.
        reference_bugs: what the published weights have frozen in; see ``angular.SphericalBesselBasis``.
        kinds: precisions of parameters and arithmetic.

    Raises:
        ValueError: a number is too small or a name is unknown.
    """

    def __init__(
        self,
        features: int,
        blocks: int,
        interaction_features: int,
        basis_features: int,
        output_features: int,
        spherical: int,
        radial: int,
        cutoff: float,
        envelope_exponent: int,
        layers_before_skip: int,
        layers_after_skip: int,
        output_layers: int,
        outputs: int,
        output_init: str,
        reference_bugs: bool,
        kinds: Precision,
    ):
        super().__init__()
        self.add = ops.AddN()
        if output_init not in OUTPUT_INITS:
            raise ValueError(f"output_init {output_init!r}: expected one of {', '.join(OUTPUT_INITS)}")
        dtype, layers = kinds.weights, (layers_before_skip, layers_after_skip)
        self.kinds = kinds
        self.radial = BesselBasis(radial, cutoff, envelope_exponent, kinds.atoms)
        self.spherical = TripletBasis(spherical, radial, cutoff, envelope_exponent, reference_bugs, kinds.atoms)
        self.spherical_first = JoinedLinear(blocks, basis_features, dtype)
        self.embedding = Embedding(features, radial, dtype)
        self.interactions = nn.CellList(
            [
                Interaction(features, interaction_features, basis_features, radial, spherical, *layers, dtype)
                for _ in range(blocks)
            ]
        )
        self.outputs = nn.CellList(
            [
                Output(features, radial, output_features, output_layers, outputs, output_init, dtype)
                for _ in range(blocks + 1)
            ]
        )

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
        """Graph inputs to atom values (N, outputs) and node features (N, F), the sums of the last messages."""
        atoms, edges = self.kinds.atoms, self.kinds.edges
        positions, shifts, like = to_type(positions, atoms), to_type(shifts, atoms), to_type(node_mask, atoms)
        pairs = senders.shape[0] // 2
        vectors = edge_vectors(positions, senders[:pairs], receivers[:pairs], shifts[:pairs])  # (P, 3)
        distances = safe_norm(vectors)  # (P, 1)
        radial = to_type(both_ways(self.radial(distances)), edges)  # (E, R)  (1)
        spherical = to_type(self.spherical(vectors, distances, triplet_in, triplet_out), edges)  # (T, L R)  (2)
        weights: tuple = ()
        for interaction in self.interactions:
            weights = (*weights, interaction.spherical_first.weight)
        reduced = self.spherical_first(spherical, weights)  # [(T, B)], one for each interaction
        messages = self.embedding(numbers, radial, receivers, senders)  # (E, F)  (3)
        values: tuple = (self.outputs[0](messages, radial, receivers, like),)  # [(N, outputs)]  (7)
        for k in range(len(self.interactions)):
            messages = self.interactions[k](messages, radial, reduced[k], triplet_in, triplet_out)  # (E, F)  (4)-(6)
            values = (*values, self.outputs[k + 1](messages, radial, receivers, like))
        return self.add(values), segment_sum(to_type(messages, atoms), receivers, like)  # (N, outputs), (N, F)
