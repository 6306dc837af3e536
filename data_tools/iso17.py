"""ISO17: molecules with energies and forces in databases of ASE (sqlite), and the published split.

K. T. Schuett et al., SchNet, NeurIPS 2017, arXiv 1706.08566; http://quantum-machine.org/datasets/iso17.tar.gz: 5,000
frames of molecular dynamics for each of 129 isomers C7O2H10, PBE + Tkatchenko-Scheffler.  The archive is a folder:

| file                                  | rows    | what they are                                             |
|---------------------------------------|---------|-----------------------------------------------------------|
| reference.db                          | 404,000 | 80 % of the frames of 80 % of the isomers                 |
| train_ids.txt, validation_ids.txt     |         | 400,000 and 4,000 row ids of reference.db, which begin at 1 |
| test_within.db                        | 101,000 | the other 20 % of the frames of these isomers             |
| test_other.db                         | 130,000 | the other 20 % of the isomers                             |
| reference_eq.db, test_eq.db           |         | geometries at equilibrium; not read with the folder       |

A row has ``total_energy`` in eV among its key-value pairs and ``atomic_forces`` (N, 3) in eV/Angstrom in its data.  The
rows of other databases of ASE, with the energy and the forces of a calculator, are read too.  Only numbers and JSON are
decoded here, row by row and without a change to the file; ASE itself makes tables in any sqlite file that has none.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.graph import DataError, StructureTable
from data_tools.progress import track
from data_tools.source_files import describe_source, one_line, read_text, require_file
from data_tools.tables import check_table, join_tables, select_rows

REFERENCE, TEST_WITHIN = "reference.db", "test_within.db"
ID_FILES = {"train": "train_ids.txt", "valid": "validation_ids.txt"}
SQLITE_MAGIC = b"SQLite format 3\x00"
COLUMNS = ("id", "numbers", "positions", "pbc", "energy", "forces", "key_value_pairs", "data")
UNFINISHED = ("-journal", "-wal")  # what lies beside a database that is being written


class Row(NamedTuple):
    """A molecule of N atoms: (N,) int32, (N, 3) Angstrom, eV or NaN, (N, 3) eV/Angstrom or NaN."""

    id: int
    numbers: np.ndarray
    positions: np.ndarray
    energy: float
    forces: np.ndarray


def read_folder(folder: Path, progress: bool = False) -> StructureTable:
    """The published folder: reference.db labelled train and valid by its lists, and test_within.db labelled test.

    Rows that neither list names are left out, and counted in the table's source.  Ids are 0, 1, 2, ...; names say which
    row of which database a structure is.

    Raises:
        DataError: a file is missing or damaged, or a list names rows that are not there, or one twice.
    """
    lists = {part: _read_ids(folder / name) for part, name in ID_FILES.items()}
    reference = read_database(folder / REFERENCE, progress)
    within = read_database(folder / TEST_WITHIN, progress)
    split = np.full(len(reference), "", "U5")
    first = min(ids.min() for ids in lists.values())  # 0 only if the lists count positions
    for part, ids in lists.items():
        rows = ids if first == 0 else np.searchsorted(reference.ids, ids)
        there = (rows >= 0) & (rows < len(reference))
        if first != 0:
            there[there] = reference.ids[rows[there]] == ids[there]
        if not there.all():
            raise DataError(
                f"{folder / ID_FILES[part]}: expected row ids of {REFERENCE}, found {ids[~there][0]}, which it has "
                "not; fetch both again"
            )
        taken = split[rows] != ""
        if taken.any() or len(np.unique(rows)) < len(rows):
            raise DataError(
                f"{folder / ID_FILES[part]}: expected ids that no other line of {' or '.join(ID_FILES.values())} has, "
                "found some twice; fetch both again"
            )
        split[rows] = part
    named = split != ""
    left_out = f"; {int((~named).sum()):,} rows in neither list" if not named.all() else ""
    reference = dataclasses.replace(reference, split=split, source=reference.source + left_out)
    within = dataclasses.replace(within, split=np.full(len(within), "test"))
    tables = (select_rows(reference, named) if left_out else reference, within)
    joined = join_tables(tables, (REFERENCE, TEST_WITHIN))
    return dataclasses.replace(joined, ids=np.arange(len(joined)))


def read_database(path: Path, progress: bool = False) -> StructureTable:
    """Every row of a database of ASE, in the order of the row ids, which are the ids of the table.

    Labels are ``energy`` in eV and ``forces`` in eV/Angstrom, NaN where a row has none.

    Raises:
        DataError: no database of ASE, damaged or being written, periodic, or a row whose parts do not belong together.
    """
    require_file(path, "a database of ASE")
    rows: list[Row] = []
    with _connect(path) as connection:
        selected = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM systems")
        total = connection.execute("SELECT max(id) FROM systems").fetchone()[0]
        for values in track(selected, f"reading {path.name}", "molecules", total, progress):
            row = _read_row(path, values)
            if rows and row.id <= rows[-1].id:  # pages of a damaged file may lead in circles
                raise DataError(f"{path}: expected ids that ascend, found {row.id} after {rows[-1].id}; fetch it again")
            rows.append(row)
    if not rows:
        raise DataError(f"{path}: expected at least one structure, found none; check that this is the right file")
    labels = {
        "energy": np.array([row.energy for row in rows], np.float64),
        "forces": np.concatenate([row.forces for row in rows]),
    }
    table = StructureTable(
        numbers=np.concatenate([row.numbers for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        n_atoms=np.array([len(row.numbers) for row in rows], np.int64),
        labels={name: values for name, values in labels.items() if not np.isnan(values).all()},
        ids=np.array([row.id for row in rows], np.int64),
        names=tuple(f"row {row.id}" for row in rows),
        source=describe_source(path),
    )
    return check_table(path, table)


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


def _read_row(path: Path, values: tuple[Any, ...]) -> Row:
    """One row of the table ``systems``: blobs are little-endian int32 and float64."""
    number, numbers, positions, pbc, energy, forces, pairs, data = values
    try:
        number = operator.index(number)
        z = np.frombuffer(numbers, "<i4").astype(np.int32)
        r = np.frombuffer(positions, "<f8").astype(np.float64).reshape(len(z), 3)
        pairs = json.loads(pairs or "{}")
        energy = pairs.get("total_energy", energy)
        energy = np.nan if energy is None else float(energy)
        f = _read_forces(data, forces, len(z))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: expected numbers, positions, energy and forces in row {str(number)[:40]}, found others "
            f"({one_line(error)[:200]}); remove that row or fetch the file again"
        ) from None
    if pbc:
        raise DataError(f"{path}: expected molecules, found row {number} periodic; write the rows as extended xyz")
    if np.isinf(energy) or np.isinf(f).any():
        raise DataError(f"{path}: expected a finite energy and forces, found others in row {number}; remove that row")
    return Row(number, z, r, energy, f)


def _read_forces(data: str | bytes | None, column: bytes | None, atoms: int) -> np.ndarray:
    """Forces (N, 3): ``atomic_forces`` of the data, else those of a calculator, else NaN.

    ASE keeps an array as JSON ``{"__ndarray__": [shape, type, values]}``, long ago as lists in lists.  Since version 9
    of its databases the data are bytes: the offset of the JSON (int64), then arrays; offsets stand for their values.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: anything else.
    """
    start = int.from_bytes(data[:8], "little") if isinstance(data, bytes) else 0
    entry = ((json.loads(data[start:]) if data else None) or {}).get("atomic_forces")
    shape = [atoms, 3]
    if isinstance(entry, dict):
        shape, kind, entry = entry["__ndarray__"]
        if isinstance(data, bytes):
            entry = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), 3 * atoms, entry)
    elif entry is None and column is not None:
        entry = np.frombuffer(column, "<f8")
    if entry is None:
        return np.full((atoms, 3), np.nan)
    if list(shape) != [atoms, 3]:
        raise ValueError(f"forces of shape {shape}")
    return np.array(entry, np.float64).reshape(atoms, 3)


def _read_ids(path: Path) -> np.ndarray:
    """The whole numbers of a text file, (K,) int64."""
    words = read_text(path, "a list of row ids").split()
    if not words:
        raise DataError(f"{path}: expected whole numbers, found none; fetch it again")
    try:
        return np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected whole numbers, {one_line(error)[:200]}; fetch it again") from None
