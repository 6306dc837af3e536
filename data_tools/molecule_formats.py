"""Files of any molecules or crystals: xyz, extended xyz, SDF and SMILES.

Extended xyz carries labels, taken to be in the units of ASE (eV, Angstrom); the others carry structures alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress import track
from data_tools.source_files import LARGEST_TEXT, describe_source, one_line, read_text, require_file
from data_tools.tables import ATOMIC_NUMBERS, LARGEST_COORDINATE, table_of_structures

GEOMETRY_WARNING = (
    "geometries from SMILES are RDKit ETKDG + MMFF guesses; the labels a model learned belong to DFT geometries"
)
EMBEDDING_SEED = 42
LARGEST_SMILES = 200  # atoms, hydrogens included; placing more takes minutes, and a guess of so many is no geometry
FORCE_FIELD_STEPS = 2000
XYZ_ELEMENTS = ATOMIC_NUMBERS | {str(number): number for number in ATOMIC_NUMBERS.values()}
COLUMN_COUNT = re.compile(r":[A-Za-z]:(\d{1,18})")
MOST_COLUMNS = 1000
MOST_DIGITS = 18  # of a number of atoms; Python refuses to read numbers of thousands of digits
NOT_LABELS = {"numbers", "positions", "gdb_index"}
ENERGY_SPELLINGS, FORCES_SPELLINGS = ("Energy",), ("force", "Forces", "Force")  # that ASE does not know


def read_plain_xyz(path: Path) -> StructureTable:
    """Any number of molecules, one after the other: atom count, comment, then ``symbol x y z`` lines in Angstrom.

    The comment becomes the name.  Columns after z are left alone.

    Raises:
        DataError: with the number of the line that is wrong.
    """
    lines = read_text(path, "an xyz file").splitlines()
    structures: list[Structure] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        count = lines[at].strip()
        if not count.isdecimal() or len(count) > MOST_DIGITS or int(count) < 1:
            raise DataError(
                f"{path}: expected a number of atoms in line {at + 1}, found {count[:40]!r}; correct the file"
            )
        body = lines[at + 2 : at + 2 + int(count)]
        if len(body) < int(count):
            raise DataError(
                f"{path}: expected {count} atoms after line {at + 2}, found {len(body)} lines; the file is cut short"
            )
        numbers, positions = _parse_atoms(path, body, at + 3)
        structures.append(Structure(numbers, positions, None, lines[at + 1].strip() or f"frame {len(structures)}"))
        at += 2 + int(count)
    return table_of_structures(path, structures, describe_source(path))


def _parse_atoms(path: Path, lines: list[str], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions of ``symbol x y z`` lines; ``first`` is the number of the first line in the file."""
    numbers, positions = [], []
    for offset, line in enumerate(lines):
        fields = line.split()
        try:
            numbers.append(XYZ_ELEMENTS[fields[0].capitalize()])
            positions.append((float(fields[1]), float(fields[2]), float(fields[3])))
        except KeyError:
            raise DataError(
                f"{path}: expected an element in line {first + offset}, found {fields[0][:20]!r}; correct it"
            ) from None
        except (ValueError, IndexError):
            raise DataError(
                f"{path}: expected 'symbol x y z' in line {first + offset}, found {line.strip()[:60]!r}; correct it"
            ) from None
    return np.array(numbers, np.int32), np.array(positions, np.float64)


def read_extended_xyz(path: Path) -> StructureTable:
    """Extended xyz through ASE: structures, cells where periodic, and every numeric label of the frames and the atoms.

    ``Energy``, ``force``, ``Force`` and ``Forces`` become the labels ``energy`` and ``forces`` that ASE knows.
    ``gdb_index`` in the comment lines, if all have it as a whole number, becomes the identity; ``name`` the name.

    Raises:
        DataError: ASE cannot read it, a structure is periodic in some directions only, or labels change their shape.
    """
    import ase.io  # noqa: PLC0415  (heavy)

    _refuse_announcements(path, read_text(path, "an extended xyz file"))
    try:
        frames: Any = ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise DataError(
            f"{path}: expected extended xyz, ASE cannot read it ({type(error).__name__}: {one_line(error)[:200]}); "
            "correct it"
        ) from None
    structures = [_structure_of(path, row, atoms) for row, atoms in enumerate(frames)]
    per_frame, per_atom = [], []
    for atoms in frames:
        results = {} if atoms.calc is None else atoms.calc.results
        atomic = {"forces", "charges", "magmoms", "energies", "stresses"} & set(results)
        of_frame = _numeric(atoms.info | {name: results[name] for name in set(results) - atomic})
        _rename(of_frame, ENERGY_SPELLINGS, "energy", ())
        per_frame.append({name: value[None] for name, value in of_frame.items()})
        of_atoms = _numeric(atoms.arrays | {name: results[name] for name in atomic})
        _rename(of_atoms, FORCES_SPELLINGS, "forces", (len(atoms), 3))
        per_atom.append(of_atoms)
    sizes = [len(atoms) for atoms in frames]
    labels = _merge(path, per_frame, [1] * len(frames)) | _merge(path, per_atom, sizes)
    table = table_of_structures(path, structures, describe_source(path), labels)
    indices = [atoms.info.get("gdb_index") for atoms in frames]
    if all(isinstance(index, int | np.integer) for index in indices):
        table = dataclasses.replace(table, ids=np.array(indices, np.int64))
    return table


def _refuse_announcements(path: Path, text: str) -> None:
    """ASE makes room for all columns and asks for all lines that a file announces, whether they come or not."""
    widest = max(map(int, COLUMN_COUNT.findall(text)), default=0)
    if widest > MOST_COLUMNS:
        raise DataError(f"{path}: expected at most {MOST_COLUMNS} columns in Properties, found {widest}; correct it")
    lines, at = text.splitlines(), 0
    while at < len(lines):
        try:
            count = int(lines[at])
        except ValueError:  # for ASE to explain
            return
        if at + 2 + count > len(lines):
            raise DataError(
                f"{path}: expected {count} atoms after line {at + 2}, found {max(0, len(lines) - at - 2)} lines; the "
                "file is cut short"
            )
        at += 2 + max(0, count)


def _structure_of(path: Path, row: int, atoms: Any) -> Structure:
    name = str(atoms.info.get("name", f"frame {row}"))
    sound = (np.abs(atoms.cell.array) <= LARGEST_COORDINATE).all()  # NaN is not
    whole = atoms.pbc.all() and sound and abs(atoms.cell.volume) >= 1e-6
    if atoms.pbc.any() and not whole:
        raise DataError(
            f"{path}: expected {name} to be periodic in all directions, with a cell, or in none; found "
            f'pbc="{atoms.pbc.tolist()}"; give it a full cell with empty space, or pbc="F F F"'
        )
    cell = np.array(atoms.cell, np.float64) if atoms.pbc.all() else None
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, cell, name)


def _numeric(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The entries that are numbers, as float arrays."""
    arrays = {name: np.asarray(value) for name, value in values.items() if name not in NOT_LABELS}
    return {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind in "biuf"}


def _rename(labels: dict[str, np.ndarray], spellings: tuple[str, ...], name: str, shape: tuple[int, ...]) -> None:
    """Give the label with one of these spellings, and of this shape, the name that it should have had."""
    for spelling in spellings:
        if name not in labels and spelling in labels and labels[spelling].shape == shape:
            labels[name] = labels.pop(spelling)


def _merge(path: Path, rows: list[dict[str, np.ndarray]], sizes: list[int]) -> dict[str, np.ndarray]:
    """Join labels over all frames, NaN where a frame lacks one; frame k has ``sizes[k]`` entries of each."""
    ends = np.cumsum(sizes)
    merged: dict[str, np.ndarray] = {}
    for row, size, end in zip(rows, sizes, ends, strict=True):
        for name, value in row.items():
            column = merged.setdefault(name, np.full((ends[-1], *value.shape[1:]), np.nan))
            if value.shape != (size, *column.shape[1:]):
                raise DataError(
                    f"{path}: expected {name} of shape {column.shape[1:]} in every frame, found {value.shape[1:]} in "
                    "one; correct the file"
                )
            column[end - size : end] = value
    return merged


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
