"""Functions of a distance d under a polynomial envelope f, which take numbers of each pair of atoms with them.

    (12)  f(d)                                              and t f^(n)(d)
    (13)  e_k(d) = f(d)^q (sin(k pi d / c) / (k d), k = 1 ... B;  exp(a (s d - x_k)^2))
    (14)  y_k e_k^(n)(d)    sum_k y_k z_k e_k^(n)(d)        and both times t

f is that of ``models.radial.PolynomialEnvelope``; all are 0 from the cutoff c on, at every order.  t is a number of
each pair, and so is s, which is constant.  (12) and (14) are linear in t, y and z: their gradients are such functions
again, of order n + 1 in d.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.cpu_kernels.kernel import Kernel, same


class _Envelope(Kernel):
    """(12) f(d), (P, 1)."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.first_order = Tensor(1, mstype.int32)

    def construct(self, d: Tensor, exponent: Tensor, cutoff: Tensor) -> Tensor:
        """Of d (P, 1), the exponent () and the cutoff (1,)."""
        return self.kernel(d, exponent, cutoff)

    def bprop(self, d: Tensor, exponent: Tensor, cutoff: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g f'."""
        slope = envelope_slopes(d, dout, exponent, cutoff, self.first_order)
        return slope, self.zeros(exponent), self.zeros(cutoff)


class _EnvelopeSlopes(Kernel):
    """(12) t f^(n)(d), (P, 1)."""

    def construct(self, d: Tensor, t: Tensor, exponent: Tensor, cutoff: Tensor, n: Tensor) -> Tensor:
        """Of d and t (P, 1), and n ()."""
        return self.kernel(d, t, exponent, cutoff, n)

    def bprop(
        self, d: Tensor, t: Tensor, exponent: Tensor, cutoff: Tensor, n: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Returns g t f^(n + 1) and g f^(n)."""
        curvature = envelope_slopes(d, dout * t, exponent, cutoff, n + 1)
        slope = envelope_slopes(d, dout, exponent, cutoff, n)
        return curvature, slope, self.zeros(exponent), self.zeros(cutoff), self.zeros(n)


class _PairFunctions(Kernel):
    """(14) y_k e_k^(n), (P, K)."""

    def construct(self, d: Tensor, s: Tensor, y: Tensor, layout: Tensor, numbers: Tensor, n: Tensor) -> Tensor:
        """Of d and s (P, 1), y (P, K), and n ()."""
        return self.kernel(d, s, y, layout, numbers, n)

    def bprop(
        self, d: Tensor, s: Tensor, y: Tensor, layout: Tensor, numbers: Tensor, n: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Returns sum_k y_k g_k e_k^(n + 1) and g_k e_k^(n)."""
        of_d = pair_function_sums(d, s, y, dout, layout, numbers, n + 1)
        of_y = pair_functions(d, s, dout, layout, numbers, n)
        return of_d, self.zeros(s), of_y, self.zeros(layout), self.zeros(numbers), self.zeros(n)


class _PairFunctionSums(Kernel):
    """(14) sum_k y_k z_k e_k^(n), (P, 1)."""

    def construct(
        self, d: Tensor, s: Tensor, y: Tensor, z: Tensor, layout: Tensor, numbers: Tensor, n: Tensor
    ) -> Tensor:
        """Of d and s (P, 1), y and z (P, K), and n ()."""
        return self.kernel(d, s, y, z, layout, numbers, n)

    def bprop(
        self, d: Tensor, s: Tensor, y: Tensor, z: Tensor, layout: Tensor, numbers: Tensor, n: Tensor, out: Tensor, dout:
        Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient takes the place of t, with n + 1, and without one of y and z."""
        return (
            scaled_pair_function_sums(d, s, dout, y, z, layout, numbers, n + 1),
            self.zeros(s),
            scaled_pair_functions(d, s, dout, z, layout, numbers, n),
            scaled_pair_functions(d, s, dout, y, layout, numbers, n),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(n),
        )


class _ScaledPairFunctions(Kernel):
    """(14) t y_k e_k^(n), (P, K)."""

    def construct(
        self, d: Tensor, s: Tensor, t: Tensor, y: Tensor, layout: Tensor, numbers: Tensor, n: Tensor
    ) -> Tensor:
        """Of d, s and t (P, 1), y (P, K), and n ()."""
        return self.kernel(d, s, t, y, layout, numbers, n)

    def bprop(
        self, d: Tensor, s: Tensor, t: Tensor, y: Tensor, layout: Tensor, numbers: Tensor, n: Tensor, out: Tensor, dout:
        Tensor,
    ) -> tuple:  # fmt: skip
        """Returns t sum_k y_k g_k e_k^(n + 1), the sum for t, and t g_k e_k^(n)."""
        return (
            scaled_pair_function_sums(d, s, t, y, dout, layout, numbers, n + 1),
            self.zeros(s),
            pair_function_sums(d, s, y, dout, layout, numbers, n),
            scaled_pair_functions(d, s, t, dout, layout, numbers, n),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(n),
        )


class _ScaledPairFunctionSums(Kernel):
    """(14) t sum_k y_k z_k e_k^(n), (P, 1)."""

    def construct(
        self, d: Tensor, s: Tensor, t: Tensor, y: Tensor, z: Tensor, layout: Tensor, numbers: Tensor, n: Tensor
    ) -> Tensor:
        """Of d, s and t (P, 1), y and z (P, K), and n ()."""
        return self.kernel(d, s, t, y, z, layout, numbers, n)

    def bprop(
        self, d: Tensor, s: Tensor, t: Tensor, y: Tensor, z: Tensor, layout: Tensor, numbers: Tensor, n: Tensor, out:
        Tensor, dout: Tensor,
    ) -> tuple:  # fmt: skip
        """The gradient times t takes the place of t, with n + 1, and without one of y and z."""
        both = dout * t
        return (
            scaled_pair_function_sums(d, s, both, y, z, layout, numbers, n + 1),
            self.zeros(s),
            scaled_pair_function_sums(d, s, dout, y, z, layout, numbers, n),
            scaled_pair_functions(d, s, both, z, layout, numbers, n),
            scaled_pair_functions(d, s, both, y, layout, numbers, n),
            self.zeros(layout),
            self.zeros(numbers),
            self.zeros(n),
        )


class Envelope(nn.Cell):
    """(12) f as a cell.

    Args:
        cutoff: c, Angstrom.
        exponent: of the polynomial.
        dtype: of the distances.
    """

    def __init__(self, cutoff: float, exponent: int, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.exponent, self.cutoff = Tensor(exponent, mstype.int32), Tensor([cutoff], dtype)

    def construct(self, d: Tensor) -> Tensor:
        """Distances (P, 1) to (P, 1)."""
        return envelope(d, self.exponent, self.cutoff)


class EnvelopedBasis(nn.Cell):
    """y_k e_k with q = 1, and sum_k y_k z_k e_k with q = 2, of (13).

    Args:
        cutoff: c, Angstrom.
        exponent: of the polynomial.
        waves: B.
        centres: (K - B,) x_k.
        sharpness: a.
        dtype: of the distances.
    """

    def __init__(
        self, cutoff: float, exponent: int, waves: int, centres: np.ndarray, sharpness: float, dtype: mstype.Type
    ):
        super().__init__(auto_prefix=False)
        self.once, self.twice = (Tensor([waves, exponent, power], mstype.int32) for power in (1, 2))
        self.numbers, self.no_order = Tensor([cutoff, sharpness, *centres], dtype), Tensor(0, mstype.int32)

    def construct(self, d: Tensor, s: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and scales (P, 1) with y and z (P, K) to (P, K) and (P, 1)."""
        functions = pair_functions(d, s, y, self.once, self.numbers, self.no_order)
        return functions, pair_function_sums(d, s, y, z, self.twice, self.numbers, self.no_order)


envelope, envelope_slopes = _Envelope("envelope", same), _EnvelopeSlopes("envelope_slopes", same)
pair_functions = _PairFunctions("pair_functions", lambda *shapes: shapes[2])
pair_function_sums = _PairFunctionSums("pair_function_sums", same)
scaled_pair_functions = _ScaledPairFunctions("scaled_pair_functions", lambda *shapes: shapes[3])
scaled_pair_function_sums = _ScaledPairFunctionSums("scaled_pair_function_sums", same)
