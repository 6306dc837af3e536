"""The records of QM9's dsgdb9nsd_*.xyz files: one a file as published, several where files were joined.

A record has the atom count; ``gdb``, the index and 15 properties; per atom the symbol, x, y, z (Angstrom) and a
Mulliken charge; then frequencies, SMILES and InChI, of which stripped files lack some.  Some numbers are written
``1.5*^-6``.
"""

from __future__ import annotations

from typing import NamedTuple

from data_tools.source_files import one_line, shown
from data_tools.tables import ATOMIC_NUMBERS
from data_tools.units import QM9_PROPERTIES

SYMBOLS = {symbol.encode(): number for symbol, number in ATOMIC_NUMBERS.items()}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
INCHI = b"InChI="
MOST_DIGITS = 18


class Record(NamedTuple):
    """One molecule.

    Attributes:
        gdb_index: from 1.
        numbers: (n,) atomic numbers.
        coordinates: (3 n,) Angstrom, all x, all y, then all z.
        properties: (15,) in file order and the published units.
    """

    gdb_index: int
    numbers: list[int]
    coordinates: list[float]
    properties: list[float]


def parse_records(data: bytes) -> list[Record]:
    """All molecules of a file.

    Raises:
        ValueError: something else, cut short, or other lines behind a molecule; the text names the line.
    """
    lines = data.removeprefix(BYTE_ORDER_MARK).replace(b"*^", b"e").splitlines()
    records, at = [], _next(lines, 0)
    while at < len(lines):
        record, end = _parse(lines, at)
        records.append(record)
        at = _end_of_tail(lines, end, len(record.numbers))
    if not records:
        raise ValueError("it has no molecule")
    return records


def _next(lines: list[bytes], at: int) -> int:
    """The first line from ``at`` on that is not blank."""
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at


def _parse(lines: list[bytes], at: int) -> tuple[Record, int]:
    """The record whose count stands in ``lines[at]``, and the line behind its atoms."""
    header = lines[at + 1].split() if at + 1 < len(lines) else []
    if header[:1] != [b"gdb"]:
        where = "the second line" if at == 0 else f"line {at + 2}"
        raise ValueError(f"{where} does not begin with 'gdb'")
    count = lines[at].strip()
    if not count.isdigit() or len(count) > MOST_DIGITS or int(count) < 1:
        raise ValueError(f"'{shown(count.decode(errors='replace'))}' in line {at + 1} is no number of atoms")
    if len(header) != 2 + len(QM9_PROPERTIES):
        raise ValueError(f"line {at + 2} has {len(header) - 2} values, not an index and {len(QM9_PROPERTIES)} more")
    atoms = [line.split() for line in lines[at + 2 : at + 2 + int(count)]]
    whole = next((row for row, fields in enumerate(atoms) if len(fields) != 5), len(atoms))
    if whole < int(count):
        raise ValueError(f"in line {at + 3 + whole} it ends before its {int(count)} atoms do")
    numbers = []
    for row, fields in enumerate(atoms):
        if fields[0] not in SYMBOLS:
            symbol = shown(fields[0].decode(errors="replace"))
            raise ValueError(f"'{symbol}' stands where an element symbol should, in line {at + 3 + row}")
        numbers.append(SYMBOLS[fields[0]])
    if not header[1].isdigit() or len(header[1]) > MOST_DIGITS:
        raise ValueError(f"'{shown(header[1].decode(errors='replace'))}' in line {at + 2} is no index")
    properties = _floats(header[2:], at + 2)
    places = [_floats(fields[1:4], at + 3 + row) for row, fields in enumerate(atoms)]
    coordinates = [x for axis in zip(*places, strict=True) for x in axis]
    return Record(int(header[1]), numbers, coordinates, properties), at + 2 + int(count)


def _floats(words: list[bytes], line: int) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{one_line(error)} in line {line}") from None


def _end_of_tail(lines: list[bytes], at: int, n_atoms: int) -> int:
    """The line of the next molecule: behind frequencies, SMILES and InChI, whichever of them follow the atoms.

    Raises:
        ValueError: something else follows.
    """
    at, frequencies = _next(lines, at), (3 * n_atoms - 6, 3 * n_atoms - 5)
    if at < len(lines) and len(lines[at].split()) in frequencies and _are_numbers(lines[at]):
        at = _next(lines, at + 1)
    if at < len(lines) and not _begins(lines, at) and _is_smiles(lines[at]):
        at = _next(lines, at + 1)
    if at < len(lines) and lines[at].lstrip().startswith(INCHI):
        at = _next(lines, at + 1)
    if at < len(lines) and not _begins(lines, at):
        found = shown(lines[at].decode(errors="replace").strip())[:60]
        raise ValueError(f"expected the next molecule or the end of the file in line {at + 1}, found '{found}'")
    return at


def _begins(lines: list[bytes], at: int) -> bool:
    """Whether a record begins in a line: a count, and ``gdb`` in the line below."""
    return lines[at].strip().isdigit() and at + 1 < len(lines) and lines[at + 1].split()[:1] == [b"gdb"]


def _are_numbers(line: bytes) -> bool:
    try:
        return bool([float(text) for text in line.split()])
    except ValueError:
        return False


def _is_smiles(line: bytes) -> bool:
    """One or two words without a sign of InChI: the SMILES of GDB and of the relaxed geometry."""
    words = line.split()
    return len(words) in (1, 2) and not any(word.startswith(INCHI) or _are_numbers(word) for word in words)
