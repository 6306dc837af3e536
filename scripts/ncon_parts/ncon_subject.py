"""The SEGNN that is measured, of a checkpoint or of a configuration, built anew in every precision."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_subject.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from mindspore import nn

from configs.loading import ConfigError, load_config
from configs.schema import Config, SegnnConfig
from data_tools import dataset as data
from data_tools.graph import Budget, DataError, GraphBatch, Labels
from data_tools.graphs.batching import take
from data_tools.graphs.loader import fitted_batch
from data_tools.source_files import sha256_of
from experiment.data import open_packed, resolve_task
from experiment.model import build
from experiment.resolve import open_dataset, resolve
from experiment.trained import load_trained
from models import cpu_kernels
from training.device import set_up
from training.weights import assign, parameters_of

MODEL = "segnn"  # the only model with a contraction of its own precision


@dataclass(frozen=True)
class Subject:
    """A network with its weights and its data.

    Attributes:
        about: where the weights come from, for the page.
        config: of the run, resolved.
        task: what it predicts.
        weights: by name.
        dataset: structures, labels and standardisation.
        rows: of the test structures that are measured.
    """

    about: str
    config: Config
    task: data.Task
    weights: dict[str, np.ndarray]
    dataset: data.Dataset
    rows: np.ndarray

    @property
    def model(self) -> SegnnConfig:
        """The section of the model."""
        assert isinstance(self.config.model, SegnnConfig)  # see check_model
        return self.config.model

    def build(self, dtype: str, ncon_dtype: str, kernels: bool = False) -> nn.Cell:
        """The network in a precision, with the operators of Ascend unless the kernels of a CPU are asked for."""
        run = dataclasses.replace(self.config.run, dtype=dtype)
        config = dataclasses.replace(self.config, run=run, model=dataclasses.replace(self.model, ncon_dtype=ncon_dtype))
        with nullcontext() if kernels else operators():
            model = build(config, self.task)
        assign(model, self.weights)
        return model.set_train(False)

    def batch(self, rows: np.ndarray, dtype: type = np.float64, labels: Labels | None = None) -> GraphBatch:
        """Structures at a shape that has no ghosts but one atom: no ghost edge is counted as a value of the network."""
        ragged, packed = take(self.dataset.packed, rows), self.dataset.packed
        budget = Budget(len(ragged.numbers) + 1, 2 * len(ragged.senders), 0, len(rows) + 1)
        return fitted_batch(packed, rows, [budget], labels, dtype)


@contextmanager
def operators() -> Iterator[None]:
    """What is built in this block computes with the operators of Ascend and GPU, on a CPU too."""
    before = cpu_kernels.device_target
    cpu_kernels.device_target = lambda: "Ascend"
    try:
        yield
    finally:
        cpu_kernels.device_target = before


def open_checkpoint(path: str, structures: int) -> Subject:
    """A checkpoint, or the best one of a run folder, with the data of its run.

    Raises:
        ConfigError: of another model.
        CheckpointError, DataError, DeviceError: as of eval.py.
    """
    trained = load_trained(path)
    check_model(trained.config, path)
    try:
        dataset = open_dataset(trained.config, trained.task)
    except DataError as error:
        raise DataError(f"the data of the run cannot be used: {error}") from None
    dataset = dataclasses.replace(dataset, normalizer=trained.normalizer)
    progress = trained.information.get("progress") or {}
    steps = f", trained for {progress['step']} steps" if "step" in progress else ""
    weights = parameters_of(trained.model)
    about = f"A checkpoint of {trained.task.target.name}{steps} (sha256 {sha256_of(trained.file)[:12]})"
    return Subject(about, trained.config, trained.task, weights, dataset, measured_rows(dataset, structures))


def open_configuration(path: str, changes: Iterable[tuple[str, str]], structures: int) -> Subject:
    """A configuration with the weights that a run of it begins with.

    Raises:
        ConfigError, DataError, DeviceError: as of train.py.
    """
    config = load_config(path, changes)
    check_model(config, path)
    task = resolve_task(config)
    packed = open_packed(config)
    config, split, _ = resolve(config, task, packed)
    dataset = data.make_dataset(packed, split, task)
    set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    weights = parameters_of(build(config, task))
    about = f"{path}, initial weights of seed {config.run.seed}"
    return Subject(about, config, task, weights, dataset, measured_rows(dataset, structures))


def check_model(config: Config, path: str) -> None:
    """Refuse a model that has no contraction.

    Raises:
        ConfigError: it has none.
    """
    if config.model.name != MODEL:
        raise ConfigError(
            f"{path}: expected the model {MODEL}, the only one with ncon_dtype, got {config.model.name}; give a run or "
            f"a configuration of {MODEL}, for example --config configs/segnn/qm9_mini.yaml"
        )


def measured_rows(dataset: data.Dataset, structures: int) -> np.ndarray:
    """So many test rows, drawn with a fixed seed, or all where there are fewer."""
    test = dataset.split.test
    return np.sort(np.random.default_rng(0).permutation(test)[:structures])
