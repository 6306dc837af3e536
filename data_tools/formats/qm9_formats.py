"""The published forms of QM9: dsgdb9nsd_*.xyz files (one, or a folder) and gdb9.sdf with gdb9.sdf.csv."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_tools.formats.qm9_records import parse_records
from data_tools.formats.sdf import iterate_sdf
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress_bar import track
from data_tools.source_files import (
    LARGEST_TEXT,
    describe_source,
    one_line,
    read_text,
    require_file,
)
from data_tools.tables import QM9, check_table, select_rows
from data_tools.units import QM9_PROPERTIES, from_qm9_units

RAW_NAME = re.compile(r"dsgdb9nsd_\d+\.xyz")
RAW_EXPECTED = "a QM9 file dsgdb9nsd_*.xyz"
RAW_LARGEST = 1 << 20  # bytes; the real files have about 3,000, so anything above is not one of them
SDF_NAME, CSV_NAME = "gdb9.sdf", "gdb9.sdf.csv"
CSV_COLUMNS = {"U0": "u0", "U": "u298", "H": "h298", "G": "g298", "Cv": "cv"}  # the others are named as here


def read_raw_file(path: Path) -> StructureTable:
    """A table of the molecules of a dsgdb9nsd_*.xyz file: one, or several where files were joined."""
    require_file(path, RAW_EXPECTED, LARGEST_TEXT)
    return table_of_records(path, [(path.name, path.read_bytes())], describe_source(path))


def read_xyz(path: str | Path) -> tuple[Structure, dict[str, float]]:
    """One original QM9 file.

    Args:
        path: a dsgdb9nsd_*.xyz file.

    Returns:
        The structure (Angstrom, name ``gdb 57``) and its 15 properties in the units of ``units.QM9_UNITS``.

    Raises:
        DataError: missing, empty, cut short or another kind of file, or several molecules.
    """
    table = read_raw_file(Path(path))
    if len(table) != 1:
        raise DataError(f"{path}: expected one molecule, found {len(table)}; read it with read_table")
    name = f"gdb {table.ids[0]}"
    properties = {label: float(values[0]) for label, values in table.of_structures.items()}
    return Structure(table.numbers, table.positions, None, name), properties


def read_raw_folder(folder: Path, progress: bool = False) -> StructureTable:
    """All dsgdb9nsd_*.xyz files of a folder, ordered by gdb index.

    Raises:
        DataError: a file that cannot be read or is not a whole QM9 file.
    """
    files = sorted(path for path in folder.iterdir() if RAW_NAME.fullmatch(path.name))
    digest = hashlib.sha256()

    def records() -> Iterator[tuple[str, bytes]]:
        for path in track(files, f"reading {folder.name}", "molecules", len(files), progress):
            data = require_file(path, RAW_EXPECTED, RAW_LARGEST).read_bytes()
            digest.update(data)
            yield path.name, data

    table = table_of_records(folder, records(), "")
    source = f"{folder.name}: {len(files)} files, sha256 of all in the order of their names {digest.hexdigest()}"
    return dataclasses.replace(table, source=source)


def table_of_records(path: Path, records: Iterable[tuple[str, bytes]], source: str) -> StructureTable:
    """Parse (file name, content) pairs into a table ordered by gdb index."""
    indices, n_atoms, numbers = array("q"), array("q"), array("i")
    coordinates, properties = array("d"), array("d")
    for name, data in records:
        try:
            molecules = parse_records(data)
        except (ValueError, IndexError, OverflowError) as error:
            where = path if name == path.name else f"{path}: {name}"
            raise DataError(f"{where}: expected {RAW_EXPECTED}, but {one_line(error)[:200]}; fetch it again") from None
        for molecule in molecules:
            indices.append(molecule.gdb_index)
            coordinates.extend(molecule.coordinates)
            properties.extend(molecule.properties)
            n_atoms.append(len(molecule.numbers))
            numbers.extend(molecule.numbers)
    counts = np.array(n_atoms, np.int64)
    columns = np.array(properties).reshape(len(counts), len(QM9_PROPERTIES)).T
    table = StructureTable(
        numbers=np.array(numbers, np.int32),
        positions=_rows_of_coordinates(np.array(coordinates), counts),
        n_atoms=counts,
        ids=np.array(indices, np.int64),
        of_structures=from_qm9_units(dict(zip(QM9_PROPERTIES, columns, strict=True))),
        source=source,
        origin=QM9,
    )
    return _ordered_by_index(path, check_table(path, table))


def _rows_of_coordinates(flat: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    """(3 A,) numbers, per molecule all x, all y, all z, to (A, 3)."""
    starts = np.repeat(np.cumsum(n_atoms) - n_atoms, n_atoms)
    sizes = np.repeat(n_atoms, n_atoms)
    within = np.arange(len(starts)) - starts
    return flat[(3 * starts + within)[:, None] + sizes[:, None] * np.arange(3)]


def _ordered_by_index(path: Path, table: StructureTable) -> StructureTable:
    order = np.argsort(table.ids, kind="stable")
    ids = table.ids[order]
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise DataError(f"{path}: expected each molecule once, found gdb {repeated[0]} twice; remove one of the files")
    return table if np.array_equal(ids, table.ids) else select_rows(table, order)


def read_sdf_and_csv(sdf: Path, table_of_labels: Path, progress: bool = False) -> StructureTable:
    """gdb9.sdf with gdb9.sdf.csv, as DeepChem and PyG use them; their coordinates are rounded to 0.0001 Angstrom.

    Args:
        sdf: the molecules, each titled ``gdb_N``.
        table_of_labels: one row per molecule in the same order: mol_id and the properties.
        progress: show progress on stderr.

    Raises:
        DataError: a file missing or damaged, or the two do not belong together.
    """
    ids, labels = _read_csv(table_of_labels)
    require_file(sdf, f"the molecules of {table_of_labels.name}", LARGEST_TEXT)
    source = describe_source(sdf, table_of_labels)
    numbers, positions, n_atoms = array("i"), [], []
    molecules = track(iterate_sdf(sdf), f"reading {sdf.name}", "molecules", len(ids), progress)
    for row, (title, elements, places) in enumerate(molecules):
        if row < len(ids) and title != f"gdb_{ids[row]}":
            raise DataError(
                f"{sdf}: expected gdb_{ids[row]} as molecule {row + 1}, as {table_of_labels.name} has it, found "
                f"{title!r}; the two files must come from the same archive"
            )
        numbers.extend(elements)
        positions.append(places)
        n_atoms.append(len(elements))
    if len(n_atoms) != len(ids):
        raise DataError(
            f"{sdf}: expected {len(ids)} molecules, as {table_of_labels.name} has, found {len(n_atoms)}; the file is "
            "cut short or the two do not belong together: fetch them again"
        )
    flat = np.concatenate(positions)
    table = StructureTable(
        np.array(numbers, np.int32), flat, np.array(n_atoms, np.int64), ids, labels, source=source, origin=QM9
    )
    return _ordered_by_index(sdf, check_table(sdf, table))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of gdb9.sdf.csv, its header included."""
    lines = csv.reader(read_text(path, "the property table of gdb9.sdf").splitlines())
    try:
        for row in lines:
            yield lines.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: expected a row in line {lines.line_num}, but {error}; fetch it again") from None


def _read_csv(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The gdb indices and the properties, in project units, of gdb9.sdf.csv."""
    rows = _rows(path)
    _, header = next(rows, (0, []))
    columns = {name: CSV_COLUMNS.get(name, name) for name in QM9_PROPERTIES}
    missing = [column for column in ("mol_id", *columns.values()) if column not in header]
    if missing:
        raise DataError(f"{path}: expected the columns of {CSV_NAME}, {', '.join(missing)} missing; fetch it again")
    name_at, places = header.index("mol_id"), [header.index(column) for column in columns.values()]
    ids, values = array("q"), array("d")
    for number, row in rows:
        if not row:  # a blank line
            continue
        try:
            ids.append(int(row[name_at].removeprefix("gdb_")))
            values.extend([float(row[place]) for place in places])
        except (ValueError, IndexError, OverflowError) as error:
            raise DataError(
                f"{path}: expected mol_id gdb_N and {len(places)} numbers in line {number}, but "
                f"{one_line(error)[:200]}; fetch it again"
            ) from None
    table = np.array(values).reshape(len(ids), len(places)).T
    return np.array(ids, np.int64), from_qm9_units(dict(zip(columns, table, strict=True)))
