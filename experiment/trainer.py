"""The parts of a training run, made from its configuration and its data."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import ParameterTuple

from configs.loading import config_to_dict, config_to_yaml
from configs.schema import Config
from data_tools import dataset as data
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.labels.splits import Split, digest, save_split
from experiment.data import DTYPES
from experiment.evaluation import Evaluation
from experiment.evaluation.evaluator import ENERGY, FORCES
from experiment.run_folder import CONFIG, SPLIT
from training import checkpoint as checkpoints
from training.device import versions
from training.distributed import Ranks
from training.files import write_text
from training.loop import Recipe, Trainer
from training.optimizer import AdamW
from training.state import Quantity, Score
from training.step import Objective, TrainStep

log = logging.getLogger("geospore")


def warn_of_schedule(trainer: Trainer) -> None:
    """Say so where warm-up and cool-down leave no step between them: the highest rate is not kept, or never reached."""
    schedule, total = trainer.recipe.schedule, trainer.total_steps
    warmup, cooldown = trainer.steps_outside()
    if schedule["name"] != "one_cycle" and warmup + cooldown > total:
        highest = max(trainer.lr_at(step) for step in range(total))
        log.warning(
            "warning: warm-up and cool-down take %d and %d steps, the run has %d: the learning rate reaches %.3g of "
            "%.3g; lower schedule.warmup_steps, warmup_epochs or cooldown_epochs",
            warmup, cooldown, total, highest, trainer.recipe.optimizer["lr"],
        )  # fmt: skip


def make_batches(config: Config, dataset: data.Dataset, ranks: Ranks) -> TrainingBatches:
    """The training batches of a run, at a few static shapes."""
    provider = dataset.standardised(("energy", "forces") if config.training.force_weight else ("energy",))
    batches = training_batches(
        dataset.packed, dataset.split.train, provider, config.training.batch_size, config.run.seed,
        config.training.epochs, config.data.shapes, DTYPES[config.run.dtype], ranks.rank, ranks.size,
    )  # fmt: skip
    log.info("training shapes (nodes, edges, triplets, graphs): %s", "  ".join(str(tuple(b)) for b in batches.budgets))
    log.info("padding waste: %s", ", ".join(f"{percent:.1f} % of {name}" for name, percent in batches.waste.items()))
    return batches


def make_trainer(
    config: Config,
    dataset: data.Dataset,
    task: data.Task,
    model: Any,
    batches: TrainingBatches,
    evaluation: Evaluation,
    folder: Path,
    ranks: Ranks,
) -> Trainer:
    """Optimiser, compiled step and loop of a run."""
    settings, training = config.optimizer, config.training
    optimizer = AdamW(
        ParameterTuple(model.trainable_params()), settings.beta1, settings.beta2, settings.clip_norm,
        settings.ema_decay, settings.amsgrad,
    )  # fmt: skip
    information = {
        "config": config_to_dict(config),
        "task": task.to_dict(),
        "normalizer": dataset.normalizer.to_dict(),
        "elements": dataset.train_elements,
        "range": data.range_of(dataset, task).to_dict(),
        "source": dataset.packed.table.source,
        "split": dataset.split.name,
        "split_sha256": digest(dataset.split),
        "versions": versions(),
    }
    forces = training.force_weight > 0
    recipe = Recipe(
        training.epochs, training.early_stop, config.run.log_every, config.run.save_minutes, config.run.keep,
        dataclasses.asdict(settings), dataclasses.asdict(config.schedule),
    )  # fmt: skip
    objective = Objective(training.loss, training.energy_weight, training.force_weight)
    step = TrainStep(model, optimizer, objective, ranks.size, goes_on=training.loss_scale == "dynamic")
    quantities, weights = [Quantity("", "mae", task.target.unit)], {ENERGY: 1.0}
    if forces:
        weights = {ENERGY: training.energy_weight, FORCES: training.force_weight}
        quantities = [Quantity("energy ", "mae", "meV", 1000), Quantity("force ", "force_mae", "meV/A", 1000)]
    score = partial(validate, evaluation, dataset.split.valid, weights)
    return Trainer(
        model, optimizer, step, batches, score, recipe, quantities, dataset.normalizer.scale, folder, information, ranks
    )


def validate(evaluation: Evaluation, rows: np.ndarray, weights: Mapping[str, float]) -> Score:
    """How good the weights are that the model holds, on the validation structures.

    Args:
        evaluation: of the task.
        rows: of the validation structures.
        weights: of the errors of the quantities that are learned, as in the loss.

    Raises:
        LossError: a prediction is NaN or infinite.
    """
    errors = evaluation.errors(rows, weights)
    value = sum(weight * errors[name] for name, weight in weights.items())
    return Score(value, tuple(errors[name] for name in weights))


def write_start(stage: Path, config: Config, split: Split, trainer: Trainer | None) -> None:
    """The first files of a run; of a continued one those that may differ.

    Args:
        stage: where to write them.
        config: of the run.
        split: of the run.
        trainer: of a new run, whose state before the first step is written; None for a continued one.
    """
    write_text(stage / CONFIG, config_to_yaml(config))
    save_split(split, stage / SPLIT)
    if trainer is not None:
        trainer.save_start(stage)


def check_agreement(config: Config, dataset: data.Dataset, trainer: Trainer) -> None:
    """All processes of a run must start from the same: another file on one server would go unnoticed for hours.

    Raises:
        RankError: they do not.
    """
    if trainer.ranks.size == 1:
        return
    split = dataset.split
    about = config_to_yaml(config) + dataset.packed.table.source + repr(trainer.progress)
    rows = np.concatenate((split.train, split.valid, split.test))
    trainer.ranks.agree(zlib.crc32(rows.tobytes(), zlib.crc32(about.encode())), "configuration, data and progress")
    weights = checkpoints.parameters_of(trainer.model)
    trainer.ranks.agree(zlib.crc32(b"".join(weights[name].tobytes() for name in sorted(weights))), "initial weights")
