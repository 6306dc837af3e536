"""What train.py and eval.py share: from a configuration to data, model, predictions and metrics."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing to a user; read when it is imported

import numpy as np
from mindspore import nn

from configs.loading import ConfigError, config_from_dict
from configs.options import ALIKE, meant
from configs.rules import check_outputs
from configs.schema import ZERO_OUTPUT, Config
from data_tools import dataset as data
from data_tools.cache import PackedGraphs
from data_tools.graph import Budget, DataError, StructureTable
from data_tools.learned_range import LearnedRange
from data_tools.loader import evaluation_batches, evaluation_budget, fitted_batch
from data_tools.neighbors import ragged_range
from data_tools.source_files import one_line
from data_tools.splits import Split, make_split
from data_tools.statistics import Normalizer, element_counts
from data_tools.tables import name_of_row, row_of_atom
from models import LARGEST_ELEMENT, NEEDS_TRIPLETS, build_model
from physics.calculator import SKIN, Calculator, OutsideWarning
from training import checkpoint as checkpoints
from training import interruption
from training.checkpoint import Checkpoint, CheckpointError
from training.cloud_job import JobError
from training.distributed import RankError, Ranks
from training.interruption import Stopped
from training.meter import LossError
from training.platform import DeviceError, random_state_kept, set_up
from training.run_folder import FolderError
from training.step import EvaluationStep, predict, to_tensors

log = logging.getLogger("geospore")
DTYPES = {"float32": np.float32, "float64": np.float64}
TASK_KEYS = ("name", "readout", "reference", "standardisation")
BAD_INPUT, LOSS_NOT_FINITE, SIGNAL = 2, 3, 128


class CommandLine(argparse.ArgumentParser):
    """A parser whose mistakes are errors of one line that name the nearest option."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            ConfigError: always.
        """
        unknown = re.match(r"unrecognized arguments: (-[^\s=]*)", message)
        if unknown:
            message = f"unknown option {unknown[1]}: {self.nearest(unknown[1])}"
        raise ConfigError(f"{message.rstrip('; :')}; --help lists the options")

    def nearest(self, option: str, similarity: float = ALIKE) -> str:
        """A question whether a known option was meant; nothing where none is as similar (1: the same)."""
        known = self._option_string_actions
        found = meant(option, known, "--set" in known, similarity)
        return f"did you mean {found}? " if found else ""


def exit_code(error: BaseException) -> int:
    """Print a mistake as one line on standard error and return the exit code; anything unexpected is raised again."""
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        print(interruption.words(number), file=sys.stderr)
        return SIGNAL + number
    if isinstance(error, Stopped):
        print(f"{error}; --resume continues the run", file=sys.stderr)
        return SIGNAL + error.signal
    if isinstance(error, LossError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return LOSS_NOT_FINITE
    if isinstance(error, ConfigError | DataError | CheckpointError | DeviceError | FolderError | JobError | RankError):
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
    return dataset_of(config, open_packed(config), task)


def open_packed(config: Config) -> PackedGraphs:
    """The graphs of the data that a configuration names."""
    settings, cutoff = config.data, config.model.cutoff
    if settings.train_file:
        return data.open_two_files(
            settings.train_file, settings.test_file, cutoff, progress=True, keys=settings.keys
        )
    return data.open_graphs(settings.file, cutoff, progress=True, keys=settings.keys)


def dataset_of(config: Config, packed: PackedGraphs, task: data.Task) -> data.Dataset:
    """Split, labels and standardisation that a configuration describes, with the graphs of its data."""
    return data.make_dataset(for_model(packed, config), split_of(config, packed.table), task)


def for_model(packed: PackedGraphs, config: Config) -> PackedGraphs:
    """The graphs, with triplets in their batches where the model of a configuration uses them.

    Raises:
        DataError: an element beyond the table of the model.
    """
    table, largest = packed.table, LARGEST_ELEMENT[config.model.name]
    beyond = table.numbers > largest
    if beyond.any():
        atom = int(beyond.argmax())
        raise DataError(
            f"{table.source.partition(' sha256 ')[0]}: {name_of_row(table, row_of_atom(table, atom))}: the model "
            f"{config.model.name} knows elements up to {data.symbols([largest])}, found "
            f"{data.symbols([int(table.numbers[atom])])}; remove this structure"
        )
    return dataclasses.replace(packed, triplets=config.model.name in NEEDS_TRIPLETS)


def split_of(config: Config, table: StructureTable) -> Split:
    """The split of a configuration, applied to a table."""
    settings = config.data
    return make_split(
        settings.split, table, settings.split_seed, settings.train_size or None, settings.valid_size or None,
        settings.test_size or None, settings.split_file or None,
    )  # fmt: skip


def build_single(config: Config, task: data.Task) -> nn.Cell:
    """The network of a configuration, for programs that know one label for each molecule.

    Raises:
        ConfigError: it has more outputs than one, or the constructor refuses a hyperparameter.
    """
    check_outputs(config)
    return build(config, task)


def build(config: Config, task: data.Task) -> nn.Cell:
    """The network of a configuration.

    Raises:
        ConfigError: the constructor refuses a hyperparameter.
    """
    hyperparameters = dataclasses.asdict(config.model)
    if hyperparameters.get("output_init") == data.AUTO:
        hyperparameters["output_init"] = "zeros" if task.target.name in ZERO_OUTPUT else "orthogonal"
    name = hyperparameters.pop("name")
    try:
        run = config.run
        return build_model(name, dtype=run.dtype, amp_level=run.amp_level, readout=task.readout, **hyperparameters)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


@dataclass(frozen=True)
class Trained:
    """A model as a checkpoint describes it, and what gives its numbers a meaning.

    Attributes:
        file: the checkpoint.
        config: of its run.
        task: what it predicts.
        normalizer: takes outputs to the target's unit.
        elements: atomic numbers it has seen.
        learned: what its training structures covered; None where the checkpoint does not say.
        information: all that the checkpoint says about itself.
        model: the network with its weights, the moving average where there is one.
    """

    file: Path
    config: Config
    task: data.Task
    normalizer: Normalizer
    elements: list[int]
    learned: LearnedRange | None
    information: dict[str, Any]
    model: nn.Cell

    @property
    def warnings(self) -> list[str]:
        """One line where an older version of the program has trained the model; converted weights know no range."""
        if self.learned is not None or "converted_from" in self.information:
            return []
        return [
            f"{self.file}: the checkpoint does not say what its training structures covered, so that only elements are "
            "checked; scripts/add_range.py adds it"
        ]


def load_trained(path: str | Path, overrides: Iterable[tuple[str, str]] = ()) -> Trained:
    """Read a checkpoint or the best one of a run folder, open the device and build the model.

    Args:
        path: file or folder.
        overrides: ``(section.key, text)`` pairs that change the configuration in the checkpoint.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or one that lacks what evaluation needs.
        ConfigError: a configuration that does not fit this version of the program, or a bad override.
        DeviceError: the device is not there.
    """
    file = checkpoints.find(path)
    return trained_of(checkpoints.load_weights(file), file, overrides)


def trained_of(checkpoint: Checkpoint, file: Path, overrides: Iterable[tuple[str, str]] = ()) -> Trained:
    """What ``load_trained`` returns, of a checkpoint that has been read from ``file``.

    The global generators of NumPy and Python stay as they are.
    """
    information = checkpoint.information
    missing = [key for key in ("config", "task", "normalizer", "elements") if key not in information]
    if missing:
        raise CheckpointError(
            f"{file}: the checkpoint does not say its {', '.join(missing)}; write or convert it again"
        )
    try:
        config = config_from_dict(information["config"], str(file), overrides)
        task = data.resolve_task(*(information["task"][key] for key in TASK_KEYS))
        normalizer = Normalizer.from_dict(information["normalizer"])
        elements = known_elements(information["elements"], LARGEST_ELEMENT[config.model.name])
        learned = LearnedRange.from_dict(information["range"]) if "range" in information else None
    except ConfigError:  # it names the file, or the option
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: what the checkpoint says about itself cannot be used ({one_line(error)[:300]}); write or convert "
            "it again"
        ) from None
    with random_state_kept():  # a new network draws weights, which those of the checkpoint replace
        set_up(config.run.mode, config.run.device_target, config.run.device_id, seed=None)
        model = build_single(config, task)
    checkpoints.assign(model, checkpoint.weights, str(file))
    return Trained(file, config, task, normalizer, elements, learned, information, model)


def known_elements(numbers: list[int], largest: int) -> list[int]:
    """The atomic numbers of a checkpoint, checked, up to the last one of the model's table.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(numbers, list) or not all(type(number) is int and 0 < number <= 118 for number in numbers):
        raise ValueError("elements: expected atomic numbers")
    return [number for number in numbers if number <= largest]


@dataclass(frozen=True, eq=False)
class CalculatorRecipe:
    """All that a calculator is made of, so that a copy of it in another process needs no file.

    Attributes:
        checkpoint: the weights to evaluate with and what the checkpoint says about itself.
        file: where it came from, for messages.
        overrides: of the configuration.
        skin: of the neighbour lists, Angstrom.
    """

    checkpoint: Checkpoint
    file: Path
    overrides: tuple[tuple[str, str], ...]
    skin: float

    def __call__(self) -> Calculator:
        """A new calculator.

        Raises:
            DataError, CheckpointError, ConfigError, DeviceError: as ``load_calculator``.
        """
        trained = trained_of(self.checkpoint, self.file, self.overrides)
        target = trained.task.target
        if not target.has_forces:
            raise DataError(
                f"{trained.file}: the model predicts {target.name} [{target.unit}], {target.description}, which has no "
                "forces; use a model that was trained on the target energy"
            )
        for words in trained.warnings:
            warnings.warn(words, OutsideWarning, stacklevel=3)
        settings = trained.config.model
        return Calculator(
            trained.model, trained.normalizer, trained.elements, settings.cutoff, self.skin,
            settings.name in NEEDS_TRIPLETS, trained.learned, recipe=self,
        )  # fmt: skip


def load_calculator(
    path: str | Path, dtype: str = "", skin: float = SKIN, overrides: Iterable[tuple[str, str]] = ()
) -> Calculator:
    """An ASE calculator of a checkpoint, or of the best one of a run folder.

    Args:
        path: file or folder.
        dtype: float32 or float64 arithmetic with the same weights; empty: that of the run.  Never float16.
        skin: of the neighbour lists, Angstrom.
        overrides: as of ``load_trained``.

    Raises:
        DataError: the model predicts something else than the energy of a geometry.
        CheckpointError, ConfigError, DeviceError: as ``load_trained``.
    """
    chosen = [("run.amp_level", "O0"), *([("run.dtype", dtype)] if dtype else [])]
    file = checkpoints.find(path)
    checkpoint = checkpoints.load_weights(file)
    kept = Checkpoint(checkpoint.weights, information=checkpoint.information)
    return CalculatorRecipe(kept, file, (*overrides, *chosen), skin)()


class Predictions(NamedTuple):
    """What a model says of M structures with A atoms in all.

    Attributes:
        values: (M,) float64 in the target's unit.
        embeddings: (M, F).
        forces: (A, 3) float64 in the target's unit per Angstrom; None where they were not asked for.
    """

    values: np.ndarray
    embeddings: np.ndarray
    forces: np.ndarray | None


class Evaluator:
    """Predictions of a model in the target's unit, by one compiled graph for all the sets it is made for.

    Args:
        model: the network.
        packed: graphs with the model's cutoff, and triplets if it uses them; see ``for_model``.
        sets: the rows it will be asked for.
        normalizer: takes outputs to the target's unit.
        batch_size: the most molecules in a batch.
        dtype: float32 or float64.
        ranks: processes that share the work; all of them get the result.
        forces: whether to predict forces too.
    """

    def __init__(
        self,
        model: nn.Cell,
        packed: PackedGraphs,
        sets: list[np.ndarray],
        normalizer: Normalizer,
        batch_size: int,
        dtype: str,
        ranks: Ranks = Ranks(),  # noqa: B008  a frozen constant
        forces: bool = False,
    ):
        self.step = EvaluationStep(model, forces)
        self.forces = forces
        self.packed, self.normalizer, self.batch_size, self.dtype = packed, normalizer, batch_size, DTYPES[dtype]
        self.ranks = ranks
        self.budget: Budget = evaluation_budget(packed, sets, batch_size)

    def compile(self) -> None:
        """Compile, or find out that it cannot be compiled, before there is anything to evaluate."""
        nothing = fitted_batch(self.packed, np.zeros(0, np.int64), [self.budget], None, self.dtype)
        self.step(*to_tensors(nothing.inputs))

    def __call__(self, rows: np.ndarray) -> Predictions:
        """Predictions in the order of ``rows``; processes share the work."""
        batches = evaluation_batches(
            self.packed, rows, self.batch_size, self.dtype, self.budget, self.ranks.rank, self.ranks.size
        )
        places, outputs, embeddings, forces = predict(self.step, batches)
        # the first process has a batch in any case, so it knows the size of an embedding
        features = int(self.ranks.sum(np.array([embeddings.shape[1] * self.ranks.is_main], np.float32))[0])
        values = np.zeros((len(rows), 1 + features))
        if len(places):
            values[places, 0], values[places, 1:] = outputs, embeddings
        values = self.ranks.sum(values)
        table = self.packed.table
        counts = element_counts(table.numbers, table.n_atoms)[rows]
        return Predictions(
            self.normalizer.invert(values[:, 0], counts),
            values[:, 1:].astype(embeddings.dtype),
            self._all_forces(rows, places, forces) if self.forces else None,
        )

    def _all_forces(self, rows: np.ndarray, places: np.ndarray, forces: np.ndarray) -> np.ndarray:
        """(A, 3) forces of all rows from those of this process's structures, which stand at ``places``."""
        n_atoms = self.packed.table.n_atoms[rows]
        starts = np.cumsum(n_atoms) - n_atoms
        result = np.zeros((int(n_atoms.sum()), 3))
        result[ragged_range(starts[places], n_atoms[places])] = forces * self.normalizer.scale
        return self.ranks.sum(result)
