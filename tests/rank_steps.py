"""Twenty train steps of one or several processes, to compare: run by msrun or alone, with arguments from the test.

    python rank_steps.py FOLDER DTYPE MODE BATCH_SIZE MOLECULES [OPTIMIZER_KEY=VALUE ...]

Each process writes FOLDER/rank<k>_of_<n>.npz: its parameters after the steps, and loss and error of every step.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mindspore import ParameterTuple

from configs.schema import SchNetConfig
from data_tools.dataset import make_dataset, open_graphs, resolve_task
from data_tools.graphs.loader import training_batches
from data_tools.labels.splits import make_split
from experiment.data import DTYPES
from models import build_model
from training.device import set_up
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep
from training.weights import parameters_of

STEPS = 20
LAW = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}


def main(folder: str, dtype: str, mode: str, batch_size: int, molecules: str, epsilon: float) -> None:
    """Train and write."""
    ranks = set_up(mode, "CPU", 0, seed=3)
    settings = SchNetConfig(features=16, filters=16, blocks=2, gaussians=10, cutoff=5.0)
    model = build_model(dtype=dtype, amp_level="O0", readout="sum", **asdict(settings))
    packed = open_graphs(molecules, 5.0)
    forces = "forces" in packed.table.of_atoms
    task = resolve_task("energy" if forces else "U0")
    dataset = make_dataset(packed, make_split("random", packed.table, train_size=66, valid_size=4, test_size=4), task)
    provider = dataset.standardised(("energy", "forces") if forces else ("energy",))
    batches = training_batches(
        packed, dataset.split.train, provider, batch_size, 0, STEPS, 2, DTYPES[dtype], ranks.rank, ranks.size
    )
    terms = [Term("energy", 0.5 if forces else 1.0, "mae"), *([Term("forces", 1.0, "mae")] if forces else [])]
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"], 1.0, 0.9)
    step = TrainStep(model, optimizer, terms, ranks.size)
    results, done, epoch = [], 0, 0
    while done < STEPS:
        for batch in batches.epoch(epoch):
            done += 1
            scalars = operator_scalars(done, 1e-3, **{**LAW, "epsilon": epsilon})
            result = step(*step.layout.arguments(batch.part, batch.known, 1.0, scalars))
            results.append(np.concatenate([value.asnumpy().reshape(-1) for value in result]))
            if done == STEPS:
                break
        epoch += 1
    average = optimizer.parts(optimizer.average, "average.")
    np.savez(Path(folder) / f"rank{ranks.rank}_of_{ranks.size}.npz", results=results, **parameters_of(model), **average)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
