"""What train.py and eval.py share: from a configuration to data, model, predictions and metrics."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import numpy as np
from mindspore import nn

from configs.loading import ConfigError
from configs.schema import Config
from data_tools import dataset as data
from data_tools.cache import PackedGraphs
from data_tools.graph import Budget, DataError
from data_tools.loader import evaluation_batches, evaluation_budget
from data_tools.source_files import one_line
from data_tools.splits import make_split
from data_tools.statistics import Normalizer, element_counts, linear_baseline, mean_baseline, regression_metrics
from models import build_model
from training.checkpoint import CheckpointError
from training.meter import LossError
from training.platform import DeviceError
from training.step import EvaluationStep, predict

log = logging.getLogger("geospore")
DTYPES = {"float32": np.float32, "float64": np.float64}
BAD_INPUT, LOSS_NOT_FINITE, INTERRUPTED = 2, 3, 130


def set_up_log(folder: Path | None = None) -> None:
    """Lines go to standard output, and to train.log of a run folder."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "train.log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)


def exit_code(error: BaseException) -> int:
    """Print a mistake as one line on standard error and return the exit code; anything unexpected is raised again."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, LossError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return LOSS_NOT_FINITE
    if isinstance(error, ConfigError | DataError | CheckpointError | DeviceError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    if isinstance(error, OSError):
        print(f"error: {one_line(error)}; check the path, its permissions and the free space", file=sys.stderr)
        return BAD_INPUT
    raise error


def resolve_task(config: Config) -> data.Task:
    """The target of a configuration with every ``auto`` resolved."""
    target = config.target
    return data.resolve_task(target.name, target.readout, target.reference, target.standardisation)


def open_dataset(config: Config, task: data.Task) -> data.Dataset:
    """Graphs, split, labels and standardisation that a configuration describes."""
    settings = config.data
    packed = data.open_graphs(settings.file, config.model.cutoff, progress=True)
    split = make_split(
        settings.split,
        packed.table,
        seed=settings.split_seed,
        train_size=settings.train_size or None,
        valid_size=settings.valid_size or None,
        test_size=settings.test_size or None,
        file=settings.split_file or None,
    )
    return data.make_dataset(packed, split, task)


def build(config: Config, task: data.Task) -> nn.Cell:
    """The network of a configuration.

    Raises:
        ConfigError: the constructor refuses a hyperparameter.
    """
    hyperparameters = dataclasses.asdict(config.model)
    name = hyperparameters.pop("name")
    try:
        return build_model(name, dtype=config.run.dtype, readout=task.readout, **hyperparameters)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


class Evaluator:
    """Predictions of a model in the target's unit, by one compiled graph for all the sets it is made for.

    Args:
        model: the network.
        packed: graphs with the model's cutoff.
        sets: the rows it will be asked for.
        normalizer: takes outputs to the target's unit.
        batch_size: the most molecules in a batch.
        dtype: float32 or float64.
    """

    def __init__(
        self,
        model: nn.Cell,
        packed: PackedGraphs,
        sets: list[np.ndarray],
        normalizer: Normalizer,
        batch_size: int,
        dtype: str,
    ):
        self.step = EvaluationStep(model)
        self.packed, self.normalizer, self.batch_size, self.dtype = packed, normalizer, batch_size, DTYPES[dtype]
        self.budget: Budget = evaluation_budget(packed, sets, batch_size)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (M,) and embeddings (M, F), in the order of ``rows``."""
        batches = evaluation_batches(self.packed, rows, self.batch_size, self.dtype, self.budget)
        found, outputs, embeddings = predict(self.step, batches)
        place = np.argsort(found, kind="stable")[np.argsort(np.argsort(rows, kind="stable"), kind="stable")]
        table = self.packed.table
        counts = element_counts(table.numbers, table.n_atoms)[rows]
        return self.normalizer.invert(outputs[place], counts), embeddings[place]


def baseline_predictions(dataset: data.Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the mean of the training labels, and a linear fit on element counts, predict for ``rows``."""
    train = dataset.split.train
    linear, _ = linear_baseline(dataset.labels[train], dataset.counts[train], dataset.counts[rows])
    return {
        "mean of the training labels": mean_baseline(dataset.labels[train], len(rows)),
        "linear in element counts": linear,
    }


def metrics_of(
    dataset: data.Dataset, rows: np.ndarray, predictions: dict[str, np.ndarray], known: list[int]
) -> dict[str, dict[str, float]]:
    """Metrics of several predictions for the same rows; molecules with elements unseen in training apart.

    Args:
        dataset: labels and element counts.
        rows: (M,) rows predicted.
        predictions: name to (M,) values in the target's unit.
        known: atomic numbers of the training molecules.
    """
    labels, unseen = dataset.labels[rows], data.with_unseen_elements(dataset.counts[rows], known)
    table = {}
    for name, values in predictions.items():
        table[name] = regression_metrics(values, labels)
        if unseen.any():
            others = data.symbols(sorted(set(data.present_elements(dataset.counts[rows])) - set(known)))
            table[f"{name}, without {others}"] = regression_metrics(values[~unseen], labels[~unseen])
            table[f"{name}, with {others}"] = regression_metrics(values[unseen], labels[unseen])
    return table
