"""Energies of crystals from equivariant messages that are linear in what the sender says, made for second derivatives.

After Batzner et al., Nature Communications 13, 2453 (2022), NequIP: convolutions (4) with gates (5).

    (1)  r_ij, d = |r_ij|, x = d / (R_i + R_j)       R are covalent radii
    (2)  b_ij = f(d) (sin(n pi d / c) / (n d), exp(-k (x - x_k)^2)) (1 + P(u_i + u_j, u_i u_j))
    (3)  w_ij = b_ij W                               radial weights of every channel of every path, linear in b
    (4)  m_i  = sum_j w_ij (h_j (x) Y(r_ij / d)) / sqrt(n)
    (5)  h_i <- h_i + gate(L m_i + L' h_i + L'' u_i)
    (6)  E    = sum_i e(h_i) + sum_(i < j) f(d) b_ij . Q(u_i + u_j, u_i u_j)

u are the descriptions of the elements, f the polynomial envelope of the cutoff c, P, Q and e networks of two layers, n
the mean number of neighbours.  (x) is the depthwise tensor product: what mixes channels acts on nodes alone, after the
sum, because it commutes with it.  h are scalars u before the first layer, and scalars after the last one.

Departures from NequIP: the radial functions are linear in a basis that knows the two elements, instead of a network of
distances; energies of pairs stand beside those of atoms; elements are described by the periodic table.
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
START = 0.3  # size of the first energies: second derivatives are then about as large as those of crystals
REDUCED = (0.6, 2.4)  # first and last centre x_k


class Scalars(nn.Cell):
    """A network of two layers of scalars, whose weights have the size of those of other layers here.

    Args:
        inputs, hidden, outputs: sizes.
        size: of the outputs at the beginning.
        dtype: of the parameters.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, size: float, dtype: mstype.Type):
        super().__init__()
        self.hidden = Linear(Irreps([(inputs, "0e")]), Irreps([(hidden, "0e")]), True, True, dtype)
        self.output = Linear(Irreps([(hidden, "0e")]), Irreps([(outputs, "0e")]), True, True, dtype)
        self.swish, self.size = Swish(), Tensor(size, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        return self.output(self.swish(self.hidden(x))) * self.size


class PairBasis(nn.Cell):
    """Equation (2), and Q of (6).

    Args:
        bessel, gaussians: numbers of functions of both kinds.
        features: of u.
        cutoff: Angstrom.
        dtype: of the parameters.
    """

    def __init__(self, bessel: int, gaussians: int, features: int, cutoff: float, dtype: mstype.Type):
        super().__init__()
        self.size = bessel + gaussians
        self.envelope = PolynomialEnvelope(cutoff, ENVELOPE_EXPONENT, dtype)
        orders = np.arange(1, bessel + 1).reshape(1, -1)
        self.frequencies, self.inverse = Tensor(np.pi / cutoff * orders, dtype), Tensor(1 / orders, dtype)
        centres = np.linspace(*REDUCED, gaussians)
        self.centres = Tensor(centres.reshape(1, -1), dtype)
        self.sharpness = Tensor(-0.5 / (centres[1] - centres[0]) ** 2, dtype)
        radii = np.maximum(COVALENT_RADII, 0.5)  # the ghost has one, too
        self.radii = Tensor(radii.reshape(-1, 1), dtype)
        self.network = Scalars(2 * features, features, 2 * self.size, START, dtype)
        _, self.join = split_and_join([bessel, gaussians])
        _, self.side_by_side = split_and_join([features, features])
        self.split, _ = split_and_join([self.size, self.size])
        self.ones = Tensor(np.ones((1, self.size)), dtype)
        self.multiply = ops.MatMul()

    def construct(self, distances: Tensor, numbers: Tensor, u: Tensor, first: Tensor, second: Tensor) -> tuple:
        """b (P, B) and the energies of pairs (P, 1).

        Args:
            distances: (P, 1) Angstrom.
            numbers: (N,) atomic numbers.
            u: (N, F).
            first, second: (P,) the atoms of the pairs.
        """
        radii = gather(self.radii, numbers)  # (N, 1)
        reduced = distances / (gather(radii, first) + gather(radii, second)) - self.centres  # (P, gaussians)
        envelope = self.envelope(distances)  # (P, 1)
        waves = ops.sin(distances * self.frequencies) / distances * self.inverse
        basis = self.join((waves, ops.exp(self.sharpness * (reduced * reduced))))  # (P, B)
        one, other = gather(u, first), gather(u, second)
        factors, charges = self.split(self.network(self.side_by_side((one + other, one * other))))
        basis = basis * (factors + self.ones) * envelope  # (2)
        return basis, (basis * charges).sum(-1, keepdims=True) * envelope


class Layer(nn.Cell):
    """Equations (3) to (5).

    Args:
        irreps_in, irreps_out: of h before and after.
        coupling: of the harmonics.
        basis: size of b.
        features: of u.
        neighbours: n.
        dtype: of the parameters.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        coupling: Coupling,
        basis: int,
        features: int,
        neighbours: float,
        dtype: mstype.Type,
    ):
        super().__init__()
        scalars, others = Irreps(irreps_out[:1]), Irreps(irreps_out[1:])
        gates = Irreps([(others.num_irreps, "0e")] if others else [])
        inner = Irreps([(scalars.num_irreps + gates.num_irreps, "0e"), *others])
        self.sum = MessageSum(irreps_in, coupling, Irreps([(1, part.ir) for part in irreps_out]), dtype)
        self.radial = Parameter(initializer(Normal(basis**-0.5), (self.sum.numel, basis), dtype), name="radial")
        self.product = Product()
        self.mix = Linear(self.sum.irreps_out, inner, True, True, dtype)
        kept = Irreps([part for part in inner if irreps_in.count(part.ir)])
        self.stay = Linear(irreps_in, kept, False, True, dtype)
        self.pad: Any = Pad(kept.dim, inner.dim) if kept.dim < inner.dim else None
        self.element = Linear(Irreps([(features, "0e")]), Irreps(inner[:1]), False, True, dtype)
        self.pad_element: Any = Pad(inner[0].mul, inner.dim) if inner[0].mul < inner.dim else None
        self.scale = Tensor(neighbours**-0.5, dtype)
        self.gate = Gate(scalars, ["silu"], gates, ["sigmoid"] * len(gates), others, False, dtype)
        self.residual = irreps_in == irreps_out
        self.invariants: Any = Invariants(inner, dtype) if others else None

    def construct(self, h: Tensor, u: Tensor, basis: Tensor, matrices: Any, receivers: Tensor, senders: Tensor):
        """h (N, dim), u (N, F), b (P, B) and the coupling of the harmonics to h (N, dim)."""
        weights = self.product(basis, self.radial, None)  # (P, numel)  (3)
        m = self.sum(h, matrices, weights, receivers, senders) * self.scale  # (4)
        stay, element = self.stay(h), self.element(u)
        if self.pad is not None:
            stay = self.pad(stay)
        if self.pad_element is not None:
            element = self.pad_element(element)
        y = self.mix(m) + stay + element
        if self.invariants is not None:
            y = y + self.invariants(y)
        y = self.gate(y)  # (5)
        return h + y if self.residual else y


class Invariants(nn.Cell):
    """K |y|^2 of every copy that is no scalar, added to the scalars: what two neighbours of an atom have to do with it.

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
        self.mix = Linear(Irreps([(others.num_irreps, "0e")]), Irreps(irreps[:1]), False, True, dtype)
        self.pad = Pad(irreps[0].dim, irreps.dim)

    def construct(self, y: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        return self.pad(self.mix(self.multiply(y * y, self.mean)))


class Pad(nn.Cell):
    """Zeros after the columns of a matrix: a product, whose gradient is a product again."""

    def __init__(self, width: int, padded: int):
        super().__init__(auto_prefix=False)
        self.matrix, self.multiply = Tensor(np.eye(width, padded), mstype.float32), ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        """(N, width) to (N, padded)."""
        return self.multiply(x, to_type(self.matrix, x.dtype))


class EquivariantPotential(nn.Cell):
    """The network of the module's equations.

    Args:
        irreps: of h between layers, such as 64x0e+32x1o+16x2e.
        blocks: layers.
        lmax: largest degree of the harmonics.
        cutoff: c, Angstrom.
        bessel, gaussians: functions of b of both kinds.
        average_degree: n.
        kinds: precisions of parameters and arithmetic, all the same.
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
        dtype, hidden = kinds.weights, Irreps(irreps)
        if not hidden or not hidden[0].ir.is_scalar:
            raise IrrepsError(f"irreps {irreps}: expected scalars, 0e, first")
        scalars = hidden[0].mul
        self.dtype = dtype
        first = Irreps([(scalars, "0e")])
        self.elements = DescribedElements(scalars, dtype)
        self.harmonics = SphericalHarmonics(lmax, True, "component", dtype)
        degrees = [part.ir for part in hidden]
        self.coupling = Coupling(Irreps.spherical_harmonics(lmax), degrees, degrees, dtype, dtype)
        self.basis = PairBasis(bessel, gaussians, scalars, cutoff, dtype)
        ends = [first, *[hidden] * (blocks - 1), first]
        size = self.basis.size
        self.layers = nn.CellList(
            [Layer(ends[k], ends[k + 1], self.coupling, size, scalars, average_degree, dtype) for k in range(blocks)]
        )
        self.heads = nn.CellList([Scalars(scalars, scalars, 1, START, dtype) for _ in range(blocks)])
        self.split, _ = split_and_join([hidden[0].mul, hidden.dim - hidden[0].mul])

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
        """Graph inputs to energies of the atoms (N, 1) and their scalars (N, copies of 0e)."""
        kind, pairs = self.dtype, senders.shape[0] // 2
        vectors = edge_vectors(to_type(positions, kind), senders, receivers, to_type(shifts, kind))  # (E, 3)
        matrices = self.coupling(self.harmonics(vectors))
        u = self.elements(numbers)  # (N, F)
        distances = safe_norm(vectors[:pairs])  # (P, 1)
        basis, of_pairs = self.basis(distances, numbers, u, receivers[:pairs], senders[:pairs])
        values = segment_sum(both_ways(of_pairs), receivers, u)  # (N, 1)
        h, scalars, count = u, u, len(self.layers)
        for k in range(count):
            h = self.layers[k](h, u, basis, matrices, receivers, senders)
            scalars = h if k + 1 == count else self.split(h)[0]
            values = values + self.heads[k](scalars)
        return values, scalars
