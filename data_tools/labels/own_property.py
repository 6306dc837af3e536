"""A property that is no built-in target: what a user's own data call it, in whatever unit their numbers are.

Nothing is known of such a property but its numbers.  ``auto`` therefore takes the mean over atoms, which neither grows
with the structure nor shrinks; labels that look otherwise give a warning, and the user decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, StructureTable
from data_tools.labels.targets import Target, get_target, is_target, label_values
from data_tools.source_files import shown
from data_tools.tables import select_rows

NO_UNIT = "no unit"
LONGEST_NAME, LONGEST_UNIT = 100, 40
OF_ENERGIES = ("forces", "stress", "virial")
RESERVED = (*OF_ENERGIES, "charge", "radical_electrons")  # labels that mean something else here
#: correlation of labels with numbers of atoms, from which and up to which a property looks extensive and intensive
EXTENSIVE, INTENSIVE, FEWEST = 0.9, 0.3, 10
ADDITIVE = 0.6  # part of the variance that sums over elements explain, from which it looks extensive


def target_of(name: str, unit: str = "", own: bool = False) -> Target:
    """A target by its name, or a property of a user's own data.

    Args:
        name: of a target, in any of its spellings, or what the data call the property.
        unit: of the labels; empty: that of the target, or ``no unit``.
        own: whether the data are a user's own, so that a name that is no target is a property of theirs.

    Raises:
        DataError: no such target, another unit than that of the target, or a name or unit that cannot be printed.
    """
    unit = unit.strip()
    if own and not is_target(name):
        return _own(name.strip(), unit)
    target = get_target(name)
    if unit not in ("", target.unit):
        raise DataError(
            f"target.unit '{shown(unit)}': the target {target.name} is a built-in one in {target.unit}, as its labels "
            "must be; leave target.unit out, or give your property another name"
        )
    return target


def _own(name: str, unit: str) -> Target:
    for what, text, longest in (("target.name", name, LONGEST_NAME), ("target.unit", unit, LONGEST_UNIT)):
        if not text.isprintable() or len(text) > longest:
            raise DataError(f"{what} '{shown(text)}': expected at most {longest} printable characters; shorten it")
    if not name or name.lower() in RESERVED:
        hint = f'; read it under another name, --set data.keys="my_{name}={name}" --target my_{name}' if name else ""
        hint = "; they are learned with the target energy" if name.lower() in OF_ENERGIES else hint
        raise DataError(f"target.name '{name}': expected a target or the name of a property of the data{hint}")
    return Target(
        name, unit or NO_UNIT, True, ("mean", "sum", "attention"), ("none",), "a property of the data", is_own=True
    )


def with_labels(path: Path, table: StructureTable, labels: Sequence[str]) -> StructureTable:
    """The structures of a table that have one of some labels, targets or properties; a remark counts the others.

    Raises:
        DataError: no structure has one of the labels, or it is not one number per structure.
    """
    there = np.zeros(len(table), bool)
    for label in labels:
        target = target_of(label, own=True)
        known = np.isfinite(label_values(table, target, "total" if "total" in target.references else "none"))
        if not known.any():
            raise DataError(
                f"{path}: expected numbers as {shown(label)}, all {len(table)} structures have none; fill them in"
            )
        there |= known
    if there.all():
        return table
    what = " or ".join(map(shown, labels))
    words = f"{len(table) - int(there.sum())} of {len(table)} structures have no {what} and are left out"
    return dataclasses.replace(select_rows(table, there), remarks=(*table.remarks, words))


def check_varies(target: Target, labels: np.ndarray) -> None:
    """Refuse labels of a user's own property from which nothing can be learned.

    Args:
        target: the property.
        labels: (K,) of the training structures.

    Raises:
        DataError: they are all the same number.
    """
    if target.is_own and len(labels) and np.ptp(labels) == 0:
        raise DataError(
            f"{target.name}: expected labels that vary, found {labels[0]:g} for all {len(labels)} training structures; "
            "give more structures, or another target"
        )


def size_suspicions(
    target: Target, readout: str, labels: np.ndarray, counts: np.ndarray, key: str = "target.readout="
) -> list[str]:
    """A warning where the labels of a user's own property do not fit its readout.

    A sum over atoms grows with the structure and a mean does not.  Which of them is likely is told by the correlation
    of labels and numbers of atoms, and by the part of the variance of the labels that sums over the atoms of each
    element explain, without a constant: of properties of QM9 that grow 0.70 (Cv), 0.86 (alpha) and more, of others at
    most 0.45 (lumo).  Energies need the second: total ones hardly depend on how many atoms there are, only on which.

    Args:
        target: the property; built-in ones have a readout that fits.
        readout: how values of atoms are combined.
        labels: (K,) of the training structures.
        counts: (K, 119) atoms of each element in these.
        key: that a readout is given by, with an equals sign.

    Returns:
        One line, or none.
    """
    n_atoms = counts.sum(axis=1)
    if not target.is_own or len(labels) < FEWEST or np.ptp(n_atoms) == 0 or np.ptp(labels) == 0:
        return []
    correlation = float(np.corrcoef(labels, n_atoms)[0, 1])
    explained = _explained(labels, counts[:, counts.any(axis=0)].astype(np.float64))
    words = f"correlation of {target.name} with the number of atoms {correlation:.2f}"
    if np.isfinite(explained):
        words += f", part of its variance that sums over elements explain {max(explained, 0.0):.2f}"
    if readout in ("mean", "attention") and (abs(correlation) >= EXTENSIVE or explained >= ADDITIVE):
        return [f"{words}: it looks extensive, which a mean over atoms is not; try --set {key}sum"]
    if readout == "sum" and abs(correlation) <= INTENSIVE and explained < ADDITIVE:
        return [f"{words}: it looks intensive, which a sum over atoms is not; try --set {key}mean"]
    return []


def _explained(labels: np.ndarray, counts: np.ndarray) -> float:
    """1 less the part of the variance of labels (K,) that is left of them without sums over elements (K, E).

    NaN where there are too few structures to tell.
    """
    if len(labels) < FEWEST * counts.shape[1]:
        return np.nan
    left = labels - counts @ np.linalg.lstsq(counts, labels, rcond=None)[0]
    return 1 - float(np.mean(left**2) / np.var(labels))
