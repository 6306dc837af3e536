"""eval.py with several checkpoints: predictions with their spread, and what the spread says of the error."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence

import numpy as np

from configs.loading import ConfigError
from data_tools.coverage.outside import compare
from data_tools.graph import DataError
from experiment.command_line import BAD_INPUT
from experiment.ensemble_report import EnsembleMeasurement, measurement_of, write_ensemble
from experiment.evaluation.evaluator import ENERGY
from experiment.evaluation_options import changes_of
from experiment.measurement import evaluation_for, labelled_rows, title_of, with_reference
from experiment.prediction import Spread, check_predictable, read_structures, wanted, warn, write
from experiment.prediction_files import folder_of_metrics, place_of_predictions
from experiment.provenance import Command
from experiment.run_log import set_up_log
from experiment.selection import Selection, select
from experiment.several_models import Ensemble, Several, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.uncertainty import Calibration
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
    if options.atoms:
        raise ConfigError("--atoms: expected one model, got several; give --ckpt one of them")
    if left_out:
        warn(f"{', '.join(left_out)} left out: not finished; scripts/ensemble.py goes on with the same command")
    if options.input or options.smiles:
        return predict_with_spread(options, runs)
    folder = folder_of_metrics(options.output)
    ensemble = load_ensemble(runs, changes_of(options))
    set_up_log()
    warn_of_unused(ensemble.lead.config.run.device_target)
    chosen = select(ensemble.lead, options.data, options.split, options.keys)
    measured = measure_ensemble(ensemble, chosen)
    for line in measured.lines:
        log.info("%s", line)
    if folder is not None:
        write_ensemble(folder, ensemble, chosen, measured, command)
    return 0


def predict_with_spread(options: argparse.Namespace, runs: Sequence[str]) -> int:
    """Predict every structure of ``--input`` or ``--smiles``.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: as ``with_ensemble``.
    """
    place = place_of_predictions(options.output, options.input)
    ensemble = load_ensemble(runs, changes_of(options))
    lead = ensemble.lead
    check_predictable(lead, place)
    molecules, table, packed, outside = read_structures(lead, options.input, options.smiles)
    (found,) = predict_sets(ensemble, packed, wanted(place, table), [np.arange(len(table))])
    calibration = calibrate(ensemble, warn)
    uncertain = [""] * len(table) if calibration is None else calibration.uncertain(found.spread)
    spread = Spread(found.spread, found.forces_spread, uncertain)
    write(lead, molecules, table, found.mean, outside.column(), place, spread)
    return BAD_INPUT if molecules.refusals else 0


def calibrate(ensemble: Ensemble, say: Say) -> Calibration | None:
    """What the validation structures of the members say of their spread; None, and why, where that is not known."""
    chosen = validation_of(ensemble, say)
    if chosen is None:
        return None
    (found,) = predict_sets(ensemble, chosen.labelled.packed, (ENERGY,), [chosen.rows])
    return Calibration.fit(found.mean.values - chosen.labelled.labels[chosen.rows], found.spread)


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
    stored: Calibration | None = None,
    networks: SharedNetworks | None = None,
) -> EnsembleMeasurement:
    """Predictions for the rows that have a label, and metrics of the mean, its members and the baselines.

    Args:
        ensemble: the models.
        chosen: the structures.
        stored: what validation structures have said of the spread; without it they are predicted again.
        networks: that have been compiled for other ensembles.

    Raises:
        DataError: no row has a label, or the members were not trained on the same split of these structures.
        ConfigError: forces in float16.
    """
    lead = ensemble.lead
    own = chosen.validation
    if own is not None and not ensemble.common("split_sha256"):
        raise DataError(
            "the members have different training structures, some of which others are tested on; give --data FILE with "
            "structures that none of them has seen"
        )
    rows, evaluation = labelled_rows(lead, chosen), evaluation_for(lead, chosen)
    sets = [rows] if own is None or stored is not None else [rows, own]
    quantities = evaluation.evaluator.quantities
    found = predict_sets(ensemble, chosen.labelled.packed, quantities, sets, chosen.sets, networks)
    there = with_reference(lead, chosen, rows) & np.isfinite(found[0].spread)
    outside = np.array([bool(words) for words in compare(lead.learned, chosen.labelled.packed, rows).column()])
    validation = None
    if stored is not None:
        calibration: Calibration | None = stored
    elif own is None:
        calibration = calibrate(ensemble, lambda words: log.warning("warning: %s", words))
    else:
        calibration, validation = _of_own(chosen, own, found[1]), (own, found[1])
    measured = measurement_of(ensemble, chosen, evaluation, (rows, found[0]), validation, calibration, there, outside)
    lines = [*evaluation.lines(title_of(lead, chosen), measured.tables), *measured.lines]
    return measured._replace(lines=lines)


def _of_own(chosen: Selection, rows: np.ndarray, found: Several) -> Calibration | None:
    return Calibration.fit(found.mean.values - chosen.labelled.labels[rows], found.spread)
