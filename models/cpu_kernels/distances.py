"""Vectors of pairs, their lengths, and functions of a length.

    (5a)  r_p = x_j + shift_p - x_i                    and its transpose, which takes g to both atoms
    (5b)  d = |r|, u = r / d                           and g u,  u . h,  g (h - u (u . h)) / d;  all 0 where r = 0
    (5c)  e_k(d) = exp(c_k (d - offset_k)^2)           and s e_k^(n)(d),  sum_k g_k e_k^(n)(d)
    (5d)  f(d) = (cos(w d) + 1) / 2                    and g f'(d),  g f''(d);  f''' = -w^2 f'

The two forms of (5b) in g and h, and those of (5c) in s and g, are each other's transpose.
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor
from mindspore import dtype as mstype

from models.cpu_kernels.kernel import Kernel, same


class _PairVectors(Kernel):
    """(5a) r (P, 3) from x (N, 3), shifts (P, 3) and the atoms i and j; the indices may be longer than P."""

    def construct(self, x: Tensor, shifts: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """From the atoms ``first`` to the atoms ``second``."""
        return self.kernel(x, shifts, first, second)

    def bprop(self, x: Tensor, shifts: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """What a pair gets goes to one atom, and with a minus sign to the other."""
        return pair_differences(dout, first, second, x), dout, self.zeros(first), self.zeros(second)


class _PairDifferences(Kernel):
    """The gradient of (5a) in x: g (P, 3) added at j and subtracted at i, (N, 3)."""

    def construct(self, g: Tensor, first: Tensor, second: Tensor, like: Tensor) -> Tensor:
        """As many rows as ``like`` has."""
        return self.kernel(g, first, second, like)

    def bprop(self, g: Tensor, first: Tensor, second: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of x, without shifts."""
        vectors = pair_vectors(dout, self.zeros(g), first, second)
        return vectors, self.zeros(first), self.zeros(second), self.zeros(like)


class _Lengths(Kernel):
    """(5b) d (P, 1) from r (P, 3)."""

    def construct(self, r: Tensor) -> Tensor:
        """Of r (P, 3)."""
        return self.kernel(r)

    def bprop(self, r: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g u."""
        return (along_directions(r, dout),)


class _AlongDirections(Kernel):
    """(5b) g u, (P, 3)."""

    def construct(self, r: Tensor, g: Tensor) -> Tensor:
        """Of r (P, 3), g (P, 1)."""
        return self.kernel(r, g)

    def bprop(self, r: Tensor, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g (h - u (u . h)) / d and u . h."""
        return parts_across(r, g, dout), parts_along(r, dout)


class _PartsAlong(Kernel):
    """(5b) u . h, (P, 1)."""

    def construct(self, r: Tensor, h: Tensor) -> Tensor:
        """Of r and h (P, 3)."""
        return self.kernel(r, h)

    def bprop(self, r: Tensor, h: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g (h - u (u . h)) / d and g u."""
        return parts_across(r, dout, h), along_directions(r, dout)


class _PartsAcross(Kernel):
    """(5b) g h' with h' = (h - u (u . h)) / d, (P, 3)."""

    def construct(self, r: Tensor, g: Tensor, h: Tensor) -> Tensor:
        """Of r and h (P, 3), g (P, 1)."""
        return self.kernel(r, g, h)

    def bprop(self, r: Tensor, g: Tensor, h: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """With k = dout and k' like h': returns -g ((k . h') u + (u . h) k' + (u . k) h') / d, k . h' and g k'."""
        ones = self.zeros(g) + 1
        h_across, k_across = parts_across(r, ones, h), parts_across(r, ones, dout)
        product = (dout * h_across).sum(-1, keepdims=True)
        turned = along_directions(r, product) + parts_along(r, h) * k_across + parts_along(r, dout) * h_across
        d = lengths(r)
        nowhere = (d == 0).astype(d.dtype)
        return -g * (1 - nowhere) / (d + nowhere) * turned, product, parts_across(r, g, dout)


class _Gaussians(Kernel):
    """(5c) e_k(d), (P, K)."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.first_order = Tensor(1, mstype.int32)

    def construct(self, d: Tensor, offsets: Tensor, coefficients: Tensor) -> Tensor:
        """Of d (P, 1), offsets and coefficients (K,); these two have no gradient."""
        return self.kernel(d, offsets, coefficients)

    def bprop(self, d: Tensor, offsets: Tensor, coefficients: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns sum_k g_k e_k'."""
        slope = gaussian_sums(d, dout, offsets, coefficients, self.first_order)
        return slope, self.zeros(offsets), self.zeros(coefficients)


class _GaussianSlopes(Kernel):
    """(5c) s e_k^(n)(d), (P, K)."""

    def construct(self, d: Tensor, s: Tensor, offsets: Tensor, coefficients: Tensor, n: Tensor) -> Tensor:
        """Of d and s (P, 1), and n ()."""
        return self.kernel(d, s, offsets, coefficients, n)

    def bprop(
        self, d: Tensor, s: Tensor, offsets: Tensor, coefficients: Tensor, n: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Returns s sum_k g_k e_k^(n + 1) and sum_k g_k e_k^(n)."""
        curvature = s * gaussian_sums(d, dout, offsets, coefficients, n + 1)
        slope = gaussian_sums(d, dout, offsets, coefficients, n)
        return curvature, slope, self.zeros(offsets), self.zeros(coefficients), self.zeros(n)


class _GaussianSums(Kernel):
    """(5c) sum_k g_k e_k^(n)(d), (P, 1)."""

    def construct(self, d: Tensor, g: Tensor, offsets: Tensor, coefficients: Tensor, n: Tensor) -> Tensor:
        """Of d (P, 1), g (P, K), and n ()."""
        return self.kernel(d, g, offsets, coefficients, n)

    def bprop(
        self, d: Tensor, g: Tensor, offsets: Tensor, coefficients: Tensor, n: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Returns s sum_k g_k e_k^(n + 1) and s e_k^(n)."""
        curvature = dout * gaussian_sums(d, g, offsets, coefficients, n + 1)
        slopes = gaussian_slopes(d, dout, offsets, coefficients, n)
        return curvature, slopes, self.zeros(offsets), self.zeros(coefficients), self.zeros(n)


class _CosineCutoff(Kernel):
    """(5d) f(d), (P, 1)."""

    def construct(self, d: Tensor, w: Tensor) -> Tensor:
        """Of d (P, 1) and the constant w ()."""
        return self.kernel(d, w)

    def bprop(self, d: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g f'."""
        return cutoff_slope(d, dout, w), self.zeros(w)


class _CutoffSlope(Kernel):
    """(5d) g f'(d), (P, 1)."""

    def construct(self, d: Tensor, g: Tensor, w: Tensor) -> Tensor:
        """Of d and g (P, 1)."""
        return self.kernel(d, g, w)

    def bprop(self, d: Tensor, g: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h f'' and h f'."""
        return cutoff_curvature(d, dout * g, w), cutoff_slope(d, dout, w), self.zeros(w)


class _CutoffCurvature(Kernel):
    """(5d) g f''(d), (P, 1)."""

    def construct(self, d: Tensor, g: Tensor, w: Tensor) -> Tensor:
        """Of d and g (P, 1)."""
        return self.kernel(d, g, w)

    def bprop(self, d: Tensor, g: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns -w^2 g h f' and h f''."""
        return -w * w * cutoff_slope(d, dout * g, w), cutoff_curvature(d, dout, w), self.zeros(w)


pair_vectors = _PairVectors("pair_vectors", lambda *shapes: shapes[1])
pair_differences = _PairDifferences("pair_differences", lambda *shapes: shapes[3])
lengths = _Lengths("lengths", lambda *shapes: [shapes[0][0], 1])
along_directions = _AlongDirections("along_directions", same)
parts_along = _PartsAlong("parts_along", lambda *shapes: [shapes[0][0], 1])
parts_across = _PartsAcross("parts_across", same)
gaussians = _Gaussians("gaussians", lambda *shapes: [shapes[0][0], shapes[1][0]])
gaussian_slopes = _GaussianSlopes("gaussian_slopes", lambda *shapes: [shapes[0][0], shapes[2][0]])
gaussian_sums = _GaussianSums("gaussian_sums", same)
cosine_cutoff = _CosineCutoff("cosine_cutoff_0", same)
cutoff_slope, cutoff_curvature = _CutoffSlope("cosine_cutoff_1", same), _CutoffCurvature("cosine_cutoff_2", same)
