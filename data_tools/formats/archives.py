"""Data sets in archives (tar, zip) and compressed files: QM9's own is read as a stream, of other files exactly one.

Nothing is written but into a temporary folder, and no path inside an archive decides where.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from data_tools.formats.label_keys import rename
from data_tools.formats.qm9_formats import CSV_NAME, RAW_LARGEST, RAW_NAME, SDF_NAME, read_sdf_and_csv, table_of_records
from data_tools.graph import DataError, StructureTable
from data_tools.progress_bar import track
from data_tools.source_files import (
    BLOCK,
    BZIP2_MAGIC,
    TOO_LARGE,
    describe_source,
    most_inflated,
    one_line,
    open_tar,
    require_file,
    shown,
    storable,
)

ZIP_MAGIC = b"PK"
HIDDEN = ("._", "__MACOSX")  # what a Mac adds
SHOWN = 12  # names in a message
Read = Callable[[Path], StructureTable]


class Member(NamedTuple):
    """A file in an archive: its path there, its size in bytes, and its content as a stream."""

    name: str
    size: int
    content: IO[bytes]


def read_compressed(path: Path, read: Read) -> StructureTable:
    """A file of another format that gzip or bzip2 has compressed, such as ``molecules.xyz.gz``.

    Args:
        path: its name without the last ending says what it is.
        read: what reads it then.

    Raises:
        DataError: damaged, too large, or what ``read`` raises.
    """
    require_file(path, "a compressed file")
    with tempfile.TemporaryDirectory(prefix="geospore-") as name:
        inside = Path(name) / path.stem
        with path.open("rb") as file:
            opener = bz2.open if file.read(3) == BZIP2_MAGIC else gzip.open
        left = most_inflated(path)
        try:
            with opener(path, "rb") as source, inside.open("wb") as target:
                while block := source.read(BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise OSError(TOO_LARGE)
                    target.write(block)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{path}: expected a whole compressed file, it is cut short or damaged ({one_line(error)}); fetch it "
                "again"
            ) from None
        return _read_inside(path, inside, read)


def read_archive(
    path: Path, is_data: Callable[[str], bool], read: Read, keys: Mapping[str, str], progress: bool = False
) -> StructureTable:
    """An archive of dsgdb9nsd_*.xyz files (ordered by gdb index), of gdb9.sdf and gdb9.sdf.csv, or of one other file.

    The xyz files are parsed as a stream; others pass through a temporary folder.

    Args:
        path: tar (plain, gzip, bzip2) or zip.
        is_data: whether a file of this name holds structures.
        read: what reads such a file, with the right names of labels.
        keys: label -> its name among the properties of QM9.
        progress: report on stderr.

    Raises:
        DataError: cut short, damaged, or with no or several data sets inside.
    """
    with tempfile.TemporaryDirectory(prefix="geospore-") as name:
        folder = Path(name)
        seen: list[str] = []
        others: list[str] = []
        with open_members(path) as members:
            records = _records(path, members, folder, seen, others, is_data)
            counted = track(records, f"reading {path.name}", "molecules", None, progress)
            first = next(counted, None)
            table = None if first is None else table_of_records(path, chain([first], counted), describe_source(path))
        if table is not None:
            note = f"; not read: {_names(others)}" if others else ""
            return rename(path, dataclasses.replace(table, source=table.source + note), keys)
        if (folder / SDF_NAME).exists() and (folder / CSV_NAME).exists():
            table = _read_inside(
                path, folder / SDF_NAME, lambda sdf: read_sdf_and_csv(sdf, folder / CSV_NAME, progress)
            )
            return rename(path, table, keys)
        if len(others) == 1:
            return _read_inside(path, next((folder / "one").iterdir()), read)
    if others:
        raise DataError(
            f"{path}: expected one data set in the archive, found {len(others)}: {_names(others)}; unpack it and give "
            "one of them"
        )
    raise DataError(
        f"{path}: expected dsgdb9nsd_*.xyz files, {SDF_NAME} and {CSV_NAME}, or one other data set in the archive; "
        f"found {', '.join(seen) or 'nothing'}; give the archive as it was published, or unpack it and give the file"
    )


def _read_inside(path: Path, inside: Path, read: Read) -> StructureTable:
    """What ``read`` makes of a file that came out of ``path``, which errors and the source name."""
    try:
        table = read(inside)
    except DataError as error:
        raise DataError(f"{path}: {str(error).replace(f'{inside.parent}/', '')}") from None
    return dataclasses.replace(table, source=f"{describe_source(path)} ({table.source})")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown(name) for name in names[:SHOWN]) + more


@contextmanager
def open_members(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive in their order, no folders, links or devices.

    Raises:
        DataError: damaged, or a file that is too large for it; also while the caller reads.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == ZIP_MAGIC
    if not is_zip:
        with open_tar(path) as archive:
            yield _tar_members(path, archive)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_inflated(path):
                raise OSError(TOO_LARGE)
            if min((member.header_offset for member in archive.infolist()), default=0) > 0:
                raise OSError("other bytes stand before it, as where two files were joined")
            yield _zip_members(archive)
    except DataError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a whole zip archive, it is cut short or damaged ({one_line(error)}); fetch it again"
        ) from None


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[Member]:
    most = most_inflated(path)
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # or it keeps a description of every file in memory
        if member.size > most:  # a wrong size would be skipped byte by byte, and the holes of a sparse file be written
            raise DataError(
                f"{path}: {shown(member.name)} has {member.size} bytes, too many for this archive; fetch it again"
            )
        content: Any = archive.extractfile(member) if member.isfile() else None
        if content is not None:
            yield Member(member.name, member.size, content)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for member in archive.infolist():
        if not member.is_dir():
            with archive.open(member) as content:
                yield Member(member.filename, member.file_size, content)


def _records(
    path: Path,
    members: Iterator[Member],
    folder: Path,
    seen: list[str],
    others: list[str],
    is_data: Callable[[str], bool],
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the raw files of QM9, and copy what else may be read to ``folder``.

    These are gdb9.sdf and its table, known by their exact names, and the first file that ``is_data`` accepts;
    ``others`` gets the names of all that it accepts, ``seen`` the first three of all.
    """
    for member in members:
        seen.append(shown(member.name))
        del seen[3:]
        place = PurePosixPath(member.name.replace("\\", "/"))
        hidden = any(part.startswith(HIDDEN) for part in place.parts)
        if RAW_NAME.fullmatch(place.name):
            if member.size > RAW_LARGEST:
                raise DataError(
                    f"{path}: {place.name} has {member.size} bytes, more than any QM9 file; fetch the archive again"
                )
            yield place.name, member.content.read()
        elif member.name.removeprefix("./") in {SDF_NAME, CSV_NAME}:
            _copy(member, folder / place.name)
        elif is_data(place.name) and not hidden and not place.is_absolute() and ".." not in place.parts:
            others.append(str(place))
            one = folder / "one" / storable(place.name)
            if len(others) == 1:
                one.parent.mkdir()
                _copy(member, one)
            else:
                shutil.rmtree(folder / "one", ignore_errors=True)


def _copy(member: Member, file: Path) -> None:
    with file.open("wb") as target:
        shutil.copyfileobj(member.content, target, BLOCK)
