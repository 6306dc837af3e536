"""Kill a training run at random moments, resume it, and compare the result with an uninterrupted run.

    python scripts/benchmarks/soak_resume.py --kills 50 --output results/system/soak_resume.txt

Each kill is SIGKILL at a moment drawn evenly from the time that an uninterrupted run takes, so it hits imports,
compilation, training, validation and checkpoints being written.  A run that ends before its kill is compared and a new
one is begun.  Exit code 0: every run is equal to the uninterrupted one, bit for bit; 1: one is not.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np

from scripts.help_defaults import Defaults
from training import checkpoint as checkpoints
from training.device import versions
from training.files import write_text

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "data.train_size=64", "data.shapes=1", "training.epochs=40", "training.batch_size=8",
    "training.eval_batch_size=500", "optimizer.ema_decay=0.99", "schedule.name=cosine", "run.plots=false",
    "run.save_minutes=0.0", "training.loss_scale=dynamic",
)  # fmt: skip
OF_THE_MACHINE = {"seconds", "history"}  # times; metrics.csv holds the rest of the history


def start(folder: Path) -> subprocess.Popen:
    """Begin a run, or continue it where there is something to continue."""
    if any(folder.glob("last*.safetensors")):
        words = ["--resume", str(folder)]
    else:
        words = ["--config", str(ROOT / "configs" / "schnet" / "qm9_mini.yaml"), "--output", str(folder)]
        words += [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "GLOG_v": "3"}
    )


def differences(first: Path, second: Path) -> list[str]:
    """Names of what is not equal bit for bit."""
    found = []
    for name in (checkpoints.BEST, checkpoints.LAST):
        one, other = (checkpoints.load(folder / name) for folder in (first, second))
        for group in checkpoints.GROUPS:
            ours, theirs = getattr(one, group), getattr(other, group)
            found += [f"{name} {group}/{key}" for key in ours.keys() ^ theirs.keys()]
            found += [f"{name} {group}/{key}" for key in ours if not np.array_equal(ours[key], theirs.get(key))]
        ours, theirs = one.information["progress"], other.information["progress"]
        found += [f"{name} progress {key}" for key in ours if key not in OF_THE_MACHINE and ours[key] != theirs[key]]
    if (first / "metrics.csv").read_bytes() != (second / "metrics.csv").read_bytes():
        found.append("metrics.csv")
    return found


def soak(kills: int, seed: int, folder: Path) -> tuple[list[str], bool]:
    """Lines of the report, and whether every run was equal to the uninterrupted one."""
    draw = random.Random(seed)
    whole = folder / "whole"
    began = time.perf_counter()
    process = start(whole)
    _, words = process.communicate()
    if process.returncode:
        raise SystemExit(f"error: the uninterrupted run failed: {words.strip()}")
    seconds = time.perf_counter() - began
    lines, done, runs, equal = [f"uninterrupted run: {seconds:.1f} s"], 0, 0, True
    while done < kills:
        cut = folder / f"cut{runs}"
        before = done
        while True:
            process = start(cut)
            try:
                _, words = process.communicate(timeout=draw.uniform(0, seconds) if done < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                done += 1
                continue
            break
        if process.returncode:
            lines.append(f"run {runs}: exit code {process.returncode}: {words.strip()}")
            equal = False
            break
        wrong = differences(whole, cut)
        equal = equal and not wrong
        log = (cut / "train.log").read_text(encoding="utf-8")
        lines.append(
            f"run {runs}: {done - before} kills, {log.count('resumed after')} resumed, "
            f"{log.count('skipped a checkpoint')} damaged checkpoints skipped: "
            + (f"differs in {', '.join(wrong)}" if wrong else "equal bit for bit")
        )
        print(lines[-1], flush=True)
        runs += 1
    lines.append(f"{done} kills in {runs} runs: {'all equal' if equal else 'NOT EQUAL'}")
    return lines, equal


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Kill runs at random moments and compare them with an unkilled one."
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="file for the report")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        lines, equal = soak(options.kills, options.seed, Path(folder))
    about = "  ".join(f"{name} {version}" for name, version in versions().items())
    lines = [f"python scripts/benchmarks/soak_resume.py --kills {options.kills} --seed {options.seed}", about, *lines]
    print(lines[-1])
    if options.output:
        write_text(options.output, "\n".join(lines) + "\n")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
