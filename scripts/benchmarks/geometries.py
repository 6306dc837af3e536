"""What do geometries of SMILES cost, and which training helps?  Errors on DFT and on MMFF geometries of one test set.

    python scripts/benchmarks/geometries.py --output runs/geometries --page results/schnet/geometries.md

A SchNet of configs/schnet/qm9_lite_tuned.yaml learns from molecules at their DFT geometries, with and without noise, at
those that RDKit makes, and at both, every training with as many steps.  Besides: predictions of rotated and reflected
molecules, and a training of which every structure is rotated or reflected.  What is finished is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from data_tools.labels.splits import Split, load_split, save_split
from data_tools.labels.targets import get_target
from data_tools.source_files import read_arrays
from experiment.command_line import exit_code
from experiment.provenance import Command, command_of
from scripts import mmff_geometries
from scripts.benchmarks.few_labels import CONFIG
from scripts.benchmarks.trainings import metrics_of
from scripts.benchmarks.turned_predictions import TURNS, largest_differences
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/geometries.py"
KINDS = ("DFT", "MMFF")  # numbers 0 and 1 of the geometries of a molecule; further ones are other conformers
PLAIN = "dft"
Errors = dict[str, dict[str, list[float]]]  # target -> way -> test MAE on each of KINDS, in the unit of the target


class Way(NamedTuple):
    """What is learned from: numbers of the geometries of each molecule, and options."""

    title: str
    geometries: tuple[int, ...] = (0,)
    options: tuple[str, ...] = ()


WAYS = {
    PLAIN: Way("DFT"),
    "mixed": Way("DFT and MMFF", (0, 1)),
    "mmff": Way("MMFF", (1,)),
    "conformers": Way("DFT, MMFF and another conformer", (0, 1, 2)),
    "noise": Way("DFT with noise of 0.05 A", options=("data.noise=0.05",)),
}
CONTROLS = {
    "rotated": Way("DFT, every structure rotated or reflected", options=("data.augment_rotations=true",)),
    "seed_1": Way("DFT, another seed", options=("run.seed=1",)),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument(
        "--targets", nargs="+", default=["U0", "gap"], help="learned one by one; controls for the first"
    )
    parser.add_argument("--sizes", type=int, nargs=3, default=[3000, 300, 1000], metavar=("TRAIN", "VALID", "TEST"),
                        help="molecules, of which those that RDKit cannot make are left out")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=12, help="with one geometry a molecule; else equal steps")
    parser.add_argument("--output", type=Path, required=True, help="folder for the data and the trainings")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def part_of(file: Path, way: Way) -> Split:
    """What a training learns from, and both geometries of each test molecule.

    The validation molecules are at the kind of geometry that its use will give: the first but DFT where one is learned.
    """
    whole, conformers = load_split(file.with_name(f"{file.stem}_split.npz")), read_arrays(file)["conformer"]
    # the geometry of DFT stands before the one that the split of the program names
    train = whole.train[np.isin(conformers[whole.train], way.geometries)]
    valid: np.ndarray = whole.valid if 1 in way.geometries else whole.valid - 1
    return Split(train, valid, np.concatenate((whole.test - 1, whole.test)), "sample-mmff")


def errors_of(folder: Path, conformers: np.ndarray) -> list[float]:
    """The test MAE on each kind of geometry, of what a training has predicted."""
    rows, errors = column_of(folder, "error")
    return [float(np.abs(errors[conformers[rows] == kind]).mean()) for kind in range(len(KINDS))]


def column_of(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows that a training has been tested on, and a column of its predictions, ``predicted`` or ``error``."""
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    (column,) = (one for one in rows[0] if one.startswith(f"{name} "))
    return np.array([int(row["id"]) for row in rows]), np.array([float(row[column]) for row in rows])


def apart(output: Path, target: str) -> dict[str, float]:
    """Mean distance of the predictions of each control from those of the plain training, in the target's unit."""
    plain = column_of(output / f"{target}_{PLAIN}", "predicted")[1]
    controls = {name: column_of(output / f"{target}_{name}", "predicted")[1] for name in CONTROLS}
    return {name: float(np.abs(values - plain).mean()) for name, values in controls.items()}


def measured(options: argparse.Namespace, file: Path) -> Errors:
    """Train all; the test errors."""
    conformers = read_arrays(file)["conformer"]
    found: Errors = {}
    for target in options.targets:
        ways = WAYS | (CONTROLS if target == options.targets[0] else {})
        found[target] = {}
        for name, way in ways.items():
            index, split = options.output / f"rows_{name}.npz", part_of(file, way)
            save_split(split, index)
            epochs = max(1, round(options.epochs / len(way.geometries)))
            pairs = [f"data.file={file}", "data.split=file", f"data.split_file={index}", "data.train_size=0",
                     "run.plots=false", *way.options]  # fmt: skip
            folder = options.output / f"{target}_{name}"
            words = ["--target", target, "--epochs", str(epochs)]
            metrics_of(CONFIG, folder, [*words, *(word for pair in pairs for word in ("--set", pair))])
            found[target][name] = errors_of(folder, conformers)
            shown = ", ".join(f"{error:.4f} on {kind}" for error, kind in zip(found[target][name], KINDS, strict=True))
            print(f"{target}, {way.title}: {shown} {get_target(target).unit}", flush=True)
    return found


def page(command: Command, record: dict[str, Any]) -> str:
    """The page of numbers, of what the JSON file holds."""
    found, turned, counts = record["mae"], record["turned"], record["counts"]
    lines = ["# Geometries of DFT and of RDKit, in training and in use", "", "```bash", command.text, "```", "",
             "{:,} training, {:,} validation and {:,} test molecules.".format(*counts)]  # fmt: skip
    for target, errors in found.items():
        unit = get_target(target).unit
        lines += ["", f"| {target}: learned from | test MAE on DFT geometries, {unit} | on MMFF geometries |",
                  "|---|---|---|"]  # fmt: skip
        lines += [
            f"| {(WAYS | CONTROLS)[name].title} | {dft:.4f} | {mmff:.4f} |" for name, (dft, mmff) in errors.items()
        ]
    first = next(iter(found))
    lines += ["", f"| control of {first} | mean distance of its predictions from those of the first training, "
              f"{get_target(first).unit} |", "|---|---|"]  # fmt: skip
    lines += [f"| {CONTROLS[name].title} | {value:.1e} |" for name, value in record["apart"].items()]
    lines += ["", "| largest relative difference of predictions | " + " | ".join(TURNS) + " |",
              "|---|" + "---|" * len(TURNS)]  # fmt: skip
    for target, of_dtypes in turned.items():
        lines += [f"| {target}, {dtype} | " + " | ".join(f"{one[turn]:.1e}" for turn in TURNS) + " |"
                  for dtype, one in of_dtypes.items()]  # fmt: skip
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, command: Command) -> None:
    """Make the geometries, train all, and write the page."""
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "mmff.npz"
    if not file.exists():
        words = ["--sizes", *map(str, options.sizes), "--conformers", "2", "--output", str(file)]
        mmff_geometries.run(mmff_geometries.parse_arguments(words))
    found = measured(options, file)
    test = part_of(file, WAYS[PLAIN]).test
    of_dft = test[: len(test) // 2]
    turned = {target: largest_differences(options.output / f"{target}_{PLAIN}", of_dft) for target in options.targets}
    split = part_of(file, WAYS[PLAIN])
    if options.page:
        counts = [len(split.train), len(split.valid), len(of_dft)]
        record = {**command.record(), "counts": counts, "kinds": KINDS, "mae": found, "turned": turned,
                  "apart": apart(options.output, options.targets[0])}  # fmt: skip
        write_text(options.page, page(command, record))
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        run(parse(arguments), command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
