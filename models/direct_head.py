"""Force constants of pairs of atoms themselves, read from equivariant features of both atoms and their edge.

A comparison for models of energies, whose second derivatives are trained: no derivative is taken here.

    (1)  h_i                                                of ``equivariant_layers``, (1) to (6) there
    (2)  z_ij = (L norm(h_i) + L' norm(h_j)) (x)_w Y(r_ij)  of which 0e, 1e and 2e are kept; w = b_ij W
    (3)  B_ij = T (s_ij + s_ji) + k_ij r_ij r_ij / d^2,     s = L z: 1x0e + 1x2e
    (4)  M_ijc = T t_ijc / sqrt(n),  a_ijc = L z / sqrt(n)  of each channel c; t = L z: 1x0e + 1x1e + 1x2e, a: 1x0e

b_ij, and so all of (3) and (4), falls to 0 at the cutoff.

T takes irreps to a matrix, 0e + 1e + 2e = 1o x 1o: 0e is its trace, 1e its antisymmetric part, an axial vector, and 2e
the rest.  The product (x) makes 1e of vectors and directions, 1o x 1o, and of 2e x 2e, so a mirror image has the mirror
image of the force constants.  k is the number of each pair of ``equivariant_layers``, (2) there.  What B, M and a mean
is said in ``block_model``, and why B has no 1e.

Without channels the force constants are those of springs between pairs within the cutoff; with them they reach two
cutoffs, and blocks need not be symmetric.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import Product
from models.e3.depthwise_product import DepthwiseTensorProduct, prepared
from models.e3.irreps import Irreps
from models.e3.linear import Linear
from models.e3.norm import EquivariantLayerNorm
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling
from models.e3.wigner import wigner_3j
from models.element_descriptions import DescribedElements
from models.equivariant_layers import Layer, PairBasis, hidden_irreps_of, scalars
from models.graph_ops import edge_vectors, gather, pair_total, safe_norm, to_type
from models.precision import Precision

KEPT = Irreps("1x0e+1x1e+1x2e")


def cartesian(irreps: Irreps) -> np.ndarray:
    """T: components of irreps of 1o x 1o (dim,), one copy each, to the rows of a 3 x 3 matrix, (dim, 9)."""
    couplings = [ir.dim**0.5 * wigner_3j(1, 1, ir.l).reshape(9, ir.dim).T for _, ir in irreps]
    return np.concatenate(couplings)


class EdgeIrreps(nn.Cell):
    """Equation (2).

    Args:
        irreps: of h.
        lmax: of the harmonics.
        basis: size of b, B.
        dtype: of the parameters.

    Attributes:
        irreps_out: of z.
    """

    def __init__(self, irreps: Irreps, lmax: int, basis: int, dtype: mstype.Type):
        super().__init__()
        results = [ir for _, ir in KEPT]
        inputs = [part.ir for part in irreps]
        self.coupling = Coupling(Irreps.spherical_harmonics(lmax), inputs, results, dtype, dtype)
        self.prepare = prepared(self.coupling)
        self.norm = EquivariantLayerNorm(irreps, dtype)
        self.ends = nn.CellList([Linear(irreps, irreps, False, True, dtype) for _ in range(2)])
        self.multiply = DepthwiseTensorProduct(irreps, self.coupling, KEPT, "component", "element", False, dtype, dtype)
        self.irreps_out = self.multiply.irreps_out
        self.radial = Parameter(initializer(Normal(basis**-0.5), (self.multiply.numel, basis), dtype), name="radial")
        self.product = Product()

    def construct(self, h: Tensor, harmonics: Tensor, basis: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """The z of all edges, (E, dim of irreps_out).

        Args:
            h: (N, dim).
            harmonics: (E, (lmax + 1)^2).
            basis: (P, B).
            receivers, senders: (E,).
        """
        x = self.norm(h)
        ends = gather(self.ends[0](x), receivers) + gather(self.ends[1](x), senders)  # (E, dim)
        weights = self.product(basis, self.radial, None)  # (P, numel)
        return self.multiply(ends, self.prepare(harmonics), weights)


class EdgeBlocks(nn.Cell):
    """Equations (3) and (4).

    Args:
        irreps: of z.
        channels: C.
        average_degree: n.
        dtype: of the parameters.
    """

    def __init__(self, irreps: Irreps, channels: int, average_degree: float, dtype: mstype.Type):
        super().__init__()
        symmetric = Irreps("1x0e+1x2e")
        self.channels, self.multiply = channels, ops.MatMul()
        self.pair, self.pair_matrix = Linear(irreps, symmetric, False, True, dtype), Tensor(cartesian(symmetric), dtype)
        if channels:
            general = Irreps([(channels, ir) for _, ir in KEPT])
            self.factor = Linear(irreps, scalars(channels), False, True, dtype)
            self.general = Linear(irreps, general, False, True, dtype)
            self.matrix, self.scale = Tensor(cartesian(KEPT), dtype), Tensor(average_degree**-0.5, dtype)

    def construct(self, z: Tensor, unit: Tensor, springs: Tensor) -> tuple:
        """The z of edges (E, dim), unit vectors (P, 3) and k (P, 1) of pairs to B (P, 9), a (E, C) and M (E, 9 C)."""
        along = (unit.expand_dims(2) * unit.expand_dims(1)).reshape(-1, 9)  # (P, 9)
        blocks = self.multiply(pair_total(self.pair(z)), self.pair_matrix) + springs * along  # (P, 9)  (3)
        if self.channels == 0:
            return (blocks,)
        t = self.general(z).reshape(-1, 9, self.channels).transpose(0, 2, 1)  # (E, C, 9)
        matrices = self.multiply(t.reshape(-1, 9), self.matrix).reshape(z.shape[0], -1)  # (E, 9 C)  (4)
        return blocks, self.factor(z) * self.scale, matrices * self.scale


class DirectHead(nn.Cell):
    """The network of the module's equations.

    Args:
        irreps: of h, scalars first, such as 64x0e+32x1o+16x2e.
        blocks: layers.
        lmax: largest degree of the harmonics.
        cutoff: c, Angstrom; the graph must hold every pair closer than this.
        bessel, gaussians: functions of b of both kinds.
        channels: C; 0: pairs alone.
        average_degree: n.
        kinds: precisions of parameters and arithmetic, all the same.

    Raises:
        ValueError: irreps that do not begin with scalars, that the harmonics do not reach or that give no 1e, or mixed
            precision.
    """

    def __init__(
        self,
        irreps: str,
        blocks: int,
        lmax: int,
        cutoff: float,
        bessel: int,
        gaussians: int,
        channels: int,
        average_degree: float,
        kinds: Precision,
    ):
        super().__init__()
        hidden = hidden_irreps_of(irreps, lmax, kinds)
        if lmax < 2:
            raise ValueError(f"lmax {lmax}: expected 2 or more, of which blocks of force constants consist")
        if channels and not any(part.ir.l for part in hidden):
            raise ValueError(f"irreps {irreps}: expected vectors, 1o, for the antisymmetric part, or channels 0")
        dtype, features = kinds.weights, hidden[0].mul
        self.dtype = dtype
        self.elements = DescribedElements(features, dtype)
        self.harmonics = SphericalHarmonics(lmax, True, "component", dtype)
        degrees = [part.ir for part in hidden]
        self.coupling = Coupling(Irreps.spherical_harmonics(lmax), degrees, degrees, dtype, dtype)
        self.prepare = prepared(self.coupling)
        self.basis = PairBasis(bessel, gaussians, features, cutoff, dtype)
        size, before = self.basis.size, [scalars(features), *[hidden] * (blocks - 1)]
        self.layers = nn.CellList(
            [Layer(one, hidden, self.coupling, size, features, average_degree, dtype) for one in before]
        )
        self.edges = EdgeIrreps(hidden, lmax, size, dtype)
        self.blocks = EdgeBlocks(self.edges.irreps_out, channels, average_degree, dtype)

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
        """Graph inputs to B (P, 9) and, where there are channels, a (E, C) and M (E, 9 C)."""
        kind, pairs = self.dtype, senders.shape[0] // 2
        vectors = edge_vectors(to_type(positions, kind), senders, receivers, to_type(shifts, kind))  # (E, 3)
        harmonics, distances = self.harmonics(vectors), safe_norm(vectors[:pairs])
        attributes = self.prepare(harmonics)
        u = self.elements(numbers)  # (N, F)
        basis, springs = self.basis(distances, numbers, u, receivers[:pairs], senders[:pairs])
        h = u
        for k in range(len(self.layers)):
            h = self.layers[k](h, u, basis, attributes, receivers, senders)  # (N, dim)  (1)
        z = self.edges(h, harmonics, basis, receivers, senders)  # (E, dim of z)  (2)
        return self.blocks(z, vectors[:pairs] / distances, springs)  # (3), (4)
