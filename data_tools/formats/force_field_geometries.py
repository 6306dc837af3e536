"""The geometries that SMILES of a molecule would have had (ETKDG, then MMFF), for one that is known by its positions.

The bonds, and with them the configuration of each stereocentre, are those that RDKit finds from the positions of a
neutral molecule.  The atoms keep their order, so labels of the molecule are those of its other geometries too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_tools.formats.smiles import EMBEDDING_SEED, LARGEST_SMILES, place
from data_tools.graph import Structure
from data_tools.source_files import one_line

ATTEMPTS = 5  # of ETKDG, and as many from random coordinates; most that it can place succeed at the first


def conformers_of(structure: Structure, count: int) -> np.ndarray:
    """Geometries of a neutral molecule: number k is that of the seed ``EMBEDDING_SEED`` + k.

    Args:
        structure: a molecule at any geometry near its bond lengths.
        count: K.

    Returns:
        (K, n, 3) Angstrom, in the order of the atoms.

    Raises:
        ValueError: the bonds cannot be found, there is no geometry, or one of another molecule or stereoisomer.
    """
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    if len(structure.numbers) > LARGEST_SMILES:
        raise ValueError(f"expected at most {LARGEST_SMILES} atoms, found {len(structure.numbers)}")
    with rdBase.BlockLogs():
        molecule = bonded(structure)
        wanted = Chem.MolToSmiles(molecule)
        found = np.empty((count, len(structure.numbers), 3))
        for k in range(count):
            found[k] = place(Chem.Mol(molecule), EMBEDDING_SEED + k, ATTEMPTS)
            again = Chem.Mol(molecule)  # the force field has changed the kinds of bonds of the other
            again.GetConformer().SetPositions(found[k])
            Chem.AssignStereochemistryFrom3D(again)
            if Chem.MolToSmiles(again) != wanted:
                raise ValueError(f"expected a geometry of {wanted}, RDKit made one of {Chem.MolToSmiles(again)}")
    return found


def bonded(structure: Structure) -> Any:
    """The molecule of RDKit with the bonds and the stereochemistry that the positions of a neutral molecule show.

    Raises:
        ValueError: there are none, or several fragments.
    """
    from rdkit import Chem  # noqa: PLC0415  (heavy)
    from rdkit.Chem import rdDetermineBonds  # noqa: PLC0415

    molecule = Chem.RWMol()
    for number in structure.numbers.tolist():
        molecule.AddAtom(Chem.Atom(number))
    conformer = Chem.Conformer(len(structure.numbers))
    conformer.SetPositions(np.asarray(structure.positions, np.float64))
    molecule.AddConformer(conformer)
    try:
        rdDetermineBonds.DetermineBonds(molecule, charge=0)
        Chem.SanitizeMol(molecule)
    except Exception as error:  # RDKit raises ValueError and classes of its own
        raise ValueError(f"expected bonds of a neutral molecule, RDKit finds none ({one_line(error)})") from None
    fragments = len(Chem.GetMolFrags(molecule))
    if fragments > 1:
        raise ValueError(f"expected one molecule, found {fragments} fragments")
    Chem.AssignStereochemistryFrom3D(molecule)
    return molecule
