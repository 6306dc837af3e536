"""Layers of atoms that exchange equivariant messages, linear in the sender's features, after NequIP.

Source: Batzner et al., Nature Communications 13, 2453 (2022): convolutions (4) with gates (6).

    (1)  r_ij, d = |r_ij|, x = d / (R_i + R_j)        with covalent radii R
    (2)  b_ij = f(d) (sin(n pi d / c) / (n d), exp(-k (x - x_k)^2)) (1 + P(u_i + u_j, u_i u_j))
         k_ij = f(d) b_ij . Q(u_i + u_j, u_i u_j)     a number of each pair, such as an energy
    (3)  w_ij = b_ij W                                weights of every channel of every path
    (4)  m_i  = sum_j w_ij (h_j (x) Y(r_ij)) / sqrt(n)
    (5)  y_i  = L m_i + L' h_i + L'' u_i,             scalars of y_i += K |y_i|^2 of its other copies
    (6)  h_i <- h_i + gate(y_i)

u are descriptions of the elements, f is the polynomial envelope of the cutoff c, Y are spherical harmonics, (x) is the
depthwise tensor product, P and Q are networks of two layers of scalars, and n is the average number of neighbours.
Where the irreps of h change, (6) has no h_i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import Product
from models.cpu_kernels import load
from models.e3.irreps import Irreps, IrrepsError
from models.e3.layout import split_and_join
from models.e3.linear import Linear
from models.e3.message_sum import MessageSum
from models.e3.nonlinear import Gate
from models.e3.tensor_product import Coupling
from models.element_descriptions import COVALENT_RADII
from models.graph_ops import gather
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


def hidden_irreps_of(irreps: str, lmax: int, kinds: Precision) -> Irreps:
    """Irreps of h between layers, checked.

    Args:
        irreps: scalars first, such as 64x0e+32x1o+16x2e.
        lmax: largest degree of the harmonics.
        kinds: precisions of parameters and arithmetic, all the same.

    Raises:
        ValueError: irreps that do not begin with scalars or that the harmonics do not reach, or mixed precision.
    """
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
    return hidden


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
    """Equation (2).

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
        sharpness = -0.5 / (centres[0, 1] - centres[0, 0]) ** 2
        self.centres, self.sharpness = Tensor(centres, dtype), Tensor(sharpness, dtype)
        self.radii = Tensor(np.maximum(COVALENT_RADII, SMALLEST_RADIUS).reshape(-1, 1), dtype)
        self.network = TwoScalarLayers(2 * features, features, 2 * self.size, dtype)
        _, self.join = split_and_join([bessel, gaussians])
        _, self.side_by_side = split_and_join([features, features])
        self.split, _ = split_and_join([self.size, self.size])
        self.ones = Tensor(np.ones((1, self.size)), dtype)
        kernels = load(dtype)
        self.kernel: Any = None
        if kernels:
            self.kernel = kernels.EnvelopedBasis(cutoff, ENVELOPE_EXPONENT, bessel, centres[0], sharpness, dtype)

    def construct(
        self, distances: Tensor, numbers: Tensor, u: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Functions b (P, B) and numbers k (P, 1) of the pairs.

        Args:
            distances: (P, 1) Angstrom.
            numbers: (N,) atomic numbers.
            u: (N, F).
            first, second: (P,) the atoms of each pair.
        """
        radii = gather(self.radii, numbers)  # (N, 1)
        lengths = gather(radii, first) + gather(radii, second)  # (P, 1)
        one, other = gather(u, first), gather(u, second)
        factors, charges = self.split(self.network(self.side_by_side((one + other, one * other))))  # P, Q: (P, B)
        factors = factors + self.ones
        if self.kernel is not None:
            return self.kernel(distances, 1 / lengths, factors, charges)  # (2)
        reduced = distances / lengths - self.centres  # (P, gaussians)
        envelope = self.envelope(distances)  # (P, 1)
        waves = ops.sin(distances * self.frequencies) / distances * self.inverse  # (P, bessel)
        basis = self.join((waves, ops.exp(self.sharpness * (reduced * reduced))))  # (P, B)
        basis = basis * factors * envelope  # (2)
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
        self, h: Tensor, u: Tensor, basis: Tensor, attributes: Any, receivers: Tensor, senders: Tensor
    ) -> Tensor:
        """The new h (N, dim of irreps_out).

        Args:
            h: (N, dim of irreps_in).
            u: (N, F).
            basis: (P, B).
            attributes: what ``depthwise_product.prepared`` makes of the harmonics of the E edges.
            receivers, senders: (E,).
        """
        # the factor of (4) is put into W, which does not depend on the positions: its derivatives have fewer products
        weights = self.product(basis, self.radial * self.scale, None)  # (P, numel)  (3)
        m = self.sum(h, attributes, weights, receivers, senders)  # (N, dim of the sums)  (4)
        y = self.mix(m) + self.widen_stay(self.stay(h)) + self.widen_element(self.element(u))  # (N, dim)  (5)
        if self.invariants is not None:
            y = y + self.invariants(y)
        return h + self.gate(y) if self.residual else self.gate(y)  # (6)
