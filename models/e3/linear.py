"""Linear layers of E(3): the copies of each irrep are mixed, its components are not.

    (1)  y_v = c sum_u W_uv x_u + b_v

with c = 1 / sqrt(M), or c = 1 and weights that are drawn so much smaller.  u runs over the M copies of an irrep in the
input, v over those in the output; b_v only where the irrep is 0e, which alone may have a constant.  Weights lie as in
e3nn: (copies in, copies out) of each path from an irrep of the input to an equal one of the output, in the order of the
input and then of the output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.e3.channel_mixing import ChannelMixing, Entry, Part
from models.e3.channels import with_copies
from models.e3.irreps import Irrep, Irreps, IrrepsError
from models.e3.layout import split_and_join
from models.graph_ops import to_type


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


class Linear(nn.Cell):
    """Equation (1); features with channels last.

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
        numel = sum(one.rows * one.columns for one in mixings)
        constants = self.irreps_out.count("0e") if bias else 0
        parts, entries = _parts(mixings, bias), _entries(self.irreps_in, self.irreps_out, mixings, normalized)
        drawn = initializer(Normal(1.0), (numel,), mstype.float32).init_data().asnumpy()
        if not normalized:
            for one in entries:
                drawn[one.weight : one.weight + one.rows * one.columns] *= parts[one.part].inputs ** -0.5
        self.weight = Parameter(Tensor(drawn, dtype), name="weight")
        self.bias: Any = Parameter(initializer("zeros", (constants,), dtype), name="bias") if constants else None
        self.mixing = ChannelMixing(parts, entries, numel, constants, dtype, dtype)
        self.collect, self.distribute = _Collect(self.irreps_in, mixings), _Distribute(self.irreps_out, mixings)

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim of irreps_in) to (N, dim of irreps_out)."""
        y = self.mixing(self.collect(x), self.weight, self.bias)
        return to_type(self.distribute(y), x.dtype)


class _Collect(nn.Cell):
    """The copies of each irrep of the output in a feature, all of an irrep side by side and nothing else."""

    def __init__(self, irreps: Irreps, mixings: list[Mixing]):
        super().__init__(auto_prefix=False)
        self.parts = tuple((one.ir.dim, one.sources) for one in mixings)
        self.needless = [source for one in mixings for source in one.sources] == list(range(len(irreps)))
        self.needless = self.needless and len(mixings) == len(irreps)
        self.split, _ = split_and_join([part.dim for part in irreps])
        self.copies = tuple(split_and_join([irreps[k].mul for k in one.sources])[1] for one in mixings)
        _, self.join = split_and_join([one.ir.dim * one.rows for one in mixings])

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim of the input) to (N, dim of all sources)."""
        if self.needless:
            return x
        inputs = self.split(x)
        results: tuple = ()
        for k in range(len(self.parts)):
            dim, sources = self.parts[k]
            copies: tuple = ()
            for source in sources:
                copies = (*copies, inputs[source].reshape(x.shape[0] * dim, -1))
            results = (*results, self.copies[k](copies).reshape(x.shape[0], -1))
        return self.join(results)


class _Distribute(nn.Cell):
    """The irreps of the output, in their order, of all copies of each irrep side by side."""

    def __init__(self, irreps: Irreps, mixings: list[Mixing]):
        super().__init__(auto_prefix=False)
        self.dims = tuple(one.ir.dim for one in mixings)
        targets = [target for one in mixings for target in one.targets]
        self.needless = targets == list(range(len(irreps))) and len(mixings) == len(irreps)
        self.places = tuple(targets.index(k) for k in range(len(irreps)))  # among the results of all mixings
        self.split, _ = split_and_join([one.ir.dim * one.columns for one in mixings])
        self.copies = tuple(split_and_join([irreps[k].mul for k in one.targets])[0] for one in mixings)
        _, self.join = split_and_join([part.dim for part in irreps])

    def construct(self, y: Tensor) -> Tensor:
        """(N, dim of all targets) to (N, dim of the output)."""
        if self.needless:
            return y
        parts = self.split(y)
        outputs: tuple = ()
        for k in range(len(self.dims)):
            for part in self.copies[k](parts[k].reshape(y.shape[0] * self.dims[k], -1)):
                outputs = (*outputs, part.reshape(y.shape[0], -1))
        ordered: tuple = ()
        for place in self.places:
            ordered = (*ordered, outputs[place])
        return self.join(ordered)


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


def _parts(mixings: list[Mixing], bias: bool) -> list[Part]:
    """What each product of matrices reads and gives."""
    parts: list[Part] = []
    place, biases = 0, 0
    for one in mixings:
        biased = one.columns if bias and one.ir.is_scalar else 0
        parts.append(Part(place, one.ir.dim, one.rows, one.columns, biases, biased))
        place, biases = place + one.ir.dim * one.rows, biases + biased
    return parts


def _entries(irreps_in: Irreps, irreps_out: Irreps, mixings: list[Mixing], normalized: bool) -> list[Entry]:
    """Where the weights of each path stand, in e3nn's order."""
    entries, start = [], 0
    for source, (mul_in, ir) in enumerate(irreps_in):
        for target, (mul_out, same) in enumerate(irreps_out):
            if ir != same:
                continue
            k, one = next((k, one) for k, one in enumerate(mixings) if one.ir == ir)
            row = sum(irreps_in[other].mul for other in one.sources if other < source)
            column = sum(irreps_out[other].mul for other in one.targets if other < target)
            factor = one.rows**-0.5 if normalized else 1.0
            entries.append(Entry(k, row, column, start, mul_out, mul_in, mul_out, factor))
            start += mul_in * mul_out
    return entries
