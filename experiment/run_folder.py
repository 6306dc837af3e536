"""The folder of a run: who may write into it, and when.

One process at a time writes into a run folder: the folder itself is locked (flock) while a run begins, trains and
reports.  A run that is there is only continued (resume) or replaced (overwrite) where that was asked for.  Nothing in
it changes before the new one can really start: its first files, the checkpoint before the first step among them, are
written into a folder of their own within; then the files of the earlier run are removed, and these take their place.
Whatever fails until then (options, data, compilation, a full disk) leaves the earlier run as it was.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from configs.schema import Config
from configs.writing import config_to_yaml
from data_tools.labels.splits import Split, save_split
from training.checkpoint import BEST, LAST, tidy
from training.files import write_text

log = logging.getLogger("geospore")
CONFIG, SPLIT, LOG, PROFILE = "config.yaml", "split.npz", "train.log", "profile"
#: what a run writes besides its log, as patterns of names
FILES = (
    CONFIG, SPLIT, BEST, f"{Path(LAST).stem}*.safetensors", "metrics.csv", "times.csv", "metrics.json",
    "predictions.csv", "predictions.png", "loss_curve.png", "tsne.png", "forces.png",
    "events.out.tfevents.*",
)  # fmt: skip
STAGE = ".staged-*"
BUSY = (errno.EWOULDBLOCK, errno.EACCES)


class FolderError(ValueError):
    """A run folder that may not be used as asked: one line with what is there and what to do."""

    exit_code = 2


def write_start(stage: Path, config: Config, split: Split, save_state: Callable[[Path], None] | None) -> None:
    """The first files of a run; of a continued one those that may differ.

    Args:
        stage: where to write them.
        config: of the run.
        split: of the run.
        save_state: writes the state before the first step of a new run; None for a continued one.
    """
    write_text(stage / CONFIG, config_to_yaml(config))
    save_split(split, stage / SPLIT)
    if save_state is not None:
        save_state(stage)


def files_of_run(folder: Path) -> list[Path]:
    """The files in a folder that have the name of something that a run writes; its log alone is no run."""
    return sorted(path for pattern in FILES for path in folder.glob(pattern) if path.is_file())


class RunFolder:
    """A run folder that this process alone may write into, between ``__enter__`` and ``__exit__``.

    Args:
        path: the folder.
        resume: continue the run in it.
        overwrite: replace the run in it.
        numbered: the name is not the user's choice: where it is taken, ``<name>-2``, ``<name>-3``, ... is used.

    Attributes:
        path: the folder in use.
    """

    def __init__(self, path: Path, resume: bool = False, overwrite: bool = False, numbered: bool = False):
        self.path, self.resume, self.overwrite, self.numbered = path, resume, overwrite, numbered
        self._lock: int | None = None
        self._made: list[Path] = []

    def __enter__(self) -> RunFolder:
        """Lock the folder, which is made where it is missing.

        Raises:
            FolderError: another process writes into it, or it holds a run and neither --resume nor
                --overwrite was given.
            OSError: it cannot be made.
        """
        first, number = self.path, 1
        while True:
            try:
                self._take()
                break
            except FolderError:
                if not self.numbered or self.overwrite:
                    raise
                number += 1
                self.path = first.with_name(f"{first.name}-{number}")
        if self.path != first:
            log.info("%s holds a run already, which --resume %s would continue; this one goes to %s", first, first,
                     self.path)  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock; a folder that was made and holds nothing vanishes again."""
        self.release()

    def _take(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"{self.path}: expected a run folder, found a file; choose another --output")
        if not self.resume:
            self._make()
        try:
            self._lock_it()
            there = files_of_run(self.path)
            if there and not (self.resume or self.overwrite):
                raise FolderError(
                    f"{self.path}: expected a folder without a run, found {', '.join(path.name for path in there[:3])}"
                    f"{' and more' if len(there) > 3 else ''}; --resume {self.path} continues the run that is there, "
                    "--overwrite replaces it, --output NAME puts the new one elsewhere"
                )
        except BaseException:
            self.release()
            raise

    def _make(self) -> None:
        missing = []
        place = self.path
        while not place.exists():
            missing.append(place)
            place = place.parent
        self.path.mkdir(parents=True, exist_ok=True)
        self._made = missing

    def _lock_it(self) -> None:
        try:
            import fcntl  # noqa: PLC0415  Windows has none
        except ImportError:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                raise FolderError(
                    f"{self.path}: another process is writing into this run folder; wait for its end or choose "
                    "another --output"
                ) from None
            log.info("%s cannot be locked on this disk (%s): do not start two runs in it", self.path, error.strerror)

    def release(self) -> None:
        """Unlock; what was begun and is not the run's yet vanishes."""
        shutil.rmtree(self.path / STAGE.replace("*", str(os.getpid())), ignore_errors=True)
        for path in self._made:  # deepest first
            try:
                path.rmdir()
            except OSError:
                break  # not empty, or gone
        self._made = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, write: Callable[[Path], None]) -> None:
        """From here on the folder is that of this run.

        Args:
            write: puts the first files of the run, complete, into the folder that it is given.

        Raises:
            OSError: they cannot be written; the folder is as it was.
        """
        for left in self.path.glob(STAGE):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        stage = self.path / STAGE.replace("*", str(os.getpid()))
        try:
            stage.mkdir()
            write(stage)
            tidy(self.path)
            if not self.resume:
                for path in files_of_run(self.path):
                    path.unlink()
            for path in stage.iterdir():
                path.replace(self.path / path.name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
