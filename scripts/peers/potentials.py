"""Force constants of universal potentials beside DFT, zero and the means of shells: what a user would take instead.

    python scripts/peers/potentials.py --data crystals.npz --calculators chgnet 7net-0 \
        --peer_python .venv-potentials/bin/python --output runs/potentials --page potentials.md

The data are a packed file of scripts/prepare_crystals.py.  Of its materials with at most --max_atoms atoms in the
supercell, sorted by their number, every --every-th from the first is judged, --number at most; the means are those of
the others.  Each potential computes forces of the displaced supercells in its own interpreter (potential_forces.py),
material by material under --output; called again, only what is missing is computed.  phonopy makes force constants of
them as it does of the forces of DFT.  Known names are chgnet, 7net-0 and 7net-l3i5 (requirements-parity.txt); any
other ASE calculator is module:Class.  The table goes to standard output, with --page also to that file and its numbers
to a JSON file beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from experiment.startup import begin

    begin()

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.loading import ConfigError
from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.readers import read_table
from data_tools.graph import DataError, StructureTable
from data_tools.progress_bar import track
from data_tools.tables import name_of_row
from experiment.command_line import exit_code
from experiment.evaluation.force_constant_table import lines
from experiment.evaluation.force_constants import judge
from experiment.evaluation.shell_means import ShellMeans
from experiment.provenance import command_of
from physics.finite_displacements import blocks_of_forces, displaced_cells
from scripts.help_defaults import Defaults
from scripts.peers.potential_forces import ABOUT, belongs_to, sha256
from scripts.peers.potential_page import Potential, page, record_of
from training.files import replacing, write_text

FORCES_PROGRAM = Path(__file__).with_name("potential_forces.py")
SAME = 1e-4  # Angstrom: displaced cells of an earlier call are those of this one


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options.

    Raises:
        ConfigError: they do not fit together.
    """
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="packed force constants, *.npz")
    parser.add_argument("--calculators", nargs="+", required=True, metavar="NAME", help="known name or module:Class")
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has the calculators")
    parser.add_argument("--output", type=Path, required=True, help="folder of displaced cells and forces")
    parser.add_argument("--page", type=Path, help="Markdown file of the results, beside which a JSON file is written")
    parser.add_argument("--max_atoms", type=int, default=64, help="of the supercells")
    parser.add_argument("--every", type=int, default=10, help="step through the sorted materials")
    parser.add_argument("--number", type=int, default=100, help="the most materials that are judged")
    options = parser.parse_args(arguments)
    for name, least in (("max_atoms", 1), ("every", 2), ("number", 1)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least {least}")
    if options.page and options.page.suffix != ".md":
        raise ConfigError(f"--page {options.page}: expected the name of a Markdown file, *.md")
    return options


def choose(table: StructureTable, max_atoms: int, every: int, number: int) -> tuple[list[int], list[int]]:
    """Rows that are judged, and those that the means are of.

    Raises:
        DataError: there are none of the one or of the other.
    """

    def order(row: int) -> tuple[int, str]:
        name = name_of_row(table, row)
        digits = re.search(r"\d+", name)
        return int(digits[0]) if digits else -1, name

    if table.force_constants is None:
        raise DataError("expected a file with force constants; make one with scripts/prepare_crystals.py")
    usable = (table.n_atoms <= max_atoms) & (table.force_constants.n_primitive > 0)
    rows = sorted(np.flatnonzero(usable).tolist(), key=order)
    chosen = rows[::every][:number]
    others = sorted(set(rows) - set(chosen))
    if not chosen or not others:
        raise DataError(
            f"expected at least two materials with force constants and at most {max_atoms} atoms, got {len(rows)}"
        )
    return chosen, others


def write_displaced(crystals: Sequence[Crystal], folder: Path) -> None:
    """One file of displaced supercells a material; those of an earlier call stay where they are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for crystal in crystals:
        path, positions = folder / f"{crystal.name}.npz", displaced_cells(crystal).positions
        if path.is_file():
            with np.load(path) as there:
                if there["positions"].shape == positions.shape and np.abs(there["positions"] - positions).max() < SAME:
                    continue
        arrays: dict[str, Any] = {"numbers": crystal.supercell.numbers, "cell": crystal.supercell.cell}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, positions=positions, **arrays)
    names = {crystal.name for crystal in crystals}
    for path in folder.glob("*.npz"):
        if path.stem not in names:  # of another choice of materials
            path.unlink()


def run_peer(python: str, calculator: str, displaced: Path, output: Path) -> None:
    """Let the calculator compute the forces that are missing.

    Raises:
        ConfigError: it cannot; it has said why.
    """
    words = [python, str(FORCES_PROGRAM), "--calculator", calculator]
    try:
        done = subprocess.run([*words, "--displaced", str(displaced), "--output", str(output)], check=False)
    except OSError as error:
        raise ConfigError(f"--peer_python {python}: expected an interpreter, {error.strerror}") from None
    if done.returncode:
        raise ConfigError(f"{calculator}: its forces were not computed, see the line above; correct it or leave it out")


def blocks_of(crystals: Sequence[Crystal], displaced: Path, folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Force constants and CPU seconds of the materials whose forces are there, by name."""
    found = {}
    for crystal in crystals:
        path = folder / f"{crystal.name}.npz"
        if belongs_to(path, sha256(displaced / path.name)):
            with np.load(path) as arrays:
                blocks = blocks_of_forces(crystal, displaced_cells(crystal), arrays["forces"])
                found[crystal.name] = blocks, float(arrays["cpu_seconds"])
    return found


def measure(options: argparse.Namespace) -> None:
    """All of the program, after its options."""
    command = command_of("scripts/peers/potentials.py", sys.argv[1:])
    table = read_table(options.data)
    chosen, others = choose(table, options.max_atoms, options.every, options.number)
    crystals = [crystal_of(table, row) for row in chosen]
    displaced = options.output / "displaced"
    write_displaced(crystals, displaced)
    folders = {name: options.output / name.replace(":", "_") for name in options.calculators}
    found = {}
    for name, folder in folders.items():
        run_peer(options.peer_python, name, displaced, folder)
        found[name] = blocks_of(crystals, displaced, folder)
    common = [crystal for crystal in crystals if all(crystal.name in of_one for of_one in found.values())]
    for crystal in crystals:
        if not any(crystal is other for other in common):
            print(f"left out {crystal.name}: not every potential has forces for it", file=sys.stderr)
    if not common:
        raise DataError("expected a material for which every potential has forces; see the lines above")
    baselines = ShellMeans.of(
        [crystal_of(table, row) for row in track(others, "means of shells", "materials", len(others), True)]
    )
    predictions = {name: [of_one[crystal.name][0] for crystal in common] for name, of_one in found.items()}
    judged = judge(common, predictions, baselines)
    print("\n".join(lines(judged)))
    if options.page:
        potentials = [
            Potential(
                name,
                json.loads((folder / ABOUT).read_text(encoding="utf-8"))["packages"],
                [found[name][crystal.name][1] for crystal in common],
            )
            for name, folder in folders.items()
        ]
        about = {**command.record(), "data_sha256": sha256(options.data), "training_materials": len(others)}
        about |= {"max_atoms": options.max_atoms, "every": options.every, "source": table.source}
        options.page.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.page, page(judged, potentials, about))
        write_text(options.page.with_suffix(".json"), json.dumps(record_of(judged, potentials, about), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        measure(parse(arguments))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
