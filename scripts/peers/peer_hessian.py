"""Time gradients and Hessians of PyG's SchNet by torch.func, on request.

The other side of ``benchmark_hessian.py``; needs requirements-parity.txt.  Each line ``gradient K`` or ``hessian K`` on
standard input is answered by one JSON list of K seconds.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import TORCH, begin

if __name__ == "__main__":
    begin(TORCH, "requirements-parity.txt")

import numpy as np
import torch
from torch_geometric.nn import SchNet

from scripts.benchmarks.timed_steps import answer_by_name, timed
from scripts.help_defaults import Defaults
from scripts.peers.peer_data import GivenEdges


def main() -> None:
    """Serve timed calls until standard input ends."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Gradients and Hessians of PyG's SchNet.")
    parser.add_argument("--structure", type=Path, required=True, help=".npz with numbers, positions, edge_index")
    for name, default in {"features": 64, "blocks": 2, "gaussians": 25, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    with np.load(options.structure) as arrays:
        numbers = torch.from_numpy(arrays["numbers"]).long()
        positions = torch.from_numpy(arrays["positions"]).to(dtype)
        edges = torch.from_numpy(arrays["edge_index"]).long()
    torch.manual_seed(0)
    sizes = options.features, options.features, options.blocks, options.gaussians, options.cutoff
    model = SchNet(*sizes, interaction_graph=GivenEdges()).to(dtype).eval()
    model.interaction_graph.edge_index = edges
    graph = torch.zeros_like(numbers)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return model(numbers, x, graph).sum()

    calls = {"gradient": torch.func.grad(energy), "hessian": torch.func.hessian(energy)}
    for call in calls.values():
        call(positions)
    answer_by_name({name: partial(timed, partial(call, positions)) for name, call in calls.items()})


if __name__ == "__main__":
    main()
