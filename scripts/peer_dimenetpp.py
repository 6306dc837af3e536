"""PyTorch's DimeNet++ as a peer: time it on the shipped molecules.

Runs in an interpreter of its own (`pip install -r requirements-parity.txt`) and imports nothing of MindSpore.

    python scripts/peer_dimenetpp.py bench --kind train --ids_file ids.npz     # then `go 20` and `quit` on stdin

The model is torch_geometric.nn.models.DimeNetPlusPlus itself at its QM9 size.  Edges and triplets are found before the
clock starts: PyG would search them anew in every step.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from peer_data import PeerBatch, PeerFrames, PeerMolecules
from torch import Tensor
from torch_geometric.nn.models import dimenet

CUTOFF = 5.0  # Angstrom
SIZES = {
    "hidden_channels": 128, "out_channels": 1, "num_blocks": 4, "int_emb_size": 64, "basis_emb_size": 8,
    "out_emb_channels": 256, "num_spherical": 7, "num_radial": 6, "cutoff": CUTOFF,
    "output_initializer": "glorot_orthogonal",
}  # fmt: skip
KINDS = ("train", "infer", "forces_train", "forces_infer")


def find_triplets(edge_index: Tensor, nodes: int) -> tuple[Tensor, ...]:
    """What ``dimenet.triplets`` returns, i, j, idx_i, idx_j, idx_k, idx_kj and idx_ji, without torch_sparse."""
    source, centre = edge_index.numpy()  # j -> i
    order = np.argsort(centre, kind="stable")
    into = np.bincount(centre, minlength=nodes)
    first = np.cumsum(into) - into
    counts = into[source]
    ends = np.cumsum(counts)
    out = np.repeat(np.arange(len(source)), counts)
    arriving = order[np.arange(int(ends[-1])) + np.repeat(first[source] - (ends - counts), counts)]
    keep = source[arriving] != centre[out]
    arriving, out = arriving[keep], out[keep]
    lists = (centre, source, centre[out], source[out], source[arriving], arriving, out)
    return tuple(torch.from_numpy(values) for values in lists)


class GivenTriplets:
    """Stands for PyG's search of edges and triplets: returns those of the batch at hand."""

    def __init__(self) -> None:
        self.edge_index: Tensor = torch.zeros((2, 0), dtype=torch.int64)
        self.found: tuple[Tensor, ...] = ()
        dimenet.radius_graph = lambda *_, **__: self.edge_index
        dimenet.triplets = lambda *_, **__: self.found

    def use(self, batch: PeerBatch, found: tuple[Tensor, ...]) -> None:
        """Make a batch the one at hand."""
        self.edge_index, self.found = batch.edge_index, found


class PeerBench:
    """A prepared model and batches; one call is one timed step."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.with_forces = args.kind.startswith("forces_")
        molecules = PeerFrames(CUTOFF) if self.with_forces else PeerMolecules("gap", CUTOFF)
        with np.load(args.ids_file) as arrays:
            rows = arrays[arrays.files[0]]
        batches = [molecules.collate(row) for row in rows]
        self.batches = [(batch, find_triplets(batch.edge_index, len(batch.numbers))) for batch in batches]
        self.given = GivenTriplets()
        torch.manual_seed(0)
        self.model = dimenet.DimeNetPlusPlus(**SIZES)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.kind, self.count = args.kind, 0
        self.model.train(self.kind.endswith("train"))

    def step(self) -> float:
        """Run one step on the next batch and return its seconds."""
        batch, found = self.batches[self.count % len(self.batches)]
        self.given.use(batch, found)
        self.count += 1
        start = time.perf_counter()
        if self.kind.endswith("train"):
            self.optimizer.zero_grad()
            energies, forces = self.predict(batch, create_graph=True)
            loss = torch.nn.functional.mse_loss(energies, batch.labels)
            if forces is not None:
                loss = loss + torch.nn.functional.mse_loss(forces, batch.forces)
            loss.backward()
            self.optimizer.step()
        elif self.with_forces:
            self.predict(batch, create_graph=False)
        else:
            with torch.inference_mode():
                self.predict(batch, create_graph=False)
        return time.perf_counter() - start

    def predict(self, batch: PeerBatch, create_graph: bool) -> tuple[Tensor, Tensor | None]:
        """Energies (G,) and forces (N, 3), or None."""
        positions = batch.positions.detach().requires_grad_(self.with_forces)
        energies = self.model(batch.numbers, positions, batch.node_graph).squeeze(-1)
        if not self.with_forces:
            return energies, None
        return energies, -torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)[0]


def run_bench(args: argparse.Namespace) -> None:
    """Serve timed steps: `ready` when warm, then one JSON list of seconds for each `go K` line, until `quit`."""
    torch.set_num_threads(args.threads)
    bench = PeerBench(args)
    for _ in range(len(bench.batches)):
        bench.step()
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            return
        print(json.dumps([bench.step() for _ in range(int(words[1]))]), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="PyTorch's DimeNet++ as a peer.")
    commands = parser.add_subparsers(required=True)
    bench = commands.add_parser("bench", help="time steps on request")
    bench.add_argument("--kind", choices=KINDS, default="train")
    bench.add_argument("--threads", type=int, default=2)
    bench.add_argument("--ids_file", type=Path, required=True, help=".npz with (n_batches, batch_size) row numbers")
    bench.set_defaults(run=run_bench)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
