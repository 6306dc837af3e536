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

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Uniform, initializer

from models.angular import SphericalBesselBasis, ZonalHarmonics
from models.blocks import Linear, Product, ResidualLayer, Swish, SwishLinear, default_uniform
from models.cpu_kernels import load
from models.graph_ops import edge_vectors, gather, safe_norm, segment_mean, segment_sum, to_type
from models.heads import Readout
from models.precision import precision
from models.radial import BesselBasis

OUTPUT_INITS = ("zeros", "orthogonal")
ELEMENTS = 95  # rows of the embedding, as in torch_geometric; row 0 belongs to the ghosts


class Embedding(nn.Cell):
    """Equation (3)."""

    def __init__(self, features: int, radial: int, dtype: mstype.Type):
        super().__init__()
        self.features = features
        self.elements = Parameter(initializer(Uniform(3.0**0.5), (ELEMENTS, features), dtype), name="elements")
        self.radial = SwishLinear(radial, features, dtype)
        self.radial.weight.set_data(default_uniform((features, radial), radial, dtype))
        self.radial.bias.set_data(default_uniform((features,), radial, dtype))
        self.weight = Parameter(default_uniform((features, 3 * features), 3 * features, dtype), name="weight")
        self.bias = Parameter(default_uniform((features,), 3 * features, dtype), name="bias")
        self.product, self.swish = Product(), Swish()

    def construct(self, numbers: Tensor, radial: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Atomic numbers (N,) and radial basis (E, R) to messages (E, F)."""
        size = self.features
        weight = self.weight
        atoms = gather(self.elements, numbers)  # (N, F)
        of_receivers = self.product(atoms, weight[:, :size], self.bias)  # (N, F)
        of_senders = self.product(atoms, weight[:, size : 2 * size], None)  # (N, F)
        of_receivers, of_senders = to_type(of_receivers, radial.dtype), to_type(of_senders, radial.dtype)
        of_edges = self.product(self.radial(radial), weight[:, 2 * size :], None)  # (E, F)
        t = gather(of_receivers, receivers) + gather(of_senders, senders) + of_edges  # (E, F)
        return self.swish(t)


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
        self.join, self.product = ops.MatMul(), Product()
        self.source, self.target = SwishLinear(features, features, dtype), SwishLinear(features, features, dtype)
        self.down = SwishLinear(features, interaction_features, dtype, bias=False)
        self.up = SwishLinear(interaction_features, features, dtype, bias=False)
        self.before_skip = nn.SequentialCell([ResidualLayer(features, dtype) for _ in range(layers_before_skip)])
        self.skip = SwishLinear(features, features, dtype)
        self.after_skip = nn.SequentialCell([ResidualLayer(features, dtype) for _ in range(layers_after_skip)])
        kernels = load()
        self.triplet_sum: Any = kernels.triplet_sum if kernels else None

    def construct(
        self, messages: Tensor, radial: Tensor, spherical: Tensor, triplet_in: Tensor, triplet_out: Tensor
    ) -> Tensor:
        """Messages (E, F), radial basis (E, R) and reduced spherical basis (T, B) to messages (E, F)."""
        # nothing stands between the two layers of the radial basis: their product is one pass over the edges
        weight = self.join(self.radial_second.weight, self.radial_first.weight)  # (F, R)
        filters = self.product(radial, weight, None)  # (E, F)
        sent = self.down(self.source(messages) * filters)  # (E, I)  (4)
        summed = self.sum_triplets(sent, spherical, triplet_in, triplet_out)  # (E, I)
        hidden = self.target(messages) + self.up(summed)  # (E, F)  (5)
        return self.after_skip(self.skip(self.before_skip(hidden)) + messages)  # (6)

    def sum_triplets(self, sent: Tensor, spherical: Tensor, triplet_in: Tensor, triplet_out: Tensor) -> Tensor:
        """The sum over k in (5): what neighbours send (E, I), times a filter of each triplet's basis (T, B), (E, I)."""
        if self.triplet_sum is not None and sent.dtype != mstype.float16:
            weight = to_type(self.spherical_second.weight, sent.dtype)
            return self.triplet_sum(sent, spherical, weight, triplet_in, triplet_out)
        return segment_sum(gather(sent, triplet_in) * self.spherical_second(spherical), triplet_out, sent)


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
        basis_features: size between the two layers that a basis passes through.
        output_features: size of the hidden layers of (7).
        spherical: L, number of degrees l = 0 ... L - 1 in (2).
        radial: R, number of radial functions in (1) and for each degree in (2).
        cutoff: Angstrom; the graph must hold every pair closer than this, and its triplets.
        envelope_exponent: of the polynomial u.
        layers_before_skip, layers_after_skip: residual layers of (6).
        output_layers: hidden layers of (7).
        outputs: values for each graph; more than one only with the readouts ``sum`` and ``mean``.
        output_init: one of ``OUTPUT_INITS``, of the last layer of (7).  With ``zeros`` an untrained network predicts 0
            everywhere, and its first step changes nothing but that layer.
        reference_bugs: what the published weights have frozen in; see ``angular.SphericalBesselBasis``.
        readout: see ``models.heads.Readout``.
        dtype: float32 or float64 parameters and arithmetic.
        amp_level: what is computed in float16; see ``models.precision``.

    Raises:
        ValueError: a number is too small or a name is unknown.
    """

    def __init__(
        self,
        features: int = 128,
        blocks: int = 4,
        interaction_features: int = 64,
        basis_features: int = 8,
        output_features: int = 256,
        spherical: int = 7,
        radial: int = 6,
        cutoff: float = 5.0,
        envelope_exponent: int = 5,
        layers_before_skip: int = 1,
        layers_after_skip: int = 2,
        output_layers: int = 3,
        outputs: int = 1,
        output_init: str = "zeros",
        reference_bugs: bool = False,
        readout: str = "sum",
        dtype: mstype.Type = mstype.float32,
        amp_level: str = "O0",
    ):
        super().__init__()
        _check(locals())
        self.kinds = precision(amp_level, dtype)
        atoms = self.kinds.atoms
        self.radial = BesselBasis(radial, cutoff, envelope_exponent, atoms)
        self.spherical = SphericalBesselBasis(spherical, radial, cutoff, envelope_exponent, reference_bugs, atoms)
        self.harmonics = ZonalHarmonics(spherical, radial, atoms)
        # the first spherical layers of all blocks are one matrix, for one pass over the triplets; it is put together by
        # products, because MindSpore's concat of parameters rounds float64 to float32 on a CPU
        places = np.eye(blocks * basis_features).reshape(blocks * basis_features, blocks, basis_features)
        self.places = tuple(Tensor(places[:, k], dtype) for k in range(blocks))  # (blocks B, B)
        self.place, self.product = ops.MatMul(), Product()
        self.split = ops.Split(1, blocks)
        self.embedding = Embedding(features, radial, dtype)
        self.interactions = nn.CellList(
            [
                Interaction(
                    features, interaction_features, basis_features, radial, spherical, layers_before_skip,
                    layers_after_skip, dtype,
                )
                for _ in range(blocks)
            ]
        )  # fmt: skip
        self.outputs = nn.CellList(
            [
                Output(features, radial, output_features, output_layers, outputs, output_init, dtype)
                for _ in range(blocks + 1)
            ]
        )
        self.readout = Readout(readout, atoms)

    def bases(
        self,
        positions: Tensor,
        senders: Tensor,
        receivers: Tensor,
        shifts: Tensor,
        triplet_in: Tensor,
        triplet_out: Tensor,
    ) -> tuple:
        """Radial basis (E, R), equation (1), and spherical basis (T, L R), equation (2)."""
        pairs = senders.shape[0] // 2
        vectors = edge_vectors(positions, senders[:pairs], receivers[:pairs], shifts[:pairs])  # (P, 3)
        distances = safe_norm(vectors)  # (P, 1)
        of_pairs = self.radial(distances)  # (P, R)
        radial = ops.concat((of_pairs, of_pairs), 0)  # (E, R)
        directions = vectors / distances  # (P, 3)
        directions = ops.concat((directions, -directions), 0)  # (E, 3)
        cosines = (gather(directions, triplet_in) * gather(directions, triplet_out)).sum(-1, keepdims=True)  # (T, 1)
        of_pairs = self.spherical(distances)  # (P, L R)
        of_edges = ops.concat((of_pairs, of_pairs), 0)  # (E, L R)
        return radial, gather(of_edges, triplet_in) * self.harmonics(cosines)  # (T, L R)

    def reduce(self, spherical: Tensor) -> tuple:
        """The spherical basis (T, L R) through the first spherical layer of each block, [(T, B)]."""
        weight = self.place(self.places[0], self.interactions[0].spherical_first.weight)
        for k in range(1, len(self.interactions)):
            weight = weight + self.place(self.places[k], self.interactions[k].spherical_first.weight)
        return self.split(self.product(spherical, weight, None))

    def trace(
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
        """Output (G,), radial basis (E, R), spherical basis (T, L R), messages [(E, F)] and atom values [(N, outputs)].

        The messages are those after the embedding and after each block; the atom values are the contributions of each.
        """
        positions, shifts = to_type(positions, self.kinds.atoms), to_type(shifts, self.kinds.atoms)
        radial, spherical = self.bases(positions, senders, receivers, shifts, triplet_in, triplet_out)
        radial, spherical = to_type(radial, self.kinds.edges), to_type(spherical, self.kinds.edges)
        like, graph_like = to_type(node_mask, self.kinds.atoms), to_type(graph_mask, self.kinds.atoms)
        current = self.embedding(numbers, radial, receivers, senders)  # (E, F)  (3)
        value = self.outputs[0](current, radial, receivers, like)  # (N, outputs)  (7)
        messages: tuple = (current,)
        values: tuple = (value,)
        total = value
        reduced = self.reduce(spherical)
        for k in range(len(self.interactions)):
            current = self.interactions[k](current, radial, reduced[k], triplet_in, triplet_out)  # (4)-(6)
            value = self.outputs[k + 1](current, radial, receivers, like)
            total = total + value
            messages = (*messages, current)
            values = (*values, value)
        output = self.readout(total, numbers, positions, node_graph, like, graph_like)  # (8)
        return output, radial, spherical, messages, values

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
        """Graph inputs to one value per graph, (G,), or (G, outputs)."""
        return self.trace(
            numbers, positions, senders, receivers, shifts, triplet_in, triplet_out, node_graph, node_mask, graph_mask
        )[0]

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
        """Output (G,) and the embedding of each graph, the mean over its atoms of the last messages' sums (G, F)."""
        result = self.trace(
            numbers, positions, senders, receivers, shifts, triplet_in, triplet_out, node_graph, node_mask, graph_mask
        )
        node_mask, graph_mask = to_type(node_mask, self.kinds.atoms), to_type(graph_mask, self.kinds.atoms)
        nodes = segment_sum(to_type(result[3][-1], node_mask.dtype), receivers, node_mask)  # (N, F)
        return result[0], segment_mean(nodes, node_graph, node_mask, graph_mask)


def _check(arguments: dict) -> None:
    """Refuse hyperparameters that could only fail later."""
    least = {
        "features": 1, "blocks": 1, "interaction_features": 1, "basis_features": 1, "output_features": 1,
        "spherical": 1, "radial": 1, "envelope_exponent": 1, "layers_before_skip": 0, "layers_after_skip": 0,
        "output_layers": 0, "outputs": 1,
    }  # fmt: skip
    for name, smallest in least.items():
        if int(arguments[name]) < smallest:
            raise ValueError(f"{name} {arguments[name]}: expected at least {smallest}")
    if not arguments["cutoff"] > 0:
        raise ValueError(f"cutoff {arguments['cutoff']} Angstrom: expected a positive number")
    if arguments["output_init"] not in OUTPUT_INITS:
        raise ValueError(f"output_init {arguments['output_init']!r}: expected one of {', '.join(OUTPUT_INITS)}")
    if arguments["outputs"] > 1 and arguments["readout"] not in ("sum", "mean"):
        raise ValueError(f"{arguments['outputs']} outputs with the readout {arguments['readout']}: expected one output")
