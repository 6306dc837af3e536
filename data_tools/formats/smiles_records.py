"""The records of a file of SMILES: lines of a SMILES and a name, or a table with a header and a column of SMILES."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.graph import DataError
from data_tools.source_files import one_line, read_text, shown

BLANK = " "  # stands for any white space between columns
DELIMITERS = (",", ";", "\t")
#: columns of names, the best first; compared without case, blanks and underscores
NAMES = ("name", "title", "id", "molid", "moleculename", "molecule", "moleculeid", "compound", "compoundname",
         "compoundid", "identifier", "label", "cid", "chemblid", "zincid", "smilesname")  # fmt: skip
#: columns of names of files, the best first; compared in the same way
FILES = ("file", "filename", "path", "filepath", "structurefile", "xyzfile", "ciffile", "sdffile")
SINGLE = re.compile(r"(canonical|isomeric|connectivity|absolute|standard|input)?(smiles|smi)(string)?")
EXTENSION = re.compile(r"\|[^|]*\|")  # of ChemAxon
MOST_COLUMNS = 8  # that a message lists
LONGEST_NAME = 40
LONGEST_LINE, FIRST_LINES = 1 << 16, 100  # characters, and lines, that are looked at for a header
TABLES = (".csv", ".tsv")


class Record(NamedTuple):
    """One molecule of the file.

    Attributes:
        place: where it stands (``line 2``).
        smiles: as written.
        name: what the file calls it, or the SMILES.
        extension: of ChemAxon, between ``|`` and ``|``; mostly empty.
        problem: why the record cannot be used; empty where it can be.
    """

    place: str
    smiles: str
    name: str
    extension: str = ""
    problem: str = ""


class Header(NamedTuple):
    """The first line of a table.

    Attributes:
        delimiter: ``,``, ``;``, a tab, or ``BLANK``.
        columns: their names.
        smiles: which of them holds SMILES.
        name: which of them holds names; None where there is none.
    """

    delimiter: str
    columns: list[str]
    smiles: int
    name: int | None


def records_of_words(words: Sequence[str]) -> list[Record]:
    """SMILES of a command line, each perhaps with a name behind it."""
    return [_of_words(f"--smiles {number}", word) for number, word in enumerate(words, 1)]


def records_of_file(path: Path) -> list[Record]:
    """Every record of a file, in its order; blank lines are none.

    A .csv or .tsv file is a table with a header; another is one if its first line is such a header and no SMILES.

    Raises:
        DataError: no text, a table without a column of SMILES or with several, or no record at all.
    """
    lines = read_text(path, "a file of SMILES").removeprefix("\ufeff").splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    records: list[Record] = []
    if first is not None:
        is_table = path.suffix.lower() in TABLES
        header = find_header(path, lines[first]) if is_table or not is_smiles(lines[first].split()[0]) else None
        if is_table and header is None:
            raise DataError(f"{path}: expected a header with {columns_of(lines[first])}; name that column smiles")
        records = list(_of_lines(lines) if header is None else _of_table(path, lines, first, header))
    if not records:
        raise DataError(f"{path}: expected at least one structure, found none; check that this is the right file")
    return records


class Columns(NamedTuple):
    """The text of a table below its header.

    Attributes:
        names: of the columns.
        rows: where each row stands (``line 2``) and its fields, as many as there are columns.
    """

    names: list[str]
    rows: list[tuple[str, list[str]]]


def columns_of_file(path: Path) -> Columns:
    """A table with a header whose rows all have the same columns; blank lines are none.

    Raises:
        DataError: no text, no row, or a row with more or fewer fields than the header.
    """
    lines = read_text(path, "a table").removeprefix("\ufeff").splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    line = lines[first] if lines else ""
    delimiter = _delimiter(line)
    names, rows = _split(line, delimiter), []
    for number, fields in _rows_below(path, lines, first, delimiter):
        if not any(fields):
            continue
        while len(fields) > len(names) and not fields[-1]:
            fields.pop()
        if len(fields) != len(names):
            raise DataError(
                f"{path}: expected {len(names)} columns as in the header in line {number}, found {len(fields)}; "
                "correct the row, and quote fields that hold the delimiter"
            )
        rows.append((f"line {number}", fields))
    if not rows:
        raise DataError(f"{path}: expected at least one row below the header, found none; check the file")
    return Columns(names, rows)


def column_of_files(names: Sequence[str]) -> int | None:
    """Which column of a table names files of structures; None where none does."""
    plain = [_plain(name) for name in names]
    return next((plain.index(name) for name in FILES if name in plain), None)


def names_files(line: str) -> bool:
    """Whether the header of a table has a column with names of files."""
    return column_of_files(_split(line, _delimiter(line))) is not None


def records_of_columns(path: Path, table: Columns) -> list[Record]:
    """The records of a table that has a column of SMILES, one a row.

    Raises:
        DataError: it has several, or none.
    """
    header = header_of(path, BLANK, table.names)
    if header is None:
        raise DataError(f"{path}: expected a column smiles; name it so")
    return [_of_fields(place, fields, header) for place, fields in table.rows]


def first_line(path: Path) -> str:
    """The first line of a table that is not blank; empty where the first lines are."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = (file.readline(LONGEST_LINE) for _ in range(FIRST_LINES))
        return next((line for line in lines if line.strip()), "")


def find_header(path: Path, line: str) -> Header | None:
    """The columns of a line that names one ``smiles``, in any of the spellings; None where it names none.

    Raises:
        DataError: several columns, of which none is called ``smiles`` exactly.
    """
    delimiter = _delimiter(line)
    return header_of(path, delimiter, _split(line, delimiter))


def header_of(path: Path, delimiter: str, columns: list[str]) -> Header | None:
    """As ``find_header``, of names of columns."""
    plain = [_plain(column) for column in columns]
    exact = [at for at, one in enumerate(plain) if one == "smiles"]
    fitting = exact or [at for at, one in enumerate(plain) if _means_smiles(one)]
    if not fitting:
        return None
    isomeric = [at for at in fitting if plain[at].startswith("isomeric")]  # the same molecules, said more exactly
    chosen = fitting if len(fitting) == 1 else isomeric
    if len(chosen) != 1:
        found = _listed([columns[at] for at in fitting])
        raise DataError(f"{path}: expected one column of SMILES, found {found}; call only the one to use smiles")
    names = [plain.index(name) for name in NAMES if name in plain]
    return Header(delimiter, columns, chosen[0], names[0] if names else None)


def columns_of(line: str) -> str:
    """What a message says of a table whose first line names no column of SMILES."""
    return f"a column smiles, its columns are {_listed(_split(line, _delimiter(line)))}"


def _delimiter(line: str) -> str:
    """The delimiter of the columns of a header; a single column may have a name of several words."""
    present = [one for one in DELIMITERS if one in line]
    if present:
        fitting = [one for one in present if any(map(_means_smiles, map(_plain, _split(line, one))))]
        return max(fitting or present, key=line.count)
    return "\t" if SINGLE.fullmatch(_plain(line)) else BLANK


def _plain(column: str) -> str:
    return re.sub(r"[\W_]", "", column).lower()


def _means_smiles(plain: str) -> bool:
    if plain in NAMES or len(plain) > LONGEST_NAME:
        return False
    return plain == "smi" or plain.startswith("smiles") or plain.endswith(("smiles", "smilesstring"))


def is_smiles(word: str) -> bool:
    """Whether RDKit can read it."""
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    with rdBase.BlockLogs():
        return len(word) < 1000 and Chem.MolFromSmiles(word, sanitize=False) is not None


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - MOST_COLUMNS} more" if len(columns) > MOST_COLUMNS else ""
    return ", ".join(f"'{shown(column)}'" for column in columns[:MOST_COLUMNS]) + more


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == BLANK:
        return line.split()
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []


def _of_lines(lines: Sequence[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _of_words(f"line {number}", line)


def _of_words(place: str, line: str) -> Record:
    """A line of SMILES, perhaps an extension, and perhaps a name; where tabs part them, only what follows the first."""
    smiles, *rest = line.split(None, 1) or [""]
    behind = rest[0].strip() if rest else ""
    extension = EXTENSION.match(behind)
    behind = behind[extension.end() :].strip() if extension else behind
    name = " ".join(behind.split("\t")[0].split())
    return Record(place, smiles, name or smiles or place, extension[0] if extension else "")


def _of_table(path: Path, lines: Sequence[str], first: int, header: Header) -> Iterator[Record]:
    """The rows below a header; a row that does not fit to it is a record with a problem."""
    for number, fields in _rows_below(path, lines, first, header.delimiter):
        if not any(fields):
            continue
        while len(fields) > len(header.columns) and not fields[-1]:
            fields.pop()
        yield _of_fields(f"line {number}", fields, header)


def _rows_below(path: Path, lines: Sequence[str], first: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and fields of each row below a header."""
    if delimiter == BLANK:
        return ((number, line.split()) for number, line in enumerate(lines[first + 1 :], first + 2))
    return _quoted_rows(path, lines, first, delimiter)


def _quoted_rows(path: Path, lines: Sequence[str], first: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and fields of each row."""
    reader = csv.reader(lines[first + 1 :], delimiter=delimiter, skipinitialspace=True)
    number = first + 2
    try:
        for row in reader:
            yield number, [field.strip() for field in row]
            number = first + 2 + reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}: expected a row in line {number}, but {one_line(error)}; correct it") from None


def _of_fields(place: str, fields: list[str], header: Header) -> Record:
    count, last = len(header.columns), len(header.columns) - 1
    if header.delimiter == BLANK and header.name == last and len(fields) > count:  # a name of several words
        fields = [*fields[:last], " ".join(fields[last:])]
    smiles, *behind = (fields[header.smiles] if header.smiles < len(fields) else "").split(None, 1) or [""]
    name = fields[header.name] if header.name is not None and header.name < len(fields) else ""
    record = Record(place, smiles, " ".join(name.split()) or smiles or place, *behind)
    if len(fields) > count:
        return record._replace(problem=f"expected {count} columns as in the header, found {len(fields)}")
    if not smiles:
        return record._replace(problem=f"expected SMILES in column {header.columns[header.smiles]!r}, found nothing")
    if behind and not EXTENSION.fullmatch(behind[0]):
        return record._replace(problem=f"expected one word of SMILES, found {shown(behind[0])!r} behind it")
    return record
