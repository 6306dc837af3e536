"""The activation swish(x) = x sigmoid(x), with derivatives of all orders in few operators."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import auto_generate

from models.cpu_kernels import load, on_cpu


class _SwishOnCPU(nn.Cell):
    """y = x s with s = sigmoid(x); the derivative y + s (1 - y) is one interpolation, and s is computed once."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.sigmoid, self.interpolate = ops.Sigmoid(), ops.Lerp()

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return x * self.sigmoid(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slope s + x s (1 - s) = y + s (1 - y), times g: g y + s (g - g y)."""
        return (self.interpolate(dout * out, dout, self.sigmoid(x)),)


class SwishOnDevice(nn.Cell):
    """swish(x) as one operator; the second derivative that MindSpore gives to it has an operator without a page."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.swish = auto_generate.SiLU()

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return self.swish(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slope, times g."""
        return (_swish_slope(dout, x),)


class _SwishSlope(nn.Cell):
    """g y' of y = swish(x), y' = s + y (1 - s), as one operator; its gradient is this cell again and an interpolation.

    With s = sigmoid(x) the second derivative is y'' = s (1 - y') + (1 - s) y'.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.slope, self.sigmoid, self.interpolate = auto_generate.SiLUGrad(), ops.Sigmoid(), ops.Lerp()

    def construct(self, g: Tensor, x: Tensor) -> Tensor:
        """Elementwise, two tensors of one shape."""
        return self.slope(g, x)

    def bprop(self, g: Tensor, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """For a cotangent t: t y', and t g y'' = g (s (t - t y') + (1 - s) t y')."""
        of_g = _swish_slope(dout, x)
        rest, s = dout - of_g, self.sigmoid(x)
        if x.dtype == mstype.float64:  # there is no interpolation in float64
            return of_g, g * (of_g + s * (rest - of_g))
        return of_g, g * self.interpolate(of_g, rest, s)


_swish_on_device = SwishOnDevice()
_swish_slope = _SwishSlope()


class Swish(nn.Cell):
    """swish(x) = x sigmoid(x), also known as SiLU.

    MindSpore's SiLU is one operator on Ascend and GPU.  On a CPU it is two, and seven more for its gradient.  Nor is it
    made of tanh, which is faster: in float32 on a CPU MindSpore's is off by 1e-4 near 5.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.on_cpu = on_cpu()
        self.swish_on_cpu, self.sigmoid = _SwishOnCPU(), ops.Sigmoid()
        kernels = load()
        self.kernel: Any = kernels.swish if kernels else None

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if not self.on_cpu:
            return _swish_on_device(x)
        if self.kernel is not None and x.dtype != mstype.float16:
            return self.kernel(x)
        if x.dtype == mstype.float64:  # there is no interpolation in float64
            return x * self.sigmoid(x)
        return self.swish_on_cpu(x)
