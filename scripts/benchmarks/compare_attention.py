"""Does a readout with attention help?  Beside the mean over atoms, at equal time.

    python scripts/benchmarks/compare_attention.py --output runs/attention --page results/schnet/attention.md

Each training is one of configs/schnet/qm9_lite_tuned.yaml on the first molecules of the split ``sample``, tested on
the 2,807 of its test.  A step of each way is timed first, the ways in turn, in processor time; a way whose steps take
longer has as many epochs fewer.  What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import load_config
from data_tools.labels.targets import get_target
from experiment.command_line import exit_code
from experiment.provenance import Command, command_of
from scripts.benchmarks.check_configs import prepare
from scripts.benchmarks.modes import of_one_shape
from scripts.benchmarks.trainings import metrics_of
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/compare_attention.py"
CONFIG = "configs/schnet/qm9_lite_tuned.yaml"
ROUNDS, STEPS, WARM_UP = 10, 40, 5  # of the timing; the first steps of a round are not counted


class Way(NamedTuple):
    """A network: options beside those of the profile."""

    title: str
    options: tuple[str, ...] = ()


WAYS = {
    "mean": Way("mean over atoms"),
    "attention": Way("readout with attention", ("target.readout=attention",)),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--targets", nargs="+", default=["gap", "homo", "lumo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--size", type=int, default=10000, help="training molecules")
    parser.add_argument("--epochs", type=int, default=10, help="of the first way")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def step_times(size: int) -> dict[str, dict[str, float]]:
    """Of each way the median milliseconds of processor time of a step, and the number of parameters."""
    steps, parameters = {}, {}
    for name, way in WAYS.items():
        words = [pair.partition("=") for pair in (*way.options, f"data.train_size={size}")]
        with tempfile.TemporaryDirectory() as folder:
            made = prepare(load_config(CONFIG, [(key, value) for key, _, value in words]), Path(folder))
        steps[name] = made.trainer, cycle(list(of_some(made.batches)))
        parameters[name] = sum(parameter.size for parameter in made.trainer.model.trainable_params())
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, (trainer, batches) in steps.items():
            for number in range(STEPS):
                batch = next(batches)
                started = time.process_time()
                trainer.meter.begin_epoch([])
                trainer.make_step(batch)
                trainer.meter.collect(trainer.progress.step)
                if number >= WARM_UP:
                    seconds[name].append(time.process_time() - started)
    return {name: {"parameters": parameters[name], "step_ms": 1e3 * float(np.median(seconds[name]))} for name in WAYS}


def of_some(batches: Any) -> Any:
    """A round of batches of one shape."""
    return (batch for batch, _ in zip(of_one_shape(batches), range(STEPS), strict=False))


def times_of(folder: Path, size: int) -> dict[str, dict[str, float]]:
    """``step_times``, measured unless that is done."""
    file = folder / "steps.json"
    if not file.exists():
        write_text(file, json.dumps(step_times(size), indent=1) + "\n")
    return json.loads(file.read_text(encoding="utf-8"))


def page(record: dict[str, Any], options: argparse.Namespace, command: Command) -> str:
    """The table: the mean over the seeds, and each."""
    units = {name: get_target(name).unit for name in options.targets}
    head = " | ".join(f"{name}, {unit}" for name, unit in units.items())
    lines = [f"| test MAE | parameters | ms a step | epochs | {head} |", "|---|---|---|---|" + "---|" * len(units)]
    for name, way in WAYS.items():
        one = record["ways"][name]
        errors = [one["mae"][target] for target in units]
        cells = [f"{np.mean(e):.4f} ({', '.join(f'{value:.4f}' for value in e)})" for e in errors]
        first = f"| {way.title} | {one['parameters']:,} | {one['step_ms']:.2f} | {one['epochs']} | "
        lines.append(first + " | ".join(cells) + " |")
    top = ["# A readout with attention beside the mean over atoms", "", "```text", command.text, "```", ""]
    return "\n".join([*top, *lines]) + "\n"


def run(options: argparse.Namespace, command: Command) -> None:
    """Time, train all, and write the page."""
    options.output.mkdir(parents=True, exist_ok=True)
    ways: dict[str, dict[str, Any]] = times_of(options.output, options.size)  # type: ignore[assignment]
    for name, one in ways.items():
        ratio = one["step_ms"] / ways["mean"]["step_ms"]
        one["epochs"], one["mae"] = max(1, round(options.epochs / ratio)), {target: [] for target in options.targets}
        print(f"{name}: {one['parameters']:,} parameters, {one['step_ms']:.2f} ms, {one['epochs']} epochs", flush=True)
    for seed in options.seeds:
        for target in options.targets:
            for name, way in WAYS.items():
                pairs = ("run.plots=false", f"run.seed={seed}", f"data.train_size={options.size}", *way.options)
                words = ["--target", target, "--epochs", str(ways[name]["epochs"])]
                words += [word for pair in pairs for word in ("--set", pair)]
                metrics = metrics_of(CONFIG, options.output / f"{name}_{target}_{seed}", words)
                ways[name]["mae"][target].append(metrics["test"]["best model"]["mae"])
                print(f"{target}, seed {seed}, {way.title}: {ways[name]['mae'][target][-1]:.4f}", flush=True)
    if options.page:
        record = {**command.record(), "molecules": options.size, "seeds": options.seeds, "ways": ways}
        write_text(options.page, page(record, options, command))
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
