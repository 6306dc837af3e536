"""Extended xyz through ASE: structures, cells where periodic, and every numeric label of the frames and the atoms.

Labels are taken to be in the units of ASE (eV, Angstrom); ``stress_labels`` reads stresses and virials.  The
text is cut into frames here and each is checked, so that an error names its line and no frame is lost: ASE stops at a
blank line without a word.  Frames without ``Properties``, ``Lattice`` or keys with numbers are plain ones, whose
comment is a name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.formats.ase_frames import AS_WRITTEN, read_with_ase
from data_tools.formats.frame_labels import (
    ENERGY,
    ENERGY_SPELLINGS,
    NAMES,
    FrameLabels,
    labels_of,
    merge_all,
    refuse_text,
)
from data_tools.formats.label_keys import FORCES, NO_KEYS, label_of, rename
from data_tools.formats.stress_labels import STRESS, VIRIAL, stress_of_frame
from data_tools.formats.xyz_format import Frame, element_of, isotope_note, plain_structure
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.qm9 import origin_of
from data_tools.source_files import describe_source, shown
from data_tools.tables import ELEMENTS, LARGEST_COORDINATE, table_of_structures

DECLARED = re.compile(r"(?<!\w)(?:Properties|Lattice)\s*=")
MISSPELT = re.compile(r"(?<!\w)(properties|lattice)\s*=\s*(?=[\"']|\w+:[A-Z]:\d)", re.IGNORECASE)
PROPERTIES = re.compile(r"""(?<!\w)Properties\s*=\s*("[^"]*"|'[^']*'|\S+)""")
POSITIONS = re.compile(r"(?:^|:)pos(?:itions)?:[RI]:3(?::|$)")
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
KEY_AND_VALUE = re.compile(r"[A-Za-z_]\w*=(\S+)")
DEFAULT_PROPERTIES = "species:S:1:pos:R:3"
SYMBOL_COLUMNS = {"species", "symbols"}
MOST_COLUMNS = 1000


def is_extended(comment: str) -> bool:
    """Whether a comment holds keys and values, a number among them, or declares columns or a cell."""
    if DECLARED.search(comment) or MISSPELT.search(comment):
        return True
    values = [KEY_AND_VALUE.fullmatch(word) for word in QUOTED.sub("0", comment).split()]
    return bool(values) and all(values) and any(value is not None and _is_number(value[1]) for value in values)


def read_extended_xyz(path: Path, frames: list[Frame], keys: Mapping[str, str] = NO_KEYS) -> StructureTable:
    """The frames of a file, extended ones and plain ones.

    ``Energy``, ``force``, ``Force`` and ``Forces`` become the labels ``energy`` and ``forces`` that ASE knows; other
    names do where ``keys`` says so.  A label whose shape changes is left out and named in the source.
    ``gdb_index`` in the comment lines, if all have it as a whole number, becomes the identity; ``name``, or else
    ``material_id`` or ``mp_id`` (of the Materials Project), the name.

    Args:
        path: the file.
        frames: its text.
        keys: label -> name in the file.

    Raises:
        DataError: ASE cannot read a frame, a structure is periodic in some directions only, or the energy or the forces
            change their shape.
    """
    extended = [is_extended(frame.comment) for frame in frames]
    prepared = [_prepared(path, frame) for frame, one in zip(frames, extended, strict=True) if one]
    read = iter(read_with_ase(path, prepared))
    structures: list[Structure] = []
    labels: list[FrameLabels] = []
    indices: list[Any] = []  # gdb indices, or whatever stands there
    for row, (frame, one) in enumerate(zip(frames, extended, strict=True)):
        if not one:
            structures.append(plain_structure(path, frame, row))
            labels.append(FrameLabels({}, {}))
            indices.append(None)
            continue
        atoms = next(read)
        name = f"frame {row}" if DECLARED.search(frame.comment) else frame.comment.strip()
        tensors = {key: atoms.info.pop(key + AS_WRITTEN) for key in (STRESS, VIRIAL) if key + AS_WRITTEN in atoms.info}
        name = str(next((atoms.info[key] for key in NAMES if key in atoms.info), name))
        structures.append(_structure_of(path, name, atoms))
        labels.append(labels_of(atoms, keys))
        values = atoms.info | ({} if atoms.calc is None else atoms.calc.results)
        refuse_text(path, values | tensors, frame.line + 1, {ENERGY, *ENERGY_SPELLINGS, *tensors, *keys.values()})
        if keys.get(STRESS, STRESS) == STRESS:
            stress = stress_of_frame(path, frame.line + 1, tensors, structures[-1].cell)
            labels[-1].of_frame.update({} if stress is None else {STRESS: stress[None]})
        indices.append(atoms.info.get("gdb_index"))
    sizes = [len(structure.numbers) for structure in structures]
    of_structures, of_atoms, ragged = merge_all(path, [frame.line for frame in frames], labels, sizes, keys)
    columns = (_species_column(frame) for frame, one in zip(frames, extended, strict=True) if one)
    notes = isotope_note(frames, next((column for column in columns if column is not None), 0))
    notes += f"; labels whose shape changes, not read: {', '.join(map(shown, ragged))}" if ragged else ""
    table = table_of_structures(path, structures, describe_source(path) + notes, of_structures, of_atoms)
    others = dict.fromkeys(name for one in labels for name in one.others)
    table = dataclasses.replace(table, unread=(*ragged, *(name for name in others if name not in table.label_names)))
    known = [int(index) for index in indices if isinstance(index, int | np.integer) and not isinstance(index, bool)]
    if len(known) == len(table) and max(map(abs, known)) < 2**63:
        origin = origin_of(table.numbers, table.n_atoms)
        table = dataclasses.replace(table, ids=np.array(known, np.int64), origin=origin)
    table = rename(path, table, keys)
    for name in {ENERGY, FORCES} & set(table.label_names):
        owner = table.of_atoms if name == FORCES else table.of_structures
        owner[name] = label_of(path, table, name, name)
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _properties(comment: str) -> list[tuple[str, str, int]] | None:
    """Name, type and number of columns of each property; None where they are left to ASE to explain."""
    found = PROPERTIES.search(comment)
    fields = (found[1].strip("\"'") if found else DEFAULT_PROPERTIES).split(":")
    try:
        return list(zip(fields[::3], fields[1::3], map(int, fields[2::3]), strict=True))
    except ValueError:
        return None


def _species_column(frame: Frame) -> int | None:
    """The column of the symbols of the elements; None where there is none."""
    column = 0
    for name, _, count in _properties(frame.comment) or []:
        if name in SYMBOL_COLUMNS:
            return column
        column += count
    return None


def _prepared(path: Path, frame: Frame) -> Frame:
    """A frame as ASE understands it: symbols for numbers and isotopes of hydrogen.

    Raises:
        DataError: columns that are too many, or others than the comment declares.
    """
    properties, where = _properties(frame.comment), f"in line {frame.line + 1}"
    misspelt = MISSPELT.search(DECLARED.sub("", frame.comment))
    if misspelt:
        right = misspelt[1].capitalize()
        raise DataError(f"{path}: expected {right} {where}, found {misspelt[1]}; write {right}, or its values are lost")
    if properties is None:
        return frame
    declared = PROPERTIES.search(frame.comment)
    columns = sum(count for _, _, count in properties)
    if columns > MOST_COLUMNS or min(count for _, _, count in properties) < 1:
        raise DataError(
            f"{path}: expected at most {MOST_COLUMNS} columns in Properties {where}, found {columns}, or fewer than "
            "one of a kind; correct it"
        )
    if declared and not POSITIONS.search(declared[1].strip("\"'")):
        raise DataError(f"{path}: expected pos:R:3 in Properties {where}, found '{shown(declared[1])}'; correct it")
    column, atoms = _species_column(frame), []
    for number, text in enumerate(frame.atoms, frame.line + 2):
        line, fields = text, text.split()
        if len(fields) < columns or (declared and len(fields) > columns):
            words = f"the {columns} columns of Properties" if declared else "'symbol x y z'"
            raise DataError(f"{path}: expected {words} in line {number}, found {len(fields)}; correct the file")
        if column is not None:
            symbol = ELEMENTS[element_of(path, fields[column], number) - 1]
            if symbol != fields[column]:
                fields[column] = symbol
                line = " ".join(fields)
        atoms.append(line)
    return frame._replace(comment=frame.comment.replace("species:I:1", DEFAULT_PROPERTIES[:11]), atoms=atoms)


def _structure_of(path: Path, name: str, atoms: Any) -> Structure:
    sound = (np.abs(atoms.cell.array) <= LARGEST_COORDINATE).all()  # NaN is not
    whole = atoms.pbc.all() and sound and abs(atoms.cell.volume) >= 1e-6
    if atoms.pbc.any() and not whole:
        raise DataError(
            f"{path}: expected {name} to be periodic in all directions, with a cell, or in none; found "
            f'pbc="{atoms.pbc.tolist()}"; give it a full cell with empty space, or pbc="F F F"'
        )
    cell = np.array(atoms.cell, np.float64) if atoms.pbc.all() else None
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, cell, name)
