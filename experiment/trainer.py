"""The parts of a training run, made from its configuration and its data."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import ParameterTuple

from configs.loading import config_from_dict, config_to_dict, config_to_yaml
from configs.rules import check_resume
from configs.schema import Config
from data_tools import dataset as data
from data_tools.graph import DataError
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.labels.split_sizes import SIZES, fit_sizes
from data_tools.labels.splits import Split, digest, stored_digest
from data_tools.labels.statistics import regression_metrics
from data_tools.source_files import same_content
from data_tools.tables import name_of_row
from experiment.data import DTYPES, dataset_of, open_packed
from experiment.evaluation.evaluator import Evaluator
from experiment.forecast import Forecast, forecast, one_of_each_shape
from experiment.measures import force_metrics
from experiment.run_folder import SPLIT
from training import checkpoint as checkpoints
from training.device import versions
from training.distributed import Ranks
from training.loop import Recipe, Trainer
from training.meter import LossError
from training.optimizer import AdamW, evaluation_weights
from training.state import Quantity, Score
from training.step import Objective, TrainStep

log = logging.getLogger("geospore")


def open_fitted(config: Config, task: data.Task, chosen: Collection[str]) -> tuple[Config, data.Dataset, str]:
    """The data of a configuration, with the sizes of its split adapted to them.

    Args:
        config: the configuration.
        task: what is predicted.
        chosen: sizes (``data.train_size``, ...) that somebody asked for: these do not change.

    Returns:
        The configuration with sizes that fit, the data, and a line that says what changed, empty where nothing did.
    """
    packed, settings = open_packed(config), config.data
    sizes, words = fit_sizes(
        settings.split, packed.table, {name: getattr(settings, name) for name in SIZES},
        {key.removeprefix("data.") for key in chosen}, settings.split_seed, settings.split_file or None,
    )  # fmt: skip
    config = dataclasses.replace(config, data=dataclasses.replace(settings, **sizes))
    return config, dataset_of(config, packed, task), words


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
    evaluate: Evaluator,
    folder: Path,
    ranks: Ranks,
) -> Trainer:
    """Optimiser, compiled step and loop of a run."""
    settings, training = config.optimizer, config.training
    optimizer = AdamW(
        ParameterTuple(model.trainable_params()), settings.beta1, settings.beta2, settings.clip_norm,
        settings.ema_decay, settings.amsgrad, settings.decay_on,
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
        config.run.seed, dataclasses.asdict(settings), dataclasses.asdict(config.schedule),
    )  # fmt: skip
    objective = Objective(training.loss, training.energy_weight, training.force_weight)
    step = TrainStep(model, optimizer, objective, ranks.size, goes_on=training.loss_scale == "dynamic")
    quantities = [Quantity("", "mae", task.target.unit)]
    if forces:
        quantities = [Quantity("energy ", "mae", "meV", 1000), Quantity("force ", "force_mae", "meV/A", 1000)]
    scale = dataset.normalizer.scale
    return Trainer(
        model, optimizer, step, batches, lambda: validate(dataset, evaluate, objective), recipe, quantities, scale,
        folder, information, ranks,
    )  # fmt: skip


def validate(dataset: data.Dataset, evaluate: Evaluator, objective: Objective) -> Score:
    """How good the weights are that the model holds, on the validation molecules.

    Raises:
        LossError: a prediction is NaN or infinite.
    """
    valid, with_forces = dataset.split.valid, objective.force_weight > 0
    found = evaluate(valid)
    bad = ~np.isfinite(found.values)
    if with_forces and found.forces is not None:
        owner = np.repeat(np.arange(len(valid)), dataset.packed.table.n_atoms[valid])
        bad[owner[~np.isfinite(found.forces).all(axis=1)]] = True
    if bad.any():
        raise LossError(
            f"the model predicts NaN or infinity for {bad.sum()} of {len(valid)} validation molecules: "
            f"{', '.join(name_of_row(dataset.packed.table, int(row)) for row in valid[bad][:10])}; lower the learning "
            "rate or set optimizer.clip_norm"
        )
    energy = regression_metrics(found.values, dataset.labels[valid])["mae"]
    if not with_forces:
        return Score(energy, (energy,))
    force = force_metrics(found.forces, dataset.forces_of(valid))["mae"]
    return Score(objective.energy_weight * energy + objective.force_weight * force, (energy, force))


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


def check_continuation(
    config: Config, dataset: data.Dataset, task: data.Task, previous: checkpoints.Checkpoint, folder: Path
) -> None:
    """Whether a run can be continued so: another task, model, seed, data set or split would spoil it unnoticed.

    Args:
        config: what it would continue with.
        dataset: its data, as they are now.
        task: resolved.
        previous: its newest checkpoint.
        folder: of the run.

    Raises:
        ConfigError: keys differ that make it another run.
        DataError: the data or the split are not those of the run.
    """
    information = previous.information
    then, now = config_to_dict(config_from_dict(information["config"], str(folder))), config_to_dict(config)
    then["target"], now["target"] = information["task"], task.to_dict()
    check_resume(then, now, str(folder))
    if then["training"]["pretrained"] != now["training"]["pretrained"] and now["training"]["pretrained"]:
        log.info("training.pretrained has no effect: the run has begun already")
    source = dataset.packed.table.source
    if not same_content(information.get("source", ""), source):
        raise DataError(
            f"--resume {folder}: the data are not those of the run: {source} now, {information.get('source')} then; "
            f"other or more data need a new run, from these weights with --set training.pretrained={folder}"
        )
    stored = information.get("split_sha256") or stored_digest(folder / SPLIT)
    if stored and stored != digest(dataset.split):
        raise DataError(
            f"--resume {folder}: the split is not that of the run, which would test on molecules it has trained on; "
            "begin a new run, or use the version of the program that began this one"
        )


def foresee(config: Config, split: Split, trainer: Trainer, batches: TrainingBatches, evaluate: Evaluator) -> Forecast:
    """What the run would take, from a few steps of it and an evaluation batch, which has the shape of all of them."""
    samples = one_of_each_shape(batches.epoch(0), sum(count > 0 for count in batches.used))
    part = split.valid[: config.training.eval_batch_size * trainer.ranks.size]

    def evaluate_part() -> None:
        with evaluation_weights(trainer.optimizer):
            evaluate(part)

    return forecast(
        trainer, samples, [count for count in batches.used if count], evaluate_part, len(part) / len(split.valid),
        evaluate.budget.graphs - 1, config.run.device_target == "CPU",
    )  # fmt: skip
