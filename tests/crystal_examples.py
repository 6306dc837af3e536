"""Crystals of phonopy's own examples, as phonopy reads them, and the frequencies that phonopy gives them itself."""

from __future__ import annotations

import dataclasses
import functools
import lzma
import warnings
from pathlib import Path

import numpy as np
import phonopy
from phonopy import Phonopy
from phonopy.file_IO import parse_BORN

from data_tools.crystals import Crystal
from data_tools.graph import Structure

FOLDER = Path(__file__).parent / "crystal_files"
NAMES = ("Si", "MgO", "NaCl", "TiO2")


@functools.cache
def loaded(name: str, symmetrised: bool = True) -> Phonopy:
    """phonopy's object made in phonopy's own way, from displacements and forces, with compact force constants.

    All versions of phonopy symmetrise alike in this way; what ``load`` does depends on the version and on symfc.
    """
    options = {"is_nac": False, "symmetrize_fc": False, "log_level": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "Si":
            found = phonopy.load(FOLDER / "phonopy_params_Si.yaml", **options)
        else:
            forces = FOLDER / f"FORCE_SETS_{name}"
            cells = FOLDER / f"phonopy_disp_{name}.yaml"
            found = phonopy.load(cells, primitive_matrix="auto", force_sets_filename=forces, **options)
    if symmetrised:
        found.symmetrize_force_constants(level=1, show_drift=False)
    return found


@functools.cache
def example(name: str, symmetrised: bool = True) -> Crystal:
    """The same as a crystal; NaCl, MgO and TiO2 have Born charges."""
    return crystal_of_phonopy(loaded(name, symmetrised), name)


def crystal_of_phonopy(found: Phonopy, name: str) -> Crystal:
    supercell, primitive = found.supercell, found.primitive
    born = FOLDER / f"BORN_{name}"
    nac = parse_BORN(primitive, filename=str(born)) if born.exists() else {"born": None, "dielectric": None}
    blocks = np.array(found.force_constants)
    return Crystal(
        supercell=Structure(supercell.numbers.astype(np.int32), supercell.positions, supercell.cell, name),
        primitive_cell=np.array(primitive.cell),
        p2s=np.array(primitive.p2s_map, np.int64),
        s2p=np.array(primitive.s2p_map, np.int64),
        masses=np.array(supercell.masses),
        blocks=blocks if len(blocks) == len(primitive) else blocks[primitive.p2s_map],
        born=nac["born"],
        dielectric=nac["dielectric"],
    )


def file_of_dfpt() -> str:
    """A full FORCE_CONSTANTS of NaCl (64 atoms) as VASP's perturbation theory gives it."""
    return lzma.decompress((FOLDER / "FORCE_CONSTANTS_NaCl-VASPdfpt.xz").read_bytes()).decode()


@functools.cache
def dfpt_example() -> Crystal:
    """The crystal of that file."""
    numbers = [line.split() for line in file_of_dfpt().splitlines()[1:]]
    blocks = np.array([row for row in numbers if len(row) == 3], float).reshape(64, 64, 3, 3)
    cell = FOLDER / "POSCAR-unitcell_NaCl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = phonopy.load(
            unitcell_filename=cell, supercell_matrix=[2, 2, 2], primitive_matrix="F", produce_fc=False, log_level=0
        )
    found.force_constants = blocks
    return crystal_of_phonopy(found, "NaCl-VASPdfpt")


def reordered(crystal: Crystal, order: np.ndarray) -> Crystal:
    """The same crystal with its atoms in another order."""
    place = np.argsort(order)
    cell = crystal.supercell
    return dataclasses.replace(
        crystal,
        supercell=Structure(cell.numbers[order], cell.positions[order], cell.cell, cell.name),
        p2s=place[crystal.p2s],
        s2p=place[crystal.s2p][order],
        masses=crystal.masses[order],
        blocks=crystal.blocks[:, order],
    )
