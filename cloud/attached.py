"""The one data set among the files attached to a job, however they were packed and nested."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cloud.unpacking import ENDINGS, stem_of, unpack
from data_tools.formats.iso17 import REFERENCE
from data_tools.formats.md17 import layout_of
from data_tools.formats.npz_format import STRUCTURE_KEYS
from data_tools.formats.qm9_formats import CSV_NAME, RAW_NAME, SDF_NAME
from data_tools.formats.readers import COMPRESSED, KINDS, SUPPORTED, kind_of, kind_of_name
from data_tools.graph import DataError
from data_tools.graphs.packed_folder import is_packed
from data_tools.source_files import open_tar

#: archives in archives are opened so often
ROUNDS = 3
SHOWN = 8
MAC_FOLDER = "__MACOSX"
LABELLED = ("sdf", "xyz", "database")  # kinds that may have labels, whatever is in them


def find_data(places: Sequence[Path], scratch: Path, name: str = "") -> Path:
    """The one file or folder that ``dataset.open_graphs`` can read.

    Args:
        places: files and folders that were attached, with anything else inside.
        scratch: a folder for the content of archives; they are opened only where nothing else can be read.
        name: which of several, as the end of its path.

    Raises:
        DataError: no or several data sets, or an archive that cannot be unpacked.
    """
    return find_one(places, scratch, is_data, f"data set ({SUPPORTED})", "data.file", name)


def find_one(
    places: Sequence[Path], scratch: Path, wanted: Callable[[Path], bool], what: str, key: str, name: str = ""
) -> Path:
    """The one file or folder that ``wanted`` accepts; ``what`` and the configuration's ``key`` are for the message.

    Raises:
        DataError: none or several, or an archive that cannot be unpacked.
    """
    every, others = find_all(places, scratch, wanted)
    tail = Path(name).parts
    found = [path for path in every if path.parts[len(path.parts) - len(tail) :] == tail]
    if len(found) == 1:
        return found[0]
    where, called = ", ".join(map(str, places)), f" called {name}" if name else ""
    if every:
        raise DataError(
            f"{where}: expected one {what}{called}, found {len(found) or 'others'}: {_names(found or every)}; "
            f"choose one with --set {key}=NAME, its name as in this list"
        )
    raise DataError(f"{where}: expected one {what}{called}, found {_names(others) or 'nothing'}; attach the right one")


def find_all(places: Sequence[Path], scratch: Path, wanted: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """Everything that ``wanted`` accepts, and the other files; a folder that is accepted is not searched further."""
    everything: list[Path] = []
    for depth in range(ROUNDS + 1):
        found: list[Path] = []
        others: list[Path] = []
        seen: set[Path] = set()
        for place in places:
            _search(place, wanted, found, others, seen)
        everything += others
        archives = [path for path in others if _is_archive(path)]
        if found or not archives or depth == ROUNDS:
            return found, everything
        places = [scratch / f"{depth}-{number}" / stem_of(path) for number, path in enumerate(archives)]
        for path, folder in zip(archives, places, strict=True):
            unpack(path, folder)
    raise AssertionError("unreachable")


def is_data(path: Path) -> bool:
    """Whether a file or folder looks like a data set with labels that the readers know.

    SMILES are none: they have no labels.  A table of properties goes with its SDF file.
    """
    if path.is_dir():
        single = any((path / name).is_file() for name in (SDF_NAME, REFERENCE))
        return single or is_packed(path) or any(RAW_NAME.fullmatch(p.name) for p in path.iterdir())
    kind = None if path.suffix.lower() == ".zip" else kind_of(path)
    if kind == COMPRESSED:
        return kind_of_name(path.stem) in LABELLED
    if kind == "npz":
        return _holds_structures(path)
    if kind == "archive":
        return _is_published(path)
    return kind in LABELLED


def _search(
    place: Path, wanted: Callable[[Path], bool], found: list[Path], others: list[Path], seen: set[Path]
) -> None:
    """Sort what is in ``place`` into what is wanted and other files; hidden files are neither."""
    if wanted(place):
        found.append(place)
    elif not place.is_dir():
        others.append(place)
    elif place.resolve() not in seen:  # links may form circles
        seen.add(place.resolve())
        for entry in sorted(place.iterdir()):
            if not entry.name.startswith(".") and entry.name != MAC_FOLDER and entry.exists():
                _search(entry, wanted, found, others, seen)


def _holds_structures(path: Path) -> bool:
    """Whether an npz file holds molecules and not, say, a stored split; a damaged one is left to its reader."""
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return path.suffix.lower() == ".npz"
    return bool(names & set(STRUCTURE_KEYS[1:])) or layout_of(names) is not None


def _is_published(path: Path) -> bool:
    """Whether a tar archive is one of QM9's, which its reader takes as it is."""
    try:
        with open_tar(path, to_end=False) as archive:
            files = (member.name for member in archive if member.isfile())
            first = [name.removeprefix("./") for name in itertools.islice(files, 3)]
    except DataError:
        return False
    return any(name in (SDF_NAME, CSV_NAME) or RAW_NAME.fullmatch(name.rpartition("/")[2]) for name in first)


def _is_archive(path: Path) -> bool:
    """Whether a file can be unpacked, by its ending or, without a known one, its first bytes."""
    known = path.suffix.lower() in KINDS
    return path.name.lower().endswith(ENDINGS) or (not known and kind_of(path) in ("archive", "npz"))


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(f"{path.parent.name}/{path.name}" for path in paths[:SHOWN]) + more
