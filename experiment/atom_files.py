"""The files of ``eval.py --atoms``: tables, extended xyz and pictures, in a folder that is written whole or not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.loading import ConfigError
from data_tools.formats.smiles_records import Record
from data_tools.formats.writers import atoms_text
from data_tools.tables import ELEMENTS, name_of_row
from experiment.atom_figures import plot_atoms
from experiment.atoms import CONTRIBUTION, INTEGRATED, WITHOUT_UNIT, AtomTable
from experiment.page_folder import REPORT, new_folder
from experiment.plot_style import picture
from experiment.prediction import warn
from experiment.prediction_files import STANDARD_OUTPUT
from experiment.provenance import Command
from experiment.trained import Trained
from training.files import write_rows, write_text

PROGRAM = "eval.py --atoms"
ATOMS, STRUCTURES, FRAMES = "atoms.csv", "structures.csv", "atoms.xyz"
MOST_PICTURES = 20


def place_of_atoms(output: str | None) -> Path | None:
    """The folder of ``--output``; None: standard output.  Nothing is made yet.

    Raises:
        ConfigError: a file, a folder that is not empty, or a name with a suffix.
    """
    if not output or output == STANDARD_OUTPUT:
        return None
    folder = Path(output)
    words = f"--output {output}: --atoms needs a new or empty folder for {ATOMS}, {FRAMES} and pictures"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{words}, found a file; choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{words}, found {min(one.name for one in folder.iterdir())}; choose another name")
    if not folder.exists() and folder.suffix in (".csv", ".xyz", ".extxyz", ".png"):
        raise ConfigError(f"{words}, found the suffix {folder.suffix}; choose another name")
    return folder


def heading(column: str, unit: str) -> str:
    """A column's name with its unit; attention has none."""
    return column if column in WITHOUT_UNIT else f"{column} [{unit}]"


def atom_rows(trained: Trained, atoms: AtomTable) -> list[dict[str, Any]]:
    """One row an atom: its structure, number from 1, element and all columns."""
    unit, table = trained.task.target.unit, atoms.table
    owner = np.repeat(np.arange(len(table)), table.n_atoms)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(table.n_atoms) - table.n_atoms, table.n_atoms)
    return [
        {"name": name_of_row(table, int(owner[k])), "atom": int(within[k]) + 1,
         "element": ELEMENTS[table.numbers[k] - 1]}
        | {heading(name, unit): _number(values[k]) for name, values in atoms.columns.items()}
        for k in range(len(owner))
    ]  # fmt: skip


def structure_rows(trained: Trained, atoms: AtomTable) -> list[dict[str, Any]]:
    """One row a structure: its prediction, that without elements, and what its atoms add up to."""
    target, table = trained.task.target, atoms.table
    sums = {name: atoms.sums(name) for name in (CONTRIBUTION, INTEGRATED) if name in atoms.columns}
    return [
        {
            "name": name_of_row(table, row),
            f"{target.name} [{target.unit}]": _number(atoms.predictions[row]),
            f"without elements [{target.unit}]": _number(atoms.without[row]),
            **{f"sum of {name} [{target.unit}]": _number(values[row]) for name, values in sums.items()},
            "error of completeness": f"{atoms.incomplete[row]:.1e}",
        }
        for row in range(len(table))
    ]


def _number(value: float) -> str:
    return f"{value:.10g}" if np.isfinite(value) else ""


def write_atoms(
    folder: Path,
    trained: Trained,
    atoms: AtomTable,
    records: Sequence[Record],
    command: Command,
    checkpoints: Sequence[Path],
) -> None:
    """Write all of it.

    Args:
        folder: new or empty.
        trained: the model.
        atoms: what it says.
        records: of SMILES, one a structure, whose bonds are drawn; empty: the structures are drawn in space.
        command: that was given.
        checkpoints: of the model, or of those whose mean it is.

    Raises:
        FolderError: something has come into the folder.
        OSError: it cannot be written.
    """
    target, table = trained.task.target, atoms.table
    with new_folder(folder, PROGRAM) as stage:
        write_rows(stage / ATOMS, atom_rows(trained, atoms))
        write_rows(stage / STRUCTURES, structure_rows(trained, atoms))
        entries = {target.name: atoms.predictions}
        write_text(stage / FRAMES, atoms_text(table, atoms.columns, target.unit, entries))
        for row in range(min(len(table), MOST_PICTURES)):
            name = re.sub(r"[^\w.-]+", "_", name_of_row(table, row))[:60].strip(".")
            with picture(stage / f"{row + 1:02d}_{name}.png") as path:
                plot_atoms(path, atoms, row, target, records[row] if records else None)
        files = sorted(one.name for one in stage.iterdir())
        names = [str(file) for file in checkpoints]
        about = {"program": PROGRAM, "files": files, "checkpoints": names, **command.record()}
        write_text(stage / REPORT, json.dumps(about, indent=2) + "\n")
    if len(table) > MOST_PICTURES:
        warn(f"pictures of the first {MOST_PICTURES} of {len(table)} structures")
    print(f"wrote {len(table.numbers)} atoms of {len(table)} structures to {folder}")
