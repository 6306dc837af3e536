"""The least time that SEGNN's train step could take on this machine: its multiplications and its traffic with memory.

    python scripts/benchmarks/step_floor.py --batch_size 128

Counted are the products of features with weights, forward and for both gradients, 2 operations each.  Of memory: what
stands between two products, (rows, channels) numbers, is written once and read twice, by the next product and by a
gradient, and so is its own gradient; weights and nodes' features are small beside it.  The peaks are those of NumPy: a
product of float32 matrices with all cores, and a copy of 256 MB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from data_tools.dataset import open_graphs
from data_tools.graphs.budgets import batch_sizes
from models.e3.channel_mixing import ChannelMixing
from models.segnn import SEGNN
from scripts.benchmarks.benchmark import SEGNN_PROFILES, batches_of, cutoff_of, model_of
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores

BYTES = 4  # of a float32
PASSES = 6  # over an array between two products: written, read twice, and the same for its gradient
SIDE, COPY = 3072, 1 << 26  # rows of the matrices, numbers of the copy


def rates(repeats: int = 7) -> tuple[float, float]:
    """Operations and bytes each second of NumPy, the best of some tries."""

    def best(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    a = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    out, long = np.empty_like(a), np.ones(COPY, np.float32)
    copy = np.empty_like(long)
    return 2 * SIDE**3 / best(lambda: np.matmul(a, a, out=out)), 2 * BYTES * COPY / best(lambda: np.copyto(copy, long))


def of_mixing(mixing: ChannelMixing) -> tuple[int, int]:
    """Multiplications of one row, and numbers in its result."""
    parts = mixing.parts.asnumpy().astype(int)  # (P, 5) start, components, inputs, outputs, place of the result
    return int(parts[:, 1:4].prod(1).sum()), int((parts[:, 1] * parts[:, 3]).sum())


def of_step(network: SEGNN, nodes: int, edges: int) -> tuple[float, float]:
    """Operations and bytes of one train step."""
    of_edges = [product.mixing for layer in network.layers for product in (layer.message.first, layer.message.second)]
    steerable = [cell for layer in network.layers for cell in (layer.update_first, layer.update_second)]
    steerable += [network.pre_pool_first, network.pre_pool_second]
    operations = numbers = 0
    for rows, mixings in ((edges, of_edges), (nodes, [cell.product.mixing for cell in steerable])):
        for mixing in mixings:
            multiplications, results = of_mixing(mixing)
            operations += 3 * 2 * rows * multiplications
            numbers += rows * results
    return operations, PASSES * BYTES * numbers


def main(arguments: list[str] | None = None) -> int:
    """Print the floor."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="The least time of SEGNN's train step.")
    parser.add_argument("--profiles", nargs="+", default=list(SEGNN_PROFILES), choices=list(SEGNN_PROFILES))
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args(arguments)
    speed, traffic = rates()
    print(f"peak of {cores()} cores: {speed / 1e9:.0f} billion operations and {traffic / 1e9:.1f} GB a second")
    for profile in options.profiles:
        packed = open_graphs("sample", cutoff_of(profile))
        sizes = batch_sizes(packed, batches_of(profile, options.batch_size, "train"))
        nodes, edges = (int(np.median(sizes[:, k])) for k in (0, 1))
        operations, moved = of_step(model_of(profile).network, nodes, edges)
        print(
            f"{profile}: batch {options.batch_size}, {nodes} nodes, {edges} edges: {operations / 1e9:.2f} billion "
            f"operations, {1e3 * operations / speed:.0f} ms; {moved / 1e9:.2f} GB, {1e3 * moved / traffic:.0f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
