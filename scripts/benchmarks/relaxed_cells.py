"""Relax crystals with trained potentials, and compare their cells with the published ones.

    python scripts/benchmarks/relaxed_cells.py --ckpt data_tools/samples/phonons_1.safetensors \
        --data runs/phonondb.npz --rows results/force_constants/test.txt \
        --page results/force_constants/relaxed_cells.md

Atoms and cell of each primitive cell go to a minimum of the energy, as ``scripts/phonon.py --relax`` takes them there.
The published cells are those of a minimum in DFT, so that every change is an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import json

import numpy as np

from data_tools.crystals import Crystal
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, Structure
from data_tools.tables import select_rows
from experiment.command_line import exit_code
from experiment.evaluation.second_derivatives import crystals_of
from experiment.provenance import Command, command_of
from experiment.trained import load_calculator
from physics.energy_checks import atoms_of
from physics.relaxation import relax
from physics.several_potentials import mean_of
from scripts.benchmarks.judge_potentials import rows_of
from scripts.fold_crystals import names_of
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/relaxed_cells.py"
PRESSURE = 160.21766208  # GPa in one eV/Angstrom^3


class Cell(NamedTuple):
    """What became of one material.

    Attributes:
        name: of the material.
        pressure: at the published cell, GPa.
        force: largest force on an atom there, eV/Angstrom.
        volume: change, percent.
        length: largest change of a lattice vector, percent.
        moved: root mean square change of the atoms' fractional coordinates, in published vectors, Angstrom.
        converged: whether the relaxation has reached its end.
    """

    name: str
    pressure: float
    force: float
    volume: float
    length: float
    moved: float
    converged: bool


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", nargs="+", required=True, help="run folders or checkpoints; of several the mean")
    parser.add_argument("--data", type=Path, required=True, help="packed file with the materials")
    parser.add_argument("--rows", type=Path, required=True, help="text file with their names")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="of the arithmetic")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def primitive(crystal: Crystal) -> Structure:
    """The atoms of the primitive cell."""
    numbers, positions = crystal.supercell.numbers[crystal.p2s], crystal.supercell.positions[crystal.p2s]
    return Structure(numbers, positions, crystal.primitive_cell, crystal.name)


def relaxed(structure: Structure, calculator: Any) -> Cell:
    """Relax one structure.

    Raises:
        DataError: it flies apart.
    """
    assert structure.cell is not None
    atoms = atoms_of(structure, calculator)
    pressure = -float(atoms.get_stress(voigt=False).trace()) / 3 * PRESSURE
    force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    end = relax(structure, calculator)
    assert end.structure.cell is not None
    before, after = (np.linalg.norm(cell, axis=1) for cell in (structure.cell, end.structure.cell))
    change: np.ndarray = end.structure.positions @ np.linalg.inv(end.structure.cell)
    change = change - structure.positions @ np.linalg.inv(structure.cell)
    change = (change - change.mean(axis=0)) @ structure.cell
    length = float(100 * np.abs(after / before - 1).max())
    moved = float(np.sqrt((change**2).sum(axis=1).mean()))
    return Cell(structure.name, pressure, force, 100 * (end.volume - 1), length, moved, end.converged)


def table(cells: Sequence[Cell]) -> list[str]:
    """Mean, median, nine tenths and largest of the sizes of what changed."""
    lines = ["| | unit | mean | median | 9 of 10 below | largest |", "|---|---|---|---|---|---|"]
    rows = [
        ("pressure at the published cell", "GPa", "pressure"),
        ("largest force there", "eV/A", "force"),
        ("change of the volume", "%", "volume"),
        ("largest change of a lattice vector", "%", "length"),
        ("displacement of the atoms in the cell", "A", "moved"),
    ]
    for words, unit, key in rows:
        sizes = np.abs([getattr(cell, key) for cell in cells])
        numbers = (sizes.mean(), np.median(sizes), np.percentile(sizes, 90), sizes.max())
        lines.append(f"| {words} | {unit} | " + " | ".join(f"{number:.3g}" for number in numbers) + " |")
    return lines


def page(cells: Sequence[Cell], failed: Sequence[str], command: Command, seconds: float, potentials: int) -> str:
    """The Markdown page."""
    volumes = np.array([cell.volume for cell in cells])
    worst = sorted(cells, key=lambda cell: -abs(cell.volume))[:5]
    lines = [
        "# Cells relaxed with the potentials that ship, beside the published ones",
        "",
        f"{len(cells) + len(failed)} materials that none of the potentials has learned from (the test materials of "
        "[potentials.md](potentials.md)), each from its published primitive cell, a minimum of PBEsol: atoms and cell "
        "by FIRE to 0.001 eV/A, the space group kept, as `scripts/phonon.py --relax` does it. What they have learned "
        "of stress: [potential_training.md](potential_training.md).",
        "",
        "```bash",
        command.text,
        "```",
        "",
        *table(cells),
        "",
        f"Within 1 % of the published volume: {int((np.abs(volumes) < 1).sum())} of {len(cells)}; within 3 %: "
        f"{int((np.abs(volumes) < 3).sum())}. Mean change of the volume {volumes.mean():+.2f} %, not converged after "
        f"500 steps: {sum(not cell.converged for cell in cells)}; without a result: {', '.join(failed) or 'none'}.",
        "Largest changes of the volume: " + ", ".join(f"{cell.name} {cell.volume:+.1f} %" for cell in worst) + ".",
        "",
        f"Potentials: {potentials}; CPU time: {seconds:.0f} s, of which compilation is a part.",
    ]
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, command: Command) -> None:
    """Relax, print, write.

    Raises:
        DataError, ConfigError: a file that does not fit.
    """
    names = names_of(options.rows)
    whole = read_crystal_file(options.data).table
    rows = rows_of(whole, names)
    structures = [primitive(crystal) for crystal in crystals_of(select_rows(whole, rows), np.arange(len(rows)))]
    structures.sort(key=lambda structure: -len(structure.numbers))  # few shapes to compile
    calculator = mean_of([load_calculator(path, options.dtype) for path in options.ckpt])
    cells, failed, started = [], [], time.process_time()
    for structure in structures:
        try:
            cells.append(relaxed(structure, calculator))
        except DataError as error:
            failed.append(structure.name)
            print(f"{structure.name}: {error}", flush=True)
            continue
        print(f"{structure.name} ({len(structure.numbers)} atoms): {cells[-1]}", flush=True)
    if not cells:
        raise DataError("no material could be relaxed")
    print("\n".join(table(cells)), flush=True)
    if options.page:
        text = page(cells, failed, command, time.process_time() - started, len(options.ckpt))
        write_text(options.page, text)
        record = {**command.record(), "cells": [cell._asdict() for cell in cells], "failed": failed}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        run(parse(arguments), command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
