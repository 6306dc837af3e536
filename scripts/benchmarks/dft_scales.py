"""How far DFT itself breaks the laws of physics/checks.py: the numbers that a phonon report prints beside its own.

    python scripts/benchmarks/dft_scales.py --source FOLDER --output physics/dft_scales.json

Reads every archive of phonondb in a folder (or every N-th, with --every N).  Raw force constants are those of phonopy's
traditional solver from the forces as they are; projected ones have the space group, exchange symmetry and sum rule of
``physics.force_constants.projected``.  Written are the median and the 90th percentile over the materials of the size of
each deviation; of the lowest frequency those of its negative part.  A material that cannot be read is named and left
out.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from experiment.startup import DATA, begin

    begin((*DATA, "phonopy", "spglib"))

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_tools.crystals import Crystal
from data_tools.formats.cell_files import crystal_of_setting
from data_tools.formats.crystal_source import open_source
from data_tools.formats.phonopy_forces import dataset_of, read_forces
from data_tools.formats.phonopy_guard import guarded
from data_tools.formats.phonopy_settings import read_setting
from data_tools.formats.phonopy_solver import order_of_supercell, phonopy_of_setting, reordered
from data_tools.graph import DataError
from data_tools.progress_bar import track
from experiment.command_line import exit_code
from experiment.provenance import command_of
from physics.checks import Check, check_blocks
from physics.force_constants import projected
from scripts.help_defaults import Defaults
from training.files import one_line, write_text

ENDINGS = (".lzma", ".xz")
UNITS = "value: in the unit of the check; relative: without a unit; each [median, 90th percentile]"


def raw_crystal(path: Path) -> Crystal:
    """A crystal whose force constants are as its forces have them.

    Raises:
        DataError: one line on what is wrong with the archive.
    """
    files = open_source(path)
    forces = read_forces(files)
    setting = read_setting(files, forces.atoms)
    found = phonopy_of_setting(setting)
    with guarded(str(path), "forces from which phonopy can make force constants"):
        dataset: Any = reordered(dataset_of(forces, setting), order_of_supercell(setting, found))
        found.dataset = dataset
        found.produce_force_constants(
            calculate_full_force_constants=False, fc_calculator="traditional", show_drift=False
        )
    return dataclasses.replace(crystal_of_setting(setting), blocks=np.array(found.force_constants, np.float64))


def size_of(check: Check) -> tuple[float, float]:
    """How large a deviation is, and relative: of the lowest frequency the negative part."""
    if check.name == "lowest_frequency":
        return max(0.0, -check.value), max(0.0, -check.relative)
    return abs(check.value), abs(check.relative)


def summary(several: Sequence[list[Check]]) -> dict[str, Any]:
    """Median and 90th percentile of each check."""
    found: dict[str, Any] = {}
    for checks in zip(*several, strict=True):
        sizes = np.array([size_of(check) for check in checks])
        value, relative = (
            [float(f"{number:.3g}") for number in np.nanpercentile(column, (50, 90))] for column in sizes.T
        )
        found[checks[0].name] = {"unit": checks[0].unit, "value": value, "relative": relative}
    return found


def measure(paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The summaries of raw and projected force constants, and the names of what could not be read."""
    raw, after, skipped = [], [], []
    for path in track(paths, "checks", "materials", len(paths), True):
        try:
            crystal = raw_crystal(path)
            pair = check_blocks(crystal), check_blocks(projected(crystal))
        except DataError as error:
            skipped.append(path.name)
            print(f"skipped {path.name}: {one_line(error)}", file=sys.stderr)
            continue
        raw.append(pair[0])
        after.append(pair[1])
    return {"materials": len(raw), "raw": summary(raw), "projected": summary(after)}, skipped


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of phonondb's archives")
    parser.add_argument("--every", type=int, default=1, help="take every N-th archive")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of("scripts/benchmarks/dft_scales.py", arguments)
    try:
        options = parse(arguments)
        paths = sorted(one for one in options.source.iterdir() if one.suffix in ENDINGS)[:: max(1, options.every)]
        if not paths:
            raise DataError(f"{options.source}: expected archives of phonondb, found none; give their folder")
        found, skipped = measure(paths)
        source = "phonondb 2018-04-17 (A. Togo, CC BY 4.0): VASP, PBEsol, displacements of 0.01 Angstrom"
        record = {"source": source, "what": UNITS, **found, "skipped": skipped, **command.record()}
        write_text(options.output, json.dumps(record, indent=1) + "\n")
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
