"""Train, evaluate, save and resume every shipped configuration at its own size; measure time and memory.

    python scripts/benchmarks/check_configs.py --output results/system/configs.json
    python scripts/benchmarks/check_configs.py configs/schnet/qm9_mini.yaml --modes PYNATIVE

Each configuration runs in a process of its own on the data it names: it compiles every training shape and makes a step
with each of them (two at least), evaluates one batch of ``eval_batch_size`` structures at the shape of the whole run,
saves a checkpoint and restores it.  The memory is the largest of the process.  With ``--output`` the rows of the file
that are measured again are replaced, the others stay, and a table of the same name in Markdown is written beside it.
The exit code is 1 if a configuration fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

from configs.loading import load_config
from configs.schema import Config
from data_tools.dataset import make_dataset
from data_tools.graphs.loader import TrainingBatches
from data_tools.labels.splits import Split
from experiment.data import open_packed, resolve_task
from experiment.evaluation import evaluation_of
from experiment.evaluation.evaluator import Evaluator, Labelled
from experiment.evaluation.probe_evaluator import ProbeEvaluator
from experiment.forecast import one_of_each_shape
from experiment.model import build_single
from experiment.resolve import resolve
from experiment.trainer import make_batches, make_trainer
from training import checkpoint as checkpoints
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text
from training.loop import Trainer
from training.meter import LossError
from training.optimizer import evaluation_weights
from training.state import Batch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2  # at least, not counting those that a loss scale skips
MOST_SKIPPED = 40
MEMORY_GIB = 12.0  # a machine of 16 GB must do
POLL_SECONDS = 0.2
OK = "OK"


class Prepared(NamedTuple):
    """A training run before its first step."""

    config: Config
    split: Split
    batches: TrainingBatches
    evaluate: Evaluator | ProbeEvaluator
    trainer: Trainer


def prepare(config: Config, folder: Path) -> Prepared:
    """Open the data of a configuration and make its model and its trainer, whose run folder is ``folder``."""
    task = resolve_task(config)
    ranks = set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    packed = open_packed(config)
    config, split, _ = resolve(config, task, packed)
    dataset = make_dataset(packed, split, task)
    model = build_single(config, task)
    labelled = Labelled.of(dataset)
    # the rows that are evaluated, too: as one batch they may be larger than the balanced batches of their set
    sets = [split.valid, split.test, split.valid[: config.training.eval_batch_size]]
    evaluation = evaluation_of(config, task, model, dataset.normalizer, labelled, sets, ranks)
    batches = make_batches(config, dataset, ranks)
    trainer = make_trainer(config, dataset, task, model, batches, evaluation, folder, ranks)
    return Prepared(config, split, batches, evaluation.evaluator, trainer)


def check(file: str, mode: str, folder: Path) -> dict[str, Any]:
    """Build, train, evaluate, save and restore one configuration in this process.

    Raises:
        LossError: a loss or a prediction is not finite, or every step was skipped.
    """
    config, split, batches, evaluate, trainer = prepare(load_config(file, [("run.mode", mode)]), folder)
    training = config.training
    stage("compiling")
    shapes, compile_seconds = trainer.compile()
    stage("training")
    samples = one_of_each_shape(batches.epoch(0), sum(count > 0 for count in batches.used))
    trainer.meter.begin_epoch([])
    step_seconds = train(trainer, samples)
    training_memory = memory()
    stage("evaluating")
    with evaluation_weights(trainer.optimizer):
        first = seconds_of_evaluation(trainer, evaluate, split.valid[: training.eval_batch_size])
        second = seconds_of_evaluation(trainer, evaluate, split.valid[: training.eval_batch_size])
    stage("saving")
    trainer.save_last()
    trainer.restore(checkpoints.load(folder / checkpoints.LAST))
    return {
        "parameters": sum(parameter.size for parameter in trainer.model.trainable_params()),
        "weights": len(trainer.optimizer.weights),
        "batch_size": training.batch_size,
        "shape": list(batches.budgets[-1]),
        "shapes": shapes,
        "compile_seconds": compile_seconds,
        "step_seconds": step_seconds,
        "eval_batch_size": training.eval_batch_size,
        "eval_shape": list(evaluate.budget),
        "eval_first_seconds": first,
        "eval_seconds": second,
        "training_memory_gib": training_memory,
        "memory_gib": memory(),
        "result": OK,
    }


def train(trainer: Trainer, samples: list[Batch]) -> float:
    """Steps of every shape, the largest last, ``STEPS`` at least; returns the seconds of the last.

    Raises:
        LossError: not finite, or skipped again and again.
    """
    made, last = 0, len(samples) - 1
    for attempt in range(len(samples) + STEPS + MOST_SKIPPED):
        skipped = trainer.loss_scale.skipped if trainer.loss_scale else 0
        started = time.perf_counter()
        trainer.make_step(samples[min(attempt, last)])
        trainer.meter.collect(trainer.progress.step)
        seconds = time.perf_counter() - started
        made += skipped == (trainer.loss_scale.skipped if trainer.loss_scale else 0)
        if attempt >= last + 1 and made >= STEPS:  # the largest shape once more: the first step of a shape warms it up
            return seconds
    raise LossError(f"{MOST_SKIPPED} steps were skipped by the loss scale; lower the learning rate")


def seconds_of_evaluation(trainer: Trainer, evaluate: Evaluator | ProbeEvaluator, rows: Any) -> float:
    """Seconds of one evaluation batch.

    Raises:
        LossError: a prediction is not finite.
    """
    started = time.perf_counter()
    found = evaluate(rows)
    if not all(abs(value) < float("inf") for value in found.values.tolist()):
        raise LossError("a prediction is not finite")
    return time.perf_counter() - started


def stage(name: str) -> None:
    """Print the stage that begins, for the process that watches the memory of this one."""
    print(f"{name}, after {memory():.2f} GiB", file=sys.stderr, flush=True)


def memory() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


class Ended(NamedTuple):
    """What a process that has ended leaves.

    Attributes:
        code: its exit code.
        answer: its last line on standard output; empty where there is none.
        words: its last line on standard error.
        largest: resident memory, GiB.
    """

    code: int
    answer: str
    words: str
    largest: float


def watched(command: list[str], most_gib: float, **settings: Any) -> Ended:
    """Run a command, which is ended if it takes more memory than ``most_gib``.

    Args:
        command: words.
        most_gib: GiB.
        settings: of ``subprocess.Popen``.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, stdout=out, stderr=words, text=True, **settings)
        largest = 0.0
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                largest = max(largest, memory_of(process.pid))
                if largest > most_gib:
                    process.kill()
        finally:
            process.kill()  # of one that has ended nothing; it must not outlive this program
        out.seek(0)
        words.seek(0)
        lines, errors = out.read().splitlines(), words.read().splitlines()
    last = next((line.strip() for line in reversed(errors) if line.strip()), "no words")
    return Ended(process.returncode, lines[-1] if lines else "", last, largest)


def in_a_process(file: str, mode: str, most_gib: float) -> dict[str, Any]:
    """``check`` in a process that is ended if it takes more memory than ``most_gib``; the row of the table."""
    ended = watched([sys.executable, __file__, file, "--modes", mode, "--here"], most_gib, cwd=ROOT)
    row: dict[str, Any] = {"config": file, "mode": mode, "commit": commit()}
    if ended.code == 0 and ended.answer:
        return {**row, **json.loads(ended.answer)}
    return {**row, "memory_gib": ended.largest, "result": fault(ended, most_gib)}


def fault(ended: Ended, most_gib: float) -> str:
    """Why a process that ``watched`` has run gave no answer."""
    if ended.largest > most_gib:
        return f"ended: more than {most_gib:g} GiB of memory while {ended.words}"
    return f"exit code {ended.code}: {ended.words[:200]}"


def memory_of(process: int) -> float:
    """Resident memory of a process now, GiB; 0 where the system has no /proc, or the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        return 0.0


def commit() -> str:
    """The commit of the working tree, with a plus where files of it have changed; empty outside of a repository."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()


def table(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The rows in Markdown."""
    columns = (
        "configuration", "mode", "parameters", "training: structures, shapes, compilation", "step of the largest shape",
        "evaluation: structures, first, next batch", "memory, training", "memory, all", "result", "commit",
    )  # fmt: skip
    lines = [
        "# Every shipped configuration at its own size", "",
        "Each row is a process of its own: it compiles every training shape, makes a step with each, evaluates one",
        "batch at the shape of the whole run, saves and restores. Memory is the largest of the process.", "",
        "```bash",
        "python scripts/benchmarks/check_configs.py --modes GRAPH PYNATIVE --output results/system/configs.json",
        "```", "",
        f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
    ]  # fmt: skip
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    programs = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join([*lines, "", f"{programs}; {about['cores']} cores, shared with other work.", ""])


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    ends = [row["result"], row["commit"]]
    if row["result"] != OK:
        return [row["config"], row["mode"], *["-"] * 5, f"{row['memory_gib']:.2f} GiB", *ends]
    return [
        row["config"], row["mode"], f"{row['parameters']:,}",
        f"{row['batch_size']}, {row['shapes']}, {row['compile_seconds']:.0f} s", f"{row['step_seconds']:.3f} s",
        f"{row['eval_batch_size']}, {row['eval_first_seconds']:.1f} s, {row['eval_seconds']:.2f} s",
        f"{row['training_memory_gib']:.2f} GiB", f"{row['memory_gib']:.2f} GiB", *ends,
    ]  # fmt: skip


def keep(rows: list[dict[str, Any]], output: Path) -> None:
    """Write the rows beside those of other configurations in the file."""
    about = {"versions": versions(), "cores": cores()}
    old = json.loads(output.read_text(encoding="utf-8"))["results"] if output.exists() else []
    new = {(row["config"], row["mode"]): row for row in [*old, *rows]}
    ordered = [new[key] for key in sorted(new)]
    write_text(output, json.dumps({**about, "results": ordered}, indent=1) + "\n")
    write_text(output.with_suffix(".md"), table(ordered, about))


def main(arguments: list[str] | None = None) -> int:
    """Check configurations one after the other; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run every configuration for a few steps at its own size.")
    parser.add_argument("configs", nargs="*", help="YAML files; all below configs/ by default")
    parser.add_argument("--modes", nargs="+", default=["GRAPH"], choices=["GRAPH", "PYNATIVE"])
    parser.add_argument("--memory", type=float, default=MEMORY_GIB, metavar="GIB", help="end a process that takes more")
    parser.add_argument("--output", type=Path, help="JSON file for the rows; a table is written beside it")
    parser.add_argument("--here", action="store_true", help="one configuration in this process, as JSON")
    options = parser.parse_args(arguments)
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(check(options.configs[0], options.modes[0], Path(folder))))
        return 0
    files = options.configs or [str(file.relative_to(ROOT)) for file in sorted((ROOT / "configs").glob("*/*.yaml"))]
    rows = []
    for file in files:
        for mode in options.modes:
            rows.append(in_a_process(file, mode, options.memory))
            print(" | ".join(cells(rows[-1])), flush=True)
            if options.output:
                keep(rows[-1:], options.output)
    return 0 if all(row["result"] == OK for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
