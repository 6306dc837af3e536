"""The log of a program: standard output at once, and a file as soon as there is a folder for it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

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


def set_up_log() -> None:
    """Lines go to standard output, and are kept for the file that ``log_to`` may name later."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    shown = logging.StreamHandler(sys.stdout)
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
    before = next((handler for handler in log.handlers if isinstance(handler, logging.FileHandler)), None)
    if before is None or before.baseFilename != os.path.abspath(file):
        handler = logging.FileHandler(file, "w" if fresh else "a", encoding="utf-8")
        handler.setFormatter(FORMAT)
        for record in kept.records if kept else []:
            handler.handle(record)
        log.addHandler(handler)
        if before is not None:
            log.removeHandler(before)
            before.close()
            Path(before.baseFilename).unlink(missing_ok=True)
    if last and kept is not None:
        log.removeHandler(kept)
