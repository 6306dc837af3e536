"""Band structures, densities of states, group velocities and displacements of a crystal's phonons, through phonopy.

Frequencies are in THz; an imaginary one is negative.  q points count in reciprocal lattice vectors of the primitive
cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seekpath
from phonopy import Phonopy

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.lattice_translations import with_first_atoms
from physics.phonons import AT_GAMMA, check_mesh
from physics.phonopy_bridge import phonopy_of
from physics.space_group import SYMMETRY_TOLERANCE
from physics.thermal import DROPPED, check_temperatures

KM_PER_S = 0.1  # of 1 THz Angstrom
DENSE = (16, 16, 16)
POINTS = 51


@dataclass(frozen=True)
class Bands:
    """Frequencies along straight segments through the Brillouin zone.

    Attributes:
        qpoints: per segment (K, 3) reduced coordinates, both ends among them.
        distances: per segment (K,) 1/Angstrom without 2 pi, from the begin of the path; a jump has no length.
        frequencies: per segment (K, 3p) THz.
        labels: per segment the names of its ends, as seekpath has them (``GAMMA``, ``X``, ``SIGMA_0``).
    """

    qpoints: tuple[np.ndarray, ...]
    distances: tuple[np.ndarray, ...]
    frequencies: tuple[np.ndarray, ...]
    labels: tuple[tuple[str, str], ...]

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Distance and label of each special point; both labels where the path jumps, for example ``U|K``."""
        ticks = [(float(self.distances[0][0]), self.labels[0][0])]
        for segment, (_, end) in enumerate(self.labels):
            following = self.labels[segment + 1][0] if segment + 1 < len(self.labels) else end
            label = end if following == end else f"{end}|{following}"
            ticks.append((float(self.distances[segment][-1]), label))
        return tuple(ticks)

    @property
    def lowest(self) -> tuple[float, tuple[str, str]]:
        """The lowest frequency away from Gamma in THz, and the ends of its segment."""
        lowest = [
            float(frequencies[np.abs(q - np.rint(q)).max(axis=1) > AT_GAMMA].min())
            for q, frequencies in zip(self.qpoints, self.frequencies, strict=True)
        ]
        segment = int(np.argmin(lowest))
        return lowest[segment], self.labels[segment]


def band_path(crystal: Crystal) -> tuple[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]], ...]:
    """The segments of the standard path (seekpath, Hinuma et al. 2017) for the primitive cell as it is.

    Returns:
        per segment its two ends, each a label and (3,) reduced coordinates.

    Raises:
        DataError: seekpath finds no symmetry.
    """
    scaled = crystal.supercell.positions[crystal.p2s] @ np.linalg.inv(crystal.primitive_cell)
    structure = (crystal.primitive_cell, scaled, crystal.supercell.numbers[crystal.p2s])
    try:
        path = seekpath.get_path_orig_cell(structure, symprec=SYMMETRY_TOLERANCE)
    except Exception as error:  # of seekpath and spglib: which one depends on the version
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{crystal.name}: expected a cell with a standard path, seekpath says {said!r}") from None
    places = {label: np.asarray(place, np.float64) for label, place in path["point_coords"].items()}
    return tuple(((start, places[start]), (end, places[end])) for start, end in path["path"])


def band_structure(crystal: Crystal, points: int = POINTS, nac: bool = False, connected: bool = False) -> Bands:
    """Frequencies along the standard path.

    Args:
        crystal: with force constants.
        points: on the longest segment, both ends among them; the others have the same spacing, and at least 2.
        nac: add the non-analytical term; at Gamma, with the direction of the segment.
        connected: order the bands of a segment by the likeness of their eigenvectors from point to point, so that
            they may cross; False: by frequency.

    Raises:
        DataError: see ``phonopy_of`` and ``band_path``.
    """
    if points < 2:
        raise DataError(f"expected 2 points or more on the longest segment of the path, got {points}")
    path, found = band_path(crystal), phonopy_of(crystal, nac)
    to_cartesian = np.linalg.inv(crystal.primitive_cell).T
    lengths = [float(np.linalg.norm((end - start) @ to_cartesian)) for (_, start), (_, end) in path]
    counts = [max(2, round(length / max(lengths) * (points - 1)) + 1) for length in lengths]
    qpoints = tuple(np.linspace(s, e, count) for ((_, s), (_, e)), count in zip(path, counts, strict=True))
    found.run_band_structure(list(qpoints), with_eigenvectors=connected, is_band_connection=connected)
    result: Any = found.band_structure
    starts = np.cumsum([0.0, *lengths])
    return Bands(
        qpoints=qpoints,
        distances=tuple(np.linspace(starts[i], starts[i + 1], count) for i, count in enumerate(counts)),
        frequencies=tuple(np.array(one) for one in result.frequencies),
        labels=tuple((start, end) for (start, _), (end, _) in path),
    )


@dataclass(frozen=True)
class DensityOfStates:
    """Modes per THz and primitive cell.

    Attributes:
        frequencies: (F,) THz.
        total: (F,) 1/THz; its integral over all frequencies is 3p.
        of_atoms: (p, F) 1/THz, the part of each atom of ``p2s``; they add up to the total.  None: not asked for.
    """

    frequencies: np.ndarray
    total: np.ndarray
    of_atoms: np.ndarray | None


def density_of_states(
    crystal: Crystal,
    mesh: tuple[int, int, int] = DENSE,
    projected: bool = False,
    nac: bool = False,
    points: int = 401,
    width: float | None = None,
) -> DensityOfStates:
    """The density of states by linear tetrahedra, or by Gaussians of a given width.

    Args:
        crystal: with force constants.
        mesh: points along the three reciprocal lattice vectors; it contains Gamma.
        projected: also the part of each atom; eigenvectors on the whole mesh take memory, 16 (3p)^2 bytes a point.
        nac: add the non-analytical term.
        points: frequencies, from below the lowest to above the highest of the mesh.
        width: standard deviation of the Gaussians, THz; None: tetrahedra.

    Raises:
        DataError: see ``phonopy_of``; a mesh or numbers that are not positive.
    """
    check_mesh(mesh)
    if points < 2 or not (width is None or width > 0):
        raise DataError(f"expected 2 frequencies or more and a positive width, got {points} and {width}")
    found = phonopy_of(crystal, nac, symmetry=not projected)
    sampled = _run_mesh(found, mesh, eigenvectors=projected)
    lowest, highest = float(sampled.frequencies.min()), float(sampled.frequencies.max())
    margin = 5 * width if width else 0.02 * max(highest - lowest, 1.0)
    limits: dict[str, Any] = {"freq_min": lowest - margin, "freq_max": highest + margin}
    limits["freq_pitch"] = (limits["freq_max"] - limits["freq_min"]) / (points - 1) * (1 - 1e-9)
    if projected:
        found.run_projected_dos(sigma=width, use_tetrahedron_method=width is None, **limits)
        result: Any = found.projected_dos
        of_atoms = np.array(result.projected_dos)[_own_order(crystal)]
        return DensityOfStates(np.array(result.frequency_points), of_atoms.sum(axis=0), of_atoms)
    found.run_total_dos(sigma=width, use_tetrahedron_method=width is None, **limits)
    result = found.total_dos
    return DensityOfStates(np.array(result.frequency_points), np.array(result.dos), None)


def group_velocities(
    crystal: Crystal, qpoints: Sequence[Sequence[float]] | np.ndarray, nac: bool = False
) -> np.ndarray:
    """(Q, 3p, 3) km/s, Cartesian, in the order of the frequencies; near Gamma those of sound.

    Args:
        crystal: with force constants.
        qpoints: (Q, 3) reduced coordinates.
        nac: add the non-analytical term.
    """
    found = phonopy_of(crystal, nac)
    found.run_qpoints(np.asarray(qpoints, np.float64), with_group_velocities=True)
    result: Any = found.qpoints
    return np.array(result.group_velocities) * KM_PER_S


def mean_squared_displacements(
    crystal: Crystal, temperatures: Sequence[float] | np.ndarray = (300.0,), mesh: tuple[int, int, int] = DENSE
) -> np.ndarray:
    """(T, p, 3) Angstrom^2 along x, y and z of the atoms of ``p2s``, quantum harmonic.

    Modes up to 0.05 THz do not count, as in ``thermal``; the part of long waves that a mesh leaves out falls with the
    inverse of the number of points along one side.

    Raises:
        DataError: see ``phonopy_of``; temperatures below 0 K.
    """
    kelvin = check_temperatures(temperatures)
    check_mesh(mesh)
    found = phonopy_of(crystal)
    _run_mesh(found, mesh, eigenvectors=True)
    found.run_thermal_displacements(temperatures=kelvin, freq_min=DROPPED)
    result: Any = found.thermal_displacements
    values = np.array(result.thermal_displacements).reshape(len(kelvin), crystal.n_primitive, 3)
    return values[:, _own_order(crystal)]


def _run_mesh(found: Phonopy, mesh: tuple[int, int, int], eigenvectors: bool) -> Any:
    """Phonopy's mesh with Gamma; the whole one where eigenvectors are asked for."""
    found.run_mesh(mesh, is_gamma_center=True, is_mesh_symmetry=not eigenvectors, with_eigenvectors=eigenvectors)
    return found.mesh


def _own_order(crystal: Crystal) -> np.ndarray:
    """(p,) int where phonopy has each primitive atom of the crystal."""
    first = with_first_atoms(crystal)
    return np.array([np.flatnonzero(first.p2s == first.s2p[atom])[0] for atom in crystal.p2s])
