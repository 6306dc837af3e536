"""A crystal as phonopy's object: what phonopy computes from force constants starts here.

phonopy 2, 3 and 4 behave alike: only what they share is used.
"""

from __future__ import annotations

import warnings

import numpy as np
from ase.data import chemical_symbols
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.crystals import Crystal
from data_tools.graph import DataError

COULOMB = 14.399645478  # e^2 / (4 pi epsilon_0), eV Angstrom (CODATA 2018)
SYMMETRY_TOLERANCE = 1e-5  # Angstrom, phonopy's own


def phonopy_of(crystal: Crystal, nac: bool = False, symmetry: bool = True) -> Phonopy:
    """phonopy's object with the force constants of a crystal as they are, in eV/Angstrom^2.

    Its unit cell is the supercell, so the supercell keeps the order of its atoms, and its primitive atoms are those of
    the crystal.  Only where the atoms of ``p2s`` are not the first of their translations does phonopy's supercell begin
    with them.

    Args:
        crystal: with force constants.
        nac: add the non-analytical term from the Born charges at long wavelengths.
        symmetry: whether meshes are reduced by the symmetry of the atoms; False: by time reversal alone.

    Raises:
        DataError: no Born charges for ``nac``, a supercell that is not made of primitive cells, or atoms in which
            phonopy or spglib cannot tell the symmetry.
    """
    order = _phonopy_order(crystal)
    cell = crystal.supercell.cell
    atoms = PhonopyAtoms(
        symbols=[chemical_symbols[number] for number in crystal.supercell.numbers[order]],
        positions=crystal.supercell.positions[order],
        cell=cell,
        masses=crystal.masses[order],
    )
    primitive = np.linalg.inv(cell.T) @ crystal.primitive_cell.T
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            phonopy = Phonopy(
                atoms,
                supercell_matrix=np.eye(3, dtype=int),
                primitive_matrix=primitive,
                symprec=SYMMETRY_TOLERANCE,
                is_symmetry=symmetry,
                log_level=0,
            )
    except Exception as error:  # of phonopy, spglib or NumPy: which one depends on the version
        raise DataError(
            f"{crystal.name}: expected a supercell of whole primitive cells whose symmetry phonopy finds, phonopy says "
            f"{' '.join(str(error).split()) or type(error).__name__!r}; check the atoms and the primitive cell"
        ) from None
    if not np.array_equal(order[np.asarray(phonopy.primitive.p2s_map)], crystal.p2s):
        raise DataError(
            f"{crystal.name}: expected the atoms {crystal.p2s.tolist()} to stand for the primitive cell, phonopy chooses "
            f"{order[np.asarray(phonopy.primitive.p2s_map)].tolist()}; check p2s, s2p and the primitive cell"
        )
    phonopy.force_constants = np.array(crystal.blocks[:, order], dtype="double", order="C")
    if nac:
        phonopy.nac_params = _nac_parameters(crystal)
    return phonopy


def _phonopy_order(crystal: Crystal) -> np.ndarray:
    """(n,) int64 the atoms in an order in which those of ``p2s`` come before their translations."""
    _, first = np.unique(crystal.s2p, return_index=True)
    if np.array_equal(np.sort(first), crystal.p2s):
        return np.arange(crystal.n_atoms)
    others = np.setdiff1d(np.arange(crystal.n_atoms), crystal.p2s)
    return np.concatenate((crystal.p2s, others))


def _nac_parameters(crystal: Crystal) -> dict[str, object]:
    """Born charges and permittivity as phonopy takes them."""
    if crystal.born is None or crystal.dielectric is None:
        missing = "Born charges" if crystal.born is None else "a dielectric tensor"
        raise DataError(
            f"{crystal.name}: expected {missing} for the non-analytical term, it has none; add a BORN file or ask "
            "without that term"
        )
    return {"born": crystal.born, "dielectric": crystal.dielectric, "factor": COULOMB}
