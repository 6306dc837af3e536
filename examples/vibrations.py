"""Vibrational frequencies of a molecule from the exact Hessian of a trained potential, beside finite differences.

    python examples/vibrations.py
    python examples/vibrations.py --ckpt runs/RUN --input molecule.xyz

The geometry is optimised first.  With M the masses of the 3N coordinates, the eigenvalues of

    (1)  D = P M^(-1/2) H M^(-1/2) P          P projects translations and rotations out

are the squares of the angular frequencies.  ASE's ``Vibrations`` moves each atom by a small step instead and takes
differences of the forces of the same calculator.  An imaginary frequency (no minimum) is shown as a negative number.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a molecule is too small for several threads: they are 4 times slower
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np
from ase import Atoms, units
from ase.vibrations import Vibrations

from examples.molecule import check_output, open_molecule, parser, positive, run, write_geometry
from examples.optimise import minimise

FMAX = 1e-4  # eV/Angstrom
STEP = 0.002  # Angstrom; the error of anharmonicity grows with its square, to some 1/cm at 0.01
#: 1/cm of the angular frequency whose square is 1 eV/Angstrom^2/u
WAVENUMBER = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm


def rigid_motions(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Translations and rotations of a molecule as orthonormal columns in mass-weighted coordinates.

    Args:
        positions: (N, 3) Angstrom.
        masses: (N,).

    Returns:
        (3N, K), K = 6, or 5 for a linear molecule and 3 for an atom.
    """
    centred = positions - masses @ positions / masses.sum()
    axes = np.eye(3)
    fields = [np.tile(axis, (len(masses), 1)) for axis in axes] + [np.cross(axis, centred) for axis in axes]
    columns = np.stack([(field * np.sqrt(masses)[:, None]).ravel() for field in fields], axis=1)
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return basis[:, sizes > 1e-6 * sizes[0]]


def frequencies(hessian: np.ndarray, positions: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the vibrations, equation (1), and what the unprojected Hessian gives for the rigid motions.

    Args:
        hessian: (3N, 3N) eV/Angstrom^2.
        positions: (N, 3) Angstrom.
        masses: (N,) u.

    Returns:
        (3N - K,) and (K,) 1/cm, ascending; negative for imaginary ones.
    """
    weights = np.repeat(1.0 / np.sqrt(masses), 3)
    dynamical = weights[:, None] * (hessian + hessian.T) / 2 * weights
    rigid = rigid_motions(positions, masses)
    projector = np.eye(len(weights)) - rigid @ rigid.T
    values, modes = np.linalg.eigh(projector @ dynamical @ projector)
    rigidity = np.linalg.norm(rigid.T @ modes, axis=0)  # 1 for what was projected out, 0 for a vibration
    vibrations = np.sort(values[np.argsort(rigidity)[: len(weights) - rigid.shape[1]]])
    rest = np.linalg.eigvalsh(rigid.T @ dynamical @ rigid)
    return tuple(np.sign(part) * np.sqrt(np.abs(part)) * WAVENUMBER for part in (vibrations, rest))


def finite_differences(atoms: Atoms, step: float = STEP) -> np.ndarray:
    """(3N,) frequencies by ASE from 6N calls for forces, 1/cm, ascending; negative for imaginary ones."""
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=str(Path(folder) / "displaced"), delta=step)
        vibrations.run()
        values = vibrations.get_frequencies()
    return np.sort(values.real - values.imag)


def main(arguments: list[str] | None = None) -> None:
    """Optimise, print both sets of frequencies side by side and write the geometry."""
    options = parser(__doc__)
    options.add_argument("--step", type=positive, default=STEP, help="of the finite differences, A; %(default)s")
    chosen = options.parse_args(arguments)
    check_output(chosen.output)
    atoms = open_molecule(chosen.input, chosen.ckpt, chosen.dtype)
    minimise(atoms, FMAX)
    print("exact Hessian: compiling takes seconds", flush=True)
    exact, rigid = frequencies(atoms.calc.get_hessian(atoms), atoms.positions, atoms.get_masses())
    print(f"finite differences: {6 * len(atoms)} calls", flush=True)
    differences = finite_differences(atoms, chosen.step)
    differences = np.delete(differences, np.argsort(np.abs(differences))[: len(rigid)])
    print("mode   exact 1/cm   finite differences 1/cm   difference 1/cm")
    for mode, (one, other) in enumerate(zip(exact, differences, strict=True), 1):
        print(f"{mode:4d}   {one:10.2f}   {other:23.2f}   {one - other:15.3f}")
    print(f"largest difference {np.abs(exact - differences).max():.3f} 1/cm; {(exact < 0).sum()} imaginary frequencies")
    print(f"translations and rotations up to {np.abs(rigid).max():.2f} 1/cm, 0 at an exact minimum")
    print(f"zero-point energy {exact[exact > 0].sum() * units.invcm / 2:.4f} eV")
    write_geometry(atoms, chosen.output)


if __name__ == "__main__":
    sys.exit(run(main))
