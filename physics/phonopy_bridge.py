"""A crystal as phonopy's object: what phonopy computes from force constants starts here.

phonopy 2, 3 and 4 behave alike: only what they share is used.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.lattice_translations import with_first_atoms
from physics.space_group import SYMMETRY_TOLERANCE

COULOMB = 14.399645478  # e^2 / (4 pi epsilon_0), eV Angstrom (CODATA 2018)


def phonopy_of(crystal: Crystal, nac: bool = False, symmetry: bool = False) -> Phonopy:
    """Phonopy's object with the force constants of a crystal as they are, in eV/Angstrom^2.

    Its unit cell is the supercell, so the order of atoms stays.  Its primitive atoms are those of the crystal; where
    they are not the first of their translations, as in no file of phonopy, they are those of ``with_first_atoms``.

    Args:
        crystal: with force constants.
        nac: add the non-analytical term from the Born charges at long wavelengths.
        symmetry: whether phonopy knows the symmetry of the atoms.  It takes twenty times as long (0.6 s for 64 atoms of
            rock salt); ``mesh_frequencies`` reduces meshes without it.  With ``nac`` phonopy always does: it makes
            the charges symmetric and neutral by it.

    Raises:
        DataError: no Born charges for ``nac``, a supercell that is not made of primitive cells, or atoms in which
            phonopy or spglib cannot tell the symmetry.
    """
    crystal = with_first_atoms(crystal)
    phonopy = cells_of(crystal, symmetry or nac)
    _check_maps(crystal, phonopy)
    phonopy.force_constants = np.array(crystal.blocks, dtype="double", order="C")
    if nac:
        phonopy.nac_params = _nac_parameters(crystal)
    return phonopy


def cells_of(crystal: Crystal, symmetry: bool) -> Phonopy:
    """Phonopy's object without force constants; its unit cell is the supercell, so the order of atoms stays.

    Args:
        crystal: supercell and primitive cell; its ``blocks`` are not read.
        symmetry: whether phonopy knows the symmetry of the atoms.

    Raises:
        DataError: a supercell that is not made of primitive cells, or atoms in which phonopy or spglib cannot tell the
            symmetry.
    """
    cell = crystal.supercell.cell
    assert cell is not None
    atoms = PhonopyAtoms(
        symbols=[chemical_symbols[number] for number in crystal.supercell.numbers],
        positions=crystal.supercell.positions,
        cell=cell,
        masses=crystal.masses,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Phonopy(
                atoms,
                supercell_matrix=np.eye(3, dtype=int),
                primitive_matrix=np.linalg.inv(cell.T) @ crystal.primitive_cell.T,
                symprec=SYMMETRY_TOLERANCE,
                is_symmetry=symmetry,
                log_level=0,
            )
    except Exception as error:  # of phonopy, spglib or NumPy: which one depends on the version
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{crystal.name}: expected a supercell of whole primitive cells whose symmetry phonopy finds, it says "
            f"{said!r}; check the atoms and the primitive cell"
        ) from None


def _check_maps(crystal: Crystal, phonopy: Phonopy) -> None:
    """The crystal's maps of atoms are those that its primitive cell has."""
    for name, ours in (("p2s", crystal.p2s), ("s2p", crystal.s2p)):
        found = np.asarray(getattr(phonopy.primitive, f"{name}_map"))
        if not np.array_equal(found, ours):
            raise DataError(
                f"{crystal.name}: expected {name} as the translations of the primitive cell have it, "
                f"{' '.join(map(str, found[:8]))}, found {' '.join(map(str, ours[:8]))} (first 8); the atoms are in "
                "another order, or the primitive cell is another"
            )


def _nac_parameters(crystal: Crystal) -> Any:
    """Born charges and permittivity as phonopy takes them."""
    if crystal.born is None or crystal.dielectric is None:
        missing = "Born charges" if crystal.born is None else "a dielectric tensor"
        raise DataError(
            f"{crystal.name}: expected {missing} for the non-analytical term, it has none; add a BORN file or ask "
            "without that term"
        )
    return {"born": crystal.born, "dielectric": crystal.dielectric, "factor": COULOMB}
