"""Files to structures and labels in eV and Angstrom: recognises the format of a file and calls its reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_tools.formats.archives import read_archive, read_compressed
from data_tools.formats.ase_database import SQLITE_MAGIC, read_database
from data_tools.formats.crystal_file import is_crystal_file, read_crystal_file
from data_tools.formats.extended_xyz import is_extended, read_extended_xyz
from data_tools.formats.iso17 import REFERENCE, read_folder
from data_tools.formats.label_keys import NO_KEYS, check_keys, rename
from data_tools.formats.md17 import layout_of, read_frames
from data_tools.formats.npz_format import read_npz
from data_tools.formats.property_table import read_property_table
from data_tools.formats.qm9_formats import (
    RAW_NAME,
    SDF_NAME,
    read_raw_file,
    read_raw_folder,
    read_sdf_and_csv,
    read_xyz,
)
from data_tools.formats.sdf import read_sdf
from data_tools.formats.smiles import GEOMETRY_WARNING, read_smiles
from data_tools.formats.smiles_records import columns_of, find_header, first_line, names_files
from data_tools.formats.xyz_format import QM9_COMMENT, read_frames_of_text, read_plain_xyz
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import BZIP2_MAGIC, GZIP_MAGIC, array_names, one_line, read_text, require_file, shown

__all__ = ["GEOMETRY_WARNING", "SUPPORTED", "holds_smiles", "kind_of", "read_smiles", "read_table", "read_xyz"]

SUPPORTED = (
    "dsgdb9nsd.xyz.tar.bz2 or a folder of dsgdb9nsd_*.xyz, gdb9.tar.gz or gdb9.sdf with gdb9.sdf.csv, packed, MD17 or "
    "rMD17 .npz, crystals of scripts/prepare_crystals.py (.npz), the folder of ISO17 or an ASE .db, .xyz (plain or "
    "extended), .sdf, .smi, .csv or .tsv with a column smiles; these also as .gz, .bz2 or alone in an archive"
)
KINDS = {
    ".npz": "npz",
    ".tar": "archive",
    ".bz2": "archive",
    ".zip": "archive",
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
#: archives of QM9 by their published names, the one with more decimals first, and where others keep what they unpack
PUBLISHED, UNPACKED = ("dsgdb9nsd.xyz.tar.bz2", "3195389", "gdb9.tar.gz", "qm9.zip"), ("raw", "qm9/raw")
COMPRESSED, COMPRESSIONS = "compressed", (".gz", ".bz2")
HAVE_DATA = ("npz", "sdf", "xyz", "smiles", "database")  # kinds of which one alone in an archive is read
MAGICS = {BZIP2_MAGIC: "archive", GZIP_MAGIC: "archive", b"PK\x03\x04": "npz", SQLITE_MAGIC: "database"}


def read_table(
    path: str | Path, progress: bool = False, keys: Mapping[str, str] = NO_KEYS, labels: Sequence[str] = ()
) -> StructureTable:
    """Read any supported file or folder; what it is follows from its ending, its first bytes and its contents.

    Args:
        path: see ``SUPPORTED``.
        progress: report on stderr how far a long read is.
        keys: label -> the name that the file has for it.
        labels: what is learned, which may be properties of the file under their own names.  Tables (.csv, .tsv) have
            only the labels that these and ``keys`` say, and structures that have one of them.

    Returns:
        Structures in Angstrom with whatever labels the file has, in the units of ``data_tools.units``.

    Raises:
        DataError: one line on what is wrong with the file.
    """
    path = Path(path)
    keys = check_keys(keys, labels)
    if KINDS.get(path.suffix.lower()) == "csv":
        keys = {**{label: label for label in labels}, **keys}
    try:
        if path.is_dir():
            return _read_folder(path, progress, keys)
        require_file(path, "a data file")
        return _read_file(path, progress, keys)
    except MemoryError:
        raise DataError(f"{path}: expected a file whose content fits into memory, found more; divide it") from None
    except OSError as error:  # a disk that fails or a file that goes away while it is read
        raise DataError(f"{path}: cannot read it ({one_line(error)}); check the path and its permissions") from None


def _read_folder(folder: Path, progress: bool, keys: Mapping[str, str]) -> StructureTable:
    if any(RAW_NAME.fullmatch(entry.name) for entry in folder.iterdir()):
        left = [entry.name for entry in sorted(folder.iterdir()) if is_data_name(entry.name)]
        left = [shown(name) for name in left if not RAW_NAME.fullmatch(name)]
        table = rename(folder, read_raw_folder(folder, progress), keys)
        note = f"; not read: {', '.join(left[:10])}{' and more' * (len(left) > 10)}" if left else ""
        return dataclasses.replace(table, source=table.source + note)
    if (folder / SDF_NAME).exists():
        return rename(folder, _read_sdf(folder / SDF_NAME, progress), keys)
    if (folder / REFERENCE).exists():
        return read_folder(folder, progress, keys)
    archive = next((folder / name for name in PUBLISHED if (folder / name).is_file()), None)
    if archive is not None:
        return _read_file(archive, progress, keys)
    place = next((folder / name for name in UNPACKED if (folder / name).is_dir()), None)
    if place is not None:
        return _read_folder(place, progress, keys)
    raise DataError(
        f"{folder}: expected the files of QM9 (dsgdb9nsd.xyz.tar.bz2, dsgdb9nsd_*.xyz, gdb9.tar.gz, qm9.zip, or "
        f"{SDF_NAME}) or of ISO17 ({REFERENCE}), found neither"
    )


def _read_file(path: Path, progress: bool, keys: Mapping[str, str]) -> StructureTable:
    def again(inside: Path) -> StructureTable:
        return _read_file(inside, progress, keys)

    def plain(inside: Path) -> StructureTable:
        return _read_file(inside, False, NO_KEYS)

    readers: dict[str | None, Callable[[], StructureTable]] = {
        "npz": lambda: _read_npz(path, keys),
        "database": lambda: read_database(path, progress, keys),
        "archive": lambda: read_archive(path, is_data_name, again, keys, progress),
        COMPRESSED: lambda: read_compressed(path, again),
        "csv": lambda: rename(path, _read_csv(path, progress, keys, plain), keys),
        "sdf": lambda: rename(path, _read_sdf(path, progress), keys),
        "smiles": lambda: rename(path, read_smiles(path, progress)[0], keys),
        "xyz": lambda: _read_xyz(path, keys),
    }
    kind = kind_of(path)
    if kind == "npz" and any(map(is_data_name, array_names(path))):  # a zip archive without an ending
        kind = "archive"
    if kind not in readers:
        raise DataError(f"{path}: expected one of {SUPPORTED}; found another ending and other contents")
    return readers[kind]()


def is_data_name(name: str) -> bool:
    """Whether a file of this name holds structures by itself, perhaps compressed."""
    return kind_of_name(name) in HAVE_DATA or kind_of_name(name) == COMPRESSED


def kind_of_name(name: str) -> str | None:
    """The format of a file by its ending: a value of ``KINDS`` or ``COMPRESSED``; None for an unknown ending."""
    path = Path(name)
    if path.suffix.lower() in COMPRESSIONS and KINDS.get(Path(path.stem).suffix.lower()) in HAVE_DATA:
        return COMPRESSED
    return KINDS.get(path.suffix.lower())


def kind_of(path: Path) -> str | None:
    """The format of a file, as ``kind_of_name`` or by its first bytes; None where neither decides.

    A download often has no ending (figshare calls the QM9 archive 3195389).
    """
    if kind := kind_of_name(path.name):
        return kind
    with path.open("rb") as file:
        start = file.read(max(map(len, MAGICS)))
    return next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)


def _read_npz(path: Path, keys: Mapping[str, str]) -> StructureTable:
    """The four layouts differ in the names of their arrays; none is opened to find out."""
    names = array_names(path)
    if is_crystal_file(names):
        return rename(path, read_crystal_file(path).table, keys)
    layout = layout_of(names)
    return read_npz(path, keys) if layout is None else read_frames(path, layout, keys)


def _read_sdf(path: Path, progress: bool) -> StructureTable:
    """An SDF file has labels when its property table lies beside it, and so does gdb9.sdf."""
    labels = path.with_name(path.name + ".csv")
    return read_sdf_and_csv(path, labels, progress) if labels.exists() else read_sdf(path, progress)


def _read_csv(
    path: Path, progress: bool, keys: Mapping[str, str], read: Callable[[Path], StructureTable]
) -> StructureTable:
    """The labels of an SDF file, or molecules in a column of SMILES or of files, with the labels that are asked for."""
    molecules = path.with_suffix("")
    if molecules.suffix.lower() == ".sdf" and molecules.exists():
        return read_sdf_and_csv(molecules, path, progress)
    line = first_line(path)
    smiles = find_header(path, line) is not None
    if smiles and not keys:
        return read_smiles(path, progress)[0]
    if not smiles and not names_files(line):
        raise DataError(
            f"{path}: a table without SMILES holds no geometries; expected {columns_of(line)}; or a column file with "
            f"names of structure files; or {SDF_NAME} beside gdb9.sdf.csv, or {SUPPORTED}"
        )
    return read_property_table(path, keys, read, progress)


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


def _read_xyz(path: Path, keys: Mapping[str, str]) -> StructureTable:
    """The three kinds of xyz differ in their comment lines."""
    lines = read_text(path, "an xyz file").lstrip().split("\n", 2)
    if len(lines) > 1 and QM9_COMMENT.match(lines[1]):
        return rename(path, read_raw_file(path), keys)
    del lines
    frames = read_frames_of_text(path)
    if any(is_extended(frame.comment) for frame in frames):
        return read_extended_xyz(path, frames, keys)
    return rename(path, read_plain_xyz(path, frames), keys)
