"""A crystal whose force constants are still to be computed: its cells from a file, and force constants beside them.

Whatever ASE reads gives a unit cell (POSCAR, cif, extended xyz, ...); a yaml of phonopy also the supercell.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.formats.crystal_source import open_source, role_of
from data_tools.formats.phonopy_cells import AUTO, Setting, checked_cell, checked_supercell_matrix
from data_tools.formats.phonopy_forces import read_force_constants, read_hdf5
from data_tools.formats.phonopy_settings import read_setting
from data_tools.formats.phonopy_solver import crystal_of_cells, given_blocks, phonopy_of_setting
from data_tools.graph import DataError, Structure
from data_tools.source_files import one_line, require_file

EXPECTED = "a POSCAR, cif, extended xyz or phonopy.yaml"
WHOLE = 1e-6  # deviation from 1 of the occupation of a site


def read_cell(path: str | Path) -> Setting:
    """The unit cell of a file; of a yaml of phonopy also its supercell, which is 1 x 1 x 1 otherwise.

    Args:
        path: POSCAR, .cif, .xyz with a lattice, phonopy.yaml, ...

    Raises:
        DataError: one line: no such file, unreadable, no crystal or several, a left-handed or flat cell, sites that are
            occupied in part.
    """
    path = Path(path)
    require_file(path, EXPECTED)
    if brings_supercell(path):
        return dataclasses.replace(read_setting(open_source(path), None), supercell=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = ase.io.read(path, index=":")
    except Exception as error:  # of ASE's many readers
        raise DataError(
            f"{path}: expected {EXPECTED}, cannot read it ({type(error).__name__}: {one_line(error)[:200]}); check the "
            "file and its name"
        ) from None
    if not isinstance(frames, list) or len(frames) != 1:
        count = len(frames) if isinstance(frames, list) else 0
        raise DataError(f"{path}: expected one crystal, found {count} structures; write the one that is meant")
    return Setting(str(path), _atoms_of(path, frames[0]), np.eye(3, dtype=np.int64), AUTO)


def brings_supercell(path: str | Path) -> bool:
    """Whether a file says what its supercell is: a yaml of phonopy does."""
    return role_of(Path(path).name.removesuffix(".xz")) == "yaml"


def with_supercell(setting: Setting, times: Sequence[int]) -> Setting:
    """The same unit cell with another supercell.

    Args:
        setting: the cells.
        times: three whole numbers, of cells along the lattice vectors.

    Raises:
        DataError: it has too many atoms.
    """
    matrix = checked_supercell_matrix(setting.where, np.diag(np.asarray(times, np.int64)), len(setting.unitcell))
    return dataclasses.replace(setting, supercell_matrix=matrix)


def structure_of(setting: Setting) -> Structure:
    """The atoms of the unit cell, with their formula as the name."""
    cell = setting.unitcell
    name = Atoms(numbers=cell.numbers).get_chemical_formula("metal", empirical=True)
    return Structure(np.array(cell.numbers, np.int32), np.array(cell.positions), np.array(cell.cell), name)


def with_structure(setting: Setting, structure: Structure) -> Setting:
    """The same supercell of other positions and lattice vectors, as after a relaxation."""
    cell = PhonopyAtoms(
        numbers=structure.numbers, cell=structure.cell, positions=structure.positions, masses=setting.unitcell.masses
    )
    return dataclasses.replace(setting, unitcell=checked_cell(setting.where, cell))


def crystal_of_setting(setting: Setting) -> Crystal:
    """The supercell in phonopy's order of atoms, with force constants of zero.

    Raises:
        DataError: cells with which phonopy cannot work, or coinciding atoms.
    """
    found = phonopy_of_setting(setting)
    blocks = np.zeros((len(found.primitive), len(found.supercell), 3, 3))
    return crystal_of_cells(found, structure_of(setting).name, blocks)


def read_blocks(path: str | Path, setting: Setting) -> np.ndarray:
    """(p, n, 3, 3) eV/Angstrom^2 of FORCE_CONSTANTS or force_constants.hdf5 for a supercell, as they are.

    Args:
        path: of the file.
        setting: the cells; its units are those of a file that names none.

    Raises:
        DataError: no such file, a damaged one, another number or order of atoms, or an unknown unit.
    """
    files = open_source(Path(path))
    role = role_of(files.chosen) if files.chosen else None
    if role not in ("force constants", "hdf5"):
        raise DataError(f"{path}: expected FORCE_CONSTANTS or force_constants.hdf5, found another name; give it that")
    found = read_force_constants(files, files.chosen) if role == "force constants" else read_hdf5(files, files.chosen)
    assert found.blocks is not None
    factor = setting.units.force_constants if found.factor is None else found.factor
    return given_blocks(found.where, phonopy_of_setting(setting), found.blocks * factor, found.rows)


def _atoms_of(path: Path, atoms: Atoms) -> PhonopyAtoms:
    """What ASE has read, checked.

    Raises:
        DataError: no crystal, unknown elements, sites occupied in part, or a wrong cell.
    """
    if not len(atoms) or atoms.cell.rank < 3 or not atoms.pbc.all():
        raise DataError(
            f"{path}: expected a crystal that is periodic in three directions, found {atoms.symbols or 'no atoms'} "
            f"with {atoms.cell.rank} lattice vectors and pbc {atoms.pbc.tolist()}; add a cell (with vacuum, for a slab)"
        )
    occupied = atoms.info.get("occupancy") or {}
    if any(abs(share - 1) > WHOLE for site in occupied.values() for share in site.values()):
        raise DataError(f"{path}: expected sites with one whole atom each, found sites occupied in part; order them")
    if (atoms.numbers < 1).any():
        raise DataError(f"{path}: expected known elements, found others; correct the symbols")
    cell = PhonopyAtoms(numbers=atoms.numbers, cell=np.array(atoms.cell), positions=atoms.get_positions())
    return checked_cell(str(path), cell)
