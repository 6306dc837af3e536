"""Molecules of SDF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress import track
from data_tools.source_files import LARGEST_TEXT, describe_source, one_line, require_file
from data_tools.tables import table_of_structures


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
