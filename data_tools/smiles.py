"""Molecules of SMILES, whose geometries are made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress import track
from data_tools.source_files import describe_source, one_line, read_text
from data_tools.tables import table_of_structures

GEOMETRY_WARNING = (
    "geometries from SMILES are RDKit ETKDG + MMFF guesses; the labels a model learned belong to DFT geometries"
)
EMBEDDING_SEED = 42
LARGEST_SMILES = 200  # atoms, hydrogens included; placing more takes minutes, and a guess of so many is no geometry
FORCE_FIELD_STEPS = 2000


def read_smiles(path: Path, progress: bool = False) -> tuple[StructureTable, str]:
    """Lines of SMILES and an optional name, turned into geometries: ETKDG (fixed seed), then MMFF (UFF where it fails).

    Returns:
        The structures in Angstrom, without labels, and a warning to show: these are not DFT geometries.  The warning
        also stands in the table's ``source``.

    Raises:
        DataError: with the number of the line that is not SMILES, or for which no geometry was found.
    """
    lines = read_text(path, "a file of SMILES").splitlines()
    entries = [(number, line.split(None, 1)) for number, line in enumerate(lines, 1) if line.strip()]
    structures = []
    for number, fields in track(entries, f"building {path.name}", "molecules", len(entries), progress):
        smiles = fields[0]
        try:
            structures.append(_embed(smiles, fields[-1].strip()))
        except ValueError as error:
            raise DataError(
                f"{path}: {smiles[:60]!r} in line {number}: {one_line(error)}; correct or remove it"
            ) from None
    return table_of_structures(path, structures, f"{describe_source(path)}; {GEOMETRY_WARNING}"), GEOMETRY_WARNING


def _embed(smiles: str, name: str) -> Structure:
    """A geometry for one SMILES string.

    Raises:
        ValueError: not SMILES, or no geometry found.
    """
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers  # noqa: PLC0415

    too_large = f"expected at most {LARGEST_SMILES} atoms, found more; give a file with their positions"
    if len(smiles) > 20 * LARGEST_SMILES:
        raise ValueError(too_large)
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise ValueError("expected SMILES, RDKit cannot read it")
        molecule = Chem.AddHs(molecule)
        if molecule.GetNumAtoms() > LARGEST_SMILES:
            raise ValueError(too_large)
        # Random starting coordinates are slower but succeed for crowded rings where the first way gives up.
        for random_start in (False, True):
            if rdDistGeom.EmbedMolecule(molecule, randomSeed=EMBEDDING_SEED, useRandomCoords=random_start) == 0:
                break
        else:
            raise ValueError("expected a molecule that RDKit can place in space, it found no geometry")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=FORCE_FIELD_STEPS)
        elif rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.UFFOptimizeMolecule(molecule, maxIters=FORCE_FIELD_STEPS)
        else:
            raise ValueError("expected elements that the MMFF or UFF force field knows")
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], np.int32)
    return Structure(numbers, molecule.GetConformer().GetPositions(), None, name)
