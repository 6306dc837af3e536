"""Where the time of a train step or of inference goes: milliseconds per step of each kind of operator (CPU).

    python scripts/benchmarks/profile_step.py --profile full --batch_size 32 --kind train

The times are those of MindSpore's own profiler, which slows a step a little.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

from mindspore import profiler

from scripts.benchmarks.benchmark import ALL, KINDS, batches_of, our_steps
from scripts.help_defaults import Defaults


def measure(profile: str, batch_size: int, kind: str, steps: int, folder: Path) -> list[dict[str, str]]:
    """Rows of MindSpore's table of operator types, most expensive first."""
    run = our_steps(profile, batches_of(profile, batch_size, kind), kind, "GRAPH")
    recorder = profiler.profile(
        activities=[profiler.ProfilerActivity.CPU],
        start_profile=False,
        on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
    )
    recorder.start()
    run(steps)
    recorder.stop()
    tables = sorted(folder.rglob("cpu_op_type_info_*.csv"))
    if not tables:
        raise SystemExit("error: MindSpore's profiler wrote no table of operators; it needs the CPU back end")
    with open(tables[0], encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: -float(row["total_compute_time"]))


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Milliseconds per step of each kind of operator."
    )
    parser.add_argument("--profile", default="lite", choices=ALL)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--kind", default="train", choices=KINDS)
    parser.add_argument("--steps", type=int, default=48)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.profile, options.batch_size, options.kind, options.steps, Path(folder))
    steps = options.steps
    total = sum(float(row["total_compute_time"]) for row in rows) / steps
    print(f"{'operator':24}{'per step':>9}{'ms/step':>10}")
    for row in rows[:14]:
        count, milliseconds = int(row["type_occurrences"]) // steps, float(row["total_compute_time"]) / steps
        print(f"{row['op_type']:24}{count:9d}{milliseconds:10.3f}")
    print(f"{'all operators':24}{sum(int(row['type_occurrences']) for row in rows) // steps:9d}{total:10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
