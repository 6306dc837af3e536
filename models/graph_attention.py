"""Layers of Equiformer: weights of the distance, graph attention and a feed-forward network, for features of irreps.

Paper: Liao and Smidt, ICLR 2023 (arXiv 2206.11990); ``models.graph_attention_transformer`` has the whole.

    (1)  w_ij = f_ij R(e(d_ij))                                       R: linear, layer norm, swish
    (2)  m_ij = (L x_j + L x_i) (x)_w Y(r_ij)                         depthwise tensor product
    (3)  a_ij^h = softmax of c^h . leaky(L m_ij)^h over the j         of each head h; see ``models.attention``
    (4)  v_ij = L(gate(L m_ij) (x) Y(r_ij))                           with weights of its own
    (5)  y_i = L(sum_j a_ij v_ij)
    (6)  y_i = L gate(L x_i)

What layers read of the edges is one tuple ``edges``: e and f of each pair (P, K) and (P, 1), what ``prepared`` makes of
Y, and receivers and senders (E,).

L are linear layers of irreps, one for each place where the letter stands, with a bias on scalars (L x_i in (2) has
none).  Each head has channels of its own in s and in v.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, Uniform, initializer

from models.attention import ReceiverSoftmax
from models.blocks import Dense, default_uniform
from models.e3.channels import channel_numbers
from models.e3.depthwise_product import DepthwiseTensorProduct
from models.e3.dropout import EquivariantDropout
from models.e3.irreps import Irrep, Irreps
from models.e3.linear import Linear
from models.e3.mixed_product import MixedProduct
from models.e3.nonlinear import Activation, Gate
from models.e3.norm import EquivariantLayerNorm
from models.e3.tensor_product import Coupling
from models.graph_ops import both_ways, gather, segment_sum
from models.random import Dropout
from models.swish import Swish

SCALAR = Irrep(0, 1)


class Shapes(NamedTuple):
    """The irreps of a network, and its numbers of heads and of radial functions.

    Attributes:
        node: of a node.
        head: of a head's share of v, sorted.
        mlp: between the two layers of a feed-forward network.
        features: of a node after the last block, scalars.
        heads: H.
        functions: radial ones.
        hidden, layers: size and number of the layers of R before its last.
    """

    node: Irreps
    head: Irreps
    mlp: Irreps
    features: Irreps
    heads: int
    functions: int
    hidden: int
    layers: int


def gated(irreps: Irreps, dtype: mstype.Type) -> Gate:
    """The gate whose result has these irreps: silu for 0e, a sigmoid of a scalar more for each other copy."""
    scalars = Irreps([part for part in irreps if part.ir == SCALAR])
    others = Irreps([part for part in irreps if part.ir != SCALAR])
    gates = Irreps([(others.num_irreps, SCALAR)] if others else [])
    return Gate(scalars, ["silu"] * len(scalars), gates, ["sigmoid"] * len(gates), others, True, dtype)


def linear(irreps_in: Irreps, irreps_out: Irreps, dtype: mstype.Type, bias: bool = True) -> Linear:
    """L of the equations."""
    return Linear(irreps_in, irreps_out, bias, False, dtype)


def depthwise(irreps_in: Irreps, coupling: Coupling, keep: Irreps, dtype: mstype.Type) -> DepthwiseTensorProduct:
    """The product with Y that keeps some irreps, and scalars in any case."""
    return DepthwiseTensorProduct(irreps_in, coupling, keep + "1x0e", "component", "none", True, dtype, dtype)


class RadialWeights(nn.Cell):
    """Equation (1), for all pairs."""

    def __init__(self, shapes: Shapes, outputs: int, dtype: mstype.Type):
        super().__init__()
        sizes = [shapes.functions] + [shapes.hidden] * shapes.layers
        self.hidden = nn.CellList([Dense(one, other, dtype) for one, other in pairwise(sizes)])
        scalars = Irreps([(shapes.hidden, SCALAR)])
        self.norms = nn.CellList([EquivariantLayerNorm(scalars, dtype) for _ in range(shapes.layers)])
        self.last, self.swish = Dense(sizes[-1], outputs, dtype), Swish()
        for layer, inputs in zip([*self.hidden, self.last], sizes, strict=True):
            layer.weight.set_data(default_uniform(layer.weight.shape, inputs, dtype))
        self.last.bias.set_data(default_uniform((outputs,), sizes[-1], dtype))
        # a product with ones spreads a column faster than broadcasting does on a CPU
        self.ones, self.multiply = Tensor(np.ones((1, outputs)), dtype), ops.MatMul()

    def construct(self, basis: Tensor, envelope: Tensor) -> Tensor:
        """E (P, K) and f (P, 1) to weights (P, outputs)."""
        x = basis
        for k in range(len(self.hidden)):
            x = self.swish(self.norms[k](self.hidden[k](x)))
        return self.last(x) * self.multiply(envelope, self.ones)


class GraphAttention(nn.Cell):
    """Equations (2) to (5)."""

    def __init__(
        self, shapes: Shapes, coupling: Coupling, smooth: bool, alpha_drop: float, proj_drop: float, dtype: mstype.Type
    ):
        super().__init__()
        node, heads, per_head = shapes.node, shapes.heads, shapes.head.count(SCALAR)
        scalars, values = Irreps([(heads * per_head, SCALAR)]), Irreps([(heads * mul, ir) for mul, ir in shapes.head])
        self.sources, self.targets = linear(node, node, dtype), linear(node, node, dtype, bias=False)
        self.product = depthwise(node, coupling, node, dtype)
        self.radial = RadialWeights(shapes, self.product.numel, dtype)
        self.logits = linear(self.product.irreps_out, scalars, dtype)
        self.leaky = Activation(scalars, ["smooth_leaky_relu"], dtype)
        spread = (6 / (heads + per_head)) ** 0.5
        self.alpha_dot = Parameter(initializer(Uniform(spread), (1, heads, per_head), dtype), name="alpha_dot")
        self.of_head = Tensor(np.repeat(np.eye(heads), per_head, 0), dtype)  # (H A, H)
        self.softmax, self.drop_alpha = ReceiverSoftmax(heads, smooth, dtype), Dropout(alpha_drop, dtype)
        self.gate = gated(node, dtype)
        self.hidden = linear(self.product.irreps_out, self.gate.irreps_in, dtype)
        self.second = depthwise(node, coupling, values, dtype)
        self.weight = Parameter(initializer(Normal(1.0), (self.second.numel,), dtype), name="weight")
        self.value = linear(self.second.irreps_out, values, dtype)
        self.first = MixedProduct(self.product, (self.hidden, self.logits))
        self.last = MixedProduct(self.second, (self.value,))
        # the copies of an irrep in v are those of the first head, of the second and so on
        head_of = np.concatenate([np.repeat(np.arange(heads), mul) for mul, _ in shapes.head])[channel_numbers(values)]
        self.spread = Tensor((head_of == np.arange(heads)[:, None]).astype(float), dtype)  # (H, dim)
        self.project, self.drop = linear(values, node, dtype), EquivariantDropout(node, proj_drop, dtype)
        self.multiply = ops.MatMul()

    def attend(self, nodes: Tensor, edges: tuple) -> tuple[Tensor, Tensor]:
        """Features (N, dim) to L m (E, ...) of (4) and the attention a (E, H) of each receiver to its senders."""
        basis, envelope, attributes, receivers, senders = edges
        sources, targets = self.sources(nodes), self.targets(nodes)
        ends = gather(sources, senders) + gather(targets, receivers)  # (E, dim)
        hidden, logits = self.first(ends, attributes, self.radial(basis, envelope))  # of (2)
        directions = self.alpha_dot.reshape(-1, 1) * self.of_head  # (H A, H)
        logits = self.multiply(self.leaky(logits), directions)  # (E, H)
        return hidden, self.softmax(logits, both_ways(envelope), receivers, nodes)  # (E, H)  (3)

    def construct(self, nodes: Tensor, edges: tuple) -> Tensor:
        """Features (N, dim) to (N, dim)."""
        _, _, attributes, receivers, _ = edges
        hidden, attention = self.attend(nodes, edges)
        weights = self.drop_alpha(attention)
        (values,) = self.last(self.gate(hidden), attributes, self.weight.reshape(1, -1))  # (E, H dim of a head)  (4)
        summed = segment_sum(values * self.multiply(weights, self.spread), receivers, nodes)
        return self.drop(self.project(summed))  # (5)


class FeedForward(nn.Cell):
    """Equation (6)."""

    def __init__(self, node: Irreps, mlp: Irreps, irreps_out: Irreps, rate: float, dtype: mstype.Type):
        super().__init__()
        self.gate = gated(mlp, dtype)
        self.first = linear(node, self.gate.irreps_in, dtype)
        self.second, self.drop = linear(mlp, irreps_out, dtype), EquivariantDropout(irreps_out, rate, dtype)

    def construct(self, nodes: Tensor) -> Tensor:
        """(N, dim) to (N, dim of the result)."""
        return self.drop(self.second(self.gate(self.first(nodes))))
