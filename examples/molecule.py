"""What the examples share: which potential, which molecule, and how long the rest takes."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("molecule.py is a part of the programs beside it: see python examples/optimise.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms

from configs.loading import ConfigError
from data_tools.graph import DataError
from experiment.command_line import CommandLine, exit_code
from experiment.trained import load_calculator
from physics.calculator import OutsideWarning, UndeterminedEnergy
from training.files import clock, one_line

#: a small SchNet trained on 950 frames of ethanol; see the README beside it
SHIPPED = Path(__file__).resolve().parents[1] / "data_tools" / "samples" / "ethanol_schnet.safetensors"
RATTLE = 0.1  # Angstrom


def parser(description: str | None) -> CommandLine:
    """The options of every example."""
    options = CommandLine(description=description)
    options.add_argument(
        "--ckpt", metavar="RUN", default=str(SHIPPED), help="run folder or checkpoint; default: the shipped ethanol"
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


def read_molecule(file: str | None) -> Atoms:
    """The first geometry of a file; without one, a distorted ethanol.

    Raises:
        DataError: ASE cannot read the file, or finds no atoms in it.
    """
    if file is None:
        return distorted_ethanol()
    try:
        atoms = next(ase.io.iread(file), Atoms())
    except Exception as error:  # every format has errors of its own
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{file}: expected a geometry that ASE reads, got: {reason}") from None
    if not len(atoms) or not np.isfinite(atoms.positions).all():
        raise DataError(f"{file}: expected a geometry of atoms with finite coordinates, found none")
    return atoms


def check_output(file: str | None, suffix: str = "") -> None:
    """Before hours of work: whether a file can be written, by its folder and its ending.

    Args:
        file: what --output names; None: nothing will be written.
        suffix: the only ending that will do; empty: any that ASE writes.

    Raises:
        ConfigError: it cannot.
    """
    if file is None:
        return
    path = Path(file)
    if not path.name or path.is_dir():
        raise ConfigError(f"--output {file}: expected the name of a file, this is a folder")
    if suffix and path.suffix != suffix:
        raise ConfigError(f"--output {file}: expected a name that ends in {suffix}")
    if not suffix and not can_write(path.name):
        raise ConfigError(f"--output {file}: ASE writes no format of this ending; give for example {path.stem}.xyz")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError("the file is write-protected")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--output {file}: cannot be written there ({error.strerror or error})") from None


def can_write(name: str) -> bool:
    """Whether ASE writes a molecule to a file of this name: tried, for a format may need more than it has."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            ase.build.molecule("H2O").write(Path(folder) / name)
        except Exception:  # every format has errors of its own
            return False
    return True


def open_molecule(file: str | None, checkpoint: str, dtype: str) -> Atoms:
    """The molecule with its calculator.

    Raises:
        DataError: ASE cannot read the file.
    """
    atoms = read_molecule(file)
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
        path = Path(file)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            written = Path(folder) / path.name  # the name tells ASE the format
            atoms.write(written)
            os.replace(written, path)
        print(f"wrote {file}")


def positive(text: str) -> float:
    """The value of an option that is a finite number above 0.

    Raises:
        ArgumentTypeError: it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text}")
    return value


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
