"""Crystals relaxed to a minimum of the energy of an ASE calculator: atoms and cell together, their symmetry kept."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from data_tools.graph import DataError, Structure
from physics.energy_checks import atoms_of

FMAX = 0.001  # eV/Angstrom: the largest force, and stress times volume over atoms, at the end
STEPS = 500
SYMMETRY_TOLERANCE = 1e-3  # Angstrom: files round positions


class Relaxed(NamedTuple):
    """What a relaxation has led to.

    Attributes:
        structure: the relaxed crystal.
        steps: of FIRE.
        fmax: the largest force on an atom or, as the filter of the cell has it, on a lattice vector, eV/Angstrom.
        converged: whether that is below what was asked for.
        energy: eV an atom by which it has become lower.
        volume: by which factor it has changed.
    """

    structure: Structure
    steps: int
    fmax: float
    converged: bool
    energy: float
    volume: float


def relax(structure: Structure, calculator: Any, fmax: float = FMAX, steps: int = STEPS) -> Relaxed:
    """Atoms and cell by FIRE, which needs the stress of the calculator; the space group is kept.

    Args:
        structure: a crystal.
        calculator: an ASE calculator.
        fmax: where to stop, eV/Angstrom.
        steps: at most.

    Raises:
        DataError: the calculator has no stress, or the atoms fly apart.
    """
    atoms = atoms_of(structure, calculator)
    name = structure.name or str(atoms.symbols)
    try:
        before, volume = atoms.get_potential_energy(), atoms.get_volume()
        atoms.get_stress()
    except DataError:  # of this project's own calculator, which says what is missing
        raise
    except (PropertyNotImplementedError, NotImplementedError):
        raise DataError(
            f"{name}: expected a calculator with energy and stress to relax the cell, {type(calculator).__name__} "
            "lacks one; relax the structure with another program and leave --relax out"
        ) from None
    try:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMMETRY_TOLERANCE))
        filtered = FrechetCellFilter(atoms)
        optimiser = FIRE(filtered, logfile=None)
        converged = bool(optimiser.run(fmax=fmax, steps=steps))
        forces = np.linalg.norm(filtered.get_forces(), axis=1)
    except Exception as error:  # of whatever calculator, or of a cell that it has torn apart
        said = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name}: expected a structure near a minimum of the energy, its relaxation fails ({type(error).__name__}: "
            f"{said}); relax it with another program and leave --relax out"
        ) from None
    if not np.isfinite(forces).all() or not np.isfinite(atoms.positions).all():
        raise DataError(f"{name}: the relaxation has led to positions or forces that are not finite; leave --relax out")
    return Relaxed(
        dataclasses.replace(structure, positions=atoms.get_positions(), cell=np.array(atoms.cell)),
        int(optimiser.nsteps),
        float(forces.max()),
        converged,
        float(before - atoms.get_potential_energy()) / len(atoms),
        float(atoms.get_volume() / volume),
    )
