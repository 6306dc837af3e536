"""Tables (.csv, .tsv) of a user's own properties: a row a structure, which is SMILES or the name of a file beside it.

    smiles,name,logP               file,band_gap
    CCO,ethanol,-0.0014            cells/NaCl.cif,5.0
    c1ccccc1,benzene,1.6866        cells/MgO.cif,4.7

Delimiters are commas, semicolons or tabs; numbers have a decimal point.  Only the columns that are asked for are read;
an empty field (or ``nan``, ``NA``, ``null``, ``none``) is no label.  Geometries of SMILES are made by RDKit and kept
(``geometry_cache``); molecules without one are left out, and named in the table's remarks.  Files lie in the folder of
the table or in folders below, each with one structure (``structure_files``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_tools.formats import geometry_cache
from data_tools.formats.label_keys import absent
from data_tools.formats.smiles import GEOMETRY_WARNING, MADE_HERE, Refusal, make_molecules
from data_tools.formats.smiles_records import Columns, column_of_files, columns_of_file, header_of, records_of_columns
from data_tools.formats.structure_files import read_structure
from data_tools.graph import DataError, StructureTable
from data_tools.progress_bar import track
from data_tools.source_files import describe_source, sha256_of, shown
from data_tools.tables import table_of_structures

MISSING = {"", "nan", "na", "n/a", "null", "none", "-"}
WITH_UNIT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s,].*)")
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")
MOST_NAMED = 20  # molecules that remarks name


def read_property_table(
    path: Path, keys: Mapping[str, str], read: Callable[[Path], StructureTable], progress: bool = False
) -> StructureTable:
    """The structures of a table that have one of some labels; their ids are the rows of the table, from 0.

    Args:
        path: the table.
        keys: label -> name of its column; the labels are named as their columns yet.
        read: reads a file of structures.
        progress: report on stderr.

    Raises:
        DataError: rows of several lengths, no such column, text where numbers belong, numbers in several units, no
            label at all, a file that is not there, that escapes the folder or that does not hold one structure, or no
            SMILES of which a geometry can be made.
    """
    columns = columns_of_file(path)
    _check_units(path, columns, keys)
    labels = {name: _numbers(path, columns, label, name) for label, name in keys.items()}
    rows = np.arange(len(columns.rows))
    remarks = []
    if labels:
        rows = np.flatnonzero(np.isfinite(list(labels.values())).any(axis=0))
        what = " or ".join(map(shown, labels))
        if not len(rows):
            raise DataError(f"{path}: expected numbers in the column {what}, all {len(columns.rows)} fields are empty")
        if missing := len(columns.rows) - len(rows):
            remarks.append(f"{missing} of {len(columns.rows)} structures have no {what} and are left out")
    chosen = Columns(columns.names, [columns.rows[row] for row in rows])
    if header_of(path, "", columns.names) is None:
        table = _of_files(path, chosen, read, progress)
    else:
        table, made, refused = _of_smiles(path, chosen, progress)
        rows, remarks = rows[made], [*remarks, *refused]
    return dataclasses.replace(
        table,
        ids=rows,
        of_structures=table.of_structures | {name: values[rows] for name, values in labels.items()},
        unread=tuple(name for name in columns.names if name not in labels),
        remarks=tuple(remarks),
    )


def _of_smiles(path: Path, columns: Columns, progress: bool) -> tuple[StructureTable, np.ndarray, list[str]]:
    """Molecules of a column of SMILES, which rows they come from, and remarks about the others."""
    records = records_of_columns(path, columns)
    cache = geometry_cache.cache_of(path)
    known = geometry_cache.load(cache)
    geometries = {} if known is None else known
    if known is None:
        print(f"warning: {cache}: another file, or a damaged one; the geometries are not kept", file=sys.stderr)
    before = len(geometries)
    try:
        made = make_molecules(path, records, describe_source(path), progress, geometries)
    finally:  # also of a program that was interrupted
        if known is not None and len(geometries) > before:
            geometry_cache.save(cache, geometries)
    if made.table is None:
        raise DataError(f"{path}: none of {len(records)} SMILES can be used, the first: {made.refusals[0]}; correct it")
    source = made.table.source.replace(GEOMETRY_WARNING, MADE_HERE)  # here they are those that labels belong to
    return dataclasses.replace(made.table, source=source), made.rows, _remarks(made.refusals, len(records))


def _remarks(refusals: Sequence[Refusal], records: int) -> list[str]:
    """A line for each molecule that is left out, as far as they can be listed, and their number."""
    if not refusals:
        return []
    lines = [f"left out: {refusal}" for refusal in refusals[:MOST_NAMED]]
    more = f", of which {MOST_NAMED} are named" if len(refusals) > MOST_NAMED else ""
    return [*lines, f"{len(refusals)} of {records} molecules have no geometry and are left out{more}"]


def _of_files(path: Path, columns: Columns, read: Callable[[Path], StructureTable], progress: bool) -> StructureTable:
    """The structures of files that a column names; the source tells of the bytes of all."""
    at = column_of_files(columns.names)
    assert at is not None  # who calls this has looked
    structures, digest = [], hashlib.sha256()
    for place, fields in track(columns.rows, f"reading files of {path.name}", "files", len(columns.rows), progress):
        file, structure = read_structure(path, place, fields[at], read)
        structures.append(structure)
        digest.update(sha256_of(file).encode())
    source = f"{describe_source(path)}, {len(structures)} files in it sha256 {digest.hexdigest()}"
    return table_of_structures(path, structures, source)


def _numbers(path: Path, columns: Columns, label: str, name: str) -> np.ndarray:
    """(rows,) float64 of a column; NaN where a field is empty.

    Raises:
        DataError: no such column or two, or a field that is no finite number.
    """
    found = [at for at, column in enumerate(columns.names) if column == name]
    if len(found) != 1:
        if found:
            raise DataError(f"{path}: expected one column {shown(name)}, found {len(found)}; rename the others")
        raise DataError(absent(path, label, name, columns.names))
    values, wrong = np.full(len(columns.rows), np.nan), []
    for row, (place, fields) in enumerate(columns.rows):
        text = fields[found[0]]
        if text.lower() in MISSING:
            continue
        try:
            values[row] = float(text.replace("_", "?"))  # Python reads 1_000
        except ValueError:
            wrong.append((place, text))
        if np.isinf(values[row]):
            raise DataError(f"{path}: expected a finite number as {shown(name)} in {place}, found '{shown(text)}'")
    if wrong:
        raise DataError(_no_number(path, name, wrong, len(wrong) < len(columns.rows)))
    return values


def _check_units(path: Path, columns: Columns, keys: Mapping[str, str]) -> None:
    """Refuse labels whose rows have several units, as a column beside them says.

    Raises:
        DataError: they do.
    """
    names = {"unit", "units"} | {f"{name}{sign}{word}".lower() for name in (*keys, *keys.values()) for sign in " _"
                                 for word in ("unit", "units")}  # fmt: skip
    for at, column in enumerate(columns.names):
        if not keys or column.strip().lower() not in names or column in keys.values():
            continue
        units: dict[str, str] = {}
        for place, fields in columns.rows:
            if fields[at].strip().lower() not in MISSING:
                units.setdefault(shown(fields[at].strip()), place)
        if len(units) > 1:
            listed = ", ".join(f"{unit} in {where}" for unit, where in list(units.items())[:3])
            raise DataError(
                f"{path}: expected one unit in the column {shown(column)}, found several ({listed}): convert all "
                "numbers to one, and say which in target.unit"
            )


def _no_number(path: Path, name: str, wrong: list[tuple[str, str]], others: bool) -> str:
    """The message for fields that are no numbers; ``others`` says whether there are numbers too."""
    place, text = wrong[0]
    words = f"{path}: expected a number as {shown(name)} in {place}, found '{shown(text)}'"
    units: dict[str, str] = {}
    for where, field in wrong:
        if found := WITH_UNIT.fullmatch(field):
            units.setdefault(shown(found[2]), where)
    if len(units) > 1:
        listed = ", ".join(f"{unit} in {where}" for unit, where in list(units.items())[:3])
        return f"{words}; there are several units ({listed}): convert all to one, and say which in target.unit"
    if units:
        mixed = ", and numbers without a unit in other lines: see that all have the same" if others else ""
        return f"{words}; write numbers alone and say the unit in target.unit{mixed}"
    if DECIMAL_COMMA.fullmatch(text):
        return f"{words}; write a decimal point"
    return f"{words}; correct it, or leave the field empty"
