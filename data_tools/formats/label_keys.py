"""Labels under other names than the project's: ``data.keys`` says which label a name of the file is.

Nothing is renamed by itself beyond the few spellings that the readers list: a name says nothing about the unit, the
sign or the reference of an energy.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_tools.formats.spelling import advice, listed, nearest_names
from data_tools.formats.stress_labels import STRESS, stress_of_table
from data_tools.graph import DataError, StructureTable
from data_tools.labels.targets import TARGETS, get_target, is_target, nearest_target
from data_tools.source_files import shown

FORCES = "forces"
LABELS = (*TARGETS, FORCES, STRESS)
NO_KEYS: Mapping[str, str] = {}


def check_keys(keys: Mapping[str, str], learned: Sequence[str] = ()) -> Mapping[str, str]:
    """The mapping, if each of its left-hand names is a label, with properties of a user's own under their own names.

    Args:
        keys: label -> name in the file.
        learned: what is learned; those of ``LABELS`` add nothing, for the readers know where they stand.

    Raises:
        DataError: another name; the message says which label is nearest.
    """
    own = [name for name in learned if name not in LABELS]
    keys = {**{name: name for name in own}, **keys}
    for name in keys:
        if name not in (*LABELS, *own):
            close = difflib.get_close_matches(name.lower(), {label.lower(): label for label in LABELS}, n=1, cutoff=0.5)
            nearest = [label for label in LABELS if close and label.lower() == close[0]] or nearest_names(name, LABELS)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise DataError(
                f"data.keys: unknown label {shown(name)}; {hint}expected LABEL=NAME_IN_THE_FILE with a label of "
                f"{', '.join(LABELS)}"
            )
    return keys


def rename(path: Path, table: StructureTable, keys: Mapping[str, str]) -> StructureTable:
    """The table with the labels that ``keys`` names under their right names; a label that had that name is left out.

    Args:
        path: the file, for the message.
        table: what its reader made.
        keys: label -> name in the file.

    Raises:
        DataError: a name is not there, or what it stands for has not the shape of the label.
    """
    if not keys:
        return table
    for label, name in keys.items():
        if name not in table.label_names:
            raise DataError(absent(path, label, name, (*table.label_names, *table.unread)))
    taken = {label: label_of(path, table, label, name) for label, name in keys.items()}
    moved = {*keys, *keys.values()}
    left = tuple(name for name in keys if name in table.label_names and name not in keys.values())
    note = f"; labels not read: {', '.join(left)}" if left else ""
    of_structures = {name: values for name, values in table.of_structures.items() if name not in moved}
    of_atoms = {name: values for name, values in table.of_atoms.items() if name not in moved}
    return dataclasses.replace(
        table,
        of_structures=of_structures | {label: values for label, values in taken.items() if label != FORCES},
        of_atoms=of_atoms | {label: values for label, values in taken.items() if label == FORCES},
        source=table.source + note,
    )


def label_of(path: Path, table: StructureTable, label: str, name: str) -> np.ndarray:
    """Values that a table has under ``name``, in the shape of the label.

    Raises:
        DataError: they belong to structures where the label belongs to atoms or the other way round, or another shape.
    """
    values = table.of_atoms[name] if name in table.of_atoms else table.of_structures[name]
    if (name in table.of_atoms) != (label == FORCES):
        owner = "atoms" if name in table.of_atoms else "structures"
        raise DataError(
            f"{path}: expected {_expected(label)} as {label}, found an array of shape {values.shape} of the {owner}"
        )
    return shape_of_label(path, table, label, values)


def shape_of_label(path: Path, table: StructureTable, label: str, values: np.ndarray) -> np.ndarray:
    """Values of a label in the shape it has in a table: (M,) numbers, (M, 3, 3) stresses, or (A, 3) forces.

    Raises:
        DataError: another shape.
    """
    atoms, rows = len(table.numbers), len(table)
    if label == STRESS and len(values) == rows:
        return stress_of_table(path, table, values)
    if label == FORCES:
        right = values.shape == (atoms, 3)
    else:
        right = values.size == rows == len(values)
        values = values.reshape(rows) if right else values
    if not right:
        raise DataError(f"{path}: expected {_expected(label)} as {label}, found an array of shape {values.shape}")
    return values


def _expected(label: str) -> str:
    others = {FORCES: "three numbers per atom", STRESS: "six or nine numbers per structure"}
    return others.get(label, "one number per structure")


def absent(path: Path, label: str, name: str, found: Iterable[str]) -> str:
    """The message where a file lacks the name that ``data.keys`` gives for a label, or a property of its own name."""
    if label == name:
        found = tuple(found)
        if name in found:
            return f"{path}: expected numbers as {shown(name)}, found text or nothing in all structures; correct it"
        return (
            f"{path}: expected {shown(name)} among the values of the file, found {listed(found)}{_hint(label, found)}"
        )
    return (
        f"{path}: data.keys: expected {shown(name)}, the {label}, among the values of the file, found "
        f"{listed(found)}; {advice(label, found) or 'correct data.keys'}"
    )


def _hint(label: str, found: Sequence[str]) -> str:
    """What may have been meant by a property that a file does not have."""
    spelled = [name for name in found if label in TARGETS and is_target(name) and get_target(name).name == label]
    if spelled:
        name, unit = shown(spelled[0]), TARGETS[label].unit
        return (
            f"; {name} is another name of the built-in target {label}: if its numbers are in {unit}, say "
            f'--set data.keys="{label}={name}", else give that column a name of its own'
        )
    same = [name for name in found if name.strip().lower() == label.lower()]
    nearest = (same or nearest_names(label, found) or difflib.get_close_matches(label, found, n=1) or [""])[0]
    nearest = shown(nearest) or ("" if label in TARGETS else nearest_target(label))
    return f"; did you mean '{nearest}'?" if nearest else "; give the name of one of them"
