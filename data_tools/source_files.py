"""Opening a user's files: everything that can be wrong with a file becomes one line that names it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError

BLOCK = 1 << 20
LONGEST_HEADER = 1 << 20  # bytes of a long name or an extended header, which tarfile reads whole
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
LARGEST_ARCHIVE = 64 << 30  # bytes; a sparse file of a terabyte takes no place on a disk and hours to read
SMALL_ARCHIVE = 64 << 20  # bytes; what any archive may become
MOST_INFLATION = 100  # no molecules compress by more; the published archives do by 6
TOO_LARGE = f"it inflates to more than {MOST_INFLATION} times its size"
READS_AT_END = 10  # of a whole archive there are two or three
LARGEST_TEXT = 2**32  # bytes of a text file, which is read whole
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
BZIP2_MAGIC, GZIP_MAGIC = b"BZh", b"\x1f\x8b"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def one_line(error: object) -> str:
    """The text of an exception on a single line, with the type of the exception where that is all there is.

    Bytes of a file name that are no text become escapes, which a log can hold.
    """
    return " ".join(str(error).split()).encode(errors="backslashreplace").decode() or type(error).__name__


def shown(text: object) -> str:
    """What a file says, as a message shows it: short, on one line, and printable."""
    return ascii(str(text))[1:-1][:80]


def storable(name: str) -> str:
    """The name of a file as UTF-8: one in another encoding could be neither logged nor stored."""
    return name.encode("utf-8", "backslashreplace").decode()


def require_file(path: Path, expected: str, largest: int | None = None) -> Path:
    """Check that ``path`` is a readable file with something in it.

    Args:
        path: what the user gave.
        expected: what should have been there (``an SDF file``), for the message.
        largest: bytes; None where the size of the file does not matter.

    Raises:
        DataError: nothing there, a folder, an empty or a larger file, or no permission to read it.
    """
    if not path.exists():
        raise DataError(f"{path}: expected {expected}, found nothing there; check the path")
    if path.is_dir():
        raise DataError(f"{path}: expected {expected}, found a folder; give the file inside it")
    if not path.is_file():  # a pipe would wait for ever, and a device may never end
        raise DataError(f"{path}: expected {expected}, found a pipe or a device; give a file")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DataError(
            f"{path}: expected {expected}, cannot read it ({one_line(error)}); check its permissions"
        ) from None
    if not first:
        raise DataError(f"{path}: expected {expected}, found an empty file; fetch or write it again")
    if largest is not None and (size := path.stat().st_size) > largest:
        raise DataError(f"{path}: expected {expected} of at most {largest:,} bytes, found {size:,}; divide it")
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
    return ", ".join(f"{storable(path.name)} sha256 {sha256_of(path)}" for path in paths)


def same_content(first: str, second: str) -> bool:
    """Whether two ``StructureTable.source`` lines tell of the same bytes, whatever the files are called."""
    return SHA256.findall(first) == SHA256.findall(second)


def most_inflated(path: Path) -> int:
    """The most bytes that the contents of an archive may have: a bomb of kilobytes becomes terabytes."""
    return max(SMALL_ARCHIVE, MOST_INFLATION * path.stat().st_size)


def array_names(path: Path) -> set[str]:
    """The names of the arrays of an npz file; none of them is read.

    Raises:
        DataError: no npz file, or damaged, or a bomb.
    """
    with _open_npz(path) as archive:
        return set(archive.files)


def read_arrays(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, none of them pickled.

    Args:
        path: the file.
        wanted: the names to read, where the file has them; the other arrays may be anything.  None: all.

    Raises:
        DataError: no npz file, damaged, pickled, or a bomb.
    """
    with _open_npz(path) as archive:
        arrays = {name: archive[name] for name in archive.files if wanted is None or name in wanted}
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise DataError(f"{path}: expected arrays, found {shown(foreign[0])} among them; save it with np.savez")
    return arrays


@contextmanager
def _open_npz(path: Path) -> Iterator[Any]:
    """An npz file of which whatever goes wrong, also while the caller reads, is one line."""
    require_file(path, "an npz file")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: expected a whole npz file, it is cut short or something else; fetch it again")
    try:
        # opened here: NumPy forgets to close a file whose directory is damaged
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            members = archive.zip.infolist()
            if sum(member.file_size for member in members) > most_inflated(path):
                raise OSError(TOO_LARGE)
            if min((member.header_offset for member in members), default=0) > 0:  # zipfile reads the last archive only
                raise DataError(
                    f"{path}: expected one npz file, found other bytes before it, as where two files were joined; give "
                    "each file alone"
                )
            if len(set(archive.files)) < len(archive.files):
                raise DataError(f"{path}: expected arrays of different names, found one twice; save the file again")
            yield archive
    except DataError:
        raise
    except Exception as error:  # zip, zlib, pickle and header errors all mean that the file is not to be used
        if "pickle" in str(error):
            raise DataError(
                f"{path}: expected plain number arrays, found pickled Python objects, which can run code when they are "
                "read; save the arrays again with numeric types"
            ) from None
        reason = one_line(error)[:200]
        raise DataError(f"{path}: expected a whole npz file, it is damaged ({reason}); fetch it again") from None


class _Measured:
    """A stream that refuses to yield more than ``limit`` bytes, and to be read on and on behind its end.

    tarfile reads until it has as many bytes as a member claims to have, which may be more than there ever were.
    """

    def __init__(self, stream: Any, limit: int):
        self.stream, self.left, self.at_end = stream, limit, 0

    def read(self, size: int) -> bytes:
        block = self.stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise OSError(TOO_LARGE)
        self.at_end += not block
        if self.at_end > READS_AT_END:
            raise EOFError("a file in it is said to be larger than the archive")
        return block


class _Member(tarfile.TarInfo):
    """A member of a tar archive whose name is of a length that names have."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """As ``TarInfo.frombuf``, which tarfile calls with each header.

        Raises:
            tarfile.ReadError: an endless name.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a name or header of {member.size:,} bytes")
        return member


def read_text(path: Path, expected: str) -> str:
    """The whole of a UTF-8 text file without a byte-order mark at its beginning; every line ends as on Unix.

    Raises:
        DataError: as ``require_file``, bytes that are not UTF-8 text, or more of them than ``LARGEST_TEXT``.
    """
    require_file(path, expected, LARGEST_TEXT)
    with path.open("rb") as file:
        if file.read(2) in UTF16_MARKS:
            raise DataError(f"{path}: expected {expected} in UTF-8, found UTF-16; save it as UTF-8 text")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected {expected} in UTF-8, found byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}; save it as UTF-8 text"
        ) from None


@contextmanager
def open_tar(path: Path, to_end: bool = True) -> Iterator[tarfile.TarFile]:
    """A tar archive (bzip2, gzip or plain) as a stream: members are read in order, nothing is written to disk.

    Args:
        path: the archive.
        to_end: the caller reads all members, and what follows the last is looked at too; otherwise only a few.

    Raises:
        DataError: not a tar archive, one that is cut short or damaged, or two in one file; also while the caller reads
            members.
    """
    require_file(path, "a tar archive", LARGEST_ARCHIVE)
    with path.open("rb") as file:
        magic = file.read(3)
    opener = bz2.open if magic == BZIP2_MAGIC else gzip.open if magic[:2] == GZIP_MAGIC else open
    try:
        # The decompressor is opened here and not by tarfile, whose own streams end silently when the file is cut short.
        with opener(path, "rb") as file:
            stream: Any = _Measured(file, most_inflated(path))
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
                yield archive
                while to_end and (rest := archive.fileobj.read(BLOCK)):  # type: ignore[union-attr]
                    if rest.strip(b"\0"):  # tarfile ends at the first empty header
                        raise DataError(
                            f"{path}: expected one tar archive, found more behind its end, as where two were joined; "
                            "unpack each and give the folder"
                        )
                while to_end and stream.read(BLOCK):  # on to the end, where bzip2 and gzip keep their checksums
                    pass
    except DataError:  # of the caller, about a member
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a whole tar archive, it is cut short or damaged ({one_line(error)}); fetch it again"
        ) from None
