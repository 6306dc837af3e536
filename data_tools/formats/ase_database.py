"""Databases of ASE (sqlite): the rows of ISO17, of schnetpack and of other programs that use ``ase.db``.

A row has labels in three places, of which the first that holds one counts:

| label              | 1                            | 2                          | 3                                  |
|--------------------|------------------------------|----------------------------|------------------------------------|
| ``energy``, eV     | key ``total_energy`` (ISO17) | the calculator's           | ``energy`` in the data or a key    |
| ``forces``, eV/A   | data ``atomic_forces``       | the calculator's           | ``forces`` in the data             |
| a property of QM9  |                              |                            | its name in the data or a key      |

or under the name that ``data.keys`` gives, in the data or a key.  schnetpack 2 keeps arrays of shape (1,) and (N, 3) in
the data, and the units in the metadata (``_property_unit_dict``, ``_distance_unit``); without those the units are the
project's.  Only numbers and JSON are decoded here, row by row and without a change to the file; ASE itself makes tables
in any sqlite file that has none.
"""

from __future__ import annotations

import json
import math
import operator
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.formats.label_keys import FORCES, NO_KEYS, absent
from data_tools.graph import DataError, StructureTable
from data_tools.labels.targets import TARGETS
from data_tools.progress_bar import track
from data_tools.source_files import describe_source, one_line, require_file, shown
from data_tools.tables import check_table
from data_tools.units import LENGTH_UNITS, factor_to

SQLITE_MAGIC = b"SQLite format 3\x00"
COLUMNS = ("id", "numbers", "positions", "pbc", "energy", "forces", "key_value_pairs", "data")
UNFINISHED = ("-journal", "-wal")  # what lies beside a database that is being written
LABELS = (*TARGETS, FORCES)  # of molecules
ENERGY, TOTAL_ENERGY, ATOMIC_FORCES = "energy", "total_energy", "atomic_forces"
PROPERTY_UNITS, DISTANCE_UNIT = "_property_unit_dict", "_distance_unit"
ARRAY = "__ndarray__"
KINDS = ("float64", "float32", "int64", "int32")


class Row(NamedTuple):
    """A molecule of N atoms: (N,) int32, (N, 3), per label a number or (N, 3); in the units of the file."""

    id: int
    numbers: np.ndarray
    positions: np.ndarray
    labels: dict[str, Any]


class Units(NamedTuple):
    """Factors from the units of a file to the project's: of positions, and per label."""

    length: float
    labels: dict[str, float]


def read_database(path: Path, progress: bool = False, keys: Mapping[str, str] = NO_KEYS) -> StructureTable:
    """Every row of a database of ASE, in the order of the row ids, which are the ids of the table.

    Labels are NaN where a row has none.

    Args:
        path: the database.
        progress: show progress on stderr.
        keys: label -> name among the key-value pairs or in the data.

    Raises:
        DataError: no database of ASE, damaged or being written, periodic, a row whose parts do not belong together, a
            unit that is not known, or a name of ``keys`` that no row has.
    """
    require_file(path, "a database of ASE")
    rows: list[Row] = []
    names: dict[str, None] = {}
    with _connect(path) as connection:
        units = _units(path, connection, keys)
        selected = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM systems")
        total, last = connection.execute("SELECT count(*), max(id) FROM systems").fetchone()
        for values in track(selected, f"reading {path.name}", "molecules", last, progress):
            row = _read_row(path, values, keys, names)
            if rows and row.id <= rows[-1].id:  # pages of a damaged file may lead in circles
                raise DataError(f"{path}: expected ids that ascend, found {row.id} after {rows[-1].id}; fetch it again")
            rows.append(row)
    if not rows:
        raise DataError(f"{path}: expected at least one structure, found none; check that this is the right file")
    if len(rows) != total:
        raise DataError(f"{path}: expected {total} rows, as the database counts, read {len(rows)}; fetch it again")
    labels = _labels(rows, units)
    for label, name in keys.items():
        if label not in labels:
            raise DataError(absent(path, label, name, names))
    table = StructureTable(
        numbers=np.concatenate([row.numbers for row in rows]),
        positions=np.concatenate([row.positions for row in rows]) * units.length,
        n_atoms=np.array([len(row.numbers) for row in rows], np.int64),
        ids=np.array([row.id for row in rows], np.int64),
        of_structures={name: values for name, values in labels.items() if name != FORCES},
        of_atoms={name: values for name, values in labels.items() if name == FORCES},
        names=tuple(f"row {row.id}" for row in rows),
        source=describe_source(path),
        unread=tuple(name for name in names if name not in {*labels, *keys.values(), TOTAL_ENERGY, ATOMIC_FORCES}),
    )
    return check_table(path, table)


def _labels(rows: list[Row], units: Units) -> dict[str, np.ndarray]:
    """The labels that some row has, in the project's units."""
    labels = {}
    for name in dict.fromkeys(name for row in rows for name in row.labels):
        if name == FORCES:
            values = np.concatenate([row.labels.get(name, np.full(row.positions.shape, np.nan)) for row in rows])
        else:
            values = np.array([row.labels.get(name, np.nan) for row in rows], np.float64)
        if not np.isnan(values).all():
            labels[name] = values * units.labels.get(name, 1.0)
    return labels


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, opened so that neither it nor what lies beside it can change, and its schema runs nothing."""
    with path.open("rb") as file:
        magic = file.read(len(SQLITE_MAGIC))
    if magic != SQLITE_MAGIC:
        raise DataError(f"{path}: expected a database of ASE (sqlite), found something else; fetch it again")
    for ending in UNFINISHED:
        beside = path.with_name(path.name + ending)
        if beside.exists() and beside.stat().st_size:
            raise DataError(f"{path}: expected a finished database, found {beside.name} beside it; close its writer")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            size = connection.execute("PRAGMA page_count").fetchone()[0]
            size *= connection.execute("PRAGMA page_size").fetchone()[0]
            if path.stat().st_size > size:
                raise DataError(
                    f"{path}: expected one database of {size:,} bytes, found {path.stat().st_size:,}, as where two "
                    "were joined; give each alone"
                )
            kind = connection.execute("SELECT type, rootpage FROM sqlite_master WHERE name='systems'").fetchone()
            plain = {name for _, name, *_, hidden in connection.execute("PRAGMA table_xinfo(systems)") if not hidden}
            missing = [name for name in COLUMNS if name not in plain]
            if kind is None or kind[0] != "table" or not kind[1] or missing:
                raise DataError(
                    f"{path}: expected a database of ASE, found one without its table systems or the columns "
                    f"{', '.join(missing)[:200]}; check that this is the right file"
                )
            yield connection
    except (sqlite3.Error, OverflowError, UnicodeError) as error:  # the last for a message with bytes of the file
        raise DataError(
            f"{path}: expected a whole database of ASE, it is cut short or damaged ({one_line(error)[:200]}); fetch it "
            "again"
        ) from None


def _units(path: Path, connection: sqlite3.Connection, keys: Mapping[str, str]) -> Units:
    """The units that schnetpack keeps in the metadata.

    Raises:
        DataError: an unknown unit.
    """
    try:
        found = connection.execute("SELECT value FROM information WHERE name='metadata'").fetchone()
        metadata = json.loads(found[0]) if found and found[0] else {}
        properties, distance = dict(metadata.get(PROPERTY_UNITS) or {}), metadata.get(DISTANCE_UNIT)
    except sqlite3.OperationalError:  # no such table: older than metadata
        return Units(1.0, {})
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(
            f"{path}: expected metadata in JSON, found others ({one_line(error)[:200]}); write the database again"
        ) from None
    length = 1.0
    if distance is not None:
        if str(distance).lower() not in LENGTH_UNITS:
            raise DataError(
                f"{path}: expected {DISTANCE_UNIT} to be one of {', '.join(LENGTH_UNITS)}, found '{shown(distance)}'; "
                "convert the database"
            )
        length = LENGTH_UNITS[str(distance).lower()]
    factors = {}
    for label in LABELS:  # a user's own property stays in the unit of its file
        name = keys.get(label, label)
        if label not in keys and name not in properties:
            name = {ENERGY: TOTAL_ENERGY, FORCES: ATOMIC_FORCES}.get(label, name)
        if name in properties:
            try:
                factors[label] = factor_to("eV/A" if label == FORCES else TARGETS[label].unit, str(properties[name]))
            except KeyError as error:
                raise DataError(
                    f"{path}: expected the unit of {shown(name)} in {PROPERTY_UNITS} to be {error.args[0]}, found "
                    f"'{shown(properties[name])}'; convert the database"
                ) from None
    return Units(length, factors)


def _read_row(path: Path, values: tuple[Any, ...], keys: Mapping[str, str], names: dict[str, None]) -> Row:
    """One row of the table ``systems``, whose blobs are little-endian int32 and float64; ``names`` gets its names."""
    number, numbers, positions, pbc, energy, forces, pairs, data = values
    try:
        number = operator.index(number)
        z = np.frombuffer(numbers, "<i4").astype(np.int32)
        r = np.frombuffer(positions, "<f8").astype(np.float64).reshape(len(z), 3)
        entries = _entries(data) | dict(json.loads(pairs or "{}"))
        names |= dict.fromkeys(entries)
        calculated = {ENERGY: energy, FORCES: None if forces is None else np.frombuffer(forces, "<f8")}
        names |= dict.fromkeys(name for name, value in calculated.items() if value is not None)
        labels: dict[str, Any] = {}
        for label, value in _chosen(entries, calculated, keys).items():
            if label == FORCES:
                array = _array(value, data)
                if array.size != 3 * len(z) or (array.ndim > 1 and array.shape != (len(z), 3)):
                    raise ValueError(f"forces of shape {list(array.shape)}")
                labels[label] = array.astype(np.float64).reshape(len(z), 3)
            elif label == ENERGY or label in keys or _is_number(value):
                labels[label] = float(_array(value, data).astype(np.float64).reshape(()))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: expected numbers, positions, energy and forces in row {str(number)[:40]}, found others "
            f"({one_line(error)[:200]}); remove that row or fetch the file again"
        ) from None
    if pbc:
        raise DataError(f"{path}: expected molecules, found row {number} periodic; write the rows as extended xyz")
    if any(np.isinf(value).any() for value in labels.values()):
        raise DataError(f"{path}: expected a finite energy and forces, found others in row {number}; remove that row")
    return Row(number, z, r, labels)


def _chosen(entries: dict[str, Any], calculated: dict[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """What a row has for each label, from the places in the table of this module."""
    found = {}
    for label in dict.fromkeys((*LABELS, *keys)):
        if label in keys:
            places = [entries.get(keys[label]), calculated.get(keys[label])]
        else:
            published = {ENERGY: TOTAL_ENERGY, FORCES: ATOMIC_FORCES}.get(label, label)
            places = [entries.get(published), calculated.get(label), entries.get(label)]
        value = next((value for value in places if value is not None), None)
        if value is not None:
            found[label] = value
    return found


def _is_number(value: Any) -> bool:
    """Whether an entry that ``keys`` does not name is one number: a name such as H may stand for anything."""
    if isinstance(value, dict):
        shape, kind, _ = value.get(ARRAY, (None, "", 0))
        return kind in KINDS and isinstance(shape, list) and all(size == 1 for size in shape)
    if isinstance(value, list):
        return len(value) == 1 and _is_number(value[0])
    return isinstance(value, int | float) and not isinstance(value, bool)


def _entries(data: str | bytes | None) -> dict[str, Any]:
    """The data of a row, arrays as ``_array`` takes them."""
    start = int.from_bytes(data[:8], "little") if isinstance(data, bytes) else 0
    return dict((json.loads(data[start:]) if data else None) or {})


def _array(value: Any, data: str | bytes | None) -> np.ndarray:
    """A number, a list or an array of numbers.

    ASE keeps an array as JSON ``{"__ndarray__": [shape, type, values]}``, long ago as lists in lists.  Since version 9
    of its databases the data are bytes: the offset of the JSON (int64), then arrays; offsets stand for their values.

    Raises:
        ValueError, TypeError, KeyError: anything else.
    """
    if not isinstance(value, dict):
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"'{shown(value)}' is no number")
        return array
    shape, kind, values = value[ARRAY]
    if kind not in KINDS:
        raise ValueError(f"an array of {shown(kind)}")
    if isinstance(data, bytes):
        values = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), math.prod(shape), values)
    return np.array(values, kind).reshape(shape)
