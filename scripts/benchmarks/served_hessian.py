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
from functools import partial
from pathlib import Path


def main() -> int:
    """Serve the Hessian of ``PROFILE ATOMS CHECKOUT``."""
    profile, atoms, checkout = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    sys.path[0] = checkout
    now = Path("scripts/benchmarks").is_dir()
    scripts = "scripts.benchmarks" if now else "scripts"
    importlib.import_module("experiment.startup" if now else "training.startup").begin(interruptible=False)
    benchmark = importlib.import_module(f"{scripts}.benchmark_hessian")
    benchmark.set_up("GRAPH", "CPU", 0, seed=0)
    structure = benchmark.build_graph(benchmark.structure_of(atoms), benchmark.CUTOFF)
    if not now:
        budget = benchmark.Budget(atoms + 1, len(structure.senders) + 4, 0, 2)
        structure = benchmark.pad(benchmark.join([structure]), budget, benchmark.CUTOFF, "float32").inputs
    hessian = benchmark.our_calls(structure, profile, "float32")["hessian"]
    benchmark.timed(hessian, 3)
    importlib.import_module(f"{scripts}.timed_steps").answer(partial(benchmark.timed, hessian))
    return 0


if __name__ == "__main__":
    sys.exit(main())
