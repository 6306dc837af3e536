"""The data that a configuration describes: its target and its graphs."""

from __future__ import annotations

import dataclasses

import numpy as np

from configs.schema import Config
from data_tools import dataset as data
from data_tools.graph import DataError
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.tasks import resolve_tasks
from models import NEEDS_TRIPLETS

DTYPES = {"float32": np.float32, "float64": np.float64}


def resolve_task(config: Config) -> data.Task:
    """The target of a configuration with every ``auto`` resolved; with a user's own data it may be any property."""
    target, settings = config.target, config.data
    files = (settings.train_file, settings.test_file) if settings.train_file else (settings.file,)
    own = not all(map(data.is_shipped, files))
    if target.names:
        four = target.names, target.readout, target.reference, target.standardisation
        return resolve_tasks(*four, units=target.units, own=own, readouts=target.readouts)
    return data.resolve_task(target.name, target.readout, target.reference, target.standardisation, target.unit, own)


def open_packed(config: Config) -> PackedGraphs:
    """The graphs of the data that a configuration names, as its model takes them.

    Raises:
        DataError: the data cannot be used, or rows are left out of what an index file counts.
    """
    settings, cutoff = config.data, config.model.cutoff
    labels = [task.target.name for task in resolve_task(config).every]
    if settings.train_file:
        files = settings.train_file, settings.test_file
        packed = data.open_two_files(*files, cutoff, progress=True, keys=settings.keys, labels=labels)
    else:
        packed = data.open_graphs(settings.file, cutoff, progress=True, keys=settings.keys, labels=labels)
    if packed.table.remarks and settings.split == "file":
        raise DataError(
            f"data.split=file: {settings.split_file} counts structures, and {packed.table.remarks[-1]}; remove their "
            "rows, or take another split"
        )
    return for_model(packed, config)


def for_model(packed: PackedGraphs, config: Config) -> PackedGraphs:
    """The graphs, with triplets in their batches where the model of a configuration uses them."""
    return dataclasses.replace(packed, triplets=config.model.name in NEEDS_TRIPLETS)
