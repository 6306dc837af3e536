"""Functions of a distance: Gaussian and Bessel bases, and what takes them to zero at the cutoff."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Uniform, initializer

from models.cpu_kernels import load
from models.graph_ops import to_type

SCALED_EXPONENT = 4  # of ScaledBesselBasis: the polynomial 1 - 21 x^5 + 35 x^6 - 15 x^7


class GaussianBasis(nn.Cell):
    """e_k(d) = exp(coefficient_k (d - offset_k)^2).

    Source: Schuett et al., NeurIPS 2017 (arXiv 1706.08566), section 4.  The numbers are parameters without gradient, so
    that converted weights keep the rounding of their origin.

    Args:
        offsets: (K,) centres, Angstrom.
        coefficient: negative, 1/Angstrom^2.
        dtype: of the parameters; the result has the precision of the distances.
    """

    def __init__(self, offsets: np.ndarray, coefficient: float, dtype: mstype.Type):
        super().__init__()
        offsets = np.asarray(offsets, np.float64)
        self.offsets = Parameter(Tensor(offsets, dtype), name="offsets", requires_grad=False)
        self.coefficients = Parameter(
            Tensor(np.full(len(offsets), coefficient), dtype), name="coefficients", requires_grad=False
        )
        kernels = load()
        self.kernel: Any = kernels.gaussians if kernels else None

    def construct(self, distances: Tensor) -> Tensor:
        """(E, 1) Angstrom to (E, K)."""
        offsets, coefficients = to_type(self.offsets, distances.dtype), to_type(self.coefficients, distances.dtype)
        if self.kernel is not None and distances.dtype != mstype.float16:
            return self.kernel(distances, offsets, coefficients)
        difference = distances - offsets
        return ops.exp(coefficients * (difference * difference))


class TrainedGaussians(nn.Cell):
    """e_k(d) = exp(-z_k^2 / 2) / (s_k sqrt(2 pi)) with z_k = (a d / cutoff + b - m_k) / s_k and s_k = |t_k| + 1e-5.

    m, t, a and b are trained.  Source: Equiformer (arXiv 2206.11990), whose code has 3.14159 for pi.

    Args:
        functions: K.
        cutoff: Angstrom.
        dtype: of the parameters and of the result.
    """

    def __init__(self, functions: int, cutoff: float, dtype: mstype.Type):
        super().__init__()
        random = (initializer(Uniform(0.5), (1, functions), mstype.float32).init_data().asnumpy() for _ in range(2))
        centres, widths = (0.5 + numbers for numbers in random)  # within 0 and 1
        self.mean = Parameter(Tensor(centres, dtype), name="mean")
        self.std = Parameter(Tensor(1 / functions + (1 - 1 / functions) * widths, dtype), name="std")
        self.scale = Parameter(initializer("ones", (1, 1), dtype), name="scale")
        self.shift = Parameter(initializer("zeros", (1, 1), dtype), name="shift")
        self.per_cutoff, self.least = Tensor(1 / cutoff, dtype), Tensor(1e-5, dtype)
        self.half, self.area = Tensor(-0.5, dtype), Tensor((2 * 3.14159) ** -0.5, dtype)

    def construct(self, distances: Tensor) -> Tensor:
        """(P, 1) Angstrom to (P, K)."""
        widths = ops.abs(self.std) + self.least  # (1, K)
        z = (self.scale * (distances * self.per_cutoff) + self.shift - self.mean) / widths  # (P, K)
        return ops.exp(self.half * (z * z)) * (self.area / widths)


class CosineCutoff(nn.Cell):
    """f(d) = (cos(pi d / cutoff) + 1) / 2, which falls to 0 with zero slope, but not zero curvature, at d = cutoff.

    Edges beyond the cutoff never enter a graph, so there is no mask.  Exactly at the cutoff, where the ghost edges are,
    the value is 0 to rounding and multiplies only messages between ghosts.
    """

    def __init__(self, cutoff: float, dtype: mstype.Type):
        super().__init__()
        # tensors, because a Python float is rounded to float32 even beside float64 tensors
        self.frequency = Tensor(np.pi / cutoff, dtype)
        self.half = Tensor(0.5, dtype)
        kernels = load(dtype)
        self.kernel: Any = kernels.cosine_cutoff if kernels else None

    def construct(self, distances: Tensor) -> Tensor:
        """(E, 1) Angstrom to (E, 1)."""
        if self.kernel is not None:
            return self.kernel(distances, self.frequency)
        return self.half * ops.cos(distances * self.frequency) + self.half


class NoCutoff(nn.Cell):
    """f(d) = 1: the cutoff must exceed every distance."""

    def construct(self, distances: Tensor) -> Tensor:
        """(E, 1) Angstrom to (E, 1)."""
        return ops.ones_like(distances)


class PolynomialEnvelope(nn.Cell):
    """The product x u(x) with x = d / cutoff: DimeNet's envelope without its pole; zero from the cutoff on.

    Source: Gasteiger et al., ICLR 2020 (arXiv 2003.03123), equation (8), where p = exponent + 1 in the authors' codes:

        (1)  u(x)   = 1/x + a x^(p-1) + b x^p + c x^(p+1),   a = -(p+1)(p+2)/2,  b = p (p+2),  c = -p (p+1)/2
        (2)  x u(x) = (1 - x)^3 sum_{k<p} (k+1)(k+2)/2 x^k

    (2) equals x times (1), but has no cancellation: in float32 (1) leaves 1e-6 where it should vanish.  Value and first
    two derivatives fall to 0 at the cutoff; there and beyond, the derivatives computed are exactly 0 at every order.

    Args:
        cutoff: Angstrom.
        exponent: p - 1.
        dtype: of the result.
    """

    def __init__(self, cutoff: float, exponent: int, dtype: mstype.Type):
        super().__init__()
        if cutoff <= 0 or exponent < 0:
            raise ValueError(f"expected cutoff > 0 and exponent >= 0, got {cutoff} and {exponent}")
        # tensors, because a Python float is rounded to float32 even beside float64 tensors
        self.cutoff = Tensor(cutoff, dtype)
        self.per_cutoff = Tensor(1.0 / cutoff, dtype)
        factors = [(k + 1) * (k + 2) / 2 for k in range(exponent + 1)]
        self.highest = Tensor(factors[-1], dtype)
        self.factors = tuple(Tensor(factor, dtype) for factor in factors[-2::-1])
        kernels = load(dtype)
        self.kernel: Any = kernels.Envelope(cutoff, exponent, dtype) if kernels else None

    def construct(self, distances: Tensor) -> Tensor:
        """Equation (2), x u(x): (P, 1) Angstrom to (P, 1)."""
        if self.kernel is not None:
            return self.kernel(distances)
        x = distances * self.per_cutoff
        rest = ops.relu(self.cutoff - distances) * self.per_cutoff  # 1 - x, exactly 0 where d = cutoff
        series = self.highest
        for factor in self.factors:  # Horner
            series = series * x + factor
        return rest * rest * rest * series

    def with_pole(self, distances: Tensor) -> Tensor:
        """Equation (1), u(x): (P, 1) Angstrom, not 0, to (P, 1)."""
        return self.construct(distances) * self.cutoff / distances


class BesselBasis(nn.Cell):
    """e_n(d) = u(x) sin(frequency_n x) with x = d / cutoff and trainable frequencies, n pi to begin with.

    Source: Gasteiger et al., ICLR 2020 (arXiv 2003.03123), equations (7) and (8); u has the 1/x of the Bessel function
    of order 0.  The factor sqrt(2 / cutoff) of the paper is left out, as in both authors' codes and in DimeNet++.

    Args:
        num_radial: R, number of functions.
        cutoff: Angstrom.
        envelope_exponent: see ``PolynomialEnvelope``.
        dtype: of the result; the frequencies have at least float32.
    """

    def __init__(self, num_radial: int, cutoff: float, envelope_exponent: int, dtype: mstype.Type):
        super().__init__()
        if num_radial < 1:
            raise ValueError(f"expected num_radial >= 1, got {num_radial}")
        frequencies = np.pi * np.arange(1, num_radial + 1)
        kept = mstype.float32 if dtype == mstype.float16 else dtype
        self.frequencies = Parameter(Tensor(frequencies, kept), name="frequencies")
        self.envelope = PolynomialEnvelope(cutoff, envelope_exponent, dtype)
        self.per_cutoff = Tensor(1.0 / cutoff, dtype)
        # a product with ones spreads a column faster than broadcasting does on a CPU
        self.ones = Tensor(np.ones((1, num_radial)), dtype)
        self.spread = ops.MatMul()

    def construct(self, distances: Tensor) -> Tensor:
        """(P, 1) Angstrom, not 0, to (P, R)."""
        frequencies = to_type(self.frequencies, distances.dtype)  # (R,)
        phases = (distances * self.per_cutoff) * frequencies  # (P, R)
        return self.spread(self.envelope.with_pole(distances), self.ones) * ops.sin(phases)


class ScaledBesselBasis(nn.Cell):
    """sqrt(2 / c^3) u(x) sin(n pi x) with x = d / c: Bessel functions of order 0, as Equiformer scales them.

    Args:
        functions: K.
        cutoff: c, Angstrom.
        dtype: of the frequencies and of the result.
    """

    def __init__(self, functions: int, cutoff: float, dtype: mstype.Type):
        super().__init__()
        self.functions = BesselBasis(functions, cutoff, SCALED_EXPONENT, dtype)
        self.factor = Tensor((2 / cutoff**3) ** 0.5, dtype)

    def construct(self, distances: Tensor) -> Tensor:
        """(P, 1) Angstrom to (P, K)."""
        return self.factor * self.functions(distances)
