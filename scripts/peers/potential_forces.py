"""Forces of an ASE calculator in displaced supercells: the part of potentials.py that runs where the potential is.

    python scripts/peers/potential_forces.py --calculator chgnet --displaced FOLDER --output FOLDER

Each file NAME.npz of the first folder holds numbers (n,), cell (3, 3) and positions (D, n, 3) in Angstrom; NAME.npz of
the second gets forces (D, n, 3) in eV/Angstrom, CPU seconds and the sha256 of the first.  A file that is there already
and belongs to the same cells is kept, so an interrupted run goes on.  about.json says which packages computed them.
Needs NumPy, ASE and the calculator.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from experiment.startup import begin

    begin(("numpy", "ase"), "requirements-parity.txt")

import argparse
import hashlib
import importlib
import json
import platform
import time
from importlib import metadata
from typing import Any

import numpy as np
from ase import Atoms

BAD_INPUT = 2
ABOUT = "about.json"
#: short names: module, class and arguments
NAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chgnet": ("chgnet.model.dynamics", "CHGNetCalculator", {"use_device": "cpu"}),
    "7net-0": ("sevenn.calculator", "SevenNetCalculator", {"model": "7net-0", "device": "cpu"}),
    "7net-l3i5": ("sevenn.calculator", "SevenNetCalculator", {"model": "7net-l3i5", "device": "cpu"}),
}


class CalculatorError(Exception):
    """The calculator cannot be made."""

    exit_code = BAD_INPUT


def calculator_of(name: str) -> Any:
    """An ASE calculator.

    Args:
        name: a key of ``NAMED``, or ``module:Class`` of a class that needs no arguments.

    Raises:
        CalculatorError: there is no such class here, or it cannot be made.
    """
    module, colon, attribute = name.partition(":")
    if name not in NAMED and not (colon and module and attribute):
        raise CalculatorError(f"--calculator: expected {', '.join(NAMED)} or module:Class, got {name}")
    module, attribute, arguments = NAMED.get(name, (module, attribute, {}))
    try:
        return getattr(importlib.import_module(module), attribute)(**arguments)
    except Exception as fault:
        raise CalculatorError(
            f"--calculator {name}: {module}:{attribute} cannot be made ({type(fault).__name__}: {fault});"
            f" install it for {sys.executable}, see requirements-parity.txt"
        ) from fault


def forces_of(calculator: Any, numbers: np.ndarray, cell: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Forces (D, n, 3) in eV/Angstrom at positions (D, n, 3)."""
    atoms = Atoms(numbers=numbers, cell=cell, positions=positions[0], pbc=True)
    atoms.calc = calculator
    forces = np.empty(positions.shape)
    for place, where in enumerate(positions):
        atoms.positions[:] = where
        forces[place] = atoms.get_forces()
    return forces


def sha256(path: Path) -> str:
    """Of the content of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def belongs_to(path: Path, digest: str) -> bool:
    """Whether the file of forces exists and was made from the cells with this sha256."""
    if not path.is_file():
        return False
    with np.load(path) as arrays:
        return str(arrays["displaced_sha256"]) == digest


def compute(calculator: Any, source: Path, target: Path) -> float:
    """Forces of one file, written whole or not at all; returns CPU seconds."""
    with np.load(source) as arrays:
        numbers, cell, positions = arrays["numbers"], arrays["cell"], arrays["positions"]
    start = time.process_time()
    forces = forces_of(calculator, numbers, cell, positions)
    seconds = time.process_time() - start
    if not np.isfinite(forces).all():
        raise ArithmeticError("forces are NaN or infinite")
    temporary = target.with_name(f".{target.name}.partial")
    with temporary.open("wb") as file:
        np.savez(file, forces=forces, cpu_seconds=seconds, displaced_sha256=sha256(source))
    temporary.replace(target)
    return seconds


def packages_of(calculator: str) -> dict[str, str]:
    """Versions of Python and of what computes the forces."""
    module = NAMED[calculator][0] if calculator in NAMED else calculator.partition(":")[0]
    found = {"Python": platform.python_version()}
    for name in (module.partition(".")[0], "torch", "ase", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calculator", required=True, help=f"{', '.join(NAMED)} or module:Class")
    parser.add_argument("--displaced", type=Path, required=True, help="folder of displaced supercells")
    parser.add_argument("--output", type=Path, required=True, help="folder of forces")
    parser.add_argument("--threads", type=int, default=1, help="of torch, where it is there")
    options = parser.parse_args()
    try:
        calculator = calculator_of(options.calculator)
    except CalculatorError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    options.output.mkdir(parents=True, exist_ok=True)
    files = sorted(options.displaced.glob("*.npz"))
    missing = [path for path in files if not belongs_to(options.output / path.name, sha256(path))]
    print(f"{options.calculator}: {len(files) - len(missing)} of {len(files)} materials are there", flush=True)
    about = {"calculator": options.calculator, "threads": options.threads, "packages": packages_of(options.calculator)}
    (options.output / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(options.threads)
    for path in missing:
        try:
            seconds = compute(calculator, path, options.output / path.name)
        except Exception as fault:  # of the calculator: one material less, the others go on
            print(f"skipped {path.stem}: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
            continue
        print(f"{path.stem}: {seconds:.2f} CPU s", flush=True)


if __name__ == "__main__":
    main()
