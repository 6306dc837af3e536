"""Irreducible representations of O(3), rotations and inversion, and how features of several of them are laid out.

Notation and order as in e3nn (Geiger and Smidt, arXiv 2207.09453): ``128x0e+64x1o`` are 128 scalars, which the
inversion leaves as they are, and 64 vectors, which it turns round.  A feature holds the 2 l + 1 components of a copy
beside each other, the copies of an irrep one after the other, and the irreps in the order of the text.

    (1)  l1 x l2 = |l1 - l2| + ... + (l1 + l2),   p = p1 p2
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

PARITIES = {"e": 1, "o": -1, "y": 0}  # y: of the spherical harmonics, (-1)^l
PATTERN = re.compile(r"(?:(\d+)\s*x\s*)?(\d+)([eoy])")
EXPECTED = "expected irreps like 128x0e+64x1o, a multiplicity, x, a degree and e (even) or o (odd)"


class IrrepsError(ValueError):
    """Irreps that cannot be read or do not fit: one line with what was expected and what came."""

    exit_code = 2


class Irrep(NamedTuple):
    """One irreducible representation.

    Attributes:
        l: degree, 0 or more.
        p: parity, 1 or -1: the factor that the inversion gives.
    """

    l: int  # noqa: E741  the name of the field, in every paper
    p: int

    @classmethod
    def of(cls, text: str | Irrep) -> Irrep:
        """An irrep from its name, such as ``1o``.

        Raises:
            IrrepsError: it is no name.
        """
        if isinstance(text, Irrep):
            return text
        parts = PATTERN.fullmatch(text.strip())
        if parts is None or parts[1] is not None:
            raise IrrepsError(f"irrep {text!r}: expected a degree and e (even) or o (odd), such as 1o")
        degree = int(parts[2])
        return cls(degree, PARITIES[parts[3]] or (-1) ** degree)

    @property
    def dim(self) -> int:
        """2 l + 1."""
        return 2 * self.l + 1

    @property
    def is_scalar(self) -> bool:
        """Whether neither rotations nor the inversion change it: ``0e``."""
        return self == (0, 1)

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"

    def products(self, other: Irrep) -> list[Irrep]:
        """Equation (1): what the product with another contains, each once, by degree."""
        degrees = range(abs(self.l - other.l), self.l + other.l + 1)
        return [Irrep(degree, self.p * other.p) for degree in degrees]


class MulIrrep(NamedTuple):
    """Several copies of an irrep.

    Attributes:
        mul: how many.
        ir: of which.
    """

    mul: int
    ir: Irrep

    @property
    def dim(self) -> int:
        """Numbers that they take."""
        return self.mul * self.ir.dim

    def __str__(self) -> str:
        return f"{self.mul}x{self.ir}"


class Sorted(NamedTuple):
    """Irreps in the order of degree and parity.

    Attributes:
        irreps: in that order.
        places: of each of the former irreps, its place in the new order.
        former: of each of the new irreps, its place in the former order.
    """

    irreps: Irreps
    places: tuple[int, ...]
    former: tuple[int, ...]


class Irreps(tuple[MulIrrep, ...]):
    """A direct sum of irreps: how a feature of several of them is laid out.

    Args:
        irreps: text such as ``128x0e+64x1o``, pairs of a multiplicity and an irrep, or irreps.

    Raises:
        IrrepsError: what is given cannot be read.
    """

    __slots__ = ()

    def __new__(cls, irreps: str | Iterable[tuple[int, str | Irrep]] = "") -> Irreps:
        """Irreps from what the class says; irreps that are some already stay the same."""
        if isinstance(irreps, Irreps):
            return irreps
        pairs = _parse(irreps) if isinstance(irreps, str) else [(mul, Irrep.of(ir)) for mul, ir in irreps]
        wrong = [mul for mul, _ in pairs if type(mul) is not int or mul < 0]
        if wrong:
            raise IrrepsError(f"multiplicity {wrong[0]!r}: expected a whole number, 0 or more")
        return super().__new__(cls, (MulIrrep(mul, ir) for mul, ir in pairs))

    @staticmethod
    def spherical_harmonics(lmax: int, p: int = -1) -> Irreps:
        """One copy of each degree to ``lmax`` with parity p^l: -1 for functions of a vector, 1 for an axial one."""
        return Irreps([(1, Irrep(degree, p**degree)) for degree in range(lmax + 1)])

    @property
    def dim(self) -> int:
        """Numbers of a feature."""
        return sum(part.dim for part in self)

    @property
    def num_irreps(self) -> int:
        """Copies of all irreps."""
        return sum(part.mul for part in self)

    @property
    def lmax(self) -> int:
        """The largest degree.

        Raises:
            IrrepsError: there is none.
        """
        if not self.num_irreps:
            raise IrrepsError("no irreps have no largest degree: expected at least one")
        return max(part.ir.l for part in self if part.mul)

    def mul_from(self, degree: int) -> int:
        """Copies of the irreps of this degree and above."""
        return sum(part.mul for part in self if part.ir.l >= degree)

    def slices(self) -> list[slice]:
        """Where each irrep stands in a feature, all copies of it."""
        start, result = 0, []
        for part in self:
            result.append(slice(start, start + part.dim))
            start += part.dim
        return result

    def count(self, ir: str | Irrep) -> int:  # type: ignore[override]
        """Copies of an irrep."""
        return sum(part.mul for part in self if part.ir == Irrep.of(ir))

    def __contains__(self, ir: object) -> bool:
        """Whether there is a copy of an irrep."""
        return isinstance(ir, (str, Irrep)) and self.count(ir) > 0

    def __add__(self, other: Iterable[tuple[int, str | Irrep]] | str) -> Irreps:  # type: ignore[override]
        """The irreps of both, in this order."""
        return Irreps([*self, *Irreps(other)])

    def __mul__(self, times: int) -> Irreps:  # type: ignore[override]
        """So many times the whole, one after the other."""
        return Irreps([part for _ in range(times) for part in self])

    __rmul__ = __mul__  # type: ignore[assignment]

    def filter(self, keep: str | Iterable[tuple[int, str | Irrep]]) -> Irreps:
        """Only the irreps that others contain too."""
        kept = {part.ir for part in Irreps(keep) if part.mul}
        return Irreps([part for part in self if part.ir in kept])

    def simplify(self) -> Irreps:
        """Neighbours of one irrep put together, and none without a copy; no component changes its place."""
        parts = groupby((part for part in self if part.mul), key=lambda part: part.ir)
        return Irreps([(sum(part.mul for part in several), ir) for ir, several in parts])

    def sort(self, even_first: bool = False) -> Sorted:
        """By degree, and odd before even, or even before odd; irreps that are equal keep their order."""
        sign = -1 if even_first else 1
        former = sorted(range(len(self)), key=lambda place: (self[place].ir.l, sign * self[place].ir.p))
        places = sorted(range(len(self)), key=lambda place: former[place])
        return Sorted(Irreps([self[place] for place in former]), tuple(places), tuple(former))

    def __str__(self) -> str:
        return "+".join(map(str, self))

    def __repr__(self) -> str:
        return f"Irreps({str(self)!r})"


def _parse(text: str) -> list[tuple[int, Irrep]]:
    """The terms of a sum.

    Raises:
        IrrepsError: one of them is none.
    """
    if not text.strip():
        return []
    result = []
    for term in text.split("+"):
        parts = PATTERN.fullmatch(term.strip())
        if parts is None:
            raise IrrepsError(f"irreps {text!r}: {EXPECTED}; {term.strip()!r} is none")
        result.append((int(parts[1] or 1), Irrep.of(parts[2] + parts[3])))
    return result
