"""The evaluation of one number a structure: trivial baselines, metrics and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_tools import dataset as data
from data_tools.graph import StructureTable
from data_tools.labels.statistics import element_counts, linear_baseline, mean_baseline, regression_metrics
from data_tools.labels.targets import Target
from experiment.embedding_map import plot_tsne
from experiment.evaluation.evaluator import ENERGY, Evaluator, Labelled, Predictions, refuse_not_finite
from experiment.figures import plot_predictions
from experiment.plot_style import Subject, picture
from training.files import write_rows

#: metrics of several predictions: whose, to MAE and others
Table = dict[str, dict[str, float]]


class Scalar:
    """One number a structure, beside what the training labels alone predict.

    Args:
        task: what is predicted.
        labelled: the structures.
        evaluator: predicts for them.
    """

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: Evaluator):
        self.target, self.labelled, self.evaluator = task.target, labelled, evaluator
        table = labelled.packed.table
        self.counts = element_counts(table.numbers, table.n_atoms)

    @staticmethod
    def quantities(table: StructureTable) -> tuple[str, ...]:
        """What a model must predict to be compared with the labels of a table."""
        return (ENERGY,)

    def predict(self, rows: np.ndarray) -> Predictions:
        """What the model says of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def baselines(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the mean of the training labels, and a linear fit on element counts, predict: (K,) each.

        Empty where the training labels are not known.
        """
        if self.labelled.training is None:
            return {}
        labels, counts = self.labelled.training
        return {
            "mean of the training labels": mean_baseline(labels, len(rows)),
            "linear in element counts": linear_baseline(labels, counts, self.counts[rows])[0],
        }

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines, by the column of metrics.csv that they belong beside."""
        labels = self.labelled.labels[rows]
        return {"mae": {name: float(np.abs(labels - values).mean()) for name, values in self.baselines(rows).items()}}

    def errors(self, rows: np.ndarray, quantities: Collection[str]) -> dict[str, float]:
        """MAE of each quantity.

        Raises:
            LossError: a prediction is NaN or infinite.
        """
        found = self.predict(rows)
        refuse_not_finite(~np.isfinite(found.values), self.labelled.packed.table, rows)
        return {ENERGY: self.mean_absolute_error(found, rows)}

    def mean_absolute_error(self, found: Predictions, rows: np.ndarray) -> float:
        """MAE of predictions that have been made for ``rows``."""
        return regression_metrics(found.values, self.labelled.labels[rows])["mae"]

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Table]:
        """Metrics of models and baselines; those of structures with elements unseen in training apart.

        Args:
            rows: (K,) structures that have a label.
            models: name to predictions for them.
            determined: (K,) which of them are measured; all where it is left out.

        Returns:
            ``metrics``, without rows where nothing is measured.
        """
        there = np.ones(len(rows), bool) if determined is None else determined
        if not there.any():
            return {"metrics": {}}
        predictions = {name: found.values[there] for name, found in models.items()} | self.baselines(rows[there])
        labels, counts = self.labelled.labels[rows][there], self.counts[rows][there]
        return {"metrics": metrics_of(labels, counts, predictions, self.labelled.elements)}

    def lines(self, title: str, tables: Mapping[str, Table]) -> list[str]:
        """What ``metrics`` returns as lines of the log; ``title`` is above the metrics of the target."""
        table = tables["metrics"]
        return [f"{title}\n{metrics_table(table, self.target.unit)}"] if table else []

    def write(self, file: Path, rows: np.ndarray, found: Predictions) -> None:
        """Label, prediction and error of each of the structures ``rows`` as CSV."""
        table = self.labelled.packed.table
        write_predictions(file, table, rows, found.values, self.labelled.labels[rows], self.target)

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """The pictures of the test set in a run folder: predictions and map of embeddings."""
        labels, name, unit, about = self.labelled.labels[rows], self.target.name, self.target.unit, subject.of_test()
        with picture(folder / "predictions.png") as path:
            plot_predictions(labels, found.values, name, unit, path, about=about)
        if len(labels) > 2:
            with picture(folder / "tsne.png") as path:
                plot_tsne(found.embeddings, labels, name, unit, path, about=about)


def metrics_of(
    labels: np.ndarray, counts: np.ndarray, predictions: Mapping[str, np.ndarray], known: list[int]
) -> Table:
    """Metrics of several predictions for the same structures; those with elements unseen in training apart.

    Args:
        labels: (M,) in the target's unit.
        counts: (M, 119) element counts.
        predictions: name to (M,) values in the target's unit.
        known: atomic numbers of the training structures.
    """
    unseen = data.with_unseen_elements(counts, known)
    parts = {}
    if unseen.any():
        others = data.symbols(sorted(set(data.present_elements(counts)) - set(known)))
        parts = {f", without {others}": ~unseen, f", with {others}": unseen}
    table = {}
    for name, values in predictions.items():
        table[name] = regression_metrics(values, labels)
        for words, part in parts.items():
            if part.any():  # all of them may hold an unseen element
                table[name + words] = regression_metrics(values[part], labels[part])
    return table


def metrics_table(rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Rows of metrics as aligned text: count, MAE, RMSE, largest error in ``unit``, and R2."""
    width = max(len(name) for name in rows)
    heads = (f"MAE/{unit}", f"RMSE/{unit}", f"max/{unit}")
    places = [max(least, len(head)) for head, least in zip(heads, (14, 15, 14), strict=True)]
    columns = "  ".join(f"{head:>{place}}" for head, place in zip(heads, places, strict=True))
    lines = [f"{'':{width}}  {'count':>7}  {columns}  {'R2':>8}"]
    for name, row in rows.items():
        errors = zip((row["mae"], row["rmse"], row["max_error"]), places, strict=True)
        columns = "  ".join(f"{error:{place}.5f}" for error, place in errors)
        lines.append(f"{name:{width}}  {int(row['count']):7d}  {columns}  {row['r2']:8.4f}")
    return "\n".join(lines)


def write_predictions(
    path: Path,
    table: StructureTable,
    rows: np.ndarray,
    predictions: np.ndarray,
    labels: np.ndarray,
    target: Target,
    more: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write predictions.csv, one row a structure: identity, label, prediction and error; units in the header.

    Args:
        path: the file.
        table: the structures.
        rows: (K,) which of them.
        predictions: (K,) in the target's unit, NaN where there is none.
        labels: (K,) in the target's unit.
        target: what is predicted.
        more: K rows of further columns; empty: none.
    """
    lines = []
    for row, prediction, label in zip(rows.tolist(), predictions, labels, strict=True):
        lines.append(
            {
                "id": int(table.ids[row]),
                **({"name": table.names[row]} if table.names else {}),
                **prediction_columns(target, prediction, label),
            }
        )
    write_rows(path, [line | dict(added) for line, added in zip(lines, more, strict=True)] if more else lines)


def prediction_columns(target: Target, prediction: float, label: float) -> dict[str, str]:
    """Columns of predictions.csv: label, prediction and error, in the target's unit; empty where one is NaN."""
    column = f"{target.name} [{target.unit}]"
    numbers = {"label": label, "predicted": prediction, "error": prediction - label}
    return {f"{name} {column}": f"{number:.8g}" if np.isfinite(number) else "" for name, number in numbers.items()}
