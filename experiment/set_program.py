"""eval.py with a set of models: several properties of structures at once, each with its spread."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.formats.writers import atoms_text
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import PackedGraphs
from experiment.atom_program import which_atoms
from experiment.chosen_targets import places_of
from experiment.command_line import BAD_INPUT
from experiment.ensemble_program import measure_ensemble
from experiment.ensemble_report import EnsembleMeasurement, report_properties
from experiment.evaluation.evaluator import ENERGY
from experiment.evaluation_options import changes_of
from experiment.model_set import ModelSet, PropertyModels
from experiment.molecule_tables import FEW, SPREAD, tables_of
from experiment.prediction import check_predictable, prediction_rows, put, read_structures
from experiment.prediction_files import Place, folder_of_metrics, in_order_of_records, place_of_predictions
from experiment.provenance import Command
from experiment.run_log import set_up_log
from experiment.selection import Selection, select
from experiment.several_models import Ensemble, Several, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.trained import Trained
from experiment.uncertainty import relative_spread, uncertain_names
from models.cpu_kernels import without_kernels
from models.cpu_kernels.build import is_built
from training.visible_devices import warn_of_unused

log = logging.getLogger("geospore")
COMMON = "spread of all properties [threshold]"


class Loaded(NamedTuple):
    """One property of a set and its models.

    Attributes:
        about: what the set says of it.
        ensemble: its models, with this task alone.
        whole: the same models with all of their tasks, which predict together.
        output: which of these the property is.
    """

    about: PropertyModels
    ensemble: Ensemble
    whole: Ensemble
    output: int


def with_set(options: argparse.Namespace, models: ModelSet, command: Command) -> int:
    """Predict structures, or measure the models on labelled ones.

    Args:
        options: of eval.py.
        models: the set.
        command: that was given.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: models or structures that cannot be used, or a place.
    """
    if options.target is not None:
        models = models.only(places_of(options.target, [one.name for one in models.properties]))
    if options.atoms:
        if len(models.properties) > 1:
            raise ConfigError(
                f"--atoms: expected one property, the set {options.ckpt} predicts {len(models.properties)}; choose one "
                f"with --target {models.properties[0].name}"
            )
        options.target = models.properties[0].name
        return which_atoms(options, [str(file) for file in models.properties[0].files], command)
    if options.input or options.smiles:
        return predict_properties(options, models)
    folder = folder_of_metrics(options.output)
    loaded = load_set(models, changes_of(options))
    set_up_log()
    warn_of_unused(loaded[0].ensemble.lead.config.run.device_target)
    report_properties(measure_properties(loaded, options), folder, command)
    return 0


def load_set(models: ModelSet, overrides: Sequence[tuple[str, str]] = ()) -> list[Loaded]:
    """The ensembles of a set; networks that several properties share are read once.

    Raises:
        ConfigError: a file is of another property than the record says, or of another cutoff than the others.
        CheckpointError, DeviceError: as ``experiment.several_models.load_ensemble``.
    """
    found: list[Loaded] = []
    read: dict[tuple[Path, ...], Ensemble] = {}
    for one in models.properties:
        if one.files not in read:
            read[one.files] = load_ensemble([str(file) for file in one.files], overrides)
        whole = read[one.files]
        names = [task.target.name for task in whole.lead.task.every]
        if one.name not in names:
            raise ConfigError(
                f"{one.files[0]}: expected a model of {one.name}, got {', '.join(names)}; copy the whole folder again"
            )
        cutoff = whole.lead.config.model.cutoff
        first = found[0].whole.lead.config.model.cutoff if found else cutoff
        if cutoff != first:
            raise ConfigError(
                f"{one.files[0]}: expected the cutoff of the others, {first:g} Angstrom, got {cutoff:g}; name the "
                f"property alone: --ckpt {models.folder}/{one.name}"
            )
        output = names.index(one.name)
        found.append(Loaded(one, whole.only([output]), whole, output))
    return found


def groups_of(loaded: Sequence[Loaded]) -> list[list[Loaded]]:
    """The properties that share their networks, together."""
    found: dict[int, list[Loaded]] = {}
    for one in loaded:
        found.setdefault(id(one.whole), []).append(one)
    return list(found.values())


def predict_loaded(
    loaded: Sequence[Loaded],
    packed: PackedGraphs,
    wanted: Sequence[np.ndarray],
    sets: Sequence[np.ndarray] = (),
    networks: SharedNetworks | None = None,
) -> list[list[Several]]:
    """Predictions of each property for some sets of structures; networks that properties share predict once.

    Args:
        loaded: the properties.
        packed, wanted, sets, networks: as of ``experiment.several_models.predict_sets``.

    Returns:
        For each property one for each set.
    """
    networks = networks or SharedNetworks()
    found: dict[int, list[Several]] = {}
    for one in loaded:
        if id(one.whole) not in found:
            found[id(one.whole)] = predict_sets(one.whole, packed, (ENERGY,), wanted, sets, networks)
    return [[several.every[one.output] for several in found[id(one.whole)]] for one in loaded]


def predict_properties(options: argparse.Namespace, models: ModelSet) -> int:
    """Predict every structure of ``--input`` or ``--smiles``.

    The kernels of a CPU save time where there are thousands of molecules; a command line has few, so that with
    ``--smiles`` kernels that are not compiled yet are not waited for.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: as ``with_set``.
    """
    place = place_of_predictions(options.output, options.input)
    with without_kernels() if options.smiles and not is_built() else contextlib.nullcontext():
        loaded = load_set(models, changes_of(options))
        leads = [one.ensemble.lead for one in loaded]
        for lead in leads:
            check_predictable(lead, Place(place.file, False))
        known = set.intersection(*(lead.known for lead in leads))
        first = dataclasses.replace(leads[0], elements=sorted(known))
        molecules, table, packed, outside = read_structures(first, options.input, options.smiles, leads[1:])
        found = [several for (several,) in predict_loaded(loaded, packed, [np.arange(len(table))])]
    rows, common, column = (
        rows_of(loaded, found, table),
        common_spread(loaded, found, models.together),
        outside.column(),
    )
    for row, value, words in zip(rows, common, column, strict=True):
        row.update({COMMON: f"{value:.4g}"} if models.together else {}, outside=words)
    every = in_order_of_records(rows, molecules)
    if not options.output and len(every) <= FEW:
        sys.stdout.write(tables_of(every, COMMON))
    else:
        put(rows, molecules, place, lambda: frames_of(loaded, found, table, common, column))
    return BAD_INPUT if molecules.refusals else 0


def rows_of(loaded: Sequence[Loaded], found: Sequence[Several], table: StructureTable) -> list[dict[str, Any]]:
    """One row a structure: of each property the mean and the calibrated spread; which properties are uncertain."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for one, several in zip(loaded, found, strict=True):
        lead = one.ensemble.lead
        spreads, column = calibrated(one, several), f"{SPREAD} {one.about.name} [{lead.task.target.unit}]"
        for row, values, spread in zip(rows, prediction_rows(lead, table, [several.mean.values]), spreads, strict=True):
            row.update(values | {column: f"{spread:.6g}" if np.isfinite(spread) else ""})
    return [row | {"uncertain": words} for row, words in zip(rows, uncertain_of(loaded, found), strict=True)]


def calibrated(one: Loaded, found: Several) -> np.ndarray:
    """(M,) standard deviations of the error, in the unit of the property."""
    return one.about.calibration.with_floor(found.spread)


def uncertain_of(loaded: Sequence[Loaded], found: Sequence[Several]) -> list[str]:
    """For each structure the properties whose spread is above the threshold."""
    about = [one.about for one in loaded]
    return uncertain_names([one.name for one in about], [one.calibration for one in about], [s.spread for s in found])


def common_spread(loaded: Sequence[Loaded], found: Sequence[Several], threshold: float | None = 1.0) -> np.ndarray:
    """(M,) mean over the properties of spread over threshold.

    Args:
        loaded: the properties.
        found: predictions of each.
        threshold: what becomes 1; None: it is not known, and what is returned is NaN.
    """
    thresholds = [one.about.calibration.threshold for one in loaded]
    return relative_spread([several.spread for several in found], thresholds) / (threshold or np.nan)


def frames_of(
    loaded: Sequence[Loaded],
    found: Sequence[Several],
    table: StructureTable,
    common: np.ndarray,
    outside: Sequence[str],
) -> str:
    """The same as extended xyz: the geometries, with entries of the comment line ``gap``, ``gap_spread``, ..."""
    entries: dict[str, np.ndarray] = {}
    for one, several in zip(loaded, found, strict=True):
        entries |= {one.about.name: several.mean.values, f"{one.about.name}_spread": calibrated(one, several)}
    entries["common_spread"] = common
    units = ", ".join(f"{one.about.name} {definition(one.ensemble.lead)}" for one in loaded)
    return atoms_text(table, {}, units, entries, {"uncertain": uncertain_of(loaded, found), "outside": outside})


def definition(lead: Trained) -> str:
    """The unit of a property, and which definition of the label it has."""
    reference, unit = lead.task.reference, lead.task.target.unit
    return unit if reference == "none" else f"{unit} {reference}"


def measure_properties(loaded: Sequence[Loaded], options: argparse.Namespace) -> list[EnsembleMeasurement]:
    """Metrics of each property whose label the structures have.

    Args:
        loaded: the set.
        options: of eval.py: which structures.

    Raises:
        DataError: no property can be measured.
        ConfigError: forces in float16.
    """
    networks, refused = SharedNetworks(), dict[str, DataError]()
    found: list[EnsembleMeasurement] = []
    for group in groups_of(loaded):
        labelled, chosen = with_labels(group, options, refused)
        if chosen is None:
            continue
        try:
            found += measure_group(labelled, chosen, networks)
        except DataError as error:
            refused |= {one.about.name: error for one in labelled}
    if not found:
        raise next(iter(refused.values()))
    for name, reason in refused.items():
        log.warning("warning: %s is left out: %s", name, reason)
    place = [one.about.name for one in loaded]
    return sorted(found, key=lambda one: place.index(one.ensemble.lead.task.target.name))


def measure_group(group: Sequence[Loaded], chosen: Selection, networks: SharedNetworks) -> list[EnsembleMeasurement]:
    """Metrics of properties that share their networks, which predict once.

    Raises:
        DataError, ConfigError: as ``experiment.ensemble_program.measure_ensemble``.
    """
    calibrations, outputs = [one.about.calibration for one in group], [one.output for one in group]
    return measure_ensemble(group[0].whole, chosen, calibrations, networks, outputs)


def with_labels(
    group: Sequence[Loaded], options: argparse.Namespace, refused: dict[str, DataError]
) -> tuple[Sequence[Loaded], Selection | None]:
    """Those of a group whose label the structures have, and the structures; ``refused`` gets why others have none."""

    def structures(some: Sequence[Loaded]) -> Selection:
        lead = group[0].whole.only([one.output for one in some]).lead
        return select(lead, options.data, options.split, options.keys)

    try:
        return group, structures(group)
    except DataError as error:
        if len(group) == 1:
            refused[group[0].about.name] = error
            return group, None
    there = []
    for one in group:
        try:
            structures([one])
            there.append(one)
        except DataError as error:
            refused[one.about.name] = error
    return there, structures(there) if there else None
