"""The unit cell of one crystal from a file: POSCAR, cif, extended xyz and what else ASE reads, or a yaml of phonopy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from phonopy.interface.phonopy_yaml import PhonopyYaml

from data_tools.graph import DataError, Structure
from data_tools.source_files import one_line, require_file
from data_tools.units import BOHR

CLOSEST = 0.3  # Angstrom: nearer atoms are a mistake; hydrogen molecules have 0.74
FLATTEST = 1e-3  # volume over the product of the lengths of the lattice vectors
#: Angstrom, by the name that phonopy's files have for it
LENGTHS = {"angstrom": 1.0, "au": BOHR}
YAML = (".yaml", ".yml", ".yaml.xz", ".yaml.gz")


class UnitCell(NamedTuple):
    """A unit cell, and what a file of phonopy says about its supercell.

    Attributes:
        structure: the atoms of the cell.
        supercell: (3, 3) lattice vectors of the supercell as columns, in those of the cell; None: the file has none.
        primitive: (3, 3) the primitive cell likewise; None: the file has none.
    """

    structure: Structure
    supercell: np.ndarray | None = None
    primitive: np.ndarray | None = None


def read_unit_cell(path: str | Path) -> UnitCell:
    """Read the one crystal of a file.

    Args:
        path: POSCAR, .cif, .xyz with a lattice, ... or phonopy.yaml.

    Raises:
        DataError: one line: no such file, unreadable, no crystal or several, a left-handed or flat cell, coinciding
            atoms, sites that are occupied in part.
    """
    path = Path(path)
    require_file(path, "a POSCAR, cif, extended xyz or phonopy.yaml")
    if path.name.endswith(YAML):
        return _read_yaml(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = ase.io.read(path, index=":")
    except Exception as error:  # of ASE's many readers
        raise DataError(
            f"{path}: expected a POSCAR, cif, extended xyz or phonopy.yaml, cannot read it "
            f"({type(error).__name__}: {one_line(error)[:200]}); check the file and its name"
        ) from None
    assert isinstance(frames, list)
    if len(frames) != 1:
        raise DataError(f"{path}: expected one crystal, found {len(frames)} structures; write the one that is meant")
    return UnitCell(checked(path, _structure(path, frames[0])))


def checked(path: Path, structure: Structure) -> Structure:
    """A crystal whose cell and distances make sense; ``path`` names the file in errors.

    Raises:
        DataError: a left-handed or flat cell, values that are not finite, or coinciding atoms.
    """
    cell = structure.cell
    if cell is None or not len(structure.numbers):
        raise DataError(f"{path}: expected a crystal, found no atoms or no lattice vectors; add them")
    if not (np.isfinite(cell).all() and np.isfinite(structure.positions).all()):
        raise DataError(f"{path}: expected finite positions and lattice vectors, found others; correct the file")
    lengths, volume = np.linalg.norm(cell, axis=1), float(np.linalg.det(cell))
    if abs(volume) <= FLATTEST * lengths.prod():
        raise DataError(f"{path}: expected three lattice vectors that span a volume, found {volume:.3g} A^3; correct them")
    if volume < 0:
        raise DataError(
            f"{path}: expected right-handed lattice vectors, found left-handed ones; exchange two of them (and the "
            "coordinates that belong to them)"
        )
    atoms = Atoms(numbers=structure.numbers, positions=structure.positions, cell=cell, pbc=True)
    apart = atoms.get_all_distances(mic=True)
    np.fill_diagonal(apart, np.inf)
    if apart.min() < CLOSEST:
        first, second = np.unravel_index(apart.argmin(), apart.shape)
        raise DataError(
            f"{path}: expected atoms at least {CLOSEST} Angstrom apart, found {apart.min():.3f} between atoms {first} and "
            f"{second}; remove the atom that is there twice, or correct the unit of length"
        )
    return structure


def _structure(path: Path, atoms: Atoms) -> Structure:
    if not atoms.cell.rank or not atoms.pbc.all():
        raise DataError(
            f"{path}: expected a crystal that is periodic in three directions, found {atoms.symbols} with pbc "
            f"{atoms.pbc.tolist()}; give it a cell (a slab: with vacuum) and pbc T T T"
        )
    occupied = atoms.info.get("occupancy") or {}
    if any(abs(share - 1) > 1e-6 for site in occupied.values() for share in site.values()):
        raise DataError(f"{path}: expected sites with one whole atom each, found sites occupied in part; order them")
    if (atoms.numbers < 1).any():
        raise DataError(f"{path}: expected known elements, found others; correct the symbols")
    name = atoms.get_chemical_formula("metal", empirical=True)
    return Structure(atoms.numbers.astype(np.int32), atoms.get_positions(), np.array(atoms.cell), name)


def _read_yaml(path: Path) -> UnitCell:
    """phonopy.yaml, phonopy_disp.yaml or phonopy_params.yaml.

    Raises:
        DataError: it is none of them, or its unit of length is unknown.
    """
    try:
        found = PhonopyYaml().read(path)
        cell = found.unitcell
        numbers, positions = np.array(cell.numbers, np.int32), np.array(cell.positions, np.float64)
        lattice = np.array(cell.cell, np.float64)
    except Exception as error:  # of phonopy and PyYAML
        raise DataError(
            f"{path}: expected a yaml of phonopy with a unit cell, cannot read it ({type(error).__name__}: "
            f"{one_line(error)[:200]}); write it again with phonopy"
        ) from None
    units = found.physical_units  # an object of phonopy 4, a dictionary before
    unit = str(units.get("length_unit") if isinstance(units, dict) else getattr(units, "length_unit", None) or "angstrom")
    if unit.lower() not in LENGTHS:
        raise DataError(f"{path}: expected lengths in {' or '.join(LENGTHS)}, found {unit}; convert the file")
    scale = LENGTHS[unit.lower()]
    name = Atoms(numbers=numbers).get_chemical_formula("metal", empirical=True)
    return UnitCell(checked(path, Structure(numbers, positions * scale, lattice * scale, name)), found.supercell_matrix, found.primitive_matrix)
