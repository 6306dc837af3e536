"""Runs of seconds: a small file of real molecules, and the options that cut a profile down to a few steps."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from published_files import PACKED

import train
from training import checkpoint as checkpoints

REPOSITORY = Path(__file__).parents[1]
PROFILES = sorted((REPOSITORY / "configs").glob("*/*.yaml"))
MINI = REPOSITORY / "configs" / "schnet" / "qm9_mini.yaml"
SMALL: dict[str, Any] = {
    "data.split": "random",
    "data.train_size": 32,
    "data.valid_size": 12,
    "data.test_size": 12,
    "data.shapes": 1,  # each shape is one compilation
    "training.epochs": 1,
    "training.batch_size": 16,
    "run.plots": "false",
}
#: a network that compiles fast, with every ``auto`` of the target left to the program
LIGHT: dict[str, Any] = {
    "model.blocks": 1,
    "model.features": 8,
    "model.filters": 8,
    "model.gaussians": 8,
    "target.readout": "auto",
    "target.standardisation": "auto",
}


def write_molecules(path: Path, rows: Iterable[int], labels: bool = True) -> Path:
    """Some of the shipped molecules in the packed layout, with their labels and their names in Cormorant's split."""
    rows = np.array(list(rows))
    with np.load(PACKED) as shipped:
        arrays = {name: shipped[name] for name in shipped.files}
    total = len(arrays["n_atoms"])
    owner = np.repeat(np.arange(total), arrays["n_atoms"])
    atoms = np.concatenate([np.flatnonzero(owner == row) for row in rows])
    kept = {name: array[rows] for name, array in arrays.items() if len(array) == total}
    if not labels:
        kept = {name: kept[name] for name in ("n_atoms", "gdb_index")}
    np.savez(path, **kept, Z=arrays["Z"][atoms], R=arrays["R"][atoms])
    return path


def rows_with(element: int, label: str) -> np.ndarray:
    """Shipped molecules that hold an element and have a label in Cormorant's split."""
    with np.load(PACKED) as shipped:
        starts = np.cumsum(shipped["n_atoms"]) - shipped["n_atoms"]
        holds = np.add.reduceat(shipped["Z"] == element, starts.astype(np.int64)) > 0
        return np.flatnonzero(holds & (shipped["split"].astype(str) == label))


def options(file: Path | str, output: Path, *extra: str, **settings: Any) -> list[str]:
    """The command line of a small run; ``settings`` are ``section__key=value``."""
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    pairs = {"data.file": file, "run.output": output, **SMALL, **changed}
    return [*extra, *(word for key, value in pairs.items() for word in ("--set", f"{key}={value}"))]


def changes(text: str) -> list[str]:
    """``section.key=value`` pairs with blanks between them as options."""
    return [word for pair in text.split() for word in ("--set", pair)]


def light(**settings: Any) -> dict[str, Any]:
    """Settings of a run whose network compiles fast."""
    return {**{key.replace(".", "__"): value for key, value in LIGHT.items()}, **settings}


def small_run(molecules: Path, folder: Path, *extra: str, **settings: Any) -> Path:
    """Train a network that compiles fast; returns the folder."""
    assert train.main(options(molecules, folder, "--config", str(MINI), *extra, **light(**settings))) == 0
    return folder


def files_and_a_run(folder: Path) -> Path:
    """Fill a folder with good and bad files, and a finished run in ``run``; returns it."""
    write_molecules(folder / "molecules.npz", range(80))
    write_molecules(folder / "unlabelled.npz", range(80), labels=False)
    whole = (folder / "molecules.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    checkpoint = (small_run(folder / "molecules.npz", folder / "run") / "best.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(checkpoint[: len(checkpoint) // 2])
    damaged = bytearray(checkpoint)
    damaged[-9] ^= 1
    (folder / "damaged.safetensors").write_bytes(damaged)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "config.yaml").write_bytes((folder / "run" / "config.yaml").read_bytes())
    (folder / "no_yaml.yaml").write_text("model: {features: 3")
    (folder / "list.yaml").write_text("- model\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "section.yaml").write_text("optimiser: {lr: 1.0}\n")
    (folder / "key.yaml").write_text("training: {epoch: 3}\n")
    (folder / "type.yaml").write_text("training: {epochs: three}\n")
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    """One column as numbers."""
    return np.array([float(row[name]) for row in rows])


def changed_copy(path, source, change=None, factor=1.01):
    """A checkpoint with other weights, about which it may say other things."""
    found = checkpoints.load(source)
    weights = {
        name: (array * factor).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in found.weights.items()
    }
    information = json.loads(json.dumps(found.information))
    if change:
        change(information)
    checkpoints.save(path, checkpoints.Checkpoint(weights, information=information))
    return path
