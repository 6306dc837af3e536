"""Three ways to feed batches of different sizes to a compiled model, measured on the same molecules in the same order.

    python scripts/benchmarks/compare_padding.py --output results/system/padding_dimenetpp.json

    none      every batch at its own shape: a compilation for each new shape
    worst     one shape that holds the largest batch of the epoch
    buckets   a few shapes, chosen so that ghosts waste least

The shapes are chosen for a whole epoch; of its batches the first few are run.  Each way runs in a process of its own,
whose largest resident memory is reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import ParameterTuple

from data_tools.dataset import open_graphs
from data_tools.graph import Budget
from data_tools.graphs.batching import GHOST_EDGES, chunks, epoch_order
from data_tools.graphs.budgets import batch_sizes, choose_budgets
from data_tools.graphs.loader import fitted_batch
from data_tools.labels.providers import StoredLabels
from models import NEEDS_TRIPLETS
from scripts.benchmarks.benchmark import DIMENETPP, model_of
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep, compile_count

WAYS = ("none", "worst", "buckets")
CUTOFF = 5.0  # Angstrom
LAW = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}


def budgets_of(way: str, sizes: np.ndarray, batch_size: int, triplets: bool) -> list[Budget]:
    """The shapes of a way for batches with these numbers of nodes, edges and triplets."""
    if way == "none":
        return [Budget(nodes + 1, edges + GHOST_EDGES, count, batch_size + 1) for nodes, edges, count in sizes.tolist()]
    return choose_budgets(sizes, batch_size, 1 if way == "worst" else 4, triplets)


def measure(way: str, options: argparse.Namespace) -> dict:
    """Steps of one way in this process."""
    set_up("GRAPH", "CPU", 0, seed=0)
    triplets = options.model in NEEDS_TRIPLETS
    packed = dataclasses.replace(open_graphs("sample", CUTOFF), triplets=triplets)
    order = epoch_order(options.molecules, 0, 0)
    batches = [rows for rows in chunks(order, options.batch_size) if len(rows) == options.batch_size]
    sizes = batch_sizes(packed, batches)
    steps = options.steps_without_padding if way == "none" else options.steps
    budgets = budgets_of(way, sizes, options.batch_size, triplets)
    provider = StoredLabels(packed, {"energy": packed.table.of_structures["gap"]})
    model = model_of(DIMENETPP if options.model == DIMENETPP else "full")
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"])
    step = TrainStep(model, optimizer, [Term("energy", error="mae")])
    times, filled, given, before = [], np.zeros(3), np.zeros(3), 0
    started = time.perf_counter()
    plain = []
    for k, rows in enumerate(batches[:steps]):
        allowed = [budgets[k]] if way == "none" else budgets
        batch = fitted_batch(packed, rows, allowed, provider(rows))
        known = {name: int(mask.sum()) for name, mask in batch.masks.items()}
        start = time.perf_counter()
        step(*step.layout.arguments(batch, known, 1.0, operator_scalars(k + 1, **LAW)))[0].asnumpy()
        times.append(time.perf_counter() - start)
        if compile_count(step) == before:
            plain.append(times[-1])
        before = compile_count(step)
        shape = (len(batch.inputs.numbers), len(batch.inputs.senders), len(batch.inputs.triplet_in))
        filled, given = filled + sizes[k], given + np.array(shape)
    waste = 100 * (1 - filled / np.maximum(given, 1))
    return {
        "way": way,
        "steps": steps,
        "compilations": compile_count(step),
        "seconds": time.perf_counter() - started,
        "median_ms_without_compilation": 1e3 * float(np.median(plain)) if plain else None,
        "waste_percent": dict(zip(("nodes", "edges", "triplets"), waste.round(1).tolist(), strict=True)),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the ways one after the other and write the table."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Ways to pad batches, measured.")
    parser.add_argument("--model", default="dimenetpp", choices=("schnet", "dimenetpp"))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--molecules", type=int, default=10000, help="of the shipped ones, in the epoch")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--steps_without_padding", type=int, default=6, help="each of them compiles")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process, as JSON on standard output")
    options = parser.parse_args(arguments)
    if options.way:
        print(json.dumps(measure(options.way, options)))
        return 0
    given = sys.argv[1:] if arguments is None else arguments
    results = []
    for way in WAYS:
        command = [sys.executable, __file__, *given, "--way", way]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(results[-1], flush=True)
    if options.output:
        about = {"versions": versions(), "cores": cores(), "model": options.model, "batch_size": options.batch_size}
        write_text(options.output, json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
