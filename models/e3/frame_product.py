"""Tensor products with the harmonics of an edge, and gates, in the frame of the edge.

See ``edge_frame`` for the frame and the z_m of a feature.

    (1)  z'_m = W_m z_m + b,   W_m = sum_p c_p sqrt(2 l2 + 1) C_(l1 l2 l3)[m, 0, m] W_p     b for 0e alone
    (2)  z'_m = c' sigmoid(g) z_m,   s' = c silu(s)                                         gates g, scalars s

(1) between a rotation into the frame and one out of it equals ``tensor_product.FullyConnectedTensorProduct`` with the
harmonics of the edge, in less than half of its products.  W_m is the same for m and -m where l1 + l2 + l3 is even for
all paths: for irreps of natural parity, p = (-1)^l.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.cpu_kernels import load
from models.e3.channel_mixing import ChannelMixing, Entry, Part
from models.e3.channels import Spread
from models.e3.edge_frame import EndsIntoFrame
from models.e3.irreps import Irreps, IrrepsError
from models.e3.layout import split_and_join
from models.e3.scalar_functions import FUNCTIONS
from models.e3.tensor_product import fan_in, fully_connected_paths, path_factors
from models.e3.wigner import wigner_3j
from models.graph_ops import to_type


class FrameTensorProduct(nn.Cell):
    """Equation (1), with the paths, the flat weights and the biases of a fully connected product with harmonics.

    The 0e of the result come first.

    Args:
        irreps_in: of the features, of natural parity.
        irreps_out: of the result.
        lmax: largest degree of the harmonics.
        path_normalization: see ``models.e3.tensor_product``.
        dtype: of the parameters and of what comes out.
        contraction: precision of the products.
        order: in which the channels of ``irreps_in`` stand in a z_m, if not in their own.

    Attributes:
        fan_in, fan_in_of_bias: as those of a fully connected product.

    Raises:
        IrrepsError: another parity, or an output that no path reaches.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        lmax: int,
        path_normalization: str,
        dtype: mstype.Type,
        contraction: mstype.Type,
        order: Sequence[int] | None = None,
    ):
        super().__init__()
        harmonics = Irreps.spherical_harmonics(lmax)
        for part in irreps_in + irreps_out:
            if part.ir.p != (-1) ** part.ir.l:
                raise IrrepsError(f"irreps {part}: expected natural parity, 0e, 1o, 2e, ..., in the frame of an edge")
        paths = fully_connected_paths(irreps_in, harmonics, irreps_out)
        shapes = [(irreps_in[i].mul, irreps_out[k].mul) for i, _, k in paths]
        starts = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
        self.numel = int(starts[-1])
        products = [rows for rows, _ in shapes]
        factors = path_factors((irreps_in, harmonics, irreps_out), paths, products, "component", path_normalization)
        self.fan_in, self.fan_in_of_bias = fan_in(irreps_out, paths, products, shapes)
        inputs = _channels(irreps_in, range(len(irreps_in)) if order is None else order)
        outputs = _channels(irreps_out, range(len(irreps_out)))
        entries = []
        for p, (i, j, k) in enumerate(paths):
            l1, l2, l3 = irreps_in[i].ir.l, harmonics[j].ir.l, irreps_out[k].ir.l
            rows, columns = shapes[p]
            for m in range(min(l1, l3) + 1):
                factor = factors[p] * (2 * l2 + 1) ** 0.5 * wigner_3j(l1, l2, l3)[l1 + m, l2, l3 + m]
                place = inputs[m][i].start, outputs[m][k].start
                entries.append(Entry(m, *place, int(starts[p]), columns, rows, columns, factor))
        parts: list[Part] = []
        start, biases = 0, len(self.fan_in_of_bias)
        for m in range(len(outputs)):
            one = Part(start, 2 if m else 1, irreps_in.mul_from(m), irreps_out.mul_from(m), 0, 0 if m else biases)
            start += one.components * one.inputs
            parts.append(one)
        self.mixing = ChannelMixing(parts, entries, self.numel, biases, dtype, contraction)
        self.weight = Parameter(initializer(Normal(1.0), (self.numel,), dtype), name="weight")
        self.bias = Parameter(initializer("zeros", (biases,), dtype), name="bias")

    def construct(self, z: Tensor) -> Tensor:
        """The z_m of the features, in a row, to those of the result."""
        return self.mixing(z, self.weight, self.bias)

    def of_ends(self, into: EndsIntoFrame, nodes: Tensor, frames: Any, receivers: Tensor, senders: Tensor) -> Any:
        """The same of what ``into`` makes of the ends of the edges, which a kernel does not write to memory."""
        if into.kernel is None:
            return self.construct(into(nodes, frames, receivers, senders))
        nodes = to_type(nodes, self.mixing.contraction)
        ends, tables = (receivers, senders), (into.table, into.linear)
        return self.mixing.of_blocks(nodes, frames, ends, tables, self.weight, self.bias)


class FrameGate(nn.Cell):
    """Equation (2).

    Args:
        irreps: of the result, by degree, scalars first; what goes in has gates after those scalars, for all others.
        dtype: of the features.
        contraction: precision of the products before and after it.
    """

    def __init__(self, irreps: Irreps, dtype: mstype.Type, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        gated = irreps.mul_from(1)
        constants = [FUNCTIONS[name].constant for name in ("silu", "sigmoid")]
        kernels = load(contraction)
        self.kernel: Any = kernels.Gate(irreps[0].mul, _runs(irreps), constants, dtype) if kernels else None
        runs = [(gated - irreps.mul_from(degree), irreps.mul_from(degree) - irreps.mul_from(degree + 1))
                for m in range(irreps.lmax + 1) for _ in range(2 if m else 1)
                for degree in range(max(m, 1), irreps.lmax + 1)]  # fmt: skip
        columns = sum(mul for _, mul in runs)
        self.split, _ = split_and_join((irreps[0].mul, gated, columns))
        _, self.join = split_and_join((irreps[0].mul, columns))
        self.silu, self.sigmoid = (FUNCTIONS[name].make(dtype) for name in ("silu", "sigmoid"))
        self.of_scalars = Tensor(constants[0], dtype)
        self.spread = Spread(runs, constants[1], dtype)

    def construct(self, z: Tensor) -> Tensor:
        """The z_m of scalars, gates and what they multiply, in a row, to those of the result."""
        if self.kernel is not None:
            return self.kernel(z)
        scalars, gates, features = self.split(z)
        return self.join((self.of_scalars * self.silu(scalars), features * self.spread(self.sigmoid(gates))))


def _runs(irreps: Irreps) -> np.ndarray:
    """The table of ``models.cpu_kernels.gates``: the channels of degrees >= max(m, 1) in every row of the z_m."""
    runs, column, gated = [], 0, irreps.mul_from(1)
    for m in range(irreps.lmax + 1):
        count = irreps.mul_from(max(m, 1))
        for _ in range(2 if m else 1):
            runs.append((column, count, gated - count))
            column += count
    return np.array(runs)


def _channels(irreps: Irreps, order: Sequence[int]) -> list[dict[int, slice]]:
    """For each |m|, where the channels of each irrep stand, which follow each other in an order."""
    result = []
    for m in range(irreps.lmax + 1):
        places, start = {}, 0
        for b in order:
            part = irreps[b]
            if part.ir.l >= m:
                places[b] = slice(start, start + part.mul)
                start += part.mul
        result.append(places)
    return result
