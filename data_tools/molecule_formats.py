"""Files of any molecules: SDF and SMILES; both carry structures alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress import track
from data_tools.source_files import LARGEST_TEXT, describe_source, one_line, read_text, require_file
from data_tools.tables import table_of_structures

GEOMETRY_WARNING = (
    "geometries from SMILES are RDKit ETKDG + MMFF guesses; the labels a model learned belong to DFT geometries"
)
EMBEDDING_SEED = 42
LARGEST_SMILES = 200  # atoms, hydrogens included; placing more takes minutes, and a guess of so many is no geometry
FORCE_FIELD_STEPS = 2000


def iterate_sdf(path: Path) -> Iterator[tuple[str, list[int], np.ndarray]]:
    """Title, atomic numbers and (n, 3) positions in Angstrom of the molecules of an SDF file, hydrogens included.

    Raises:
        DataError: RDKit cannot read a molecule.
    """
    for molecule in _rdkit_molecules(path):
        yield _geometry_of(molecule)


def read_sdf(path: Path, progress: bool = False) -> StructureTable:
    """The molecules of an SDF file, without labels.

    Raises:
        DataError: damaged, or hydrogens left out.
    """
    require_file(path, "an SDF file", LARGEST_TEXT)
    structures: list[Structure] = []
    for molecule in track(_rdkit_molecules(path), f"reading {path.name}", "molecules", None, progress):
        title, numbers, positions = _geometry_of(molecule)
        name = title.strip() or f"molecule {len(structures)}"
        _refuse_drawing(path, name, molecule)
        structures.append(Structure(np.array(numbers, np.int32), positions, None, name))
    return table_of_structures(path, structures, describe_source(path))


def _rdkit_molecules(path: Path) -> Iterator[Any]:
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    with rdBase.BlockLogs():  # a bad entry is reported once, by our own error
        try:
            # Sanitizing would refuse molecules whose bonds RDKit dislikes, and bonds are not used here.
            supplier = Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
            for row, molecule in enumerate(supplier):
                if molecule is None or molecule.GetNumConformers() == 0:
                    raise DataError(
                        f"{path}: expected a molecule with coordinates as entry {row + 1}, RDKit cannot read it; the "
                        "file is cut short or damaged"
                    )
                yield molecule
        except (OSError, RuntimeError, UnicodeError) as error:  # the last for a file whose name is not UTF-8
            raise DataError(
                f"{path}: expected an SDF file, RDKit cannot read it ({one_line(error)[:200]}); correct or rename it"
            ) from None


def _geometry_of(molecule: Any) -> tuple[str, list[int], np.ndarray]:
    try:
        title = molecule.GetProp("_Name") if molecule.HasProp("_Name") else ""
    except UnicodeDecodeError:  # a title that nobody can show is none
        title = ""
    return title, [atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions()


def _refuse_drawing(path: Path, name: str, molecule: Any) -> None:
    """A drawing (two dimensions, hydrogens implied) is read without error, but no model was made for it."""
    if any(atom.GetAtomicNum() == 1 for atom in molecule.GetAtoms()):
        return
    molecule.UpdatePropertyCache(strict=False)
    implied = sum(atom.GetNumImplicitHs() for atom in molecule.GetAtoms())
    if implied:
        raise DataError(
            f"{path}: expected a geometry with all hydrogens for {name}, found none of about {implied}; add hydrogens "
            "in three dimensions, or give SMILES in a .smi file"
        )


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
