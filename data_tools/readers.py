"""Files to structures and labels in eV and Angstrom: the entry that finds out what a file is and calls its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_tools.graph import DataError, StructureTable
from data_tools.iso17 import REFERENCE, SQLITE_MAGIC, read_database, read_folder
from data_tools.md17 import layout_of, read_frames
from data_tools.molecule_formats import read_extended_xyz, read_plain_xyz
from data_tools.npz_format import read_npz
from data_tools.qm9_formats import (
    RAW_NAME,
    SDF_NAME,
    read_archive,
    read_raw_file,
    read_raw_folder,
    read_sdf_and_csv,
    read_xyz,
)
from data_tools.sdf import read_sdf
from data_tools.smiles import GEOMETRY_WARNING, read_smiles
from data_tools.smiles_records import columns_of, find_header, first_line
from data_tools.source_files import BZIP2_MAGIC, GZIP_MAGIC, array_names, one_line, read_text, require_file

__all__ = ["GEOMETRY_WARNING", "SUPPORTED", "holds_smiles", "kind_of", "read_smiles", "read_table", "read_xyz"]

SUPPORTED = (
    "dsgdb9nsd.xyz.tar.bz2 or a folder of dsgdb9nsd_*.xyz, gdb9.tar.gz or gdb9.sdf with gdb9.sdf.csv, packed, MD17 or "
    "rMD17 .npz, the folder of ISO17 or an ASE .db, .xyz (plain or extended), .sdf, .smi, .csv or .tsv with a "
    "column smiles"
)
KINDS = {
    ".npz": "npz",
    ".tar": "archive",
    ".bz2": "archive",
    ".gz": "archive",
    ".tgz": "archive",
    ".tbz2": "archive",
    ".csv": "csv",
    ".tsv": "csv",
    ".sdf": "sdf",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".smi": "smiles",
    ".smiles": "smiles",
    ".db": "database",
}
MAGICS = {BZIP2_MAGIC: "archive", GZIP_MAGIC: "archive", b"PK\x03\x04": "npz", SQLITE_MAGIC: "database"}


def read_table(path: str | Path, progress: bool = False) -> StructureTable:
    """Read any supported file or folder; what it is follows from its ending, its first bytes and its contents.

    Args:
        path: see ``SUPPORTED``.
        progress: report on stderr how far a long read is.

    Returns:
        Structures in Angstrom with whatever labels the file has, in the units of ``data_tools.units``.

    Raises:
        DataError: one line on what is wrong with the file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path, progress)
        require_file(path, "a data file")
        return _read_file(path, progress)
    except MemoryError:
        raise DataError(f"{path}: expected a file whose content fits into memory, found more; divide it") from None
    except OSError as error:  # a disk that fails or a file that goes away while it is read
        raise DataError(f"{path}: cannot read it ({one_line(error)}); check the path and its permissions") from None


def _read_folder(folder: Path, progress: bool) -> StructureTable:
    if any(RAW_NAME.fullmatch(entry.name) for entry in folder.iterdir()):
        return read_raw_folder(folder, progress)
    if (folder / SDF_NAME).exists():
        return _read_sdf(folder / SDF_NAME, progress)
    if (folder / REFERENCE).exists():
        return read_folder(folder, progress)
    raise DataError(
        f"{folder}: expected the files of QM9 (dsgdb9nsd_*.xyz, or {SDF_NAME}) or of ISO17 ({REFERENCE}), found neither"
    )


def _read_file(path: Path, progress: bool) -> StructureTable:
    readers: dict[str | None, Callable[[], StructureTable]] = {
        "npz": lambda: _read_npz(path),
        "database": lambda: read_database(path, progress),
        "archive": lambda: read_archive(path, progress),
        "csv": lambda: _read_csv(path, progress),
        "sdf": lambda: _read_sdf(path, progress),
        "smiles": lambda: read_smiles(path, progress)[0],
        "xyz": lambda: _read_xyz(path),
    }
    kind = kind_of(path)
    if kind not in readers:
        raise DataError(f"{path}: expected one of {SUPPORTED}; found another ending and other contents")
    return readers[kind]()


def kind_of(path: Path) -> str | None:
    """What a file is, a value of ``KINDS``, by its ending or its first bytes; None where neither is known.

    A download often has no ending (figshare calls the QM9 archive 3195389).
    """
    if kind := KINDS.get(path.suffix.lower()):
        return kind
    with path.open("rb") as file:
        start = file.read(max(map(len, MAGICS)))
    return next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)


def _read_npz(path: Path) -> StructureTable:
    """The three layouts differ in the names of their arrays; none is opened to find out."""
    layout = layout_of(array_names(path))
    return read_npz(path) if layout is None else read_frames(path, layout)


def _read_sdf(path: Path, progress: bool) -> StructureTable:
    """An SDF file has labels when its property table lies beside it, and so does gdb9.sdf."""
    labels = path.with_name(path.name + ".csv")
    return read_sdf_and_csv(path, labels, progress) if labels.exists() else read_sdf(path, progress)


def _read_csv(path: Path, progress: bool) -> StructureTable:
    """The labels of an SDF file, or molecules in a column of SMILES."""
    molecules = path.with_suffix("")
    if molecules.suffix.lower() == ".sdf" and molecules.exists():
        return read_sdf_and_csv(molecules, path, progress)
    line = first_line(path)
    if find_header(path, line) is None:
        raise DataError(
            f"{path}: a table without SMILES holds no geometries; expected {columns_of(line)}; or {SDF_NAME} beside "
            f"gdb9.sdf.csv, or {SUPPORTED}"
        )
    return read_smiles(path, progress)[0]


def holds_smiles(path: str | Path) -> bool:
    """Whether ``read_table`` would make geometries from SMILES, which takes long and gives no labels.

    Raises:
        DataError: a table with several columns of SMILES.
    """
    path = Path(path)
    kind = KINDS.get(path.suffix.lower())
    if kind != "csv" or not path.is_file():
        return kind == "smiles"
    molecules = path.with_suffix("")
    has_labels = molecules.suffix.lower() == ".sdf" and molecules.exists()
    return not has_labels and find_header(path, first_line(path)) is not None


def _read_xyz(path: Path) -> StructureTable:
    """The three kinds of xyz differ in their comment lines."""
    text = read_text(path, "an xyz file")
    second = text.split("\n", 2)[1:2]
    if second and second[0].startswith("gdb"):
        return read_raw_file(path)
    extended = "Properties=" in text or "Lattice=" in text
    return read_extended_xyz(path) if extended else read_plain_xyz(path)
