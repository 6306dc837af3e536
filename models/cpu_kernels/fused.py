"""The kernels as differentiable cells: every gradient is made of kernels again, so that all orders stay fused.

    (1)  activations  y = f(x), and the slopes g f'(x), g f''(x); g f'''(x) is written in MindSpore's operators
    (2)  pairs        m_i = sum_p c_p w_p x_j, with each of the two atoms of a pair in the place of i
    (3)  triplets     s_o = sum_t x_in(t) (W r_t) over the triplets t with out(t) = o
    (4)  layers       y = x W^T + b

(2) to (4) are linear in each factor.  Contracted with g each is one number, sum g c w x, sum g x (W r) or sum g (W x);
its gradient in any factor is linear in all the others, so three kernels each (and the sum for b) serve every order: the
cells are each other's gradients.

They take float32 and float64.  Arrays are dense, indices int32 and in range.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from mindspore import Tensor, nn, ops

from models.cpu_kernels.build import library

LIBRARY = library()
# not OMP_NUM_THREADS: MindSpore sets it to 1 for its children, whatever the user wanted
ctypes.CDLL(LIBRARY).set_threads(len(os.sched_getaffinity(0)))


def _kernel(name: str, shape: Callable[..., list[int]]) -> ops.Custom:
    """The kernel called ``name``, in the precision of its first input; ``shape`` makes its shape from the inputs'."""
    return ops.Custom(f"{LIBRARY}:{name}", shape, lambda *types: types[0], "aot")


class _Kernel(nn.Cell):
    """A cell around one kernel; its index inputs have no gradient."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(auto_prefix=False)
        self.kernel, self.zeros = _kernel(name, shape), ops.ZerosLike()


class _Slope(_Kernel):
    """(1) A slope of any order at x, times g."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Tensor, g: Tensor) -> Tensor:
        """Two of the same shape."""
        return self.kernel(x, g)


class _Swish(_Kernel):
    """(1) x s(x) with the sigmoid s."""

    def construct(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.kernel(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g f'(x)."""
        return (swish_slope(x, dout),)


class _SwishSlope(_Slope):
    """(1) g f'(x)."""

    def bprop(self, x: Tensor, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h f''(x) and h f'(x)."""
        return swish_curvature(x, dout * g), swish_slope(x, dout)


class _SwishCurvature(_Slope):
    """(1) g f''(x)."""

    def bprop(self, x: Tensor, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h f'''(x) with f''' = s1 (3 - 6 s + x (1 - 6 s1)), s1 = s (1 - s), and h f''(x)."""
        s = self.sigmoid(x)
        s1 = s * (1 - s)
        return dout * g * s1 * (3 - 6 * s + x * (1 - 6 * s1)), swish_curvature(x, dout)


class _ShiftedSoftplus(_Kernel):
    """(1) ln(1 + e^x) - ln 2."""

    def construct(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.kernel(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g s(x)."""
        return (softplus_slope(x, dout),)


class _SoftplusSlope(_Slope):
    """(1) g s(x)."""

    def bprop(self, x: Tensor, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h s'(x) and h s(x)."""
        return softplus_curvature(x, dout * g), softplus_slope(x, dout)


class _SoftplusCurvature(_Slope):
    """(1) g s'(x)."""

    def bprop(self, x: Tensor, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h s''(x) with s'' = s (1 - s) (1 - 2 s), and h s'(x)."""
        s = self.sigmoid(x)
        return dout * g * s * (1 - s) * (1 - 2 * s), softplus_curvature(x, dout)


class _PairSum(_Kernel):
    """(2) m (N, F) from x (N, F), w (P, F), c (P, 1) and the atoms of each pair (P,)."""

    def construct(self, x: Tensor, w: Tensor, c: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Both directions of each pair."""
        return self.kernel(x, w, c, first, second)

    def bprop(
        self, x: Tensor, w: Tensor, c: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """Exchanges x and m: what i gets from j is weighted as what j gets from i."""
        return (
            pair_sum(dout, w, c, first, second),
            pair_filters(dout, x, c, first, second),
            pair_scales(dout, x, w, first, second),
            self.zeros(first),
            self.zeros(second),
        )


class _PairFilters(_Kernel):
    """The gradient of (2) in w: c_p (g_i x_j + g_j x_i), (P, F)."""

    def construct(self, g: Tensor, x: Tensor, c: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Of g and x (N, F), c (P, 1)."""
        return self.kernel(g, x, c, first, second)

    def bprop(
        self, g: Tensor, x: Tensor, c: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient takes the place of w."""
        return (
            pair_sum(x, dout, c, first, second),
            pair_sum(g, dout, c, first, second),
            pair_scales(g, x, dout, first, second),
            self.zeros(first),
            self.zeros(second),
        )


class _PairScales(_Kernel):
    """The gradient of (2) in c: w_p . (g_i x_j + g_j x_i), (P, 1)."""

    def construct(self, g: Tensor, x: Tensor, w: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Of g and x (N, F), w (P, F)."""
        return self.kernel(g, x, w, first, second)

    def bprop(
        self, g: Tensor, x: Tensor, w: Tensor, first: Tensor, second: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient takes the place of c."""
        return (
            pair_sum(x, w, dout, first, second),
            pair_sum(g, w, dout, first, second),
            pair_filters(g, x, dout, first, second),
            self.zeros(first),
            self.zeros(second),
        )


class _TripletSum(_Kernel):
    """(3) s (E, I) from x (E, I), r (T, B), W (I, B) and the two edges of each triplet (T,)."""

    def construct(self, x: Tensor, r: Tensor, w: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """From the edges ``source`` to the edges ``to``."""
        return self.kernel(x, r, w, source, to)

    def bprop(
        self, x: Tensor, r: Tensor, w: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient in x runs the other way."""
        return (
            triplet_sum(dout, r, w, to, source),
            triplet_rows(dout, x, w, source, to),
            triplet_weights(dout, x, r, source, to),
            self.zeros(source),
            self.zeros(to),
        )


class _TripletRows(_Kernel):
    """The gradient of (3) in r: W^T (g_to x_source), (T, B)."""

    def construct(self, g: Tensor, x: Tensor, w: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """Of g and x (E, I), W (I, B)."""
        return self.kernel(g, x, w, source, to)

    def bprop(
        self, g: Tensor, x: Tensor, w: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient takes the place of r."""
        return (
            triplet_sum(x, dout, w, source, to),
            triplet_sum(g, dout, w, to, source),
            triplet_weights(g, x, dout, source, to),
            self.zeros(source),
            self.zeros(to),
        )


class _TripletWeights(_Kernel):
    """The gradient of (3) in W: sum_t (g_to x_source) r_t^T, (I, B)."""

    def construct(self, g: Tensor, x: Tensor, r: Tensor, source: Tensor, to: Tensor) -> Tensor:
        """Of g and x (E, I), r (T, B)."""
        return self.kernel(g, x, r, source, to)

    def bprop(
        self, g: Tensor, x: Tensor, r: Tensor, source: Tensor, to: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        """The gradient takes the place of W."""
        return (
            triplet_sum(x, r, dout, source, to),
            triplet_sum(g, r, dout, to, source),
            triplet_rows(g, x, dout, source, to),
            self.zeros(source),
            self.zeros(to),
        )


class _Linear(_Kernel):
    """(4) x W^T + b, (M, N), from x (M, K), W (N, K) and b (N,)."""

    def construct(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Rows of x."""
        return self.kernel(x, w, b)

    def bprop(self, x: Tensor, w: Tensor, b: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g W, g^T x and the sum of g over rows."""
        return linear_inputs(dout, w), linear_weights(dout, x), column_sums(dout)


class _ColumnSums(_Kernel):
    """The gradient of (4) in b: the sum of the rows of g (M, N), (N,)."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.add = ops.BiasAdd()

    def construct(self, g: Tensor) -> Tensor:
        """Of g (M, N)."""
        return self.kernel(g)

    def bprop(self, g: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient goes to every row."""
        return (self.add(self.zeros(g), dout),)


class _LinearWithoutBias(_Kernel):
    """(4) x W^T, (M, N)."""

    def construct(self, x: Tensor, w: Tensor) -> Tensor:
        """Of x (M, K) and W (N, K)."""
        return self.kernel(x, w)

    def bprop(self, x: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g W and g^T x."""
        return linear_inputs(dout, w), linear_weights(dout, x)


class _LinearInputs(_Kernel):
    """The gradient of (4) in x: g W, (M, K)."""

    def construct(self, g: Tensor, w: Tensor) -> Tensor:
        """Of g (M, N) and W (N, K)."""
        return self.kernel(g, w)

    def bprop(self, g: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of x."""
        return linear_without_bias(dout, w), linear_weights(g, dout)


class _LinearWeights(_Kernel):
    """The gradient of (4) in W: g^T x, (N, K)."""

    def construct(self, g: Tensor, x: Tensor) -> Tensor:
        """Of g (M, N) and x (M, K)."""
        return self.kernel(g, x)

    def bprop(self, g: Tensor, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of W."""
        return linear_without_bias(x, dout), linear_inputs(g, dout)


def _same(*shapes: list[int]) -> list[int]:
    """The shape of the first input."""
    return shapes[0]


def _rows_of_third(*shapes: list[int]) -> list[int]:
    """As many rows as the third input, as wide as the first."""
    return [shapes[2][0], shapes[0][1]]


swish, swish_slope = _Swish("swish_0", _same), _SwishSlope("swish_1", _same)
swish_curvature = _SwishCurvature("swish_2", _same)
shifted_softplus = _ShiftedSoftplus("shifted_softplus_0", _same)
softplus_slope = _SoftplusSlope("shifted_softplus_1", _same)
softplus_curvature = _SoftplusCurvature("shifted_softplus_2", _same)
pair_sum, pair_filters = _PairSum("pair_sum", _same), _PairFilters("pair_filters", _rows_of_third)
pair_scales = _PairScales("pair_scales", lambda *shapes: [shapes[2][0], 1])
triplet_sum = _TripletSum("triplet_sum", _same)
triplet_rows = _TripletRows("triplet_rows", lambda *shapes: [shapes[3][0], shapes[2][1]])
triplet_weights = _TripletWeights("triplet_weights", lambda *shapes: [shapes[0][1], shapes[2][1]])

linear = _Linear("linear", lambda *shapes: [shapes[0][0], shapes[1][0]])
linear_without_bias = _LinearWithoutBias("linear_without_bias", lambda *shapes: [shapes[0][0], shapes[1][0]])
linear_inputs = _LinearInputs("linear_inputs", lambda *shapes: [shapes[0][0], shapes[1][1]])
column_sums = _ColumnSums("column_sums", lambda *shapes: [shapes[0][1]])
linear_weights = _LinearWeights("linear_weights", lambda *shapes: [shapes[0][1], shapes[1][1]])
