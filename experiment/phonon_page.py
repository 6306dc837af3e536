"""The page of a phonon report in words, Markdown, made of nothing but what stands in ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiment.phonon_figures import point_name
from experiment.plot_style import how_many

Record = Mapping[str, Any]
ROUNDED = 0.0005  # THz: nearer to 0 a frequency is printed as 0
LAWS = {
    "exchange": "exchange of the two atoms",
    "acoustic": "acoustic sum rule, all 9 components",
    "rotational": "rotational sum rule (Born and Huang, first condition)",
    "space_group": "space group of the atoms",
    "lowest_frequency": "lowest frequency at the wave vectors of the supercell, translations apart",
    "translations": "frequency of a translation of the whole crystal",
    "edge": "largest block beyond half the shortest lattice vector",
}
ENERGY = {
    "rotation": "rotation of the displaced crystal",
    "translation": "translation",
    "permutation": "another order of the atoms",
    "differences": "force constants beside differences of forces (0.01 A)",
}
ERRORS = {
    "mae": ("force constants, all entries, MAE", "eV/A^2"),
    "mae_on_site": ("an atom with itself, MAE", "eV/A^2"),
    "mae_first_shell": ("first shell, MAE", "eV/A^2"),
    "mae_rest": ("all other pairs, MAE", "eV/A^2"),
    "frobenius": ("all entries, relative Frobenius norm of the error", ""),
    "slope": ("slope on the reference", ""),
    "frequency_mae": ("frequencies, MAE", "THz"),
    "frequency_bias": ("frequencies, mean error", "THz"),
    "highest_frequency": ("highest frequency, error", "K"),
    "free_energy": ("free energy at 300 K, error per atom", "kJ/mol"),
    "entropy": ("entropy at 300 K, error per atom", "J/K/mol"),
    "heat_capacity": ("heat capacity at 300 K, error per atom", "J/K/mol"),
}


def page(record: Record) -> str:
    """The whole page."""
    parts = [
        [f"# Phonons of {record['crystal']['name']}", "", _verdict(record["phonons"])],
        _warnings(record["warnings"]),
        _made(record),
        [_sum_rule(record)],
        ["![bands](bands.png)", "", "![density of states](dos.png)"],
        ["## Thermal properties", "", *_thermal(record), "", "![thermal properties](thermal.png)"],
        _reference(record),
        ["## Laws of force constants", "", *_laws(record)],
        _energy(record["energy"]),
        ["## Decay with distance", "", *_decay(record), "", "![decay](decay.png)"],
        ["## Time", "", *_table(("part", "s"), [(part, f"{s:.1f}") for part, s in record["seconds"].items()])],
        [f"Every number stands in `report.json`; made by `{record['command']}` (version {record['version']})."],
    ]
    return "\n".join(line for part in parts if part for line in [*part, ""])


def _verdict(found: Record) -> str:
    """Stable or not, where, by how much."""
    q = "(" + ", ".join(f"{value:.3g}" for value in found["q"]) + ")"
    lowest, limit = found["lowest_on_mesh_THz"], found["unstable_below_THz"]
    ends = " and ".join(point_name(name) for name in found["lowest_between"])
    on_path = found["lowest_on_path_THz"]
    path = f" On the path of the bands the lowest is {_thz(on_path)}, between {ends}." if on_path < limit else ""
    gamma = found["lowest_at_gamma_THz"]
    optical = "" if gamma is None else f" The lowest optical frequency at Γ is {_thz(gamma)}."
    if found["stable"] and gamma is not None and gamma < limit:
        first = (
            f"**Not stable at Γ**: an optical frequency there is below the limit of {limit:g} THz, on the mesh none "
            f"away from Γ is (the lowest is {_thz(lowest)} at q = {q})."
        )
    elif found["stable"] and path:
        first = (
            f"**Stable on the mesh, not on the path of the bands**: on the mesh no frequency away from Γ is below "
            f"{limit:g} THz (the lowest is {_thz(lowest)} at q = {q}), on the path one is. Near Γ that is often the "
            "interpolation of a small supercell, elsewhere it tells of an instability; a larger supercell decides."
        )
    elif found["stable"]:
        first = f"**Stable**: away from Γ no frequency is below {limit:g} THz; the lowest is {_thz(lowest)} at q = {q}."
    else:
        first = (
            f"**Not stable**: at q = {q} the lowest frequency is {_thz(lowest)}, below the limit of {limit:g} THz: the "
            "crystal lowers its energy by that displacement of its atoms."
        )
    return f"{first}{path}{optical}"


def _warnings(lines: Sequence[str]) -> list[str]:
    return ["Warnings:", "", *(f"- {line}" for line in lines)] if lines else []


def _made(record: Record) -> list[str]:
    crystal, source, relaxed = record["crystal"], record["force_constants"], record["relaxation"]
    by = f" of `{source['potential']}`" if source["potential"] else ""
    words = (
        f"{crystal['name']} of `{crystal['file']}`, space group {crystal['space_group']}: "
        f"{how_many(crystal['primitive_atoms'], 'atoms')} in the primitive cell, {crystal['supercell_atoms']} in the "
        f"supercell, which tells images of an atom apart up to {crystal['radius_A']:.2f} A. Force "
        f"constants{by}: {source['method']}."
    )
    if source["largest_force_eV_per_A"] is not None:
        words += f" The largest force on an atom at this geometry is {_short(source['largest_force_eV_per_A'])} eV/A."
    if source["spread"]:
        words += _spread(source["spread"])
    if not relaxed:
        return [words, "", "The structure is the one of the file; it was not relaxed."]
    end = "reached" if relaxed["converged"] else "not reached"
    return [
        words, "",
        f"Relaxed with its cell (FIRE, symmetry kept): {relaxed['steps']} steps to a largest force of "
        f"{_short(relaxed['fmax_eV_per_A'])} eV/A ({relaxed['asked_eV_per_A']:g} asked for, {end}); the energy fell by "
        f"{_short(relaxed['energy_lowered_eV_per_atom'])} eV an atom, the volume changed by "
        f"{100 * (relaxed['volume_factor'] - 1):+.2f} %.",
    ]  # fmt: skip


def _spread(spread: Record) -> str:
    """How far the potentials differ, and the error that this has meant elsewhere."""
    words = (
        f" The {spread['members']} potentials differ by {100 * spread['relative']:.1f} % of the force constants (root "
        "mean square)."
    )
    if "expected_relative_error" not in spread:
        return words
    return (
        f"{words} On {spread['materials']} materials that they were not trained on, the error was "
        f"{spread['error_over_spread']:.1f} times this spread in the median (between {spread['lower']:.1f} and "
        f"{spread['upper']:.1f} times for 80 % of them): **expect an error of about "
        f"{100 * spread['expected_relative_error']:.0f} % of the force constants**; the median there was "
        f"{100 * spread['median_relative_error']:.0f} %."
    )


def _sum_rule(record: Record) -> str:
    """Before and after the projection."""
    law, phonons = record["checks"]["laws"]["acoustic"], record["phonons"]
    median, high = law["dft"]["raw"]["value"]
    acoustic = ", ".join(f"{value:.3f}" for value in phonons["acoustic_at_gamma_THz"])
    term = "with" if phonons["non_analytical_term"] else "without"
    return (
        f"Sum rule: the largest component is {_short(law['raw']['value'])} eV/A^2 before and "
        f"{_short(law['projected']['value'])} after the projection (DFT before it: median {_short(median)}, 90th "
        f"percentile {_short(high)}). All phonons here are those of the {record['force_constants']['phonons_of']} "
        f"force constants, {term} the non-analytical term; the acoustic modes at Γ have {acoustic} THz."
    )


def _thermal(record: Record) -> list[str]:
    atoms = record["crystal"]["primitive_atoms"]
    names = {
        "free_energy_kJ_per_mol": "free energy [kJ/mol]", "entropy_J_per_K_mol": "entropy [J/K/mol]",
        "heat_capacity_J_per_K_mol": "heat capacity [J/K/mol]",
    }  # fmt: skip
    sets = [("these", record["phonons"]), *([("reference", record["reference"])] if record["reference"] else [])]
    rows = [
        (words, *(f"{found['thermal_300K'][key]:.4g}" for _, found in sets),
         *(f"{found['thermal_300K'][key] / atoms:.4g}" for _, found in sets))
        for key, words in names.items()
    ]  # fmt: skip
    head = ("at 300 K", *(f"{who}, primitive cell" for who, _ in sets), *(f"{who}, per atom" for who, _ in sets))
    dropped = record["phonons"]["thermal_300K"]["dropped_modes"]
    note = [f"{100 * dropped:.2g} % of the modes are below 0.05 THz or imaginary and left out.", ""] if dropped else []
    return [*note, *_table(head, rows), "", "All temperatures: `thermal.csv`."]


def _reference(record: Record) -> list[str]:
    """Errors beside the reference, with those of no forces at all."""
    if not record["reference"]:
        return []
    errors, reference = record["errors"], record["reference"]
    rows = [
        (words, unit, _short(errors["these"].get(key)), _short(errors["zero"].get(key)))
        for key, (words, unit) in ERRORS.items()
    ]
    verdict = "stable" if reference["stable"] else "not stable"
    lowest = _thz(reference["lowest_on_mesh_THz"])
    return [
        f"## Beside the reference `{reference['file']}`", "",
        f"The reference is {verdict}: its lowest frequency away from Γ is {lowest}.", "",
        *_table(("error", "unit", "these", "zero force constants"), rows),
    ]  # fmt: skip


def _laws(record: Record) -> list[str]:
    """A row of each law: raw and projected, the reference where there is one, and what DFT shows."""
    checks = record["checks"]
    sets = [name for name in ("raw", "projected", "reference") if name in checks["laws"]["exchange"]]
    rows = []
    for name, law in checks["laws"].items():
        cells = [_pair(law[whose]["value"], law[whose]["relative"]) for whose in sets]
        scales = [_pair(*law["dft"][kind]["value"]) for kind in ("raw", "projected")]
        rows.append((LAWS[name], law["unit"], *cells, *scales))
    return [
        "Largest deviation and, in brackets, all of them relative to the force constants. DFT: median and, in "
        f"brackets, 90th percentile of the largest deviations of {checks['dft_materials']} materials "
        f"({checks['dft_source']}); of the lowest frequency those of its imaginary part.", "",
        *_table(("law", "unit", *sets, "DFT, raw", "DFT, projected"), rows),
    ]  # fmt: skip


def _energy(checks: Record) -> list[str]:
    if not checks:
        return []
    rows = [(ENERGY[name], one["unit"], _short(one["value"]), _short(one["relative"])) for name, one in checks.items()]
    return [
        "## Laws of the energy", "",
        "Change of the energy of a randomly displaced supercell, and of its forces relative to them. In exact "
        "arithmetic all are 0 but that of differences, which grows with the square of the displacement.", "",
        *_table(("changed", "unit", "largest change", "relative"), rows),
    ]  # fmt: skip


def _decay(record: Record) -> list[str]:
    rows = [
        (f"{row['start']:g} to {row['end']:g}", str(row["pairs"]), _short(row["largest"]), _short(row["mean"]))
        for row in record["decay"]
    ]
    return _table(("distance [A]", "pairs", "largest norm of a block [eV/A^2]", "mean"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _thz(value: float) -> str:
    return f"{value:.3f} THz" + (" (imaginary)" if value <= -ROUNDED else "")


def _pair(first: float | None, second: float | None) -> str:
    return f"{_short(first)} ({_short(second)})"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
