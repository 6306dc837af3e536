"""What a whole Hessian costs, as a multiple of one gradient, beside PyG's SchNet with torch.func.hessian.

    python scripts/benchmarks/benchmark_hessian.py --peer_python PYTHON --output results/system/benchmark_hessian.json

Three molecules: ethanol (9 atoms), one of the shipped QM9 with 21 atoms, and C60.  Both sides are timed in one run,
in turns, with the same number of weights; the weights themselves do not matter.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import ase.build
import numpy as np

from data_tools.dataset import open_graphs
from data_tools.graph import AtomGraph, Budget, Structure
from data_tools.graphs.batching import build_graph, join, pad
from data_tools.tables import structure_of_row
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import exact_rows
from scripts.benchmarks.benchmark import CUTOFF, PROFILES, model_of
from scripts.benchmarks.timed_steps import Side, timed
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text
from training.step import to_tensors

PEERS = Path(__file__).parents[1] / "peers"
SIZES = (9, 21, 60)


def structure_of(atoms: int) -> Structure:
    """The molecule of the benchmark with so many atoms."""
    if atoms == 21:
        table = open_graphs("sample", CUTOFF).table
        return structure_of_row(table, int(np.flatnonzero(table.n_atoms == atoms)[0]))
    molecule = ase.build.molecule({9: "CH3CH2OH", 60: "C60"}[atoms])
    return Structure(molecule.numbers.astype(np.int32), molecule.positions)


def our_calls(graph: AtomGraph, profile: str, dtype: str) -> dict[str, Callable[[], object]]:
    """One gradient, and one Hessian, as functions of nothing."""
    model = model_of(profile, dtype)
    derive, product, kind = EnergyAndForces(model), HessianProduct(model), np.dtype(dtype).type
    budget = Budget(len(graph.numbers) + 1, len(graph.senders) + 4, 0, 2)
    tensors = to_tensors(pad(join([graph]), budget, CUTOFF, kind).inputs)

    def gradient() -> np.ndarray:
        return derive(*tensors)[1].asnumpy()

    def whole_hessian() -> np.ndarray:
        return exact_rows(product, [graph], CUTOFF, kind).arrays()[0]

    calls: dict[str, Callable[[], object]] = {"gradient": gradient, "hessian": whole_hessian}
    for call in calls.values():
        call()
    return calls


def compare(atoms: int, profile: str, options: argparse.Namespace, folder: Path) -> dict:
    """Medians of gradients and Hessians of both sides for one molecule."""
    graph = build_graph(structure_of(atoms), CUTOFF)
    file = folder / f"{atoms}.npz"
    edges = np.stack((graph.senders, graph.receivers))
    np.savez(file, numbers=graph.numbers, positions=graph.positions, edge_index=edges)
    ours = our_calls(graph, profile, options.dtype)
    sizes = {key: PROFILES[profile][key] for key in ("features", "blocks", "gaussians")}
    words = [word for key, size in sizes.items() for word in (f"--{key}", str(size))]
    command = [options.peer_python, str(PEERS / "peer_hessian.py"), "--structure", str(file), *words,
               "--dtype", options.dtype, "--threads", str(options.threads)]  # fmt: skip
    peer = Side(command)
    seconds: dict[str, list[float]] = {f"{side} {name}": [] for name in ours for side in ("ours", "peer")}
    for _ in range(options.rounds):
        for name, count in (("gradient", 20), ("hessian", 3)):
            time.sleep(0.3)  # let the other side's threads go to sleep
            seconds[f"ours {name}"] += timed(ours[name], count)[1:]
            time.sleep(0.3)
            seconds[f"peer {name}"] += peer.run(count, name)[1:]
    peer.close()
    row: dict = {"atoms": atoms, "profile": profile, "edges": len(graph.senders)}
    row |= {f"{name} ms": 1e3 * float(np.median(values)) for name, values in seconds.items()}
    row |= {f"{side} multiple": row[f"{side} hessian ms"] / row[f"{side} gradient ms"] for side in ("ours", "peer")}
    row["ratio"] = row["peer hessian ms"] / row["ours hessian ms"]
    print(
        f"{profile:5} {atoms:3} atoms {row['edges']:5} edges  gradient {row['ours gradient ms']:.2f} ms (PyG "
        f"{row['peer gradient ms']:.2f})  Hessian {row['ours hessian ms']:.1f} ms = {row['ours multiple']:.1f} "
        f"gradients (PyG {row['peer hessian ms']:.1f} ms = {row['peer multiple']:.1f})  ratio {row['ratio']:.2f}",
        flush=True,
    )
    return row


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Gradients and Hessians of SchNet beside torch.func.hessian."
    )
    parser.add_argument("--peer_python", required=True, help="interpreter with torch and torch_geometric")
    parser.add_argument("--profiles", nargs="+", default=["lite", "full"], choices=list(PROFILES))
    parser.add_argument("--atoms", nargs="+", type=int, default=list(SIZES), choices=SIZES)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of the peer")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    set_up("GRAPH", "CPU", 0, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            compare(atoms, profile, options, Path(folder)) for profile in options.profiles for atoms in options.atoms
        ]
    if options.output:
        about = {"versions": versions(), "cores": cores(), "machine": platform.machine(), "dtype": options.dtype}
        write_text(options.output, json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
