"""Layers that several models share."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype


class ShiftedSoftplus(nn.Cell):
    """ssp(x) = ln(e^x / 2 + 1 / 2), smooth and zero at zero (Schuett et al. 2017)."""

    def __init__(self, dtype: mstype.Type = mstype.float32):
        super().__init__()
        self.log2 = Tensor(np.log(2.0), dtype)
        self.softplus = ops.Softplus()
        self.exact = dtype == mstype.float64

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if self.exact:  # the fused operator is only good to 3e-7 in float64
            return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x))) - self.log2
        return self.softplus(x) - self.log2


def dense(inputs: int, outputs: int, dtype: mstype.Type, bias: bool = True) -> nn.Dense:
    """A linear layer, y = x W^T + b, with Glorot-uniform weights (outputs, inputs) and zero bias."""
    return nn.Dense(inputs, outputs, weight_init="XavierUniform", bias_init="zeros", has_bias=bias, dtype=dtype)
