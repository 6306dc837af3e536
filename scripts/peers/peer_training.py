"""Training of a torch peer: one loop for every network, and the files of its run.

The output folder holds initial_weights.npz, final_weights.npz, metrics.csv, predictions.csv, metrics.json and, in
losses.json, the loss of every step.  Column and key names end with the unit.  `seconds` are those of the steps alone: a
batch, with all its edges and triplets, is made outside of the measured time.  Runs in the peers' interpreter
(requirements-parity.txt).
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_training.py is a part of peer_schnet.py: see python scripts/peers/peer_schnet.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import io
import json
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch_geometric
from torch import Tensor, nn
from torch.nn import functional

from data_tools.graphs.batching import chunks
from data_tools.labels.statistics import regression_metrics
from scripts.peers.peer_data import PeerBatch, epoch_order
from training.files import replacing, write_rows, write_text

LOSSES = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}


@dataclass(frozen=True)
class Problem:
    """What a network learns and how its batches are made.

    Attributes:
        split: rows of `train`, `valid` and `test`.
        labels: (M,) float64 in the unit.
        unit: of the labels.
        ids: (M,) identity of each molecule in GDB-9.
        collate: rows to a batch, whose `labels` are what the network learns.
        predict: network and batch to outputs (G,).
        in_unit: outputs (K,) of some rows (K,) to values in the unit.
        scale: of an error of the outputs, to one in the unit.
    """

    split: Mapping[str, np.ndarray]
    labels: np.ndarray
    unit: str
    ids: np.ndarray
    collate: Callable[[np.ndarray], PeerBatch]
    predict: Callable[[nn.Module, PeerBatch], Tensor]
    in_unit: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda outputs, _: outputs
    scale: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a network learns; what torch has defaults for is given by the names torch has.

    Attributes:
        epochs: passes through the training molecules.
        batch_size: of a step; the last of an epoch may be smaller.
        evaluation_size: molecules in a batch of an evaluation.
        seed: of the order of the molecules.
        loss: one of `LOSSES`, the mean over the molecules of a batch.
        lr: the constant rate, or the highest of the cycle.
        adamw: other options of the optimiser, which holds all parameters in one group.
        one_cycle: options of OneCycleLR, stepped after every batch; None for a constant rate.
        clip_norm: largest norm of the whole gradient; 0 for no clipping.
        coupled_decay: Adam, which adds the weight decay to the gradient, instead of AdamW.
        milestones: shares of the epochs, rounded down, after which the rate falls to a tenth.
        steps: ends the run, without a test, after so many; 0 for all epochs.
    """

    epochs: int
    batch_size: int
    evaluation_size: int
    seed: int
    loss: str
    lr: float
    adamw: Mapping[str, Any] = field(default_factory=dict)
    one_cycle: Mapping[str, Any] | None = None
    clip_norm: float = 0.0
    coupled_decay: bool = False
    milestones: Sequence[float] = ()
    steps: int = 0


class Epoch(NamedTuple):
    """Means over the molecules of an epoch, of the outputs, and the seconds of its steps."""

    loss: float
    mae: float
    seconds: float


class Trainer:
    """Optimiser and schedule of a recipe, and the loop over one epoch."""

    def __init__(self, problem: Problem, recipe: Recipe, model: nn.Module) -> None:
        self.problem, self.recipe, self.model = problem, recipe, model
        self.loss = LOSSES[recipe.loss]
        optimizer = torch.optim.Adam if recipe.coupled_decay else torch.optim.AdamW
        self.optimizer = optimizer(model.parameters(), lr=recipe.lr, **recipe.adamw)
        self.schedule, self.falls = None, None
        if recipe.milestones:
            epochs = [int(share * recipe.epochs) for share in recipe.milestones]
            self.falls = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, epochs)
        if recipe.one_cycle is not None:
            total = recipe.epochs * -(-len(problem.split["train"]) // recipe.batch_size)
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, max_lr=recipe.lr, total_steps=total, **recipe.one_cycle
            )
        self.losses: list[float] = []
        self.learning_rate = 0.0

    @property
    def ended(self) -> bool:
        """Whether the last step of the recipe has been made, where it names one."""
        return 0 < self.recipe.steps <= len(self.losses)

    def train_epoch(self, epoch: int) -> Epoch:
        """Train one 0-based epoch, or what of it the recipe's number of steps leaves."""
        rows = self.problem.split["train"]
        order = rows[epoch_order(self.recipe.seed, epoch, len(rows))]
        if self.recipe.steps:
            order = order[: (self.recipe.steps - len(self.losses)) * self.recipe.batch_size]
        loss, error, seconds = 0.0, 0.0, 0.0
        for part in chunks(order, self.recipe.batch_size):
            batch = self.problem.collate(part)
            started = time.perf_counter()
            value, outputs = self.step(batch)
            seconds += time.perf_counter() - started
            loss += value * len(part)
            error += float((outputs.detach() - batch.labels).abs().sum())
        if self.falls is not None:
            self.falls.step()
        return Epoch(loss / len(order), error / len(order), seconds)

    def step(self, batch: PeerBatch) -> tuple[float, Tensor]:
        """One update; returns the loss and the outputs (G,)."""
        self.optimizer.zero_grad()
        outputs = self.problem.predict(self.model, batch)
        loss = self.loss(outputs, batch.labels)
        loss.backward()
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.losses.append(loss.item())
        return self.losses[-1], outputs


def train(problem: Problem, recipe: Recipe, model: nn.Module, args: Namespace, about: dict[str, Any]) -> None:
    """Train, and leave the files of the run in the folder `args.output`; `about` goes into metrics.json."""
    args.output.mkdir(parents=True, exist_ok=True)
    write_weights(args.output / "initial_weights.npz", model)
    trainer, unit, valid = Trainer(problem, recipe, model), problem.unit, problem.split["valid"]
    table: list[dict[str, Any]] = []
    best: dict[str, Any] = {f"valid_mae_{unit}": float("inf")}
    for epoch in range(recipe.epochs):
        trained = trainer.train_epoch(epoch)
        found = evaluate(problem, model, valid, recipe.evaluation_size)
        error = regression_metrics(found, problem.labels[valid])["mae"]
        if error < best[f"valid_mae_{unit}"]:
            weights = {key: value.clone() for key, value in model.state_dict().items()}
            best = {"epoch": epoch + 1, f"valid_mae_{unit}": error, "weights": weights}
        row: dict[str, Any] = {"epoch": epoch + 1, "step": len(trainer.losses), "train_loss": f"{trained.loss:.9g}"}
        row |= {f"train_mae_{unit}": f"{trained.mae * problem.scale:.9g}", f"valid_mae_{unit}": f"{error:.9g}"}
        row |= {"lr": f"{trainer.learning_rate:.4e}", "seconds": f"{trained.seconds:.2f}"}
        table.append(row)
        write_rows(args.output / "metrics.csv", table)
        write_text(args.output / "losses.json", json.dumps(trainer.losses) + "\n")
        print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if trainer.ended:
            return
    write_results(problem, recipe, model, best, args, about)


def evaluate(problem: Problem, model: nn.Module, rows: np.ndarray, size: int) -> np.ndarray:
    """Predictions for some rows in the unit of the labels, float64, in their order."""
    model.eval()
    with torch.inference_mode():
        outputs = [problem.predict(model, problem.collate(part)) for part in chunks(rows, size)]
    model.train()
    return problem.in_unit(torch.cat(outputs).numpy().astype(np.float64), rows)


def write_results(
    problem: Problem,
    recipe: Recipe,
    model: nn.Module,
    best: dict[str, Any],
    args: Namespace,
    about: dict[str, Any],
) -> None:
    """Test the last and the best-validation weights, and write final weights, predictions and metrics.json."""
    rows = problem.split["test"]
    labels = problem.labels[rows]

    def test() -> tuple[np.ndarray, dict[str, float]]:
        found = evaluate(problem, model, rows, recipe.evaluation_size)
        metrics = regression_metrics(found, labels)
        return found, {f"{key}_{problem.unit}": metrics[key] for key in ("mae", "rmse")} | {"r2": metrics["r2"]}

    write_weights(args.output / "final_weights.npz", model)
    predictions, last = test()
    columns = zip(problem.ids[rows].tolist(), labels.tolist(), predictions.tolist(), strict=True)
    table = [{"gdb_index": name, "label": label, "prediction": value} for name, label, value in columns]
    write_rows(args.output / "predictions.csv", table)
    model.load_state_dict(best.pop("weights"))
    tests = {"test_last_epoch": {"epoch": recipe.epochs} | last, "test_best_validation": best | test()[1]}
    settings = {key: shown(value) for key, value in vars(args).items() if key not in ("output", "run")}
    counts = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    report = tests | {"command": shown_command(args.output), "settings": settings} | counts | about
    write_text(args.output / "metrics.json", json.dumps(report | {"versions": versions()}, indent=2) + "\n")
    print(json.dumps(tests), flush=True)


def write_weights(path: Path, model: nn.Module) -> None:
    """Store a state dict as an .npz of `sd/<key>` arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"sd/{key}": value.numpy() for key, value in model.state_dict().items()})
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_weights(path: Path, model: nn.Module) -> None:
    """Load an .npz of `sd/<key>` arrays; every key of the model must be there."""
    with np.load(path) as arrays:
        state = {key.removeprefix("sd/"): torch.from_numpy(arrays[key]) for key in arrays.files if key[:3] == "sd/"}
    model.load_state_dict(state)


def shown(value: Any) -> str:
    """A setting without local folders, for which a report has no use."""
    return value.name if isinstance(value, Path) and value.is_absolute() else str(value)


def shown_command(output: Path) -> str:
    """The command line, with the output folder and absolute paths cut to their names."""
    words = [Path(word).name if Path(word) == output else shown(Path(word)) for word in sys.argv[1:]]
    return " ".join([f"python scripts/peers/{Path(sys.argv[0]).name}", *words])


def versions() -> dict[str, str]:
    """The versions that the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "numpy": np.__version__,
    }
