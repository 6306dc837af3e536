"""The evaluation of energies and their derivatives, forces and stress, each beside those of zero."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools import dataset as data
from data_tools.graph import StructureTable
from data_tools.labels.statistics import regression_metrics
from data_tools.units import KCAL_PER_MOL
from experiment.evaluation.evaluator import (
    ENERGY,
    FORCES,
    STRESS,
    Evaluator,
    Labelled,
    Predictions,
    refuse_not_finite,
)
from experiment.evaluation.scalar import Scalar, Table, metrics_table
from experiment.figures import plot_predictions
from experiment.plot_style import Subject, picture


class Derivative(NamedTuple):
    """What the errors of a derivative of the energy are called.

    Attributes:
        quantity: the label, and the field of ``Predictions``.
        table: its metrics in metrics.json.
        column: its MAE in metrics.csv, without ``train_`` or ``valid_``.
        unit: that the log shows.
        factor: so many of them in the project's unit.
    """

    quantity: str
    table: str
    column: str
    unit: str
    factor: float = 1.0


DERIVATIVES = (
    Derivative(FORCES, "force_metrics", "force_mae", "eV/A"),
    Derivative(STRESS, "stress_metrics", "stress_mae", "meV/A^3", 1000),
)


class EnergyForces:
    """Energies as ``Scalar`` has them, and the components of those derivatives that the data publish.

    Args:
        task: the energy.
        labelled: the structures; their table has the label ``forces`` of atoms or ``stress`` of structures, NaN where
            unknown.
        evaluator: predicts energies and the derivatives.
    """

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: Evaluator):
        self.energies, self.evaluator, self.packed = Scalar(task, labelled, evaluator), evaluator, labelled.packed
        self.derivatives = [one for one in DERIVATIVES if one.quantity in labelled.packed.table.label_names]

    @staticmethod
    def quantities(table: StructureTable) -> tuple[str, ...]:
        """What a model must predict to be compared with the labels of a table."""
        return (ENERGY, *(one.quantity for one in DERIVATIVES if one.quantity in table.label_names))

    def predict(self, rows: np.ndarray) -> Predictions:
        """What the model says of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def published(self, quantity: str, rows: np.ndarray) -> np.ndarray:
        """Forces (atoms of these rows, 3) or stress (K, 3, 3) in the project's units, NaN where unknown."""
        table = self.packed.table
        if quantity in table.of_atoms:
            return table.of_atoms[quantity][self.packed.atoms_of(rows)]
        return table.of_structures[quantity][rows]

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines, by the column of metrics.csv that they belong beside."""
        errors = self.energies.baseline_errors(rows)
        for one in self.derivatives:
            published = self.published(one.quantity, rows)
            if np.isfinite(published).any():
                errors[one.column] = {f"zero {one.quantity}": float(np.nanmean(np.abs(published)))}
        return errors

    def errors(self, rows: np.ndarray, quantities: Collection[str]) -> dict[str, float]:
        """MAE of each of the quantities.

        Raises:
            LossError: a prediction of one of them is NaN or infinite.
        """
        found, table = self.predict(rows), self.packed.table
        bad = ~np.isfinite(found.values)
        if FORCES in quantities:
            owner = np.repeat(np.arange(len(rows)), table.n_atoms[rows])
            bad[owner[~np.isfinite(found.forces).all(axis=1)]] = True
        if STRESS in quantities:  # that of a molecule is NaN
            bad |= (np.isfinite(self.published(STRESS, rows)) & ~np.isfinite(found.stress)).any(axis=(1, 2))
        refuse_not_finite(bad, table, rows)
        errors = {ENERGY: self.energies.mean_absolute_error(found, rows)}
        for one in self.derivatives:
            if one.quantity in quantities:
                published = self.published(one.quantity, rows)
                errors[one.quantity] = component_metrics(getattr(found, one.quantity), published)["mae"]
        return errors

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Table]:
        """As of ``Scalar``; beside them, of all rows, ``force_metrics`` and ``stress_metrics`` where some are known."""
        tables = self.energies.metrics(rows, models, determined)
        for one in self.derivatives:
            published = self.published(one.quantity, rows)
            if np.isfinite(published).any():
                compared = {name: getattr(found, one.quantity) for name, found in models.items()}
                compared["zero"] = np.zeros_like(published)
                tables[one.table] = {name: component_metrics(each, published) for name, each in compared.items()}
        return tables

    def lines(self, title: str, tables: Mapping[str, Table]) -> list[str]:
        """As of ``Scalar``; then the metrics of each derivative, of forces with the first model in other units."""
        lines = self.energies.lines(title, tables)
        for one in self.derivatives:
            table = tables.get(one.table, {})
            if table:
                shown = {name: in_unit(row, one.factor) for name, row in table.items()}
                lines.append(f"components of the {one.quantity} [{one.unit}]:\n{metrics_table(shown, one.unit)}")
            if table and one.quantity == FORCES:
                first = next(iter(table))
                lines.append(f"{first}: {in_other_units(tables['metrics'].get(first, {}), table[first])}")
        return lines

    def write(self, file: Path, rows: np.ndarray, found: Predictions) -> None:
        """As of ``Scalar``."""
        self.energies.write(file, rows, found)

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """The pictures of the test set in a run folder: as of ``Scalar``, and all known components of forces."""
        self.energies.draw(folder, subject, rows, found)
        if FORCES not in self.packed.table.of_atoms:
            return
        published = self.published(FORCES, rows)
        known = np.isfinite(published)
        if known.any():
            with picture(folder / "forces.png") as path:
                plot_predictions(
                    published[known], found.forces[known], "force component", "eV/A", path, "force components",
                    subject.of_test(),
                )  # fmt: skip


def component_metrics(predicted: np.ndarray, published: np.ndarray) -> dict[str, float]:
    """Metrics of the components of forces or stress, over those that are known: the others are NaN in ``published``."""
    known = np.isfinite(published)
    return regression_metrics(predicted[known], published[known])


def in_unit(metrics: Mapping[str, float], factor: float) -> dict[str, float]:
    """Metrics with their errors in a unit of which the project's has ``factor``."""
    return {**metrics, **{name: factor * metrics[name] for name in ("mae", "rmse", "max_error")}}


def in_other_units(energies: Mapping[str, float], forces: Mapping[str, float]) -> str:
    """The MAE of energies in eV and of forces in eV/Angstrom, in meV and in kcal/mol."""
    of_energies = ""
    if energies:
        of_energies = f"energy MAE {1000 * energies['mae']:.3f} meV = {energies['mae'] / KCAL_PER_MOL:.4f} kcal/mol, "
    return f"{of_energies}force MAE {1000 * forces['mae']:.3f} meV/A = {forces['mae'] / KCAL_PER_MOL:.4f} kcal/mol/A"
