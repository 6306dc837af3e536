"""Ways to give force constants their symmetries, compared on crystals: distance, what is left, time.

    python scripts/benchmarks/symmetrisation.py data/phonondb/*.lzma --noise 0.02 --output symmetrisation.md

Each crystal is taken with normal noise on every entry, as from a model without symmetries.  The distance is that to
the input, relative to the distance of the nearest force constants with all symmetries; what is left is the largest
absolute entry of the sums over atoms, of the exchange asymmetry and of the difference to the mean over the space group.
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
import time
from collections.abc import Callable

import numpy as np

from data_tools.crystals import Crystal
from data_tools.formats.phonopy_files import read_crystal
from data_tools.graph import DataError
from physics.force_constants import compact_of, exchange_asymmetry, full_of, projected, sum_rule, symmetrized
from physics.lattice_translations import with_first_atoms
from physics.phonopy_bridge import phonopy_of
from scripts.help_defaults import Defaults


def successive(crystal: Crystal) -> Crystal:
    """Exchange symmetry, then the sum rule, once (phonopy's default)."""
    found = phonopy_of(crystal)
    found.symmetrize_force_constants(level=1, show_drift=False)
    return dataclasses.replace(crystal, blocks=np.array(found.force_constants))


def by_space_group(crystal: Crystal) -> Crystal:
    """The mean over the operations, of full force constants (phonopy)."""
    found = phonopy_of(crystal, symmetry=True)
    found.force_constants = full_of(crystal)
    found.symmetrize_force_constants_by_space_group(show_drift=False)
    return dataclasses.replace(crystal, blocks=compact_of(np.array(found.force_constants), crystal.p2s))


def by_projector(crystal: Crystal) -> Crystal:
    """The projector of symfc on all symmetries at once (phonopy 3.5 and later)."""
    found = phonopy_of(crystal, symmetry=True)
    found.symmetrize_force_constants(show_drift=False, use_symfc_projector=True)
    return dataclasses.replace(crystal, blocks=np.array(found.force_constants))


WAYS: dict[str, Callable[[Crystal], Crystal]] = {
    "phonopy, `symmetrize_force_constants`": successive,
    "phonopy, `..._by_space_group` (full)": by_space_group,
    "symfc's projector, through phonopy": by_projector,
    "`physics.force_constants.symmetrized`": symmetrized,
    "`physics.force_constants.projected`": projected,
}


def measures(crystal: Crystal) -> dict[str, list[float]]:
    """Per way: distance, sum rule, exchange, space group, CPU seconds, largest difference to ``projected``."""
    nearest = projected(crystal).blocks
    rows = {}
    for name, way in WAYS.items():
        start = time.process_time()
        found = way(crystal)
        seconds = time.process_time() - start
        left = (sum_rule(found.blocks), exchange_asymmetry(found), symmetrized(found).blocks - found.blocks)
        distance = np.linalg.norm(found.blocks - crystal.blocks) / np.linalg.norm(nearest - crystal.blocks)
        apart = float(np.abs(found.blocks - nearest).max())
        rows[name] = [float(distance), *(float(np.abs(part).max()) for part in left), seconds, apart]
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print or write the table of medians."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Ways to symmetrise force constants.")
    parser.add_argument("files", nargs="+", type=Path, help="files of phonopy or archives of phonondb")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation, eV/Angstrom^2")
    parser.add_argument("--output", type=Path, default=None, help="Markdown file; default: print it")
    options = parser.parse_args(arguments)
    results, sizes, noise = [], [], np.random.default_rng(0)
    for file in options.files:
        try:
            crystal = with_first_atoms(read_crystal(file, frequencies=False))
            blocks = crystal.blocks + options.noise * noise.normal(size=crystal.blocks.shape)
            results.append(measures(dataclasses.replace(crystal, blocks=blocks)))
            sizes.append(crystal.n_atoms)
        except DataError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if not results:
        print("error: expected a crystal that can be read, found none; give files of phonopy", file=sys.stderr)
        return 2
    lines = [
        f"Medians of {len(results)} crystals, supercells of {min(sizes)}-{max(sizes)} atoms, noise {options.noise} "
        "eV/Angstrom^2 on every entry.",
        "",
        "| | distance / nearest | sum rule | exchange | space group | CPU s (largest) | from `projected` (largest) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in WAYS:
        table = np.array([result[name] for result in results])
        middle, most = np.median(table, axis=0), table.max(axis=0)
        left = " | ".join(f"{value:.1e}" for value in middle[1:4])
        lines.append(
            f"| {name} | {middle[0]:.3f} | {left} | {middle[4]:.3f} ({most[4]:.2f}) | {middle[5]:.1e} ({most[5]:.1e}) |"
        )
    text = "\n".join(lines) + "\n"
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
