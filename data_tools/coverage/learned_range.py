"""The range that the training structures of a model covered; the module ``outside`` compares others with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from data_tools.coverage.observed import Observed, charges_of, observe, unpaired_of
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import RANK_TOLERANCE, WIDTH, element_counts, undetermined
from data_tools.tables import ATOMIC_NUMBERS

CLOSER, FURTHER = 0.85, 1.2  # thermal motion changes distances; see ``outside``
TOUCH = 1.0  # Angstrom beyond a bond of two atoms' covalent radii; larger distances are chance
RESOLUTION = 0.01  # Angstrom, of the longest link


@dataclass(frozen=True, eq=False)
class LearnedRange:
    """What the training structures of a model covered; see the module for the rules.

    Attributes:
        n_atoms: fewest and most atoms.
        shortest: shortest distance of two elements within the cutoff, by their atomic numbers in order, Angstrom.
        isolation: largest distance of an atom to its nearest neighbour, by atomic number, Angstrom; infinite where one
            had none within the cutoff.
        link: shortest length with which links join all atoms of every structure, Angstrom; infinite where they do not.
        skeleton: the same without the atoms of hydrogen.
        periodic: whether molecules (False) and crystals (True) occurred.
        charges: lowest and highest total charge.
        unpaired: most unpaired electrons that the files tell.
        odd_electrons: whether a structure had an odd number of electrons.
        compositions: (K, 119) element counts that span those of training; None where labels need no reference.
    """

    n_atoms: tuple[int, int]
    shortest: dict[tuple[int, int], float]
    isolation: dict[int, float]
    link: float
    skeleton: float = np.inf
    periodic: tuple[bool, ...] = (False,)
    charges: tuple[float, float] = (0.0, 0.0)
    unpaired: float = 0.0
    odd_electrons: bool = False
    compositions: np.ndarray | None = field(default=None)

    def __reduce__(self) -> tuple:
        return LearnedRange.from_dict, (self.to_dict(),)  # without the tables

    @cached_property
    def closest(self) -> np.ndarray:
        """(119, 119) distances of two elements below which atoms are too close, Angstrom."""
        from ase.data import covalent_radii  # noqa: PLC0415  (heavy)

        table = np.full((WIDTH, WIDTH), CLOSER * min(self.shortest.values(), default=0.0))
        for (one, other), distance in self.shortest.items():
            table[one, other] = table[other, one] = CLOSER * distance
        return np.minimum(table, covalent_radii[:WIDTH, None] + covalent_radii[:WIDTH] + TOUCH)

    @cached_property
    def loneliest(self) -> np.ndarray:
        """(119,) distances to the nearest neighbour beyond which an atom stands apart, Angstrom."""
        table = np.full(WIDTH, np.inf)
        for number, distance in self.isolation.items():
            table[number] = FURTHER * distance
        return table

    def undetermined(self, counts: np.ndarray) -> np.ndarray:
        """(M,) bool: for which element counts (M, 119) the labels of training give no zero."""
        if self.compositions is None:
            return np.zeros(len(counts), bool)
        return undetermined(self.compositions, counts)

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON and checkpoints; lengths that are infinite become null."""
        names = {number: symbol for symbol, number in ATOMIC_NUMBERS.items()}
        finite = {key: value if np.isfinite(value) else None for key, value in self.isolation.items()}
        content: dict[str, Any] = {
            "n_atoms": [int(number) for number in self.n_atoms],
            "shortest": {f"{names[one]}-{names[other]}": value for (one, other), value in self.shortest.items()},
            "isolation": {names[number]: value for number, value in finite.items()},
            "link": float(self.link) if np.isfinite(self.link) else None,
            "skeleton": float(self.skeleton) if np.isfinite(self.skeleton) else None,
            "periodic": [bool(value) for value in self.periodic],
            "charges": [float(value) for value in self.charges],
            "unpaired": float(self.unpaired),
            "odd_electrons": bool(self.odd_electrons),
        }
        if self.compositions is not None:
            content["compositions"] = [
                {names[int(number)]: int(row[number]) for number in np.flatnonzero(row)} for row in self.compositions
            ]
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LearnedRange:
        """Undo ``to_dict``; what a newer version adds is left alone.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        compositions = content.get("compositions")
        counts = None
        if compositions is not None:
            counts = np.zeros((len(compositions), WIDTH), np.int32)
            for row, composition in enumerate(compositions):
                for symbol, number in composition.items():
                    counts[row, ATOMIC_NUMBERS[symbol]] = number
            if not counts.any(axis=1).all() or not len(counts):
                raise ValueError("range: expected compositions with atoms")
        shortest = {}
        for pair, length in content["shortest"].items():
            one, other = pair.split("-")
            shortest[ATOMIC_NUMBERS[one], ATOMIC_NUMBERS[other]] = _length(length)
        fewest, most = content["n_atoms"]
        lowest, highest = content["charges"]
        return cls(
            n_atoms=(int(fewest), int(most)),
            shortest=shortest,
            isolation={ATOMIC_NUMBERS[symbol]: _length(value) for symbol, value in content["isolation"].items()},
            link=_length(content["link"]),
            skeleton=_length(content["skeleton"]),
            periodic=tuple(bool(value) for value in content["periodic"]),
            charges=(float(lowest), float(highest)),
            unpaired=float(content["unpaired"]),
            odd_electrons=bool(content["odd_electrons"]),
            compositions=counts,
        )


def learn(packed: PackedGraphs, rows: np.ndarray, references: bool) -> LearnedRange:
    """The range of training structures.

    Args:
        packed: the data set.
        rows: (K,) of training.
        references: whether the zero of the label follows from the compositions of training.
    """
    shortest, isolation = np.full(WIDTH**2, np.inf), np.full(WIDTH, -np.inf)
    link, skeleton, odd = 0.0, 0.0, False
    for some in observe(packed, rows):
        one, other = some.numbers[some.receivers], some.numbers[some.senders]
        np.minimum.at(shortest, np.minimum(one, other) * WIDTH + np.maximum(one, other), some.distances)
        together = some.n_atoms[some.owner] > 1
        np.maximum.at(isolation, some.numbers[together], some.nearest[together])
        link, skeleton = longest_link(some, link), longest_link(some.skeleton, skeleton)
        odd |= bool((some.odd & ~some.periodic).any())
    table = packed.table
    sizes, charges, unpaired = table.n_atoms[rows], np.nan_to_num(charges_of(table)[rows]), unpaired_of(table)[rows]
    periodic = np.zeros(1, bool) if table.cells is None else table.cells[rows].any(axis=(1, 2))
    counts = element_counts(table.numbers, table.n_atoms)[rows]
    return LearnedRange(
        n_atoms=(int(sizes.min()), int(sizes.max())),
        shortest={(int(k // WIDTH), int(k % WIDTH)): float(shortest[k]) for k in np.flatnonzero(shortest < np.inf)},
        isolation={int(number): float(isolation[number]) for number in np.flatnonzero(isolation > -np.inf)},
        link=link,
        skeleton=skeleton,
        periodic=tuple(np.unique(periodic).tolist()),
        charges=(float(charges.min()), float(charges.max())),
        unpaired=float(np.nan_to_num(unpaired).max()),
        odd_electrons=odd,
        compositions=spanning(counts) if references else None,
    )


def longest_link(some: Observed, least: float) -> float:
    """The shortest length, to ``RESOLUTION`` and not below ``least``, up to which pairs join every structure."""
    if not some.in_parts(least).any():
        return least
    lengths = np.unique(np.ceil(some.distances[some.distances > least] / RESOLUTION))
    low, high = 0, len(lengths)  # the answer is lengths[low], or there is none
    while low < high:
        middle = (low + high) // 2
        if some.in_parts(lengths[middle] * RESOLUTION).any():
            low = middle + 1
        else:
            high = middle
    return round(float(lengths[low] * RESOLUTION), 2) if low < len(lengths) else np.inf


def spanning(counts: np.ndarray) -> np.ndarray:
    """As few rows of element counts (M, 119) as span all of them, (K, 119)."""
    from scipy.linalg import qr  # noqa: PLC0415  (heavy)

    known = np.unique(counts, axis=0)
    _, triangle, order = qr(known.T.astype(np.float64), mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    return known[np.sort(order[: int((sizes > RANK_TOLERANCE**0.5 * sizes[0]).sum())])]


def _length(value: Any) -> float:
    """A length of a stored range in Angstrom; null is infinite.

    Raises:
        ValueError: it is none.
    """
    length = np.inf if value is None else float(value)
    if not length >= 0:
        raise ValueError(f"range: expected lengths, got {value}")
    return length
