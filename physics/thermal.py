"""Harmonic free energy, entropy and heat capacity from frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.phonons import MESH, Mesh, mesh_frequencies

# exact in the SI since 2019
PLANCK = 6.62607015e-34  # J s
BOLTZMANN = 1.380649e-23  # J/K
AVOGADRO = 6.02214076e23  # 1/mol
DROPPED = 0.05  # THz: modes up to here do not count, neither soft nor imaginary ones


@dataclass(frozen=True)
class Thermal:
    """Harmonic thermal properties of one mole of primitive cells.

    Attributes:
        temperatures: (T,) K.
        free_energy: (T,) kJ/mol, with zero-point energy.
        entropy: (T,) J/K/mol.
        heat_capacity: (T,) J/K/mol, at constant volume.
        n_primitive: atoms of the primitive cell.
        dropped: the part of all modes that does not count, 0 to 1.
    """

    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray
    n_primitive: int
    dropped: float

    @property
    def free_energy_per_atom(self) -> np.ndarray:
        """(T,) kJ/mol of atoms."""
        return self.free_energy / self.n_primitive

    @property
    def entropy_per_atom(self) -> np.ndarray:
        """(T,) J/K/mol of atoms."""
        return self.entropy / self.n_primitive

    @property
    def heat_capacity_per_atom(self) -> np.ndarray:
        """(T,) J/K/mol of atoms."""
        return self.heat_capacity / self.n_primitive


def thermal(
    source: Crystal | Mesh, temperatures: Sequence[float] | np.ndarray = (300.0,), drop: float = DROPPED
) -> Thermal:
    """Harmonic thermal properties.

    Args:
        source: frequencies on a mesh, or a crystal, of which those of the mesh of 6 x 6 x 6 points are made.
        temperatures: (T,) K, 0 or larger.
        drop: THz, 0 or larger; modes with at most this frequency do not count: a harmonic mode that is imaginary has
            no free energy, and that of one near 0 diverges.

    Raises:
        DataError: a negative or infinite temperature, or see ``phonopy_of``.
    """
    kelvin = check_temperatures(temperatures)
    if not drop >= 0:
        raise DataError(f"expected a frequency of 0 THz or more below which modes are dropped, got {drop}")
    mesh = source if isinstance(source, Mesh) else mesh_frequencies(source, MESH)
    kept = mesh.frequencies > drop
    weights = (mesh.weights[:, None] / mesh.weights.sum() * kept)[kept]
    quanta = PLANCK * mesh.frequencies[kept] * 1e12  # J
    ratio = np.full((len(kelvin), len(quanta)), np.inf)
    warm = kelvin > 0
    ratio[warm] = quanta / (BOLTZMANN * kelvin[warm, None])
    # with y = exp(-x), no overflow at low temperatures
    y = np.exp(-ratio)
    occupied = np.where(y > 0, y / -np.expm1(-ratio), 0.0)  # Bose and Einstein
    finite = np.where(y > 0, ratio, 0.0)
    logarithm = np.log1p(-y)
    thermal_part = np.where(warm, BOLTZMANN * kelvin, 0.0)[:, None] * logarithm
    return Thermal(
        temperatures=kelvin,
        free_energy=AVOGADRO * (quanta / 2 + thermal_part) @ weights / 1000,
        entropy=AVOGADRO * BOLTZMANN * (finite * occupied - logarithm) @ weights,
        heat_capacity=AVOGADRO * BOLTZMANN * (finite**2 * occupied * (1 + occupied)) @ weights,
        n_primitive=mesh.frequencies.shape[1] // 3,
        dropped=1 - float(weights.sum()) / mesh.frequencies.shape[1],
    )


def check_temperatures(temperatures: Sequence[float] | np.ndarray) -> np.ndarray:
    """(T,) float64 K.

    Raises:
        DataError: a negative or infinite one.
    """
    kelvin = np.atleast_1d(np.asarray(temperatures, np.float64))
    if kelvin.ndim != 1 or not (np.isfinite(kelvin) & (kelvin >= 0)).all():
        raise DataError("expected finite temperatures of 0 K or more; correct them")
    return kelvin
