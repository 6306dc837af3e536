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

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import Product
from models.e3.irreps import Irreps, IrrepsError
from models.e3.layout import split_and_join
from models.e3.linear import Linear
from models.e3.message_sum import MessageSum
from models.e3.nonlinear import Gate
from models.e3.spherical_harmonics import SphericalHarmonics
from models.e3.tensor_product import Coupling
from models.element_descriptions import COVALENT_RADII, DescribedElements
from models.graph_ops import both_ways, edge_vectors, gather, safe_norm, segment_sum, to_type
from models.precision import Precision
from models.radial import PolynomialEnvelope
from models.swish import Swish

ENVELOPE_EXPONENT = 5
REDUCED = (0.6, 2.4)  # first and last centre x_k
SMALLEST_RADIUS = 0.5  # Angstrom; that of the ghost, which has none
START = 0.3  # size of the first energies: their second derivatives are then about as large as those of crystals


def scalars(count: int) -> Irreps:
    """So many copies of 0e."""
    return Irreps([(count, "0e")])


class TwoScalarLayers(nn.Cell):
    """y = s (W' swish(W x + b) + b'), with weights of a normal distribution as in the other layers of the model.

    Args:
        inputs, hidden, outputs: sizes.
        dtype: of the parameters.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, dtype: mstype.Type):
        super().__init__()
        self.hidden = Linear(scalars(inputs), scalars(hidden), True, True, dtype)
        self.output = Linear(scalars(hidden), scalars(outputs), True, True, dtype)
        self.swish, self.size = Swish(), Tensor(START, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        return self.output(self.swish(self.hidden(x))) * self.size


class Widened(nn.Cell):
    """Zeros after the columns of a matrix, by a product: its gradient is one again.

    Args:
        width, widened: number of columns before and after.
        dtype: of the matrix.
    """

    def __init__(self, width: int, widened: int, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.needless = width == widened
        self.matrix, self.multiply = Tensor(np.eye(width, widened), dtype), ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        """(N, width) to (N, widened)."""
        return x if self.needless else self.multiply(x, self.matrix)


class PairBasis(nn.Cell):
    """Equation (2), and the energies of pairs of (7).

    Args:
        bessel, gaussians: numbers of functions of both kinds.
        features: of u.
        cutoff: Angstrom.
        dtype: of the parameters.

    Attributes:
        size: of b, B.
    """

    def __init__(self, bessel: int, gaussians: int, features: int, cutoff: float, dtype: mstype.Type):
        super().__init__()
        self.size = bessel + gaussians
        self.envelope = PolynomialEnvelope(cutoff, ENVELOPE_EXPONENT, dtype)
        orders, centres = np.arange(1, bessel + 1).reshape(1, -1), np.linspace(*REDUCED, gaussians).reshape(1, -1)
        self.frequencies, self.inverse = Tensor(np.pi / cutoff * orders, dtype), Tensor(1 / orders, dtype)
        self.centres = Tensor(centres, dtype)
        self.sharpness = Tensor(-0.5 / (centres[0, 1] - centres[0, 0]) ** 2, dtype)
        self.radii = Tensor(np.maximum(COVALENT_RADII, SMALLEST_RADIUS).reshape(-1, 1), dtype)
        self.network = TwoScalarLayers(2 * features, features, 2 * self.size, dtype)
        _, self.join = split_and_join([bessel, gaussians])
        _, self.side_by_side = split_and_join([features, features])
        self.split, _ = split_and_join([self.size, self.size])
        self.ones = Tensor(np.ones((1, self.size)), dtype)

    def construct(
        self, distances: Tensor, numbers: Tensor, u: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """B (P, B), and the energies of the pairs (P, 1).

        Args:
            distances: (P, 1) Angstrom.
            numbers: (N,) atomic numbers.
            u: (N, F).
            first, second: (P,) the atoms of each pair.
        """
        radii = gather(self.radii, numbers)  # (N, 1)
        reduced = distances / (gather(radii, first) + gather(radii, second)) - self.centres  # (P, gaussians)
        envelope = self.envelope(distances)  # (P, 1)
        waves = ops.sin(distances * self.frequencies) / distances * self.inverse  # (P, bessel)
        basis = self.join((waves, ops.exp(self.sharpness * (reduced * reduced))))  # (P, B)
        one, other = gather(u, first), gather(u, second)
        factors, charges = self.split(self.network(self.side_by_side((one + other, one * other))))  # P, Q: (P, B)
        basis = basis * (factors + self.ones) * envelope  # (2)
        return basis, (basis * charges).sum(-1, keepdims=True) * envelope


class Invariants(nn.Cell):
    """The squares of (5): K |y|^2 of every copy that is no scalar, in the places of the scalars.

    Args:
        irreps: of y; scalars first.
        dtype: of the parameters.
    """

    def __init__(self, irreps: Irreps, dtype: mstype.Type):
        super().__init__()
        others = Irreps(irreps[1:])
        mean = np.zeros((irreps.dim, others.num_irreps))
        row, column = irreps[0].dim, 0
        for mul, ir in others:
            for _ in range(ir.dim):
                mean[row : row + mul, column : column + mul] = np.eye(mul) / ir.dim
                row += mul
            column += mul
        self.mean, self.multiply = Tensor(mean, dtype), ops.MatMul()
        self.mix = Linear(scalars(others.num_irreps), Irreps(irreps[:1]), False, True, dtype)
        self.widen = Widened(irreps[0].dim, irreps.dim, dtype)

    def construct(self, y: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        return self.widen(self.mix(self.multiply(y * y, self.mean)))


class Layer(nn.Cell):
    """Equations (3) to (6).

    Args:
        irreps_in, irreps_out: of h before and after; scalars first.
        coupling: of the harmonics.
        basis: size of b, B.
        features: of u.
        average_degree: n.
        dtype: of the parameters.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        coupling: Coupling,
        basis: int,
        features: int,
        average_degree: float,
        dtype: mstype.Type,
    ):
        super().__init__()
        kept, others = Irreps(irreps_out[:1]), Irreps(irreps_out[1:])
        gates = scalars(others.num_irreps) if others else Irreps([])
        inner = Irreps([(kept.num_irreps + gates.num_irreps, "0e"), *others])
        self.sum = MessageSum(irreps_in, coupling, Irreps([(1, part.ir) for part in irreps_out]), dtype)
        self.radial = Parameter(initializer(Normal(basis**-0.5), (self.sum.numel, basis), dtype), name="radial")
        self.product = Product()
        self.mix = Linear(self.sum.irreps_out, inner, True, True, dtype)
        stay = Irreps([part for part in inner if irreps_in.count(part.ir)])
        self.stay, self.widen_stay = Linear(irreps_in, stay, False, True, dtype), Widened(stay.dim, inner.dim, dtype)
        self.element = Linear(scalars(features), Irreps(inner[:1]), False, True, dtype)
        self.widen_element = Widened(inner[0].dim, inner.dim, dtype)
        self.scale = Tensor(average_degree**-0.5, dtype)
        self.gate = Gate(kept, ["silu"], gates, ["sigmoid"] * len(gates), others, False, dtype)
        self.residual = irreps_in == irreps_out
        self.invariants: Any = Invariants(inner, dtype) if others else None

    def construct(
        self, h: Tensor, u: Tensor, basis: Tensor, matrices: Any, receivers: Tensor, senders: Tensor
    ) -> Tensor:
        """The new h (N, dim of irreps_out).

        Args:
            h: (N, dim of irreps_in).
            u: (N, F).
            basis: (P, B).
            matrices: what ``coupling`` returns for the harmonics of the E edges.
            receivers, senders: (E,).
        """
        weights = self.product(basis, self.radial, None)  # (P, numel)  (3)
        m = self.sum(h, matrices, weights, receivers, senders) * self.scale  # (N, dim of the sums)  (4)
        y = self.mix(m) + self.widen_stay(self.stay(h)) + self.widen_element(self.element(u))  # (N, dim)  (5)
        if self.invariants is not None:
            y = y + self.invariants(y)
        return h + self.gate(y) if self.residual else self.gate(y)  # (6)


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
        hidden = Irreps(irreps)
        if not hidden or not hidden[0].ir.is_scalar or hidden.count("0e") != hidden[0].mul:
            raise IrrepsError(f"irreps {irreps}: expected all scalars, 0e, first and together")
        unreached = [part.ir for part in hidden if part.ir.l > lmax or part.ir.p != (-1) ** part.ir.l]
        if unreached:
            raise IrrepsError(
                f"irreps {irreps}: expected 0e, 1o, 2e, ... up to lmax {lmax}, of which harmonics and their products "
                f"with scalars consist, got {unreached[0]}"
            )
        if kinds.edges != kinds.weights:
            raise ValueError("amp_level: expected O0, for second derivatives need one precision")
        dtype, features = kinds.weights, hidden[0].mul
        self.dtype = dtype
        self.elements = DescribedElements(features, dtype)
        self.harmonics = SphericalHarmonics(lmax, True, "component", dtype)
        degrees = [part.ir for part in hidden]
        self.coupling = Coupling(Irreps.spherical_harmonics(lmax), degrees, degrees, dtype, dtype)
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
        vectors = edge_vectors(to_type(positions, kind), senders, receivers, to_type(shifts, kind))  # (E, 3)  (1)
        matrices = self.coupling(self.harmonics(vectors))
        u = self.elements(numbers)  # (N, F)
        basis, of_pairs = self.basis(safe_norm(vectors[:pairs]), numbers, u, receivers[:pairs], senders[:pairs])
        values = segment_sum(both_ways(of_pairs), receivers, u)  # (N, 1)  (7)
        h, last, of_layer = u, len(self.layers) - 1, u
        for k in range(len(self.layers)):
            h = self.layers[k](h, u, basis, matrices, receivers, senders)  # (2)-(6)
            of_layer = h if k == last else self.split(h)[0]  # (N, F)
            values = values + self.heads[k](of_layer)
        return values, of_layer
