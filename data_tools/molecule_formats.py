"""Files of any molecules or crystals: xyz, which carries structures alone, and extended xyz.

Extended xyz carries labels, taken to be in the units of ASE (eV, Angstrom).
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.source_files import describe_source, one_line, read_text
from data_tools.tables import ATOMIC_NUMBERS, LARGEST_COORDINATE, table_of_structures

XYZ_ELEMENTS = ATOMIC_NUMBERS | {str(number): number for number in ATOMIC_NUMBERS.values()}
COLUMN_COUNT = re.compile(r":[A-Za-z]:(\d{1,18})")
MOST_COLUMNS = 1000
MOST_DIGITS = 18  # of a number of atoms; Python refuses to read numbers of thousands of digits
NOT_LABELS = {"numbers", "positions", "gdb_index"}
ENERGY_SPELLINGS, FORCES_SPELLINGS = ("Energy",), ("force", "Forces", "Force")  # that ASE does not know


def read_plain_xyz(path: Path) -> StructureTable:
    """Any number of molecules, one after the other: atom count, comment, then ``symbol x y z`` lines in Angstrom.

    The comment becomes the name.  Columns after z are left alone.

    Raises:
        DataError: with the number of the line that is wrong.
    """
    lines = read_text(path, "an xyz file").splitlines()
    structures: list[Structure] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        count = lines[at].strip()
        if not count.isdecimal() or len(count) > MOST_DIGITS or int(count) < 1:
            raise DataError(
                f"{path}: expected a number of atoms in line {at + 1}, found {count[:40]!r}; correct the file"
            )
        body = lines[at + 2 : at + 2 + int(count)]
        if len(body) < int(count):
            raise DataError(
                f"{path}: expected {count} atoms after line {at + 2}, found {len(body)} lines; the file is cut short"
            )
        numbers, positions = _parse_atoms(path, body, at + 3)
        structures.append(Structure(numbers, positions, None, lines[at + 1].strip() or f"frame {len(structures)}"))
        at += 2 + int(count)
    return table_of_structures(path, structures, describe_source(path))


def _parse_atoms(path: Path, lines: list[str], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions of ``symbol x y z`` lines; ``first`` is the number of the first line in the file."""
    numbers, positions = [], []
    for offset, line in enumerate(lines):
        fields = line.split()
        try:
            numbers.append(XYZ_ELEMENTS[fields[0].capitalize()])
            positions.append((float(fields[1]), float(fields[2]), float(fields[3])))
        except KeyError:
            raise DataError(
                f"{path}: expected an element in line {first + offset}, found {fields[0][:20]!r}; correct it"
            ) from None
        except (ValueError, IndexError):
            raise DataError(
                f"{path}: expected 'symbol x y z' in line {first + offset}, found {line.strip()[:60]!r}; correct it"
            ) from None
    return np.array(numbers, np.int32), np.array(positions, np.float64)


def read_extended_xyz(path: Path) -> StructureTable:
    """Extended xyz through ASE: structures, cells where periodic, and every numeric label of the frames and the atoms.

    ``Energy``, ``force``, ``Force`` and ``Forces`` become the labels ``energy`` and ``forces`` that ASE knows.
    ``gdb_index`` in the comment lines, if all have it as a whole number, becomes the identity; ``name`` the name.

    Raises:
        DataError: ASE cannot read it, a structure is periodic in some directions only, or labels change their shape.
    """
    import ase.io  # noqa: PLC0415  (heavy)

    _refuse_announcements(path, read_text(path, "an extended xyz file"))
    try:
        frames: Any = ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise DataError(
            f"{path}: expected extended xyz, ASE cannot read it ({type(error).__name__}: {one_line(error)[:200]}); "
            "correct it"
        ) from None
    structures = [_structure_of(path, row, atoms) for row, atoms in enumerate(frames)]
    per_frame, per_atom = [], []
    for atoms in frames:
        results = {} if atoms.calc is None else atoms.calc.results
        atomic = {"forces", "charges", "magmoms", "energies", "stresses"} & set(results)
        of_frame = _numeric(atoms.info | {name: results[name] for name in set(results) - atomic})
        _rename(of_frame, ENERGY_SPELLINGS, "energy", ())
        per_frame.append({name: value[None] for name, value in of_frame.items()})
        of_atoms = _numeric(atoms.arrays | {name: results[name] for name in atomic})
        _rename(of_atoms, FORCES_SPELLINGS, "forces", (len(atoms), 3))
        per_atom.append(of_atoms)
    sizes = [len(atoms) for atoms in frames]
    labels = _merge(path, per_frame, [1] * len(frames)) | _merge(path, per_atom, sizes)
    table = table_of_structures(path, structures, describe_source(path), labels)
    indices = [atoms.info.get("gdb_index") for atoms in frames]
    if all(isinstance(index, int | np.integer) for index in indices):
        table = dataclasses.replace(table, ids=np.array(indices, np.int64))
    return table


def _refuse_announcements(path: Path, text: str) -> None:
    """ASE makes room for all columns and asks for all lines that a file announces, whether they come or not."""
    widest = max(map(int, COLUMN_COUNT.findall(text)), default=0)
    if widest > MOST_COLUMNS:
        raise DataError(f"{path}: expected at most {MOST_COLUMNS} columns in Properties, found {widest}; correct it")
    lines, at = text.splitlines(), 0
    while at < len(lines):
        try:
            count = int(lines[at])
        except ValueError:  # for ASE to explain
            return
        if at + 2 + count > len(lines):
            raise DataError(
                f"{path}: expected {count} atoms after line {at + 2}, found {max(0, len(lines) - at - 2)} lines; the "
                "file is cut short"
            )
        at += 2 + max(0, count)


def _structure_of(path: Path, row: int, atoms: Any) -> Structure:
    name = str(atoms.info.get("name", f"frame {row}"))
    sound = (np.abs(atoms.cell.array) <= LARGEST_COORDINATE).all()  # NaN is not
    whole = atoms.pbc.all() and sound and abs(atoms.cell.volume) >= 1e-6
    if atoms.pbc.any() and not whole:
        raise DataError(
            f"{path}: expected {name} to be periodic in all directions, with a cell, or in none; found "
            f'pbc="{atoms.pbc.tolist()}"; give it a full cell with empty space, or pbc="F F F"'
        )
    cell = np.array(atoms.cell, np.float64) if atoms.pbc.all() else None
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, cell, name)


def _numeric(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The entries that are numbers, as float arrays."""
    arrays = {name: np.asarray(value) for name, value in values.items() if name not in NOT_LABELS}
    return {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind in "biuf"}


def _rename(labels: dict[str, np.ndarray], spellings: tuple[str, ...], name: str, shape: tuple[int, ...]) -> None:
    """Give the label with one of these spellings, and of this shape, the name that it should have had."""
    for spelling in spellings:
        if name not in labels and spelling in labels and labels[spelling].shape == shape:
            labels[name] = labels.pop(spelling)


def _merge(path: Path, rows: list[dict[str, np.ndarray]], sizes: list[int]) -> dict[str, np.ndarray]:
    """Join labels over all frames, NaN where a frame lacks one; frame k has ``sizes[k]`` entries of each."""
    ends = np.cumsum(sizes)
    merged: dict[str, np.ndarray] = {}
    for row, size, end in zip(rows, sizes, ends, strict=True):
        for name, value in row.items():
            column = merged.setdefault(name, np.full((ends[-1], *value.shape[1:]), np.nan))
            if value.shape != (size, *column.shape[1:]):
                raise DataError(
                    f"{path}: expected {name} of shape {column.shape[1:]} in every frame, found {value.shape[1:]} in "
                    "one; correct the file"
                )
            column[end - size : end] = value
    return merged
