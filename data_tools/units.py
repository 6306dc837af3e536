"""Conversion constants, and the functions that turn what files hold from its published units into the project's.

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

RYDBERG = HARTREE / 2
"""eV per Rydberg."""

LENGTH_UNITS = {"ang": 1.0, "angstrom": 1.0, "å": 1.0, "bohr": BOHR, "a0": BOHR, "nm": 10.0, "pm": 0.01}
"""Angstrom per unit of length, by the names in small letters that files give them."""

FORCE_LENGTHS = LENGTH_UNITS | {"a": 1.0}
"""The same for the length below the energy of a force, where ``eV/A`` is usual."""

ENERGY_UNITS = {
    "ev": 1.0,
    "mev": 1e-3,
    "kcal/mol": KCAL_PER_MOL,
    "kj/mol": KJ_PER_MOL,
    "hartree": HARTREE,
    "ha": HARTREE,
}
"""eV per unit of energy, by the names in small letters that files give them."""

OTHER_UNITS = {
    "GHz": {"ghz": 1.0},
    "D": {"d": 1.0, "debye": 1.0},
    "a0^3": {"a0^3": 1.0, "a0 a0 a0": 1.0, "bohr^3": 1.0, "bohr bohr bohr": 1.0},
    "a0^2": {"a0^2": 1.0, "a0 a0": 1.0, "bohr^2": 1.0, "bohr bohr": 1.0},
    "cal/(mol K)": {"cal/(mol k)": 1.0, "cal/mol/k": 1.0, "cal/mol k": 1.0},
}
"""Per unit of the project that is no energy, its names in small letters in files of other programs."""

PHONOPY_LENGTHS = {"angstrom": 1.0, "au": BOHR}
"""Angstrom per unit of length, by phonopy's names."""

PHONOPY_FORCES = {
    "ev/angstrom": 1.0,
    "ry/au": RYDBERG / BOHR,
    "mry/au": 1e-3 * RYDBERG / BOHR,
    "hartree/au": HARTREE / BOHR,
}
"""eV/Angstrom per unit of force, by phonopy's names in small letters."""

PHONOPY_FORCE_CONSTANTS = {
    "ev/angstrom^2": 1.0,
    "ev/angstrom.au": 1 / BOHR,
    "ry/au^2": RYDBERG / BOHR**2,
    "mry/au^2": 1e-3 * RYDBERG / BOHR**2,
    "hartree/au^2": HARTREE / BOHR**2,
    "hartree/angstrom.au": HARTREE / BOHR,
}
"""eV/Angstrom^2 per unit of force constants, by phonopy's names in small letters."""

PHONOPY_CALCULATORS = (
    dict.fromkeys(("vasp", "aims", "castep", "crystal", "lammps", "pwmat"), ("angstrom", "ev/angstrom"))
    | dict.fromkeys(("abinit", "siesta", "abacus"), ("au", "ev/angstrom"))
    | dict.fromkeys(("qe", "qlm"), ("au", "ry/au"))
    | dict.fromkeys(("elk", "exciting", "dftbp", "turbomole", "fleur", "octopus"), ("au", "hartree/au"))
    | {"wien2k": ("au", "mry/au"), "cp2k": ("angstrom", "hartree/au")}
)
"""Units of length and force of the files of each of phonopy's calculators."""

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

LABEL_UNITS = QM9_UNITS | {"energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3"}
"""The unit of every label that the project gives one; labels of other names keep whatever unit their file has."""


def factor_to(unit: str, name: str) -> float:
    """What turns values in a unit that a file names into a unit of the project.

    Args:
        unit: of the project: ``eV``, ``eV/A`` or another of ``QM9_UNITS``.
        name: as the file has it, in any case; of a force the unit of energy over that of length.

    Raises:
        KeyError: the name is not known as such a unit; its text says which are.
    """
    name = name.strip().lower().replace("å", "ang")
    if unit == "eV/A":
        energy, _, length = name.rpartition("/")
        if energy not in ENERGY_UNITS or length not in FORCE_LENGTHS:
            raise KeyError(f"one of {', '.join(ENERGY_UNITS)} over one of {', '.join(FORCE_LENGTHS)}")
        return ENERGY_UNITS[energy] / FORCE_LENGTHS[length]
    known = ENERGY_UNITS if unit == "eV" else OTHER_UNITS[unit]
    if name not in known:
        raise KeyError(f"one of {', '.join(known)}")
    return known[name]


def from_qm9_units(properties: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """QM9 properties in the published units (Hartree for energies) to the units of ``QM9_UNITS``.

    Args:
        properties: per name of ``QM9_PROPERTIES``, an array of any shape.

    Returns:
        The same names and shapes, float64.
    """
    factors = {name: HARTREE if QM9_UNITS[name] == "eV" else 1.0 for name in properties}
    return {name: np.asarray(values, np.float64) * factors[name] for name, values in properties.items()}


def from_frame_units(
    positions: np.ndarray, labels: dict[str, np.ndarray], length_unit: str, energy_unit: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Geometries with energies and forces to Angstrom, eV and eV/Angstrom.

    Args:
        positions: any shape, in ``length_unit``.
        labels: ``energy`` in ``energy_unit`` and ``forces`` in ``energy_unit`` over ``length_unit``, or one, or none.
        length_unit: a key of ``LENGTH_UNITS``.
        energy_unit: a key of ``ENERGY_UNITS``.

    Returns:
        Positions and labels of the same names and shapes, float64.
    """
    length, energy = LENGTH_UNITS[length_unit], ENERGY_UNITS[energy_unit]
    factors = {"energy": energy, "forces": energy / length}
    converted = {name: np.asarray(values, np.float64) * factors[name] for name, values in labels.items()}
    return np.asarray(positions, np.float64) * length, converted
