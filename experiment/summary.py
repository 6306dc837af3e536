"""What a run is about, in its log before hours are spent: machine, data, split, target and model."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import Any

from configs.schema import Config, GraphAttentionTransformerConfig, SegnnConfig
from data_tools import dataset as data
from data_tools.formats.smiles_records import TABLES
from data_tools.labels.plausibility import unit_suspicions
from data_tools.labels.statistics import Normalizer
from data_tools.labels.targets import FORCE_CONSTANTS
from models import cpu_kernels
from models.graph_attention_transformer import breaks_mirror
from models.segnn import hidden_irreps
from training.cpu_runtime import cores
from training.device import versions
from training.distributed import Ranks
from training.visible_devices import warn_of_unused

log = logging.getLogger("geospore")


def describe(
    config: Config, dataset: data.Dataset, task: data.Task, model: Any, ranks: Ranks, adapted: str = ""
) -> None:
    """Say it, with a warning for what looks wrong.

    Args:
        config: of the run.
        dataset: its data.
        task: what is predicted.
        model: the network.
        ranks: processes of the run.
        adapted: what of the split was adapted to the data; empty: nothing.
    """
    run, split, table = config.run, dataset.split, dataset.packed.table
    log.info("%s  device %s:%d  mode %s  %s  %d cores", "  ".join(f"{k} {v}" for k, v in versions().items()),
             run.device_target, run.device_id, run.mode, run.dtype, cores())  # fmt: skip
    if run.device_target == "CPU":
        log.info("kernels for CPUs: %s", cpu_kernels.state())
    warn_of_unused(run.device_target)
    if ranks.size > 1:
        log.info("rank %d of %d, process id %d", ranks.rank, ranks.size, os.getpid())
    log.info("data: %s: %d structures, %d atoms", table.source, len(table), len(table.numbers))
    tasks = list(zip(dataset.every, task.every, strict=True))
    suspicions = [data.reference_suspicions(*one) for one in tasks]
    suspicions += [data.readout_suspicions(*one, several=bool(task.others)) for one in tasks]
    for words in itertools.chain(table.remarks, unit_suspicions(table), *suspicions):
        log.warning("warning: %s", words)
    if adapted:
        log.info(adapted)
    log.info("split %s: %d train, %d valid, %d test; elements in training: %s", split.name, len(split.train),
             len(split.valid), len(split.test), data.symbols(dataset.train_elements))  # fmt: skip
    for one, part in zip(task.every, dataset.every, strict=True):
        labels = f", {len(part.split.train)} training labels" if task.others else ""
        log.info("target %s [%s], label definition %s, readout %s, standardisation %s (scale %.6g, shift %.6g %s)%s",
                 one.target.name, one.target.unit, one.reference, one.readout, one.standardisation,
                 part.normalizer.scale, part.normalizer.shift, one.target.unit, labels)  # fmt: skip
    if not task.target.is_own and Path(config.data.file).suffix.lower() in TABLES:
        log.info("%s is a built-in target: its column is read in %s, and its readouts and definitions hold",
                 task.target.name, task.target.unit)  # fmt: skip
    describe_irreps(config)
    warn_of_mean(task)
    log.info("model %s: %d parameters", config.model.name, sum(p.size for p in model.trainable_params()))


def log_scale(normalizer: Normalizer, task: data.Task) -> None:
    """Mean and mean absolute deviation of the training labels, where those are what outputs are scaled with."""
    if task.standardisation == "mean_mad":
        log.info("train_set's mean and mad: %.6g %.6g %s", normalizer.shift, normalizer.scale, task.target.unit)


def describe_irreps(config: Config) -> None:
    """The irreps of a SEGNN's nodes, and warnings of what will be slow, break the mirror or be unusable."""
    model = config.model
    if isinstance(model, GraphAttentionTransformerConfig) and breaks_mirror(model.irreps):
        log.warning(
            "warning: model.irreps %s: even irreps of odd degree and no odd ones, so that a structure and its mirror "
            "image have different energies; 1o in the place of 1e keeps the mirror", model.irreps,
        )  # fmt: skip
    if (
        isinstance(model, GraphAttentionTransformerConfig)
        and model.norm == "layer"
        and config.target.name == FORCE_CONSTANTS
    ):
        log.warning(
            "warning: model.norm layer: where an atom is at an inversion centre, force constants are 1e5 times too "
            "large and more; model.norm=smooth is for crystals"
        )
    if not isinstance(model, SegnnConfig):
        return
    irreps = hidden_irreps(model.features, model.lmax, model.lmax_attributes, model.subspace)
    log.info("Determined irrep type: %s", irreps)
    if model.ncon_dtype == "float16" and config.run.device_target == "CPU":
        log.warning("warning: model.ncon_dtype=float16 is meant for Ascend, on a CPU it is slower than float32")


def warn_of_mean(task: data.Task) -> None:
    """A warning of force constants whose energy is a mean over atoms."""
    if task.target.name == FORCE_CONSTANTS and task.readout == "mean":
        log.warning(
            "warning: target.readout=mean is a control: force constants of an energy that is a mean over atoms are "
            "smaller in a larger supercell; sum is right"
        )
