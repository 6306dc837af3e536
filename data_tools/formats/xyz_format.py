"""xyz files: any number of frames, each an atom count, a comment and ``symbol x y z`` lines in Angstrom.

Blank lines between frames mean nothing.  Whatever else is no frame is an error with the number of its line: every frame
of a file is read, or none is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.source_files import describe_source, read_text, shown
from data_tools.tables import ATOMIC_NUMBERS, table_of_structures

HYDROGEN = {"D": 1, "T": 1}  # isotopes: the same element for a model of electrons
ISOTOPES = {"D", "T", "d", "t"}
HYDROGEN_NOTE = "D and T read as H"
XYZ_ELEMENTS = ATOMIC_NUMBERS | {str(number): number for number in ATOMIC_NUMBERS.values()} | HYDROGEN
MOST_DIGITS = 18  # of a number of atoms; Python refuses to read numbers of thousands of digits
FORTRAN_NUMBER = re.compile(r"(?<![\w.])([+-]?(?:\d+\.\d*|\.\d+))[dD]([+-]?\d{1,3})(?![\w.])")
QM9_COMMENT = re.compile(r"gdb\s+\d+\s+\S")
CELL_VECTOR = "VEC"  # of ADF, one to three lines behind the atoms


class Frame(NamedTuple):
    """One frame as text.

    Attributes:
        line: number of its first line in the file, from 1.
        comment: its second line.
        atoms: one line an atom, none of them blank.
        vectors: lines of cell vectors as ADF writes them, usually none.
    """

    line: int
    comment: str
    atoms: list[str]
    vectors: list[str]


def read_frames_of_text(path: Path) -> list[Frame]:
    """The frames of an xyz file of any kind.

    Raises:
        DataError: with the number of the line that is wrong.
    """
    text = read_text(path, "an xyz file")
    if FORTRAN_NUMBER.search(text):  # 1.0D-3
        text = FORTRAN_NUMBER.sub(r"\1e\2", text)
    lines = text.removesuffix("\n").split("\n")
    frames: list[Frame] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        count = _count(path, lines[at], at + 1)
        comment, atoms = "".join(lines[at + 1 : at + 2]), lines[at + 2 : at + 2 + count]
        if len(atoms) < count or not all(map(str.strip, atoms)):
            _refuse_atoms(path, count, atoms, at, len(lines))
        if QM9_COMMENT.match(comment):
            raise DataError(
                f"{path}: expected frames of one kind, found a molecule of QM9 in line {at + 1} behind others; give "
                "the files of QM9 alone"
            )
        vectors = []
        for line in lines[at + 2 + count : at + 5 + count]:
            if not line.lstrip().startswith(CELL_VECTOR):
                break
            vectors.append(line)
        frames.append(Frame(at + 1, comment, atoms, vectors))
        at += 2 + count + len(vectors)
    return frames


def _count(path: Path, line: str, number: int) -> int:
    """The number of atoms that a line says."""
    text = line.strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > MOST_DIGITS or int(text) < 1:
        raise DataError(
            f"{path}: expected a number of atoms in line {number}, found '{shown(text[:40])}'; correct the file"
        )
    return int(text)


def _refuse_atoms(path: Path, count: int, atoms: list[str], at: int, lines: int) -> None:
    """The frame whose count stands in line ``at`` + 1 has fewer atoms than it says."""
    found = next((k for k, line in enumerate(atoms) if not line.strip()), len(atoms))
    blank = f", then the empty line {at + 3 + found}" if at + 3 + found < lines else ""
    raise DataError(
        f"{path}: expected {count} atoms after line {at + 2}, found {found} lines{blank}; the file is cut short or "
        "damaged there"
    )


def plain_structure(path: Path, frame: Frame, row: int) -> Structure:
    """A frame without labels; the comment is its name, and columns after z are left alone.

    Raises:
        DataError: with the number of the line that is wrong.
    """
    numbers, positions = [], []
    for offset, line in enumerate(frame.atoms):
        fields = line.split()
        try:
            numbers.append(XYZ_ELEMENTS.get(fields[0]) or element_of(path, fields[0], frame.line + 2 + offset))
            positions.append((float(fields[1]), float(fields[2]), float(fields[3])))
        except DataError:
            raise
        except (ValueError, IndexError):
            raise DataError(
                f"{path}: expected 'symbol x y z' in line {frame.line + 2 + offset}, found "
                f"'{shown(line.strip())[:60]}'; correct it"
            ) from None
    name = frame.comment.strip() or f"frame {row}"
    return Structure(np.array(numbers, np.int32), np.array(positions, np.float64), None, name)


def element_of(path: Path, symbol: str, line: int) -> int:
    """The atomic number of a symbol in any case, or of the number itself.

    Raises:
        DataError: no element.
    """
    number = XYZ_ELEMENTS.get(symbol.capitalize())
    if number is None:
        raise DataError(f"{path}: expected an element in line {line}, found '{shown(symbol)[:20]}'; correct it")
    return number


def isotope_note(frames: list[Frame], column: int = 0) -> str:
    """What the source of a table says of deuterium and tritium; empty where there is none."""
    atoms = (line.split(None, column + 1)[column : column + 1] for frame in frames for line in frame.atoms)
    count = sum(field[0] in ISOTOPES for field in atoms if field)
    return f"; {HYDROGEN_NOTE}: {count} atoms" if count else ""


def read_plain_xyz(path: Path, frames: list[Frame]) -> StructureTable:
    """Frames without labels, as ``plain_structure`` reads them.

    Raises:
        DataError: with the number of the line that is wrong.
    """
    structures = [plain_structure(path, frame, row) for row, frame in enumerate(frames)]
    return table_of_structures(path, structures, describe_source(path) + isotope_note(frames))
