"""Do targets help each other?  One network of all twelve QM9 targets beside a network for each, from as many molecules.

    python scripts/benchmarks/several_targets.py --output runs/several --page results/schnet/several_targets.md

A SchNet of configs/schnet/qm9_lite_tuned.yaml learns each target alone, and networks of the same size learn several at
once: with as many steps as one of the twelve, and with as many as all of them together, which is equal cost.  A longer
training of gap alone says how much of what they gain is due to more steps.  Tested on the molecules of the split
``sample``.  What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy",))

import numpy as np

from data_tools.labels.targets import get_target
from experiment.command_line import exit_code
from experiment.provenance import Command, command_of
from scripts.benchmarks.few_labels import CONFIG
from scripts.benchmarks.trainings import metrics_of
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/several_targets.py"
TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
ORBITALS = ("homo", "lumo", "gap")
ALONE = "alone"
Errors = dict[str, dict[str, float]]  # way -> target -> test MAE in the unit of the target


class Way(NamedTuple):
    """A network: of which targets, how many times the epochs of a network of one, and options."""

    title: str
    targets: tuple[str, ...]
    times: int
    options: tuple[str, ...] = ()


LEARNED = ("training.task_weighting=uncertainty",)
WAYS = {
    "same_steps": Way("all twelve, steps of one", TARGETS, 1),
    "same_steps_learned": Way("the same, learned weights of the losses", TARGETS, 1, LEARNED),
    "orbitals": Way("homo, lumo and gap, steps of the three", ORBITALS, len(ORBITALS)),
    "gap_longer": Way("gap alone, steps of the three", ("gap",), len(ORBITALS)),
    "same_cost": Way("all twelve, steps of the twelve", TARGETS, len(TARGETS)),
    "same_cost_learned": Way("the same, learned weights of the losses", TARGETS, len(TARGETS), LEARNED),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=5000, help="training molecules")
    parser.add_argument("--epochs", type=int, default=8, help="of a network of one target")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="networks of several targets")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def measured(options: argparse.Namespace) -> Errors:
    """Train all; the test errors."""
    options.output.mkdir(parents=True, exist_ok=True)
    plain = ["--set", "run.plots=false", "--set", f"data.train_size={options.size}"]
    found: Errors = {ALONE: {}}
    for name in TARGETS:
        words = [*plain, "--target", name, "--epochs", str(options.epochs)]
        metrics = metrics_of(CONFIG, options.output / f"{ALONE}_{name}", words)
        found[ALONE][name] = metrics["test"]["best model"]["mae"]
        print(f"{name} alone: {found[ALONE][name]:.4f} {get_target(name).unit}", flush=True)
    for key in options.ways:
        way = WAYS[key]
        several = len(way.targets) > 1
        pairs = [f"target.names={','.join(way.targets)}" if several else f"target.name={way.targets[0]}", *way.options]
        words = [*plain, "--epochs", str(way.times * options.epochs), *(w for pair in pairs for w in ("--set", pair))]
        metrics = metrics_of(CONFIG, options.output / key, words)
        tables = {name: f"test of {name}" if several else "test" for name in way.targets}
        found[key] = {name: metrics[table]["best model"]["mae"] for name, table in tables.items()}
        print(f"{way.title}: errors {ratio(found, key):.3f} times those alone", flush=True)
    return found


def ratio(found: Errors, way: str) -> float:
    """Geometric mean over the targets of a network of its errors over those of networks of one target."""
    return float(np.exp(np.mean([np.log(found[way][name] / found[ALONE][name]) for name in found[way]])))


def page_of(found: Errors, options: argparse.Namespace, command: Command) -> str:
    """The page's text."""
    titles = ["each alone", *(WAYS[key].title for key in options.ways)]
    rows = []
    for name in TARGETS:
        cells = [f"{found[key][name]:.4f}" if name in found[key] else "" for key in (ALONE, *options.ways)]
        rows.append(f"| {name}, {get_target(name).unit} | " + " | ".join(cells) + " |")
    means = " | ".join(f"{ratio(found, key):.3f}" for key in options.ways)
    rows.append(f"| error over that alone, geometric mean | 1 | {means} |")
    lines = ["# Twelve targets with one network, or one each", "", "```text", command.text, "```", "",
             f"{options.size:,} molecules; {options.epochs} epochs of a network of one target.", "",
             f"| test MAE | {' | '.join(titles)} |", "|---|" + "---|" * len(titles), *rows]  # fmt: skip
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, command: Command) -> None:
    """Train all, and write the page."""
    found = measured(options)
    if options.page:
        write_text(options.page, page_of(found, options, command))
        record: dict[str, Any] = {**command.record(), "unit": {name: get_target(name).unit for name in TARGETS}}
        text = json.dumps({**record, "size": options.size, "epochs": options.epochs, "mae": found}, indent=1)
        write_text(options.page.with_suffix(".json"), text + "\n")


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
