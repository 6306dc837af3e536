"""The evaluation of several numbers a structure, of one network: each task as it would be alone, on the rows it has."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from data_tools import dataset as data
from data_tools.graph import StructureTable, value_name
from experiment.evaluation.evaluator import Evaluator, Labelled, Predictions, refuse_not_finite
from experiment.evaluation.scalar import Scalar, Table, prediction_columns
from experiment.figures import plot_predictions
from experiment.plot_style import Subject, picture
from training.files import write_rows

UNSAFE = re.compile(r"[^\w.+-]+")  # in the name of a file


class SeveralTasks:
    """Several numbers a structure, beside what the training labels of each alone predict.

    Args:
        task: what is predicted, with its others.
        labelled: the structures, with the labels of each task.
        evaluator: predicts for them.
    """

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: Evaluator):
        self.labelled, self.evaluator = labelled, evaluator
        self.parts = [Scalar(one, part, evaluator) for one, part in zip(task.every, labelled.parts, strict=True)]
        self.keys = [f"{part.target.name}_mae" for part in self.parts]

    def predict(self, rows: np.ndarray) -> Predictions:
        """What the model says of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def _known(self, k: int, rows: np.ndarray) -> np.ndarray:
        """(K,) bool: which rows have a label of task k."""
        return np.isfinite(self.parts[k].labelled.labels[rows])

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines, by the column of metrics.csv that they belong beside."""
        return {
            key: self.parts[k].baseline_errors(rows[self._known(k, rows)])["mae"] for k, key in enumerate(self.keys)
        }

    def errors(self, rows: np.ndarray, quantities: Collection[str]) -> dict[str, float]:
        """MAE of each task over the rows that have its label.

        Raises:
            LossError: a prediction is NaN or infinite.
        """
        found = self.predict(rows)
        refuse_not_finite(~np.isfinite(np.array(found.every)).all(axis=0), self.labelled.packed.table, rows)
        errors = {}
        for k, part in enumerate(self.parts):
            known = self._known(k, rows)
            errors[value_name(k)] = part.mean_absolute_error(_of_task(found, k, known), rows[known])
        return errors

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Table]:
        """Metrics of models and baselines of each task, as ``Scalar.metrics``, by ``metrics of NAME``.

        Args:
            rows: (K,) structures that have some label.
            models: name to predictions for them.
            determined: (K,) which of them are measured; all where it is left out.
        """
        there = np.ones(len(rows), bool) if determined is None else determined
        tables = {}
        for k, part in enumerate(self.parts):
            known = there & self._known(k, rows)
            chosen = {name: _of_task(found, k, known) for name, found in models.items()}
            tables[f"metrics of {part.target.name}"] = part.metrics(rows[known], chosen)["metrics"]
        return tables

    def lines(self, title: str, tables: Mapping[str, Table]) -> list[str]:
        """What ``metrics`` returns as lines of the log."""
        lines = [title]
        for part in self.parts:
            table = {"metrics": tables[f"metrics of {part.target.name}"]}
            lines += part.lines(f"{part.target.name} [{part.target.unit}]:", table)
        return lines

    def write(self, file: Path, rows: np.ndarray, found: Predictions) -> None:
        """Label, prediction and error of each task of the structures ``rows`` as CSV; empty where there is no label."""
        table: StructureTable = self.labelled.packed.table
        lines = []
        for place, row in enumerate(rows.tolist()):
            line = {"id": int(table.ids[row]), **({"name": table.names[row]} if table.names else {})}
            for part, values in zip(self.parts, found.every, strict=True):
                line |= prediction_columns(part.target, float(values[place]), float(part.labelled.labels[row]))
            lines.append(line)
        write_rows(file, lines)

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """Predictions against labels of each task."""
        for k, part in enumerate(self.parts):
            known = self._known(k, rows)
            labels, target = part.labelled.labels[rows[known]], part.target
            with picture(folder / f"predictions_{UNSAFE.sub('_', target.name)}.png") as path:
                plot_predictions(labels, found.every[k][known], target.name, target.unit, path, about=subject.of_test())


def _of_task(found: Predictions, k: int, known: np.ndarray) -> Predictions:
    """Predictions of one task for some of the structures."""
    return Predictions(found.every[k][known], found.embeddings[known])
