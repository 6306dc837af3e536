"""Activations of scalars, and gates: scalars whose activations multiply features of higher degrees.

    (1)  y = c f(x)                 for a scalar x
    (2)  y_um = c f(g_u) x_um       for the channel u of an irrep, with a scalar g_u of its own

c makes the second moment of y 1 for x of a normal distribution; see ``scalar_functions``.

An odd scalar, 0o, changes its sign under the inversion, and so must what follows from it: f is even or odd there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.cpu_kernels import load
from models.e3.channels import Spread, runs_of, with_copies
from models.e3.irreps import Irrep, Irreps, IrrepsError
from models.e3.layout import arrangement, split_and_join
from models.e3.scalar_functions import FUNCTIONS
from models.graph_ops import to_type


class Activation(nn.Cell):
    """Equation (1) for the scalars among the irreps of a feature.

    Args:
        irreps_in: of the feature.
        functions: a name of ``FUNCTIONS`` for each irrep, or None where nothing is done.
        dtype: of the feature.

    Attributes:
        irreps_out: of the result; an even function of 0o is 0e.

    Raises:
        IrrepsError: another number of functions, an unknown one, one of an irrep that is no scalar, or one that is
            neither even nor odd of 0o.
    """

    def __init__(self, irreps_in: str | Irreps, functions: Sequence[str | None], dtype: mstype.Type):
        super().__init__()
        self.irreps_in = Irreps(irreps_in)
        self.irreps_out = irreps_after(self.irreps_in, functions)
        pieces = _pieces(self.irreps_in, functions)
        self.split, self.join = split_and_join([width for width, _ in pieces])
        self.functions = nn.CellList([_Scaled(name, dtype) for _, name in pieces])

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim)."""
        parts = self.split(x)
        results: tuple = ()
        for k in range(len(parts)):
            results = (*results, self.functions[k](parts[k]))
        return self.join(results)


class Gate(nn.Cell):
    """Equations (1) and (2), e3nn's gate: some scalars are results themselves, the others multiply other irreps.

    Args:
        irreps_scalars: which become results.
        act_scalars: a name of ``FUNCTIONS`` for each of them, or None.
        irreps_gates: which multiply; as many copies as ``irreps_gated``.
        act_gates: a name of ``FUNCTIONS`` for each of them, or None.
        irreps_gated: which are multiplied.
        even_first: whether an even irrep stands before the odd one of its degree in what goes in, or behind it (e3nn).
        dtype: of the feature.

    Attributes:
        irreps_in: all three, sorted, equal ones put together.
        irreps_out: the results; with a gate 0o the parity of what it multiplies is the other one.

    Raises:
        IrrepsError: as for ``Activation``, or another number of gates than of what they multiply.
    """

    def __init__(
        self,
        irreps_scalars: str | Irreps,
        act_scalars: Sequence[str | None],
        irreps_gates: str | Irreps,
        act_gates: Sequence[str | None],
        irreps_gated: str | Irreps,
        even_first: bool,
        dtype: mstype.Type,
    ):
        super().__init__()
        scalars, gates, gated = Irreps(irreps_scalars), Irreps(irreps_gates), Irreps(irreps_gated)
        _require_scalars(scalars + gates)
        if gates.num_irreps != gated.num_irreps:
            raise IrrepsError(
                f"gate: expected one scalar for each of the {gated.num_irreps} copies of {gated}, got {gates}"
            )
        pairs = _pairs(gated, irreps_after(gates, act_gates))
        taken = [scalars.simplify(), gates.simplify(), gated.simplify()]
        self.irreps_in = Irreps([part for irreps in taken for part in irreps]).sort(even_first).irreps.simplify()
        self.irreps_out = irreps_after(scalars, act_scalars) + [
            (mul, Irrep(one.l, one.p * other.p)) for mul, one, other in pairs
        ]
        copies = [ir for irreps in taken for mul, ir in irreps for _ in range(mul)]
        runs = [part.mul for part in taken[0] + taken[1]] + [mul for mul, _, _ in pairs]
        self.arrange = arrangement(_columns(copies, runs, self.irreps_in))
        widths = [irreps.dim for irreps in taken]
        self.split, _ = split_and_join([width for width in widths if width])
        _, self.join = split_and_join([widths[0], widths[2]])
        self.has_scalars, self.has_gates = widths[0] > 0, widths[1] > 0
        self.act_scalars: Any = Activation(scalars, act_scalars, dtype) if self.has_scalars else None
        self.act_gates: Any = Activation(gates, act_gates, dtype) if self.has_gates else None
        self.spread: Any = None
        if self.has_gates:
            self.spread = Spread(runs_of(with_copies(Irreps([(mul, one) for mul, one, _ in pairs]))), 1.0, dtype)
        kernels = load(dtype)
        self.dtype = dtype
        self.kernel: Any = None
        usual = {*act_scalars} == {"silu"} and {*act_gates} == {"sigmoid"} and self.arrange is None
        if kernels and usual and widths[0]:
            constants = [FUNCTIONS[name].constant for name in ("silu", "sigmoid")]
            self.kernel = kernels.Gate(widths[0], _runs(pairs), constants, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """(N, dim of irreps_in) to (N, dim of irreps_out)."""
        if self.kernel is not None and x.dtype == self.dtype:
            return self.kernel(x)
        if self.arrange is not None:
            x = self.arrange(x)
        if not self.has_gates:
            return self.act_scalars(x)
        parts = self.split(x)
        gated = parts[-1] * self.spread(self.act_gates(parts[-2]))  # (2)
        return self.join((self.act_scalars(parts[0]), gated)) if self.has_scalars else gated


def irreps_after(irreps: Irreps, functions: Sequence[str | None]) -> Irreps:
    """The irreps of a feature after its activations.

    Raises:
        IrrepsError: as for ``Activation``.
    """
    if len(functions) != len(irreps):
        raise IrrepsError(f"activations {list(functions)}: expected {len(irreps)}, one for each irrep of {irreps}")
    result = []
    for (mul, ir), name in zip(irreps, functions, strict=True):
        if name is None:
            result.append((mul, ir))
            continue
        if name not in FUNCTIONS:
            raise IrrepsError(f"activation {name!r}: expected one of {', '.join(FUNCTIONS)}")
        if ir.l:
            raise IrrepsError(f"activation {name} of {ir}: expected a scalar, 0e or 0o; a gate multiplies other irreps")
        parity = 1 if ir.p == 1 else FUNCTIONS[name].parity
        if not parity:
            raise IrrepsError(f"activation {name} of 0o: expected an even or odd function there, such as abs or tanh")
        result.append((mul, Irrep(0, parity)))
    return Irreps(result)


class _Scaled(nn.Cell):
    """c f(x); x itself where there is no f."""

    def __init__(self, name: str | None, dtype: mstype.Type):
        super().__init__()
        self.function: Any = None if name is None else FUNCTIONS[name].make(dtype)
        self.constant: Any = None if name is None else Tensor(FUNCTIONS[name].constant, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return x if self.function is None else to_type(self.constant, x.dtype) * self.function(x)


def _require_scalars(irreps: Irreps) -> None:
    """Raises IrrepsError where one is no scalar."""
    for _, ir in irreps:
        if ir.l:
            raise IrrepsError(f"gate: expected scalars, 0e or 0o, before what they multiply, got {ir}")


def _pieces(irreps: Irreps, functions: Sequence[str | None]) -> list[tuple[int, str | None]]:
    """Width and function of the pieces of a feature, neighbours with one function together."""
    pieces: list[tuple[int, str | None]] = []
    for part, name in zip(irreps, functions, strict=True):
        if not part.dim:
            continue
        if pieces and pieces[-1][1] == name:
            pieces[-1] = (pieces[-1][0] + part.dim, name)
        else:
            pieces.append((part.dim, name))
    return pieces


def _pairs(gated: Irreps, gates: Irreps) -> list[tuple[int, Irrep, Irrep]]:
    """Runs of copies that have one irrep and gates of one irrep: how many, and the two irreps."""
    copies = ([ir for mul, ir in irreps for _ in range(mul)] for irreps in (gated, gates))
    return [(len(list(run)), *pair) for pair, run in groupby(zip(*copies, strict=True))]


def _runs(pairs: list[tuple[int, Irrep, Irrep]]) -> np.ndarray:
    """The table of ``models.cpu_kernels.gates``: every component of what is multiplied, and its first gate."""
    runs, column, gate = [], 0, 0
    for mul, one, _ in pairs:
        for _ in range(one.dim):
            runs.append((column, mul, gate))
            column += mul
        gate += mul
    return np.array(runs)


def _columns(copies: list[Irrep], runs: list[int], irreps: Irreps) -> np.ndarray:
    """Where the numbers of a feature stand in the sorted one.

    Args:
        copies: the irrep of each copy, in the order of the feature.
        runs: how many copies lie together in the feature, with channels last.
        irreps: of the sorted one.

    Returns:
        (dim,) columns of the sorted feature, in which all copies of an irrep lie together.
    """
    count = Counter(copies)
    first_of = {ir: part.start for (_, ir), part in zip(irreps, irreps.slices(), strict=True)}
    met: Counter = Counter()
    firsts = []  # of each copy, the column of its first component
    for ir in copies:
        firsts.append(first_of[ir] + met[ir])
        met[ir] += 1
    columns, place = [], 0
    for run in runs:
        components = np.arange(copies[place].dim) * count[copies[place]]
        columns.append(np.add.outer(components, firsts[place : place + run]).reshape(-1))
        place += run
    return np.concatenate(columns)
