"""Opening a user's files: everything that can be wrong with a file becomes one line that names it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.graph import DataError

BLOCK = 1 << 20
BZIP2_MAGIC, GZIP_MAGIC = b"BZh", b"\x1f\x8b"


def one_line(error: object) -> str:
    """The text of an exception on a single line, with the type of the exception where that is all there is."""
    return " ".join(str(error).split()) or type(error).__name__


def require_file(path: Path, expected: str) -> Path:
    """Check that ``path`` is a readable file with something in it.

    Args:
        path: what the user gave.
        expected: what should have been there (``an SDF file``), for the message.

    Raises:
        DataError: nothing there, a folder, an empty file, or no permission to read it.
    """
    if not path.exists():
        raise DataError(f"{path}: expected {expected}, found nothing there; check the path")
    if path.is_dir():
        raise DataError(f"{path}: expected {expected}, found a folder; give the file inside it")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DataError(
            f"{path}: expected {expected}, cannot read it ({one_line(error)}); check its permissions"
        ) from None
    if not first:
        raise DataError(f"{path}: expected {expected}, found an empty file; fetch or write it again")
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def describe_source(*paths: Path) -> str:
    """One line for ``StructureTable.source``: each file's name and sha256."""
    return ", ".join(f"{path.name} sha256 {sha256_of(path)}" for path in paths)


def read_text(path: Path, expected: str) -> str:
    """The whole of a UTF-8 text file.

    Raises:
        DataError: as ``require_file``, or bytes that are not UTF-8 text.
    """
    require_file(path, expected)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected {expected} in UTF-8, found byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}; save it as UTF-8 text"
        ) from None


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive (bzip2, gzip or plain) as a stream: members are read in order, nothing is written to disk.

    Raises:
        DataError: not a tar archive, or one that is cut short or damaged; also while the caller reads members.
    """
    require_file(path, "a tar archive")
    with path.open("rb") as file:
        magic = file.read(3)
    opener = bz2.open if magic == BZIP2_MAGIC else gzip.open if magic[:2] == GZIP_MAGIC else open
    try:
        # The decompressor is opened here and not by tarfile, whose own streams end silently when the file is cut short.
        with opener(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            yield archive
            while stream.read(BLOCK):  # on to the end, where bzip2 and gzip keep their checksums
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a whole tar archive, it is cut short or damaged ({one_line(error)}); fetch it again"
        ) from None
