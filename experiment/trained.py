"""Trained models: a checkpoint to a network with all that gives its numbers a meaning, or to an ASE calculator."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn

from configs.loading import ConfigError, config_from_dict
from configs.schema import Config
from data_tools import dataset as data
from data_tools.coverage.learned_range import LearnedRange
from data_tools.formats.smiles import GEOMETRY_WARNING, MADE_HERE
from data_tools.graph import DataError
from data_tools.labels.statistics import Normalizer
from data_tools.labels.targets import FORCE_CONSTANTS
from data_tools.labels.tasks import task_of
from data_tools.source_files import one_line
from experiment.ensemble_folder import members_of
from experiment.model import build_single
from experiment.resolve import with_names
from models import DIRECT, NEEDS_TRIPLETS
from physics.alike_networks import compile_once
from physics.calculator import SKIN, Calculator, OutsideWarning
from physics.derivatives import HessianProduct
from physics.several_potentials import mean_of
from physics.skin_list import SkinList
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CheckpointError
from training.device import random_state_kept, set_up
from training.weights import assign


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
        chosen: which outputs of the network the tasks are; empty: all of them.
    """

    file: Path
    config: Config
    task: data.Task
    normalizer: Normalizer
    elements: list[int]
    learned: LearnedRange | None
    information: dict[str, Any]
    model: nn.Cell
    chosen: tuple[int, ...] = ()

    @property
    def network_task(self) -> data.Task:
        """The tasks of all outputs of the network."""
        return task_of(self.information["task"])

    @property
    def kind(self) -> tuple:
        """Equal for models whose networks differ in their weights alone, and compute in the same place and type."""
        run = self.config.run
        place = run.mode, run.device_target, run.device_id, run.dtype, run.amp_level
        return repr(self.config.model), place, tuple(one.readout for one in self.network_task.every)

    def only(self, outputs: Sequence[int]) -> Trained:
        """The same model with some of its tasks, numbered from 0; the network still has all of its outputs."""
        places = self.chosen or tuple(range(len(self.task.every)))
        task, *tasks = (self.task.every[k] for k in outputs)
        law, *laws = (dataclasses.replace(self.normalizer.every[k], others=()) for k in outputs)
        return dataclasses.replace(
            self,
            task=dataclasses.replace(task, others=tuple(tasks)),
            normalizer=dataclasses.replace(law, others=tuple(laws)),
            chosen=tuple(places[k] for k in outputs),
        )

    @property
    def known(self) -> set[int]:
        """The elements that it predicts for: seen in training, and with a reference energy where one is needed."""
        references = [law.references for law in self.normalizer.every]
        return set(self.elements) & set(np.flatnonzero(np.isfinite(references).all(axis=0)).tolist())

    @property
    def warnings(self) -> list[str]:
        """One line where an older version of the program has trained the model; converted weights know no range."""
        if self.learned is not None or "converted_from" in self.information:
            return []
        return [
            f"{self.file}: the checkpoint does not say what its training structures covered, so that only elements are "
            "checked; scripts/add_range.py adds it"
        ]

    def geometry_warnings(self, source: str) -> list[str]:
        """One line where structures are made from SMILES and the model has learned from others.

        Args:
            source: of the structures that it is asked for.
        """
        if MADE_HERE not in source or MADE_HERE in str(self.information.get("source")):
            return []
        return [GEOMETRY_WARNING]


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
        task = task_of(information["task"])
        config = with_names(config, task)
        normalizer = Normalizer.from_dict(information["normalizer"])
        elements = known_elements(information["elements"])
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
    assign(model, checkpoint.weights, str(file))
    return Trained(file, config, task, normalizer, elements, learned, information, model)


def known_elements(numbers: list[int]) -> list[int]:
    """The atomic numbers of a checkpoint, checked.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(numbers, list) or not all(type(number) is int and 0 < number <= 118 for number in numbers):
        raise ValueError("elements: expected atomic numbers")
    return numbers


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
        return self.calculator(self.trained())

    def trained(self) -> Trained:
        """What the checkpoint describes.

        Raises:
            CheckpointError, ConfigError, DeviceError: as ``load_calculator``.
        """
        return trained_of(self.checkpoint, self.file, self.overrides)

    def calculator(self, trained: Trained) -> Calculator:
        """The calculator of what the checkpoint describes.

        Raises:
            DataError: it has no energy, or one that does not grow with the structure.
        """
        target, name = trained.task.target, trained.config.model.name
        if name in DIRECT:
            raise DataError(
                f"{trained.file}: the model {name} predicts force constants themselves and has no energy, no forces "
                "and no stress; use a model of energies, or scripts/phonon.py"
            )
        if not target.is_of_potential:
            raise DataError(
                f"{trained.file}: the model predicts {target.name} [{target.unit}], {target.description}, which has no "
                "forces; use a model that was trained on the target energy or force_constants"
            )
        if target.name == FORCE_CONSTANTS and trained.task.readout == "mean":
            raise DataError(
                f"{trained.file}: the model is a control with target.readout=mean, whose force constants depend on the "
                "size of the supercell; use one with the readout sum"
            )
        for words in trained.warnings:
            warnings.warn(words, OutsideWarning, stacklevel=3)
        settings = trained.config.model
        return Calculator(
            trained.model, trained.normalizer, trained.elements, settings.cutoff, self.skin,
            settings.name in NEEDS_TRIPLETS, trained.learned, recipe=self,
        )  # fmt: skip


class DirectProducts:
    """Products of a model of force constants themselves, for what asks a calculator for those of its energy.

    Args:
        trained: the model.

    Attributes:
        product, neighbors, cutoff, dtype, normalizer, elements: as of a calculator.
        information: all that the checkpoint says about itself.
    """

    def __init__(self, trained: Trained):
        trained.model.set_train(False)
        self.product, self.cutoff = HessianProduct(trained.model), trained.config.model.cutoff
        self.neighbors = SkinList(self.cutoff, 0.0)
        self.dtype = trained.model.trainable_params()[0].asnumpy().dtype.type
        self.normalizer, self.elements, self.information = trained.normalizer, trained.elements, trained.information


def load_calculator(
    path: str | Path, dtype: str = "", skin: float = SKIN, overrides: Iterable[tuple[str, str]] = ()
) -> Any:
    """A ``Calculator`` of ASE of a checkpoint, or of the best one of a run folder; of an ensemble a ``MeanCalculator``.

    Args:
        path: file or folder, or the folder of scripts/ensemble.py: ``results`` then hold ``energy_std`` (eV) and
            ``forces_std`` (N, 3) (eV/Angstrom), too.
        dtype: float32 or float64 arithmetic with the same weights; empty: that of the run.  Never float16.
        skin: of the neighbour lists, Angstrom.
        overrides: as of ``load_trained``.

    Raises:
        DataError: the model predicts something else than the energy of a geometry.
        CheckpointError, ConfigError, DeviceError: as ``load_trained``; or fewer than two members have finished.
    """
    members, _ = members_of([str(path)])
    return mean_of(_loaded([_recipe(one, dtype, skin, overrides) for one in members or [str(path)]]))  # one as it is


def load_products(
    paths: Iterable[str | Path], dtype: str = "", overrides: Sequence[tuple[str, str]] = ()
) -> list[Calculator | DirectProducts]:
    """What gives products with force constants: calculators, or models of force constants themselves.

    Args:
        paths: of checkpoints; where only weights differ, one network is compiled for all of them.
        dtype, overrides: as of ``load_calculator``.

    Raises:
        DataError, CheckpointError, ConfigError, DeviceError: as ``load_calculator``.
    """
    return _loaded([_recipe(path, dtype, SKIN, overrides) for path in paths], direct=True)


def _loaded(recipes: Sequence[CalculatorRecipe], direct: bool = False) -> list[Any]:
    """Calculators that share what is compiled; models of force constants themselves only where they are asked for."""
    models = [recipe.trained() for recipe in recipes]
    made = [
        DirectProducts(trained) if direct and trained.config.model.name in DIRECT else recipe.calculator(trained)
        for recipe, trained in zip(recipes, models, strict=True)
    ]
    compile_once(made, [trained.kind for trained in models])
    return made


def _recipe(path: str | Path, dtype: str, skin: float, overrides: Iterable[tuple[str, str]]) -> CalculatorRecipe:
    """What a calculator of a checkpoint is made of."""
    chosen = [("run.amp_level", "O0"), *([("run.dtype", dtype)] if dtype else [])]
    file = checkpoints.find(path)
    checkpoint = checkpoints.load_weights(file)
    kept = Checkpoint(checkpoint.weights, information=checkpoint.information)
    return CalculatorRecipe(kept, file, (*overrides, *chosen), skin)
