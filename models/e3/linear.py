"""Linear layers of E(3): the copies of each irrep are mixed, its components are not.

    (1)  y_v = c sum_u W_uv x_u + b_v

with c = 1 / sqrt(M), or c = 1 and weights that are drawn so much smaller.  u runs over the M copies of an irrep in the
input, v over those in the output; b_v only where the irrep is 0e, which alone may have a constant.  Weights lie as in
e3nn: (copies in, copies out) of each path from an irrep of the input to an equal one of the output, in the order of the
input and then of the output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import AddBias
from models.cpu_kernels import load
from models.e3.channels import with_copies
from models.e3.irreps import Irrep, Irreps, IrrepsError
from models.e3.layout import split_and_join
from models.graph_ops import gather, to_type


class Mixing(NamedTuple):
    """All paths of one irrep, which are one product of matrices.

    Attributes:
        ir: the irrep.
        sources: entries of the input.
        targets: entries of the output.
        rows, columns: copies in and out.
    """

    ir: Irrep
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Weights."""
        return self.rows * self.columns


class Linear(nn.Cell):
    """Equation (1), one product of matrices for each irrep; features with channels last.

    Args:
        irreps_in: of x.
        irreps_out: of y.
        bias: whether scalars, 0e, have a b.
        normalized: whether c is 1 / sqrt(M), or 1.
        dtype: of the parameters.

    Raises:
        IrrepsError: the input has no copy of an irrep of the output, or the output is empty.
    """

    def __init__(
        self, irreps_in: str | Irreps, irreps_out: str | Irreps, bias: bool, normalized: bool, dtype: mstype.Type
    ):
        super().__init__()
        self.irreps_in, self.irreps_out = with_copies(irreps_in), with_copies(irreps_out)
        mixings = _mixings(self.irreps_in, self.irreps_out)
        self.mixings = tuple((one.ir.dim, one.sources, one.rows, one.columns) for one in mixings)
        targets = [target for one in mixings for target in one.targets]
        self.places = tuple(targets.index(k) for k in range(len(self.irreps_out)))  # among the results of all mixings
        self.biased = tuple(bias and one.ir.is_scalar for one in mixings)
        numel = sum(one.size for one in mixings)
        factors = np.concatenate([np.full(one.size, one.rows**-0.5) for one in mixings])
        order = _order_of_weights(self.irreps_in, self.irreps_out, mixings)
        drawn = initializer(Normal(1.0), (numel,), mstype.float32).init_data().asnumpy()
        if not normalized:
            drawn[order] *= factors
        self.weight = Parameter(Tensor(drawn, dtype), name="weight")
        constants = self.irreps_out.count("0e") if bias else 0
        self.bias: Any = Parameter(initializer("zeros", (constants,), dtype), name="bias") if constants else None
        self.factors = Tensor(factors, dtype) if normalized else None
        self.order = None if (order == np.arange(numel)).all() else Tensor(order.astype(np.int32))
        self.split_weights, _ = split_and_join([one.size for one in mixings])
        self.split_input, _ = split_and_join([part.dim for part in self.irreps_in])
        _, self.join_output = split_and_join([part.dim for part in self.irreps_out])
        self.join_copies = tuple(split_and_join([self.irreps_in[k].mul for k in one.sources])[1] for one in mixings)
        self.split_copies = tuple(split_and_join([self.irreps_out[k].mul for k in one.targets])[0] for one in mixings)
        kernels = load(dtype)
        # twice as fast as MindSpore's product in float64, and as fast in float32
        self.kernel: Any = kernels.linear_inputs if kernels else None
        self.multiply, self.add_bias = ops.MatMul(), AddBias()

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim of irreps_in) to (N, dim of irreps_out)."""
        rows = x.shape[0]
        inputs, weights = self.split_input(x), self.weights(x.dtype)
        outputs: tuple = ()
        for k in range(len(self.mixings)):
            dim, sources, mul_in, mul_out = self.mixings[k]
            copies: tuple = ()
            for source in sources:
                copies = (*copies, inputs[source].reshape(rows * dim, -1))
            y = self.product(self.join_copies[k](copies), weights[k].reshape(mul_in, mul_out))  # (N (2 l + 1), copies)
            if self.biased[k]:
                y = self.add_bias(y, to_type(self.bias, x.dtype))
            for part in self.split_copies[k](y):
                outputs = (*outputs, part.reshape(rows, -1))
        ordered: tuple = ()
        for place in self.places:  # a list whose elements are set makes a cycle in MindSpore's graph
            ordered = (*ordered, outputs[place])
        return self.join_output(ordered)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """(M, K) and (K, N) to (M, N)."""
        if self.kernel is not None and x.dtype != mstype.float16:
            return self.kernel(x, weight)
        return self.multiply(x, weight)

    def weights(self, kind: mstype.Type) -> tuple:
        """The matrices of the irreps, flat, (1, size), with the factors of (1)."""
        flat = self.weight if self.order is None else gather(self.weight, self.order)
        scaled = flat if self.factors is None else flat * self.factors
        return self.split_weights(to_type(scaled, kind).reshape(1, -1))


def _mixings(irreps_in: Irreps, irreps_out: Irreps) -> list[Mixing]:
    """The irreps of the output, each once, with their paths.

    Raises:
        IrrepsError: one of them has none, or there is none.
    """
    result = []
    for ir in dict.fromkeys(part.ir for part in irreps_out):
        sources = tuple(k for k, part in enumerate(irreps_in) if part.ir == ir)
        targets = tuple(k for k, part in enumerate(irreps_out) if part.ir == ir)
        if not sources:
            raise IrrepsError(f"linear layer from {irreps_in} to {irreps_out}: no {ir} in the input")
        result.append(Mixing(ir, sources, targets, irreps_in.count(ir), irreps_out.count(ir)))
    if not result:
        raise IrrepsError(f"linear layer from {irreps_in} to nothing: expected at least one irrep in the output")
    return result


def _order_of_weights(irreps_in: Irreps, irreps_out: Irreps, mixings: list[Mixing]) -> np.ndarray:
    """Where e3nn has each weight of the matrices (copies in, copies out) of the irreps, one after the other."""
    paths, start = {}, 0
    for source, (mul_in, ir) in enumerate(irreps_in):
        for target, (mul_out, same) in enumerate(irreps_out):
            if ir == same:
                paths[source, target] = start + np.arange(mul_in * mul_out).reshape(mul_in, mul_out)
                start += mul_in * mul_out
    matrices = [np.block([[paths[s, t] for t in one.targets] for s in one.sources]) for one in mixings]
    return np.concatenate([matrix.reshape(-1) for matrix in matrices])
