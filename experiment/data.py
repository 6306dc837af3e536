"""The data that a configuration describes: its target and its graphs."""

from __future__ import annotations

import dataclasses

import numpy as np

from configs.schema import Config
from data_tools import dataset as data
from data_tools.graphs.packed import PackedGraphs
from models import NEEDS_TRIPLETS

DTYPES = {"float32": np.float32, "float64": np.float64}


def resolve_task(config: Config) -> data.Task:
    """The target of a configuration with every ``auto`` resolved."""
    target = config.target
    return data.resolve_task(target.name, target.readout, target.reference, target.standardisation)


def open_packed(config: Config) -> PackedGraphs:
    """The graphs of the data that a configuration names, as its model takes them."""
    settings, cutoff = config.data, config.model.cutoff
    if settings.train_file:
        files = settings.train_file, settings.test_file
        return for_model(data.open_two_files(*files, cutoff, progress=True, keys=settings.keys), config)
    return for_model(data.open_graphs(settings.file, cutoff, progress=True, keys=settings.keys), config)


def for_model(packed: PackedGraphs, config: Config) -> PackedGraphs:
    """The graphs, with triplets in their batches where the model of a configuration uses them."""
    return dataclasses.replace(packed, triplets=config.model.name in NEEDS_TRIPLETS)
