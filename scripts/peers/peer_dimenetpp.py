"""PyTorch's DimeNet++ as a peer: train it by a configuration of ours, or time it on the shipped molecules.

Runs in an interpreter of its own (`pip install -r requirements-parity.txt`) and imports nothing of MindSpore.

    python scripts/peers/peer_dimenetpp.py train --target U0 --output peer/dimenetpp_U0
    python scripts/peers/peer_dimenetpp.py bench --kind train --ids_file ids.npz     # then `go 20` and `quit` on stdin

The model is torch_geometric.nn.models.DimeNetPlusPlus itself.  Edges and triplets are computed before the clock starts:
PyG would search them anew in every step.

`train` reads the file that train.py reads and takes everything from it: sizes, molecules, split, labels with their
standardisation (by the same code), loss, AdamW of all parameters, clipping of the whole gradient, seed and the order
of the molecules.  What this peer lacks, such as an average of weights, is refused.

- One cycle is OneCycleLR without the cycling of beta1 that is torch's default: ours keeps beta1.
- PyG's network sums over atoms.  With target.readout=mean, which is ours for the gap unless the configuration says
  sum, this script divides the sum by the number of atoms: the same law, so either readout can be compared.
- PyG's bases are always those of model.reference_bugs=true.  With that setting and equal initial weights a run of ours
  gives the same numbers to rounding; without it, the default, ours has another spherical basis.

Equal initial weights, from either side:

    python scripts/weights/export_initial_weights.py --config CONFIG --output initial.npz
    python scripts/peers/peer_dimenetpp.py train --config CONFIG --initial_weights initial.npz --output peer/run

    python scripts/convert_weights.py --source pyg-dimenetpp --weights peer/run/initial_weights.npz --config CONFIG \
        --set model.reference_bugs=true --output initial.safetensors
    python train.py --config CONFIG --set training.pretrained=initial.safetensors
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import TORCH, begin

if __name__ == "__main__":
    begin(TORCH, "requirements-parity.txt")

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn.models import dimenet

from configs.loading import ConfigError, load_config, override_of
from configs.schema import ZERO_OUTPUT, Config, DimeNetPlusPlusConfig
from data_tools.dataset import Dataset, Task, make_dataset, open_graphs, resolve_task
from data_tools.graph import DataError
from data_tools.labels.splits import make_split
from scripts.help_defaults import Defaults
from scripts.peers.peer_bench import KINDS, PeerBench, read_rows, serve
from scripts.peers.peer_data import PeerBatch, PeerFrames, PeerMolecules, PeerStructures
from scripts.peers.peer_training import LOSSES, Problem, Recipe, read_weights, train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "dimenetpp" / "qm9_lite.yaml"
#: command-line options that stand for one key of the configuration
OPTIONS = {
    "target": "target.name", "epochs": "training.epochs", "batch_size": "training.batch_size",
    "train_size": "data.train_size", "seed": "run.seed",
}  # fmt: skip
#: where the peer can do less than train.py: allowed values of a key
ALLOWED: dict[str, tuple[Any, ...]] = {
    "model.name": ("dimenetpp",), "model.outputs": (1,), "data.train_file": ("",), "optimizer.ema_decay": (0.0,),
    "schedule.name": ("constant", "one_cycle"), "schedule.warmup_steps": (0,), "schedule.warmup_epochs": (0.0,),
    "schedule.cooldown_epochs": (0.0,), "schedule.min_lr": (0.0,), "training.loss": tuple(LOSSES),
    "training.force_weight": (0.0,), "training.loss_scale": ("none",), "training.early_stop": (0,),
    "training.pretrained": ("",), "run.amp_level": ("O0",),
}  # fmt: skip
READOUTS = ("sum", "mean")


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


def collate(structures: PeerStructures, rows: np.ndarray) -> PeerBatch:
    """A batch with its triplets."""
    batch = structures.collate(rows)
    return batch._replace(prepared=find_triplets(batch.edge_index, len(batch.numbers)))


class GivenTriplets:
    """Stands for PyG's search of edges and triplets: returns those of the batch at hand."""

    def __init__(self) -> None:
        self.edge_index: Tensor = torch.zeros((2, 0), dtype=torch.int64)
        self.triplets: tuple[Tensor, ...] = ()
        dimenet.radius_graph = lambda *_, **__: self.edge_index
        dimenet.triplets = lambda *_, **__: self.triplets

    def predict(self, model: nn.Module, batch: PeerBatch) -> Tensor:
        """The sums over atoms (G,)."""
        self.edge_index, self.triplets = batch.edge_index, batch.prepared
        return model(batch.numbers, batch.positions, batch.node_graph).squeeze(-1)

    def predict_means(self, model: nn.Module, batch: PeerBatch) -> Tensor:
        """The means over atoms (G,)."""
        return self.predict(model, batch) / torch.bincount(batch.node_graph)


def build(model: DimeNetPlusPlusConfig, zeros: bool = False) -> dimenet.DimeNetPlusPlus:
    """PyG's network of the configured size; `zeros` starts its last layers so."""
    return dimenet.DimeNetPlusPlus(
        hidden_channels=model.features,
        out_channels=model.outputs,
        num_blocks=model.blocks,
        int_emb_size=model.interaction_features,
        basis_emb_size=model.basis_features,
        out_emb_channels=model.output_features,
        num_spherical=model.spherical,
        num_radial=model.radial,
        cutoff=model.cutoff,
        envelope_exponent=model.envelope_exponent,
        num_before_skip=model.layers_before_skip,
        num_after_skip=model.layers_after_skip,
        num_output_layers=model.output_layers,
        output_initializer="zeros" if zeros else "glorot_orthogonal",
    )


def configure(args: argparse.Namespace) -> tuple[Config, Task]:
    """The configuration with the changes of the command line, and its task.

    Raises:
        ConfigError: a mistake in it, or something that this peer lacks.
        DataError: a target that does not fit.
    """
    pairs = [(key, str(getattr(args, name))) for name, key in OPTIONS.items() if getattr(args, name) is not None]
    config = load_config(args.config, [*pairs, *map(override_of, args.set)])
    target = config.target
    task = resolve_task(target.name, target.readout, target.reference, target.standardisation)
    found = [(key, attrgetter(key)(config), allowed) for key, allowed in ALLOWED.items()]
    for key, value, allowed in (*found, ("target.readout", task.readout, READOUTS)):
        if value not in allowed:
            raise ConfigError(f"{key} {value}: this peer knows {', '.join(map(repr, allowed))} only")
    return config, task


def open_dataset(config: Config, task: Task) -> Dataset:
    """Molecules, split, labels and standardisation, as train.py has them."""
    settings = config.data
    packed = open_graphs(settings.file, config.model.cutoff)
    split = make_split(
        settings.split, packed.table, settings.split_seed, settings.train_size or None, settings.valid_size or None,
        settings.test_size or None, settings.split_file or None,
    )  # fmt: skip
    return make_dataset(packed, split, task)


def problem_of(config: Config, task: Task) -> Problem:
    """What the network learns."""
    dataset, dtype = open_dataset(config, task), getattr(np, config.run.dtype)
    table, split, normalizer = dataset.packed.table, dataset.split, dataset.normalizer
    learned = dataset.standardised()(np.arange(len(table)), 0).of_graphs["energy"]
    structures = PeerStructures(
        table.numbers.astype(np.int64), table.positions, table.n_atoms.astype(np.int64), learned,
        config.model.cutoff, dtype=dtype,
    )  # fmt: skip
    given = GivenTriplets()
    return Problem(
        {"train": split.train, "valid": split.valid, "test": split.test},
        dataset.labels,
        task.target.unit,
        table.ids,
        collate=lambda rows: collate(structures, rows),
        predict=given.predict_means if task.readout == "mean" else given.predict,
        in_unit=lambda outputs, rows: normalizer.invert(outputs, dataset.counts[rows]),
        scale=normalizer.scale,
    )


def recipe_of(config: Config) -> Recipe:
    """How the network learns."""
    training, settings, schedule = config.training, config.optimizer, config.schedule
    adamw = {
        "betas": (settings.beta1, settings.beta2), "eps": settings.epsilon, "weight_decay": settings.weight_decay,
        "amsgrad": settings.amsgrad,
    }  # fmt: skip
    one_cycle = {"pct_start": schedule.warmup_fraction, "cycle_momentum": False}
    return Recipe(
        training.epochs, training.batch_size, training.eval_batch_size, config.run.seed, training.loss, settings.lr,
        adamw, one_cycle if schedule.name == "one_cycle" else None, settings.clip_norm,
    )  # fmt: skip


def run_train(args: argparse.Namespace) -> None:
    """Train the peer by a configuration and leave curves, metrics, weights and predictions in the output folder."""
    torch.set_num_threads(args.threads)
    config, task = configure(args)
    torch.set_default_dtype(getattr(torch, config.run.dtype))
    problem = problem_of(config, task)
    torch.manual_seed(config.run.seed)
    assert isinstance(config.model, DimeNetPlusPlusConfig)  # as `configure` has made sure
    init = config.model.output_init
    model = build(config.model, init == "zeros" or (init == "auto" and task.target.name in ZERO_OUTPUT))
    if args.initial_weights:
        read_weights(args.initial_weights, model)
    print(" ".join(f"{name} {value}" for name, value in task.to_dict().items()), flush=True)
    train(problem, recipe_of(config), model, args, {"config": dataclasses.asdict(config), "task": task.to_dict()})


def run_bench(args: argparse.Namespace) -> None:
    """Serve timed steps at the network's QM9 size."""
    torch.set_num_threads(args.threads)
    size = DimeNetPlusPlusConfig()
    with_forces = args.kind.startswith("forces_")
    structures = PeerFrames(size.cutoff) if with_forces else PeerMolecules("gap", size.cutoff)
    batches = [collate(structures, row) for row in read_rows(args.ids_file)]
    torch.manual_seed(0)
    serve(PeerBench(build(size), GivenTriplets().predict, batches, args.kind))


def parse_arguments() -> argparse.Namespace:
    """Read the command line; `run` of the result is the function to call."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="PyTorch's DimeNet++ as a peer.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser(
        "train", formatter_class=Defaults, help="train torch_geometric's DimeNet++ by a configuration of ours"
    )
    train.add_argument("--config", type=Path, default=CONFIG, help="YAML file; default: qm9_lite.yaml")
    for name, key in OPTIONS.items():
        train.add_argument(f"--{name}", metavar="VALUE", help=f"sets {key}")
    train.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="sets any other key")
    train.add_argument("--initial_weights", type=Path, help=".npz of sd/<key> arrays; else torch's own by the seed")
    train.add_argument("--output", type=Path, required=True, help="folder for the results")
    train.set_defaults(run=run_train)
    bench = commands.add_parser("bench", formatter_class=Defaults, help="time steps on request")
    bench.add_argument("--kind", choices=KINDS, default="train")
    bench.add_argument("--ids_file", type=Path, required=True, help=".npz with (n_batches, batch_size) row numbers")
    bench.set_defaults(run=run_bench)
    for command in (train, bench):
        command.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Read the command line and run."""
    arguments = parse_arguments()
    try:
        arguments.run(arguments)
    except (ConfigError, DataError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
