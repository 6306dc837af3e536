"""The registry of what can be learned: per target its unit, label definitions, readouts and standardisations.

A target, a readout, a label definition (``reference``) and a standardisation fit together or they do not; a pair that
does not fit trains without complaint and ends in a bad number.  `check_combination` therefore refuses it beforehand.

Readouts, how the values h_i of the atoms become the value of the molecule:

| readout                   | law                          | for                                                   |
|---------------------------|------------------------------|-------------------------------------------------------|
| sum                       | sum_i h_i                    | every target (DimeNet++, Equiformer)                  |
| mean                      | (1/n) sum_i h_i              | homo, lumo, gap: they do not grow with the molecule;  |
|                           |                              | force_constants as a control                          |
| dipole                    | norm(sum_i h_i (r_i - r_c))  | mu (SchNetPack, PyG): a length, never negative        |
| electronic_spatial_extent | sum_i h_i norm(r_i - r_c)^2  | r2 (SchNetPack)                                       |
| attention                 | sum_i a_i h_i, sum_i a_i = 1 | homo, lumo, gap, properties of your own: a mean with  |
|                           |                              | weights a_i that are learned                          |

Mean is refused for extensive targets: half a molecule would have the energy of the whole.  It is refused for mu and r2
because both depend on the extent of the molecule.  A network that pools features and computes on (SEGNN) has its own
pooling; the readout here is about the values of atoms.  For force_constants the mean is a control that is known to be
wrong: second derivatives of a mean are smaller in a larger supercell, which the log of a run says.

Standardisations, how an output o becomes a label y (constants from the training molecules, see ``statistics.py``):

| standardisation | law                    | for                                                                      |
|-----------------|------------------------|--------------------------------------------------------------------------|
| none            | y = o                  | all but total energies, which float32 holds to 1 meV at best             |
| per_molecule    | y = scale o + shift    | sum, mean                                                                |
| mean_mad        | y = scale o + shift    | the same, scale being the mean absolute deviation (SEGNN)                |
| per_atom        | y = scale o + shift n  | sum of an extensive target: every atom gets the same shift               |
| per_element     | y = scale o + sum_i    | sum of an extensive target: each element has a shift of its own, by      |
|                 |   shift(Z_i)           | least squares                                                            |
| scale           | y = scale o            | dipole, electronic_spatial_extent: a shift would break the symmetry that |
|                 |                        | makes mu of methane 0, and the sign that a length has; force_constants,  |
|                 |                        | which no shift changes                                                   |

The target ``force_constants`` is the matrix of second derivatives of an energy: the network's value is that energy, up
to a constant for each composition.  The number of a structure, which the normaliser is fitted to and tables have a
column for, is the root mean square over its force constants.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_tools.formats.spelling import advice, listed
from data_tools.graph import DataError, StructureTable
from data_tools.labels.compact_force_constants import root_mean_squares
from data_tools.units import HARTREE

READOUTS = ("sum", "mean", "dipole", "electronic_spatial_extent", "attention")
STANDARDISATIONS = ("none", "per_molecule", "mean_mad", "per_atom", "per_element", "scale")
FORCE_CONSTANTS = "force_constants"
MAX_ATOMIC_NUMBER = 118
ATOM_REFERENCE_FILE = Path(__file__).parents[1] / "samples" / "atomref.txt"

_ELEMENTS_OF_REFERENCE_FILE = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_COLUMNS_OF_REFERENCE_FILE = ("zpve", "U0", "U", "H", "G", "Cv")


@dataclass(frozen=True)
class Target:
    """One property of a structure; in tuples of choices the first is the default.

    Attributes:
        name: key of ``StructureTable.of_structures``.
        unit: unit of the label, of predictions and of errors.
        extensive: True when two molecules far apart have the sum of their values.
        readouts: how atoms may be combined, of `READOUTS`.
        references: label definitions.  ``total``: the energy as published; ``atomisation``: minus the energies of the
            free atoms; ``none``: the target has one definition only.
        description: what it is, in words.
        has_forces: whether the label ``forces`` is its negative gradient.
        is_own: whether it is a property of a user's own data, see ``own_property``.
    """

    name: str
    unit: str
    extensive: bool
    readouts: tuple[str, ...]
    references: tuple[str, ...]
    description: str
    has_forces: bool = False
    is_own: bool = False

    @property
    def is_of_potential(self) -> bool:
        """Whether the value of a network that learns it is an energy of the geometry, whose gradient is a force."""
        return self.has_forces or self.name == FORCE_CONSTANTS


_ENERGY = ("atomisation", "total")
_ORBITAL = ("mean", "sum", "attention")

# Cv and zpve have columns in the reference file too, but no second definition: zpve's are zero and Cv's are the same
# 2.981 cal/(mol K) for every element, which is a per-atom shift.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("mu", "D", False, ("dipole", "sum"), ("none",), "norm of the dipole moment"),
        Target("alpha", "a0^3", True, ("sum",), ("none",), "isotropic polarisability"),
        Target("homo", "eV", False, _ORBITAL, ("none",), "energy of the highest occupied orbital"),
        Target("lumo", "eV", False, _ORBITAL, ("none",), "energy of the lowest unoccupied orbital"),
        Target("gap", "eV", False, _ORBITAL, ("none",), "lumo - homo"),
        Target("r2", "a0^2", False, ("electronic_spatial_extent", "sum"), ("none",), "electronic spatial extent <R^2>"),
        Target("zpve", "eV", True, ("sum",), ("none",), "zero-point vibrational energy"),
        Target("U0", "eV", True, ("sum",), _ENERGY, "internal energy at 0 K"),
        Target("U", "eV", True, ("sum",), _ENERGY, "internal energy at 298.15 K"),
        Target("H", "eV", True, ("sum",), _ENERGY, "enthalpy at 298.15 K"),
        Target("G", "eV", True, ("sum",), _ENERGY, "free energy at 298.15 K"),
        Target("Cv", "cal/(mol K)", True, ("sum",), ("none",), "heat capacity at 298.15 K"),
        Target("energy", "eV", True, ("sum",), ("none",), "potential energy of a geometry", has_forces=True),
        Target(
            FORCE_CONSTANTS, "eV/A^2", False, ("sum", "mean"), ("none",), "second derivatives of a crystal's energy"
        ),
    )
}

# Names of the same properties in PyG, SchNetPack, DimeNet and the data set's own paper, in lower case.
_ALIASES = {
    "dipole_moment": "mu",
    "isotropic_polarizability": "alpha",
    "polarizability": "alpha",
    "epsilon_homo": "homo",
    "epsilon_lumo": "lumo",
    "delta_epsilon": "gap",
    "epsilon_gap": "gap",
    "electronic_spatial_extent": "r2",
    "energy_u0": "U0",
    "u0_atom": "U0",
    "energy_u": "U",
    "u_atom": "U",
    "u298": "U",
    "enthalpy_h": "H",
    "h_atom": "H",
    "h298": "H",
    "free_energy": "G",
    "g_atom": "G",
    "g298": "G",
    "c_v": "Cv",
    "heat_capacity": "Cv",
} | {name.lower(): name for name in TARGETS}


def is_target(name: str) -> bool:
    """Whether a name is that of a target, in any of its spellings."""
    return name.strip().lower() in _ALIASES


def get_target(name: str) -> Target:
    """Look a target up by its name or by a name other projects use, in any case.

    Raises:
        DataError: no such target; the message names the nearest one.
    """
    if is_target(name):
        return TARGETS[_ALIASES[name.strip().lower()]]
    nearest = nearest_target(name)
    hint = f"did you mean '{nearest}'? " if nearest else ""
    raise DataError(
        f"unknown target '{name}': {hint}Valid targets: {', '.join(TARGETS)}; a property of your own needs data of "
        "your own (data.file)"
    )


def nearest_target(name: str) -> str:
    """The target whose name, or one of whose spellings, is most like a name; empty where none is."""
    nearest = difflib.get_close_matches(name.strip().lower(), _ALIASES, n=1, cutoff=0.5)
    return _ALIASES[nearest[0]] if nearest else ""


def allowed_standardisations(target: Target, readout: str, reference: str) -> tuple[str, ...]:
    """Standardisations that fit; the first is the recommended one.  The table in the module's docstring gives the laws.

    Args:
        target: the property.
        readout: one of ``target.readouts``.
        reference: one of ``target.references``.
    """
    if readout in ("dipole", "electronic_spatial_extent") or target.name == FORCE_CONSTANTS:
        return ("scale", "none")
    extensive = target.extensive and readout == "sum"
    allowed = ("per_element", "per_atom", "per_molecule", "mean_mad") if extensive else ("per_molecule", "mean_mad")
    # an energy with forces is a total one too
    return allowed if reference == "total" or target.has_forces else (*allowed, "none")


def check_combination(target: Target, readout: str, reference: str, standardisation: str) -> None:
    """Refuse what would train silently to a bad number.

    Args:
        target: the property.
        readout: how atoms are combined.
        reference: the definition of the label.
        standardisation: how outputs become labels.

    Raises:
        DataError: a value does not exist or does not fit the others; the message lists what is allowed.
    """
    for what, value, allowed in (("readout", readout, target.readouts), ("reference", reference, target.references)):
        if value not in allowed:
            raise DataError(f"{what} '{value}' does not fit target '{target.name}': allowed are {', '.join(allowed)}")
    allowed = allowed_standardisations(target, readout, reference)
    if standardisation not in allowed:
        raise DataError(
            f"standardisation '{standardisation}' does not fit target '{target.name}' with readout '{readout}' and "
            f"reference '{reference}': allowed are {', '.join(allowed)}"
        )


@lru_cache(maxsize=1)
def _read_reference_file() -> dict[str, dict[int, float]]:
    """Columns of the data set's atomref.txt: target name -> atomic number -> value in the file's unit (Hartree)."""
    columns: dict[str, dict[int, float]] = {name: {} for name in _COLUMNS_OF_REFERENCE_FILE}
    for line in ATOM_REFERENCE_FILE.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and words[0] in _ELEMENTS_OF_REFERENCE_FILE:
            for name, word in zip(columns, words[1:], strict=True):
                columns[name][_ELEMENTS_OF_REFERENCE_FILE[words[0]]] = float(word)
    if len(columns["U0"]) != len(_ELEMENTS_OF_REFERENCE_FILE):
        raise DataError(f"{ATOM_REFERENCE_FILE.name}: rows for {', '.join(_ELEMENTS_OF_REFERENCE_FILE)} expected")
    return columns


def atom_references(target: Target) -> np.ndarray:
    """Energies of the free atoms at the level of theory of QM9 (B3LYP/6-31G(2df,p)).

    Args:
        target: U0, U, H or G.

    Returns:
        (119,) float64, eV, by atomic number; NaN for elements without a reference, 0 for the ghost 0.

    Raises:
        DataError: the target has no atomisation definition.
    """
    if "atomisation" not in target.references:
        energies = [name for name, other in TARGETS.items() if "atomisation" in other.references]
        raise DataError(f"target '{target.name}' has no energies of free atoms: only {', '.join(energies)} have")
    references = np.full(MAX_ATOMIC_NUMBER + 1, np.nan)
    references[0] = 0.0
    for number, hartree in _read_reference_file()[target.name].items():
        references[number] = hartree * HARTREE
    return references


def label_values(table: StructureTable, target: Target, reference: str) -> np.ndarray:
    """The labels of a table under the chosen definition: what is learned, measured and plotted.

    The subtraction is done in float64: total energies are of the order of -1e4 eV, where float32 is good to 1 meV.

    Args:
        table: structures with the label ``target.name`` as published, in ``target.unit``.
        target: the property.
        reference: one of ``target.references``.

    Returns:
        (M,) float64 in ``target.unit``; NaN where a structure lacks the label.

    Raises:
        DataError: the table has no such label or not one number per structure, the definition does not fit, or an
            element has no reference energy.
    """
    if target.name == FORCE_CONSTANTS and table.force_constants is not None:
        return root_mean_squares(table.force_constants, table.n_atoms)
    if target.name not in table.of_structures:
        names = (*table.label_names, *table.unread)
        hint = "; ".join(filter(None, (f"they hold {listed(names)}", advice(target.name, names))))
        raise DataError(f"the data hold no label '{target.name}': {hint}")
    if reference not in target.references:
        raise DataError(
            f"reference '{reference}' does not fit target '{target.name}': allowed are {', '.join(target.references)}"
        )
    published = np.asarray(table.of_structures[target.name], np.float64)
    if published.shape != (len(table),):
        raise DataError(
            f"expected one number per structure as the label '{target.name}', found an array of shape {published.shape}"
        )
    if reference != "atomisation":
        return published
    per_atom = atom_references(target)[table.numbers]
    if np.isnan(per_atom).any():
        missing = ", ".join(str(number) for number in np.unique(table.numbers[np.isnan(per_atom)]))
        raise DataError(f"atomic numbers {missing} have no free-atom energy: use reference 'total' for these data")
    structure_of_atom = np.repeat(np.arange(len(table)), table.n_atoms)
    return published - np.bincount(structure_of_atom, weights=per_atom, minlength=len(table))
