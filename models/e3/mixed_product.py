"""A depthwise product of features with attributes, and the linear layers that read it, in one pass on a CPU.

    (1)  y^l = L^l (x (x)_w a)     for the layers l; see ``depthwise_product`` and ``linear``

What stands between the two has many more numbers than features and results together, and so have the matrices that
couple with the attributes.  A kernel keeps neither in memory, in no derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from models.cpu_kernels import load
from models.e3.depthwise_product import NO_TABLES, DepthwiseTensorProduct
from models.e3.layout import padding, split_and_join
from models.e3.linear import Linear
from models.graph_ops import to_type


class MixedProduct(nn.Cell):
    """Equation (1).  Its parameters are those of the layers, which belong to another cell.

    Args:
        product: the depthwise product.
        layers: what reads it, in the precision of its contraction.
    """

    def __init__(self, product: DepthwiseTensorProduct, layers: Sequence[Linear]):
        super().__init__(auto_prefix=False)
        self.contraction = product.contraction
        self.product, self.layers = (product,), tuple(layers)  # in tuples: cells of another one
        kernels = load(self.contraction)
        self.kernel: Any = kernels.mixed_products if kernels else None
        if kernels:
            widths = [layer.irreps_out.dim for layer in layers]
            self.layout, self.numbers = product.tables(*mixture_of(product, layers))
            self.split, _ = split_and_join(widths)
            numels = [layer.weight.shape[0] for layer in layers]
            self.pads: tuple = tuple(padding(numel, sum(numels), sum(numels[:k])) for k, numel in enumerate(numels))
            self.places = tuple(
                Tensor(_place(layer, sum(widths[:k]), sum(widths)), self.contraction) for k, layer in enumerate(layers)
            )
            self.biased = tuple(layer.bias is not None for layer in layers)
            self.none, self.multiply = Tensor(np.zeros((1, sum(widths))), self.contraction), ops.MatMul()

    def construct(self, x: Tensor, attributes: Any, weights: Tensor) -> tuple:
        """Features (M, dim), what ``prepared`` makes of attributes and weights to y^l (M, dim) of each layer.

        Weights are (M, numel), (M / 2, numel) of pairs, whose edges are the rows e and e + M / 2, or (1, numel).
        """
        results: tuple = ()
        if self.kernel is None:
            coupled = self.product[0](x, attributes, weights)
            for layer in self.layers:
                results = (*results, layer(coupled))
            return results
        kind, own = self.contraction, self.product[0].own
        factors = to_type(x, kind), to_type(attributes, kind), to_type(weights, kind)
        y = self.kernel(*factors, self.mixing(), self.bias(), own, own, self.layout, self.numbers)
        parts = self.split(to_type(y, x.dtype))
        for k in range(len(self.layers)):
            results = (*results, self.layers[k].distribute(parts[k]))
        return results

    def mixing(self) -> Tensor:
        """The weights of all layers, one after the other."""
        weights: Any = None
        for k in range(len(self.layers)):
            own = to_type(self.layers[k].weight, self.contraction)
            own = own if self.pads[k] is None else self.pads[k](own)
            weights = own if weights is None else weights + own
        return weights

    def bias(self) -> Tensor:
        """What is added to all results side by side, (sum of dim,)."""
        row = self.none
        for k in range(len(self.layers)):
            if self.biased[k]:
                own = to_type(self.layers[k].bias, self.contraction)
                row = row + self.multiply(own.reshape(1, -1), self.places[k])
        return row.reshape(-1)


def mixture_of(product: DepthwiseTensorProduct, layers: Sequence[Linear]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts, entries and factors of all layers, as ``models.cpu_kernels.mixtures`` describes them."""
    starts = [part.start for part in product.irreps_out.slices()]
    parts, entries, factors = ([one] for one in NO_TABLES)
    weight, column, count = 0, 0, 0
    for layer in layers:
        own, more = layer.mixing.parts.asnumpy().copy(), layer.mixing.entries.asnumpy().copy()
        own[:, 0] = [starts[sources[0]] for _, sources in layer.collect.parts]  # each irrep stands in one place
        own[:, 4] += column
        more[:, 0] += count
        more[:, 3] += weight
        parts.append(own)
        entries.append(more)
        factors.append(layer.mixing.factors.asnumpy())
        weight, column, count = weight + layer.weight.shape[0], column + layer.irreps_out.dim, count + len(own)
    return np.concatenate(parts), np.concatenate(entries), np.concatenate(factors)


def _place(layer: Linear, start: int, width: int) -> np.ndarray:
    """Where the biases of a layer stand in a row of all results, (biases, width)."""
    if layer.bias is None:
        return np.zeros((1, width))
    place: Any = layer.mixing.place_bias
    own = place.asnumpy()
    return np.pad(own, ((0, 0), (start, width - start - own.shape[1])))
