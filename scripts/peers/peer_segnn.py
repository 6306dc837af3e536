"""The original SEGNN as a peer: train it on the shipped molecules, time it, or write parity files from it.

Runs in an interpreter of its own (`pip install -r requirements-parity.txt`) and imports nothing of MindSpore.  ORIGINAL
is a checkout of https://github.com/RobDHess/Steerable-E3-GNN, which is read where it lies.

    python scripts/peers/peer_segnn.py train --original ORIGINAL --target alpha --output peer/segnn_alpha
    python scripts/peers/peer_segnn.py bench --original ORIGINAL --kind train --ids_file ids.npz  # then `go 20`, `quit`
    python scripts/peers/peer_segnn.py bench --original ORIGINAL --kind infer --batch_size 128 --steps 20
    python scripts/peers/peer_segnn.py golden --original ORIGINAL --config unseen.json --output unseen.npz
    python scripts/peers/peer_segnn.py bench-products --product fully --edges 4000 --weights edge --steps 20

`train` follows the recipe of the original: Adam 5e-4 with weight decay 1e-8 added to the gradient, a tenth of the rate
after 80 and after 90 % of the epochs, the mean of |output - (y - mean) / MAD| over batches of 128, mean and MAD those
of the training labels.  Energies are total ones in eV.  Three things are ours: the molecules, which are those of the
`sample` split; their order, which in a 0-based epoch is default_rng([seed, epoch]).permutation; and attributes with a
row for every atom, where the original has none for isolated atoms.  As in the original they are computed with the data,
outside of the measured time; with forces they are part of the step.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import BAD_INPUT, TORCH, begin

if __name__ == "__main__":
    begin((*TORCH, "e3nn"), "requirements-parity.txt")

import numpy as np
import torch
from torch import Tensor, nn

from scripts.help_defaults import Defaults
from scripts.peers.peer_bench import KINDS, PeerBench, read_rows, serve
from scripts.peers.peer_data import HARTREE, SAMPLES, PeerBatch, PeerFrames, PeerStructures, sample_split
from scripts.peers.peer_products import add_products_arguments
from scripts.peers.peer_segnn_golden import add_golden_arguments, run_golden
from scripts.peers.peer_segnn_model import (
    CHOICES,
    PeerError,
    Size,
    build_original,
    load_original,
    read_state,
    run_network,
    with_attributes,
)
from scripts.peers.peer_training import Problem, Recipe, train

MOLECULES = SAMPLES / "qm9_22807.npz"
UNITS = {"mu": "D", "alpha": "a0^3", "r2": "a0^2", "Cv": "cal/mol/K"}
ENERGIES = ("homo", "lumo", "gap", "zpve", "U0", "U", "H", "G")  # Hartree in the file, eV here
BENCH_BATCHES = 6
MILESTONES = (0.8, 0.9)


class PeerSegnn:
    """Batches with attributes, and the network's outputs for them.

    Args:
        structures: the molecules.
        size: of the network.
    """

    def __init__(self, structures: PeerStructures, size: Size) -> None:
        self.structures, self.size = structures, size

    def collate(self, rows: np.ndarray) -> PeerBatch:
        """The structures of `rows` in one batch."""
        return with_attributes(self.structures.collate(rows), self.size)

    def predict(self, model: nn.Module, batch: PeerBatch) -> Tensor:
        """The outputs (G,); where the positions ask for a gradient, they lead to it."""
        if batch.positions.requires_grad:
            batch = with_attributes(batch, self.size)
        return run_network(model, batch).squeeze(-1)


def read_labels(target: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Labels (M,) float64 of the shipped molecules, their identities in GDB-9, and the unit."""
    with np.load(MOLECULES) as data:
        labels, ids = data[target].astype(np.float64), data["gdb_index"]
    return (labels * HARTREE, ids, "eV") if target in ENERGIES else (labels, ids, UNITS[target])


def read_structures(labels: np.ndarray, radius: float, dtype: str) -> PeerStructures:
    """The shipped molecules with what the network learns."""
    with np.load(MOLECULES) as data:
        numbers, n_atoms = data["Z"].astype(np.int64), data["n_atoms"].astype(np.int64)
        return PeerStructures(numbers, data["R"], n_atoms, labels, radius, dtype=getattr(np, dtype))


def size_from(args: argparse.Namespace) -> Size:
    """The size that the command line describes."""
    fields = [field.name for field in dataclasses.fields(Size) if field.name != "task"]
    return Size(**{name: getattr(args, name) for name in fields})


def run_train(args: argparse.Namespace) -> None:
    """Train the original and leave curves, metrics, weights and predictions in the output folder."""
    torch.set_num_threads(args.threads)
    torch.set_default_dtype(getattr(torch, args.dtype))
    size, split = size_from(args), sample_split()
    split["train"] = split["train"][: args.train_size]
    labels, ids, unit = read_labels(args.target)
    mean = float(labels[split["train"]].mean())
    mad = float(np.abs(labels[split["train"]] - mean).mean())
    print(f"{args.target}: mean {mean:.9g} {unit}, mad {mad:.9g} {unit}", flush=True)
    torch.manual_seed(args.seed)
    model = build_original(load_original(args.original), size, torch.get_default_dtype())
    if args.initial_weights:
        read_state(args.initial_weights, model)
    peer = PeerSegnn(read_structures((labels - mean) / mad, size.radius, args.dtype), size)
    problem = Problem(
        split, labels, unit, ids, peer.collate, peer.predict, lambda outputs, _: outputs * mad + mean, mad
    )
    recipe = Recipe(
        args.epochs, args.batch_size, args.batch_size, args.seed, "mae", args.lr, {"weight_decay": args.weight_decay},
        coupled_decay=True, milestones=MILESTONES, steps=args.steps,
    )  # fmt: skip
    about = {"size": dataclasses.asdict(size), "mean": mean, "mad": mad, "e3nn": version("e3nn")}
    train(problem, recipe, model, args, about)


def run_bench(args: argparse.Namespace) -> None:
    """Serve timed steps, or time some and print their median."""
    torch.set_num_threads(args.threads)
    size = size_from(args)
    if args.kind.startswith("forces_"):
        peer, count = PeerSegnn(PeerFrames(size.radius), size), 1000
    else:
        labels, _, _ = read_labels("alpha")
        peer, count = PeerSegnn(read_structures(labels, size.radius, "float32"), size), len(labels)
    if args.ids_file:
        rows = read_rows(args.ids_file, args.ids_key)
    else:
        rows = np.resize(np.random.default_rng(0).permutation(count), (BENCH_BATCHES, args.batch_size))
    torch.manual_seed(0)
    model = build_original(load_original(args.original), size, torch.float32)
    serve(PeerBench(model, peer.predict, [peer.collate(row) for row in rows], args.kind, "mae"), args.steps)


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe the network, and the ones of every command that runs it."""
    for field in dataclasses.fields(Size):
        if field.name != "task":  # molecules have labels, atoms have none
            kind = type(field.default)
            parser.add_argument(f"--{field.name}", type=kind, default=field.default, choices=CHOICES.get(field.name))


def parse_arguments() -> argparse.Namespace:
    """Read the command line; `run` of the result is the function to call."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="The original SEGNN as a peer.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", formatter_class=Defaults, help="train by the recipe of the original")
    train.add_argument("--target", choices=[*UNITS, *ENERGIES], default="alpha")
    for name, default in {"epochs": 7, "batch_size": 128, "train_size": 10000, "seed": 0}.items():
        train.add_argument(f"--{name}", type=int, default=default)
    train.add_argument("--lr", type=float, default=5e-4)
    train.add_argument("--weight_decay", type=float, default=1e-8)
    train.add_argument("--steps", type=int, default=0, help="end after so many steps, without a test; default: all")
    train.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    train.add_argument("--initial_weights", type=Path, help=".npz of sd/<key> arrays; else torch's own by the seed")
    train.add_argument("--output", type=Path, required=True, help="folder for the results")
    train.set_defaults(run=run_train)
    bench = commands.add_parser("bench", formatter_class=Defaults, help="time steps, on request or some at once")
    bench.add_argument("--kind", choices=KINDS, default="train")
    bench.add_argument("--ids_file", type=Path, help=".npz with (n_batches, batch_size) row numbers; default: drawn")
    bench.add_argument("--ids_key", help="name of the array in ids_file; default: the first")
    bench.add_argument("--batch_size", type=int, default=32, help="without ids_file")
    bench.set_defaults(run=run_bench)
    golden = commands.add_parser("golden", formatter_class=Defaults, help="write a parity file for weights of any size")
    add_golden_arguments(golden)
    golden.set_defaults(run=run_golden)
    products = commands.add_parser("bench-products", formatter_class=Defaults, help="time tensor products of e3nn")
    add_products_arguments(products)
    for command in (train, bench):
        add_size_arguments(command)
    for command in (train, bench, golden):
        command.add_argument("--original", type=Path, required=True, help="checkout of the original's repository")
    for command in (bench, products):
        command.add_argument("--steps", type=int, default=0, help="time so many and end; default: answer requests")
    for command in (train, bench, golden, products):
        command.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Read the command line and run."""
    arguments = parse_arguments()
    try:
        arguments.run(arguments)
    except PeerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


if __name__ == "__main__":
    main()
