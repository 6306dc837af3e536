"""The two files outside of its folder that a configuration may name: a copy of the best checkpoint, and of the log."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from configs.loading import ConfigError
from configs.schema import RunConfig
from experiment.run_log import log_also_to
from training import checkpoint as checkpoints
from training.checkpoint import CheckpointError
from training.files import replacing

log = logging.getLogger("geospore")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


def check_named_files(run: RunConfig) -> None:
    """Refuse places that would cost a user a file, before anything is written.

    Raises:
        ConfigError: they would.
    """
    if run.log_file:
        _check_log(Path(run.log_file))
    if run.ckpt_file and run.run_mode == "train":
        _check_checkpoint(Path(run.ckpt_file))


def _check_log(file: Path) -> None:
    if not file.exists():
        return
    if not file.is_file():
        raise ConfigError(f"run.log_file {file}: expected a file, found a folder or a device; give another name")
    with file.open("rb") as content:
        first = content.readline(100)
    if first and not LINE.match(first.decode("utf-8", "replace")):
        raise ConfigError(f"run.log_file {file}: expected a log of train.py or no file, found another; move it away")


def _check_checkpoint(file: Path) -> None:
    expected = f"run.ckpt_file {file}: expected the name of a file for a copy of the best checkpoint"
    if file.is_dir():
        raise ConfigError(f"{expected}, found a folder")
    if any((file.parent / name).is_file() for name in (checkpoints.BEST, checkpoints.LAST)):
        raise ConfigError(f"{expected}, found the folder of a run around it; give a name elsewhere")
    if file.exists():
        try:
            checkpoints.load(file)
        except CheckpointError:
            raise ConfigError(f"{expected}, found a file that is none; move it away or give another name") from None


def open_log_file(run: RunConfig) -> None:
    """Append the log also to the file that a configuration names, if it does."""
    if run.log_file:
        file = Path(run.log_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        log_also_to(file)


def copy_best(folder: Path, run: RunConfig) -> None:
    """Copy the best checkpoint of a run to the file that its configuration names, if it does."""
    if run.ckpt_file:
        file = Path(run.ckpt_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            shutil.copyfile(folder / checkpoints.BEST, temporary)
