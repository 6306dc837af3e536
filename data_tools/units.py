"""Conversion constants, and the one function that turns QM9 properties from their published units into the project's.

The project computes in eV and Angstrom.  Every reader calls this file; nothing else in the project changes a unit.
"""

from __future__ import annotations

import numpy as np

HARTREE = 27.211386246
"""eV per Hartree: the value of the QM9 field (PyG, SchNetPack); CODATA 2018 is 27.211386245988(53)."""

KCAL_PER_MOL = 0.04336414
"""eV per kcal/mol: the value of the field (PyG, SEGNN); 4184 J over Avogadro's number and e gives 0.0433641."""

KJ_PER_MOL = KCAL_PER_MOL / 4.184
"""eV per kJ/mol."""

BOHR = 0.529177210903
"""Angstrom per Bohr: CODATA 2018."""

QM9_UNITS = {
    "A": "GHz",
    "B": "GHz",
    "C": "GHz",
    "mu": "D",
    "alpha": "a0^3",
    "homo": "eV",
    "lumo": "eV",
    "gap": "eV",
    "r2": "a0^2",
    "zpve": "eV",
    "U0": "eV",
    "U": "eV",
    "H": "eV",
    "G": "eV",
    "Cv": "cal/(mol K)",
}
"""The 15 properties in the order of the published files, with the unit they have inside the project.

The files give the eV columns in Hartree (Ramakrishnan et al., Scientific Data 1, 140022 (2014), table 3).
"""

QM9_PROPERTIES = tuple(QM9_UNITS)


def from_qm9_units(properties: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """QM9 properties in the published units (Hartree for energies) to the units of ``QM9_UNITS``.

    Args:
        properties: per name of ``QM9_PROPERTIES``, an array of any shape.

    Returns:
        The same names and shapes, float64.
    """
    factors = {name: HARTREE if QM9_UNITS[name] == "eV" else 1.0 for name in properties}
    return {name: np.asarray(values, np.float64) * factors[name] for name, values in properties.items()}
