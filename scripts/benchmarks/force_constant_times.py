"""What force constants of a trained potential cost, exact and by finite displacements: time, memory, displacements.

    python scripts/benchmarks/force_constant_times.py --data runs/phonondb.npz \
        --page runs/force_constant_times.md

Two crystals of the shipped ones, one with the highest symmetry and one with little, in supercells of 64, 216 and 512
atoms: each size and method is a process of its own, whose largest memory is told beside the estimate of
physics/memory.py.  With --data also CPU seconds of the 100 materials of results/force_constants/test.txt, beside those
of universal potentials, and how many supercells DFT would have to compute.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.formats.phonopy_solver import crystal_of_cells
from experiment.command_line import exit_code
from experiment.phonon_source import SAMPLES, Potential, blocks_of, potential_of_checkpoints, shipped
from experiment.provenance import command_of
from physics.finite_displacements import displaced_cells
from physics.hessian import exact_rows
from scripts.benchmarks.check_configs import fault, memory, watched
from scripts.benchmarks.force_constant_page import page
from scripts.benchmarks.hessian_memory import resident
from scripts.benchmarks.material_times import TEST, WAYS, materials_of
from scripts.benchmarks.timed_steps import timed
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import versions
from training.files import write_text

PROGRAM = "scripts/benchmarks/force_constant_times.py"
CRYSTALS = SAMPLES / "crystals_100.npz"
MEMORY_GIB = 12.0
#: primitive cells of a cell that is repeated along its three vectors, eight atoms each
CELLS = {"mp-1958": np.ones((3, 3), int) - 2 * np.eye(3, dtype=int), "mp-9819": np.eye(3, dtype=int)}
METHODS = ("exact", "displacements")


def grown(name: str, repeats: int) -> Crystal:
    """A supercell of 8 repeats^3 atoms of a shipped crystal, with force constants of zero.

    Raises:
        DataError: it does not ship.
    """
    (crystal,) = materials_of(CRYSTALS, [name])
    atoms = PhonopyAtoms(
        numbers=crystal.supercell.numbers[crystal.p2s],
        positions=crystal.supercell.positions[crystal.p2s],
        cell=crystal.primitive_cell,
    )
    found = Phonopy(atoms, supercell_matrix=repeats * CELLS[name], primitive_matrix=np.eye(3))
    return crystal_of_cells(found, name, np.zeros((len(found.primitive), len(found.supercell), 3, 3)))


def estimate(crystal: Crystal, potential: Potential) -> float:
    """GiB of the largest batch of exact rows, as physics/memory.py estimates it."""
    largest = 0.0
    for member in potential.members:
        graph = member.neighbors(crystal.supercell)
        rows = exact_rows(member.product, [graph], member.cutoff, member.dtype, [crystal.p2s.tolist()])
        largest = max(largest, rows.memory)
    return largest / 2**30


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One crystal, size and method in this process.

    Raises:
        DataError: the potentials do not know an element.
    """
    (name,), (repeats,) = options.crystals, options.repeats
    crystal, potential = grown(name, repeats), potential_of_checkpoints(options.ckpt)
    exact = options.here == "exact"
    before = resident("VmRSS") / 2**30
    found = blocks_of(crystal, potential._replace(exact=exact))
    first, largest = time.time() - options.started, memory()
    np.save(options.blocks, found.blocks)
    seconds = timed(lambda: blocks_of(crystal, potential._replace(exact=exact)), options.times)
    graph = potential.members[0].neighbors(crystal.supercell)
    return {
        "atoms": crystal.n_atoms, "primitive": crystal.n_primitive, "edges": len(graph.senders),
        "evaluations": 3 * crystal.n_primitive if exact else len(displaced_cells(crystal).atoms),
        "first_seconds": first, "seconds": float(np.median(seconds)), "memory_gib": largest, "before_gib": before,
        "estimated_gib": estimate(crystal, potential) if exact else None,
    }  # fmt: skip


def last_json(words: Sequence[str], most_gib: float) -> dict[str, Any]:
    """What a program prints as its last line.

    Raises:
        ConfigError: it has failed, or was ended for its memory.
    """
    ended = watched([sys.executable, *words], most_gib)
    if ended.code or not ended.answer:
        raise ConfigError(f"{' '.join(words)}: {fault(ended, most_gib)}")
    return json.loads(ended.answer)


def compare(name: str, repeats: int, ckpt: list[str], options: argparse.Namespace, folder: Path) -> list[dict]:
    """Both methods for one crystal and size, and how far their force constants are apart."""
    rows, blocks = [], []
    for method in METHODS:
        file = folder / "blocks.npy"
        words = ["--crystals", name, "--repeats", str(repeats), "--ckpt", *ckpt, "--times", str(options.times)]
        words += ["--here", method, "--blocks", str(file), "--started", str(time.time())]
        found = last_json([str(Path(__file__)), *words], options.memory)
        rows.append({"crystal": name, "potentials": len(ckpt), "method": method, **found})
        blocks.append(np.load(file))
    rows[1]["difference"] = float(np.linalg.norm(blocks[1] - blocks[0]) / np.linalg.norm(blocks[0]))
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def of_materials(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """CPU seconds of the test materials by every way, and how many displaced supercells they have.

    Raises:
        DataError: the data lack one.
    """
    crystals = materials_of(options.data, TEST.read_text(encoding="utf-8").split())
    found: dict[str, Any] = {
        "atoms": [crystal.n_atoms for crystal in crystals], "primitive": [crystal.n_primitive for crystal in crystals],
        "supercells": [len(displaced_cells(crystal).atoms) for crystal in crystals], "ways": {},
    }  # fmt: skip
    program, blocks = str(Path(__file__).with_name("material_times.py")), {}
    for method in WAYS:
        file = folder / f"{method}.npz"
        words = ["--data", str(options.data), "--method", method, "--ckpt", options.ckpt[0], "--output", str(file)]
        way = found["ways"][method] = last_json([program, *words], options.memory)
        with np.load(file) as arrays:
            blocks[method] = [arrays[key] for key in arrays.files]
        pairs = zip(blocks[method], blocks["exact"], strict=True)
        way["difference"] = [float(np.linalg.norm(one - own) / np.linalg.norm(own)) for one, own in pairs]
        print(method, json.dumps({key: np.median(value) for key, value in way.items()}), flush=True)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="packed file of scripts/prepare_crystals.py with the test materials; none: without")
    add("--crystals", nargs="+", default=list(CELLS), choices=list(CELLS), help="of the shipped ones")
    add("--repeats", nargs="+", type=int, default=[2, 3, 4], help="supercells of 8 repeats^3 atoms")
    add("--ckpt", nargs="+", default=shipped(), help="the potentials; the first alone, and the mean of all")
    add("--times", type=int, default=5, help="force constants after the first; their median is told")
    add("--memory", type=float, default=MEMORY_GIB, help="GiB at which a process is ended")
    add("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    add("--words", default="", help="of the machine and of what else it did, for the page")
    add("--here", choices=METHODS, help=argparse.SUPPRESS)
    add("--blocks", type=Path, help=argparse.SUPPRESS)
    add("--started", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: Any) -> None:
    """Measure everything, then write.

    Raises:
        ConfigError, DataError: a process has failed, or files that do not fit.
    """
    sets = [options.ckpt[:1], *([options.ckpt] if len(options.ckpt) > 1 else [])]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for ckpt in sets
            for name in options.crystals
            for repeats in options.repeats
            for row in compare(name, repeats, ckpt, options, Path(folder))
        ]
        materials = of_materials(options, Path(folder)) if options.data else None
    if options.page:
        about = {"versions": versions(), "cores": cores(), "machine": platform.machine(), "words": options.words}
        record = {**command.record(), **about, "rows": rows, "materials": materials}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
        write_text(options.page, page(record))


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        options = parse(arguments)
        if options.here:
            print(json.dumps(measure(options)))
        else:
            run(options, command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
