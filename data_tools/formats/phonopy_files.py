"""Files of phonopy to crystals with force constants: a file, a folder, or an archive of phonondb.

``phonopy_cells`` gives the cells, ``phonopy_forces`` what stands beside them, ``phonopy_solver`` the force constants.
Of several sources in one folder the first of these is taken: the force constants or forces of phonopy_params.yaml (or
of the file that was given), FORCE_CONSTANTS, force_constants.hdf5, FORCE_SETS.  Units become eV and Angstrom.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from phonopy import Phonopy
from phonopy.file_IO import parse_BORN_from_strings
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.formats.crystal_source import CrystalFiles, open_source, role_of
from data_tools.formats.phonopy_cells import Setting
from data_tools.formats.phonopy_forces import FORCES, Forces, dataset_of, read_forces
from data_tools.formats.phonopy_guard import guarded
from data_tools.formats.phonopy_settings import read_setting
from data_tools.formats.phonopy_solver import (
    SYMPREC,
    crystal_of_cells,
    given_blocks,
    lowest_frequencies,
    order_of_supercell,
    phonopy_of_setting,
    reordered,
    solve,
)
from data_tools.graph import DataError
from data_tools.source_files import one_line, read_text

LARGEST_CHARGE, LARGEST_PERMITTIVITY = 100.0, 1e5  # e; relative


def read_crystal(path: str | Path, frequencies: bool = True) -> Crystal:
    """A crystal with its force constants from files of phonopy.

    Args:
        path: phonopy_params.yaml (or .xz), phonopy_disp.yaml, phonopy.yaml, FORCE_SETS, FORCE_CONSTANTS,
            force_constants.hdf5, POSCAR or disp.yaml with what belongs to it in the same folder; that folder; or an
            archive of phonondb.
        frequencies: compute ``lowest_frequencies``, which takes as long as all the rest; otherwise they are NaN.

    Raises:
        DataError: one line on what is wrong.
    """
    return read_with_source(Path(path), frequencies)[0]


def read_with_source(path: Path, frequencies: bool = True) -> tuple[Crystal, str]:
    """As ``read_crystal``, with the name and sha256 of each file that was read."""
    try:
        files = open_source(path)
        crystal = _crystal(files, frequencies)
    except OSError as error:  # a disk that fails or a file that goes away while it is read
        raise DataError(f"{path}: cannot read it ({one_line(error)}); check the path and its permissions") from None
    except MemoryError:
        raise DataError(f"{path}: expected files that fit into memory, found larger ones") from None
    return crystal, files.source


def read_born(path: str | Path, crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """A BORN file for the primitive cell of a crystal.

    Args:
        path: the file; it lists the atoms that symmetry does not give, in the order of the primitive cell.
        crystal: whose charges they are.

    Returns:
        Born effective charges (p, 3, 3) in e and the relative permittivity (3, 3).

    Raises:
        DataError: no BORN file, or one of another crystal.
    """
    chosen = crystal.p2s
    cell = PhonopyAtoms(
        numbers=crystal.supercell.numbers[chosen],
        cell=crystal.primitive_cell,
        positions=crystal.supercell.positions[chosen],
        masses=crystal.masses[chosen],
    )
    return _born_of_text(str(path), read_text(Path(path), "a BORN file"), cell)


def _crystal(files: CrystalFiles, frequencies: bool) -> Crystal:
    setting, forces = _setting_and_forces(files)
    phonon = phonopy_of_setting(setting)
    order = order_of_supercell(setting, phonon)
    blocks = _blocks(setting, forces, phonon, order)
    born, dielectric = _born(files, setting, phonon)
    crystal = dataclasses.replace(crystal_of_cells(phonon, files.name, blocks), born=born, dielectric=dielectric)
    if not frequencies:
        return crystal
    with guarded(str(files.path), "force constants with frequencies"):
        return dataclasses.replace(crystal, lowest_frequencies=lowest_frequencies(phonon))


def _setting_and_forces(files: CrystalFiles) -> tuple[Setting, Forces | None]:
    """The cells, and the forces or force constants where they stand in a file of their own."""
    if not files.names_of("yaml"):
        forces = read_forces(files)
        return read_setting(files, forces.atoms), forces
    setting = read_setting(files, None)
    dataset = setting.dataset or {}
    first = dataset.get("first_atoms")
    complete = all("forces" in one for one in first) if first else "forces" in dataset
    if (complete or setting.force_constants is not None) and role_of(files.chosen) not in FORCES:
        return setting, None
    forces = read_forces(files)
    return read_setting(files, forces.atoms), forces


def _blocks(setting: Setting, forces: Forces | None, phonon: Phonopy, order: np.ndarray | None) -> np.ndarray:
    """(p, n, 3, 3) eV/Angstrom^2 with the atoms in phonopy's order."""
    where = setting.where if forces is None else forces.where
    if forces is not None and forces.sets is not None:
        return solve(where, phonon, reordered(dataset_of(forces, setting), order))
    if forces is not None:
        assert forces.blocks is not None
        factor = setting.units.force_constants if forces.factor is None else forces.factor
        blocks, rows = forces.blocks * factor, forces.rows
    elif setting.force_constants is not None:
        blocks, rows = setting.force_constants, None
    else:
        assert setting.dataset is not None
        return solve(where, phonon, reordered(_checked(where, setting.dataset, len(phonon.supercell)), order))
    if order is not None:
        if len(blocks) < len(order):
            raise DataError(f"{where}: expected full force constants where the supercell has an order of its own")
        if blocks.shape[:2] == (len(order),) * 2:
            blocks, rows = blocks[np.ix_(order, order)], None
    return given_blocks(where, phonon, blocks, rows)


def _checked(where: str, dataset: dict, atoms: int) -> dict:
    """A dataset of a YAML file whose forces are those of all atoms."""
    first = dataset.get("first_atoms")
    forces = [one["forces"] for one in first] if first else list(dataset["forces"])
    moved = [one["displacement"] for one in first] if first else list(dataset["displacements"])
    shapes = {np.shape(values) for values in forces}
    expected = {(3,)} if first else {(atoms, 3)}
    sound = shapes == {(atoms, 3)} and {np.shape(one) for one in moved} == expected and len(moved) == len(forces)
    if not sound or not all(np.isfinite(one).all() for one in (*forces, *moved)):
        raise DataError(
            f"{where}: expected finite displacements with the forces on {atoms} atoms, found others; the file is "
            "inconsistent"
        )
    if first and not all(0 <= one["number"] < atoms for one in first):
        raise DataError(f"{where}: expected displaced atoms from 1 to {atoms}, found another; correct it")
    return dataset


def _born(files: CrystalFiles, setting: Setting, phonon: Phonopy) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Born charges and permittivity of the YAML file or of BORN; None where there are none."""
    p = len(phonon.primitive)
    if setting.born is not None and setting.dielectric is not None:
        return _sound_born(setting.where, np.asarray(setting.born), np.asarray(setting.dielectric), p)
    names = files.names_of("Born charges")
    if not names:
        return None, None
    return _born_of_text(files.where(names[0]), files.text(names[0]), phonon.primitive)


def _born_of_text(where: str, text: str, primitive: PhonopyAtoms) -> tuple[np.ndarray, np.ndarray]:
    with guarded(where, "a BORN file of this crystal", "give the one that phonopy wrote for it"):
        found = parse_BORN_from_strings(text.rstrip() + "\n", primitive, symprec=SYMPREC)
        assert found is not None
        born, dielectric = np.asarray(found["born"]), np.asarray(found["dielectric"])
    return _sound_born(where, born, dielectric, len(primitive))


def _sound_born(where: str, born: np.ndarray, dielectric: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    shapes = born.shape == (p, 3, 3) and dielectric.shape == (3, 3)
    within = shapes and bool(
        (np.abs(born) <= LARGEST_CHARGE).all() and (np.abs(dielectric) <= LARGEST_PERMITTIVITY).all()
    )
    if not within:
        raise DataError(
            f"{where}: expected Born charges of {p} atoms up to {LARGEST_CHARGE:g} e and a permittivity, found "
            f"{born.shape} and {dielectric.shape} or larger values; give those of this crystal"
        )
    return born.astype(np.float64), dielectric.astype(np.float64)
