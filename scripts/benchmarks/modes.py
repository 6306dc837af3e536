"""GRAPH beside PYNATIVE, with the C++ kernels and with MindSpore's operators: time, memory, and whether they agree.

    python scripts/benchmarks/modes.py --output results/system/modes.md
    python scripts/benchmarks/modes.py --config configs/segnn/rmd17.yaml --modes GRAPH --steps 2

Each configuration, mode and path is a process of its own that makes the train steps of the configuration, on batches of
the static shape that most of its batches have.  Losses, gradients and weights of the processes are compared.  The exit
code is 1 where a case fails, a number is not finite or a difference is larger than its tolerance (``modes_report``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import BAD_INPUT, begin

if __name__ == "__main__":
    begin()

import numpy as np
from mindspore import Tensor

from configs.loading import ConfigError, load_config
from configs.schema import Config
from data_tools.graphs.loader import TrainingBatches
from experiment.closed_pipes import until_closed
from experiment.command_line import CommandLine, exit_code
from experiment.provenance import command_of
from models.cpu_kernels.build import SWITCH, find_or_build
from scripts.benchmarks.check_configs import MEMORY_GIB, fault, memory, prepare, watched
from scripts.benchmarks.modes_report import FIRST, LATER, LOSSES, OK, WEIGHTS, differences, page
from scripts.help_defaults import Defaults
from training.device import MODES
from training.files import replacing, write_text
from training.loop import Trainer
from training.state import Batch

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = (
    *("configs/schnet/qm9_lite.yaml", "configs/schnet/qm9_full.yaml", "configs/schnet/rmd17.yaml"),
    *("configs/dimenetpp/qm9_lite.yaml", "configs/segnn/qm9.yaml", "configs/segnn/rmd17.yaml"),
)
KERNELS, OPERATORS = PATHS = ("kernels", "operators")
WARM_UP = 2  # steps that are not timed; the first compiles
MOST_SECONDS = 20.0  # of timed steps; those that the comparison needs are made in any case
SEPARATOR = ": "  # between quantity and parameter in the files of the arrays


def configured(file: str, mode: str, batch_size: int) -> Config:
    """A configuration in a mode.

    Raises:
        ConfigError: it cannot be read, or its loss scale skips steps.
    """
    size = [("training.batch_size", str(batch_size))] if batch_size else []
    config = load_config(file, [("run.mode", mode), *size])
    if config.training.loss_scale != "none":
        raise ConfigError(
            f"{file}: training.loss_scale {config.training.loss_scale}: expected none, as a step that is skipped has "
            "no gradient to compare; choose another configuration"
        )
    return config


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One case in this process: its row; what is compared goes into the file ``options.here``.

    Raises:
        ConfigError: the path is not the one that was asked for.
        LossError: a loss or a gradient is not finite.
    """
    config = configured(options.config[0], options.modes[0], options.batch_size)
    kernels, reason = find_or_build()
    if bool(kernels) != (options.paths[0] == KERNELS):
        raise ConfigError(f"--paths {options.paths[0]}: expected C++ kernels, {reason}; choose --paths {OPERATORS}")
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, Path(folder))
    trainer = made.trainer
    seconds, arrays = train(trainer, of_one_shape(made.batches), options.updates, options.steps)
    with replacing(options.here) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            **{f"{quantity}{SEPARATOR}{name}": value for quantity, of in arrays.items() for name, value in of.items()},
        )
    return {
        "parameters": sum(parameter.size for parameter in trainer.model.trainable_params()),
        "batch_size": config.training.batch_size,
        "first_seconds": seconds[0],
        "step_seconds": float(np.median(seconds[WARM_UP:])),
        "timed": len(seconds) - WARM_UP,
        "memory_gib": memory(),
        "result": OK,
    }


def of_one_shape(batches: TrainingBatches) -> Iterator[Batch]:
    """The batches of the first epoch that have the shape of most of them, over and over."""
    nodes, edges, *_ = batches.budgets[int(np.argmax(batches.used))]

    def fitting() -> Iterator[Batch]:
        for batch in batches.epoch(0):
            inputs = batch.part.inputs
            if (len(inputs.numbers), len(inputs.senders)) == (nodes, edges):
                yield batch

    return cycle(fitting())


def train(
    trainer: Trainer, batches: Iterator[Batch], updates: int, steps: int
) -> tuple[list[float], dict[str, dict[str, np.ndarray]]]:
    """Steps of a run: the seconds of each, and what is compared.

    The gradient is read from the first moment, which is (1 - beta1) times the gradient where it was zero before a step:
    so it is that of the compiled step itself.

    Args:
        trainer: of the run, not compiled.
        batches: of one shape.
        updates: steps before the gradients are compared.
        steps: to time; fewer where they take long.
    """
    optimizer = trainer.optimizer
    seconds: list[float] = []
    losses: list[float] = []
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for number, batch in enumerate(list(islice(batches, max(updates + 1, WARM_UP + steps)))):
        if number > updates and sum(seconds[WARM_UP:]) > MOST_SECONDS:
            break
        if number == updates:
            arrays[WEIGHTS] = optimizer.parts(optimizer.current)
            optimizer.first.set_data(Tensor(np.zeros_like(optimizer.first.asnumpy())))
        trainer.meter.begin_epoch([])
        started = time.perf_counter()
        trainer.make_step(batch)
        trainer.meter.collect(trainer.progress.step)
        seconds.append(time.perf_counter() - started)
        losses.append(trainer.meter.loss)
        if number in (0, updates):
            arrays[LATER if number else FIRST] = optimizer.parts(optimizer.first)
    return seconds, {LOSSES: {"loss": np.array(losses[:updates])}, **arrays}


def in_a_process(options: argparse.Namespace, file: str, mode: str, path: str, arrays: Path) -> dict[str, Any]:
    """``measure`` in a process of its own; the row of the page.

    Raises:
        ConfigError: the case cannot be measured here.
    """
    words = ["--config", file, "--modes", mode, "--paths", path, "--here", str(arrays)]
    for name in ("batch_size", "steps", "updates"):
        words += [f"--{name}", str(getattr(options, name))]
    environment = {name: value for name, value in os.environ.items() if name != SWITCH}
    if path == OPERATORS:
        environment[SWITCH] = "0"
    ended = watched([sys.executable, __file__, *words], MEMORY_GIB, env=environment)
    row: dict[str, Any] = {"mode": mode, "path": path}
    if ended.code == 0 and ended.answer:
        return {**row, **json.loads(ended.answer)}
    if ended.code == BAD_INPUT:
        raise ConfigError(ended.words.removeprefix("error: "))
    return {**row, "memory_gib": ended.largest, "result": fault(ended, MEMORY_GIB)}


def compare(options: argparse.Namespace, file: str, folder: Path) -> dict[str, Any]:
    """All cases of one configuration, one after the other, and how far they differ."""
    rows, numbers = [], {}
    dtype = configured(file, options.modes[0], options.batch_size).run.dtype
    name = str(Path(file).resolve())
    name = name.removeprefix(f"{ROOT}{os.sep}") if Path(name).is_relative_to(ROOT) else file
    for mode in options.modes:
        for path in options.paths:
            arrays = folder / "arrays.npz"
            row = in_a_process(options, file, mode, path, arrays)
            if row["result"] == OK:
                numbers[mode, path] = read(arrays)
                measured = f"first step {row['first_seconds']:.1f} s, step {1e3 * row['step_seconds']:.1f} ms, "
                measured += f"{row['memory_gib']:.2f} GiB, "
            print(f"{name} {mode} {path}: {measured if row['result'] == OK else ''}{row['result']}", flush=True)
            rows.append(row)
    return {"config": name, "dtype": dtype, "cases": rows, "differences": differences(numbers, dtype)}


def read(file: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a case by quantity and name; the file is removed."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(file, allow_pickle=False) as stored:
        for key in stored.files:
            quantity, _, name = key.partition(SEPARATOR)
            found.setdefault(quantity, {})[name] = stored[key]
    file.unlink()
    return found


def faults_of(result: dict[str, Any]) -> list[str]:
    """What is wrong with the cases of a configuration, in lines."""
    lines = [
        f"{result['config']} {case['mode']} {case['path']}: {case['result']}"
        for case in result["cases"]
        if case["result"] != OK
    ]
    return lines + [
        f"{result['config']}, {pair['compared']}: {quantity} differ by {pair[quantity]:.1e}, most in {worst}"
        for pair in result["differences"]
        for quantity, worst in pair["beyond"].items()
    ]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options.

    Raises:
        ConfigError: a mistake in them.
    """
    parser = CommandLine(description=(__doc__ or "").splitlines()[0])
    parser.formatter_class = Defaults
    configs = [str(ROOT / name) for name in CONFIGS]
    parser.add_argument("--config", nargs="+", help=f"YAML files; default: {' '.join(CONFIGS)}", default=configs)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), help="to run in")
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=PATHS, help="to compute with")
    parser.add_argument("--steps", type=int, default=12, help="steps to time; fewer where they take long")
    parser.add_argument("--updates", type=int, default=10, help="steps before gradients and weights are compared")
    parser.add_argument("--batch_size", type=int, default=0, help="structures in a batch; default: the configuration's")
    parser.add_argument("--output", type=Path, help="Markdown file; the rows as JSON are written beside it")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, least in (("steps", 1), ("updates", 1), ("batch_size", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} {getattr(options, name)}: expected at least {least}")
    if options.output and (not options.output.parent.is_dir() or options.output.suffix != ".md"):
        parser.error(f"--output {options.output}: expected a file name that ends in .md, in a folder that exists")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure every case and write the page; returns the exit code."""
    command = command_of("scripts/benchmarks/modes.py", sys.argv[1:] if arguments is None else arguments)
    results: list[dict[str, Any]] = []
    try:
        options = parse(arguments)
        if options.here:
            print(json.dumps(measure(options)))
            return 0
        for file in options.config:
            configured(file, options.modes[0], options.batch_size)  # a mistake is told before anything is measured
        for file in options.config:
            with tempfile.TemporaryDirectory() as folder:
                results.append(compare(options, file, Path(folder)))
            if options.output:
                rows = {**command.record(), "updates": options.updates, "results": results}
                write_text(options.output.with_suffix(".json"), json.dumps(rows, indent=1) + "\n")
                write_text(options.output, page(results, options.updates, command))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    if not options.output:
        print(page(results, options.updates, command))
    faults = [line for result in results for line in faults_of(result)]
    for line in faults:
        print(f"error: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
