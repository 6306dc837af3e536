"""Molecules of SDF files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.formats.sdf_checks import HYDROGEN, drawing, electrons, missing_hydrogens
from data_tools.formats.smiles import ion_labels
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress_bar import track
from data_tools.source_files import LARGEST_TEXT, describe_source, one_line, require_file, shown
from data_tools.tables import table_of_structures


def iterate_sdf(path: Path) -> Iterator[tuple[str, list[int], np.ndarray]]:
    """Title, atomic numbers and (n, 3) positions in Angstrom of the molecules of an SDF file, hydrogens included.

    Raises:
        DataError: RDKit cannot read a molecule.
    """
    for molecule in _rdkit_molecules(path):
        yield _geometry_of(molecule)


def read_sdf(path: Path, progress: bool = False) -> StructureTable:
    """The molecules of an SDF file, with the labels ``charge`` and ``radical_electrons``: see ``ion_labels``.

    Raises:
        DataError: damaged, entries that are not parted, a drawing, or hydrogens left out.
    """
    require_file(path, "an SDF file", LARGEST_TEXT)
    entries = _count_entries(path)
    structures: list[Structure] = []
    charges, radicals = [], []
    for molecule in track(_rdkit_molecules(path, entries), f"reading {path.name}", "molecules", entries, progress):
        title, numbers, positions = _geometry_of(molecule)
        name = title.strip() or f"molecule {len(structures)}"
        _refuse_drawing(path, f"entry {len(structures) + 1} ({shown(name)})", molecule)
        structures.append(Structure(np.array(numbers, np.int32), positions, None, name))
        charges.append(sum(atom.GetFormalCharge() for atom in molecule.GetAtoms()))
        declared = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
        radicals.append(max(declared, electrons(molecule) % 2))
    return table_of_structures(path, structures, describe_source(path), ion_labels(charges, radicals))


def _count_entries(path: Path) -> int:
    """How many entries the file has; RDKit takes a second one that ``$$$$`` does not part from the first for its data.

    Raises:
        DataError: two molecules in one entry.
    """
    entries, begun, ended, in_data = 0, False, False, False
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"$$$$"):
                entries += 1
                begun, ended, in_data = False, False, False
                continue
            begun = begun or not line.isspace()
            in_data = in_data or (ended and line.startswith(b">"))
            if line.rstrip() == b"M  END":
                if ended and not in_data:
                    raise DataError(
                        f"{path}: expected $$$$ between two molecules, found two in entry {entries + 1}; write the "
                        "missing line"
                    )
                ended = True
    return entries + begun


def _rdkit_molecules(path: Path, entries: int | None = None) -> Iterator[Any]:
    """The molecules of RDKit, not sanitized; blank lines after the last of ``entries`` are none."""
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    with rdBase.BlockLogs():  # a bad entry is reported once, by our own error
        try:
            # Sanitizing would refuse molecules whose bonds RDKit dislikes, and bonds are not used here.
            supplier = Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
            for row, molecule in enumerate(supplier):
                if row == entries:
                    return
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
    except UnicodeDecodeError:  # a title that cannot be decoded is none
        title = ""
    return title, [atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions()


def _refuse_drawing(path: Path, which: str, molecule: Any) -> None:
    """A drawing, or a molecule without some of its hydrogens, is read without error, but no model was made for it."""
    found = drawing(molecule)
    if found is None and (missing := missing_hydrogens(molecule)):
        present = sum(atom.GetAtomicNum() == HYDROGEN for atom in molecule.GetAtoms())
        found = f"{present or 'none'} of about {present + missing} (M  CHG and M  RAD declare charges and radicals)"
    if found is not None:
        raise DataError(
            f"{path}: expected a geometry in three dimensions with all hydrogens in {which}, found {found}; "
            "add hydrogens in three dimensions, or give SMILES in a .smi file"
        )
