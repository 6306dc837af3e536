"""Suspicions about units: what in a table looks as if its file had Bohr for Angstrom, or Hartree or kcal/mol for eV.

A suspicion needs two things: the values are impossible or unheard of in the project's unit, and another unit explains
them.  Where the values do not decide (lumo alone, forces near equilibrium, energies of pseudopotentials) nothing is
said.  The ranges below are those of molecules and crystals at any geometry that calculations are made for.

Two more things are impossible in any unit: an energy beyond that of all electrons, and forces of 50 eV/Angstrom at
bonds of ordinary length.  Both labels of frames of one molecule may have been converted wrongly by one factor: then the
forces that stretch the bonds to hydrogen tell (``bond_stiffness``).

Energies and forces of frames of one molecule decide together (``force_consistency``), whatever their level of theory.
Measured on rMD17 (aspirin, benzene, ethanol, malonaldehyde; train and test; its labels and those of MD17), whole and in
240 random parts: no alarm where all is right (0 of 256).  Each of 17 wrong units of one label, and the wrong sign of
the forces, is named for 96 of 96 tables of 200 or 1,000 frames, at least 78 of 80 of 100, and 63 of 80 of 50 frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_tools.formats.xyz_format import HYDROGEN_NOTE
from data_tools.graph import StructureTable
from data_tools.labels.bond_lengths import nearest_neighbours
from data_tools.labels.bond_stiffness import stiffness
from data_tools.labels.force_consistency import agreement
from data_tools.labels.targets import TARGETS, atom_references
from data_tools.tables import select_rows
from data_tools.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, QM9_UNITS

SAMPLE = 200  # structures that are looked at, spread over the table

#: unit of the file -> Angstrom
LENGTHS = {"Bohr": BOHR, "nm": 10.0, "pm": 0.01}
#: unit of the file where its format has another -> what makes eV of the value in the table
ENERGIES = {
    "Hartree where eV is expected": HARTREE,
    "kcal/mol where eV is expected": KCAL_PER_MOL,
    "kJ/mol where eV is expected": KJ_PER_MOL,
    "meV where eV is expected": 1e-3,
    "eV where Hartree is expected": 1 / HARTREE,
    "kcal/mol where Hartree is expected": KCAL_PER_MOL / HARTREE,
    "kJ/mol where Hartree is expected": KJ_PER_MOL / HARTREE,
}
#: in both of energies and forces, of kcal/mol
MULTIPLIED = {"kcal/mol multiplied by 23.06 where it should be divided": KCAL_PER_MOL**2}
#: Hartree/Bohr is left out: such forces are those of a structure near equilibrium in eV/Angstrom
FORCES = {"kcal/mol/Angstrom": KCAL_PER_MOL, "kJ/mol/Angstrom": KJ_PER_MOL} | MULTIPLIED

#: of frames with energies and forces: unit of the file -> what makes eV or eV/Angstrom of the value in the table
FRAME_ENERGIES = (
    ENERGIES
    | MULTIPLIED
    | {
        "eV where kcal/mol is expected": 1 / KCAL_PER_MOL,
        "Hartree where kcal/mol is expected": HARTREE / KCAL_PER_MOL,
        "kJ/mol where kcal/mol is expected": KJ_PER_MOL / KCAL_PER_MOL,
    }
)
FRAME_FORCES = FORCES | {
    "Hartree/Angstrom": HARTREE,
    "Hartree/Bohr": HARTREE / BOHR,
    "forces per Bohr where per Angstrom is expected": 1 / BOHR,
    "eV/Angstrom where kcal/mol/Angstrom is expected": 1 / KCAL_PER_MOL,
    "Hartree/Bohr where kcal/mol/Angstrom is expected": HARTREE / BOHR / KCAL_PER_MOL,
}
GRADIENTS = {"the gradients of the energy, whose negatives the forces are": -1.0}

#: nearest-neighbour distance over the sum of covalent radii: median, and lowest decile
BOND_MEDIAN, BOND_DECILE = (0.80, 1.30), 0.72
TOTAL_ENERGIES = ("U0", "U", "H", "G", "energy", "free_energy", "total_energy", "REF_energy")
FORCE_LABELS = ("forces", "REF_forces")
#: eV per atom; the atomisation energies of molecules with heavier atoms (without hydrogen) can look like Hartree
LIGHT, NOT_OF_HEAVY = 1200.0, "Hartree where kcal/mol is expected"
TOTAL_RATIO = (0.96, 1.08)  # all-electron energy over that of the free atoms: any functional, with a heavy atom
GAP, GAP_ATOMS = (1.8, 17.0), 40  # eV; the gap of larger molecules may be that of a piece of metal
HOMO, HOMO_COMPOSITIONS = (3.0, 16.0), 10  # -eV; a single anion may have any, many molecules do not
ZPVE = (0.04, 0.28)  # eV per atom
WORK_RATIO, WORK_CORRELATION = (0.7, 1.3), 0.7  # change of the energy over work of the forces; 0.6 to 1.2 in rMD17
FORCE = (0.5, 4.0)  # eV/Angstrom, median norm at bond lengths that are not far from equilibrium
IMPOSSIBLE_FORCE = 50.0
STIFFNESS, COMMON_STIFFNESS = (8.0, 90.0), (15.0, 62.0)  # eV/Angstrom^2, bonds to hydrogen: any, and of C, N, O, S, Si
ALL_ELECTRONS = 1.2 * 0.7687 * HARTREE  # times Z^(7/3), the energy of an atom of Thomas and Fermi, which is too large
ISOTOPES = "positions: deuterium or tritium (D, T) in the file is read as hydrogen; masses play no part here"


class Suspicion(NamedTuple):
    """A quantity whose values another unit explains.

    Attributes:
        quantity: what it is called.
        finding: what was found and what is expected.
        units: the units that explain it, with the factors that convert them.
        impossible: whether it is one without such a unit too.
    """

    quantity: str
    finding: str
    units: dict[str, float]
    impossible: bool = False


class Organic(NamedTuple):
    """The structures of a sample that consist of elements with a free-atom energy, at least one of them heavy.

    Attributes:
        table: the sample.
        rows: (K,) which of its structures these are.
        free_atoms: per total energy of QM9, the (K,) energies of their free atoms in eV.
    """

    table: StructureTable
    rows: np.ndarray
    free_atoms: dict[str, np.ndarray]

    def label(self, name: str) -> np.ndarray:
        """(K,) values of a label; NaN where it is missing or not one number per structure."""
        values = self.table.of_structures.get(name)
        if values is None or values.ndim != 1:
            return np.full(len(self.rows), np.nan)
        return np.asarray(values, np.float64)[self.rows]


def unit_suspicions(table: StructureTable) -> list[str]:
    """Warnings to give before the numbers of a table are used.

    Args:
        table: structures and labels, taken to be in the units of ``StructureTable``.

    Returns:
        One line per unit: what was found, what is expected, which unit it looks like, by what to multiply.  Quantities
        that one unit explains share a line, and each leaves only the units that explain it too.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), SAMPLE)).astype(np.int64))
    sample = select_rows(table, rows)
    organic = _organic(sample)
    ratios, sums = nearest_neighbours(sample)
    suspicions = [
        _of_lengths(ratios, sums), *_of_totals(organic), *_of_orbitals(organic), _of_zpve(organic),
        *_of_forces(sample, ratios), *_of_work(table), *_of_stiffness(table),
    ]  # fmt: skip
    if not any(one.units for one in suspicions if one.quantity in TOTAL_ENERGIES):
        suspicions += _of_all_electrons(sample)
    groups: list[list[Suspicion]] = []
    for one in suspicions:
        for group in groups:
            common = {unit: factor for unit, factor in group[0].units.items() if unit in one.units}
            if common:
                group[0] = group[0]._replace(units=common)
                group.append(one)
                break
        else:
            if one.units:
                groups.append([one])
    groups = groups or [[one] for one in suspicions if one.impossible][:1]
    lines = [_line(group) for group in groups]
    return [*lines, ISOTOPES] if HYDROGEN_NOTE in table.source else lines


def _line(group: list[Suspicion]) -> str:
    first, *others = group
    quantities = dict.fromkeys(one.quantity for one in others if one.quantity != first.quantity)
    likewise = f"; likewise {', '.join(quantities)}" if quantities else ""
    if not first.units:
        return f"{first.quantity}: {first.finding}; no unit explains this: check the file and convert it"
    looks = ", or ".join(f"{unit} (then multiply by {factor:.6g})" for unit, factor in first.units.items())
    return f"{first.quantity}: {first.finding}{likewise}; this looks like {looks}: check the file and convert it"


def _explanations(
    units: Mapping[str, float], lowest: float, highest: float, allowed: tuple[float, float]
) -> dict[str, float]:
    """The units that take values between ``lowest`` and ``highest`` into the range; none for NaN.

    No range, taken to another unit, overlaps with values that occur in the project's own.
    """
    smallest, largest = allowed
    return {unit: by for unit, by in units.items() if smallest <= lowest * by <= highest * by <= largest}


def _of_lengths(ratios: np.ndarray, sums: np.ndarray) -> Suspicion:
    if not len(ratios):
        return Suspicion("positions", "", {})
    median, decile = float(np.median(ratios)), float(np.quantile(ratios, 0.1))
    explaining = _explanations(LENGTHS, median, median, BOND_MEDIAN)
    found = f"nearest neighbours are typically {np.median(ratios * sums):.3g} Angstrom apart"
    return Suspicion(
        "positions",
        f"{found}, expected about {np.median(sums):.3g} from their covalent radii",
        {unit: factor for unit, factor in explaining.items() if decile * factor > BOND_DECILE},
    )


def _organic(table: StructureTable) -> Organic:
    owner = np.repeat(np.arange(len(table)), table.n_atoms)
    heaviest = np.zeros(len(table), np.int64)
    np.maximum.at(heaviest, owner, table.numbers)
    sums = {}
    for name, target in TARGETS.items():
        if "atomisation" in target.references:
            sums[name] = np.bincount(owner, weights=atom_references(target)[table.numbers], minlength=len(table))
    rows = np.flatnonzero(np.isfinite(sums["U0"]) & (heaviest > 1) & (table.n_atoms > 1))
    return Organic(table, rows, {name: values[rows] for name, values in sums.items()})


def _deciles(values: np.ndarray) -> tuple[float, float, float]:
    """Lowest decile, median and highest decile of the values that are there; NaN when there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return float(low), float(middle), float(high)


def _of_totals(organic: Organic) -> list[Suspicion]:
    suspicions = []
    n_atoms = organic.table.n_atoms[organic.rows]
    for name in TOTAL_ENERGIES:
        free, values = organic.free_atoms.get(name, organic.free_atoms["U0"]), organic.label(name)
        low, _, high = _deciles(values / free)
        found, expected = _deciles(values / n_atoms)[1], _deciles(free / n_atoms)[1]
        words = f"typically {found:.4g} eV per atom, expected about {expected:.4g} from the free atoms"
        units = FRAME_ENERGIES if name not in QM9_UNITS else ENERGIES | MULTIPLIED
        if abs(expected) > LIGHT:
            units = {unit: factor for unit, factor in units.items() if unit != NOT_OF_HEAVY}
        suspicions.append(Suspicion(name, words, _explanations(units, low, high, TOTAL_RATIO)))
    return suspicions


def _of_all_electrons(table: StructureTable) -> list[Suspicion]:
    """Energies larger than those of all electrons of the atoms, whatever the elements."""
    owner = np.repeat(np.arange(len(table)), table.n_atoms)
    most = np.bincount(owner, ALL_ELECTRONS * np.asarray(table.numbers, np.float64) ** (7 / 3), minlength=len(table))
    suspicions = []
    for name in TOTAL_ENERGIES:
        values = table.of_structures.get(name)
        if values is not None and values.ndim == 1 and _deciles(np.abs(values) / most)[1] > 1:
            words = (
                f"typically {_deciles(values / table.n_atoms)[1]:.4g} eV per atom, beyond the "
                f"{-_deciles(most / table.n_atoms)[1]:.4g} of all electrons of such atoms"
            )
            suspicions.append(Suspicion(name, words, {}, impossible=True))
    return suspicions


def _of_orbitals(organic: Organic) -> list[Suspicion]:
    homo, lumo = organic.label("homo"), organic.label("lumo")
    small = organic.table.n_atoms[organic.rows] <= GAP_ATOMS
    many = len(np.unique(organic.free_atoms["U0"])) >= HOMO_COMPOSITIONS
    suspicions = []
    for name, values, (lowest, highest), sign in (
        ("gap", organic.label("gap")[small], GAP, 1),
        ("lumo - homo", (lumo - homo)[small], GAP, 1),
        ("homo", homo if many else homo[:0], HOMO, -1),
    ):
        low, typical, high = _deciles(sign * values)
        words = f"typically {sign * typical:.4g} eV, expected {sign * lowest:g} to {sign * highest:g}"
        suspicions.append(Suspicion(name, words, _explanations(ENERGIES, low, high, (lowest, highest))))
    return suspicions


def _of_zpve(organic: Organic) -> Suspicion:
    low, typical, high = _deciles(organic.label("zpve") / organic.table.n_atoms[organic.rows])
    words = f"typically {typical:.3g} eV per atom, expected {ZPVE[0]:g} to {ZPVE[1]:g}"
    return Suspicion("zpve", words, _explanations(ENERGIES, low, high, ZPVE))


def _of_forces(table: StructureTable, ratios: np.ndarray) -> list[Suspicion]:
    """Forces too large for bonds of ordinary length; too small ones are those of relaxed structures."""
    suspicions: list[Suspicion] = []
    if not len(ratios) or np.quantile(ratios, 0.1) < BOND_DECILE:
        return suspicions
    for name in FORCE_LABELS:
        forces = table.of_atoms.get(name)
        if forces is not None and forces.shape[1:] == (3,):
            typical = _deciles(np.linalg.norm(forces, axis=1))[1]
            words = f"typically {typical:.3g} eV/Angstrom at bonds of ordinary length, expected below {FORCE[1]:g}"
            units = _explanations(FORCES, typical, typical, FORCE)
            suspicions.append(Suspicion(name, words, units, impossible=typical > IMPOSSIBLE_FORCE))
    return suspicions


def _of_stiffness(table: StructureTable) -> list[Suspicion]:
    """Forces that stretch the bonds to hydrogen of frames of one molecule much less or more than any do.

    Where energies are there and do not belong to the forces, ``_of_work`` says what there is to say.
    """
    suspicions = []
    for name in FORCE_LABELS:
        energies = [energy for energy in TOTAL_ENERGIES if energy in table.of_structures]
        compared = [agreement(table, energy, name) for energy in energies]
        belong = any(one is not None and WORK_RATIO[0] <= one.ratio <= WORK_RATIO[1] for one in compared)
        found = stiffness(table, name) if belong or not energies else None
        if found is not None and not STIFFNESS[0] <= found <= STIFFNESS[1]:
            words = (
                f"along bonds to hydrogen they change by {found:.3g} eV/Angstrom per Angstrom, expected "
                f"{COMMON_STIFFNESS[0]:g} to {COMMON_STIFFNESS[1]:g}"
            )
            units = _explanations(FRAME_FORCES, found, found, COMMON_STIFFNESS)
            suspicions.append(Suspicion(name, words, units, impossible=True))
    return suspicions


def _of_work(table: StructureTable) -> list[Suspicion]:
    """Energies and forces, one of them in another unit than the other, or forces of the wrong sign."""
    pairs = [(energy, forces) for energy in TOTAL_ENERGIES for forces in FORCE_LABELS]
    found = next(filter(None, (agreement(table, *pair) for pair in pairs)), None)
    if found is None or abs(found.correlation) < WORK_CORRELATION:
        return []
    where = f"between frames at most {found.distance:.2f} Angstrom apart"
    ratio = found.ratio
    units = _explanations(FRAME_ENERGIES, ratio, ratio, WORK_RATIO)
    units |= {unit: by for unit, by in FRAME_FORCES.items() if WORK_RATIO[0] <= ratio / by <= WORK_RATIO[1]}
    scale = f"{where} the energy changes by {ratio:.3g} times the work of the forces, expected about 1"
    sign = f"{where} the energy rises along the forces (correlation {-found.correlation:.2f})"
    return [
        Suspicion("energy and forces", scale, units),
        Suspicion("forces", sign, GRADIENTS if found.correlation < 0 else {}),
    ]
