"""The parts of a training run, made from its configuration and its data."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import ParameterTuple

from configs.loading import config_from_dict, config_to_dict, config_to_yaml
from configs.rules import check_resume
from configs.schema import Config, TrainingConfig
from data_tools import dataset as data
from data_tools.graph import DataError
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.labels.split_sizes import SIZES
from data_tools.labels.splits import Split, digest, stored_digest
from data_tools.labels.statistics import regression_metrics
from data_tools.source_files import same_content
from data_tools.tables import name_of_row
from experiment.data import DTYPES
from experiment.evaluation.evaluator import Evaluator
from experiment.evaluation.stress_errors import stress_metrics
from experiment.forecast import Forecast, forecast, one_of_each_shape
from experiment.measures import force_metrics
from experiment.resolve import task_of, with_names
from experiment.run_folder import SPLIT
from training import checkpoint as checkpoints
from training.device import versions
from training.distributed import Ranks
from training.loop import Recipe, Trainer
from training.meter import LossError
from training.objective import Term
from training.optimizer import AdamW, evaluation_weights
from training.state import Quantity, Score
from training.step import TrainStep

log = logging.getLogger("geospore")
#: how the terms of a loss on energies and their derivatives are called
DERIVED = {
    "energy": Quantity("energy ", "mae", "meV", 1000),
    "forces": Quantity("force ", "force_mae", "meV/A", 1000),
    "stress": Quantity("stress ", "stress_mae", "meV/A^3", 1000),
}


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
    provider = dataset.standardised([term.quantity for term in terms_of(config.training)])
    batches = training_batches(
        dataset.packed, dataset.split.train, provider, config.training.batch_size, config.run.seed,
        config.training.epochs, config.data.shapes, DTYPES[config.run.dtype], ranks.rank, ranks.size,
    )  # fmt: skip
    log.info("training shapes (nodes, edges, triplets, graphs): %s", "  ".join(str(tuple(b)) for b in batches.budgets))
    log.info("padding waste: %s", ", ".join(f"{percent:.1f} % of {name}" for name, percent in batches.waste.items()))
    return batches


def terms_of(training: TrainingConfig) -> tuple[Term, ...]:
    """The loss of a configuration: the label, and what of its derivatives has a weight."""
    weights = {"energy": training.energy_weight, "forces": training.force_weight, "stress": training.stress_weight}
    terms = (Term(quantity, weight, training.loss) for quantity, weight in weights.items())
    return tuple(term for term in terms if term.weight or term.quantity == "energy")


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
    recipe = Recipe(
        training.epochs, training.early_stop, config.run.log_every, config.run.save_minutes, config.run.keep,
        config.run.seed, dataclasses.asdict(settings), dataclasses.asdict(config.schedule),
    )  # fmt: skip
    terms = terms_of(training)
    step = TrainStep(model, optimizer, terms, ranks.size, goes_on=training.loss_scale == "dynamic")
    quantities = [Quantity("", "mae", task.target.unit)]
    if len(terms) > 1:
        quantities = [DERIVED[term.quantity] for term in terms]
    scale = dataset.normalizer.scale
    return Trainer(
        model, optimizer, step, batches, lambda: validate(dataset, evaluate, terms), recipe, quantities, scale,
        folder, information, ranks,
    )  # fmt: skip


def validate(dataset: data.Dataset, evaluate: Evaluator, terms: Sequence[Term]) -> Score:
    """How good the weights are that the model holds, on the validation molecules.

    Raises:
        LossError: a prediction is NaN or infinite.
    """
    valid, quantities = dataset.split.valid, [term.quantity for term in terms]
    found = evaluate(valid)
    bad = ~np.isfinite(found.values)
    if "forces" in quantities and found.forces is not None:
        owner = np.repeat(np.arange(len(valid)), dataset.packed.table.n_atoms[valid])
        bad[owner[~np.isfinite(found.forces).all(axis=1)]] = True
    if "stress" in quantities and found.stress is not None and dataset.stress is not None:
        bad |= (np.isfinite(dataset.stress[valid]) & ~np.isfinite(found.stress)).any(axis=(1, 2))
    if bad.any():
        raise LossError(
            f"the model predicts NaN or infinity for {bad.sum()} of {len(valid)} validation molecules: "
            f"{', '.join(name_of_row(dataset.packed.table, int(row)) for row in valid[bad][:10])}; lower the learning "
            "rate or set optimizer.clip_norm"
        )
    errors = {"energy": regression_metrics(found.values, dataset.labels[valid])["mae"]}
    if "forces" in quantities:
        errors["forces"] = force_metrics(found.forces, dataset.forces_of(valid))["mae"]
    if "stress" in quantities and dataset.stress is not None:
        errors["stress"] = stress_metrics(found.stress, dataset.stress[valid])["mae"]
    value = sum(term.weight * errors[term.quantity] for term in terms)
    return Score(value, tuple(errors[quantity] for quantity in quantities))


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


def check_same_data(source: str, previous: checkpoints.Checkpoint, folder: Path) -> None:
    """A run goes on with the data that it began with.

    Args:
        source: of the data, as they are now.
        previous: the run's newest checkpoint.
        folder: of the run.

    Raises:
        DataError: the data are others.
    """
    then = previous.information.get("source", "")
    if not same_content(then, source):
        raise DataError(
            f"--resume {folder}: the data are not those of the run: {source} now, {then} then; "
            f"other or more data need a new run, from these weights with --set training.pretrained={folder}"
        )


def check_continuation(
    config: Config, dataset: data.Dataset, task: data.Task, previous: checkpoints.Checkpoint, folder: Path
) -> None:
    """Whether a run can be continued so: another task, model, seed or split would spoil it unnoticed.

    Both configurations are compared without ``auto``, whichever version of the program has stored the earlier one, and
    sizes of the split only where the splits differ.

    Args:
        config: what it would continue with, resolved.
        dataset: its data, as they are now.
        task: resolved.
        previous: its newest checkpoint.
        folder: of the run.

    Raises:
        ConfigError: keys differ that make it another run.
        DataError: the split is not that of the run.
    """
    information = previous.information
    earlier = config_from_dict(information["config"], str(folder))
    then, now = config_to_dict(with_names(earlier, task_of(information["task"]))), config_to_dict(config)
    then["target"], now["target"] = information["task"], task.to_dict()
    stored = information.get("split_sha256") or stored_digest(folder / SPLIT)
    if same_split := stored in ("", digest(dataset.split)):
        then["data"] |= {name: now["data"][name] for name in SIZES}
    check_resume(then, now, str(folder))
    if then["training"]["pretrained"] != now["training"]["pretrained"] and now["training"]["pretrained"]:
        log.info("training.pretrained has no effect: the run has begun already")
    if not same_split:
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
