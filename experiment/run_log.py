"""The log of a program: standard output at once, and a file as soon as there is a folder for it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path

from training.files import one_line

log = logging.getLogger("geospore")
FORMAT = logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S")


class Kept(logging.Handler):
    """Keeps what is logged, for a file that is not there yet."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


class _GivesUp:
    """A handler that cannot write any more (a full disk, a closed pipe) reports it once, instead of at every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging calls it
        """Take the handler out."""
        log.removeHandler(self)  # type: ignore[arg-type]
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError):  # its reader has ended, a warning would not be seen
            return
        where = getattr(self, "baseFilename", "standard output")
        with contextlib.suppress(OSError, ValueError):
            print(f"warning: the log cannot be written to {where} any more ({one_line(error)})", file=sys.stderr)


class _Shown(_GivesUp, logging.StreamHandler):
    """Lines on standard output."""


class _Written(_GivesUp, logging.FileHandler):
    """Lines in a file."""


class _AlsoWritten(_GivesUp, logging.FileHandler):
    """Lines in a second file, whose place is the user's choice."""


def set_up_log() -> None:
    """Lines go to standard output, and are kept for the file that ``log_to`` may name later."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
    shown = _Shown(sys.stdout)
    shown.setFormatter(FORMAT)
    log.addHandler(shown)
    log.addHandler(Kept())


def log_to(file: Path, fresh: bool = False, last: bool = True) -> None:
    """Append what has been logged so far, and all that follows, to a file.

    The file of an earlier call is removed: its lines are in the new one.

    Args:
        file: in a folder that exists.
        fresh: what is there already, if it is not from this process, is replaced.
        last: no other file will be named.
    """
    kept = next((handler for handler in log.handlers if isinstance(handler, Kept)), None)
    before = next((handler for handler in log.handlers if isinstance(handler, _Written)), None)
    if before is None or before.baseFilename != os.path.abspath(file):
        _begin(_Written(file, "w" if fresh else "a", encoding="utf-8", errors="backslashreplace"))
        if before is not None:
            log.removeHandler(before)
            before.close()
            Path(before.baseFilename).unlink(missing_ok=True)
    if last and kept is not None:
        log.removeHandler(kept)


def log_also_to(file: Path) -> None:
    """Append what has been logged so far, and all that follows, to a second file; call it before ``log_to``.

    Args:
        file: in a folder that exists.
    """
    _begin(_AlsoWritten(file, "a", encoding="utf-8", errors="backslashreplace"))


def _begin(handler: logging.FileHandler) -> None:
    """Write what has been logged so far, and from here on all."""
    handler.setFormatter(FORMAT)
    kept = next((other for other in log.handlers if isinstance(other, Kept)), None)
    for record in kept.records if kept else []:
        handler.handle(record)
    log.addHandler(handler)
