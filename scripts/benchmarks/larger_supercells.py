"""Force constants in supercells larger than any that a potential has learned from, beside those of a smaller one.

    python scripts/benchmarks/larger_supercells.py

scripts/phonon.py makes the phonons of rock salt and of a perovskite in two supercells each, every one in a process of
its own.  Both are the same infinite crystal, so the force constants of the smaller are sums of those of the larger over
the atoms that its lattice carries into each other, and at the wave vectors that are whole numbers on the smaller the
frequencies are equal.  The largest deviations are told, beside time and memory.  Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import ase
import numpy as np
from ase.build import bulk

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.formats.phonopy_files import read_crystal
from experiment.command_line import exit_code
from physics.phonopy_bridge import phonopy_of
from scripts.help_defaults import Defaults

PHONON = Path(__file__).resolve().parents[1] / "phonon.py"
SITES = ((0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))
#: unit cell, and the repetitions of the smaller and of the larger supercell
CRYSTALS = {
    "MgO": (bulk("MgO", "rocksalt", a=4.21, cubic=True), (2, 2, 2), (4, 4, 4)),
    "SrTiO3": (
        ase.Atoms("SrTiO3", scaled_positions=SITES, cell=3.9 * np.eye(3), pbc=True), (2, 2, 2), (4, 4, 8)
    ),
}  # fmt: skip
LAWS = ("acoustic", "exchange", "space_group")
HEADINGS = (
    "crystal", "atoms", "time, s", "of it force constants, s", "CPU, s", "memory, GiB", "sum rule", "exchange",
    "space group", "folded differ by", "frequencies differ by, THz",
)  # fmt: skip


def run_phonon(atoms: ase.Atoms, times: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    """``scripts/phonon.py`` as a user starts it: seconds, the largest memory, the laws and the crystal.

    Raises:
        ConfigError: it has failed.
    """
    structure, output = folder / "POSCAR", folder / "x".join(map(str, times))
    atoms.write(structure, format="vasp")
    words = ["--structure", str(structure), "--supercell", *map(str, times), "--output", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(PHONON), *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(f"{' '.join(words)}: exit code {process.returncode}")
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return {
        "seconds": time.perf_counter() - started, "cpu": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss / 2**20, "parts": report["seconds"], "crystal": read_crystal(output),
        **{law: report["checks"]["laws"][law]["raw"]["value"] for law in LAWS},
    }  # fmt: skip


def folded(small: Crystal, large: Crystal) -> np.ndarray:
    """(p, n, 3, 3) of the smaller supercell, as sums over atoms of the larger one.

    Raises:
        ConfigError: the two have other primitive atoms.
    """
    assert small.supercell.cell is not None
    inverse, sums = np.linalg.inv(small.supercell.cell), np.zeros_like(small.blocks)

    def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        steps = (first[:, None] - second[None]) @ inverse
        return np.abs(steps - np.round(steps)).max(axis=2)

    of_small = apart(large.supercell.positions, small.supercell.positions).argmin(axis=1)
    rows = apart(small.supercell.positions[small.p2s], large.supercell.positions[large.p2s]).argmin(axis=1)
    if sorted(rows) != list(range(len(rows))):
        raise ConfigError(f"{small.name}: the two supercells have other primitive atoms")
    np.add.at(sums.transpose(1, 0, 2, 3), of_small, large.blocks[rows].transpose(1, 0, 2, 3))
    return sums


def commensurate(crystal: Crystal) -> np.ndarray:
    """(K, 3) wave vectors that are whole numbers on the supercell, in reciprocal vectors of the primitive cell."""
    assert crystal.supercell.cell is not None
    matrix = np.round(crystal.supercell.cell @ np.linalg.inv(crystal.primitive_cell))
    most = round(abs(np.linalg.det(matrix)))
    whole = np.array(list(itertools.product(range(-most, most + 1), repeat=3)))
    return np.unique(np.round(whole @ np.linalg.inv(matrix).T, 9) % 1, axis=0)


def frequencies(crystal: Crystal, points: np.ndarray) -> np.ndarray:
    """(K, 3 p) THz."""
    found = phonopy_of(crystal)
    squares = np.array([np.linalg.eigvalsh(found.get_dynamical_matrix_at_q(point)) for point in points])
    return np.sign(squares) * np.sqrt(np.abs(squares)) * found.unit_conversion_factor


def table(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A line for each supercell."""
    small, large = (run["crystal"] for run in runs)
    points = commensurate(small)
    off = np.abs(folded(small, large) - small.blocks).max()
    of_both = [frequencies(crystal, points) for crystal in (small, large)]
    apart = ["", f"{off:.1e}"], ["", f"{np.abs(of_both[0] - of_both[1]).max():.1e} ({len(points)} wave vectors)"]
    lines = []
    for run, deviation, frequency in zip(runs, *apart, strict=True):
        laws = " | ".join(f"{run[law]:.1e}" for law in LAWS)
        lines.append(
            f"| {name} | {run['crystal'].n_atoms} | {run['seconds']:.0f} | {run['parts']['force constants']:.0f} | "
            f"{run['cpu']:.0f} | {run['memory']:.2f} | {laws} | {deviation} | {frequency} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--crystals", nargs="+", default=list(CRYSTALS), choices=list(CRYSTALS))
    try:
        options = parser.parse_args(arguments)
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
        for name in options.crystals:
            atoms, *sizes = CRYSTALS[name]
            with tempfile.TemporaryDirectory() as folder:
                runs = [run_phonon(atoms, times, Path(folder)) for times in sizes]
                print("\n".join(table(name, runs)), flush=True)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
