"""Time of a train step on several devices: measured on one and two CPU cores, predicted for more.

    python scripts/benchmarks/scaling.py --output results/system/scaling.json

A device is one CPU core here: each process is bound to a core of its own.  Measured are the step of one process at each
batch size that a device of n gets, alone and beside a second process; the all-reduce of vectors of several lengths
between two processes; the waste of padding when all parts of a batch have the shape of the largest; and the step of
two processes, which the model below predicts from the others:

    step(n) = compute(batch / n) + allreduce(n, bytes)
    allreduce(n, bytes) = 2 (n - 1) latency + 2 (n - 1) / n bytes / bandwidth

The second is that of a ring.  ``compute`` is measured at the padded shape that a process of n runs, waste included;
``waste`` is its share of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if "--answer" in sys.argv and os.environ.get("MS_ROLE") != "MS_SCHED":
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ.get("RANK_ID") or 0) % len(cores)]})

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import ParameterTuple

from data_tools.dataset import open_graphs
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.labels.providers import StoredLabels
from scripts.benchmarks.benchmark import CUTOFF, LAW, PROFILES, model_of
from scripts.help_defaults import Defaults
from training.device import set_up, versions
from training.files import write_text
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep

MOLECULES, STEPS, SHAPES = 4096, 40, 4
LENGTHS = (1_000, 45_000, 250_000, 1_000_000)  # numbers in an all-reduce
DEVICES = (1, 2, 8, 64)


def batches_for(batch_size: int, devices: int, rank: int = 0) -> TrainingBatches:
    """What one of several devices gets of each batch."""
    packed = open_graphs("sample", CUTOFF)
    provider = StoredLabels(packed, {"energy": packed.table.of_structures["gap"]})
    return training_batches(packed, np.arange(MOLECULES), provider, batch_size, 0, 1, SHAPES, np.float32, rank, devices)


def step_milliseconds(profile: str, batches: TrainingBatches, ranks: int) -> float:
    """Median over STEPS steps, after each shape has been seen."""
    model = model_of(profile)
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"])
    step = TrainStep(model, optimizer, [Term("energy")], ranks)
    for ghosts in batches.ghost_batches():
        step(*step.layout.arguments(ghosts, {"energy": 1}, 1.0, (0.0, 1.0, 0.0)))
    seconds = []
    for number, batch in enumerate(batches.epoch(0)):
        arguments = step.layout.arguments(batch.part, batch.known, 1.0, operator_scalars(number + 1, **LAW))
        started = time.perf_counter()
        step(*arguments)[0].asnumpy()
        seconds.append(time.perf_counter() - started)
        if number == STEPS:
            break
    return 1e3 * float(np.median(seconds[1:]))


def work(options: argparse.Namespace) -> None:
    """One process of a measurement; the first prints one line of JSON."""
    ranks = set_up("GRAPH", "CPU", 0, seed=0)
    found: dict[str, Any] = {}
    if ranks.size == 1:
        for devices in DEVICES:
            batches = batches_for(options.batch_size, devices)
            found[str(devices)] = {
                "compute_ms": step_milliseconds(options.profile, batches, 1),
                "waste_percent": batches.waste["edges"],
            }
    else:
        batches = batches_for(options.batch_size, ranks.size, ranks.rank)
        found["compute_ms"] = step_milliseconds(options.profile, batches, 1)  # beside the other, without an exchange
        ranks.wait()
        found["step_ms"] = step_milliseconds(options.profile, batches, ranks.size)
        found["allreduce_ms"] = {}
        for length in LENGTHS:
            vector = np.ones(length, np.float32)
            seconds = []
            for _ in range(STEPS):
                started = time.perf_counter()
                ranks.sum(vector)
                seconds.append(time.perf_counter() - started)
            found["allreduce_ms"][str(length)] = 1e3 * float(np.median(seconds))
    if ranks.is_main:
        write_text(Path(options.answer), json.dumps(found))


def measured(processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes and read what the first has measured."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        words = [__file__, "--answer", str(answer), "--profile", options.profile]
        words += ["--batch_size", str(options.batch_size)]
        if processes > 1:
            words = [
                "-m", "mindspore.parallel.cluster.run", f"--worker_num={processes}", f"--local_worker_num={processes}",
                "--master_port=8127", "--join=True", f"--log_dir={folder}", *words,
            ]  # fmt: skip
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, *words], check=False, capture_output=True, text=True, env={**os.environ, "PATH": path}
        )
        if done.returncode or not answer.exists():
            raise SystemExit(f"error: {processes} processes failed: {done.stderr[-2000:]}")
        return json.loads(answer.read_text())


def allreduce_milliseconds(devices: int, numbers: int, latency: float, per_number: float) -> float:
    """Time of a ring over so many devices."""
    return 2 * (devices - 1) * latency + 2 * (devices - 1) / devices * numbers * per_number


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Measure one and two devices and predict more."
    )
    parser.add_argument("--profile", default="full", choices=sorted(PROFILES))
    parser.add_argument("--batch_size", type=int, default=128, help="molecules in a batch, over all devices")
    parser.add_argument("--output", type=Path, help="file for the numbers")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.answer:
        work(options)
        return 0
    one, two = measured(1, options), measured(2, options)
    numbers = sum(p.size for p in model_of(options.profile).trainable_params())
    lengths = np.array(LENGTHS, np.float64)
    slope, intercept = np.polyfit(lengths, [two["allreduce_ms"][str(n)] for n in LENGTHS], 1)
    latency, per_number = max(float(intercept), 0.0) / 2, float(slope)  # of a ring of two: 2 latency + n per_number
    rows = []
    for devices in DEVICES:
        compute = one[str(devices)]["compute_ms"]
        exchange = allreduce_milliseconds(devices, numbers + 2, latency, per_number)
        alone = one["1"]["compute_ms"]
        rows.append(
            {
                "devices": devices, **one[str(devices)], "waste_ms": compute * one[str(devices)]["waste_percent"] / 100,
                "allreduce_ms": exchange, "step_ms": compute + exchange, "speed_up": alone / (compute + exchange),
                "speed_up_with_a_batch_for_each": devices * alone / (alone + exchange),
            }
        )  # fmt: skip
    content = {
        "command": "python scripts/benchmarks/scaling.py " + " ".join(sys.argv[1:]), "versions": versions(),
        **vars(options),
        "parameters": numbers, "allreduce_measured_ms": two["allreduce_ms"], "latency_ms": latency,
        "bandwidth_mb_per_s": 4e-3 / per_number, "two_processes_compute_ms": two["compute_ms"],
        "two_processes_step_ms": two["step_ms"], "predicted": rows,
    }  # fmt: skip
    content = {key: value for key, value in content.items() if key not in ("answer", "output")}
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    beside = two["compute_ms"] + rows[1]["allreduce_ms"]
    print(
        f"two processes on this machine: measured {two['step_ms']:.1f} ms; predicted {rows[1]['step_ms']:.1f} ms for "
        f"devices of their own, {beside:.1f} ms for cores that slow each other down"
    )
    if options.output:
        write_text(options.output, json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
