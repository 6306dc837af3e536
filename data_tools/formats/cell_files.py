"""A crystal whose force constants are still to be computed: its cells from a file, and force constants beside them.

Whatever ASE reads gives a unit cell (POSCAR, cif, extended xyz, ...); a yaml of phonopy, a folder of its files and an
archive of phonondb also give the supercell.
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
from data_tools.formats.crystal_source import ARCHIVES, open_source, role_of
from data_tools.formats.phonopy_cells import AUTO, Setting, checked_cell, checked_supercell_matrix
from data_tools.formats.phonopy_files import read_crystal
from data_tools.formats.phonopy_forces import read_force_constants, read_hdf5
from data_tools.formats.phonopy_settings import read_setting
from data_tools.formats.phonopy_solver import crystal_of_cells, given_blocks, phonopy_of_setting
from data_tools.graph import DataError, Structure
from data_tools.source_files import one_line, require_file

EXPECTED = "a POSCAR, cif, extended xyz or phonopy.yaml"
WHOLE = 1e-6  # deviation from 1 of the occupation of a site
SAME = 0.01  # in lattice vectors of the supercell: two files have the same atoms


def read_cell(path: str | Path) -> Setting:
    """The unit cell of a file; of phonopy's files also their supercell, which is 1 x 1 x 1 otherwise.

    Args:
        path: POSCAR, .cif, .xyz with a lattice, phonopy.yaml, a folder of phonopy's files, an archive of phonondb.

    Raises:
        DataError: one line: no such file, unreadable, no crystal or several, a left-handed or flat cell, sites that are
            occupied in part.
    """
    path = Path(path)
    if not path.is_dir():
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
    """Whether a file says what its supercell is: a yaml of phonopy does, and so do its folders and archives."""
    path = Path(path)
    return path.is_dir() or bool(ARCHIVES.search(path.name)) or role_of(path.name.removesuffix(".xz")) == "yaml"


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
    """(p, n, 3, 3) eV/Angstrom^2 for a supercell, as they are in the file.

    Args:
        path: FORCE_CONSTANTS or force_constants.hdf5, or whatever ``read_crystal`` reads with the same cells.
        setting: the cells; its units are those of a file that names none.

    Raises:
        DataError: no such file, a damaged one, other cells, another number or order of atoms, or an unknown unit.
    """
    path = Path(path)
    if brings_supercell(path):
        return _blocks_of_source(path, setting)
    role = role_of(path.name.removesuffix(".xz"))
    if role not in ("force constants", "hdf5"):
        raise DataError(
            f"{path}: expected FORCE_CONSTANTS or force_constants.hdf5, or phonopy_params.yaml, a folder or an archive "
            "that has them, found another name; give one of these"
        )
    files = open_source(path)
    found = read_force_constants(files, files.chosen) if role == "force constants" else read_hdf5(files, files.chosen)
    assert found.blocks is not None
    factor = setting.units.force_constants if found.factor is None else found.factor
    return given_blocks(found.where, phonopy_of_setting(setting), found.blocks * factor, found.rows)


def _blocks_of_source(path: Path, setting: Setting) -> np.ndarray:
    """Force constants of files that bring their own cells, which must be these.

    Raises:
        DataError: as ``read_crystal``, or other cells.
    """
    found, own = read_crystal(path, frequencies=False), crystal_of_setting(setting)
    one, other = found.supercell, own.supercell
    assert one.cell is not None and other.cell is not None
    same = one.numbers.shape == other.numbers.shape and bool((one.numbers == other.numbers).all())
    if same and found.p2s.tolist() == own.p2s.tolist():
        moved: np.ndarray = one.positions @ np.linalg.inv(one.cell) - other.positions @ np.linalg.inv(other.cell)
        stretched = one.cell @ np.linalg.inv(other.cell) - np.eye(3)
        if max(np.abs(moved - np.rint(moved)).max(), np.abs(stretched).max()) < SAME:
            return found.blocks
    raise DataError(
        f"{path}: expected force constants of the {own.n_atoms} atoms of {setting.where}, found those of another cell "
        f"or order ({found.n_primitive} x {found.n_atoms}); give {path.name} as the structure too"
    )


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
    if not all(_is_whole(share) for site in occupied.values() for share in site.values()):
        raise DataError(f"{path}: expected sites with one whole atom each, found sites occupied in part; order them")
    if (atoms.numbers < 1).any():
        raise DataError(f"{path}: expected known elements, found others; correct the symbols")
    try:
        cell = PhonopyAtoms(numbers=atoms.numbers, cell=np.array(atoms.cell), positions=atoms.get_positions())
    except RuntimeError:
        raise DataError(
            f"{path}: expected elements that phonopy knows a mass of, found {atoms.symbols}; give a phonopy.yaml with "
            "masses"
        ) from None
    except np.linalg.LinAlgError:
        raise DataError(
            f"{path}: expected lattice vectors with a volume, found ones that lie in a plane; correct them"
        ) from None
    return checked_cell(str(path), cell)


def _is_whole(share: object) -> bool:
    """Whether a site has one whole atom; a cif has a dot, or text, where it does not say a number."""
    return share == "." or (isinstance(share, int | float) and abs(share - 1) <= WHOLE)
