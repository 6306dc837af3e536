"""The report of the phonons of one crystal: ``report.json``, phonopy's files, pictures, and a page in words."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.tables import ELEMENTS
from experiment import phonon_figures as figures
from experiment.page_folder import REPORT
from experiment.phonon_page import page
from experiment.phonon_run import PhononRun, Phonons
from experiment.provenance import Command
from physics.checks import Check, decay, pair_norms, radius_within
from physics.phonons import UNSTABLE
from physics.phonopy_writers import write_born, write_force_constants, write_phonopy_yaml, write_poscar
from physics.supercells import space_group
from physics.thermal import Thermal
from training.files import write_rows, write_text

PROGRAM = "scripts/phonon.py"
SCALES = Path(__file__).parents[1] / "physics" / "dft_scales.json"
PAGE, THERMAL = "report.md", "thermal.csv"
ROOM_TEMPERATURE = 300.0  # K


def write_report(run: PhononRun, folder: Path, command: Command) -> dict[str, Any]:
    """Write every file of a report into an empty folder; returns what stands in ``report.json``.

    Args:
        run: what was computed.
        folder: see ``experiment.page_folder``.
        command: that computed it.
    """
    write_force_constants(folder / "FORCE_CONSTANTS", run.raw)
    if run.request.project:
        write_force_constants(folder / "FORCE_CONSTANTS_PROJECTED", run.projected)
    write_phonopy_yaml(folder / "phonopy_params.yaml", run.phonons.crystal)
    write_poscar(folder / "SPOSCAR", run.raw)
    if run.raw.born is not None:
        write_born(folder / "BORN", run.raw)
    write_rows(folder / THERMAL, _thermal_rows(run))
    _draw(run, folder)
    record = record_of(run, command)
    record["files"] = sorted([*(one.name for one in folder.iterdir()), PAGE, REPORT])
    write_text(folder / PAGE, page(record))
    write_text(folder / REPORT, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def record_of(run: PhononRun, command: Command) -> dict[str, Any]:
    """Every number of the report with its unit in its name, for JSON; what is no number is None."""
    crystal, request = run.raw, run.request
    cell = crystal.supercell.cell
    assert cell is not None
    record = {
        "program": PROGRAM,
        **command.record(),
        "crystal": {
            "name": crystal.name,
            "file": request.structure.name,
            "space_group": " ".join(str(part) for part in space_group(crystal.supercell)),
            "primitive_atoms": crystal.n_primitive,
            "supercell_atoms": crystal.n_atoms,
            "supercell_matrix": np.asarray(run.setting.supercell_matrix).tolist(),
            "supercell_A": np.asarray(cell).tolist(),
            "radius_A": radius_within(cell),
        },
        "force_constants": {
            "potential": request.potential.name if request.potential else None,
            "method": run.method,
            "cutoff_A": request.potential.cutoff if request.potential else None,
            "largest_force_eV_per_A": run.force,
            "phonons_of": "projected" if request.project else "raw",
            "spread": _spread(run),
        },
        "relaxation": None if run.relaxed is None else _relaxation(run),
        "phonons": _phonons(run.phonons),
        "reference": None if run.reference is None else {"file": _name(request.reference), **_phonons(run.reference)},
        "errors": None if run.reference is None else _errors(run),
        "checks": _checks(run.checks),
        "energy": {one.name: one._asdict() for one in run.energy_checks},
        "decay": [row._asdict() for row in decay(crystal, run.images)],
        "warnings": run.warnings,
        "seconds": run.seconds,
    }
    return _plain(record)


def _spread(run: PhononRun) -> dict[str, Any] | None:
    """How far several potentials differ, and what that has meant on materials that they had not seen."""
    if run.spread is None or run.request.potential is None:
        return None
    relative = float(np.linalg.norm(run.spread) / np.linalg.norm(run.raw.blocks))
    found: dict[str, Any] = {
        "members": len(run.request.potential.members),
        "mean_eV_per_A2": float(np.abs(run.spread).mean()),
        "relative": relative,
    }
    card = run.request.potential.card
    if "error_over_spread" not in card:  # of a potential that was judged alone
        return found
    return found | {"expected_relative_error": card["error_over_spread"] * relative, **card}


def _relaxation(run: PhononRun) -> dict[str, Any]:
    relaxed = run.relaxed
    assert relaxed is not None
    return {
        "steps": relaxed.steps, "fmax_eV_per_A": relaxed.fmax, "asked_eV_per_A": run.request.fmax,
        "converged": relaxed.converged, "energy_lowered_eV_per_atom": relaxed.energy, "volume_factor": relaxed.volume,
    }  # fmt: skip


def _phonons(found: Phonons) -> dict[str, Any]:
    """Frequencies in THz, and thermal properties of a mole of primitive cells at room temperature."""
    stability, bands, thermal = found.stability, found.bands, found.thermal
    lowest_on_path, ends = bands.lowest
    row = int(np.abs(thermal.temperatures - ROOM_TEMPERATURE).argmin())
    return {
        "stable": stability.stable,
        "unstable_below_THz": UNSTABLE,
        "lowest_on_mesh_THz": stability.lowest_on_mesh,
        "q": stability.q.tolist(),
        "lowest_at_gamma_THz": stability.lowest_at_gamma,
        "acoustic_at_gamma_THz": stability.acoustic.tolist(),
        "lowest_on_path_THz": lowest_on_path,
        "lowest_between": list(ends),
        "highest_THz": found.mesh.highest,
        "non_analytical_term": found.crystal.born is not None,
        "thermal_300K": {
            "free_energy_kJ_per_mol": float(thermal.free_energy[row]),
            "entropy_J_per_K_mol": float(thermal.entropy[row]),
            "heat_capacity_J_per_K_mol": float(thermal.heat_capacity[row]),
            "dropped_modes": thermal.dropped,
        },
    }


def _errors(run: PhononRun) -> dict[str, Any]:
    """Errors beside the reference, and those of no forces at all, by the definitions of the evaluation."""
    from experiment.evaluation.force_constants import block_errors, phonon_errors  # noqa: PLC0415  loads MindSpore

    reference = run.reference
    assert reference is not None
    blocks, shells = reference.crystal.blocks, run.images.shells
    errors = block_errors(blocks, run.phonons.crystal.blocks, shells)
    same = run.phonons.mesh.frequencies.shape == reference.mesh.frequencies.shape
    if same:
        errors |= phonon_errors(reference.mesh, run.phonons.mesh)
    return {"these": errors, "zero": block_errors(blocks, np.zeros_like(blocks), shells)}


def _checks(checks: Mapping[str, list[Check]]) -> dict[str, Any]:
    """By law: the unit, of each set of force constants the numbers, and what DFT shows."""
    scales = json.loads(SCALES.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for whose, several in checks.items():
        for one in several:
            entry = found.setdefault(one.name, {"unit": one.unit})
            entry[whose] = {"value": one.value, "relative": one.relative}
    for name, entry in found.items():
        entry["dft"] = {
            kind: {part: scales[kind][name][part] for part in ("value", "relative")} for kind in ("raw", "projected")
        }
    return {"dft_materials": scales["materials"], "dft_source": scales["source"], "laws": found}


def _draw(run: PhononRun, folder: Path) -> None:
    """The four pictures."""
    found, reference = run.phonons, run.reference
    about = [run.raw.name, run.request.potential.name if run.request.potential else run.method]
    about.append("projected force constants" if run.request.project else "raw force constants")
    if found.crystal.born is not None:
        about.append("with the non-analytical term")
    if reference is not None:
        about.append(f"reference {_name(run.request.reference)}")
    numbers = run.raw.supercell.numbers[run.raw.p2s]
    elements = {ELEMENTS[n - 1]: np.flatnonzero(numbers == n).tolist() for n in dict.fromkeys(numbers.tolist())}
    cell = run.raw.supercell.cell
    assert cell is not None
    figures.plot_bands(folder / "bands.png", found.bands, reference.bands if reference else None, about)
    density = reference.density if reference else None
    figures.plot_densities(folder / "dos.png", found.density, density, elements, about)
    figures.plot_thermal(folder / "thermal.png", found.thermal, reference.thermal if reference else None, about)
    figures.plot_decay(
        folder / "decay.png", pair_norms(run.raw, run.images),
        pair_norms(reference.crystal, run.images) if reference else None,
        decay(run.raw, run.images), radius_within(cell), about,
    )  # fmt: skip


def _thermal_rows(run: PhononRun) -> list[dict[str, Any]]:
    """Rows of thermal.csv: of a mole of primitive cells, and of the reference where there is one."""
    columns = _columns(run.phonons.thermal, "")
    if run.reference is not None:
        columns |= _columns(run.reference.thermal, "reference_")
    count = len(run.phonons.thermal.temperatures)
    return [{name: f"{values[row]:.10g}" for name, values in columns.items()} for row in range(count)]


def _columns(thermal: Thermal, prefix: str) -> dict[str, np.ndarray]:
    named = {} if prefix else {"temperature_K": thermal.temperatures}
    return named | {
        f"{prefix}free_energy_kJ_per_mol": thermal.free_energy,
        f"{prefix}entropy_J_per_K_mol": thermal.entropy,
        f"{prefix}heat_capacity_J_per_K_mol": thermal.heat_capacity,
    }


def _name(path: Path | None) -> str:
    return path.name if path is not None else ""


def _plain(value: Any) -> Any:
    """For JSON: NumPy's numbers as Python's, what is not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
