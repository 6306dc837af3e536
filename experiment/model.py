"""The network that a configuration describes."""

from __future__ import annotations

import dataclasses

from mindspore import nn

from configs.loading import ConfigError
from configs.rules import check_outputs
from configs.schema import Config
from data_tools import dataset as data
from models import build_model


def build_single(config: Config, task: data.Task) -> nn.Cell:
    """The network of a configuration, for programs that know one label for each molecule.

    Raises:
        ConfigError: it has more outputs than one, or the constructor refuses a hyperparameter.
    """
    check_outputs(config)
    return build(config, task)


def build(config: Config, task: data.Task) -> nn.Cell:
    """The network of a configuration that is resolved.

    Raises:
        ConfigError: the constructor refuses a hyperparameter.
    """
    hyperparameters = dataclasses.asdict(config.model)
    name = hyperparameters.pop("name")
    try:
        run = config.run
        readout = tuple(one.readout for one in task.every) if task.others else task.readout
        learned = bool(task.others) and config.training.task_weighting == "uncertainty"
        return build_model(
            name, dtype=run.dtype, amp_level=run.amp_level, readout=readout, uncertainties=learned, **hyperparameters
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
