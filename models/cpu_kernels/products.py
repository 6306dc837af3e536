"""Linear layers.

(4)  y = x W^T + b
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

from models.cpu_kernels.kernel import Kernel


class _Linear(Kernel):
    """(4) x W^T + b, (M, N), from x (M, K), W (N, K) and b (N,)."""

    def construct(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Rows of x."""
        return self.kernel(x, w, b)

    def bprop(self, x: Tensor, w: Tensor, b: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g W, g^T x and the sum of g over rows."""
        return linear_inputs(dout, w), linear_weights(dout, x), column_sums(dout)


class _ColumnSums(Kernel):
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


class _LinearWithoutBias(Kernel):
    """(4) x W^T, (M, N)."""

    def construct(self, x: Tensor, w: Tensor) -> Tensor:
        """Of x (M, K) and W (N, K)."""
        return self.kernel(x, w)

    def bprop(self, x: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Returns g W and g^T x."""
        return linear_inputs(dout, w), linear_weights(dout, x)


class _LinearInputs(Kernel):
    """The gradient of (4) in x: g W, (M, K)."""

    def construct(self, g: Tensor, w: Tensor) -> Tensor:
        """Of g (M, N) and W (N, K)."""
        return self.kernel(g, w)

    def bprop(self, g: Tensor, w: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of x."""
        return linear_without_bias(dout, w), linear_weights(g, dout)


class _LinearWeights(Kernel):
    """The gradient of (4) in W: g^T x, (N, K)."""

    def construct(self, g: Tensor, x: Tensor) -> Tensor:
        """Of g (M, N) and x (M, K)."""
        return self.kernel(g, x)

    def bprop(self, g: Tensor, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The gradient takes the place of W."""
        return linear_without_bias(x, dout), linear_inputs(g, dout)


linear = _Linear("linear", lambda *shapes: [shapes[0][0], shapes[1][0]])
linear_without_bias = _LinearWithoutBias("linear_without_bias", lambda *shapes: [shapes[0][0], shapes[1][0]])
linear_inputs = _LinearInputs("linear_inputs", lambda *shapes: [shapes[0][0], shapes[1][1]])
linear_weights = _LinearWeights("linear_weights", lambda *shapes: [shapes[0][1], shapes[1][1]])
column_sums = _ColumnSums("column_sums", lambda *shapes: [shapes[0][1]])
