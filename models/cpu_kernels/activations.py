"""Activations y = f(x) and their slopes.

(1)  f(x) and g f^(n)(x)
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor
from mindspore import dtype as mstype

from models.cpu_kernels.kernel import Kernel, same


class _Activation(Kernel):
    """(1) f(x)."""

    def __init__(self, name: str, shape: Callable[..., list[int]]):
        super().__init__(name, shape)
        self.first_order = Tensor(1, mstype.int32)

    def construct(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.kernel(x)


class _Slopes(Kernel):
    """(1) g f^(n)(x)."""

    def construct(self, x: Tensor, g: Tensor, n: Tensor) -> Tensor:
        """Two of the same shape, and n ()."""
        return self.kernel(x, g, n)


class _Swish(_Activation):
    """(1) x s(x) with the sigmoid s."""

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g f'(x)."""
        return (swish_slopes(x, dout, self.first_order),)


class _SwishSlopes(_Slopes):
    """(1) of x s(x)."""

    def bprop(self, x: Tensor, g: Tensor, n: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h f^(n + 1)(x) and h f^(n)(x)."""
        return swish_slopes(x, dout * g, n + 1), swish_slopes(x, dout, n), self.zeros(n)


class _ShiftedSoftplus(_Activation):
    """(1) ln(1 + e^x) - ln 2."""

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g f'(x), f' = s."""
        return (softplus_slopes(x, dout, self.first_order),)


class _SoftplusSlopes(_Slopes):
    """(1) of ln(1 + e^x)."""

    def bprop(self, x: Tensor, g: Tensor, n: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g h f^(n + 1)(x) and h f^(n)(x)."""
        return softplus_slopes(x, dout * g, n + 1), softplus_slopes(x, dout, n), self.zeros(n)


swish, swish_slopes = _Swish("swish", same), _SwishSlopes("swish_slopes", same)
shifted_softplus = _ShiftedSoftplus("shifted_softplus", same)
softplus_slopes = _SoftplusSlopes("shifted_softplus_slopes", same)
