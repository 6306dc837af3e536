"""Phonons of a crystal from its force constants, through phonopy.

Frequencies are in THz; an imaginary one is negative.  q points count in reciprocal lattice vectors of the primitive
cell.  Nothing is symmetrised: sum rule and exchange symmetry are as the force constants have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from phonopy import Phonopy

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.phonopy_bridge import phonopy_of
from physics.space_group import irreducible_mesh, symmetry_of

MESH = (6, 6, 6)
UNSTABLE = -0.05  # THz: a lower frequency away from Gamma says that the structure is no minimum
AT_GAMMA = 1e-8  # of a reciprocal lattice vector


@dataclass(frozen=True)
class Mesh:
    """Frequencies on a regular mesh of q points.

    Attributes:
        qpoints: (Q, 3) reduced coordinates.
        weights: (Q,) int64 points of the whole mesh that each one stands for.
        frequencies: (Q, 3p) THz, ascending, imaginary ones negative.
    """

    qpoints: np.ndarray
    weights: np.ndarray
    frequencies: np.ndarray

    @property
    def away_from_gamma(self) -> np.ndarray:
        """(Q,) bool; Gamma is one point of a mesh that contains it."""
        return np.abs(self.qpoints - np.rint(self.qpoints)).max(axis=1) > AT_GAMMA

    @property
    def highest(self) -> float:
        """THz."""
        return float(self.frequencies.max())


def mesh_frequencies(
    crystal: Crystal,
    mesh: tuple[int, int, int] = MESH,
    nac: bool = False,
    symmetry: bool = True,
    centred: bool = True,
) -> Mesh:
    """Frequencies on a mesh.

    Args:
        crystal: with force constants.
        mesh: points along the three reciprocal lattice vectors.
        nac: add the non-analytical term; at Gamma itself it is not there, because no direction is given.
        symmetry: one point stands for those that are equivalent by the symmetry of the atoms.  False, for force
            constants that lack it: by time reversal alone.
        centred: the mesh contains Gamma, and with an even mesh the points that a doubled supercell describes exactly.
            False: even meshes are shifted by half a step (Monkhorst and Pack).

    Raises:
        DataError: see ``phonopy_of``; a mesh without points.
    """
    return _on_mesh(phonopy_of(crystal, nac), crystal, mesh, symmetry, centred)


@dataclass(frozen=True)
class Stability:
    """Whether a structure is a minimum of its energy, as far as its frequencies tell.

    Attributes:
        lowest_at_gamma: THz, without the three acoustic modes; NaN: there are no others.
        lowest_on_mesh: THz, lowest of a mesh away from Gamma.
        q: (3,) where that is, reduced coordinates.
        acoustic: (3,) THz, ascending: what the acoustic modes have at Gamma, 0 where the sum rule holds.
        stable: ``lowest_on_mesh`` is at least -0.05 THz.
    """

    lowest_at_gamma: float
    lowest_on_mesh: float
    q: np.ndarray
    acoustic: np.ndarray

    @property
    def stable(self) -> bool:
        """Away from Gamma no frequency is below -0.05 THz."""
        return self.lowest_on_mesh >= UNSTABLE


def stability(crystal: Crystal, mesh: tuple[int, int, int] = MESH, symmetry: bool = True) -> Stability:
    """The lowest frequencies, without the non-analytical term.

    Args:
        crystal: with force constants.
        mesh: points along the three reciprocal lattice vectors; it contains Gamma.
        symmetry: as in ``mesh_frequencies``.

    Raises:
        DataError: as ``mesh_frequencies``, and for a mesh of nothing but Gamma.
    """
    if max(mesh) < 2:
        raise DataError(f"{crystal.name}: expected a mesh with points away from Gamma, got {mesh}; give more points")
    found = phonopy_of(crystal)
    on_mesh = _on_mesh(found, crystal, mesh, symmetry, centred=True)
    away = on_mesh.away_from_gamma
    lowest = on_mesh.frequencies[away].min(axis=1)
    optical, acoustic = at_gamma(found)
    return Stability(
        lowest_at_gamma=float(optical[0]) if len(optical) else np.nan,
        lowest_on_mesh=float(lowest.min()),
        q=on_mesh.qpoints[away][lowest.argmin()],
        acoustic=acoustic,
    )


def at_gamma(found: Phonopy) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies at Gamma, those of translations apart from all others.

    The others are those of the force constants without what translations of all atoms feel: where the sum rule is
    broken, or optical modes are soft, the three lowest frequencies need not be acoustic.

    Returns:
        (3p - 3,) optical ones and (3,) acoustic ones, THz, each ascending.
    """
    masses = np.sqrt(np.asarray(found.primitive.masses))
    translations = np.kron(masses[:, None], np.eye(3))
    basis, _ = np.linalg.qr(np.concatenate([translations, np.eye(3 * len(masses))], axis=1))
    matrix = np.asarray(found.get_dynamical_matrix_at_q([0.0, 0.0, 0.0])).real
    parts = (basis[:, 3:], basis[:, :3])
    optical, acoustic = (np.linalg.eigvalsh(part.T @ matrix @ part) for part in parts)
    factor = found.unit_conversion_factor
    return np.sign(optical) * np.sqrt(np.abs(optical)) * factor, np.sign(acoustic) * np.sqrt(np.abs(acoustic)) * factor


def _on_mesh(found: Phonopy, crystal: Crystal, mesh: tuple[int, int, int], symmetry: bool, centred: bool) -> Mesh:
    check_mesh(mesh)
    rotations = symmetry_of(crystal).symmetry_operations["rotations"] if symmetry else None
    qpoints, weights = irreducible_mesh(mesh, centred, rotations)
    found.run_qpoints(qpoints)
    result: Any = found.qpoints
    return Mesh(qpoints, weights, np.array(result.frequencies))


def check_mesh(mesh: tuple[int, int, int]) -> None:
    """Refuse what is no mesh.

    Raises:
        DataError: not three positive whole numbers.
    """
    if len(mesh) != 3 or not all(isinstance(points, int | np.integer) and points > 0 for points in mesh):
        raise DataError(f"expected a mesh of three positive numbers of points, got {mesh}; for example 6 6 6")
