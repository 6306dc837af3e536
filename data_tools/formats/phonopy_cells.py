"""Cells of phonopy's files in Angstrom, and the checks that they must pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import yaml
from phonopy.structure.atoms import PhonopyAtoms

from data_tools.formats.crystal_source import CrystalFiles
from data_tools.formats.phonopy_guard import guarded
from data_tools.graph import DataError
from data_tools.source_files import shown
from data_tools.tables import LARGEST_CELL

LARGEST_SUPERCELL = 5000  # atoms; the files of larger ones do not fit into memory either
LARGEST_FRACTION = 1e3  # of a lattice vector
DENSEST, FLATTEST = 2.0, 1e-3  # atoms per cubic Angstrom; volume over the product of the lengths of the vectors
#: an anchor or an alias, with which a short text becomes an endless one
ALIAS = re.compile(r"(?m)(?:^|[\s\[{,:-])[&*][A-Za-z0-9_]")
AUTO = "auto"


class Units(NamedTuple):
    """What turns values of a file into Angstrom, eV/Angstrom and eV/Angstrom^2."""

    length: float = 1.0
    force: float = 1.0
    force_constants: float = 1.0


VASP = Units()  # eV and Angstrom, also of what names no calculator


@dataclass(frozen=True)
class Setting:
    """The cells of a crystal in Angstrom, and what their file knows of forces.

    Attributes:
        where: the file, for messages.
        unitcell: what the supercell is made of.
        supercell_matrix: (3, 3) int64; its rows are phonopy's.
        primitive_matrix: (3, 3) float64, or ``auto``.
        units: of forces and force constants in files beside it.
        supercell: the atoms in the order of the forces; None: the order is phonopy's.
        dataset: phonopy's, displacements in Angstrom and forces, if any, in eV/Angstrom; None: no displacements.
        force_constants: (p or n, n, 3, 3) float64 eV/Angstrom^2.
        born: (p, 3, 3) float64 e.
        dielectric: (3, 3) float64.
    """

    where: str
    unitcell: PhonopyAtoms
    supercell_matrix: np.ndarray
    primitive_matrix: np.ndarray | str
    units: Units = VASP
    supercell: PhonopyAtoms | None = None
    dataset: dict[str, Any] | None = None
    force_constants: np.ndarray | None = None
    born: np.ndarray | None = None
    dielectric: np.ndarray | None = None

    @property
    def n_atoms(self) -> int:
        """Atoms of the supercell."""
        return len(self.unitcell) * round(abs(float(np.linalg.det(self.supercell_matrix))))


def read_document(files: CrystalFiles, name: str) -> dict[str, Any]:
    """A YAML file as plain values; phonopy's own loader would run code that a file names.

    Raises:
        DataError: no YAML, or none of phonopy's.
    """
    text, where = files.text(name), files.where(name)
    if ALIAS.search(re.sub(r"(?m)#.*$", "", text)):
        raise DataError(f"{where}: expected YAML of phonopy, found anchors or aliases, which it does not write")
    with guarded(where, "YAML of phonopy"):
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(document, dict):
        raise DataError(f"{where}: expected YAML of phonopy, found {type(document).__name__}; give another file")
    return document


def checked_cell(where: str, cell: PhonopyAtoms, length: float = 1.0) -> PhonopyAtoms:
    """A cell in Angstrom.

    Args:
        where: the file, for messages.
        cell: in the unit of the file.
        length: Angstrom per unit.

    Raises:
        DataError: unknown elements, vectors without a volume or left-handed, or atoms that are nowhere.
    """
    lattice, fractions = np.asarray(cell.cell, np.float64) * length, np.asarray(cell.scaled_positions)
    numbers, masses = np.asarray(cell.numbers), cell.masses
    if not (np.abs(lattice) <= LARGEST_CELL).all() or not (np.abs(fractions) <= LARGEST_FRACTION).all():
        raise DataError(
            f"{where}: expected finite positions and lattice vectors up to {LARGEST_CELL:g} Angstrom, found others"
        )
    volume, lengths = float(np.linalg.det(lattice)), np.linalg.norm(lattice, axis=1)
    if volume < 0:
        raise DataError(
            f"{where}: expected right-handed lattice vectors, found left-handed ones (volume {volume:.4g} Angstrom^3); "
            "exchange two of them and the coordinates along them"
        )
    if not volume > FLATTEST * lengths.prod() or len(numbers) > DENSEST * volume:
        raise DataError(
            f"{where}: expected a cell at most {DENSEST:g} atoms per cubic Angstrom dense, found {len(numbers)} in "
            f"{volume:.3g}; check the lattice vectors and their unit"
        )
    if masses is None or not (np.isfinite(masses) & (np.asarray(masses) > 0)).all() or numbers.min() < 1:
        raise DataError(f"{where}: expected elements with positive masses, found others; give the masses of the atoms")
    return PhonopyAtoms(numbers=numbers, cell=lattice, scaled_positions=fractions, masses=masses)


def checked_supercell_matrix(where: str, matrix: np.ndarray, atoms: int) -> np.ndarray:
    """Whole numbers with a volume of at least one cell and not too many atoms.

    Args:
        where: the file, for messages.
        matrix: what it says.
        atoms: of the unit cell.

    Raises:
        DataError: they are not.
    """
    whole = np.asarray(matrix, np.float64)
    sound = whole.shape == (3, 3) and bool(
        (np.abs(whole) <= LARGEST_SUPERCELL).all() and (whole == np.rint(whole)).all()
    )
    volume = float(np.linalg.det(whole)) if sound else 0.0
    if not sound or not 0.5 < volume or volume * atoms > LARGEST_SUPERCELL + 0.5:
        raise DataError(
            f"{where}: expected a supercell matrix of whole numbers with a positive determinant and at most "
            f"{LARGEST_SUPERCELL} atoms, found {shown(np.asarray(matrix).tolist())}; correct it"
        )
    return whole.astype(np.int64)


def checked_primitive_matrix(where: str, matrix: Any) -> np.ndarray:
    """Lattice vectors of the primitive cell in those of the unit cell, with a volume.

    Raises:
        DataError: they are not.
    """
    found = np.asarray(matrix, np.float64)
    if found.shape != (3, 3) or not (np.abs(found) <= LARGEST_CELL).all() or not np.linalg.det(found) > 1e-6:
        raise DataError(
            f"{where}: expected a primitive matrix of 3 x 3 numbers with a positive determinant, found "
            f"{shown(found.tolist())}; correct it"
        )
    return found


def read_numbers(where: str, tag: str, text: str, lengths: tuple[int, ...]) -> np.ndarray:
    """Whole numbers, decimals or fractions such as ``1/2`` in a tag of phonopy.conf.

    Raises:
        DataError: others, or another count of them than one of ``lengths``.
    """
    try:
        numbers = np.array([float(Fraction(word)) for word in text.split()])
    except (ValueError, ZeroDivisionError, OverflowError):
        numbers = np.zeros(0)
    if len(numbers) not in lengths:
        raise DataError(
            f"{where}: expected {' or '.join(map(str, lengths))} numbers for {tag}, found {shown(text)}; correct it"
        )
    return numbers
