"""A unit cell repeated to the supercell of its force constants, which are not there yet."""

from __future__ import annotations

import warnings

import numpy as np
import spglib
from ase.data import chemical_symbols
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.graph import DataError, Structure

EXACT, ROUNDED = 1e-5, 1e-2  # Angstrom: phonopy's tolerance of symmetry, and one for coordinates that a file rounds


def supercell_of(structure: Structure, matrix: np.ndarray, primitive: np.ndarray | None = None) -> Crystal:
    """The supercell in phonopy's order of atoms, with force constants of zero.

    Args:
        structure: the atoms of a unit cell.
        matrix: (3, 3) whole numbers: lattice vectors of the supercell as columns, in those of the unit cell.
        primitive: (3, 3) the primitive cell likewise; None: the one that symmetry gives.

    Raises:
        DataError: a supercell without volume, a primitive cell that does not fit, or atoms in which phonopy or spglib
            cannot tell the symmetry.
    """
    if round(np.linalg.det(matrix)) < 1:
        raise DataError(f"{structure.name}: expected a right-handed supercell with a volume, got {matrix.tolist()}")
    atoms = PhonopyAtoms(
        symbols=[chemical_symbols[number] for number in structure.numbers],
        positions=structure.positions,
        cell=structure.cell,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Phonopy(
                atoms, matrix, primitive_matrix="auto" if primitive is None else primitive, symprec=EXACT, log_level=0
            )
    except Exception as error:  # of phonopy and spglib: which one depends on the version
        raise DataError(
            f"{structure.name}: expected a crystal whose symmetry phonopy finds, it says "
            f"{' '.join(str(error).split()) or type(error).__name__!r}; check the atoms and the primitive cell"
        ) from None
    cell, p2s = found.supercell, np.array(found.primitive.p2s_map, np.int64)
    if cell.masses is None:
        raise DataError(f"{structure.name}: expected elements with a mass, found others; correct the elements")
    return Crystal(
        supercell=Structure(cell.numbers.astype(np.int32), np.array(cell.positions), np.array(cell.cell), structure.name),
        primitive_cell=np.array(found.primitive.cell),
        p2s=p2s,
        s2p=np.array(found.primitive.s2p_map, np.int64),
        masses=np.array(cell.masses, np.float64),
        blocks=np.zeros((len(p2s), len(cell.numbers), 3, 3)),
        space_group=space_group(structure, EXACT)[1],
    )


def space_group(structure: Structure, tolerance: float) -> tuple[str, int]:
    """International symbol and number; empty and 0 where spglib finds none.

    Args:
        structure: a crystal.
        tolerance: of positions, Angstrom.
    """
    assert structure.cell is not None
    fractions = structure.positions @ np.linalg.inv(structure.cell)
    found = spglib.get_spacegroup((structure.cell, fractions, structure.numbers), symprec=tolerance)
    symbol, _, number = (found or " (0)").rpartition(" ")
    return symbol.strip(), int(number.strip("()"))


def rounded_symmetry(structure: Structure) -> str:
    """A warning where a file has rounded coordinates so that symmetry is lost; empty where it has not."""
    exact, loose = space_group(structure, EXACT), space_group(structure, ROUNDED)
    if exact == loose or not loose[1]:
        return ""
    return (
        f"{structure.name}: the atoms have space group {exact[0] or 'none'} within {EXACT:g} Angstrom and {loose[0]} "
        f"within {ROUNDED:g}: coordinates are rounded or distorted; more digits, or --relax, restore the symmetry"
    )
