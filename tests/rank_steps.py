"""Twenty train steps of one or several processes, to compare: run by msrun or alone, with arguments from the test.

    python rank_steps.py FOLDER MODE NAME DTYPE FILE [NAME DTYPE FILE ...]

For each name a process writes FOLDER/NAME_rank<k>_of_<n>.npz: its parameters after the steps with the structures of a
file, and loss and error of every step.  A start takes longer than all steps, so one start makes the steps of all names.
Of a file with force constants there are epochs of columns first, and then of all rows, with one compiled step.
"""

import dataclasses
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple

from configs.schema import SchNetConfig
from data_tools.dataset import make_dataset, open_graphs, resolve_task
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.labels.splits import make_split
from experiment.data import DTYPES
from models import build_model
from training.device import set_up
from training.distributed import Ranks
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep
from training.weights import parameters_of

STEPS = 20
BATCH_SIZE = 16
LAW = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}


def kinds_of_batches(file: str, dtype: str, ranks: Ranks) -> tuple[list[Term], list[TrainingBatches]]:
    """The loss, and the batches of one kind of epochs after the other."""
    packed = open_graphs(file, 5.0)
    if packed.table.force_constants is not None:
        terms = [Term("hessian_product", 1.0, "norm"), Term("forces", 0.1, "norm")]
        task, kinds, sizes, batch_size = resolve_task("force_constants"), ("columns", "rows"), (10, 2, 2), 4
    elif "forces" in packed.table.of_atoms:
        terms = [Term("energy", 0.5, "mae"), Term("forces", 1.0, "mae")]
        task, kinds, sizes, batch_size = resolve_task("energy"), ("columns",), (66, 4, 4), BATCH_SIZE
    else:
        terms = [Term("energy", 1.0, "mae")]
        task, kinds, sizes, batch_size = resolve_task("U0"), ("columns",), (66, 4, 4), BATCH_SIZE
    dataset = make_dataset(packed, make_split("random", packed.table, 0, *sizes), task)
    found = []
    for kind in kinds:
        provider = dataset.standardised([term.quantity for term in terms], 0, kind)
        found.append(training_batches(
            packed, dataset.rows_of_an_epoch(kind), provider, batch_size, 0, STEPS, 3 - len(kinds), DTYPES[dtype],
            ranks.rank, ranks.size,
        ))  # fmt: skip
    widest = max((batches.budgets for batches in found), key=lambda budgets: budgets[-1].edges)
    return terms, [dataclasses.replace(batches, budgets=widest) for batches in found]


def train(folder: str, name: str, dtype: str, file: str, ranks: Ranks) -> None:
    """Train and write."""
    ms.set_seed(3)
    settings = SchNetConfig(features=16, filters=16, blocks=1, gaussians=10, cutoff=5.0)
    model = build_model(dtype=dtype, amp_level="O0", readout="sum", **dataclasses.asdict(settings))
    terms, kinds = kinds_of_batches(file, dtype, ranks)
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"], 1.0, 0.9)
    step = TrainStep(model, optimizer, terms, ranks.size)
    results: list[np.ndarray] = []
    for batches in kinds:
        every = (batch for epoch in range(STEPS) for batch in batches.epoch(epoch))
        for batch in itertools.islice(every, STEPS // len(kinds)):
            scalars = operator_scalars(len(results) + 1, 1e-3, **LAW)
            result = step(*step.layout.arguments(batch.part, batch.known, 1.0, scalars))
            results.append(np.concatenate([value.asnumpy().reshape(-1) for value in result]))
    average = optimizer.parts(optimizer.average, "average.")
    file_of_rank = Path(folder) / f"{name}_rank{ranks.rank}_of_{ranks.size}.npz"
    np.savez(file_of_rank, results=results, **parameters_of(model), **average)


def main(folder: str, mode: str, *cases: str) -> None:
    """One case after the other."""
    ranks = set_up(mode, "CPU", 0, seed=3)
    for name, dtype, file in zip(*(cases[k::3] for k in range(3)), strict=True):
        train(folder, name, dtype, file, ranks)


if __name__ == "__main__":
    main(*sys.argv[1:])
