"""Checkpoints: everything that evaluation, prediction and a resumed run need, in one safetensors file.

Tensors are named ``model/<parameter>``, ``ema/<parameter>`` and ``optimizer/<name>``; the header holds one JSON text
with the configuration, task, normaliser, elements, progress with history, and versions.  Nothing is ever unpickled, a
truncated or foreign file is one clear error, and a file is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from training.earlier_layout import todays_arrays, todays_information
from training.files import one_line, replacing

FORMAT, EARLIER = "geospore-checkpoint-2", "geospore-checkpoint-1"  # the earlier one is still read
BEST, LAST = "best.safetensors", "last.safetensors"
GROUPS = ("model", "ema", "optimizer")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line with what was expected, what came and what to do."""

    exit_code = 2


@dataclass
class Checkpoint:
    """Contents of a checkpoint file.

    Attributes:
        model: parameters by name, buffers included.
        ema: their exponential moving average; empty when the run keeps none.
        optimizer: moments and step counter; empty in a converted or best checkpoint.
        information: what JSON can hold: ``config``, ``task``, ``normalizer``, ``elements``, ``versions`` and, where a
            run wrote it, ``source`` and ``split`` of its data, the ``range`` that its training structures covered (see
            ``data_tools.coverage.learned_range``) and its ``progress``.
    """

    model: dict[str, np.ndarray]
    ema: dict[str, np.ndarray] = field(default_factory=dict)
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    information: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters to evaluate with: the moving average where there is one."""
        return {**self.model, **self.ema}


def save(path: str | Path, checkpoint: Checkpoint, keep: int = 1) -> None:
    """Write a checkpoint: first under a temporary name in the same folder, flushed to disk, then renamed.

    Args:
        path: the file.
        checkpoint: its content.
        keep: with 2, the file that was there becomes ``<name>-1.safetensors``; with 3, that one ``-2``, and so on.
    """
    path = Path(path)
    tensors = {
        f"{group}/{name}": np.asarray(value, order="C")
        for group in GROUPS
        for name, value in getattr(checkpoint, group).items()
    }
    information = json.dumps(checkpoint.information, allow_nan=True)
    header = {"format": FORMAT, "checksum": str(_checksum(tensors, information)), "information": information}
    path.parent.mkdir(parents=True, exist_ok=True)
    # not by safetensors itself, whose files only their owner may read
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(to_bytes(tensors, metadata=header))
        file.flush()
        os.fsync(file.fileno())
        for age in range(keep - 1, 0, -1):
            if (earlier := _aged(path, age - 1)).is_file():
                earlier.replace(_aged(path, age))


def _aged(path: Path, age: int) -> Path:
    """The name of a file that ``age`` newer ones have replaced."""
    return path.with_stem(f"{path.stem}-{age}") if age else path


def newest(folder: Path, skipped: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint in a run folder that can be resumed; ``skipped`` is told of each that is damaged.

    Raises:
        CheckpointError: there is none, or none is whole.
    """
    files = [folder / LAST, *sorted(folder.glob(f"{Path(LAST).stem}-[0-9]*.safetensors"), key=_age)]
    files = [file for file in files if file.is_file()]
    if not files:
        raise CheckpointError(f"{folder / LAST}: expected a checkpoint to resume from, found nothing there")
    for file in files[:-1]:
        try:
            return load(file)
        except CheckpointError as error:
            skipped(str(error))
    return load(files[-1])


def tidy(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for file in folder.glob(".*.partial-*"):
        file.unlink(missing_ok=True)


def _age(path: Path) -> int:
    return int(path.stem.rpartition("-")[2]) if path.stem.rpartition("-")[2].isdigit() else 0


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint file, or the best (else the last) checkpoint of a run folder.

    Raises:
        CheckpointError: no such file, not a checkpoint of this project, truncated or damaged.
    """
    path = find(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    # AttributeError: numbers of 8 or 4 bits, which NumPy lacks; MemoryError: a file that cannot be mapped
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, MemoryError) as error:
        if path.suffix == ".ckpt":
            raise CheckpointError(
                f"{path}: expected a checkpoint of train.py, found one of MindSpore or a damaged one; "
                "scripts/convert_weights.py converts weights under the names of a model's authors"
            ) from None
        reason = one_line(error)[:200]
        raise CheckpointError(f"{path}: expected a checkpoint, but it is truncated or damaged ({reason})") from None
    if header.get("format") not in (FORMAT, EARLIER):
        raise CheckpointError(
            f"{path}: expected a checkpoint written by train.py or convert_weights.py ({FORMAT}), "
            f"got {one_line(header.get('format') or 'a foreign safetensors file')[:200]}; "
            "convert foreign weights with convert_weights.py"
        )
    try:
        information = json.loads(header["information"])
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = value
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({one_line(error)[:200]})") from None
    if not isinstance(information, dict):
        raise CheckpointError(f"{path}: the checkpoint is damaged (it does not describe itself)")
    if header.get("checksum") != str(_checksum(tensors, header["information"])):
        raise CheckpointError(f"{path}: the checksum differs, the file is damaged; use another checkpoint")
    if header["format"] == EARLIER:
        information = todays_information(information, groups["model"])
        groups = {group: todays_arrays(arrays) for group, arrays in groups.items()}
    return Checkpoint(**groups, information=information)


def information_of(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says about itself, by its header alone; empty where it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = json.loads((file.metadata() or {})["information"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def load_weights(path: str | Path) -> Checkpoint:
    """As ``load``, for whom the weights are meant to be good for something.

    Raises:
        CheckpointError: as ``load``, or the state before the first step of a run.
    """
    checkpoint = load(path)
    progress = checkpoint.information.get("progress")
    if checkpoint.optimizer and isinstance(progress, dict) and progress.get("step") == 0:  # not converted weights
        raise CheckpointError(
            f"{find(path)}: expected trained weights, this run has not saved any step yet; wait for its first epoch or "
            "continue it with --resume"
        )
    return checkpoint


def find(path: str | Path) -> Path:
    """The checkpoint file that a file or a run folder stands for.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        for name in (BEST, LAST):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(f"{path}: expected {BEST} or {LAST} in this run folder, found neither")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint file or a run folder, found nothing there")
    return path


def _checksum(tensors: Mapping[str, np.ndarray], information: str) -> int:
    total = zlib.crc32(information.encode())
    for key in sorted(tensors):
        array = tensors[key]
        total = zlib.crc32(array.tobytes(), zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), total))
    return total
