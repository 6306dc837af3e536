"""Layers that several models share."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import XavierUniform, initializer


class Softplus(nn.Cell):
    """ln(1 + e^x)."""

    def __init__(self, dtype: mstype.Type = mstype.float32):
        super().__init__()
        self.softplus = ops.Softplus()
        self.exact = dtype == mstype.float64

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if self.exact:  # the fused operator is only good to 3e-7 in float64
            return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x)))
        return self.softplus(x)


class ShiftedSoftplus(nn.Cell):
    """ssp(x) = ln(e^x / 2 + 1 / 2), smooth and zero at zero (Schuett et al. 2017)."""

    def __init__(self, dtype: mstype.Type = mstype.float32):
        super().__init__()
        self.log2 = Tensor(np.log(2.0), dtype)
        self.softplus = Softplus(dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return self.softplus(x) - self.log2


class Dense(nn.Cell):
    """A linear layer, y = x W^T + b, with Glorot-uniform weights (outputs, inputs) and zero bias.

    The bias is added by broadcasting: on a CPU this and its gradient cost half of what ``nn.Dense`` takes.

    Args:
        inputs, outputs: sizes of the last axis.
        dtype: of the parameters.
        bias: whether there is a b.
    """

    def __init__(self, inputs: int, outputs: int, dtype: mstype.Type = mstype.float32, bias: bool = True):
        super().__init__()
        self.weight = Parameter(initializer(XavierUniform(), (outputs, inputs), dtype), name="weight")
        self.bias: Any = Parameter(initializer("zeros", (outputs,), dtype), name="bias") if bias else None
        self.multiply = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        product = self.multiply(x, self.weight)
        return product if self.bias is None else product + self.bias
