"""Potentials on large supercells: time, memory, errors of force constants, and what these obey.

    python scripts/benchmarks/robustness.py --data runs/more.npz --output runs/robustness.json

So many materials of 96 to 200 atoms in the supercell are drawn by a seed from a file of scripts/prepare_crystals.py:
first those of --test or, with --trained_on, those that are not in that file of scripts/fold_crystals.py, which no
potential has learned from; where there are too few, others, which the page calls learned from.  Each is a process of
its own, which loads the potentials, makes force constants of their mean in float64, and compares them with those of
DFT, so that the largest memory is that of this material.  The JSON file is written after each; a second start goes on
where the first ended.  A page of the same name in Markdown is written beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import ConfigError
from data_tools.crystals import crystal_of
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import sha256_of
from experiment.command_line import exit_code
from experiment.evaluation.force_constants import block_errors, phonon_errors
from experiment.phonon_source import blocks_of, potential_of_checkpoints, shipped
from experiment.provenance import command_of
from physics.checks import check_blocks
from physics.force_constants import exchange_asymmetry, sum_rule
from physics.minimum_image import minimum_images
from physics.phonons import mesh_frequencies
from scripts.benchmarks.check_configs import fault, memory, watched
from scripts.help_defaults import Defaults
from training.checkpoint import find
from training.device import versions
from training.files import write_text

PROGRAM = "scripts/benchmarks/robustness.py"
ROOT = Path(__file__).resolve().parents[2]
TEST = ROOT / "results" / "force_constants" / "test.txt"
ATOMS = (96, 200)
MEMORY_GIB = 12.0
OK = "OK"
#: heading and format of each figure of a material
COLUMNS = {
    "atoms": ("atoms", "d"), "primitive": ("in the primitive cell", "d"), "seconds": ("time, s", ".0f"),
    "memory_gib": ("memory, GiB", ".2f"), "largest": ("largest, DFT", ".3g"), "mae": ("MAE", ".4f"),
    "frobenius": ("relative Frobenius", ".3f"), "spread": ("spread", ".3f"),
    "frequency_mae": ("frequencies, THz", ".2f"), "sum_rule": ("sum rule", ".1e"), "exchange": ("exchange", ".1e"),
    "space_group": ("space group", ".1e"),
}  # fmt: skip
MEANS = ("seconds", "memory_gib", "mae", "frobenius", "spread", "frequency_mae")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="packed file of scripts/prepare_crystals.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; a page is written beside it")
    parser.add_argument("--ckpt", nargs="+", default=[], help="run folders or checkpoints instead of those that ship")
    parser.add_argument("--count", type=int, default=20, help="how many materials")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--test", type=Path, default=TEST, help="text file of materials that none has learned from")
    parser.add_argument("--trained_on", type=Path, help="file that the potentials have learned from, but for --test")
    parser.add_argument("--memory", type=float, default=MEMORY_GIB, help="GiB at which a material is given up")
    parser.add_argument("--here", metavar="MATERIAL", help="this one in this process, as JSON")
    return parser.parse_args(arguments)


def chosen(
    table: StructureTable, count: int, seed: int, seen: Collection[str] | None, test: Collection[str]
) -> dict[str, bool]:
    """Names of the materials, and whether each was not learned from; those come first.

    Args:
        table: of all.
        count: how many.
        seed: of the choice.
        seen: names in the file that was learned from; None: unknown, so that all but ``test`` are taken for seen.
        test: names that were never learned from.

    Raises:
        DataError: there are fewer of this size.
    """
    sizes = np.asarray(table.n_atoms)
    names = [name for name, size in zip(table.names, sizes.tolist(), strict=True) if ATOMS[0] <= size <= ATOMS[1]]
    if len(names) < count:
        raise DataError(
            f"--data: expected {count} materials of {ATOMS[0]} to {ATOMS[1]} atoms in the supercell, found "
            f"{len(names)}; give another file or a smaller --count"
        )
    fresh = {name: name in test or (seen is not None and name not in seen) for name in names}
    order = np.random.default_rng(seed).permutation(len(names))
    ordered = sorted((names[place] for place in order), key=lambda name: not fresh[name])  # stable
    return {name: fresh[name] for name in ordered[:count]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One material in this process.

    Raises:
        DataError: there is none of this name, or the potentials do not know an element.
    """
    table = read_crystal_file(options.data).table
    names = list(table.names)
    if options.here not in names:
        raise DataError(f"--here {options.here}: expected a material of {options.data}")
    crystal = crystal_of(table, names.index(options.here))
    potential = potential_of_checkpoints(options.ckpt or shipped())
    unknown = set(crystal.supercell.numbers.tolist()) - set.intersection(*(set(m.elements) for m in potential.members))
    if unknown:
        raise DataError(f"{crystal.name}: the potentials have not learned the elements {sorted(unknown)}")
    started, used = time.perf_counter(), time.process_time()
    found = blocks_of(crystal, potential)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    largest = memory()
    predicted, images = dataclasses.replace(crystal, blocks=found.blocks), minimum_images(crystal)
    errors = block_errors(crystal.blocks, found.blocks, images.shells)
    errors |= phonon_errors(mesh_frequencies(crystal), mesh_frequencies(predicted))
    of_group = next(check for check in check_blocks(predicted, images) if check.name == "space_group")
    spread = None if found.spread is None else float(np.linalg.norm(found.spread) / np.linalg.norm(found.blocks))
    return {
        "atoms": crystal.n_atoms, "primitive": crystal.n_primitive, "seconds": seconds, "cpu_seconds": cpu,
        "memory_gib": largest, "largest": float(np.abs(crystal.blocks).max()), "spread": spread,
        **{key: None if np.isnan(value) else value for key, value in errors.items()},
        "sum_rule": float(np.abs(sum_rule(found.blocks)).max()),
        "exchange": float(np.abs(exchange_asymmetry(predicted)).max()), "space_group": of_group.value, "result": OK,
    }  # fmt: skip


def in_a_process(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """``measure`` in a process that is ended if it takes too much memory; why not, where there is no result."""
    words = [sys.executable, __file__, "--data", str(options.data), "--output", str(options.output), "--here", name]
    ended = watched([*words, *(["--ckpt", *options.ckpt] if options.ckpt else [])], options.memory)
    if ended.code == 0 and ended.answer:
        return json.loads(ended.answer)
    return {"memory_gib": ended.largest, "result": fault(ended, options.memory)}


def begun(options: argparse.Namespace, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of an earlier start, by material.

    Raises:
        ConfigError: it was made with other potentials, data or options.
        DataError: the file is another.
    """
    if not options.output.exists():
        return {}
    try:
        content = json.loads(options.output.read_text(encoding="utf-8"))
        rows, old = dict(content["rows"]), content["setting"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{options.output}: expected a file of {PROGRAM} or none ({error}); move it away") from None
    if old != setting:
        raise ConfigError(f"--output {options.output}: made with other data, potentials or options; move it away")
    return {name: row for name, row in rows.items() if row["result"] == OK}


def shown(row: Mapping[str, Any]) -> list[str]:
    """The figures of a material, or why there are none."""
    if row["result"] != OK:
        return [row["result"]]
    return ["" if row[key] is None else format(row[key], kind) for key, (_, kind) in COLUMNS.items()]


def page(rows: Mapping[str, Mapping[str, Any]], command: str, about: str) -> str:
    """The page."""
    good = [row for row in rows.values() if row["result"] == OK]
    fresh = sum(row["unseen"] for row in good)
    lines = [
        "# Potentials on supercells of 96 to 200 atoms", "",
        f"{len(rows)} materials of phonondb, drawn by a seed; {fresh} of the {len(good)} that have a result were not "
        "learned from. The others were, as smaller cells of the same force constants: their errors are no errors of",
        "generalisation. Exact force constants of the mean of the potentials in float64, beside those of PBEsol; each "
        "material in a process of its own, whose time includes compiling. Errors and what is broken in eV/A^2;",
        "nothing is projected. Spread: relative standard deviation of the potentials.", "",
        "```bash", command, "```", "",
        f"| material | learned from | {' | '.join(heading for heading, _ in COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]  # fmt: skip
    for name, row in rows.items():
        seen = "no" if row["unseen"] else "yes"
        lines.append(f"| {name} | {seen} | {' | '.join(shown(row))} |")
    for word, reduce in (("mean", np.mean), ("median", np.median)):
        known = {key: [row[key] for row in good if row[key] is not None] for key in MEANS}
        of_all = {key: float(reduce(known[key])) if known.get(key) else None for key in COLUMNS}
        lines.append(f"| {word} | | {' | '.join(shown({**of_all, 'result': OK}))} |")
    return "\n".join([*lines, "", about, ""])


def run(options: argparse.Namespace, command: Any) -> int:
    """Measure what is not measured yet; returns 1 where a material has no result.

    Raises:
        DataError, ConfigError: files that do not fit.
    """
    table = read_crystal_file(options.data).table
    seen = None if options.trained_on is None else set(map(str, read_crystal_file(options.trained_on).table.names))
    materials = chosen(table, options.count, options.seed, seen, set(options.test.read_text(encoding="utf-8").split()))
    files = options.ckpt or shipped()
    setting = {
        "data_sha256": sha256_of(options.data), "potentials": [sha256_of(find(file)) for file in files],
        "count": options.count, "seed": options.seed,
        "unseen": [name for name, fresh in materials.items() if fresh],
    }  # fmt: skip
    rows: dict[str, Any] = begun(options, setting)
    programs = ", ".join(f"{name} {version}" for name, version in versions().items())
    for name, fresh in materials.items():
        if name not in rows:
            rows[name] = {"unseen": fresh, **in_a_process(options, name)}
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
        ordered = {one: rows[one] for one in materials if one in rows}
        content = {**command.record(), "versions": versions(), "setting": setting, "rows": ordered}
        write_text(options.output, json.dumps(content, indent=1) + "\n")
        write_text(options.output.with_suffix(".md"), page(ordered, command.text, programs))
    return int(any(row["result"] != OK for row in rows.values()))


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        options = parse(arguments)
        if options.here:
            print(json.dumps(measure(options)))
            return 0
        return run(options, command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
