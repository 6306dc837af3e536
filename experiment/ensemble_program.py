"""eval.py with several checkpoints: predictions with their spread, and what the spread says of the error."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np

from data_tools.coverage.outside import compare
from data_tools.graph import DataError
from experiment.atom_program import which_atoms
from experiment.chosen_targets import with_targets
from experiment.command_line import BAD_INPUT
from experiment.ensemble_report import EnsembleMeasurement, measurement_of, report_properties, write_ensemble
from experiment.evaluation import Evaluation
from experiment.evaluation.evaluator import ENERGY, Labelled
from experiment.evaluation.several_tasks import SeveralTasks
from experiment.evaluation_options import changes_of
from experiment.measurement import evaluation_for, labelled_rows, with_reference
from experiment.prediction import Spread, check_predictable, read_structures, wanted, warn, write
from experiment.prediction_files import folder_of_metrics, place_of_predictions
from experiment.provenance import Command
from experiment.run_log import set_up_log
from experiment.selection import Selection, select
from experiment.several_models import Ensemble, Several, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.uncertainty import Calibration, uncertain_names
from training.visible_devices import warn_of_unused

log = logging.getLogger("geospore")
Say = Callable[[str], None]


def with_ensemble(options: argparse.Namespace, runs: Sequence[str], left_out: Sequence[str], command: Command) -> int:
    """Predict structures, or measure the members and their mean.

    Args:
        options: of eval.py.
        runs: the members.
        left_out: members that have not finished.
        command: that was given.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: models or structures that cannot be used, or a place.
    """
    if left_out:
        warn(f"{', '.join(left_out)} left out: not finished; scripts/ensemble.py goes on with the same command")
    if options.atoms:
        return which_atoms(options, runs, command)
    if options.input or options.smiles:
        return predict_with_spread(options, runs)
    folder = folder_of_metrics(options.output)
    ensemble = with_targets(load_ensemble(runs, changes_of(options)), options.target)
    set_up_log()
    warn_of_unused(ensemble.lead.config.run.device_target)
    chosen = select(ensemble.lead, options.data, options.split, options.keys)
    every = measure_ensemble(ensemble, chosen)
    for line in [line for one in every for line in one.lines]:
        log.info("%s", line)
    if ensemble.lead.task.others:
        report_properties(every, folder, command)
    elif folder is not None:
        write_ensemble(folder, every[0], command)
    return 0


def predict_with_spread(options: argparse.Namespace, runs: Sequence[str]) -> int:
    """Predict every structure of ``--input`` or ``--smiles``.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: as ``with_ensemble``.
    """
    place = place_of_predictions(options.output, options.input)
    ensemble = with_targets(load_ensemble(runs, changes_of(options)), options.target)
    lead = ensemble.lead
    check_predictable(lead, place)
    molecules, table, packed, outside = read_structures(lead, options.input, options.smiles)
    (found,) = predict_sets(ensemble, packed, wanted(place, table), [np.arange(len(table))])
    calibrations, spreads = calibrate(ensemble, warn), [one.spread for one in found.every]
    if lead.task.others:
        uncertain = uncertain_names([task.target.name for task in lead.task.every], calibrations, spreads)
    else:
        uncertain = [""] * len(table) if calibrations[0] is None else calibrations[0].uncertain(found.spread)
    mean = found.mean._replace(others=tuple(one.mean.values for one in found.others))
    write(lead, molecules, table, mean, outside.column(), place, Spread(spreads, found.forces_spread, uncertain))
    return BAD_INPUT if molecules.refusals else 0


def calibrate(ensemble: Ensemble, say: Say) -> list[Calibration | None]:
    """What the validation structures of the members say of the spread of each output.

    None, and why, where that is not known.
    """
    chosen = validation_of(ensemble, say)
    if chosen is None:
        return [None] * len(ensemble.lead.task.every)
    (found,) = predict_sets(ensemble, chosen.labelled.packed, (ENERGY,), [chosen.rows])
    parts = chosen.labelled.every
    return [_fitted(part, chosen.rows, one) for part, one in zip(parts, found.every, strict=True)]


def validation_of(ensemble: Ensemble, say: Say) -> Selection | None:
    """The validation structures of the members; None, and why, where they cannot be had."""
    words = "what spread is usual is not known, so that no prediction is called uncertain"
    if not ensemble.common("split_sha256"):
        say(f"{words}: the members have different validation structures")
        return None
    try:
        chosen = select(ensemble.lead, None, "valid", None)
    except DataError as error:
        say(f"{words}: {error}")
        return None
    return chosen if chosen.validation is not None and len(chosen.rows) else None


def measure_ensemble(
    ensemble: Ensemble,
    chosen: Selection,
    stored: Sequence[Calibration] | None = None,
    networks: SharedNetworks | None = None,
    outputs: Sequence[int] | None = None,
) -> list[EnsembleMeasurement]:
    """Predictions for the rows that have a label, and metrics of the mean, its members and the baselines.

    Args:
        ensemble: the models.
        chosen: the structures, with the labels of the tasks that are measured.
        stored: what validation structures have said of the spread of each; without it they are predicted again.
        networks: that have been compiled for other ensembles.
        outputs: which tasks of the models are measured; None: all.

    Returns:
        One for each task.

    Raises:
        DataError: no row has a label, or the members were not trained on the same split of these structures.
        ConfigError: forces in float16.
    """
    outputs = list(range(len(ensemble.lead.task.every))) if outputs is None else outputs
    lead, own = ensemble.only(outputs).lead, chosen.validation
    if own is not None and not ensemble.common("split_sha256"):
        raise DataError(
            "the members have different training structures, some of which others are tested on; give --data FILE with "
            "structures that none of them has seen"
        )
    rows, evaluation = labelled_rows(lead, chosen), evaluation_for(lead, chosen)
    sets = [rows] if own is None or stored is not None else [rows, own]
    packed, parts = chosen.labelled.packed, chosen.labelled.every
    found = predict_sets(ensemble, packed, evaluation.evaluator.quantities, sets, chosen.sets, networks)
    determined = with_reference(lead, chosen, rows)
    outside = np.array([bool(words) for words in compare(lead.learned, packed, rows).column()])
    validations = [(own, found[1].every[k]) if own is not None and len(found) > 1 else None for k in outputs]
    calibrations = stored or _calibrations(ensemble, chosen, outputs, found[1:])
    measured = []
    each = zip(outputs, parts, evaluations_of(evaluation), validations, calibrations, strict=True)
    for k, part, its_evaluation, validation, calibration in each:
        known = np.isfinite(part.labels[rows])
        several = found[0].every[k] if known.all() else found[0].every[k].of_rows(known)
        one = measurement_of(
            ensemble.only([k]), dataclasses.replace(chosen, labelled=part), its_evaluation, (rows[known], several),
            validation, calibration, determined[known] & np.isfinite(several.spread), outside[known],
        )  # fmt: skip
        measured.append(one)
    return measured


def _calibrations(
    ensemble: Ensemble, chosen: Selection, outputs: Sequence[int], found: Sequence[Several]
) -> list[Calibration | None]:
    """What validation structures say of the spread of each task, by predictions for them where there are some."""
    if not found or chosen.validation is None:
        every = calibrate(ensemble, lambda words: log.warning("warning: %s", words))
        return [every[k] for k in outputs]
    pairs = zip(chosen.labelled.every, outputs, strict=True)
    return [_fitted(part, chosen.validation, found[0].every[k]) for part, k in pairs]


def evaluations_of(evaluation: Evaluation) -> Sequence[Evaluation]:
    """The evaluation of each task alone."""
    return evaluation.parts if isinstance(evaluation, SeveralTasks) else [evaluation]


def _fitted(labelled: Labelled, rows: np.ndarray, found: Several) -> Calibration | None:
    """What structures with labels say of the spread of an output."""
    return Calibration.fit(found.mean.values - labelled.labels[rows], found.spread)
