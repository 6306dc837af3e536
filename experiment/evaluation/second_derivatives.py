"""The evaluation of force constants of crystals, beside trivial baselines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from data_tools import dataset as data
from data_tools.crystals import crystal_of
from data_tools.graph import StructureTable
from data_tools.labels.statistics import regression_metrics
from experiment.evaluation.evaluator import Labelled, Predictions, refuse_not_finite
from experiment.evaluation.probe_evaluator import FORCES, PRODUCT, ProbeEvaluator
from experiment.evaluation.scalar import Table, metrics_table
from experiment.figures import plot_predictions
from experiment.plot_style import Subject, picture


class SecondDerivatives:
    """All force constants of the rows of the primitive atoms; in training a few columns of each structure.

    Args:
        task: the force constants.
        labelled: the structures, whose table has force constants.
        evaluator: predicts for them.
    """

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: ProbeEvaluator):
        self.target, self.labelled, self.evaluator = task.target, labelled, evaluator

    @staticmethod
    def quantities(table: StructureTable) -> tuple[str, ...]:
        """What a model must predict to be compared with the labels of a table."""
        return ProbeEvaluator.quantities

    def predict(self, rows: np.ndarray) -> Predictions:
        """The force constants of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def published(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of all blocks of the structures ``rows``, eV/Angstrom^2, one after the other."""
        table = self.labelled.packed.table
        return np.concatenate([crystal_of(table, row).blocks.ravel() for row in rows.tolist()])

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines, by the column of metrics.csv that they belong beside."""
        return {"mae": {"zero": float(np.abs(self.published(rows)).mean())}}

    def errors(self, rows: np.ndarray, quantities: Collection[str]) -> dict[str, float]:
        """MAE of each quantity, over a few columns of each structure that are always the same.

        Raises:
            LossError: a prediction is NaN or infinite.
        """
        found = self.evaluator.errors(rows)
        bad = ~np.isfinite(found.columns) | ~np.isfinite(found.forces)
        refuse_not_finite(bad, self.labelled.packed.table, rows)
        count = found.count.sum()
        return {PRODUCT: float(found.columns.sum() / count), FORCES: float(found.forces.sum() / count)}

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Table]:
        """Metrics of models and baselines over all force constants of the structures ``rows`` (K,)."""
        published = self.published(rows)
        compared = {name: np.concatenate([one.ravel() for one in found.blocks]) for name, found in models.items()}
        compared["zero"] = np.zeros_like(published)
        return {"metrics": {name: regression_metrics(values, published) for name, values in compared.items()}}

    def lines(self, title: str, tables: Mapping[str, Table]) -> list[str]:
        """What ``metrics`` returns as lines of the log; ``title`` is above the metrics of the target."""
        return [f"{title}\n{metrics_table(tables['metrics'], self.target.unit)}"]

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """The pictures of the test set in a run folder: all force constants."""
        with picture(folder / "predictions.png") as path:
            plot_predictions(
                self.published(rows), np.concatenate([one.ravel() for one in found.blocks]), "force constant",
                self.target.unit, path, "force constants", subject.of_test(),
            )  # fmt: skip
