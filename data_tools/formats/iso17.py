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

A row has ``total_energy`` in eV among its key-value pairs and ``atomic_forces`` (N, 3) in eV/Angstrom in its data; see
``ase_database``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_tools.formats.ase_database import read_database
from data_tools.formats.label_keys import NO_KEYS
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import one_line, read_text
from data_tools.tables import join_tables, select_rows

REFERENCE, TEST_WITHIN = "reference.db", "test_within.db"
ID_FILES = {"train": "train_ids.txt", "valid": "validation_ids.txt"}


def read_folder(folder: Path, progress: bool = False, keys: Mapping[str, str] = NO_KEYS) -> StructureTable:
    """The published folder: reference.db labelled train and valid by its lists, and test_within.db labelled test.

    Rows that neither list names are left out, and counted in the table's source.  Ids are 0, 1, 2, ...; names say which
    row of which database a structure is.

    Raises:
        DataError: a file is missing or damaged, or a list names rows that are not there, or one twice.
    """
    lists = {part: _read_ids(folder / name) for part, name in ID_FILES.items()}
    reference = read_database(folder / REFERENCE, progress, keys)
    within = read_database(folder / TEST_WITHIN, progress, keys)
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


def _read_ids(path: Path) -> np.ndarray:
    """The whole numbers of a text file, (K,) int64."""
    words = read_text(path, "a list of row ids").split()
    if not words:
        raise DataError(f"{path}: expected whole numbers, found none; fetch it again")
    try:
        return np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected whole numbers, {one_line(error)[:200]}; fetch it again") from None
