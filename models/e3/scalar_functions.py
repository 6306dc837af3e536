"""The activations of scalars, each with its constant and its parity.

The constants make the second moment of c f(x) 1 for x of a normal distribution.  They are those of e3nn, which draws a
million numbers; the moments themselves differ from the third digit on, and weights belong to the constants with which
they were trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.blocks import ShiftedSoftplus, Softplus
from models.cpu_kernels import on_cpu
from models.graph_ops import to_type
from models.swish import Swish


class Sigmoid(nn.Cell):
    """s = 1 / (1 + e^-x), with the slope s - s^2: the slope of MindSpore's own leads to an operator without a page."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return self.sigmoid(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slope, times g."""
        return (dout * (out - out * out),)


class Tanh(nn.Cell):
    """t = tanh(x), with the slope 1 - t^2; see ``Sigmoid``.

    On a CPU it is 2 / (1 + e^(-2 x)) - 1, for there MindSpore's is off by 1e-4 near 5 in float32.

    Args:
        dtype: of x.
    """

    def __init__(self, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.on_cpu, self.sigmoid = on_cpu(), ops.Sigmoid()
        self.two, self.one = Tensor(2.0, dtype), Tensor(1.0, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if not self.on_cpu:
            return ops.tanh(x)
        two = to_type(self.two, x.dtype)
        return two * self.sigmoid(two * x) - to_type(self.one, x.dtype)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slope, times g."""
        return (dout - dout * (out * out),)


class SmoothLeakyReLU(nn.Cell):
    """(1 + a) / 2 x + (1 - a) / 2 x (2 s - 1) = a x + (1 - a) x s, with s = 1 / (1 + e^-x) and a = 0.2 (Equiformer).

    Args:
        dtype: of x.
    """

    def __init__(self, dtype: mstype.Type):
        super().__init__()
        self.swish = Swish()
        self.slope, self.rest = Tensor(0.2, dtype), Tensor(0.8, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return to_type(self.slope, x.dtype) * x + to_type(self.rest, x.dtype) * self.swish(x)


class Function(NamedTuple):
    """An activation.

    Attributes:
        make: the cell for a dtype.
        constant: c of (1).
        parity: 1 for an even function, -1 for an odd one, 0 for neither.
    """

    make: Callable[[mstype.Type], Callable[[Tensor], Tensor]]
    constant: float
    parity: int


FUNCTIONS = {
    "silu": Function(lambda dtype: Swish(), 1.6791767923989418, 0),
    "sigmoid": Function(lambda dtype: Sigmoid(), 1.8467055342154763, 0),
    "tanh": Function(Tanh, 1.5937334472592695, -1),
    "relu": Function(lambda dtype: ops.relu, 1.4163393446331365, 0),
    "softplus": Function(Softplus, 1.0426436590527184, 0),
    "ssp": Function(ShiftedSoftplus, 1.878204668541552, 0),
    "abs": Function(lambda dtype: ops.abs, 1.001110600838467, 1),
    "smooth_leaky_relu": Function(SmoothLeakyReLU, 1.531320475574866, 0),
}
