"""Whole Hessians in a process of their own, for speed_kept.py: it runs in the folder of either checkout.

The places of modules and one signature differ between checkouts; nothing else here knows that.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    if {"-h", "--help"} & set(argv) or len(argv) != 4:
        print("served_hessian.py is a part of speed_kept.py: see python scripts/benchmarks/speed_kept.py --help")
        exit(0 if {"-h", "--help"} & set(argv) else 2)

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path


def calls_of(profile: str, atoms: int) -> Callable[[], object]:
    """One whole Hessian of a molecule of benchmark_hessian.py, in this checkout's own way."""
    now = Path("scripts/benchmarks").is_dir()
    startup = importlib.import_module("experiment.startup" if now else "training.startup")
    startup.begin(interruptible=False)
    benchmark = importlib.import_module("scripts.benchmarks.benchmark_hessian" if now else "scripts.benchmark_hessian")
    benchmark.set_up("GRAPH", "CPU", 0, seed=0)
    graph = benchmark.build_graph(benchmark.structure_of(atoms), benchmark.CUTOFF)
    if now:
        return benchmark.our_calls(graph, profile, "float32")["hessian"]
    budget = benchmark.Budget(atoms + 1, len(graph.senders) + 4, 0, 2)
    inputs = benchmark.pad(benchmark.join([graph]), budget, benchmark.CUTOFF, "float32").inputs
    return benchmark.our_calls(inputs, profile, "float32")["hessian"]


def main() -> int:
    """Serve the Hessian of ``PROFILE ATOMS CHECKOUT``."""
    profile, atoms, checkout = sys.argv[1:]
    sys.path[0] = checkout
    hessian = calls_of(profile, int(atoms))
    answer = importlib.import_module(
        "scripts.benchmarks.timed_steps" if Path("scripts/benchmarks").is_dir() else "scripts.timed_steps"
    ).answer

    def run(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            hessian()
            seconds.append(time.perf_counter() - started)
        return seconds

    run(3)
    answer(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
