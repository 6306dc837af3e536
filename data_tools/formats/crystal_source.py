"""Where the files of one crystal stand: a folder, a file with others beside it, or an archive, read into memory.

Of an archive the names of its members choose what is read, and decide about no path: nothing is written to a disk.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_tools.graph import DataError
from data_tools.source_files import (
    BZIP2_MAGIC,
    GZIP_MAGIC,
    TOO_LARGE,
    UTF16_MARKS,
    most_inflated,
    one_line,
    require_file,
    shown,
    storable,
)

LARGEST_FILE = 256 << 20  # bytes of one file or archive, compressed or not
LARGEST_WINDOW = 256 << 20  # bytes that the decompressor of xz may ask for
XZ_MAGIC, LZMA_MAGIC = b"\xfd7zXZ\x00", b"\x5d\x00\x00"
COMPRESSIONS = (".xz", ".lzma", ".gz", ".bz2")
ARCHIVES = re.compile(r"\.(tar(\.(xz|lzma|gz|bz2))?|txz|tgz|tbz2)$", re.IGNORECASE)
HIDDEN = ("._", "__MACOSX")  # what a Mac adds

#: what a file is to a crystal, and the names that phonopy and its calculators give it, the preferred one first
ROLES = {
    "yaml": ("phonopy_params.yaml", "phonopy_disp.yaml", "phonopy.yaml"),
    "displacements": ("disp.yaml",),
    "settings": ("phonopy.conf",),
    "unit cell": ("POSCAR-unitcell", "POSCAR"),
    "supercell": ("SPOSCAR",),
    "force sets": ("FORCE_SETS",),
    "force constants": ("FORCE_CONSTANTS",),
    "hdf5": ("force_constants.hdf5",),
    "Born charges": ("BORN",),
}
EXPECTED = (
    "phonopy_params.yaml, phonopy_disp.yaml or phonopy.yaml, or POSCAR with phonopy.conf; with FORCE_SETS, "
    "FORCE_CONSTANTS or force_constants.hdf5"
)


@dataclass
class CrystalFiles:
    """The files of one crystal by their names.

    Attributes:
        path: what the user gave, for messages.
        name: of the material: ``mp-149`` where the archive or the folder says so.
        contents: what reads each file, by its name without a compression.
        chosen: the name that the user gave; it comes before others of its role.  Empty: a folder or an archive.
        used: name and sha256 of each file that was read so far.
        archive: name and sha256 of the archive; empty where there is none.
    """

    path: Path
    name: str
    contents: dict[str, Callable[[], bytes]]
    chosen: str = ""
    used: dict[str, str] = field(default_factory=dict)
    archive: str = ""

    @property
    def source(self) -> str:
        """One line for ``StructureTable.source``."""
        return self.archive or ", ".join(f"{storable(name)} sha256 {digest}" for name, digest in self.used.items())

    def names_of(self, role: str) -> list[str]:
        """The files of a role that are there, the preferred one first."""
        names = [name for name in ROLES[role] if name in self.contents]
        if self.chosen and role_of(self.chosen) == role:
            names = [self.chosen, *(name for name in names if name != self.chosen)]
        return names

    def where(self, name: str) -> str:
        """What a message calls one of the files."""
        return f"{self.path} ({shown(name)})" if self.archive or self.path.is_dir() else f"{self.path.with_name(name)}"

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: damaged, too large, or not to be read.
        """
        content = self.contents[name]()
        self.used[name] = hashlib.sha256(content).hexdigest()
        return content

    def text(self, name: str) -> str:
        """A file as text.

        Raises:
            DataError: as ``read``, empty, or not UTF-8.
        """
        content = self.read(name)
        if not content.strip():
            raise DataError(f"{self.where(name)}: expected text, found an empty file; fetch or write it again")
        if content[:2] in UTF16_MARKS:
            raise DataError(f"{self.where(name)}: expected UTF-8, found UTF-16; save it as UTF-8 text")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.where(name)}: expected text in UTF-8, found byte 0x{error.object[error.start]:02x} at position "
                f"{error.start}; save it as UTF-8 text"
            ) from None


def role_of(name: str) -> str | None:
    """What a file of this name is to a crystal, also where more stands behind the usual name (``POSCAR_NaCl``)."""
    for role, names in ROLES.items():
        if name in names:
            return role
    if name.lower().endswith((".yaml", ".yml")):
        return "displacements" if name.lower().startswith("disp") else "yaml"
    if name.lower().endswith((".hdf5", ".h5")):
        return "hdf5"
    starts = {"SPOSCAR": "supercell", "POSCAR": "unit cell", "FORCE_SETS": "force sets"}
    starts |= {"FORCE_CONSTANTS": "force constants", "BORN": "Born charges"}
    return next((role for start, role in starts.items() if name.startswith(start)), None)


def open_source(path: Path) -> CrystalFiles:
    """Look at what is there; files are read when they are asked for, an archive at once.

    Raises:
        DataError: nothing there, a damaged archive, or no file of a crystal.
    """
    if path.is_dir():
        files = CrystalFiles(path, _material_of(path.resolve().name), _of_folder(path))
        if not files.contents:
            raise DataError(
                f"{path}: expected {EXPECTED}; found none of them; give the folder or the file that has them"
            )
        return files
    require_file(path, f"a file of phonopy or an archive ({EXPECTED})", LARGEST_FILE)
    if ARCHIVES.search(path.name):
        return _of_archive(path)
    name = _plain(path.name)
    if role_of(name) is None:
        raise DataError(
            f"{path}: expected {EXPECTED}; found a file of another name; give one of these, or their folder"
        )
    contents = _of_folder(path.parent) | {name: lambda: _read_file(path)}
    stem = path.resolve().parent.name if name in {one for names in ROLES.values() for one in names} else Path(name).stem
    return CrystalFiles(path, _material_of(stem), contents, chosen=name)


def _material_of(name: str) -> str:
    """``mp-149`` of ``mp-149-20180417``, otherwise the name itself."""
    material = re.match(r"mp-\d+", name)
    return storable(material.group() if material else name) or "crystal"


def _plain(name: str) -> str:
    """A name without the ending of a compression."""
    return next((name[: -len(end)] for end in COMPRESSIONS if name.lower().endswith(end)), name)


def _of_folder(folder: Path) -> dict[str, Callable[[], bytes]]:
    """The files of a folder that have one of the usual names, perhaps compressed; a plain one comes first."""
    found: dict[str, Callable[[], bytes]] = {}
    for name in (name for names in ROLES.values() for name in names):
        for path in (folder / f"{name}{ending}" for ending in ("", *COMPRESSIONS)):
            if path.exists() or path.is_symlink():
                found[name] = lambda path=path: _read_file(path)  # type: ignore[misc]
                break
    return found


def _read_file(path: Path) -> bytes:
    require_file(path, "a file of phonopy", LARGEST_FILE)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read it ({one_line(error)}); check its permissions") from None
    return inflated(path, content) if path.name.lower().endswith(COMPRESSIONS) else content


def inflated(path: Path, content: bytes) -> bytes:
    """What xz, lzma, gzip or bzip2 has compressed, by its first bytes; other content as it is.

    Raises:
        DataError: cut short, damaged, with more behind its end, or larger than such files become.
    """
    most = min(most_inflated(path), 4 * LARGEST_FILE)
    stream: lzma.LZMADecompressor | bz2.BZ2Decompressor | zlib._Decompress
    if content.startswith((XZ_MAGIC, LZMA_MAGIC)):
        stream = lzma.LZMADecompressor(memlimit=LARGEST_WINDOW)
    elif content.startswith(BZIP2_MAGIC):
        stream = bz2.BZ2Decompressor()
    elif content.startswith(GZIP_MAGIC):
        stream = zlib.decompressobj(wbits=31)
    else:
        return content
    try:
        whole = stream.decompress(content, most + 1)
        if len(whole) > most:
            raise OSError(TOO_LARGE)
        if not stream.eof:
            raise EOFError("it ends before its end")
        if stream.unused_data.strip(b"\0"):
            raise OSError("more stands behind its end, as where two files were joined")
    except (EOFError, OSError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise DataError(
            f"{path}: expected a whole compressed file, it is cut short or damaged ({one_line(error)}); fetch it again"
        ) from None
    return whole


def _of_archive(path: Path) -> CrystalFiles:
    """The files of an archive of one material, which stand in one folder of it."""
    packed = _read_packed(path)
    archive = f"{storable(path.name)} sha256 {hashlib.sha256(packed).hexdigest()}"
    content = inflated(path, packed)
    contents: dict[str, bytes] = {}
    folders: set[str] = set()
    places: set[tuple[str, str]] = set()
    seen: list[str] = []
    known = {name for names in ROLES.values() for name in names}
    try:
        if content[-512:].strip(b"\0") or len(content) % 512:
            raise EOFError("the blocks of zeros that end an archive are missing")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                name = _plain(place.name)
                seen.append(shown(member.name))
                if not member.isreg() or name not in known or any(part.startswith(HIDDEN) for part in place.parts):
                    continue
                if member.issparse() or member.size > len(content):
                    raise EOFError(f"{shown(member.name)} is said to be larger than the archive")
                if name in contents and (str(place.parent), name) in places:
                    raise DataError(f"{path}: expected each file once, found {shown(name)} twice; pack it again")
                folders.add(str(place.parent))
                places.add((str(place.parent), name))
                stream = tar.extractfile(member)
                assert stream is not None
                contents[name] = inflated(path, stream.read()) if name != place.name else stream.read()
    except DataError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a whole tar archive, it is cut short or damaged ({one_line(error)}); fetch it again"
        ) from None
    if len(folders) > 1:
        raise DataError(
            f"{path}: expected the files of one material in one folder, found them in {len(folders)}: "
            f"{', '.join(shown(one) for one in sorted(folders)[:3])}; unpack it and give each folder"
        )
    if not contents:
        raise DataError(f"{path}: expected {EXPECTED}; found {', '.join(seen[:3]) or 'nothing'}; give another archive")
    folder = PurePosixPath(folders.pop()).name
    name = _material_of(folder if folder else ARCHIVES.sub("", path.name))
    readers: dict[str, Callable[[], bytes]] = {name: (lambda data=data: data) for name, data in contents.items()}  # type: ignore[misc]
    return CrystalFiles(path, name, readers, archive=archive)


def _read_packed(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read it ({one_line(error)}); check its permissions") from None
