"""PyTorch's SchNet as a peer: train it on the shipped molecules, time it, or write parity files from it.

Runs in an interpreter of its own (`pip install -r requirements-parity.txt`) and imports nothing of MindSpore.

    python scripts/peer_schnet.py train --target gap --recipe demo --output runs/peer_gap_demo
    python scripts/peer_schnet.py bench --kind train --ids_file ids.npz     # then `go 20` and `quit` on stdin
    python scripts/peer_schnet.py golden --config unseen.json --output unseen.npz

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
import csv
import io
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
from peer_data import GivenEdges, PeerBatch, PeerFrames, PeerMolecules, epoch_order, sample_split
from peer_golden import add_golden_arguments, run_golden
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn.models import SchNet

CUTOFF = 5.0  # Angstrom
EVALUATION_BATCH = 250
LOSSES = {"mse": functional.mse_loss, "l1": functional.l1_loss}


def replace_file(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that a reader never sees half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_weights(path: Path, model: nn.Module) -> None:
    """Store a state dict as an .npz of `sd/<key>` arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"sd/{key}": value.numpy() for key, value in model.state_dict().items()})
    replace_file(path, buffer.getvalue())


def read_weights(path: Path, model: nn.Module) -> None:
    """Load an .npz of `sd/<key>` arrays; every key of the model must be there."""
    with np.load(path) as arrays:
        state = {key.removeprefix("sd/"): torch.from_numpy(arrays[key]) for key in arrays.files if key[:3] == "sd/"}
    model.load_state_dict(state)


def write_rows(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    replace_file(path, text.getvalue().encode())


def predict(model: SchNet, batch: PeerBatch) -> Tensor:
    """Return the predictions (G,) for a collated batch."""
    model.interaction_graph.edge_index = batch.edge_index
    return model(batch.numbers, batch.positions, batch.node_graph).view(-1)


def evaluate(model: SchNet, molecules: PeerMolecules, rows: np.ndarray) -> np.ndarray:
    """Return the predictions for the molecules of `rows` as float64, in their order."""
    model.eval()
    with torch.inference_mode():
        chunks = [
            predict(model, molecules.collate(rows[start : start + EVALUATION_BATCH]))
            for start in range(0, len(rows), EVALUATION_BATCH)
        ]
    model.train()
    return torch.cat(chunks).numpy().astype(np.float64)


def regression_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Return MAE and RMSE in eV, and R2 against the mean of these labels."""
    error = predictions - labels
    return {
        "mae_eV": float(np.abs(error).mean()),
        "rmse_eV": float(np.sqrt((error**2).mean())),
        "r2": float(1.0 - (error**2).sum() / ((labels - labels.mean()) ** 2).sum()),
    }


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


class PeerTrainer:
    """The optimiser and schedule of one recipe, and the loop over one epoch."""

    def __init__(self, args: argparse.Namespace, model: SchNet, molecules: PeerMolecules, rows: np.ndarray) -> None:
        self.args, self.model, self.molecules, self.rows = args, model, molecules, rows
        tuned = args.recipe == "tuned"
        self.loss = LOSSES["l1" if tuned else "mse"]
        self.clip = 10.0 if tuned else None
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 if tuned else 1e-4)
        self.schedule = None
        if tuned:
            total = args.epochs * -(-len(rows) // args.batch_size)
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=1e-3, total_steps=total)
        self.step, self.learning_rate = 0, 0.0

    def train_epoch(self, epoch: int) -> float:
        """Train one 0-based epoch; return the mean loss per molecule, in eV (L1) or eV^2 (MSE)."""
        order = self.rows[epoch_order(self.args.seed, epoch, len(self.rows))]
        total = 0.0
        for start in range(0, len(order), self.args.batch_size):
            batch = self.molecules.collate(order[start : start + self.args.batch_size])
            self.optimizer.zero_grad()
            loss = self.loss(predict(self.model, batch), batch.labels)
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.learning_rate = self.optimizer.param_groups[0]["lr"]
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            total += loss.item() * len(batch.labels)
            self.step += 1
        return total / len(order)


def run_train(args: argparse.Namespace) -> None:
    """Train the peer by one recipe and leave curves, metrics, weights and predictions in the output folder."""
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    molecules, split = PeerMolecules(args.target, CUTOFF), sample_split()
    rows = split["train"][: args.train_size]
    model = build_trained_model(args, molecules, rows)
    write_weights(args.output / "initial_weights.npz", model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.target} {args.recipe}: {parameters} parameters, mean {model.mean}, std {model.std}", flush=True)
    trainer = PeerTrainer(args, model, molecules, rows)
    table: list[list[Any]] = []
    best: dict[str, Any] = {"valid_mae_eV": float("inf")}
    for epoch in range(args.epochs):
        start = time.perf_counter()
        loss = trainer.train_epoch(epoch)
        seconds = time.perf_counter() - start
        error = np.abs(evaluate(model, molecules, split["valid"]) - molecules.labels[split["valid"]]).mean()
        if error < best["valid_mae_eV"]:
            weights = {key: value.clone() for key, value in model.state_dict().items()}
            best = {"epoch": epoch + 1, "valid_mae_eV": float(error), "weights": weights}
        table.append([epoch + 1, trainer.step, f"{loss:.6f}", f"{error:.6f}", f"{trainer.learning_rate:.4e}"])
        table[-1].append(f"{seconds:.2f}")
        header = ["epoch", "step", "train_loss", "valid_mae_eV", "lr", "seconds"]
        write_rows(args.output / "metrics.csv", header, table)
        print(" ".join(f"{name} {value}" for name, value in zip(header, table[-1], strict=True)), flush=True)
    write_results(args, model, molecules, split["test"], best, parameters)


def write_results(
    args: argparse.Namespace,
    model: SchNet,
    molecules: PeerMolecules,
    rows: np.ndarray,
    best: dict[str, Any],
    parameters: int,
) -> None:
    """Test the last and the best-validation weights, and write final weights, predictions and metrics.json."""
    labels = molecules.labels[rows]
    write_weights(args.output / "final_weights.npz", model)
    predictions = evaluate(model, molecules, rows)
    table = list(zip(molecules.gdb_index[rows].tolist(), labels.tolist(), predictions.tolist(), strict=True))
    write_rows(args.output / "predictions.csv", ["gdb_index", "label", "prediction"], [list(row) for row in table])
    report = {
        "test_last_epoch": {"epoch": args.epochs} | regression_metrics(labels, predictions),
        "command": shown_command(args),
        "settings": {key: str(value) for key, value in vars(args).items() if key not in ("output", "run")},
        "model": {"parameters": parameters, "readout": str(model.readout), "mean": model.mean, "std": model.std},
        "versions": versions(),
    }
    model.load_state_dict(best.pop("weights"))
    report["test_best_validation"] = best | regression_metrics(labels, evaluate(model, molecules, rows))
    replace_file(args.output / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
    print(json.dumps({key: report[key] for key in ("test_last_epoch", "test_best_validation")}), flush=True)


def shown_command(args: argparse.Namespace) -> str:
    """Return the command line with the output folder cut to its name: a report has no use for local paths."""
    words = [Path(word).name if Path(word) == args.output else word for word in sys.argv[1:]]
    return " ".join(["python scripts/peer_schnet.py", *words])


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "numpy": np.__version__,
    }


def predict_with_forces(model: SchNet, batch: PeerBatch, create_graph: bool) -> tuple[Tensor, Tensor]:
    """Return energies (G,) and forces (N, 3); with ``create_graph`` the forces can be differentiated again."""
    model.interaction_graph.edge_index = batch.edge_index
    positions = batch.positions.detach().requires_grad_()
    energies = model(batch.numbers, positions, batch.node_graph).squeeze(-1)
    return energies, -torch.autograd.grad(energies.sum(), positions, create_graph=create_graph)[0]


class PeerBench:
    """A prepared model and batches; one call is one timed step."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.with_forces = args.kind.startswith("forces_")
        molecules = PeerFrames(args.cutoff) if self.with_forces else PeerMolecules("gap", args.cutoff)
        with np.load(args.ids_file) as arrays:
            rows = arrays[args.ids_key or arrays.files[0]]
        if rows.ndim != 2 or rows.shape[1] != args.batch_size:
            raise SystemExit(f"{args.ids_file}: expected shape (n_batches, {args.batch_size}), got {rows.shape}")
        self.batches = [molecules.collate(row) for row in rows]
        torch.manual_seed(0)
        self.model = SchNet(
            args.features, args.features, args.blocks, args.gaussians, args.cutoff, interaction_graph=GivenEdges()
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.loss, self.kind, self.count = LOSSES[args.loss], args.kind, 0
        self.model.train(self.kind.endswith("train"))

    def step(self) -> float:
        """Run one step on the next batch and return its seconds."""
        batch = self.batches[self.count % len(self.batches)]
        self.count += 1
        start = time.perf_counter()
        if self.kind.endswith("train"):
            self.optimizer.zero_grad()
            if self.with_forces:
                energies, forces = predict_with_forces(self.model, batch, create_graph=True)
                loss = self.loss(energies, batch.labels) + self.loss(forces, batch.forces)
            else:
                loss = self.loss(predict(self.model, batch), batch.labels)
            loss.backward()
            self.optimizer.step()
        elif self.with_forces:
            predict_with_forces(self.model, batch, create_graph=False)
        else:
            with torch.inference_mode():
                predict(self.model, batch)
        return time.perf_counter() - start


def run_bench(args: argparse.Namespace) -> None:
    """Serve timed steps: `ready` when warm, then one JSON list of seconds for each `go K` line, until `quit`."""
    torch.set_num_threads(args.threads)
    bench = PeerBench(args)
    for _ in range(len(bench.batches)):  # every batch once: allocator and kernels meet each shape before the clock does
        bench.step()
    print(json.dumps(versions() | {"threads": torch.get_num_threads()}), file=sys.stderr, flush=True)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            return
        if len(words) == 2 and words[0] == "go" and words[1].isdigit():
            print(json.dumps([bench.step() for _ in range(int(words[1]))]), flush=True)
        elif words:
            raise SystemExit(f"expected `go K` or `quit`, got {line.strip()!r}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; `run` of the result is the function to call."""
    parser = argparse.ArgumentParser(description="PyTorch's SchNet as a peer.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train the lite SchNet of torch_geometric")
    train.add_argument("--target", choices=["gap", "U0"], required=True)
    train.add_argument("--recipe", choices=["demo", "tuned"], required=True)
    for name, default in {"epochs": 20, "batch_size": 16, "train_size": 10000, "seed": 0, "threads": 1}.items():
        train.add_argument(f"--{name}", type=int, default=default)
    train.add_argument("--initial_weights", type=Path, help=".npz of sd/<key> arrays; else torch's own by the seed")
    train.add_argument("--output", type=Path, required=True, help="folder for the results")
    train.set_defaults(run=run_train)
    bench = commands.add_parser("bench", help="time steps on request")
    for name, default in {"features": 64, "blocks": 2, "gaussians": 25, "batch_size": 32, "threads": 2}.items():
        bench.add_argument(f"--{name}", type=int, default=default)
    bench.add_argument("--cutoff", type=float, default=CUTOFF)
    bench.add_argument("--kind", choices=["train", "infer", "forces_train", "forces_infer"], default="train")
    bench.add_argument("--loss", choices=sorted(LOSSES), default="mse")
    bench.add_argument("--ids_file", type=Path, required=True, help=".npz with (n_batches, batch_size) row numbers")
    bench.add_argument("--ids_key", help="name of the array in ids_file; default: the first")
    bench.set_defaults(run=run_bench)
    golden = commands.add_parser("golden", help="write a parity file for weights of any size")
    add_golden_arguments(golden)
    golden.set_defaults(run=run_golden)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    arguments.run(arguments)
