"""Labels of frames that ASE has read: which of its values are labels of structures or of atoms, and over all frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.formats.label_keys import FORCES
from data_tools.graph import DataError
from data_tools.source_files import shown

NAMES = ("name", "material_id", "mp_id")  # entries that name a frame; the first that is there counts
UNITS = ("unit", "units")  # entries that say the unit of a frame's numbers
NOT_LABELS = {"numbers", "positions", "gdb_index", *NAMES}
ENERGY = "energy"
ENERGY_SPELLINGS, FORCES_SPELLINGS = ("Energy",), ("force", "Forces", "Force")  # that ASE does not know
OF_ATOMS = {"forces", "charges", "magmoms", "energies", "stresses"}  # results of a calculator


class FrameLabels(NamedTuple):
    """Numbers of one frame with n atoms: per name (1, ...) and (n, ...); the names of what are no numbers; its unit."""

    of_frame: dict[str, np.ndarray]
    of_atoms: dict[str, np.ndarray]
    others: tuple[str, ...] = ()
    unit: str = ""


def refuse_text(path: Path, values: Mapping[str, Any], line: int, names: set[str]) -> None:
    """A label that is text with a digit in it is a number with something behind it; other text means none.

    Raises:
        DataError: such a text.
    """
    for name in names & set(values):
        if isinstance(values[name], str) and any(map(str.isdigit, values[name])):
            raise DataError(
                f"{path}: expected a number as {shown(name)} in line {line}, found '{shown(values[name])}'; correct it"
            )


def labels_of(atoms: Any, keys: Mapping[str, str]) -> FrameLabels:
    """What ASE found in a frame besides the structure; a usual spelling stays where ``keys`` says what the label is."""
    results = {} if atoms.calc is None else atoms.calc.results
    atomic = OF_ATOMS & set(results)
    frame_values = atoms.info | {name: results[name] for name in set(results) - atomic}
    of_frame = _numeric(frame_values)
    if ENERGY not in keys:
        _rename(of_frame, ENERGY_SPELLINGS, ENERGY, ())
    of_atoms = _numeric(atoms.arrays | {name: results[name] for name in atomic})
    if FORCES not in keys:
        _rename(of_atoms, FORCES_SPELLINGS, FORCES, (len(atoms), 3))
    others = tuple(set(frame_values) - set(of_frame) - NOT_LABELS - {ENERGY, *ENERGY_SPELLINGS})
    unit = next((value for name in UNITS if isinstance(value := atoms.info.get(name), str)), "")
    return FrameLabels({name: value[None] for name, value in of_frame.items()}, of_atoms, others, unit)


def _numeric(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The entries that are numbers, as float arrays."""
    arrays = {}
    for name, value in values.items():
        try:
            array = np.asarray(value)
        except ValueError:  # lists of several lengths
            continue
        if name not in NOT_LABELS and array.dtype.kind in "biuf":
            arrays[name] = array.astype(np.float64)
    return arrays


def _rename(labels: dict[str, np.ndarray], spellings: tuple[str, ...], name: str, shape: tuple[int, ...]) -> None:
    """Give the label with one of these spellings, and of this shape, the name that it should have had."""
    for spelling in spellings:
        if name not in labels and spelling in labels and labels[spelling].shape == shape:
            labels[name] = labels.pop(spelling)


def merge_all(
    path: Path, lines: Sequence[int], labels: list[FrameLabels], sizes: list[int], keys: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Labels of structures and of atoms over all frames, and the names of those that have several shapes.

    Args:
        path: the file.
        lines: of each frame, where it begins.
        labels: of each frame.
        sizes: of each frame, its atoms.
        keys: label -> name in the file.

    Raises:
        DataError: such a one is the energy, the forces or what ``keys`` names; or frames with these have several units.
    """
    units: dict[str, int] = {}
    for line, one in zip(lines, labels, strict=True):
        if keys and one.unit:
            units.setdefault(shown(one.unit), line)
    if len(units) > 1:
        listed = ", ".join(f"{unit} in the frame of line {line}" for unit, line in list(units.items())[:3])
        raise DataError(
            f"{path}: expected one unit in all frames, found several ({listed}): convert all to one, and say which in "
            "target.unit"
        )
    per_frame, ragged_frame = _merge([one.of_frame for one in labels], [1] * len(labels))
    per_atom, ragged_atoms = _merge([one.of_atoms for one in labels], sizes)
    twice = {name: "a number of the atoms here and of the frame there" for name in per_frame.keys() & per_atom}
    ragged = ragged_frame | ragged_atoms
    wanted = ({ENERGY, FORCES} - set(keys)) | set(keys.values())
    for name in wanted & (ragged.keys() | twice):
        row, words = ragged.get(name, (0, twice.get(name, "")))
        raise DataError(
            f"{path}: expected {shown(name)} of one shape in every frame, found {words} in the frame of line "
            f"{lines[row]}; correct the file"
        )
    left_out = sorted({*ragged, *twice})
    return (
        {name: values for name, values in per_frame.items() if name not in left_out},
        {name: values for name, values in per_atom.items() if name not in left_out},
        left_out,
    )


def _merge(
    rows: list[dict[str, np.ndarray]], sizes: list[int]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, str]]]:
    """Join labels over all frames, NaN where a frame lacks one; frame k has ``sizes[k]`` entries of each.

    Returns:
        The joined labels, and those of several shapes with the first frame of a second shape and words about it.
    """
    ends = np.cumsum(sizes)
    merged: dict[str, np.ndarray] = {}
    ragged: dict[str, tuple[int, str]] = {}
    for row, (labels, size, end) in enumerate(zip(rows, sizes, ends, strict=True)):
        for name, value in labels.items():
            column = merged.get(name)
            if column is None:
                column = merged[name] = np.full((ends[-1], *value.shape[1:]), np.nan)
            if value.shape != (size, *column.shape[1:]):
                ragged.setdefault(name, (row, f"{value.shape[1:]} beside {column.shape[1:]}"))
            else:
                column[end - size : end] = value
    return merged, ragged
