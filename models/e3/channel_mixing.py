"""Products of the blocks of a feature with matrices that are made of a flat vector of weights, as e3nn keeps them.

    (1)  y_p[r] = z_p[r] B_p + b_p,     B_p = sum_s f_s w_s

The z_p[r] of a part p, its components r, are multiplied by one matrix B_p (inputs, outputs).  Each entry s of a part is
a matrix of weights w_s that stands in B_p from a row and a column on; entries of the same place are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.blocks import AddBias, Product
from models.cpu_kernels import load
from models.e3.layout import padding, split_and_join
from models.e3.weight_map import WeightMap
from models.graph_ops import to_type


class Part(NamedTuple):
    """One z_p and its y_p.

    Attributes:
        start: where it stands in a row of all z.
        components: r.
        inputs, outputs: shape of its matrix.
        bias: the first of the biases of its first outputs.
        biased: how many of them have one.
    """

    start: int
    components: int
    inputs: int
    outputs: int
    bias: int = 0
    biased: int = 0


class Entry(NamedTuple):
    """One matrix of weights in that of a part.

    Attributes:
        part: which.
        row, column: from where on.
        weight: the first weight.
        stride: from a row of weights to the next.
        rows, columns: of weights.
        factor: f of (1).
    """

    part: int
    row: int
    column: int
    weight: int
    stride: int
    rows: int
    columns: int
    factor: float


class ChannelMixing(nn.Cell):
    """Equation (1).

    What goes in and what comes out is one matrix, (M, all components and channels).

    Args:
        parts: of z, each behind the one before.
        entries: all.
        numel: numbers of weights.
        biases: numbers of biases, 0 where there are none.
        dtype: of weights and biases.
        contraction: precision of the products.

    Raises:
        ValueError: parts with a gap between them, or that read the same channels.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        entries: Sequence[Entry],
        numel: int,
        biases: int,
        dtype: mstype.Type,
        contraction: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        ends = np.cumsum([part.components * part.inputs for part in parts]).tolist()
        if [part.start for part in parts] != [0, *ends[:-1]]:
            raise ValueError(f"parts from {[part.start for part in parts]} on: expected {[0, *ends[:-1]]}")
        self.contraction = contraction
        self.widths = tuple(part.components * part.outputs for part in parts)
        self.starts = tuple(sum(self.widths[:p]) for p in range(len(parts)))
        kernels = load(contraction)
        self.kernel: Any = kernels.mixed if kernels else None
        self.kernel_without_bias: Any = kernels.mixed_without_bias if kernels else None
        self.coupled: Any = kernels.coupled if kernels else None
        self.weights: Any = None
        self.product, self.add_bias, self.multiply = Product(), AddBias(), ops.MatMul()
        self.biased = tuple(part.biased > 0 for part in parts)
        self.inputs = tuple((part.components, part.inputs) for part in parts)
        self.multiply_rows = ops.BatchMatMul(transpose_b=True)
        if kernels:
            table = [
                (p.start, p.components, p.inputs, p.outputs, out) for p, out in zip(parts, self.starts, strict=True)
            ]
            self.parts = Tensor(np.array(table), mstype.int32)
            self.entries = Tensor(np.array([entry[:-1] for entry in entries]), mstype.int32)
            self.factors = Tensor(np.array([entry.factor for entry in entries]), contraction)
            self.like = Tensor(np.zeros((1, sum(self.widths))), contraction)
            places = [
                np.eye(biases, part.outputs, -part.bias) * (np.arange(part.outputs) < part.biased) for part in parts
            ]
            tiled = [np.tile(place, part.components) for place, part in zip(places, parts, strict=True)]
            self.place_bias = Tensor(np.concatenate(tiled, 1), dtype) if biases else None
        else:
            self.weights = WeightMap(numel, *index_of_weights(parts, entries), dtype)
            self.split, _ = split_and_join([part.components * part.inputs for part in parts])
            _, self.join = split_and_join(self.widths)
            self.split_bias, _ = split_and_join([part.biased for part in parts if part.biased])
            self.bias_of = tuple(sum(self.biased[:p]) for p in range(len(parts)))
            self.pad: tuple = tuple(padding(part.biased, part.outputs) if part.biased else None for part in parts)

    def construct(self, z: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """What couples or rotates features to the y_p, in the precision of the weights.

        Args:
            z: the z_p in a row.
            weights: (numel,), or (M, numel), of each row its own.
            bias: (biases,) or None.
        """
        if self.kernel is not None:
            return self.by_kernel(z, weights, bias)
        by_row = weights.ndim == 2
        matrices, parts = self.weights(weights), self.split(to_type(z, self.contraction))
        biases = self.split_bias(bias.reshape(1, -1)) if bias is not None else ()
        results: tuple = ()
        for p in range(len(matrices)):
            w, (components, inputs) = to_type(matrices[p], self.contraction), self.inputs[p]
            if by_row:
                y = self.multiply_rows(parts[p].reshape(-1, components, inputs), w)
            else:
                y = self.product(parts[p].reshape(-1, inputs), w, None)
            y = to_type(y, weights.dtype)
            if bias is not None and self.biased[p]:
                b = biases[self.bias_of[p]].reshape(-1)
                y = self.add_bias(y.reshape(-1, w.shape[-2]), b if self.pad[p] is None else self.pad[p](b))
            results = (*results, y.reshape(-1, self.widths[p]))
        return self.join(results)

    def by_kernel(self, z: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """All of it in one pass."""
        kind = self.contraction
        parts, entries, factors = self.parts, self.entries, self.factors
        z, w = to_type(z, kind), to_type(weights, kind)
        if bias is None:
            y = self.kernel_without_bias(z, w, parts, entries, factors, self.like)
        else:
            y = self.kernel(z, w, self.all_placed(bias), parts, entries, factors)
        return to_type(y, weights.dtype)

    def of_blocks(
        self,
        x: Tensor,
        matrices: Tensor,
        ends: tuple[Tensor, Tensor],
        tables: tuple[Tensor, Tensor],
        weights: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """With a kernel: the y_p of the z_p that ``block_product`` makes, in one pass.

        Args:
            x, matrices: features and matrices, in the precision of the contraction.
            ends: the two indices of rows of x.
            tables: all segments, and those with features.
            weights, bias: as above; weights (numel,).
        """
        placed = self.like.reshape(-1) if bias is None else self.all_placed(bias)
        y = self.coupled(
            x, matrices, to_type(weights, self.contraction), placed, ends[0], ends[1], tables[0], tables[1],
            self.parts, self.entries, self.factors, self.like,
        )  # fmt: skip
        return to_type(y, weights.dtype)

    def all_placed(self, bias: Tensor) -> Tensor:
        """The biases of all outputs in one row, for a kernel."""
        return to_type(self.multiply(bias.reshape(1, -1), self.place_bias).reshape(-1), self.contraction)


def index_of_weights(parts: Sequence[Part], entries: Sequence[Entry]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Index and factors of ``WeightMap`` for the matrices of all parts, (terms, outputs, inputs) each."""
    terms: list[dict[tuple[int, int], list[Entry]]] = [{} for _ in parts]
    for entry in entries:
        terms[entry.part].setdefault((entry.row, entry.column), []).append(entry)
    index, factors = [], []
    for part, places in zip(parts, terms, strict=True):
        shape = (max((len(several) for several in places.values()), default=1), part.outputs, part.inputs)
        which, scale = np.zeros(shape, np.int64), np.zeros(shape)
        for (row, column), several in places.items():
            for k, entry in enumerate(several):
                place = (k, slice(column, column + entry.columns), slice(row, row + entry.rows))
                rows = entry.weight + entry.stride * np.arange(entry.rows)
                which[place] = rows + np.arange(entry.columns)[:, None]
                scale[place] = entry.factor
        index.append(which)
        factors.append(scale)
    return index, factors
