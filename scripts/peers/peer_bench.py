"""Timed steps of a torch peer, on request (`timed_steps.py`).

Runs in the peers' interpreter (requirements-parity.txt); scripts/benchmarks/benchmark.py is the other side.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_bench.py is a part of peer_schnet.py: see python scripts/peers/peer_schnet.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from scripts.benchmarks.timed_steps import answer
from scripts.peers.peer_data import PeerBatch
from scripts.peers.peer_training import LOSSES, versions

KINDS = ("train", "infer", "forces_train", "forces_infer")
Predict = Callable[[nn.Module, PeerBatch], Tensor]


def read_rows(path: Path, key: str | None = None) -> np.ndarray:
    """Row numbers (n_batches, batch_size) from an .npz: those under `key`, or its first array."""
    with np.load(path) as arrays:
        rows = arrays[key or arrays.files[0]]
    if rows.ndim != 2:
        raise SystemExit(f"{path}: expected shape (n_batches, batch_size), got {rows.shape}")
    return rows


def predict_with_forces(
    predict: Predict, model: nn.Module, batch: PeerBatch, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Energies (G,) and forces (N, 3); with ``create_graph`` the forces can be differentiated again."""
    positions = batch.positions.detach().requires_grad_()
    energies = predict(model, batch._replace(positions=positions))
    return energies, -torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)[0]


class Steps(Protocol):
    """Something that is timed step by step, after the first `warm_up` ones."""

    warm_up: int

    def step(self) -> float:
        """Run one step and return its seconds."""


class PeerBench:
    """A network and prepared batches; one call is one timed step.

    Args:
        model: the network.
        predict: network and batch to outputs (G,).
        batches: made beforehand.
        kind: one of `KINDS`.
        loss: one of `LOSSES`.
    """

    def __init__(
        self, model: nn.Module, predict: Predict, batches: list[PeerBatch], kind: str, loss: str = "mse"
    ) -> None:
        self.model, self.predict, self.batches = model, predict, batches
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.loss, self.count = LOSSES[loss], 0
        self.warm_up = len(batches)  # every batch once: allocator and kernels are warm for each shape
        self.trains, self.with_forces = kind.endswith("train"), kind.startswith("forces_")
        model.train(self.trains)

    def step(self) -> float:
        """Run one step on the next batch and return its seconds."""
        batch = self.batches[self.count % len(self.batches)]
        self.count += 1
        start = time.perf_counter()
        if self.trains:
            self.optimizer.zero_grad()
            if self.with_forces:
                energies, forces = predict_with_forces(self.predict, self.model, batch, create_graph=True)
                loss = self.loss(energies, batch.labels) + self.loss(forces, batch.forces)
            else:
                loss = self.loss(self.predict(self.model, batch), batch.labels)
            loss.backward()
            self.optimizer.step()
        elif self.with_forces:
            predict_with_forces(self.predict, self.model, batch, create_graph=False)
        else:
            with torch.inference_mode():
                self.predict(self.model, batch)
        return time.perf_counter() - start


def serve(bench: Steps, steps: int = 0) -> None:
    """Answer requests for timed steps until `quit`; or time `steps` of them and print their median."""
    for _ in range(bench.warm_up):
        bench.step()
    print(json.dumps(versions() | {"threads": torch.get_num_threads()}), file=sys.stderr, flush=True)
    if steps:
        seconds = sorted(bench.step() for _ in range(steps))
        print(json.dumps({"median_seconds": statistics.median(seconds), "seconds": seconds}), flush=True)
    else:
        answer(lambda count: [bench.step() for _ in range(count)])
