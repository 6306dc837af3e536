"""The data that a configuration describes: target, graphs and split."""

from __future__ import annotations

import dataclasses

import numpy as np

from configs.schema import Config
from data_tools import dataset as data
from data_tools.graph import StructureTable
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.splits import Split, make_split
from models import NEEDS_TRIPLETS

DTYPES = {"float32": np.float32, "float64": np.float64}


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
        return data.open_two_files(settings.train_file, settings.test_file, cutoff, progress=True, keys=settings.keys)
    return data.open_graphs(settings.file, cutoff, progress=True, keys=settings.keys)


def dataset_of(config: Config, packed: PackedGraphs, task: data.Task) -> data.Dataset:
    """Split, labels and standardisation that a configuration describes, with the graphs of its data."""
    return data.make_dataset(for_model(packed, config), split_of(config, packed.table), task)


def for_model(packed: PackedGraphs, config: Config) -> PackedGraphs:
    """The graphs, with triplets in their batches where the model of a configuration uses them."""
    return dataclasses.replace(packed, triplets=config.model.name in NEEDS_TRIPLETS)


def split_of(config: Config, table: StructureTable) -> Split:
    """The split of a configuration, applied to a table."""
    settings = config.data
    return make_split(
        settings.split, table, settings.split_seed, settings.train_size or None, settings.valid_size or None,
        settings.test_size or None, settings.split_file or None,
    )  # fmt: skip
