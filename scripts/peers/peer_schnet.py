"""PyTorch's SchNet as a peer: train it on the shipped molecules, time it, or write parity files from it.

Runs in an interpreter of its own (`pip install -r requirements-parity.txt`) and imports nothing of MindSpore.

    python scripts/peers/peer_schnet.py train --target gap --recipe demo --output runs/peer_gap_demo
    python scripts/peers/peer_schnet.py bench --kind train --ids_file ids.npz     # then `go 20` and `quit` on stdin
    python scripts/peers/peer_schnet.py golden --config unseen.json --output unseen.npz

The model is torch_geometric.nn.models.SchNet itself.  Two training recipes:

| recipe | loss        | output                                                            | learning rate             |
|--------|-------------|-------------------------------------------------------------------|---------------------------|
| demo   | MSE, raw eV | sum over atoms, no standardisation                                | AdamW 1e-4, constant      |
| tuned  | L1, eV      | gap: mean over atoms of std x + mean, of the training labels;     | AdamW, OneCycleLR to 1e-3 |
|        |             | U0: sum over atoms of std x + mean, of the training labels / atom | per step; norm clip 10    |

Everything else is torch's default: AdamW betas (0.9, 0.999), eps 1e-8, weight decay 0.01; OneCycleLR starts at
max/25, rises for 30 % of the steps, falls by a cosine to max/250,000 and cycles beta1 between 0.95 and 0.85.
U0 is the atomisation energy in eV.  The molecule order of a 0-based epoch is default_rng([seed, epoch]).permutation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import TORCH, begin

if __name__ == "__main__":
    begin(TORCH, "requirements-parity.txt")

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn.models import SchNet

from scripts.help_defaults import Defaults
from scripts.peers.peer_bench import KINDS, PeerBench, read_rows, serve
from scripts.peers.peer_data import GivenEdges, PeerBatch, PeerFrames, PeerMolecules, sample_split
from scripts.peers.peer_golden import add_golden_arguments, run_golden
from scripts.peers.peer_training import LOSSES, Problem, Recipe, read_weights, train

CUTOFF = 5.0  # Angstrom
EVALUATION_BATCH = 250
RECIPES: dict[str, dict[str, Any]] = {
    "demo": {"loss": "mse", "lr": 1e-4},
    "tuned": {"loss": "mae", "lr": 1e-3, "one_cycle": {}, "clip_norm": 10.0},
}


def predict(model: SchNet, batch: PeerBatch) -> Tensor:
    """Return the predictions (G,) for a collated batch."""
    model.interaction_graph.edge_index = batch.edge_index
    return model(batch.numbers, batch.positions, batch.node_graph).view(-1)


def build_trained_model(args: argparse.Namespace, molecules: PeerMolecules, rows: np.ndarray) -> SchNet:
    """Build the lite SchNet with the readout and scaling of the recipe; `rows` are the training molecules."""
    readout, mean, std = "add", None, None
    if args.recipe == "tuned":
        readout = "mean" if args.target == "gap" else "add"
        # PyG scales each atom's output before the readout: under a sum the statistics must be those per atom.
        labels = molecules.labels[rows] / (1 if readout == "mean" else molecules.n_atoms[rows])
        mean, std = float(labels.mean()), float(labels.std())
    torch.manual_seed(args.seed)
    model = SchNet(64, 64, 2, 25, CUTOFF, interaction_graph=GivenEdges(), readout=readout, mean=mean, std=std)
    if args.initial_weights:
        read_weights(args.initial_weights, model)
    return model


def run_train(args: argparse.Namespace) -> None:
    """Train the peer by one recipe and leave curves, metrics, weights and predictions in the output folder."""
    torch.set_num_threads(args.threads)
    molecules, split = PeerMolecules(args.target, CUTOFF), sample_split()
    split["train"] = split["train"][: args.train_size]
    model = build_trained_model(args, molecules, split["train"])
    print(f"{args.target} {args.recipe}: mean {model.mean}, std {model.std}", flush=True)
    problem = Problem(split, molecules.labels, "eV", molecules.gdb_index, molecules.collate, predict)
    recipe = Recipe(args.epochs, args.batch_size, EVALUATION_BATCH, args.seed, **RECIPES[args.recipe])
    scaling = {"readout": str(model.readout), "mean": model.mean, "std": model.std}
    train(problem, recipe, model, args, {"model": scaling})


def run_bench(args: argparse.Namespace) -> None:
    """Serve timed steps."""
    torch.set_num_threads(args.threads)
    molecules = PeerFrames(args.cutoff) if args.kind.startswith("forces_") else PeerMolecules("gap", args.cutoff)
    rows = read_rows(args.ids_file, args.ids_key)
    if rows.shape[1] != args.batch_size:
        raise SystemExit(f"{args.ids_file}: expected batches of {args.batch_size}, got {rows.shape[1]}")
    torch.manual_seed(0)
    model = SchNet(
        args.features, args.features, args.blocks, args.gaussians, args.cutoff, interaction_graph=GivenEdges()
    )
    serve(PeerBench(model, predict, [molecules.collate(row) for row in rows], args.kind, args.loss))


def parse_arguments() -> argparse.Namespace:
    """Read the command line; `run` of the result is the function to call."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="PyTorch's SchNet as a peer.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", formatter_class=Defaults, help="train the lite SchNet of torch_geometric")
    train.add_argument("--target", choices=["gap", "U0"], required=True)
    train.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    for name, default in {"epochs": 20, "batch_size": 16, "train_size": 10000, "seed": 0, "threads": 1}.items():
        train.add_argument(f"--{name}", type=int, default=default)
    train.add_argument("--initial_weights", type=Path, help=".npz of sd/<key> arrays; else torch's own by the seed")
    train.add_argument("--output", type=Path, required=True, help="folder for the results")
    train.set_defaults(run=run_train)
    bench = commands.add_parser("bench", formatter_class=Defaults, help="time steps on request")
    for name, default in {"features": 64, "blocks": 2, "gaussians": 25, "batch_size": 32, "threads": 2}.items():
        bench.add_argument(f"--{name}", type=int, default=default)
    bench.add_argument("--cutoff", type=float, default=CUTOFF)
    bench.add_argument("--kind", choices=KINDS, default="train")
    bench.add_argument("--loss", choices=sorted(LOSSES), default="mse")
    bench.add_argument("--ids_file", type=Path, required=True, help=".npz with (n_batches, batch_size) row numbers")
    bench.add_argument("--ids_key", help="name of the array in ids_file; default: the first")
    bench.set_defaults(run=run_bench)
    golden = commands.add_parser("golden", formatter_class=Defaults, help="write a parity file for weights of any size")
    add_golden_arguments(golden)
    golden.set_defaults(run=run_golden)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    arguments.run(arguments)
