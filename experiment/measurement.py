"""A checkpoint measured on labelled structures: what comes out, and its files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.rules import check_force_precision
from data_tools.coverage.outside import compare
from data_tools.graph import DataError
from data_tools.labels.plausibility import unit_suspicions
from data_tools.source_files import sha256_of
from data_tools.tables import name_of_row
from experiment.evaluation import Evaluation, evaluation_of
from experiment.evaluation.evaluator import Predictions
from experiment.evaluation.scalar import Table
from experiment.provenance import Command
from experiment.report import PREDICTIONS, write_metrics
from experiment.selection import Selection
from experiment.trained import Trained
from training.device import versions

log = logging.getLogger("geospore")


class Measurement(NamedTuple):
    """What comes out.

    Attributes:
        rows: (K,) of the structures that have a label.
        found: predictions for them, NaN where training gives no reference for the composition.
        tables: metrics by the names that metrics.json has for them.
        evaluation: that they come from.
    """

    rows: np.ndarray
    found: Predictions
    tables: dict[str, Table]
    evaluation: Evaluation


def measure(trained: Trained, chosen: Selection) -> Measurement:
    """Predictions for the rows that have a label, and the metrics of model and baselines, logged.

    Where training gives no reference energy for a composition the prediction is NaN, and the row is not measured.

    Raises:
        DataError: no row has a label.
        ConfigError: forces in float16.
    """
    rows, evaluation = labelled_rows(trained, chosen), evaluation_for(trained, chosen)
    found = evaluation.predict(rows)
    there = with_reference(trained, chosen, rows)
    for values in found.every:
        values[~there] = np.nan
    tables = evaluation.metrics(rows, {"model": found}, there)
    for line in evaluation.lines(title_of(trained, chosen), tables):
        log.info("%s", line)
    return Measurement(rows, found, tables, evaluation)


def labelled_rows(trained: Trained, chosen: Selection) -> np.ndarray:
    """The rows that have a label; what is strange about the data is logged.

    Raises:
        DataError: there are none.
    """
    labelled, target = chosen.labelled, trained.task.target
    table = labelled.packed.table
    for words in [*trained.geometry_warnings(table.source), *table.remarks, *unit_suspicions(table)]:
        log.warning("warning: %s", words)
    rows = chosen.rows[labelled.has_label[chosen.rows]]
    if len(rows) < len(chosen.rows):
        log.info("%d of %d structures have no label and are left out", len(chosen.rows) - len(rows), len(chosen.rows))
    if not len(rows):
        raise DataError(f"no structure has the label {target.name}; to predict, give --input")
    return rows


def evaluation_for(trained: Trained, chosen: Selection) -> Evaluation:
    """The evaluation of a model on the structures that were chosen.

    Raises:
        ConfigError: forces in float16.
    """
    evaluation = evaluation_of(
        trained.config, trained.task, trained.model, trained.normalizer, chosen.labelled, chosen.sets,
        chosen=trained.chosen,
    )  # fmt: skip
    check_force_precision(trained.config, evaluation.evaluator.quantities)
    return evaluation


def with_reference(trained: Trained, chosen: Selection, rows: np.ndarray) -> np.ndarray:
    """(K,) bool: for whose composition training gives a reference; what of the rows is outside is logged."""
    packed, name = chosen.labelled.packed, trained.task.target.name
    outside = compare(trained.learned, packed, rows)
    for words in [*trained.warnings, *outside.lines(lambda k: name_of_row(packed.table, int(rows[k])))]:
        log.warning("warning: %s", words)
    there = ~outside.undetermined
    if not there.any():
        log.warning("warning: there are no metrics of %s: no structure has a reference", name)
    elif not there.all():
        log.warning("warning: without a reference, and left out of the metrics of %s: %d of %d structures",
                    name, len(rows) - there.sum(), len(rows))  # fmt: skip
    return there


def title_of(trained: Trained, chosen: Selection) -> str:
    """What stands above the metrics of the target."""
    task, target = trained.task, trained.task.target
    what = f"{target.name} [{target.unit}], label definition {task.reference}"
    return f"{'several targets' if task.others else what}, {chosen.name}"


def write_measurement(
    folder: Path, trained: Trained, chosen: Selection, measured: Measurement, command: Command
) -> None:
    """metrics.json and predictions.csv in a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    measured.evaluation.write(folder / PREDICTIONS, measured.rows, measured.found)
    content = {
        "checkpoint": str(trained.file),
        "checkpoint_sha256": sha256_of(trained.file),
        "epoch": trained.information.get("progress", {}).get("epoch"),
        "task": trained.task.to_dict(),
        "data": chosen.labelled.packed.table.source,
        "structures": chosen.name,
        **measured.tables,
        "versions": versions(),
        "provenance": command.record(),
        "training_provenance": trained.information.get("provenance"),
    }
    write_metrics(folder / "metrics.json", content)
    log.info("wrote %s and %s", folder / "metrics.json", folder / PREDICTIONS)
