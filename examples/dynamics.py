"""Molecular dynamics at constant energy with a trained potential, and how well the energy is conserved.

    python examples/dynamics.py                     10 ps
    python examples/dynamics.py --ckpt runs/RUN --input molecule.xyz --steps 20000 --output motion.traj

The geometry is optimised first; velocities are drawn at the given temperature, of which half goes into the potential
energy.  The drift is the slope of a straight line through the total energy.
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
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet

from examples.molecule import Progress, check_output, open_molecule, parser, positive, run
from examples.optimise import minimise

FMAX = 0.01  # eV/Angstrom
LINES = 20  # of progress
FRAMES = 1000  # of a trajectory


def start_moving(atoms: Atoms, temperature: float, seed: int = 0) -> None:
    """Velocities at a temperature (K), without drift or rotation of the whole."""
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)  # of the distribution of Maxwell and Boltzmann
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * widths[:, None])
    Stationary(atoms)
    ZeroRotation(atoms)


def drift(times: np.ndarray, energies: np.ndarray, atoms: int) -> float:
    """Slope of a straight line through total energies (eV) at times (ps): meV per atom and ps."""
    return float(np.polyfit(times, 1000.0 * (energies - energies[0]) / atoms, 1)[0])


def constant_energy(
    atoms: Atoms, steps: int, timestep: float, output: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Velocity Verlet with lines of progress.

    Args:
        atoms: with calculator and velocities.
        steps: how many.
        timestep: fs.
        output: a file for about 1000 frames.

    Returns:
        times (ps) and total energies (eV), both (steps + 1,).
    """
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    energies: list[float] = []
    progress = Progress(steps)

    def report() -> None:
        done = len(energies) - 1
        where = f"step {done}/{steps}  {done * timestep / 1000:.3f} ps  {atoms.get_temperature():.0f} K"
        print(f"{where}  total energy {energies[-1]:.6f} eV  {progress.words(done)}", flush=True)

    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.attach(report, interval=max(1, steps // LINES))
    if output:
        dynamics.attach(Trajectory(output, "w", atoms), interval=max(1, steps // FRAMES))
    dynamics.run(steps)
    return np.arange(steps + 1) * timestep / 1000, np.array(energies)


def main(arguments: list[str] | None = None) -> None:
    """Optimise, move, print the drift."""
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=20000, help="default: %(default)s")
    options.add_argument("--timestep", type=positive, default=0.5, help="fs; default: %(default)s")
    options.add_argument("--temperature", type=positive, default=300.0, help="of the start, K; default: %(default)s")
    chosen = options.parse_args(arguments)
    if chosen.steps < 1:
        options.error(f"argument --steps: expected 1 or more, got {chosen.steps}")
    check_output(chosen.output, ".traj")
    atoms = open_molecule(chosen.input, chosen.ckpt, chosen.dtype)
    minimise(atoms, FMAX)
    start_moving(atoms, chosen.temperature)
    searches = atoms.calc.neighbors.searches
    progress = Progress(chosen.steps)
    times, energies = constant_energy(atoms, chosen.steps, chosen.timestep, chosen.output)
    searches = atoms.calc.neighbors.searches - searches
    print(f"{progress.words(chosen.steps).split('  ')[0]}, {searches} neighbour searches in {chosen.steps} steps")
    print(f"energy drift {drift(times, energies, len(atoms)):.4f} meV/atom/ps, standard deviation of the total energy "
          f"{1000 * energies.std() / len(atoms):.4f} meV/atom")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
