"""Small files of phonopy for tests, and the other formats that are made from them."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from data_tools.crystals import Crystal
from data_tools.formats.phonopy_files import read_crystal

CRYSTALS = Path(__file__).parent / "crystal_files"
ZINC_OXIDE = CRYSTALS / "ZnO"
ZR3N4 = CRYSTALS / "phonopy_params_Zr3N4.yaml"
RYDBERG_AND_BOHR = CRYSTALS / "phonopy_params_NaCl-QE.yaml.xz"
RANDOM_DISPLACEMENTS = CRYSTALS / "phonopy_params_NaCl-rd.yaml.xz"
SODIUM_CHLORATE = CRYSTALS / "materials-id-23330-naclo3-p2-13-198.tar.lzma"
SMASO4 = CRYSTALS / "materials-id-12929-smaso4-i4-1-amd-141.tar.lzma"
CONF = "DIM = 2 2 2\n# the crystal is hexagonal\nPRIMITIVE_AXES = 1 0 0 0 1 0 0 0 1\n"


@cache
def zinc_oxide() -> Crystal:
    return read_crystal(ZINC_OXIDE)


def zno_folder(folder: Path, *names: str) -> Path:
    """A folder with some of the files of ZnO."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(ZINC_OXIDE / name, folder / name)
    return folder


def full_of(crystal: Crystal) -> np.ndarray:
    """(n, n, 3, 3) blocks of every row, by the translation that moves its atom."""
    n = crystal.n_atoms
    inverse = np.linalg.inv(crystal.supercell.cell)
    fractions = crystal.supercell.positions @ inverse
    full = np.zeros((n, n, 3, 3))
    for atom, first in enumerate(crystal.s2p.tolist()):
        moved = fractions + fractions[first] - fractions[atom]
        apart = moved[:, None] - fractions[None]
        images = np.linalg.norm(apart - np.rint(apart), axis=2).argmin(axis=1)
        full[atom] = crystal.blocks[crystal.p2s.tolist().index(first)][images]
    return full


def force_constants_text(blocks: np.ndarray, rows: np.ndarray) -> str:
    lines = [f"{blocks.shape[0]} {blocks.shape[1]}"]
    for row, of_row in zip(rows, blocks, strict=True):
        for column, block in enumerate(of_row):
            lines.append(f"{row + 1} {column + 1}")
            lines += [" ".join(f"{value!r}" for value in line) for line in block.tolist()]
    return "\n".join(lines) + "\n"


def write_hdf5(path: Path, blocks: np.ndarray, rows: np.ndarray | None = None, unit: str | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file["force_constants"] = blocks
        if rows is not None:
            file["p2s_map"] = rows
        if unit is not None:
            file["physical_unit"] = np.array([unit], dtype="S")
    return path
