"""Crystals as phonopy's own files: FORCE_CONSTANTS, force_constants.hdf5, phonopy_params.yaml, BORN and POSCAR.

Lengths in Angstrom, force constants in eV/Angstrom^2.  Every file is complete or not there: it is written under a
temporary name and renamed.  The atoms keep their order in all of them.  The rows of compact files are those of phonopy,
which reads them with the supercell as ``write_poscar`` writes it and the matrices 1 (supercell) and
inverse(supercell^T) primitive_cell^T (primitive), or as the unit cell and matrices of which the supercell was made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.force_constants import full_of
from physics.lattice_translations import with_first_atoms
from physics.phonopy_bridge import phonopy_of
from physics.space_group import symmetry_of

HDF5 = ".hdf5"


def write_force_constants(path: str | Path, crystal: Crystal, full: bool = False) -> None:
    """Write FORCE_CONSTANTS, or force_constants.hdf5 where the name ends with ``.hdf5``.

    The text has 15 decimals; the other file has every bit, and the map of the primitive atoms.

    Args:
        path: of the file; one that is there is replaced.
        crystal: with force constants.
        full: the blocks of all pairs, n times n; False: compact, p times n.

    Raises:
        DataError: a file that cannot be written, or a supercell that is no repetition of the primitive cell.
    """
    crystal = with_first_atoms(crystal)
    blocks = full_of(crystal) if full else crystal.blocks
    with _renamed(Path(path)) as temporary:
        if Path(path).suffix == HDF5:
            rows = np.arange(crystal.n_atoms) if full else crystal.p2s
            write_force_constants_to_hdf5(blocks, str(temporary), p2s_map=rows, physical_unit="eV/angstrom^2")
        else:
            write_FORCE_CONSTANTS(blocks, str(temporary), p2s_map=crystal.p2s)


def write_phonopy_yaml(path: str | Path, crystal: Crystal) -> None:
    """Write phonopy_params.yaml: cells, masses, compact force constants, and Born charges where there are any.

    Its unit cell is the supercell.

    Raises:
        DataError: a file that cannot be written, or see ``phonopy_of``.
    """
    charged = crystal.born is not None and crystal.dielectric is not None
    found = phonopy_of(crystal, nac=charged)
    with _renamed(Path(path)) as temporary:
        found.save(str(temporary), settings={"force_constants": True})


def write_born(path: str | Path, crystal: Crystal) -> None:
    """Write BORN: permittivity, then the charges of the first of each set of equivalent atoms of the primitive cell.

    phonopy makes those of the other atoms by symmetry when it reads them.

    Raises:
        DataError: no Born charges or no permittivity, or a file that cannot be written.
    """
    if crystal.born is None or crystal.dielectric is None:
        raise DataError(f"{crystal.name}: expected Born charges and a dielectric tensor for {path}, one is absent")
    crystal = with_first_atoms(crystal)
    independent = symmetry_of(crystal).get_independent_atoms()
    numbers = " ".join(str(atom + 1) for atom in independent)
    lines = [f"# epsilon and Z* of atoms {numbers}"]
    assert crystal.born is not None
    for tensor in (crystal.dielectric, *crystal.born[independent]):
        lines.append(" ".join(f"{value:22.16f}" for value in tensor.reshape(-1)))
    _write_text(Path(path), lines)


def write_poscar(path: str | Path, crystal: Crystal, primitive: bool = False) -> None:
    """Write the atoms as a POSCAR of VASP 5: elements are named again where the order of the atoms asks for it.

    It has no masses: phonopy takes those of the elements.

    Args:
        path: of the file, SPOSCAR for the supercell in phonopy's words.
        crystal: its supercell is written.
        primitive: write the primitive cell.

    Raises:
        DataError: a file that cannot be written.
    """
    crystal = with_first_atoms(crystal) if primitive else crystal
    atoms = crystal.p2s if primitive else np.arange(crystal.n_atoms)
    cell = crystal.primitive_cell if primitive else crystal.supercell.cell
    assert cell is not None
    runs = [(chemical_symbols[number], len(list(run))) for number, run in groupby(crystal.supercell.numbers[atoms])]
    scaled = crystal.supercell.positions[atoms] @ np.linalg.inv(cell)
    lines = [" ".join(f"{crystal.name} {'primitive cell' if primitive else 'supercell'}".split()), "1.0"]
    lines += [" ".join(f"{value:21.16f}" for value in row) for row in cell]
    lines += [" ".join(symbol for symbol, _ in runs), " ".join(str(count) for _, count in runs), "Direct"]
    lines += [" ".join(f"{value:19.16f}" for value in row) for row in scaled - np.floor(scaled)]
    _write_text(Path(path), lines)


def _write_text(path: Path, lines: list[str]) -> None:
    with _renamed(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file that gets that name when the block ends well, and goes when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise DataError(f"{path}: expected a place to write a file, found none ({reason}); choose another") from None
    finally:
        temporary.unlink(missing_ok=True)
