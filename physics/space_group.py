"""The space group of a crystal on its primitive cell, and the meshes that it reduces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.symmetry import Symmetry

from data_tools.crystals import Crystal
from data_tools.graph import DataError

SYMMETRY_TOLERANCE = 1e-5  # Angstrom, phonopy's own


class SpaceGroup(NamedTuple):
    """G operations x -> R x + t, modulo lattice translations; x in vectors of the primitive cell.

    Attributes:
        rotations: (G, 3, 3) int64.
        permutations: (G, p) int64 onto which primitive atom each one goes.
        offsets: (G, p, 3) int64 and in which cell.
    """

    rotations: np.ndarray
    permutations: np.ndarray
    offsets: np.ndarray


def primitive_of(crystal: Crystal) -> PhonopyAtoms:
    """The primitive cell as phonopy's atoms, in the order of ``p2s``."""
    return PhonopyAtoms(
        symbols=[chemical_symbols[number] for number in crystal.supercell.numbers[crystal.p2s]],
        positions=crystal.supercell.positions[crystal.p2s],
        cell=crystal.primitive_cell,
        masses=crystal.masses[crystal.p2s],
    )


def symmetry_of(crystal: Crystal) -> Symmetry:
    """What phonopy and spglib know of the primitive cell's symmetry.

    Raises:
        DataError: they find none, as of atoms on top of each other.
    """
    try:
        return Symmetry(primitive_of(crystal), symprec=SYMMETRY_TOLERANCE)
    except Exception as error:  # of phonopy, spglib or NumPy: which one depends on the version
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{crystal.name}: expected a primitive cell whose symmetry spglib finds, it says {said!r}; check the atoms"
        ) from None


def space_group_of(crystal: Crystal) -> SpaceGroup:
    """The operations of a crystal's atoms.

    Raises:
        DataError: see ``symmetry_of``.
    """
    symmetry = symmetry_of(crystal)
    operations, permutations = symmetry.symmetry_operations, np.asarray(symmetry.atomic_permutations, np.int64)
    rotations = np.asarray(operations["rotations"], np.int64)
    scaled = crystal.supercell.positions[crystal.p2s] @ np.linalg.inv(crystal.primitive_cell)
    images = scaled @ rotations.swapaxes(1, 2) + np.asarray(operations["translations"])[:, None]
    return SpaceGroup(rotations, permutations, np.rint(images - scaled[permutations]).astype(np.int64))


def irreducible_mesh(
    mesh: tuple[int, int, int], centred: bool, rotations: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a mesh of which all others are images.

    Time reversal, q to -q, always counts.  A rotation that does not map the mesh onto itself does not.

    Args:
        mesh: points along the three reciprocal lattice vectors.
        centred: it contains Gamma; False: even numbers of points are shifted by half a step.
        rotations: (G, 3, 3) int, of positions in vectors of the primitive cell; None: time reversal alone.

    Returns:
        (Q, 3) reduced coordinates from -1/2 to 1/2, and (Q,) int64 how many points each one stands for.
    """
    size = np.array(mesh)
    shift = np.zeros(3, np.int64) if centred else (size + 1) % 2
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in mesh), indexing="ij"), axis=-1).reshape(-1, 3)
    doubled = 2 * grid + shift  # q = doubled / (2 size)
    lowest = np.arange(len(grid))
    for rotation in np.eye(3, dtype=np.int64)[None] if rotations is None else rotations:
        step = rotation * size / size[:, None]
        images = doubled @ np.rint(step).astype(np.int64)
        if np.abs(step - np.rint(step)).max() > 0 or ((images - shift) % 2).any():
            continue
        for image in (images, -images):
            address = ((image - shift) // 2) % size
            lowest = np.minimum(lowest, (address[:, 0] * size[1] + address[:, 1]) * size[2] + address[:, 2])
    points, weights = np.unique(lowest, return_counts=True)
    reduced = doubled[points] / (2 * size)
    return reduced - (reduced > 0.5), weights
