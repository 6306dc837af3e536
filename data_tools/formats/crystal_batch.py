"""Many files of phonopy to parts, one packed file a material, by one process a core; what is done is not done again.

A part stands in a folder beside the output until all are joined.  It is used again if it is whole and was made from the
same bytes; so is the reason why a file was skipped.  A file that kills the process that reads it is skipped too.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from data_tools.formats.crystal_file import read_crystal_file, write_crystals
from data_tools.formats.crystal_source import ARCHIVES, ROLES
from data_tools.graph import DataError
from data_tools.source_files import one_line, sha256_of, storable

WAITING = 2  # files that wait for each process, so that no process waits for a file
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
DIED = "the process that read it died, perhaps of too little memory; look at the file"
VERSION = 1  # of what a part holds; other parts are made anew


class Outcome(NamedTuple):
    """What became of a source: its part, or the reason why there is none."""

    source: Path
    part: Path
    reason: str = ""


Parts = Generator[Outcome, None, list[Path]]


def find_sources(paths: Sequence[Path]) -> list[Path]:
    """The archives of folders and their subfolders, the folders that hold files of one crystal, and files as given.

    Raises:
        DataError: nothing there, or a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: expected files of phonopy, found nothing there; check the path")
        inside = _of_folder(path) if path.is_dir() else [path]
        if not inside:
            raise DataError(
                f"{path}: expected archives of phonondb (.tar.lzma) or folders with FORCE_SETS or FORCE_CONSTANTS, "
                "found none; give another folder"
            )
        found += inside
    return list(dict.fromkeys(found))


def _of_folder(folder: Path) -> list[Path]:
    names = {name for role in ("force sets", "force constants", "hdf5") for name in ROLES[role]} | {ROLES["yaml"][0]}
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        archives = sorted(name for name in files if ARCHIVES.search(name))
        found += [Path(place) / name for name in archives]
        if any(name == one or name.startswith(f"{one}.") for name in files for one in names):
            found.append(Path(place))
    return found


def make_parts(sources: Sequence[Path], folder: Path, processes: int) -> Iterator[Outcome]:
    """Make what is missing; outcomes come as they are ready.

    Args:
        sources: files and folders as ``find_sources`` gives them.
        folder: of the parts; it exists.
        processes: how many work at a time, each on one core.
    """
    left = []
    for source in sources:
        done = _finished(source, folder)
        if done is None:
            left.append(source)
        else:
            yield done
    suspects: list[Path] = []
    while left:
        left = yield from _run(left, folder, min(processes, len(left)), suspects)
    for source in suspects:  # each alone, so that the one that kills the process is known
        again: list[Path] = []
        yield from _run([source], folder, 1, again)
        if again:
            outcome = Outcome(source, part_of(source, folder), DIED)
            _note(outcome)
            yield outcome


def _run(sources: Sequence[Path], folder: Path, processes: int, suspects: list[Path]) -> Parts:
    """Work until all are done or a process dies; returns those that were not begun, and adds to ``suspects``."""
    waiting = list(reversed(sources))
    running: dict[Future[Outcome], Path] = {}
    context = multiprocessing.get_context("spawn")
    kept = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # of the processes; numpy reads them when it is imported
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_ignore_interrupt) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < WAITING * processes:
                        running[pool.submit(make_part, waiting[-1], folder)] = waiting[-1]
                        waiting.pop()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del running[future]
                        yield outcome
            except BrokenProcessPool:
                suspects += running.values()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    return list(reversed(waiting))


def _ignore_interrupt() -> None:
    """Ctrl-C reaches the whole group; the first process ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def part_of(source: Path, folder: Path) -> Path:
    """Where the part of a source stands."""
    return folder / f"{hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:24]}.npz"


def make_part(source: Path, folder: Path) -> Outcome:
    """Read one source and write its part, or the reason why not."""
    from data_tools.formats.phonopy_files import read_with_source  # noqa: PLC0415  phonopy in the processes only

    part = part_of(source, folder)
    outcome = Outcome(source, part)
    try:
        crystal, words = read_with_source(source)
        write_crystals(part, [crystal], [words])
    except DataError as error:
        outcome = outcome._replace(reason=one_line(error))
    _note(outcome)
    return outcome


def _note(outcome: Outcome) -> None:
    """What the part was made from, written last: a part without it is made anew."""
    note = {"version": VERSION, "source": identity(outcome.source), "reason": outcome.reason}
    temporary = outcome.part.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(note), encoding="utf-8")
    temporary.replace(outcome.part.with_suffix(".json"))


def identity(source: Path) -> str:
    """What changes when a source does: the sha256 of a file; names, sizes and times of the files of a folder."""
    if source.is_file():
        files = [source]
        if ARCHIVES.search(source.name):
            return sha256_of(source)
    else:
        files = [source]
    folder = source if source.is_dir() else source.parent
    names = {name for role in ROLES.values() for name in role}
    files += sorted(path for path in folder.iterdir() if any(path.name.startswith(name) for name in names))
    words = [
        f"{storable(path.name)} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files if path.is_file()
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _finished(source: Path, folder: Path) -> Outcome | None:
    """The outcome of an earlier run, if the source has not changed and the part is whole."""
    part = part_of(source, folder)
    try:
        note = json.loads(part.with_suffix(".json").read_text(encoding="utf-8"))
        if note["version"] != VERSION or note["source"] != identity(source):
            return None
        if not note["reason"]:
            read_crystal_file(part)
        return Outcome(source, part, str(note["reason"]))
    except (OSError, ValueError, KeyError, TypeError):  # DataError is a ValueError
        return None
