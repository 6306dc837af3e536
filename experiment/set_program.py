"""eval.py with a set of models: several properties of structures at once, each with its spread."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.formats.writers import atoms_text
from data_tools.graph import DataError, StructureTable
from experiment.command_line import BAD_INPUT
from experiment.comparison import Rows, markdown
from experiment.ensemble_program import measure_ensemble
from experiment.ensemble_report import UNCERTAINTY, EnsembleMeasurement, write_ensemble
from experiment.evaluation.evaluator import ENERGY
from experiment.evaluation_options import changes_of
from experiment.model_set import ModelSet, PropertyModels
from experiment.prediction import check_predictable, prediction_rows, put, read_structures
from experiment.prediction_files import Place, folder_of_metrics, place_of_predictions
from experiment.provenance import Command
from experiment.run_log import set_up_log
from experiment.selection import select
from experiment.several_models import Ensemble, Several, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.trained import Trained
from models.cpu_kernels import without_kernels
from models.cpu_kernels.build import is_built
from training.files import write_rows
from training.visible_devices import warn_of_unused

log = logging.getLogger("geospore")
TABLE = "properties.csv"
COMMON = "spread of all properties [threshold]"


class Loaded(NamedTuple):
    """One property of a set and its models."""

    about: PropertyModels
    ensemble: Ensemble


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
    if options.atoms:
        raise ConfigError(
            f"--atoms: expected one model, got a set of models; give --ckpt {models.properties[0].files[0]}"
        )
    if options.input or options.smiles:
        return predict_properties(options, models)
    folder = folder_of_metrics(options.output)
    loaded = load_set(models, changes_of(options))
    set_up_log()
    warn_of_unused(loaded[0].ensemble.lead.config.run.device_target)
    rows = measure_properties(loaded, options, folder, command)
    log.info(
        "errors of the mean of the members, and how many are in the intervals of calibrated spreads\n%s", markdown(rows)
    )
    if folder is not None:
        write_rows(folder / TABLE, rows)
        log.info("wrote %s and a folder for each property to %s", TABLE, folder)
    return 0


def load_set(models: ModelSet, overrides: Sequence[tuple[str, str]] = ()) -> list[Loaded]:
    """The ensembles of a set.

    Raises:
        ConfigError: a file is of another property than the record says, or of another cutoff than the others.
        CheckpointError, DeviceError: as ``experiment.several_models.load_ensemble``.
    """
    found: list[Loaded] = []
    for one in models.properties:
        ensemble = load_ensemble([str(file) for file in one.files], overrides)
        name, cutoff = ensemble.lead.task.target.name, ensemble.lead.config.model.cutoff
        if name != one.name:
            raise ConfigError(
                f"{one.files[0]}: expected a model of {one.name}, got {name}; copy the whole folder again"
            )
        first = found[0].ensemble.lead.config.model.cutoff if found else cutoff
        if cutoff != first:
            raise ConfigError(
                f"{one.files[0]}: expected the cutoff of the others, {first:g} Angstrom, got {cutoff:g}; name the "
                f"property alone: --ckpt {models.folder}/{name}"
            )
        found.append(Loaded(one, ensemble))
    return found


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
        networks, every = SharedNetworks(), np.arange(len(table))
        found = [predict_sets(one.ensemble, packed, (ENERGY,), [every], (), networks)[0] for one in loaded]
    rows, common, column = (
        rows_of(loaded, found, table),
        common_spread(loaded, found, models.together),
        outside.column(),
    )
    for row, value, words in zip(rows, common, column, strict=True):
        row.update({COMMON: f"{value:.4g}"} if models.together else {}, outside=words)
    put(rows, molecules, place, lambda: frames_of(loaded, found, table, common, column))
    return BAD_INPUT if molecules.refusals else 0


def rows_of(loaded: Sequence[Loaded], found: Sequence[Several], table: StructureTable) -> list[dict[str, Any]]:
    """One row a structure: of each property the mean and the calibrated spread; which properties are uncertain."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for one, several in zip(loaded, found, strict=True):
        lead = one.ensemble.lead
        spreads, column = calibrated(one, several), f"calibrated spread {one.about.name} [{lead.task.target.unit}]"
        for row, values, spread in zip(rows, prediction_rows(lead, table, [several.mean.values]), spreads, strict=True):
            row.update(values | {column: f"{spread:.6g}" if np.isfinite(spread) else ""})
    return [row | {"uncertain": words} for row, words in zip(rows, uncertain_of(loaded, found), strict=True)]


def calibrated(one: Loaded, found: Several) -> np.ndarray:
    """(M,) standard deviations of the error, in the unit of the property."""
    return one.about.calibration.with_floor(found.spread)


def uncertain_of(loaded: Sequence[Loaded], found: Sequence[Several]) -> list[str]:
    """For each structure the properties whose spread is above the threshold."""
    columns = [one.about.calibration.uncertain(several.spread) for one, several in zip(loaded, found, strict=True)]
    names = [one.about.name for one in loaded]
    return [
        ", ".join(name for name, word in zip(names, words, strict=True) if word == "yes")
        for words in zip(*columns, strict=True)
    ]


def common_spread(loaded: Sequence[Loaded], found: Sequence[Several], threshold: float | None = 1.0) -> np.ndarray:
    """(M,) mean over the properties of spread over threshold.

    It tells structures outside of what was learned better than the spread of one property, which is small by chance
    where members are few.

    Args:
        loaded: the properties.
        found: predictions of each.
        threshold: what becomes 1; None: it is not known, and what is returned is NaN.
    """
    ratios = [several.spread / one.about.calibration.threshold for one, several in zip(loaded, found, strict=True)]
    return np.mean(ratios, axis=0) / (np.nan if threshold is None else threshold)


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


def measure_properties(
    loaded: Sequence[Loaded], options: argparse.Namespace, folder: Path | None, command: Command
) -> Rows:
    """Metrics of each property whose label the structures have.

    Args:
        loaded: the set.
        options: of eval.py: which structures.
        folder: gets a folder for each property.
        command: that was given.

    Returns:
        A row each.

    Raises:
        DataError: no property can be measured.
        ConfigError: forces in float16.
    """
    rows: Rows = []
    networks, refused = SharedNetworks(), dict[str, DataError]()
    for about, ensemble in loaded:
        name = about.name
        try:
            chosen = select(ensemble.lead, options.data, options.split, options.keys)
            measured = measure_ensemble(ensemble, chosen, about.calibration, networks)
        except DataError as error:
            refused[name] = error
            continue
        rows.append(summary(name, ensemble, measured))
        if folder is not None:
            write_ensemble(folder / name, ensemble, chosen, measured, command)
    if not rows:
        raise next(iter(refused.values()))
    for name, reason in refused.items():
        log.warning("warning: %s is left out: %s", name, reason)
    return rows


def summary(name: str, ensemble: Ensemble, measured: EnsembleMeasurement) -> dict[str, str]:
    """What a table of properties says of one."""
    table, numbers = measured.tables["metrics"], measured.uncertainty.get(UNCERTAINTY)
    row = {"property": name, "unit": ensemble.lead.task.target.unit, "molecules": "", "MAE": "", "MAE of members": ""}
    row |= dict.fromkeys(("RMSE", "mean of the training labels", "rank correlation", "in 68 %", "in 95 %"), "")
    if numbers is None:
        return row
    mean, baseline = table[ensemble.title], table.get("mean of the training labels")
    scaled = numbers["intervals"]["with_floor"]
    return row | {
        "molecules": str(int(mean["count"])),
        "MAE": f"{mean['mae']:.4g}",
        "MAE of members": ", ".join(f"{table[member]['mae']:.4g}" for member in ensemble.names),
        "RMSE": f"{mean['rmse']:.4g}",
        "mean of the training labels": "" if baseline is None else f"{baseline['mae']:.4g}",
        "rank correlation": f"{numbers['rank_correlation']:.3f}",
        **{f"in {level} %": f"{100 * scaled[f'coverage_{level}']:.1f} %" for level in (68, 95)},
    }
