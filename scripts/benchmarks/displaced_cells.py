"""Write structures with displaced atoms and their harmonic energies and forces, for a training on forces.

    python scripts/benchmarks/displaced_cells.py --data runs/train.npz --split runs/train_split.npz \
        --output runs/displaced.extxyz

Every training cell of a file of scripts/fold_crystals.py gives one structure: all atoms are displaced at random by u,
with E = u Phi u / 2 and F = -Phi u of the published force constants Phi.  It is what a potential learns from where only
energies and forces of displaced structures are known, without what a DFT calculation would add in anharmonic terms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy", "tqdm", "ase"))

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError
from data_tools.labels.splits import load_split
from data_tools.progress_bar import track
from experiment.command_line import exit_code
from physics.force_constants import full_of
from scripts.help_defaults import Defaults

DISPLACEMENT = 0.03  # Angstrom, standard deviation of each component


def displaced(crystal: Crystal, random: np.random.Generator) -> Atoms:
    """The crystal with every atom displaced, with energy (eV, 0 at rest) and forces (eV/Angstrom)."""
    moved = random.normal(0.0, DISPLACEMENT, (crystal.n_atoms, 3))
    forces = -np.einsum("ijab,jb->ia", full_of(crystal), moved)
    atoms = Atoms(crystal.supercell.numbers, crystal.supercell.positions + moved, cell=crystal.supercell.cell, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-0.5 * float((forces * moved).sum()), forces=forces)
    return atoms


def write_displaced(data: Path, split: Path, output: Path, seed: int) -> int:
    """Write one displaced structure for each training cell; returns how many.

    Raises:
        DataError: files that cannot be read, or a name without the ending .extxyz.
    """
    if output.suffix != ".extxyz" or output.is_dir():
        raise DataError(f"{output}: expected a file with the ending .extxyz to write")
    table, rows = read_crystal_file(data).table, load_split(split).train
    random = np.random.default_rng(seed)
    frames = [
        displaced(crystal_of(table, row), random) for row in track(rows.tolist(), "displaced", "cells", len(rows), True)
    ]
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        write(temporary, frames, format="extxyz")
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    return len(frames)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="packed file of scripts/fold_crystals.py")
    parser.add_argument("--split", type=Path, required=True, help="its split")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="to write, .extxyz")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements")
    options = parser.parse_args(arguments)
    try:
        count = write_displaced(options.data, options.split, options.output, options.seed)
    except (DataError, OSError, KeyboardInterrupt) as error:
        return exit_code(error)
    print(f"wrote {options.output}: {count:,} structures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
