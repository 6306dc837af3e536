"""The parts of a training run, made from its configuration and its data."""

from __future__ import annotations

import dataclasses
import logging
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import ParameterTuple

from configs.schema import Config, TrainingConfig
from data_tools import dataset as data
from data_tools.graph import value_name
from data_tools.graphs.loader import TrainingBatches, training_batches
from data_tools.graphs.rotations import RotationsBeside
from data_tools.labels.splits import digest
from data_tools.labels.targets import FORCE_CONSTANTS
from experiment.data import DTYPES
from experiment.evaluation import Evaluation
from experiment.evaluation.second_derivatives import ASYMMETRY
from models.parts import rates_of
from training.checkpoint import Checkpoint
from training.device import versions
from training.distributed import Ranks
from training.loop import Recipe, Trainer
from training.losses import OF_PRODUCTS
from training.objective import Term
from training.optimizer import AdamW
from training.state import Quantity, Score, errors_in_words
from training.step import TrainStep
from training.weights import parameters_of

log = logging.getLogger("geospore")
#: how the terms of a loss on energies and their derivatives are called where there are several
DERIVED = {
    "energy": Quantity("energy ", "mae", "meV", 1000),
    "forces": Quantity("force ", "force_mae", "meV/A", 1000),
    "stress": Quantity("stress ", "stress_mae", "meV/A^3", 1000),
    "hessian_product": Quantity("force-constant ", "mae", "eV/A^2"),
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
    training, seed = config.training, config.run.seed
    quantities = [term.quantity for term in terms_of(training, config.target.name, len(dataset.parts))]
    provider = dataset.standardised(quantities, seed, training.probes)
    if training.equivariance_weight:
        provider = RotationsBeside(provider, seed)
    batches = training_batches(
        dataset.packed, dataset.rows_of_an_epoch(training.probes), provider, training.batch_size, seed,
        training.epochs, config.data.shapes, DTYPES[config.run.dtype], ranks.rank, ranks.size,
        config.data.augment_rotations, config.data.noise,
    )  # fmt: skip
    log.info("training shapes (nodes, edges, triplets, graphs): %s", "  ".join(str(tuple(b)) for b in batches.budgets))
    log.info("padding waste: %s", ", ".join(f"{percent:.1f} % of {name}" for name, percent in batches.waste.items()))
    return batches


def terms_of(training: TrainingConfig, target: str = "energy", outputs: int = 0) -> tuple[Term, ...]:
    """The loss of a configuration: the label of the target, and what of its derivatives has a weight.

    A loss that is made for products with force constants is that of those alone; the rest has the loss ``norm``.  Of
    several tasks, which are so many outputs, each is a term.
    """
    if outputs:
        weights = training.task_weights * (outputs if len(training.task_weights) == 1 else 1)
        return tuple(Term(value_name(k), weight, training.loss) for k, weight in enumerate(weights))
    label = "hessian_product" if target == FORCE_CONSTANTS else "energy"
    of_quantities = {label: training.energy_weight, "forces": training.force_weight, "stress": training.stress_weight}
    others = "norm" if training.loss in OF_PRODUCTS else training.loss
    terms = (
        Term(name, weight, training.loss, training.equivariance_weight) if name == label else Term(name, weight, others)
        for name, weight in of_quantities.items()
    )
    return tuple(term for term in terms if term.weight or term.quantity == label)


def layer_rates(model: Any, layer_decay: float) -> dict[str, float] | None:
    """The factor of each weight's learning rate; None where all are 1."""
    return None if layer_decay == 1 else rates_of([weight.name for weight in model.trainable_params()], layer_decay)


def make_trainer(
    config: Config,
    dataset: data.Dataset,
    task: data.Task,
    model: Any,
    batches: TrainingBatches,
    evaluation: Evaluation,
    folder: Path,
    ranks: Ranks,
    previous: Checkpoint | None = None,
) -> Trainer:
    """Optimiser, compiled step and loop of a run, where its newest checkpoint says that it stands.

    Raises:
        CheckpointError: the checkpoint lacks the state of the optimiser.
    """
    settings, training = config.optimizer, config.training
    optimizer = AdamW(
        ParameterTuple(model.trainable_params()), settings.beta1, settings.beta2, settings.clip_norm,
        settings.ema_decay, settings.amsgrad, settings.decay_on, layer_rates(model, settings.layer_decay),
    )  # fmt: skip
    information = {
        "config": dataclasses.asdict(config),
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
    terms = terms_of(training, task.target.name, len(dataset.parts))
    step = TrainStep(model, optimizer, terms, ranks.size, goes_on=training.loss_scale == "dynamic")
    quantities, units = watched(task, dataset, terms)
    scale = np.array(units) if task.others else dataset.normalizer.scale
    score = partial(validate, evaluation, dataset.split.valid, terms, quantities, units)
    trainer = Trainer(model, optimizer, step, batches, score, recipe, quantities, scale, folder, information, ranks)
    if previous is not None:
        trainer.restore(previous)
        log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
    return trainer


def watched(task: data.Task, dataset: data.Dataset, terms: Sequence[Term]) -> tuple[list[Quantity], tuple[float, ...]]:
    """What the terms of a loss are called, and what the error of each is divided by in the sum of them."""
    if task.others:
        quantities = [Quantity(f"{one.target.name} ", f"{one.target.name}_mae", one.target.unit) for one in task.every]
        return quantities, tuple(law.scale for law in dataset.normalizer.every)
    quantities = [Quantity("", "mae", task.target.unit)]
    if len(terms) > 1:
        quantities = [DERIVED[term.quantity] for term in terms]
    return quantities, (1.0,) * len(terms)


def validate(
    evaluation: Evaluation,
    rows: np.ndarray,
    terms: Sequence[Term],
    quantities: Sequence[Quantity],
    units: Sequence[float],
) -> Score:
    """How good the weights are that the model holds, on the validation structures.

    Args:
        evaluation: of the task.
        rows: of the validation structures.
        terms: of the loss, whose weights their errors have here too.
        quantities: what the log calls them.
        units: what the error of each is divided by in their sum, so that those of several targets may be added.

    Raises:
        LossError: a prediction is NaN or infinite.
    """
    started = time.perf_counter()
    errors = evaluation.errors(rows, [term.quantity for term in terms])
    value = sum(term.weight * errors[term.quantity] / unit for term, unit in zip(terms, units, strict=True))
    score = Score(value, tuple(errors[term.quantity] for term in terms), errors.get(ASYMMETRY, 0.0))
    asymmetry = f"  asymmetry: {score.asymmetry:.1e} eV/A^2" if ASYMMETRY in errors else ""
    seconds = time.perf_counter() - started
    log.info("%s%s, time used: %.2f s", errors_in_words("eval", quantities, score.errors, ":"), asymmetry, seconds)
    return score


def check_agreement(dataset: data.Dataset, trainer: Trainer) -> None:
    """All processes of a run must start from the same: another file on one server would go unnoticed for hours.

    Raises:
        RankError: they do not.
    """
    if trainer.ranks.size == 1:
        return
    split = dataset.split
    about = f"{trainer.information['config']} {trainer.information['source']} {trainer.progress}"
    rows = np.concatenate((split.train, split.valid, split.test))
    trainer.ranks.agree(zlib.crc32(rows.tobytes(), zlib.crc32(about.encode())), "configuration, data and progress")
    weights = parameters_of(trainer.model)
    trainer.ranks.agree(zlib.crc32(b"".join(weights[name].tobytes() for name in sorted(weights))), "initial weights")
