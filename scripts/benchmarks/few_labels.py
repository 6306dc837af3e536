"""Does it help to begin with another target's weights?  A model of U0 as the start for another target, few labels.

    python scripts/benchmarks/few_labels.py --target gap --output runs/transfer --page results/schnet/few_labels.md

A SchNet of configs/schnet/qm9_lite_tuned.yaml learns U0 of 10,000 molecules.  From its weights, and from random ones,
the same network learns the target of few of these molecules, every training with as many steps; tested on the molecules
of the split ``sample``.  What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy",))

from data_tools.labels.targets import get_target
from experiment.command_line import exit_code
from experiment.provenance import Command, command_of
from scripts.benchmarks.trainings import train
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/few_labels.py"
CONFIG = "configs/schnet/qm9_lite_tuned.yaml"
BATCH = 16  # of that profile
SOURCE = "U0"


class Way(NamedTuple):
    """How a training begins: options beside those of the profile, with the weights of U0 or without."""

    title: str
    pretrained: bool
    options: tuple[str, ...] = ()


WAYS = {
    "scratch": Way("random weights, rate 3e-3", False),
    "scratch_slow": Way("random weights, rate 1e-3", False, ("optimizer.lr=1e-3",)),
    "taken": Way("weights of U0, new head, rate 3e-3", True),
    "taken_slow": Way("the same, rate 1e-3", True, ("optimizer.lr=1e-3",)),
    "decay": Way("the same, rate 3e-3, halved for each part before the head", True, ("optimizer.layer_decay=0.5",)),
    "frozen": Way("the same, all but the head frozen, rate 3e-3", True, ("training.freeze=embedding,blocks",)),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="gap", help="to be learned from few molecules")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500, 2000], help="how few")
    parser.add_argument("--steps", type=int, default=2500, help="of each training")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def metrics_of(folder: Path, words: list[str], config: str = CONFIG) -> dict[str, Any]:
    """The metrics of a training with the options ``words``, which is made unless it is there.

    Raises:
        DataError: it failed.
    """
    file = folder / "metrics.json"
    if not file.exists():
        train(config, folder, words)
    return json.loads(file.read_text(encoding="utf-8"))


def run(options: argparse.Namespace, command: Command) -> None:
    """Train all, and write the page."""
    target = get_target(options.target)
    options.output.mkdir(parents=True, exist_ok=True)
    plain = ["--set", "run.plots=false"]
    source = options.output / SOURCE
    metrics_of(source, [*plain, "--target", SOURCE])
    found: dict[str, dict[int, float]] = {name: {} for name in WAYS}
    for size in options.sizes:
        for name, way in WAYS.items():
            pairs = [*way.options, *([f"training.pretrained={source}"] if way.pretrained else [])]
            epochs = max(1, round(options.steps / math.ceil(size / BATCH)))
            words = [*plain, "--target", target.name, "--epochs", str(epochs), "--set", f"data.train_size={size}"]
            metrics = metrics_of(
                options.output / f"{name}_{size}", [*words, *(word for pair in pairs for word in ("--set", pair))]
            )
            found[name][size] = metrics["test"]["best model"]["mae"]
            print(f"{size} molecules, {way.title}: {found[name][size]:.4f} {target.unit}", flush=True)
    if options.page:
        head = f"| test MAE of {target.name}, {target.unit} | " + " | ".join(f"{n:,} molecules" for n in options.sizes)
        rows = [f"| {way.title} | " + " | ".join(f"{found[name][n]:.4f}" for n in options.sizes) + " |"
                for name, way in WAYS.items()]  # fmt: skip
        lines = [f"# {target.name} from few molecules, with and without the weights of {SOURCE}", "", "```bash",
                 command.text, "```", "", f"{head} |", "|---|" + "---|" * len(options.sizes), *rows]  # fmt: skip
        write_text(options.page, "\n".join(lines) + "\n")
        record = {**command.record(), "unit": target.unit, "mae": found}
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
