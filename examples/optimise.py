"""Find the nearest minimum of a trained potential: geometry optimisation by ASE's BFGS.

python examples/optimise.py
python examples/optimise.py --ckpt runs/RUN --input molecule.xyz --fmax 0.01 --output minimum.xyz
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a molecule is too small for several threads: they are 4 times slower
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from configs.loading import ConfigError
from examples.molecule import (
    check_output,
    energy_in_words,
    open_molecule,
    parser,
    positive,
    run,
    write_geometry,
)

STEPS = 500


def largest_force(atoms: Atoms) -> float:
    """The length of the largest force on an atom, eV/Angstrom."""
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


class ByForces(BFGS):
    """BFGS by the forces alone; ASE's asks for the energy at each step, to write it or not."""

    def log(self, gradient: np.ndarray) -> None:
        """Nothing: the program has lines of its own."""


def minimise(atoms: Atoms, fmax: float, steps: int = STEPS) -> int:
    """Move the atoms to a minimum, with a line for each step.

    Args:
        atoms: with a calculator.
        fmax: largest force on an atom at the end, eV/Angstrom.
        steps: the most steps.

    Returns:
        steps made.

    Raises:
        ConfigError: the forces are still larger after so many steps.
    """
    optimiser = ByForces(atoms, logfile=None)

    def report() -> None:
        words, force = energy_in_words(atoms), largest_force(atoms)
        print(f"step {optimiser.nsteps:3d}  {words}  largest force {force:.6f} eV/A", flush=True)

    optimiser.attach(report)
    if not optimiser.run(fmax=fmax, steps=steps):
        raise ConfigError(
            f"largest force {largest_force(atoms):.3g} eV/A after {steps} steps, expected {fmax:g} or less"
        )
    return optimiser.nsteps


def main(arguments: list[str] | None = None) -> None:
    """Optimise and write the geometry."""
    options = parser(__doc__)
    options.add_argument("--fmax", type=positive, default=0.01, help="largest force at the end, eV/A; %(default)s")
    chosen = options.parse_args(arguments)
    check_output(chosen.output)
    atoms = open_molecule(chosen.input, chosen.ckpt, chosen.dtype)
    steps = minimise(atoms, chosen.fmax)
    print(f"minimum after {steps} steps: {energy_in_words(atoms)}, largest force {largest_force(atoms):.6f} eV/A")
    write_geometry(atoms, chosen.output)


if __name__ == "__main__":
    sys.exit(run(main))
