"""Activations y = f(x) and their slopes.

(1)  f(x),  g f'(x),  g f''(x);  the third order, g f'''(x), is written in MindSpore's operators
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

from models.cpu_kernels.kernel import Kernel, same


class _Slope(Kernel):
    """(1) A slope of any order at x, times g."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Tensor, g: Tensor) -> Tensor:
        """Two of the same shape."""
        return self.kernel(x, g)


class _Swish(Kernel):
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


class _ShiftedSoftplus(Kernel):
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


swish, swish_slope = _Swish("swish_0", same), _SwishSlope("swish_1", same)
swish_curvature = _SwishCurvature("swish_2", same)
shifted_softplus = _ShiftedSoftplus("shifted_softplus_0", same)
softplus_slope = _SoftplusSlope("shifted_softplus_1", same)
softplus_curvature = _SoftplusCurvature("shifted_softplus_2", same)
