"""What the training structures covered, and what of another structure lies outside of it.

A model predicts a number for any atoms, outside of what it has learned, too.  A checkpoint therefore keeps the range of
its training structures, and every program that predicts compares structures with it.  A structure is outside if

| kind        | rule                                                                                                |
|-------------|-----------------------------------------------------------------------------------------------------|
| size        | fewer or more atoms than any training structure; not for a crystal, which is all of its supercells  |
| periodic    | a crystal where training had molecules only, or the other way round                                 |
| charge      | a total charge outside of the range of training; a charge that no file tells counts as 0            |
| radical     | more unpaired electrons than in training, or a molecule with an odd number of electrons (a radical, |
|             | or an ion whose file does not tell its charge) where training had none                              |
| close       | two atoms closer than ``CLOSER`` times the shortest distance of their two elements in training (of  |
|             | any two, where training had none of these elements within the cutoff), and not further apart than a |
|             | bond of their covalent radii and 1 Angstrom                                                         |
| apart       | an atom without a neighbour within ``FURTHER`` times the largest distance that an atom of its       |
|             | element had to its nearest neighbour; or parts that no chain of atoms joins whose links are within  |
|             | ``FURTHER`` times the longest one that was needed in training, with hydrogen and without            |
| composition | no linear combination of the compositions of training, where those give the label its zero: its     |
|             | energy then lacks a constant of hundreds of eV, see ``statistics.undetermined``                     |

The two factors are what heat adds.  With those here no frame of the shipped trajectory at 500 K is outside of what the
other frames cover, and neither is a validation or test molecule of the shipped QM9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_tools.coverage.learned_range import FURTHER, LearnedRange
from data_tools.coverage.observed import STRUCTURES_AT_ONCE, Observed, observe
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import element_counts
from data_tools.tables import ELEMENTS

KINDS = ("size", "periodic", "charge", "radical", "close", "apart", "composition")
TOLERANCE = 0.1  # of charges and unpaired electrons, which may be sums over atoms


@dataclass(frozen=True)
class Finding:
    """A kind of which some structures are.

    Attributes:
        kind: one of ``KINDS``.
        rows: (M,) bool: which structures.
        words: what the first of them is, and what training had.
    """

    kind: str
    rows: np.ndarray
    words: str


@dataclass(frozen=True)
class Outside:
    """How structures of a data set compare with what a model has learned.

    Attributes:
        count: M, how many were compared.
        findings: one of a kind; none where the checkpoint holds no range.
        known: whether the checkpoint holds a range.
    """

    count: int
    findings: list[Finding]
    known: bool

    @property
    def undetermined(self) -> np.ndarray:
        """(M,) bool: which have a composition for which the model has no reference energy."""
        rows = [finding.rows for finding in self.findings if finding.kind == "composition"]
        return rows[0] if rows else np.zeros(self.count, bool)

    def lines(self, name: Callable[[int], str]) -> list[str]:
        """A line for each kind; ``name`` is what to call the structure k of those that were compared."""
        return [
            f"{finding.rows.sum()} of {self.count} structures outside of what the model has learned (first: "
            f"{name(int(finding.rows.argmax()))}): {finding.words}"
            for finding in self.findings
        ]

    def joined(self, other: Outside) -> Outside:
        """What of the same structures is outside of the one range or of the other."""
        found = {finding.kind: finding for finding in self.findings}
        for finding in other.findings:
            one = found.get(finding.kind, finding)
            first = min((one, finding), key=lambda each: int(each.rows.argmax()))  # whom ``lines`` names
            found[finding.kind] = Finding(finding.kind, one.rows | finding.rows, first.words)
        ordered = sorted(found.values(), key=lambda finding: KINDS.index(finding.kind))
        return Outside(self.count, ordered, self.known and other.known)

    def column(self) -> list[str]:
        """For each structure its kinds, ``size, close``; empty inside, ``unknown`` where the model has no range."""
        return [
            ", ".join(finding.kind for finding in self.findings if finding.rows[row]) if self.known else "unknown"
            for row in range(self.count)
        ]


def compare(learned: LearnedRange | None, packed: PackedGraphs, rows: np.ndarray) -> Outside:
    """Rows of a data set with what a model has learned; None where its checkpoint holds no range."""
    merged: dict[str, Finding] = {}
    for start, some in enumerate(observe(packed, rows) if learned is not None else ()):
        for finding in findings(learned, some) if learned is not None else ():
            before = merged.setdefault(finding.kind, Finding(finding.kind, np.zeros(len(rows), bool), finding.words))
            before.rows[start * STRUCTURES_AT_ONCE :][: len(finding.rows)] = finding.rows
    found = sorted(merged.values(), key=lambda finding: KINDS.index(finding.kind))
    return Outside(len(rows), found, learned is not None)


def findings(learned: LearnedRange, found: Observed) -> list[Finding]:
    """Which structures are outside, a finding for each kind that occurs, in the order of ``KINDS``."""
    rules = (_size, _periodicity, _charge, _unpaired, _too_close, _apart, _composition)
    every = (rule(learned, found) for rule in rules)
    return [finding for finding in every if finding is not None and finding.rows.any()]


def _size(learned: LearnedRange, found: Observed) -> Finding | None:
    rows = ~found.periodic & ((found.n_atoms < learned.n_atoms[0]) | (found.n_atoms > learned.n_atoms[1]))
    first = int(found.n_atoms[rows.argmax()])
    words = "1 atom" if first == 1 else f"{first} atoms"
    return Finding("size", rows, f"{words}, training had {_span(learned.n_atoms)}")


def _periodicity(learned: LearnedRange, found: Observed) -> Finding | None:
    rows = ~np.isin(found.periodic, learned.periodic)
    kinds = ("a molecule", "crystals") if True in learned.periodic else ("a crystal", "molecules")
    return Finding("periodic", rows, f"{kinds[0]}, training had {kinds[1]} only")


def _charge(learned: LearnedRange, found: Observed) -> Finding | None:
    charges, (low, high) = np.nan_to_num(found.charges), learned.charges
    rows = (charges < low - TOLERANCE) | (charges > high + TOLERANCE)
    return Finding("charge", rows, f"charge {charges[rows.argmax()]:+.3g}, training had {_span(learned.charges)}")


def _unpaired(learned: LearnedRange, found: Observed) -> Finding | None:
    rows = found.unpaired > learned.unpaired + TOLERANCE  # NaN is not
    if not learned.odd_electrons:
        rows |= found.odd & ~found.periodic
    most = f"at most {learned.unpaired:g}" if learned.unpaired else "none"
    return Finding(
        "radical", rows, f"unpaired electrons (a radical, or an ion whose charge is not told), training had {most}"
    )


def _too_close(learned: LearnedRange, found: Observed) -> Finding | None:
    one, other = found.numbers[found.receivers], found.numbers[found.senders]
    limits = learned.closest[one, other]
    near = np.flatnonzero(found.distances < limits)
    if not len(near):
        return None
    owner = found.owner[found.receivers[near]]
    rows = np.bincount(owner, minlength=len(found.n_atoms)) > 0
    of_first = near[owner == rows.argmax()]
    worst = of_first[np.argmin(found.distances[of_first] / limits[of_first])]
    numbers = int(min(one[worst], other[worst])), int(max(one[worst], other[worst]))
    shortest = learned.shortest.get(numbers, min(learned.shortest.values()))
    pair = f"{ELEMENTS[one[worst] - 1]}-{ELEMENTS[other[worst] - 1]}"
    return Finding(
        "close", rows,
        f"{pair} at {found.distances[worst]:.2f} A, training had {shortest:.2f} A or more",
    )  # fmt: skip


def _apart(learned: LearnedRange, found: Observed) -> Finding | None:
    alone = (found.nearest > learned.loneliest[found.numbers]) & (found.n_atoms[found.owner] > 1)
    rows = np.bincount(found.owner[alone], minlength=len(found.n_atoms)) > 0
    for some, link in ((found, learned.link), (found.skeleton, learned.skeleton)):
        if np.isfinite(link):
            rows |= some.in_parts(FURTHER * link)
    of_first = np.flatnonzero(alone & (found.owner == rows.argmax()))
    if not len(of_first):
        longest = max(filter(np.isfinite, (learned.link, learned.skeleton)), default=0.0)
        return Finding("apart", rows, f"parts that no links up to {longest:.2f} A join, as they did in training")
    atom = of_first[np.argmax(found.nearest[of_first])]
    number, distance = int(found.numbers[atom]), found.nearest[atom]
    words = f"{distance:.2f} A from" if np.isfinite(distance) else "beyond the cutoff of"
    most = f"training had {learned.isolation[number]:.2f} A or less"
    return Finding("apart", rows, f"{ELEMENTS[number - 1]} {words} its nearest neighbour, {most}")


def _composition(learned: LearnedRange, found: Observed) -> Finding | None:
    rows = learned.undetermined(element_counts(found.numbers, found.n_atoms))
    return Finding("composition", rows, "training gives no reference for this composition: no energy")


def _span(values: tuple[float, float]) -> str:
    """The least and the largest of some numbers, once where they are the same."""
    low, high = values
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
