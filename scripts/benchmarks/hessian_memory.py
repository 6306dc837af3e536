"""What a product of the Hessian takes in memory, beside what ``physics.memory`` estimates.

    python scripts/benchmarks/hessian_memory.py
    GEOSPORE_CPU_KERNELS=0 python scripts/benchmarks/hessian_memory.py       without the kernels

Each case is a process of its own: copies of C60 in one batch, whose product is computed once.  What is measured is the
largest resident memory less what the process had before its first batch, so compiling counts.  Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import Tensor

from data_tools.graph import Budget
from data_tools.graphs.batching import build_graph, join, pad
from physics.derivatives import HessianProduct
from physics.memory import available, of_product
from scripts.benchmarks.benchmark import CUTOFF, DIMENETPP, PROFILES, model_of
from scripts.benchmarks.benchmark_hessian import structure_of
from scripts.help_defaults import Defaults
from training.device import set_up
from training.step import to_tensors

#: profile, dtype, copies of C60
CASES = (
    *(("lite", "float32", copies) for copies in (9, 72)),
    *(("full", "float32", copies) for copies in (9, 36)),
    *(("lite", "float64", copies) for copies in (9, 36)),
    *((DIMENETPP, "float32", copies) for copies in (1, 2)),
)


def resident(entry: str) -> int:
    """Bytes of resident memory of this process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split(f"{entry}:")[1].split()[0])


def measure(profile: str, dtype: str, copies: int) -> str:
    """One row of the table."""
    kind = np.dtype(dtype).type
    graph = build_graph(structure_of(60), CUTOFF, triplets=profile == DIMENETPP)
    ragged = join([graph] * copies)
    edges, triplets = 2 * len(ragged.senders), len(ragged.triplet_in)
    budget = Budget(len(ragged.numbers) + 1, edges + 4, triplets + 1, copies + 1)
    product = HessianProduct(model_of(profile, dtype))
    inputs = to_tensors(pad(ragged, budget, CUTOFF, kind).inputs)
    probes = np.random.default_rng(0).normal(size=(budget.nodes, 3)).astype(kind)
    before, estimated = resident("VmRSS"), of_product(product, budget, kind)
    if estimated > available():
        return f"| {profile} | {dtype} | {edges} | {triplets} | {estimated / 2**20:.0f} | more than there is | |"
    product(*inputs, Tensor(probes)).asnumpy()
    measured = resident("VmHWM") - before
    return (
        f"| {profile} | {dtype} | {edges} | {triplets} | {estimated / 2**20:.0f} | {measured / 2**20:.0f} | "
        f"{estimated / measured:.1f} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure one case, or start a process for each."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Memory of Hessian products beside the estimate."
    )
    parser.add_argument("--profile", choices=(*PROFILES, DIMENETPP), help="of one case; without it, all cases")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--copies", type=int, default=9, help="of C60 in the batch")
    options = parser.parse_args(arguments)
    if options.profile:
        set_up("GRAPH", "CPU", 0, seed=0)
        print(measure(options.profile, options.dtype, options.copies), flush=True)
        return 0
    print(
        "| profile | dtype | edges | triplets | estimated, MB | measured, MB | ratio |\n|---|---|---|---|---|---|---|"
    )
    for profile, dtype, copies in CASES:
        words = ["--profile", profile, "--dtype", dtype, "--copies", str(copies)]
        subprocess.run([sys.executable, __file__, *words], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
