"""Functions of a distance and an angle for triplets of atoms: spherical Bessel functions and zonal harmonics.

Source: Gasteiger et al., ICLR 2020 (arXiv 2003.03123), equation (6), as used by DimeNet++ (arXiv 2011.14115):

    (1)  a_ln(d, angle) = e(x) R_ln(x) Y_l0(angle)                 x = d / cutoff, e an envelope
    (2)  R_ln(x)        = j_l(z_ln x) / sqrt(j_{l+1}(z_ln)^2 / 2)  z_ln the n-th zero of j_l
    (3)  Y_l0(angle)    = sqrt((2 l + 1) / (4 pi)) P_l(cos angle)

The closed forms of j_l divide differences of nearly equal numbers by powers of z x: at 0.4 Angstrom l = 6 keeps two
digits in float32, at 0.01 Angstrom none in float64.  Here no j_l is evaluated at run time.  Fourier transforms of j_l
have a bounded support, so on 0 <= x <= 1 every R_ln is, to rounding, a fixed combination of some thirty sines:

    (4)  R_ln(x) = r_l(x) sum_k sin(w_k d) A_(k, ln)
    (5)  r_0 = 1 / x,   r_l = 1 for odd l,   r_l = x / (1 + 8 x^2) for even l > 0

r_l makes R_ln / r_l odd, which a sine is, and leaves it of one size over the whole range.  A is found by least squares
when the cell is built, for the frequencies as they are rounded.  One sine a pair and k, and one product of matrices:
nothing overflows or divides by a power, and derivatives of all orders are those of the same few operators.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.radial import PolynomialEnvelope

EVEN_SCALE = 8.0  # the 8 of equation (5): any value from 4 to 16 serves as well, 0 costs a factor 4 in float32
SPACING = np.pi / 2  # of the frequencies w_k cutoff; the combination has a period of 4 cutoffs and only uses one
FREQUENCIES_BEYOND = 12  # so many above the largest zero; 10 leave 3e-14 of small bases in float64, 12 rounding
SMALLEST_SINGULAR_VALUE = 1e-14  # relative; the sines are nearly dependent, and without it A would be huge


def spherical_bessel(degree: int, arguments: np.ndarray) -> np.ndarray:
    """j_l(y) in float64: series for y < l + 2, upward recurrence above, each where it is stable.

    Just below l + 2 the terms of the series cancel more with every l: the basis is right to 2e-14 for l < 12, to 4e-13
    for l < 20.  The zeros lie above l + 2 for every l.
    """
    arguments = np.asarray(arguments, np.float64)
    few = arguments < degree + 2
    small, large = np.where(few, arguments, 1.0), np.where(few, degree + 2.0, arguments)
    term = np.prod([small / (2 * k + 1) for k in range(1, degree + 1)], axis=0) * np.ones_like(small)
    series = term
    for k in range(1, 30 + 2 * degree):
        term = -term * small * small / (2 * k * (2 * degree + 2 * k + 1))
        series = series + term
    below, here = np.cos(large) / large, np.sin(large) / large
    for k in range(degree):
        below, here = here, (2 * k + 1) / large * here - below
    return np.where(few, series, here)


def spherical_bessel_zeros(degrees: int, count: int) -> np.ndarray:
    """The first ``count`` positive zeros of j_0 ... j_(degrees - 1), (L, N) in float64.

    The zeros of j_l lie between neighbouring zeros of j_(l-1), and those of j_0 are n pi: bisection.
    """
    zeros = np.pi * np.arange(1, count + degrees)
    result = [zeros[:count]]
    for degree in range(1, degrees):
        low, high = zeros[:-1], zeros[1:]
        sign = np.sign(spherical_bessel(degree, low))
        for _ in range(55):  # halves an interval of about 3 down to rounding
            middle = (low + high) / 2
            same = np.sign(spherical_bessel(degree, middle)) == sign
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        zeros = (low + high) / 2
        result.append(zeros[:count])
    return np.array(result)


def _normalisers(zeros: np.ndarray) -> np.ndarray:
    """1 / sqrt(j_{l+1}(z)^2 / 2) of equation (2), (L, N)."""
    values = np.array([spherical_bessel(degree + 1, row) for degree, row in enumerate(zeros)])
    return np.sqrt(2.0) / np.abs(values)


def _reference_constants(zeros: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zeros and normalisers as torch_geometric has them: every step of (2) rounded to float32."""
    rounded = zeros.astype(np.float32)
    exact = rounded.astype(np.float64)
    cylindrical = np.array([spherical_bessel(degree + 1, row) for degree, row in enumerate(exact)])
    cylindrical = (cylindrical * np.sqrt(2 * exact / np.pi)).astype(np.float32)
    value = np.sqrt(np.float32(np.pi) / (np.float32(2) * rounded)) * cylindrical
    return exact, (np.float32(1) / (np.float32(0.5) * (value * value)) ** np.float32(0.5)).astype(np.float64)


def _kind(degree: int) -> int:
    """Which r_l of equation (5): 0 for degree 0, 1 for other even degrees, 2 for odd ones."""
    return 0 if degree == 0 else 1 + degree % 2


def _sine_coefficients(zeros: np.ndarray, normalisers: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """A (K, L N) of equation (4), by least squares on points that crowd at x = 1; frequencies w_k cutoff (K,)."""
    points = 4 * len(frequencies)
    x = np.sin(np.pi / 2 * (np.arange(points) + 0.5) / points)[:, None]
    factors = (1 / x, x / (1 + EVEN_SCALE * x * x), np.ones_like(x))  # (5)
    wanted = [
        spherical_bessel(degree, zeros[degree] * x) * normalisers[degree] / factors[_kind(degree)]
        for degree in range(len(zeros))
    ]
    return np.linalg.lstsq(np.sin(x * frequencies), np.concatenate(wanted, 1), rcond=SMALLEST_SINGULAR_VALUE)[0]


class SphericalBesselBasis(nn.Cell):
    """e(x) R_ln(x), equations (2), (4) and (5), with e(x) = x u(x) of ``PolynomialEnvelope``; zero from the cutoff on.

    Args:
        num_spherical: L, degrees l = 0 ... L - 1.
        num_radial: N, functions of each degree.
        cutoff: Angstrom.
        envelope_exponent: see ``PolynomialEnvelope``.
        reference_bugs: reproduce torch_geometric's DimeNet and DimeNet++ with these two errors:

            1. The zeros are rounded to float32 and the normalisers computed from them in float32 (as its code does
               under NumPy 2), also where the model is float64: the basis is wrong by up to 2.4e-6 for L = 7, N = 6.
            2. The envelope keeps its 1/x, which belongs to the Bessel basis of order 0 alone: e(x) = u(x), and R_0n
               then grows as 1/x.  The authors note this as an error that they keep for their published weights.
        dtype: of the result.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(
        self,
        num_spherical: int,
        num_radial: int,
        cutoff: float,
        envelope_exponent: int,
        reference_bugs: bool,
        dtype: mstype.Type,
    ):
        super().__init__()
        if num_spherical < 1 or num_radial < 1:
            raise ValueError(f"expected num_spherical >= 1 and num_radial >= 1, got {num_spherical} and {num_radial}")
        self.envelope = PolynomialEnvelope(cutoff, envelope_exponent, dtype)
        zeros = spherical_bessel_zeros(num_spherical, num_radial)
        zeros, normalisers = _reference_constants(zeros) if reference_bugs else (zeros, _normalisers(zeros))
        highest = int(np.ceil(zeros.max() / SPACING)) + FREQUENCIES_BEYOND
        frequencies = Tensor(np.arange(1, highest + 1)[None] * SPACING / cutoff, dtype)  # (1, K)  w_k, 1/Angstrom
        rounded = frequencies.asnumpy()[0].astype(np.float64) * cutoff
        self.frequencies = frequencies
        self.coefficients = Tensor(_sine_coefficients(zeros, normalisers, rounded), dtype)  # (K, L N)
        self.with_pole = reference_bugs
        self.cutoff, self.per_cutoff = Tensor(cutoff, dtype), Tensor(1.0 / cutoff, dtype)
        self.one, self.even_scale = Tensor(1.0, dtype), Tensor(EVEN_SCALE, dtype)
        kinds = np.repeat([_kind(degree) for degree in range(num_spherical)], num_radial)
        self.columns = Tensor(np.eye(3)[:, kinds], dtype)  # (3, L N), spreads the three r_l
        self.multiply = ops.MatMul()

    def construct(self, distances: Tensor) -> Tensor:
        """(P, 1) Angstrom, not 0, to (P, L N), column l N + n - 1."""
        envelope = self.envelope.with_pole(distances) if self.with_pole else self.envelope(distances)  # (P, 1)
        x = distances * self.per_cutoff
        even = envelope * x / (self.one + self.even_scale * x * x)
        factors = ops.stack((envelope * self.cutoff / distances, even, envelope), 1).reshape(-1, 3)  # (P, 3)  (5)
        sines = ops.sin(distances * self.frequencies)  # (P, K)
        return self.multiply(factors, self.columns) * self.multiply(sines, self.coefficients)  # (P, L N)  (4)


def _legendre_coefficients(degrees: int) -> list[np.ndarray]:
    """Of each P_l as a polynomial in t = 2 c^2 - 1, lowest power first, odd degrees divided by c = cos(angle).

    (l+1) P_(l+1) = (2l+1) c P_l - l P_(l-1), with c^2 = (1 + t) / 2.  In t the coefficients of P_6 add up to 3.6, in c
    to 41: so much less is lost where they cancel.
    """
    result = [np.ones(1), np.ones(1)]
    for degree in range(1, degrees - 1):
        here, below = result[degree], result[degree - 1]
        raised = np.convolve(here, [0.5, 0.5]) if degree % 2 else here  # c P_l, which for odd l is c^2 (P_l / c)
        below = np.pad(below, (0, len(raised) - len(below)))
        result.append(((2 * degree + 1) * raised - degree * below) / (degree + 1))
    return result[:degrees]


class ZonalHarmonics(nn.Cell):
    """Y_l0, equation (3), as a polynomial of cos(angle): no angle is taken, and all derivatives at 0 and pi are right.

    Powers of t = 2 cos^2 - 1 = cos(2 angle), with and without a factor cos, times one matrix.  Made for l up to about
    12, where the coefficients add up to less than 50; they grow by 2.4 for every second l.

    Args:
        num_spherical: L, degrees l = 0 ... L - 1.
        repeats: so many equal columns of each degree, to stand beside the columns of ``SphericalBesselBasis``.
        dtype: of the result.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(self, num_spherical: int, repeats: int, dtype: mstype.Type):
        super().__init__()
        if num_spherical < 1 or repeats < 1:
            raise ValueError(f"expected num_spherical >= 1 and repeats >= 1, got {num_spherical} and {repeats}")
        self.evens, self.odds = (num_spherical + 1) // 2, num_spherical // 2
        matrix = np.zeros((num_spherical, num_spherical))
        for degree, coefficients in enumerate(_legendre_coefficients(num_spherical)):
            first = self.evens if degree % 2 else 0
            matrix[first : first + len(coefficients), degree] = coefficients
        matrix *= np.sqrt((2 * np.arange(num_spherical) + 1) / (4 * np.pi))
        self.matrix = Tensor(np.repeat(matrix, repeats, 1), dtype)  # (L, L repeats)
        self.one, self.two = Tensor(1.0, dtype), Tensor(2.0, dtype)
        self.multiply = ops.MatMul(transpose_a=True)

    def construct(self, cosines: Tensor) -> Tensor:
        """(T,) or (T, 1) to (T, L repeats), column l repeats + k."""
        cosines = cosines.reshape(-1)  # (T,), as rows are stacked faster than columns
        t = self.two * cosines * cosines - self.one
        power = ops.ones_like(cosines)
        evens: tuple = (power,)
        odds: tuple = ()
        for k in range(self.odds):
            odds = (*odds, cosines * power)
            if k + 1 < self.evens:
                power = power * t
                evens = (*evens, power)
        return self.multiply(ops.stack(evens + odds), self.matrix)  # (T, L repeats)  (3)
