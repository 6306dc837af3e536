"""Small output files, whole or not at all, and how times and errors are written."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows with equal keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with equal keys as CSV, under a temporary name first."""
    write_text(path, csv_text(rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, which becomes the file at the end of the block, or vanishes on an error."""
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def one_line(error: object) -> str:
    """The text of an exception on a single line, with the type of the exception where that is all there is.

    Bytes of a file name that are no text become escapes, which a log can hold.
    """
    return " ".join(str(error).split()).encode(errors="backslashreplace").decode() or type(error).__name__


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
