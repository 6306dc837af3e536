"""A zip or tar archive to a folder: nothing outside it, no links, and no more than fits."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from data_tools.graph import DataError
from data_tools.source_files import BLOCK, one_line, open_tar, require_file

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second one is empty
UTF8_FLAG = 0x800
#: what an archive may hold: files, bytes in any case, and bytes for each of its own; molecules compress to a tenth
MOST_FILES, BYTES, RATIO = 1_000_000, 1 << 30, 200


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of a zip or tar archive (plain, gzip, bzip2) into a folder, which is made; links are left out.

    Args:
        archive: names in it may be UTF-8 or, as Windows in Chinese writes them, GBK.
        folder: on a disk with room for the content.

    Raises:
        DataError: no archive, damaged, encrypted, too large, or with a path that leads out of the folder.
    """
    require_file(archive, "a zip or tar archive")
    folder.mkdir(parents=True, exist_ok=True)
    with archive.open("rb") as file:
        is_zip = file.read(4) in ZIP_MAGICS
    left = min(max(BYTES, RATIO * archive.stat().st_size), shutil.disk_usage(folder).free)
    members = _zip_members(archive) if is_zip else _tar_members(archive)
    try:
        for number, (name, stream) in enumerate(members):
            if number == MOST_FILES:
                raise DataError(f"{archive}: expected an archive of data, found more than {MOST_FILES} files")
            left -= _write(stream, _place(archive, folder, name), left)
            if left < 0:
                raise DataError(
                    f"{archive}: its content is larger than the free disk or more than {RATIO} times the archive; "
                    "unpack it yourself and give the folder"
                )
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise DataError(
            f"{archive}: the archive cannot be unpacked ({one_line(error)}); fetch or make it again"
        ) from None


def stem_of(archive: Path) -> str:
    """The name without the ending of an archive, which is that of the folder it is usually unpacked into."""
    ending = next((ending for ending in ENDINGS if archive.name.lower().endswith(ending)), "")
    return archive.name[: len(archive.name) - len(ending)]


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                continue
            name = member.orig_filename
            if not member.flag_bits & UTF8_FLAG:
                name = _decode(name.encode("cp437"))  # what zipfile takes all other names for
            with file.open(member) as stream:
                yield name, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with open_tar(archive) as file:
        for member in file:
            file.members = []  # type: ignore[attr-defined]  # or it keeps a description of every file in memory
            stream = file.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield _decode(member.name.encode("utf-8", "surrogateescape")), stream


def _decode(name: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name.decode("latin-1")


def _place(archive: Path, folder: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DataError(f"{archive}: the name {name!r} in it leads out of the folder; make the archive again")
    return folder.joinpath(*parts)


def _write(stream: IO[bytes], path: Path, most: int) -> int:
    """Copy a stream into a file, at most one block more than ``most`` bytes; returns how many were there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("wb") as file:
        while written <= most and (block := stream.read(BLOCK)):
            written += file.write(block)
    return written
