"""Why an entry of an SDF file is no geometry: it is a drawing, or hydrogens are left out.

Bonds in SDF files are often guesses of another program (those of gdb9.sdf are), so implied hydrogens alone prove
nothing: an atom must also have room for them, by the angles and lengths of its bonds.

Measured on molecules of QM9: none of 22,000 with bonds guessed by Open Babel (967 of them have implied hydrogens) and
none of 2,074 with single bonds alone is refused.  Of 7,009 with hydrogens taken away, 1 is not noticed where one is
missing, 150 where two are, and 6 where all are.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

HYDROGEN = 1
#: elements whose atoms with four neighbours or more never lie in one plane with them
TETRAHEDRAL = frozenset((5, 6, 7, 13, 14, 15, 16, 31, 32, 33, 34, 49, 50, 51, 52))
#: elements that lack hydrogens where their valence is open; of metals it says nothing
NONMETALS = frozenset((5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53))
HALOGENS = frozenset((9, 17, 35, 53))
LIKE_CARBON, LIKE_NITROGEN, LIKE_OXYGEN = frozenset((6, 14, 32)), frozenset((7, 15, 33)), frozenset((8, 16, 34, 52))
FLAT = 1e-2  # Angstrom; largest distance from a plane that a drawing has
SAME_LENGTH = 1e-2  # relative; the bonds of a drawing are equally long
DRAWN = (0.75, 1.25)  # bond length over the sum of covalent radii: what lies outside is no bond
BOUND = 1.3  # distance over the sum of covalent radii, up to which atoms are neighbours where a file has no bonds
PYRAMIDAL = 345.0  # degrees; sum of the angles between three bonds, 360 in a plane and 328 at a tetrahedral atom
LINEAR = 150.0  # degrees; an atom with two bonds at a larger angle has none to add
SURE = 2  # hydrogens for which there is room; a single one of several implied ones may be a chance
#: shortest bond over the sum of covalent radii; a shorter one is a double or a triple bond, whatever the file says
END_OF_CARBON, SINGLE_OF_CARBON, LONG_OF_CARBON = 0.85, 0.935, 0.97
END_OF_NITROGEN, SINGLE_OF_NITROGEN, SINGLE_OF_OXYGEN = 0.83, 0.915, 0.915


def drawing(molecule: Any) -> str | None:
    """What shows that the positions are those of a drawing on paper; None where they may be a geometry.

    Args:
        molecule: of RDKit, not sanitized, with a conformer.
    """
    if _dimensions(molecule) == "2D":
        return "a drawing (its header says 2D)"
    positions = molecule.GetConformer().GetPositions()
    if len(positions) < 2 or not np.isfinite(positions).all():  # the latter for the table to explain
        return None
    if (positions == positions[0]).all():
        return "no coordinates (all atoms at one point)"
    spread = positions - positions.mean(axis=0)
    flat = len(positions) > 3 and np.abs(spread @ np.linalg.svd(spread, full_matrices=False)[2][2]).max() <= FLAT
    return _flat_by_mistake(molecule, positions) if flat else None


def missing_hydrogens(molecule: Any) -> int:
    """About how many hydrogens are left out: declared ones, and implied ones where an atom has room for them.

    Charges and radicals that the entry declares are allowed for.

    Args:
        molecule: of RDKit, not sanitized, with a conformer that is no drawing.
    """
    molecule.UpdatePropertyCache(strict=False)
    atoms = [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() in NONMETALS]
    declared = sum(atom.GetNumExplicitHs() for atom in atoms)
    without_bonds = molecule.GetNumBonds() == 0
    candidates = [atom for atom in atoms if without_bonds or _implied(atom)]
    if declared or not candidates:
        return declared
    implied = sum(map(_implied, candidates))
    if not without_bonds and electrons(molecule) % 2 and not _is_declared(molecule):
        return implied  # an atom has an open valence, and that alone explains the odd number
    neighbors = _Neighbors(molecule, molecule.GetConformer().GetPositions())
    found = sum(max(1, _implied(atom)) for atom in candidates if neighbors.leave_room(atom, without_bonds))
    if not without_bonds and found < implied and (found < SURE or 2 * found <= implied):
        return 0  # bonds of the wrong order leave open valences, few of them with room
    surplus = sum(max(0, _valence(atom) - _usual_valence(atom)) for atom in atoms)  # an ion pair without its charges
    return found if found > surplus else 0


def electrons(molecule: Any) -> int:
    """The number of electrons, by the formal charges of the atoms."""
    return sum(atom.GetAtomicNum() - atom.GetFormalCharge() for atom in molecule.GetAtoms())


def _dimensions(molecule: Any) -> str:
    """``2D`` or ``3D`` as the second line of the entry has it; empty where it does not say."""
    try:
        line = molecule.GetProp("_MolFileInfo").upper()
    except (KeyError, UnicodeDecodeError):
        return ""
    if (code := line[20:22]) in ("2D", "3D"):
        return code
    found = re.search(r"(?:^|\s)([23]D)(?:\s|$)", line)  # written without regard to its columns
    return found[1] if found else ""


def _flat_by_mistake(molecule: Any, positions: np.ndarray) -> str | None:
    """What shows that a molecule whose atoms lie in one plane is not planar; None where it may be."""
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum() in TETRAHEDRAL and atom.GetDegree() >= 4:
            where = f"{atom.GetSymbol()} {atom.GetIdx() + 1}, which has {atom.GetDegree()} neighbours"
            return f"a drawing (all atoms lie in one plane, also {where})"
    relative, lengths = _bond_lengths(molecule, positions)
    alike = len(lengths) and np.ptp(lengths) <= SAME_LENGTH * lengths.mean()
    if alike and (relative.min() < DRAWN[0] or relative.max() > DRAWN[1]):
        return f"a drawing (all atoms lie in one plane, and all bonds are {lengths.mean():.2f} long)"
    return None


def _implied(atom: Any) -> int:
    return atom.GetNumImplicitHs()


def _valence(atom: Any) -> int:
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    return atom.GetValence(Chem.ValenceType.EXPLICIT)


def _usual_valence(atom: Any) -> int:
    """Valence above which an atom of the second period without a declared charge must be an ion."""
    highest = {5: 3, 6: 4, 7: 3, 8: 2, 9: 1}.get(atom.GetAtomicNum(), 8)
    return 8 if atom.GetFormalCharge() else highest


def _is_declared(molecule: Any) -> bool:
    return any(atom.GetNumRadicalElectrons() or atom.GetFormalCharge() for atom in molecule.GetAtoms())


def _bond_lengths(molecule: Any, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) lengths of the bonds over the sums of covalent radii, and in Angstrom."""
    from ase.data import covalent_radii  # noqa: PLC0415  (heavy)

    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()], np.int64).reshape(-1, 2)
    lengths = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    return lengths / covalent_radii[numbers[pairs]].sum(axis=1), lengths


class _Neighbors:
    """The neighbours of the atoms of a molecule, by its bonds and by distance.

    Args:
        molecule: of RDKit.
        positions: (N, 3) Angstrom.
    """

    def __init__(self, molecule: Any, positions: np.ndarray):
        from ase.data import covalent_radii  # noqa: PLC0415  (heavy)

        self.positions = positions
        self.numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
        self.has_metals = bool(set(self.numbers.tolist()) - NONMETALS - {HYDROGEN})
        self.bonded = [{other.GetIdx() for other in atom.GetNeighbors()} for atom in molecule.GetAtoms()]
        self.radii = covalent_radii[self.numbers]

    def leave_room(self, atom: Any, by_carbon_alone: bool) -> bool:
        """Whether the bonds of an atom leave a place for another.

        Args:
            atom: of RDKit.
            by_carbon_alone: judge atoms like carbon only, whose angles decide without the order of any bond.
        """
        index = atom.GetIdx()
        vectors = self.positions - self.positions[index]
        lengths = np.linalg.norm(vectors, axis=1)
        relative = lengths / (self.radii + self.radii[index])
        near = set(np.flatnonzero((relative < BOUND) & (lengths > 0)).tolist()) | self.bonded[index]
        around = sorted(near - {index})
        number = int(self.numbers[index])
        if by_carbon_alone and number not in LIKE_CARBON:
            return False
        if not around:
            return not (self.has_metals and number in HALOGENS)
        angles = _angles(vectors[around])
        shortest = float(relative[around].min())
        if number in LIKE_CARBON:
            return _room_at_carbon(angles, shortest, not by_carbon_alone and _valence(atom) == 3)
        if number in LIKE_NITROGEN:
            return _room_at_nitrogen(angles, shortest, len(around))
        if number in LIKE_OXYGEN:
            return len(around) == 1 and shortest > SINGLE_OF_OXYGEN
        return number not in HALOGENS and len(around) < 3


def _room_at_carbon(angles: np.ndarray, shortest: float, is_triple: bool) -> bool:
    """``is_triple``: a carbon with one neighbour has a triple bond to it, as its length says too."""
    if len(angles) == 0:
        return is_triple or shortest > END_OF_CARBON
    if len(angles) == 1:
        return float(angles[0]) < LINEAR
    pyramidal = float(angles.sum()) < PYRAMIDAL
    return len(angles) == 3 and shortest > (SINGLE_OF_CARBON if pyramidal else LONG_OF_CARBON)


def _room_at_nitrogen(angles: np.ndarray, shortest: float, neighbors: int) -> bool:
    if neighbors == 1:
        return shortest > END_OF_NITROGEN
    if neighbors == 2:
        return float(angles[0]) < LINEAR and shortest > SINGLE_OF_NITROGEN
    return neighbors == 3 and float(angles.sum()) < PYRAMIDAL


def _angles(vectors: np.ndarray) -> np.ndarray:
    """Angles in degrees between all pairs of (K, 3) vectors."""
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    first, second = np.triu_indices(len(vectors), 1)
    return np.degrees(np.arccos(np.clip((directions[first] * directions[second]).sum(axis=1), -1.0, 1.0)))
