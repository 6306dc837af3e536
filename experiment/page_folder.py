"""The folder of a report: written whole or not at all, and no file of another program is lost.

What a program writes goes into a folder beside it under a temporary name, which then becomes the folder.  A folder that
holds a report of the same program is replaced only where that was asked for, and only the files that it lists.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiment.run_folder import FolderError

REPORT = "report.json"


def check_folder(path: Path, program: str, overwrite: bool) -> None:
    """Refuse a folder in which something would be lost.

    Args:
        path: of the report.
        program: that writes it, as its report says in ``program``.
        overwrite: whether an earlier report of it may be replaced.

    Raises:
        FolderError: a file, or a folder with files that are not of an earlier report, or of one without ``overwrite``.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise FolderError(f"{path}: expected a new or empty folder, found a file; choose another --output")
    there = sorted(one.name for one in path.iterdir())
    if not there:
        return
    shown = f"{', '.join(there[:3])}{' and more' if len(there) > 3 else ''}"
    if _report_of(path).get("program") != program:
        raise FolderError(
            f"{path}: expected a new or empty folder, found {shown}, which {program} has not written; choose another "
            "--output"
        )
    if not overwrite:
        raise FolderError(
            f"{path}: expected a new or empty folder, found an earlier report ({shown}); --overwrite replaces it, "
            "--output NAME puts the new one elsewhere"
        )


@contextmanager
def new_folder(path: Path, program: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes ``path`` at the end of the block, or vanishes on an error.

    Args:
        path: see ``check_folder``.
        program: likewise.
        overwrite: likewise.

    Raises:
        FolderError: as ``check_folder``, at the end too.
    """
    check_folder(path, program, overwrite)
    stage = path.with_name(f".{path.name}.partial-{os.getpid()}")
    stage.mkdir(parents=True)
    try:
        yield stage
        check_folder(path, program, overwrite)  # what has come there meanwhile is not lost either
        if path.is_dir() and any(path.iterdir()):
            _replace(path, stage)
        else:
            stage.rename(path)  # an empty folder gives way
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _replace(path: Path, stage: Path) -> None:
    """Put the files of a new report in the place of those of the earlier one; other files stay."""
    new = sorted((one for one in stage.iterdir()), key=lambda one: one.name == REPORT)  # the list of files comes last
    before = [name for name in _report_of(path).get("files", []) if isinstance(name, str)]
    for one in new:
        one.replace(path / one.name)
    kept = {one.name for one in new}
    for name in before:
        if name not in kept and Path(name).name == name:
            (path / name).unlink(missing_ok=True)


def _report_of(path: Path) -> dict[str, Any]:
    """The report in a folder; empty where there is none."""
    try:
        found = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
