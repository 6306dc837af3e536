"""Layers that several models share.

A layer computes in the precision of its input: float16 where a model passes float16, with the weights rounded on their
way and their gradients back in the precision of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, Uniform, XavierUniform, initializer

from models.cpu_kernels import load, on_cpu
from models.graph_ops import to_type
from models.swish import Swish


class AddBias(nn.Cell):
    """x + b for every row of x.

    Not written as x + b: a CPU keeps two indices of 8 bytes for each element of a broadcast sum as long as the compiled
    graph lives.  The gradient is a plain sum, which takes a third of the time of the operator's own.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.add, self.sum = ops.BiasAdd(), ops.ReduceSum()

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        """(M, F) and (F,) to (M, F)."""
        return self.add(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The bias goes to every row."""
        return dout, self.sum(dout, 0)


class Softplus(nn.Cell):
    """ln(1 + e^x), with the slope written as a sigmoid: MindSpore's own second derivative takes eight operators."""

    def __init__(self, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.softplus, self.sigmoid = ops.Softplus(), ops.Sigmoid()
        self.exact = dtype == mstype.float64

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if self.exact:  # the fused operator is only good to 3e-7 in float64
            return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x)))
        return self.softplus(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The slope 1 / (1 + e^-x), times g."""
        return (dout * self.sigmoid(x),)


class ShiftedSoftplus(nn.Cell):
    """ssp(x) = ln(e^x / 2 + 1 / 2), smooth and zero at zero (Schuett et al. 2017)."""

    def __init__(self, dtype: mstype.Type):
        super().__init__()
        self.log2 = Tensor(np.log(2.0), dtype)
        self.softplus = Softplus(dtype)
        kernels = load()
        self.kernel: Any = kernels.shifted_softplus if kernels else None

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if self.kernel is not None and x.dtype != mstype.float16:
            return self.kernel(x)
        return self.softplus(x) - to_type(self.log2, x.dtype)


class Product(nn.Cell):
    """x W^T + b, or x W^T where there is no bias, in the precision of x."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.multiply, self.add_bias = ops.MatMul(transpose_b=True), AddBias()
        kernels = load()
        self.linear: Any = kernels.linear if kernels else None
        self.linear_without_bias: Any = kernels.linear_without_bias if kernels else None

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(M, K), (N, K) and (N,) to (M, N)."""
        if self.linear is None or x.dtype == mstype.float16:
            product = self.multiply(x, to_type(weight, x.dtype))
            return product if bias is None else self.add_bias(product, to_type(bias, x.dtype))
        weight = to_type(weight, x.dtype)
        return self.linear_without_bias(x, weight) if bias is None else self.linear(x, weight, to_type(bias, x.dtype))


class Dense(nn.Cell):
    """A linear layer, y = x W^T + b, with Glorot-uniform weights (outputs, inputs) and zero bias.

    Args:
        inputs, outputs: sizes of the last axis.
        dtype: of the parameters.
        bias: whether there is a b.
    """

    def __init__(self, inputs: int, outputs: int, dtype: mstype.Type, bias: bool = True):
        super().__init__()
        self.weight = Parameter(initializer(XavierUniform(), (outputs, inputs), dtype), name="weight")
        self.bias: Any = Parameter(initializer("zeros", (outputs,), dtype), name="bias") if bias else None
        self.product = Product()

    def construct(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return self.product(x, self.weight, self.bias)


class TwoLayers(nn.Cell):
    """y = W' act(W x + b) + b'.

    Args:
        inputs, hidden, outputs: sizes of the last axis.
        activation: act.
        dtype: of the parameters.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Cell, dtype: mstype.Type):
        super().__init__()
        self.hidden, self.output = Dense(inputs, hidden, dtype), Dense(hidden, outputs, dtype)
        self.activation = activation

    def construct(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return self.output(self.activation(self.hidden(x)))


class _AddRows(nn.Cell):
    """x_k + b_k for every row of x_k, of B matrices and vectors; as ``AddBias`` for one."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.sum = ops.ReduceSum()

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, M, F) and (B, F) to (B, M, F)."""
        return x + bias.expand_dims(1)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Each bias goes to every row."""
        return dout, self.sum(dout, 1)


class SideBySide(nn.Cell):
    """Several ``TwoLayers`` of the same input, y_k = W'_k act(W_k x + b_k) + b'_k; two products on an accelerator.

    An accelerator starts every operator alone; a CPU adds biases, and sums their gradients, faster for one network.

    Args:
        networks: B cells of one shape, which belong to other cells.
        last: an activation of the outputs; None for none.
    """

    def __init__(self, networks: Sequence[TwoLayers], last: nn.Cell | None = None):
        super().__init__(auto_prefix=False)
        self.networks = tuple(networks)
        self.last = last
        self.activation = networks[0].activation
        self.on_cpu = on_cpu()
        self.multiply, self.add_rows = ops.BatchMatMul(transpose_b=True), _AddRows()
        # a graph that joins parameters may copy every parameter before, and on a CPU round float64 to float32 in doing
        # so; products with 1 keep it from that, and are gone from the final graph
        self.one = Tensor(1.0, networks[0].hidden.weight.dtype)

    def construct(self, x: Tensor) -> tuple | Tensor:
        """(M, inputs) to B of (M, outputs)."""
        if self.on_cpu:
            outputs: tuple = ()
            for network in self.networks:
                y = network(x)
                outputs = (*outputs, y if self.last is None else self.last(y))
            return outputs
        inputs: tuple = ()
        hidden: tuple = ()
        output: tuple = ()
        for network in self.networks:
            inputs, hidden, output = (*inputs, x), (*hidden, network.hidden), (*output, network.output)
        y = self.activation(self.layer(ops.stack(inputs), hidden))  # (B, M, hidden)
        y = self.layer(y, output)  # (B, M, outputs)
        return y if self.last is None else self.last(y)

    def layer(self, x: Tensor, layers: tuple) -> Tensor:
        """B linear layers, each of its own input: (B, M, K) to (B, M, N)."""
        weights: tuple = ()
        biases: tuple = ()
        for layer in layers:
            weights, biases = (*weights, self.one * layer.weight), (*biases, self.one * layer.bias)
        product = self.multiply(x, to_type(ops.stack(weights), x.dtype))
        return self.add_rows(product, to_type(ops.stack(biases), x.dtype))


def glorot_orthogonal(outputs: int, inputs: int, dtype: mstype.Type) -> Tensor:
    """A random matrix with orthogonal rows or columns and variance 2 / (inputs + outputs).

    Source: Gasteiger et al., ICLR 2020 (arXiv 2003.03123), where linear layers start so.
    """
    normal = initializer(Normal(1.0), (max(outputs, inputs), min(outputs, inputs)), mstype.float32).init_data()
    columns, triangle = np.linalg.qr(normal.asnumpy().astype(np.float64))
    columns = columns * np.sign(np.diag(triangle))
    matrix = columns if outputs >= inputs else columns.T
    return Tensor(matrix * np.sqrt(2.0 / ((inputs + outputs) * max(matrix.var(), 1e-12))), dtype)


def default_uniform(shape: tuple[int, ...], inputs: int, dtype: mstype.Type) -> Tensor:
    """Uniform within 1 / sqrt(inputs), the default of linear layers in the original."""
    return initializer(Uniform(inputs**-0.5), shape, mstype.float32).init_data().astype(dtype)


class Linear(nn.Cell):
    """y = x W^T without a bias; the weights are ``glorot_orthogonal``, or zero."""

    def __init__(self, inputs: int, outputs: int, dtype: mstype.Type, zeros: bool = False):
        super().__init__()
        weight = initializer("zeros", (outputs, inputs), dtype) if zeros else glorot_orthogonal(outputs, inputs, dtype)
        self.weight = Parameter(weight, name="weight")
        self.product = Product()

    def construct(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return self.product(x, self.weight, None)


class JoinedLinear(nn.Cell):
    """x W_k^T for several matrices of one shape, in one pass over x.

    The matrices are put together by products: MindSpore copies each parameter that concat or stack joins, and on a CPU
    its concat rounds float64 to float32.  What comes out is taken apart by Unstack, whose gradient is Stack; that of
    Split is Concat, and that of Concat an operator without a page.

    Args:
        count: of the matrices.
        outputs: rows of each.
        dtype: of the parameters.
    """

    def __init__(self, count: int, outputs: int, dtype: mstype.Type):
        super().__init__()
        places = np.eye(count * outputs).reshape(count * outputs, count, outputs)
        self.places = tuple(Tensor(places[:, k], dtype) for k in range(count))  # (count outputs, outputs)
        self.shape = (-1, count, outputs)
        self.place, self.add, self.product, self.unstack = ops.MatMul(), ops.AddN(), Product(), ops.Unstack(1, count)

    def construct(self, x: Tensor, weights: tuple) -> tuple:
        """(M, inputs) and [(outputs, inputs)] to [(M, outputs)]."""
        placed: tuple = ()
        for k in range(len(weights)):
            placed = (*placed, self.place(self.places[k], weights[k]))  # (count outputs, inputs)
        return self.unstack(self.product(x, self.add(placed), None).reshape(self.shape))


class SwishLinear(nn.Cell):
    """y = swish(x W^T + b), with the weights and the bias (or none) of a linear layer."""

    def __init__(self, inputs: int, outputs: int, dtype: mstype.Type, bias: bool = True):
        super().__init__()
        self.weight = Parameter(glorot_orthogonal(outputs, inputs, dtype), name="weight")
        self.bias: Any = Parameter(initializer("zeros", (outputs,), dtype), name="bias") if bias else None
        self.product, self.swish = Product(), Swish()

    def construct(self, x: Tensor) -> Tensor:
        """(M, inputs) to (M, outputs)."""
        return self.swish(self.product(x, self.weight, self.bias))


class ResidualLayer(nn.Cell):
    """x + swish(W swish(W x + b) + b)."""

    def __init__(self, features: int, dtype: mstype.Type):
        super().__init__()
        self.first = SwishLinear(features, features, dtype)
        self.second = SwishLinear(features, features, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(M, F) to (M, F)."""
        return x + self.second(self.first(x))
