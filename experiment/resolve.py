"""Every ``auto`` of a configuration and every size that depends on the data, replaced by its value, once.

The data are opened first, then the configuration is resolved, then the model is built: what config.yaml and checkpoints
hold are numbers and names.  A later version of the program may choose other values for ``auto``; a run that has begun
keeps its own.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.rules import check_resume
from configs.schema import ZERO_OUTPUT, Config, TargetConfig
from data_tools.dataset import AUTO, Dataset, Task, make_dataset
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.split_sizes import SIZES, fit_sizes
from data_tools.labels.splits import CHOOSE_SIZES, Split, digest, make_split
from experiment.data import open_packed
from training.checkpoint import Checkpoint

#: keys of a model that are averages over the training structures where a configuration says 0
AVERAGES = ("average_degree", "average_nodes")


@dataclass(frozen=True)
class Begun:
    """What a run that goes on began with.

    Attributes:
        folder: of the run.
        checkpoint: its newest that is whole.
        split_sha256: digest of its split; empty where neither the checkpoint nor the folder says it.
        sizes: of its split, by their key in the section ``data``.
    """

    folder: Path
    checkpoint: Checkpoint
    split_sha256: str
    sizes: dict[str, int]


def resolve(
    config: Config, task: Task, packed: PackedGraphs, chosen: Collection[str] = (), begun: Begun | None = None
) -> tuple[Config, Split, str]:
    """A configuration without ``auto``, whose sizes of the split are numbers of structures that the data can serve.

    Averages of the model that are 0 become those of the training structures.

    Args:
        config: as it was given.
        task: of its target.
        packed: the structures that it names.
        chosen: sizes (``data.train_size``, ...) that were asked for: those do not adapt.
        begun: the run that goes on, whose split it must be.

    Returns:
        The configuration, its split of the table, and a line that says which sizes have adapted, empty where none has.

    Raises:
        ConfigError: other sizes than those of the run that goes on.
        DataError: sizes that the data cannot serve, or another split than that of the run.
    """
    table = packed.table
    config, settings = with_names(config, task), config.data
    fitted, words = fit_sizes(
        settings.split, table, {name: getattr(settings, name) for name in SIZES},
        {key.removeprefix("data.") for key in chosen}, settings.split_seed, settings.split_file or None,
    )  # fmt: skip
    config = _with_data(config, fitted)
    split = split_of(config, table)
    config = _with_data(config, sizes_of(split, settings.split))
    if begun is not None and begun.split_sha256 not in ("", digest(split)):
        now = {name: getattr(config.data, name) for name in SIZES}
        check_resume({"data": begun.sizes}, {"data": now}, str(begun.folder))
        raise DataError(
            f"--resume {begun.folder}: the split is not that of the run, which would test on structures it has trained "
            "on; begin a new run, or use the version of the program that began this one"
        )
    return _with_averages(config, packed, split.train), split, words


def split_of(config: Config, table: StructureTable) -> Split:
    """The split of a configuration, applied to a table."""
    settings = config.data
    return make_split(
        settings.split, table, settings.split_seed, settings.train_size or None, settings.valid_size or None,
        settings.test_size or None, settings.split_file or None,
    )  # fmt: skip


def open_dataset(config: Config, task: Task) -> Dataset:
    """Graphs, split, labels and standardisation of a run that has been made, whose configuration is resolved."""
    packed = open_packed(config)
    return make_dataset(packed, split_of(config, packed.table), task, len(config.target.names) > 1)


def with_names(config: Config, task: Task) -> Config:
    """A configuration whose target and model hold no ``auto``; for this no data are needed.

    Args:
        config: as it was given, or as an earlier version of the program has stored it.
        task: of its target, or what a checkpoint says of its target.
    """
    given, model = config.target, typing.cast(Any, config.model)
    target = TargetConfig(task.target.name, task.readout, task.reference, task.standardisation, unit=given.unit)
    if task.others:  # each has its own readout and standardisation, which the checkpoint says
        names = [one.target.name for one in task.every]
        pairs = zip(given.names, names, strict=False)
        readouts = {name: given.readouts[typed] for typed, name in pairs if typed in given.readouts}
        target = dataclasses.replace(given, name=names[0], names=names, readouts=readouts)
        model = dataclasses.replace(model, outputs=len(task.every))
    if getattr(model, "output_init", None) == AUTO:
        model = dataclasses.replace(model, output_init="zeros" if task.target.name in ZERO_OUTPUT else "orthogonal")
    if getattr(model, "ncon_dtype", None) == AUTO:
        model = dataclasses.replace(model, ncon_dtype=config.run.dtype)
    return dataclasses.replace(config, target=target, model=model)


def sizes_of(split: Split, kind: str) -> dict[str, int]:
    """The sizes that make the same split again; those that a kind of split does not take are 0."""
    counts = dict(zip(SIZES, (len(split.train), len(split.valid), len(split.test)), strict=True))
    return counts if kind in CHOOSE_SIZES else {**dict.fromkeys(SIZES, 0), SIZES[0]: counts[SIZES[0]]}


def _with_averages(config: Config, packed: PackedGraphs, rows: np.ndarray) -> Config:
    """The averages over some rows in the place of those that are 0."""
    atoms = packed.table.n_atoms[rows].sum()
    found = {"average_degree": 2 * packed.n_pairs[rows].sum() / atoms or 1.0, "average_nodes": atoms / len(rows)}
    model: Any = config.model
    changes = {name: float(found[name]) for name in AVERAGES if getattr(model, name, None) == 0}
    return dataclasses.replace(config, model=dataclasses.replace(model, **changes))


def _with_data(config: Config, changes: dict[str, Any]) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))
