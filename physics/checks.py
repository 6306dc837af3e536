"""What the force constants of a crystal must obey, and by how much they do not.

Phi_ij^ab = d^2 E / dr_i^a dr_j^b, for all atoms i, j of the supercell; r_ij is the shortest vector from i to an image
of j, the mean of all that are equally short.

    (1)  exchange           Phi_ij^ab = Phi_ji^ba
    (2)  acoustic sums      sum_j Phi_ij^ab = 0 = sum_j Phi_ji^ab                     translation of the crystal
    (3)  rotational sums    sum_j Phi_ij^ab r_ij^c = sum_j Phi_ij^ac r_ij^b          rotation of the crystal
    (4)  space group        Phi_P(i)P(j) = R Phi_ij R^T                              (R, t) takes atom i to atom P(i)
    (5)  semi-definiteness  x^T D x >= 0, D_ij = Phi_ij / sqrt(m_i m_j)              a minimum of the energy
    (6)  decay              |Phi_ij| becomes small with |r_ij|                       an insulator without its dipoles

(3) is the first of the conditions of Born and Huang for atoms without forces.  Force constants of a supercell hold the
sum over all images of j, so that (3) is exact only where they reach less far than the supercell does, and what DFT
shows is the scale.  (5) is that of the symmetric part, at the wave vectors that fit the supercell; the three
translations are projected out.  Norms are Frobenius norms.

Nothing here changes force constants: a caller that wants to know what a projection has done checks both.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import spglib
from phonopy.structure.cells import get_reduced_bases

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.force_constants import full_of
from physics.minimum_image import MinimumImages, minimum_images

STIFFNESS = "eV/A^2"
TERAHERTZ = 15.633302  # sqrt(eV/Angstrom^2 over atomic mass units) / 2 pi, in THz
TOLERANCE = 1e-5  # Angstrom, of positions that a symmetry operation maps onto each other
BIN = 1.0  # Angstrom, width of a row of the table of distances


class Check(NamedTuple):
    """One law, and how far it is broken.

    Attributes:
        name: of the law, a key of the report.
        value: the largest deviation, in ``unit``.
        unit: of the value.
        relative: of all deviations together, without a unit; see the function that makes the check.  NaN: undefined.
    """

    name: str
    value: float
    unit: str
    relative: float


class Distances(NamedTuple):
    """The pairs of atoms of one range of distances.

    Attributes:
        start, end: of the range, Angstrom.
        pairs: how many pairs (i of the primitive cell, j of the supercell) it holds.
        largest, mean: of the norms of their blocks, eV/Angstrom^2.
    """

    start: float
    end: float
    pairs: int
    largest: float
    mean: float


def check_blocks(crystal: Crystal, images: MinimumImages | None = None) -> list[Check]:
    """Laws (1) to (6) for the force constants as they are.

    Args:
        crystal: with its force constants.
        images: of the crystal; None: computed here.

    Raises:
        DataError: atoms without a symmetry, as of coinciding ones, or no repetition of the primitive cell.
    """
    images = minimum_images(crystal) if images is None else images
    full = full_of(crystal)
    return [
        _exchange(full),
        _acoustic(crystal, full),
        _rotational(crystal, images),
        _space_group(crystal, full),
        *_frequencies(crystal, full),
        _edge(crystal, images),
    ]


def acoustic_sums(crystal: Crystal, full: np.ndarray) -> np.ndarray:
    """(2, p, 3, 3) what (2) leaves, over the second index and over the first, eV/Angstrom^2.

    Args:
        crystal: with its force constants.
        full: (n, n, 3, 3) of it.
    """
    return np.stack([full[crystal.p2s].sum(1), full[:, crystal.p2s].sum(0)])


def rotational_sums(blocks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(p, 3, 3) what (3) leaves: axis a of the force by the axis of rotation that b and c span, eV/Angstrom.

    Args:
        blocks: (p, n, 3, 3) eV/Angstrom^2.
        vectors: (p, n, 3) of ``MinimumImages``.
    """
    moments = np.einsum("ijab,ijc->iabc", blocks, vectors)
    return np.stack([moments[:, :, b, c] - moments[:, :, c, b] for b, c in ((1, 2), (2, 0), (0, 1))], axis=2)


def decay(crystal: Crystal, images: MinimumImages, width: float = BIN) -> list[Distances]:
    """The norms of off-site blocks by distance; ranges without a pair are left out.

    Args:
        crystal: with its force constants.
        images: of the crystal.
        width: of a range, Angstrom.
    """
    lengths, norms = pair_norms(crystal, images)
    numbers = np.floor(lengths / width)
    rows = []
    for number in np.unique(numbers):
        inside = norms[numbers == number]
        start, end = float(number * width), float((number + 1) * width)
        rows.append(Distances(start, end, len(inside), float(inside.max()), float(inside.mean())))
    return rows


def pair_norms(crystal: Crystal, images: MinimumImages) -> tuple[np.ndarray, np.ndarray]:
    """Distances, Angstrom, and norms of the blocks, eV/Angstrom^2, of all pairs of two atoms: (p (n - 1),) each."""
    two = np.ones((crystal.n_primitive, crystal.n_atoms), bool)
    two[np.arange(crystal.n_primitive), crystal.p2s] = False
    return images.distances[two], np.linalg.norm(crystal.blocks, axis=(2, 3))[two]


def radius_within(cell: np.ndarray) -> float:
    """Half the shortest lattice vector: up to this distance an atom sees no two images of another, Angstrom.

    Args:
        cell: (3, 3) lattice vectors as rows.
    """
    steps = np.array([step for step in itertools.product(range(-2, 3), repeat=3) if any(step)])
    return float(np.linalg.norm(steps @ get_reduced_bases(cell), axis=1).min() / 2)


def _exchange(full: np.ndarray) -> Check:
    """(1); relative: norm of the deviations over that of the force constants."""
    deviation = full - full.transpose(1, 0, 3, 2)
    return Check("exchange", _largest(deviation), STIFFNESS, _ratio(deviation, full))


def _acoustic(crystal: Crystal, full: np.ndarray) -> Check:
    """(2), of both indices; relative: norm of the sums over that of the on-site blocks."""
    sums = acoustic_sums(crystal, full)
    on_site = crystal.blocks[np.arange(crystal.n_primitive), crystal.p2s]
    return Check("acoustic", _largest(sums), STIFFNESS, _ratio(sums, np.stack([on_site, on_site])))


def _rotational(crystal: Crystal, images: MinimumImages) -> Check:
    """(3); relative: norm of the sums over that of all their terms."""
    sums = rotational_sums(crystal.blocks, images.vectors)
    terms = crystal.blocks * np.linalg.norm(images.vectors, axis=2)[:, :, None, None]
    return Check("rotational", _largest(sums), "eV/A", _ratio(sums, terms))


def _space_group(crystal: Crystal, full: np.ndarray) -> Check:
    """(4); relative: norm of the deviations over that of the force constants, of the worst operation."""
    largest, relative = 0.0, 0.0
    for rotation, to in zip(*_operations(crystal), strict=True):
        deviation = full[np.ix_(to[crystal.p2s], to)] - rotation @ crystal.blocks @ rotation.T
        largest, relative = max(largest, _largest(deviation)), max(relative, _ratio(deviation, crystal.blocks))
    return Check("space_group", largest, STIFFNESS, relative)


def _operations(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Of each rotation in the space group of the supercell (K, 3, 3), Cartesian, and where it takes the atoms (K, n).

    One operation a rotation is enough: compact force constants obey the translations by construction.
    """
    cell = _cell(crystal)
    fractions = crystal.supercell.positions @ np.linalg.inv(cell)
    atoms: Any = (cell, fractions, crystal.supercell.numbers)
    operations: Any = spglib.get_symmetry(atoms, symprec=TOLERANCE)
    if operations is None:
        raise DataError(f"{crystal.name}: expected atoms in which spglib finds a symmetry, found none; check them")
    rotations, first = np.unique(operations["rotations"], axis=0, return_index=True)
    to = []
    for rotation, translation in zip(rotations, operations["translations"][first], strict=True):
        apart = (fractions @ rotation.T + translation)[:, None] - fractions  # (n, n, 3)
        to.append(np.linalg.norm((apart - np.rint(apart)) @ cell, axis=2).argmin(1))
    return cell.T @ rotations @ np.linalg.inv(cell.T), np.stack(to)


def _frequencies(crystal: Crystal, full: np.ndarray) -> list[Check]:
    """(5): the lowest frequency, and the largest of a translation; relative: over the highest frequency."""
    n, roots = crystal.n_atoms, np.sqrt(crystal.masses)
    matrix = (full / np.outer(roots, roots)[..., None, None]).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    matrix = (matrix + matrix.T) / 2
    moved = np.kron(roots[:, None] / np.linalg.norm(roots), np.eye(3))  # (3n, 3): the translations along x, y, z
    translations = np.linalg.eigvalsh(moved.T @ matrix @ moved)
    others = np.eye(3 * n) - moved @ moved.T
    # what is added takes the translations to the end of the ascending eigenvalues
    shifted = others @ matrix @ others + 2 * np.linalg.norm(matrix) * moved @ moved.T
    rest = _terahertz(np.linalg.eigvalsh(shifted)[: 3 * n - 3])
    drift = float(_terahertz(translations[[np.abs(translations).argmax()]])[0])
    if not len(rest):  # one atom
        return [Check("lowest_frequency", np.nan, "THz", np.nan), Check("translations", drift, "THz", np.nan)]
    lowest, highest = float(rest[0]), float(rest[-1]) if rest[-1] > 0 else np.nan
    return [
        Check("lowest_frequency", lowest, "THz", lowest / highest),
        Check("translations", drift, "THz", abs(drift) / highest),
    ]


def _edge(crystal: Crystal, images: MinimumImages) -> Check:
    """(6): the largest block beyond ``radius_within``; relative: over the largest block of two atoms."""
    lengths, norms = pair_norms(crystal, images)
    beyond = norms[lengths >= radius_within(_cell(crystal)) - TOLERANCE]
    if not len(beyond):
        return Check("edge", np.nan, STIFFNESS, np.nan)
    return Check("edge", _largest(beyond), STIFFNESS, _largest(beyond) / (_largest(norms) or np.nan))


def _cell(crystal: Crystal) -> np.ndarray:
    assert crystal.supercell.cell is not None
    return np.asarray(crystal.supercell.cell, np.float64)


def _terahertz(values: np.ndarray) -> np.ndarray:
    """Eigenvalues of D, eV/Angstrom^2 over atomic mass units, as frequencies; imaginary ones negative."""
    return TERAHERTZ * np.sign(values) * np.sqrt(np.abs(values))


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(np.linalg.norm(part) / (np.linalg.norm(whole) or np.nan))
