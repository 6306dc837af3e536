"""Energies of crystals from equivariant messages that are linear in the sender's features, made for second derivatives.

After Batzner et al., Nature Communications 13, 2453 (2022), NequIP: convolutions (4) with gates (6).

    (1)  r_ij, d = |r_ij|, x = d / (R_i + R_j)        with covalent radii R
    (2)  b_ij = f(d) (sin(n pi d / c) / (n d), exp(-k (x - x_k)^2)) (1 + P(u_i + u_j, u_i u_j))
    (3)  w_ij = b_ij W                                weights of every channel of every path
    (4)  m_i  = sum_j w_ij (h_j (x) Y(r_ij)) / sqrt(n)
    (5)  y_i  = L m_i + L' h_i + L'' u_i,             scalars of y_i += K |y_i|^2 of its other copies
    (6)  h_i <- h_i + gate(y_i)
    (7)  E    = sum_i sum_layers e(h_i) + sum_ij f(d) b_ij . Q(u_i + u_j, u_i u_j)

u are descriptions of the elements, f is the polynomial envelope of the cutoff c, Y are spherical harmonics, (x) is the
depthwise tensor product, P, Q and e are networks of two layers of scalars, and n is the average number of neighbours.
h are the scalars u before the first layer and scalars after the last one; where its irreps change, (6) has no h_i.

Why it is fast: everything in (2) to (4) that an edge does is linear in h_j, Y and W, so that a CPU does product and sum
in one pass, with derivatives that are such passes again; what mixes channels acts on atoms, of which there are few.

Departures from NequIP: radial weights are linear in a basis that depends on both elements, instead of a network of
the distance; squares in (5) let a layer see angles; energies of pairs stand beside those of atoms; elements are
described by the periodic table.
"""

from __future__ import annotations

from mindspore import Tensor, nn

from models.e3.depthwise_product import prepared
from models.e3.irreps import Irreps
from models.e3.layout import split_and_join
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling
from models.element_descriptions import DescribedElements
from models.equivariant_layers import Layer, PairBasis, TwoScalarLayers, hidden_irreps_of, scalars
from models.graph_ops import PairDistances, both_ways, edge_vectors, segment_sum, to_type
from models.precision import Precision


class EquivariantPotential(nn.Cell):
    """The network of the module's equations.

    Args:
        irreps: of h between layers, scalars first, such as 64x0e+32x1o+16x2e.
        blocks: layers.
        lmax: largest degree of the harmonics.
        cutoff: c, Angstrom; the graph must hold every pair closer than this.
        bessel, gaussians: functions of b of both kinds.
        average_degree: n.
        kinds: precisions of parameters and arithmetic, all the same.

    Raises:
        ValueError: irreps that do not begin with scalars or that the harmonics do not reach, or mixed precision.
    """

    def __init__(
        self,
        irreps: str,
        blocks: int,
        lmax: int,
        cutoff: float,
        bessel: int,
        gaussians: int,
        average_degree: float,
        kinds: Precision,
    ):
        super().__init__()
        hidden = hidden_irreps_of(irreps, lmax, kinds)
        dtype, features = kinds.weights, hidden[0].mul
        self.dtype = dtype
        self.elements = DescribedElements(features, dtype)
        self.harmonics = SphericalHarmonics(lmax, True, "component", dtype)
        degrees = [part.ir for part in hidden]
        self.coupling = Coupling(Irreps.spherical_harmonics(lmax), degrees, degrees, dtype, dtype)
        self.prepare = prepared(self.coupling)
        self.distances = PairDistances(dtype)
        self.basis = PairBasis(bessel, gaussians, features, cutoff, dtype)
        ends = [scalars(features), *[hidden] * (blocks - 1), scalars(features)]
        self.layers = nn.CellList(
            [
                Layer(ends[k], ends[k + 1], self.coupling, self.basis.size, features, average_degree, dtype)
                for k in range(blocks)
            ]
        )
        self.heads = nn.CellList([TwoScalarLayers(features, features, 1, dtype) for _ in range(blocks)])
        self.split, _ = split_and_join([part.dim for part in hidden])

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
        """Graph inputs to energies of the atoms (N, 1) and their scalars (N, F)."""
        kind, pairs = self.dtype, senders.shape[0] // 2
        positions, shifts = to_type(positions, kind), to_type(shifts, kind)
        vectors = edge_vectors(positions, senders, receivers, shifts)  # (E, 3)  (1)
        distances = self.distances(positions, senders, receivers, shifts)  # (P, 1)
        attributes = self.prepare(self.harmonics(vectors))
        u = self.elements(numbers)  # (N, F)
        basis, of_pairs = self.basis(distances, numbers, u, receivers[:pairs], senders[:pairs])
        values = segment_sum(both_ways(of_pairs), receivers, u)  # (N, 1)  (7)
        h, last, of_layer = u, len(self.layers) - 1, u
        for k in range(len(self.layers)):
            h = self.layers[k](h, u, basis, attributes, receivers, senders)  # (2)-(6)
            of_layer = h if k == last else self.split(h)[0]  # (N, F)
            values = values + self.heads[k](of_layer)
        return values, of_layer
