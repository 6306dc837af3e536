"""What keys of a configuration have to do with each other, and what may change when a run is resumed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from configs.loading import ConfigError
from configs.model_sections import WITHOUT_ENERGY
from configs.schema import Config, DataConfig, TargetConfig, TrainingConfig

BEGIN_ANEW = "a run goes on with the same task, model, data and seed: leave that out, or begin a new run"
FLOAT16_LEVELS = ("O2", "O3")
ATTENTION = "attention"  # the readout
ENERGY = "energy"  # the target that has derivatives
FORCE_CONSTANTS = "force_constants"  # the target that is one
OF_FORCE_CONSTANTS = ("frequency", "frobenius_norm")  # losses
PHYSICS_AWARE = "physics_aware"  # the schedule that looks at the symmetry of force constants

#: keys that a resumed run may have other values of; all others are what its weights and its best model depend on
MAY_CHANGE = {
    "data.file", "data.train_file", "data.test_file", "data.split_file",  # a place; what is there is compared
    "data.shapes",  # how batches are padded
    "optimizer.lr", "optimizer.weight_decay", "optimizer.decay_on", "optimizer.epsilon", "optimizer.clip_norm",
    "schedule.name", "schedule.warmup_steps", "schedule.warmup_epochs", "schedule.cooldown_epochs",
    "schedule.warmup_lr", "schedule.min_lr", "schedule.decay_rate", "schedule.decay_steps", "schedule.patience",
    "schedule.warmup_fraction", "schedule.milestones",
    "training.epochs", "training.batch_size", "training.eval_batch_size", "training.loss_scale",
    "training.early_stop", "training.pretrained",
    "run.mode", "run.device_target", "run.device_id", "run.amp_level", "run.output",
    "run.log_every", "run.save_minutes", "run.keep", "run.plots",
    "run.run_mode", "run.ckpt_file", "run.log_file", "run.tensorboard", "run.profiling", "run.profiling_step",
}  # fmt: skip


def check_rules(config: Config) -> None:
    """Refuse keys that contradict each other, before anything is read or written.

    Raises:
        ConfigError: they do.
    """
    _check_data(config.data)
    _check_noise(config)
    training, run, schedule = config.training, config.run, config.schedule
    _check_transfer(training)
    if config.model.name in WITHOUT_ENERGY:
        _check_without_energy(config)
    if config.target.name.strip().lower() == FORCE_CONSTANTS:
        _check_force_constants(config)
    else:
        _check_no_force_constants(config)
    of_derivatives = [name for name in ("force_weight", "stress_weight") if getattr(training, name)]
    if training.energy_weight != 1 and not of_derivatives:
        raise ConfigError(
            f"training.energy_weight {training.energy_weight}: expected 1 without training.force_weight and "
            "training.stress_weight"
        )
    if of_derivatives and run.amp_level in FLOAT16_LEVELS:
        raise ConfigError(f"run.amp_level {run.amp_level}: expected O0 beside training.{of_derivatives[0]}")
    if training.stress_weight and config.target.name.strip().lower() not in (ENERGY, FORCE_CONSTANTS):
        raise ConfigError(
            f"training.stress_weight {training.stress_weight}: expected target.name={ENERGY}, of which stress is a "
            f"derivative, or {FORCE_CONSTANTS}, got {config.target.name}"
        )
    if run.amp_level in FLOAT16_LEVELS and run.dtype != "float32":
        raise ConfigError(f"run.dtype {run.dtype}: expected float32 beside run.amp_level {run.amp_level}")
    if schedule.warmup_steps and schedule.warmup_epochs:
        raise ConfigError("schedule.warmup_steps and schedule.warmup_epochs: give one of the two")
    for name, rate in (("warmup_lr", schedule.warmup_lr), ("min_lr", schedule.min_lr)):
        if rate > config.optimizer.lr:
            raise ConfigError(
                f"schedule.{name} {rate:g}: expected at most optimizer.lr, which is {config.optimizer.lr:g}"
            )
    check_outputs(config)
    _check_several(config)
    _check_attention(config)


def _check_attention(config: Config) -> None:
    """A readout with attention needs a score of each atom beside its value."""
    model = config.model
    if config.target.readout == ATTENTION and (not hasattr(model, "outputs") or getattr(model, "task", "") == "graph"):
        raise ConfigError(
            f"target.readout {ATTENTION}: expected model.name=schnet, dimenetpp, or segnn with model.task=node, whose "
            f"atoms have a score beside their value, got {model.name}"
        )


def _check_noise(config: Config) -> None:
    """Derivatives of an energy belong to the positions that they are published for."""
    training, noise = config.training, config.data.noise
    constants = config.target.name.strip().lower() == FORCE_CONSTANTS
    if noise and (constants or training.force_weight or training.stress_weight):
        what = f"target.name={FORCE_CONSTANTS}" if constants else "training.force_weight or training.stress_weight"
        raise ConfigError(
            f"data.noise {noise:g}: expected 0 beside {what}, whose labels would be those of other positions"
        )


def _check_several(config: Config) -> None:
    """Several targets need a network with several outputs, and a loss that each of them has a share of."""
    training, names = config.training, config.target.names
    usual = TrainingConfig()
    given = [key for key in ("task_weights", "task_weighting") if getattr(training, key) != getattr(usual, key)]
    if not names:
        given = [f"training.{key}" for key in given]
        given += [f"target.{key}" for key in ("units", "readouts") if getattr(config.target, key)]
        if given:
            raise ConfigError(f"{given[0]}: it belongs to several targets; give target.names")
        return
    if config.target.name not in (TargetConfig.name, names[0]):
        raise ConfigError(f"target.name {config.target.name} beside target.names: give one of the two")
    if not hasattr(config.model, "outputs"):
        raise ConfigError(f"target.names: the model {config.model.name} has one output; expected a model with several")
    if len(training.task_weights) not in (1, len(names)):
        found = len(training.task_weights)
        raise ConfigError(f"training.task_weights: expected one number or {len(names)}, found {found}")
    if config.target.unit:
        raise ConfigError(f"target.unit {config.target.unit}: expected target.units, names and units, for target.names")
    if training.force_weight or training.stress_weight or training.loss not in ("mse", "mae", "huber"):
        raise ConfigError("target.names: expected training.loss mse, mae or huber, without forces and stress")


def words_of(text: str) -> list[str]:
    """The words between the commas of a value."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _check_transfer(training: TrainingConfig) -> None:
    """What of ``pretrained`` is taken and frozen needs one."""
    for key, value, nothing in (("freeze", training.freeze, ""), ("fresh", training.fresh, TrainingConfig.fresh)):
        if value != nothing and not training.pretrained:
            raise ConfigError(f"training.{key} {value}: expected training.pretrained beside it, whose weights it is of")


def _check_force_constants(config: Config) -> None:
    """Second derivatives are in full precision, continuous and all that the loss has a weight 1 for.

    They are those of an energy: a mean over atoms would make them smaller in a larger supercell.
    """
    training, run, envelope = config.training, config.run, getattr(config.model, "envelope", "polynomial")
    if getattr(config.model, "task", "node") == "graph" and getattr(config.model, "pooling", "sum") != "sum":
        raise ConfigError(
            f"model.pooling {getattr(config.model, 'pooling', '')}: expected sum, or model.task=node, for "
            f"target.name={FORCE_CONSTANTS}: an energy grows with the number of atoms"
        )
    if training.energy_weight != 1:
        raise ConfigError(
            f"training.energy_weight {training.energy_weight}: expected 1 for target.name={FORCE_CONSTANTS}"
        )
    if envelope != "polynomial":
        raise ConfigError(
            f"model.envelope {envelope}: expected polynomial for target.name={FORCE_CONSTANTS}, because second "
            "derivatives jump at the cutoff otherwise"
        )
    if run.amp_level in FLOAT16_LEVELS:
        raise ConfigError(f"run.amp_level {run.amp_level}: expected O0 for target.name={FORCE_CONSTANTS}")


def _check_no_force_constants(config: Config) -> None:
    """What belongs to force constants is as it is by default where another target is learned."""
    training = config.training
    for key, value, wrong in (
        ("training.loss", training.loss, training.loss in OF_FORCE_CONSTANTS),
        ("schedule.name", config.schedule.name, config.schedule.name == PHYSICS_AWARE),
        ("training.equivariance_weight", training.equivariance_weight, training.equivariance_weight > 0),
        ("training.probes", training.probes, training.probes != TrainingConfig.probes),
    ):
        if wrong:
            raise ConfigError(f"{key} {value}: it belongs to target.name={FORCE_CONSTANTS}")


def _check_without_energy(config: Config) -> None:
    """A model of force constants themselves learns them alone."""
    name, training = config.model.name, config.training
    if config.target.name.strip().lower() != FORCE_CONSTANTS:
        raise ConfigError(
            f"target.name {config.target.name}: expected {FORCE_CONSTANTS} for model.name={name}, which has no energy"
        )
    if config.target.readout not in ("auto", "sum"):
        raise ConfigError(
            f"target.readout {config.target.readout}: expected auto for model.name={name}, which has none"
        )
    for key in ("force_weight", "stress_weight"):
        if getattr(training, key):
            raise ConfigError(
                f"training.{key} {getattr(training, key):g}: expected 0 for model.name={name}, which has no energy, "
                "and hence no forces and no stress"
            )


def check_force_precision(config: Config, quantities: Collection[str]) -> None:
    """Refuse float16 where a program that evaluates computes derivatives of the energy.

    Raises:
        ConfigError: there are quantities besides ``energy``, and run.amp_level is not O0.
    """
    if set(quantities) - {ENERGY} and config.run.amp_level in FLOAT16_LEVELS:
        raise ConfigError(f"--amp_level {config.run.amp_level}: expected O0 where forces are computed")


def check_outputs(config: Config) -> None:
    """Refuse a network of several outputs where one label of each molecule is known.

    Raises:
        ConfigError: it has more than one.
    """
    outputs, targets = getattr(config.model, "outputs", 1), len(config.target.names)
    if outputs not in (1, targets):
        raise ConfigError(
            f"model.outputs {outputs}: expected 1, or that of target.names; convert_weights.py takes more"
        )


def _check_data(data: DataConfig) -> None:
    if data.train_file or data.test_file:
        if not (data.train_file and data.test_file) or data.split != "two_files":
            raise ConfigError("data.train_file and data.test_file belong together and to data.split=two_files")
        if data.file != DataConfig.file:
            raise ConfigError(f"data.file {data.file} or data.train_file with data.test_file: give one of the two")
    elif data.split == "two_files":
        raise ConfigError("data.split=two_files: expected data.train_file and data.test_file; give both")
    if data.split == "file" and not data.split_file:
        raise ConfigError("data.split=file: expected an index file, give data.split_file")
    if data.split_file and data.split != "file":
        raise ConfigError(f"data.split_file {data.split_file}: it belongs to data.split=file, not {data.split}")


def check_resume_model(config: Config, overrides: Iterable[tuple[str, str]], folder: str) -> None:
    """Refuse another model for a run that is continued, before its hyperparameters are looked at.

    Raises:
        ConfigError: an override names one.
    """
    for key, text in overrides:
        if key == "model.name" and text != config.model.name:
            raise ConfigError(f"--resume {folder}: model.name {text!r} instead of {config.model.name!r}; {BEGIN_ANEW}")


def check_resume(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], folder: str) -> None:
    """Refuse another task, model, data set or seed for a run that is continued.

    Args:
        before: the sections of the run's configuration.
        now: those that it would continue with.
        folder: of the run.

    Raises:
        ConfigError: keys differ that are not in ``MAY_CHANGE``.
    """
    keys = [f"{section}.{key}" for section, values in now.items() for key in values]
    wrong = []
    for name in keys:
        section, _, key = name.partition(".")
        old, new = before.get(section, {}).get(key), now[section][key]
        if old != new and name not in MAY_CHANGE:
            wrong.append(f"{name} {new!r} instead of {old!r}")
    if wrong:
        raise ConfigError(
            f"--resume {folder}: {'; '.join(wrong)}; {BEGIN_ANEW}; it may start from these weights, with "
            f"--set training.pretrained={folder}"
        )
