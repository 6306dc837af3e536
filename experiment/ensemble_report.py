"""What a measurement of an ensemble says: tables, lines of the log, files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.source_files import sha256_of
from experiment.comparison import markdown
from experiment.evaluation import Evaluation
from experiment.evaluation.energy_forces import EnergyForces
from experiment.evaluation.evaluator import FORCES
from experiment.evaluation.scalar import Table, write_predictions
from experiment.evaluation.several_tasks import UNSAFE
from experiment.measurement import title_of
from experiment.plot_style import picture
from experiment.prediction import Spread
from experiment.provenance import Command
from experiment.report import PREDICTIONS, write_metrics
from experiment.selection import Selection
from experiment.several_models import Ensemble, Several
from experiment.spread_figure import plot_spread
from experiment.uncertainty import PERCENTILE, Calibration, area_under_roc, quality, rank_correlation
from training.device import versions
from training.files import write_rows

log = logging.getLogger("geospore")
PICTURE, TABLE = "error_against_spread.png", "properties.csv"
MEAN_LABEL = "mean of the training labels"  # a baseline
UNCERTAINTY, OF_FORCES = "uncertainty", "force_uncertainty"  # in metrics.json


class EnsembleMeasurement(NamedTuple):
    """What comes out.

    Attributes:
        ensemble: the models, with one task.
        chosen: the structures.
        rows: (K,) of those that have a label.
        found: predictions for them.
        errors: (K,) of the mean, NaN where there is none.
        calibration: of the spreads, on validation structures; None where that is not known.
        tables: metrics of the mean, the members and the baselines, by the names that metrics.json has for them.
        uncertainty: what the spreads say, likewise.
        lines: of the log, that say all of it.
    """

    ensemble: Ensemble
    chosen: Selection
    rows: np.ndarray
    found: Several
    errors: np.ndarray
    calibration: Calibration | None
    tables: dict[str, Table]
    uncertainty: dict[str, dict[str, Any]]
    lines: list[str]


def measurement_of(
    ensemble: Ensemble,
    chosen: Selection,
    evaluation: Evaluation,
    measured: tuple[np.ndarray, Several],
    validation: tuple[np.ndarray, Several] | None,
    calibration: Calibration | None,
    there: np.ndarray,
    outside: np.ndarray,
) -> EnsembleMeasurement:
    """Metrics, and what the spreads say of the errors.

    Args:
        ensemble: the models, with one task.
        chosen: the structures, with its labels.
        evaluation: of their kind.
        measured: (K,) rows and predictions for them.
        validation: the same of the validation structures, where they belong to the same data.
        calibration: of the spreads of values.
        there: (K,) bool: which rows have a prediction.
        outside: (K,) bool: which are outside of what the models have learned.
    """
    rows, found = measured
    models = {ensemble.title: found.mean, **dict(zip(ensemble.names, found.members, strict=True))}
    tables = evaluation.metrics(rows, models, there)
    lines = evaluation.lines(title_of(ensemble.lead, chosen), tables)
    errors, unit = found.mean.values - chosen.labelled.labels[rows], ensemble.lead.task.target.unit
    uncertainty = {}
    if there.any():
        numbers = described(errors[there], found.spread[there], calibration)
        numbers["auroc_outside"] = area_under_roc(found.spread[there], outside[there])
        uncertainty[UNCERTAINTY] = numbers
        own = validation is not None and bool(np.isin(rows, validation[0]).all())
        lines += lines_of(f"spread of {len(ensemble.members)} members and error of their mean", numbers, unit, own)
    if isinstance(evaluation, EnergyForces) and len(found.forces_spread):
        calibration_of_forces = None
        if validation is not None:
            calibration_of_forces = Calibration.fit(*force_errors(evaluation, *validation))
        pair = force_errors(evaluation, rows, found)
        if len(pair[0]):
            uncertainty[OF_FORCES] = described(*pair, calibration_of_forces)
            lines += lines_of("the same of the components of forces", uncertainty[OF_FORCES], f"{unit}/A")
    return EnsembleMeasurement(ensemble, chosen, rows, found, errors, calibration, tables, uncertainty, lines)


def force_errors(evaluation: EnergyForces, rows: np.ndarray, found: Several) -> tuple[np.ndarray, np.ndarray]:
    """(C,) errors and spreads of the components of forces that are known."""
    if FORCES not in evaluation.packed.table.of_atoms:
        return np.zeros(0), np.zeros(0)
    published = evaluation.published(FORCES, rows)
    known = np.isfinite(published)
    return (found.mean.forces - published)[known], found.forces_spread[known]


def described(errors: np.ndarray, spreads: np.ndarray, calibration: Calibration | None) -> dict[str, Any]:
    """What (M,) spreads say of (M,) errors, before and after calibration, as metrics.json has it."""
    numbers: dict[str, Any] = {
        "count": len(errors),
        "mean_spread": float(spreads.mean()),
        "rank_correlation": rank_correlation(np.abs(errors), spreads),
        "intervals": {"as_it_is": quality(errors, spreads)},
    }
    if calibration is None:
        return numbers
    numbers["intervals"] |= {name: quality(errors, each) for name, each in calibration.calibrated(spreads).items()}
    high = spreads > calibration.threshold
    numbers |= {
        "validation_structures": calibration.count,
        "threshold": calibration.threshold,
        "scale": calibration.scale,
        "floor": calibration.floor,
        "factor": calibration.factor,
        "uncertain": int(high.sum()),
        "mae_uncertain": float(np.abs(errors[high]).mean()) if high.any() else np.nan,
        "mae_others": float(np.abs(errors[~high]).mean()) if not high.all() else np.nan,
    }
    return numbers


def lines_of(title: str, numbers: Mapping[str, Any], unit: str, own: bool = False) -> list[str]:
    """What ``described`` returns as lines of the log.

    Args:
        title: above them.
        numbers: see there.
        unit: of errors and spreads.
        own: whether the calibration was fitted on these structures themselves.
    """
    names = {
        "as_it_is": "as it is",
        "scaled": f"times {numbers.get('scale', 1):.3g}",
        "with_floor": f"times {numbers.get('factor', 1):.3g}, and {numbers.get('floor', 0):.3g} {unit}",
        "isotonic": "isotonic",
    }
    width = max(len(names[key]) for key in numbers["intervals"])
    table = [f"{'':{width}}  {'in 68 %':>8}  {'in 95 %':>8}  {'NLL':>10}"]
    for key, row in numbers["intervals"].items():
        covered = "  ".join(f"{100 * row[level]:6.1f} %" for level in ("coverage_68", "coverage_95"))
        table.append(f"{names[key]:{width}}  {covered}  {row['nll']:10.4f}")
    note = ", fitted on these structures themselves" if own else ""
    found = ["\n".join([f"{title} [{unit}]: how many errors are in the intervals of the spread{note}", *table])]
    words = f"rank correlation of error and spread {numbers['rank_correlation']:.3f}"
    if "threshold" in numbers:
        words += (
            f"; uncertain, with a spread above {numbers['threshold']:.5g} {unit} ({PERCENTILE} % of the validation "
            f"structures are below): {numbers['uncertain']} of {numbers['count']}, MAE {numbers['mae_uncertain']:.5f}, "
            f"of the others {numbers['mae_others']:.5f}"
        )
    found.append(words)
    if np.isfinite(numbers.get("auroc_outside", np.nan)):
        found.append(f"structures outside of what was learned: AUROC of the spread {numbers['auroc_outside']:.3f}")
    return found


def summary(measured: EnsembleMeasurement) -> dict[str, str]:
    """What a table of properties says of one."""
    ensemble, target = measured.ensemble, measured.ensemble.lead.task.target
    table, numbers = measured.tables["metrics"], measured.uncertainty.get(UNCERTAINTY)
    row = {"property": target.name, "unit": target.unit, "molecules": "", "MAE": "", "MAE of members": ""}
    row |= dict.fromkeys(("RMSE", MEAN_LABEL, "rank correlation", "in 68 %", "in 95 %"), "")
    if numbers is None:
        return row
    mean, baseline = table[ensemble.title], table.get(MEAN_LABEL)
    scaled = numbers["intervals"].get("with_floor")
    covered = {f"in {level} %": f"{100 * scaled[f'coverage_{level}']:.1f} %" for level in (68, 95) if scaled}
    return row | {
        "molecules": str(int(mean["count"])),
        "MAE": f"{mean['mae']:.4g}",
        "MAE of members": ", ".join(f"{table[member]['mae']:.4g}" for member in ensemble.names),
        "RMSE": f"{mean['rmse']:.4g}",
        MEAN_LABEL: "" if baseline is None else f"{baseline['mae']:.4g}",
        "rank correlation": f"{numbers['rank_correlation']:.3f}",
        **covered,
    }


def report_properties(every: Sequence[EnsembleMeasurement], folder: Path | None, command: Command) -> None:
    """The table of several properties, in the log and in a folder that gets one for each of them too."""
    rows = [summary(one) for one in every]
    log.info(
        "errors of the mean of the members, and how many are in the intervals of calibrated spreads\n%s", markdown(rows)
    )
    if folder is None:
        return
    for one in every:
        write_ensemble(folder / UNSAFE.sub("_", one.ensemble.lead.task.target.name), one, command)
    write_rows(folder / TABLE, rows)
    log.info("wrote %s and a folder for each property to %s", TABLE, folder)


def write_ensemble(folder: Path, measured: EnsembleMeasurement, command: Command) -> None:
    """metrics.json, predictions.csv and the picture in a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    ensemble, chosen = measured.ensemble, measured.chosen
    lead, found, calibration = ensemble.lead, measured.found, measured.calibration
    target, labelled = lead.task.target, chosen.labelled
    uncertain = [""] * len(measured.rows) if calibration is None else calibration.uncertain(found.spread)
    more = Spread([found.spread], found.forces_spread, uncertain).rows(lead)
    write_predictions(
        folder / PREDICTIONS, labelled.packed.table, measured.rows, found.mean.values, labelled.labels[measured.rows],
        target, more,
    )  # fmt: skip
    there = np.isfinite(measured.errors)
    files = [PREDICTIONS]
    if there.any():
        about = [f"{ensemble.title}: {', '.join(ensemble.names)}", chosen.name]
        with picture(folder / PICTURE) as path:
            errors, spreads = measured.errors[there], found.spread[there]
            plot_spread(errors, spreads, calibration, target.name, target.unit, path, about)
            files.append(PICTURE)
    content = {
        "members": [
            {
                "name": name,
                "checkpoint": str(one.file),
                "checkpoint_sha256": sha256_of(one.file),
                "epoch": one.information.get("progress", {}).get("epoch"),
                "training_provenance": one.information.get("provenance"),
            }
            for name, one in zip(ensemble.names, ensemble.members, strict=True)
        ],
        "task": lead.task.to_dict(),
        "data": labelled.packed.table.source,
        "structures": chosen.name,
        **measured.tables,
        **measured.uncertainty,
        "versions": versions(),
        "provenance": command.record(),
    }
    write_metrics(folder / "metrics.json", content)
    log.info("wrote %s to %s", ", ".join(["metrics.json", *files]), folder)
