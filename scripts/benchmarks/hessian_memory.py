"""What a product of the Hessian takes in memory, beside what ``physics.memory`` estimates.

    python scripts/benchmarks/hessian_memory.py
    GEOSPORE_CPU_KERNELS=0 python scripts/benchmarks/hessian_memory.py       without the kernels

Each case is a process of its own: copies of C60 in one batch, whose product is computed once.  Profiles of equivariant
models are those that learn from force constants, and a small transformer that counts parities.  What is measured is the
largest resident memory less what the process had before its first batch, so compiling counts.  Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import Tensor

from configs.loading import load_config
from data_tools.graph import Budget
from data_tools.graphs.batching import build_graph, join, pad
from models import GraphModel, build_model
from physics.derivatives import HessianProduct
from physics.memory import available, of_product
from scripts.benchmarks.benchmark import CUTOFF, DIMENETPP, PROFILES, model_of
from scripts.benchmarks.benchmark_hessian import structure_of
from scripts.benchmarks.benchmark_transformer_hessian import MODELS
from scripts.help_defaults import Defaults
from training.device import set_up
from training.step import to_tensors

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EQUIVARIANT, TRANSFORMER, SMALL = "equivariant_potential", "graph_attention_transformer", "small transformer"
#: model whose crystals.yaml it is, and what is different
EQUIVARIANT_PROFILES: dict[str, tuple[str, dict]] = {
    EQUIVARIANT: (EQUIVARIANT, {}),
    TRANSFORMER: (TRANSFORMER, {}),
    SMALL: (TRANSFORMER, MODELS["small"]),
}
#: profile, dtype, copies of C60
CASES = (
    *(("lite", "float32", copies) for copies in (9, 72)),
    *(("full", "float32", copies) for copies in (9, 36)),
    *(("lite", "float64", copies) for copies in (9, 36)),
    *((DIMENETPP, "float32", copies) for copies in (1, 2)),
    *((name, *case) for name in EQUIVARIANT_PROFILES for case in (("float32", 1), ("float32", 9), ("float64", 9))),
)


def resident(entry: str) -> int:
    """Bytes of resident memory of this process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split(f"{entry}:")[1].split()[0])


def network_of(profile: str, dtype: str, edges: int, atoms: int) -> GraphModel:
    """An untrained model of a profile, for graphs of so many edges and atoms."""
    if profile not in EQUIVARIANT_PROFILES:
        return model_of(profile, dtype)
    name, changes = EQUIVARIANT_PROFILES[profile]
    settings = dataclasses.asdict(load_config(CONFIGS / name / "crystals.yaml").model) | changes
    averages = {"average_degree": edges / atoms, "average_nodes": float(atoms)}
    settings |= {key: value for key, value in averages.items() if key in settings}
    return build_model(dtype=dtype, amp_level="O0", readout="sum", **settings)


def measure(profile: str, dtype: str, copies: int) -> str:
    """One row of the table."""
    kind = np.dtype(dtype).type
    graph = build_graph(structure_of(60), CUTOFF, triplets=profile == DIMENETPP)
    ragged = join([graph] * copies)
    edges, triplets = 2 * len(ragged.senders), len(ragged.triplet_in)
    budget = Budget(len(ragged.numbers) + 1, edges + 4, triplets + 1, copies + 1)
    product = HessianProduct(network_of(profile, dtype, len(graph.senders), len(graph.numbers)))
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
    profiles = (*PROFILES, DIMENETPP, *EQUIVARIANT_PROFILES)
    parser.add_argument("--profile", choices=profiles, help="of one case; without it, all cases")
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
