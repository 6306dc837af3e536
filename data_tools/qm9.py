"""QM9: where it is published, which molecules count, and the sample that ships with the project.

R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Scientific Data 1, 140022 (2014), released CC0: 133,885
molecules with B3LYP/6-31G(2df,p) geometries.  For 3,054 of them the relaxed geometry is another molecule than the one
it began as; the authors list those in uncharacterized.txt by their 1-based gdb index, and everybody leaves them out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.download import RemoteFile, fetch
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import read_text
from data_tools.tables import QM9, select_rows

SAMPLES = Path(__file__).parent / "samples"
SAMPLE_FILE = SAMPLES / "qm9_22807.npz"
UNCHARACTERIZED_FILE = SAMPLES / "uncharacterized.txt"

MOLECULES, EXCLUDED, KEPT = 133_885, 3_054, 130_831
ELEMENTS_OF_QM9, MOST_HEAVY_ATOMS = (1, 6, 7, 8, 9), 9

# Sizes and digests are those of the figshare records; DeepChem publishes none for its archive.
XYZ_ARCHIVE = RemoteFile(
    "dsgdb9nsd.xyz.tar.bz2",
    (
        "https://ndownloader.figshare.com/files/3195389",
        "https://springernature.figshare.com/ndownloader/files/3195389",
        "https://figshare.com/ndownloader/files/3195389",
    ),
    size=86_144_227,
    sha256="3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
)
SDF_ARCHIVE = RemoteFile(
    "gdb9.tar.gz",
    (
        "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/gdb9.tar.gz",
        "http://deepchem.io.s3-website-us-west-1.amazonaws.com/datasets/gdb9.tar.gz",
    ),
)
UNCHARACTERIZED_ADDRESS = "https://ndownloader.figshare.com/files/3195404"


class Counts(NamedTuple):
    """How many molecules were read, excluded as uncharacterized, and kept."""

    read: int
    excluded: int
    kept: int


def download(folder: Path, progress: bool = False) -> Path:
    """Fetch the whole data set: the figshare archive or, where figshare does not answer, DeepChem's.

    Args:
        folder: where the archive is kept.
        progress: report on stderr.

    Returns:
        The path of the archive, for ``readers.read_table``.

    Raises:
        DataError: neither could be fetched; says which file to fetch by hand and where to put it.
    """
    try:
        return fetch(XYZ_ARCHIVE, folder, progress)
    except DataError as first:
        print(
            f"no mirror of {XYZ_ARCHIVE.name} answers; trying {SDF_ARCHIVE.name}, rounded to 4 decimals",
            file=sys.stderr,
        )
        try:
            return fetch(SDF_ARCHIVE, folder, progress)
        except DataError:
            raise first from None  # the better file is the one to fetch by hand


def read_uncharacterized(path: Path = UNCHARACTERIZED_FILE) -> np.ndarray:
    """The 1-based gdb indices of the molecules to leave out: (3054,) int64, ascending.

    Raises:
        DataError: the file is missing or does not hold exactly these 3,054 indices.
    """
    rows = [line.split() for line in read_text(path, "the list uncharacterized.txt").splitlines()]
    indices = np.unique([int(row[0]) for row in rows if len(row) > 1 and row[0].isdecimal()]).astype(np.int64)
    if len(indices) != EXCLUDED or indices[0] < 1 or indices[-1] > MOLECULES:
        raise DataError(
            f"{path}: expected {EXCLUDED:,} indices from 1 to {MOLECULES:,}, found {len(indices):,}; fetch it again "
            f"from {UNCHARACTERIZED_ADDRESS}"
        )
    return indices


def origin_of(numbers: np.ndarray, n_atoms: np.ndarray) -> str:
    """The origin of molecules that a file numbers with ``gdb_index``: QM9, unless no molecule of QM9 is like them.

    Args:
        numbers: (A,) atomic numbers.
        n_atoms: (M,) atoms per molecule.
    """
    owner = np.repeat(np.arange(len(n_atoms)), n_atoms)
    heavy = np.bincount(owner[numbers > 1], minlength=len(n_atoms))
    return QM9 if np.isin(numbers, ELEMENTS_OF_QM9).all() and heavy.max(initial=0) <= MOST_HEAVY_ATOMS else ""


def exclude_uncharacterized(table: StructureTable, complete: bool = False) -> tuple[StructureTable, Counts]:
    """Leave out the molecules of uncharacterized.txt, by gdb index.

    Args:
        table: QM9 molecules, all of them or some; ``ids`` are gdb indices.
        complete: the source must be the whole data set; otherwise a part of it is fine too.

    Returns:
        The molecules that are kept, in the order of the table, and the counts.

    Raises:
        DataError: the ids are no gdb indices, or the counts of the whole data set are not 133,885, 3,054 and 130,831.
    """
    ids = table.ids
    if ids.min() < 1 or ids.max() > MOLECULES or len(np.unique(ids)) != len(ids):
        raise DataError(
            f"{table.source}: expected a different gdb index from 1 to {MOLECULES:,} for each molecule, "
            f"found {ids.min()} to {ids.max()} with {len(np.unique(ids)):,} different ones; this is not QM9: leave "
            "gdb_index out of the file"
        )
    keep = ~np.isin(ids, read_uncharacterized())
    counts = Counts(len(table), int((~keep).sum()), int(keep.sum()))
    if (complete or counts.read == MOLECULES) and counts != (MOLECULES, EXCLUDED, KEPT):
        raise DataError(
            f"{table.source}: expected {MOLECULES:,} molecules read, {EXCLUDED:,} excluded and {KEPT:,} kept, found "
            f"{counts.read:,}, {counts.excluded:,} and {counts.kept:,}; fetch the data set again"
        )
    if not counts.kept:
        raise DataError(f"{table.source}: expected molecules to keep, all {counts.read:,} are in uncharacterized.txt")
    return (select_rows(table, keep) if counts.excluded else table), counts
