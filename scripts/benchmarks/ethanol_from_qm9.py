"""Do weights of QM9 help a potential of one molecule?  Energies and forces of rMD17's ethanol, few frames.

    python scripts/benchmarks/ethanol_from_qm9.py --output runs/ethanol --page results/schnet/ethanol_from_qm9.md

A SchNet of configs/schnet/qm9_lite_tuned.yaml learns U0 of 10,000 molecules at their minima.  From its weights, and
from random ones, the same network learns energies and forces of few frames with the rest of configs/schnet/rmd17.yaml,
every training with as many steps; tested on 1,000 other frames.  What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy",))

from data_tools.units import KCAL_PER_MOL
from experiment.command_line import exit_code
from experiment.provenance import Command, command_of
from scripts.benchmarks.few_labels import CONFIG as OF_SOURCE
from scripts.benchmarks.few_labels import SOURCE, Way
from scripts.benchmarks.trainings import metrics_of
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/ethanol_from_qm9.py"
CONFIG = "configs/schnet/rmd17.yaml"
BATCH = 10  # of that profile
#: the network of configs/schnet/qm9_lite_tuned.yaml
NETWORK = ("model.features=64", "model.filters=64", "model.blocks=2", "model.gaussians=25", "model.cutoff=5.0")
WAYS = {
    "scratch": Way("random weights", False),
    "taken": Way(f"weights of {SOURCE}, new head", True, ("training.fresh=head",)),
    "whole": Way(f"weights of {SOURCE}, with its head", True, ("training.fresh=none",)),
}
Errors = dict[str, dict[int, dict[str, float]]]  # way -> frames -> energy, eV, and forces, eV/A: test MAE


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[50, 200, 950], help="how few, in turn")
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def measured(options: argparse.Namespace) -> Errors:
    """Train all; the test errors."""
    options.output.mkdir(parents=True, exist_ok=True)
    source = options.output / SOURCE
    metrics_of(OF_SOURCE, source, ["--target", SOURCE, "--set", "run.plots=false"])
    found: Errors = {name: {} for name in WAYS}
    for frames in options.frames:
        for name, way in WAYS.items():
            pairs = [*NETWORK, "run.plots=false", f"data.train_size={frames}", *way.options,
                     *([f"training.pretrained={source}"] if way.pretrained else [])]  # fmt: skip
            epochs = max(1, round(options.steps / math.ceil(frames / BATCH)))
            words = ["--epochs", str(epochs), *(word for pair in pairs for word in ("--set", pair))]
            metrics = metrics_of(CONFIG, options.output / f"{name}_{frames}", words)
            errors = {key: metrics[table]["best model"]["mae"]
                      for key, table in (("energy", "test"), ("forces", "test_forces"))}  # fmt: skip
            found[name][frames] = errors
            shown = f"{1000 * errors['energy']:.1f} meV, {1000 * errors['forces']:.1f} meV/A"
            print(f"{frames} frames, {way.title}: {shown}", flush=True)
    return found


def page(command: Command, found: Errors) -> str:
    """The page of numbers."""
    sizes = list(found["scratch"])
    lines = ["# Energies and forces of ethanol, with and without the weights of a model of QM9", "", "```bash",
             command.text, "```"]  # fmt: skip
    for quantity, unit in (("energy", ""), ("forces", "/A")):
        head = " | ".join(f"{size} frames" for size in sizes)
        lines += ["", f"| test MAE of {quantity}, meV{unit} (kcal/mol{unit}) | {head} |", "|---|" + "---|" * len(sizes)]
        for name, way in WAYS.items():
            errors = [found[name][size][quantity] for size in sizes]
            cells = [f"{1000 * error:.1f} ({error / KCAL_PER_MOL:.2f})" for error in errors]
            lines.append(f"| {way.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, command: Command) -> None:
    """Train all, and write the page."""
    found = measured(options)
    if options.page:
        write_text(options.page, page(command, found))
        record = {**command.record(), "units": {"energy": "eV", "forces": "eV/A"}, "mae": found}
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
