"""What the examples share: which potential, which molecule, and how long the rest takes."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("molecule.py is a part of the programs beside it: see python examples/optimise.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms

from data_tools.graph import DataError
from physics.calculator import OutsideWarning, UndeterminedEnergy
from session import CommandLine, exit_code, load_calculator
from training.files import clock

#: a small SchNet trained on 950 frames of ethanol; see the README beside it
SHIPPED = Path(__file__).resolve().parents[1] / "data_tools" / "samples" / "ethanol_schnet.safetensors"
RATTLE = 0.1  # Angstrom


def parser(description: str | None) -> CommandLine:
    """The options of every example."""
    options = CommandLine(description=description)
    options.add_argument(
        "--ckpt", metavar="RUN", default=str(SHIPPED), help="run folder or checkpoint; an ethanol model"
    )
    options.add_argument("--input", metavar="FILE", help="a geometry that ASE reads; without it, a distorted ethanol")
    options.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="default: %(default)s")
    options.add_argument(
        "--output", metavar="FILE", help="write the geometry or the trajectory; the ending is the format"
    )
    return options


def distorted_ethanol(seed: int = 0) -> Atoms:
    """Ethanol, every coordinate displaced at random by 0.1 Angstrom."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(0.0, RATTLE, atoms.positions.shape)
    return atoms


def open_molecule(file: str | None, checkpoint: str, dtype: str) -> Atoms:
    """The molecule with its calculator.

    Raises:
        DataError: ASE cannot read the file.
    """
    if file is None:
        atoms = distorted_ethanol()
    else:
        try:
            atoms = next(ase.io.iread(file))
        except Exception as error:  # every format has errors of its own
            raise DataError(f"{file}: expected a geometry that ASE reads, got: {error}") from None
    atoms.calc = load_calculator(checkpoint, dtype)
    print(f"{atoms.symbols}, {len(atoms)} atoms; potential {checkpoint}, {dtype}; the first call compiles for seconds")
    return atoms


def energy_in_words(atoms: Atoms) -> str:
    """The potential energy; a molecule whose composition has no reference energy still has forces."""
    try:
        return f"energy {atoms.get_potential_energy():.6f} eV"
    except UndeterminedEnergy:
        return "no reference energy"


class Progress:
    """How fast a known number of steps goes, and how long the rest takes.

    Args:
        total: steps to make.
    """

    def __init__(self, total: int):
        self.total = total
        self.start = time.perf_counter()

    def words(self, done: int) -> str:
        """Rate and time left after ``done`` of the steps."""
        if not done:
            return "starting"
        rate = done / max(time.perf_counter() - self.start, 1e-9)
        return f"{rate:.0f} steps/s  ETA {clock((self.total - done) / max(rate, 1e-9))}"


def write_geometry(atoms: Atoms, file: str | None) -> None:
    """What --output asks for."""
    if file:
        atoms.write(file)
        print(f"wrote {file}")


def run(program: Callable[[list[str] | None], None], arguments: list[str] | None = None) -> int:
    """The exit code of a program, whose mistakes and warnings are lines and not tracebacks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", OutsideWarning)
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr, flush=True)
            program(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0
