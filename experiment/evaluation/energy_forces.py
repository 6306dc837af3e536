"""The evaluation of energies and their negative gradient: forces beside those of zero."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from data_tools import dataset as data
from data_tools.labels.statistics import regression_metrics
from data_tools.units import KCAL_PER_MOL
from experiment.evaluation.evaluator import ENERGY, FORCES, Evaluator, Labelled, Predictions, refuse_not_finite
from experiment.evaluation.scalar import Scalar, Table, metrics_table
from experiment.figures import plot_predictions
from experiment.plot_style import Subject, picture


class EnergyForces:
    """Energies as ``Scalar`` has them, and the components of the published forces.

    Args:
        task: the energy.
        labelled: the structures; their table has the label ``forces``, NaN where unknown.
        evaluator: predicts energies and forces.
    """

    QUANTITIES = (ENERGY, FORCES)

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: Evaluator):
        self.energies, self.evaluator, self.packed = Scalar(task, labelled, evaluator), evaluator, labelled.packed
        self.unit = f"{task.target.unit}/A"

    def predict(self, rows: np.ndarray) -> Predictions:
        """What the model says of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def published(self, rows: np.ndarray) -> np.ndarray:
        """(atoms of these rows, 3) forces in the target's unit per Angstrom, NaN where unknown."""
        return self.packed.table.of_atoms["forces"][self.packed.atoms_of(rows)]

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines, by the column of metrics.csv that they belong beside."""
        forces, of_energies = self.published(rows), self.energies.baseline_errors(rows)
        if not np.isfinite(forces).any():
            return of_energies
        return of_energies | {"force_mae": {"zero forces": float(np.nanmean(np.abs(forces)))}}

    def errors(self, rows: np.ndarray, quantities: Collection[str] = QUANTITIES) -> dict[str, float]:
        """MAE of each of the quantities.

        Raises:
            LossError: a prediction of one of them is NaN or infinite.
        """
        found, table = self.predict(rows), self.packed.table
        bad = ~np.isfinite(found.values)
        if FORCES in quantities:
            owner = np.repeat(np.arange(len(rows)), table.n_atoms[rows])
            bad[owner[~np.isfinite(found.forces).all(axis=1)]] = True
        refuse_not_finite(bad, table, rows)
        errors = {ENERGY: self.energies.mean_absolute_error(found, rows)}
        if FORCES in quantities:
            errors[FORCES] = force_metrics(found.forces, self.published(rows))["mae"]
        return errors

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Table]:
        """As of ``Scalar``; ``force_metrics`` beside them where a force is known, of all rows."""
        tables, published = self.energies.metrics(rows, models, determined), self.published(rows)
        if not np.isfinite(published).any():
            return tables
        forces = {name: found.forces for name, found in models.items()} | {"zero": np.zeros_like(published)}
        return tables | {"force_metrics": {name: force_metrics(one, published) for name, one in forces.items()}}

    def lines(self, title: str, tables: Mapping[str, Table]) -> list[str]:
        """As of ``Scalar``; then the metrics of forces, and both errors of the first model in other units."""
        lines = self.energies.lines(title, tables)
        if "force_metrics" in tables:
            forces = tables["force_metrics"]
            first = next(iter(forces))
            lines.append(f"components of the forces [{self.unit}]:\n{metrics_table(forces, self.unit)}")
            lines.append(f"{first}: {in_other_units(tables['metrics'].get(first, {}), forces[first])}")
        return lines

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """The pictures of the test set in a run folder: as of ``Scalar``, and all known components of forces."""
        self.energies.draw(folder, subject, rows, found)
        published = self.published(rows)
        known = np.isfinite(published)
        if known.any():
            with picture(folder / "forces.png") as path:
                plot_predictions(
                    published[known], found.forces[known], "force component", self.unit, path, "force components",
                    subject.of_test(),
                )  # fmt: skip


def force_metrics(predicted: np.ndarray, published: np.ndarray) -> dict[str, float]:
    """Metrics of the components of forces (A, 3), over those that are known: the others are NaN in ``published``."""
    known = np.isfinite(published)
    return regression_metrics(predicted[known], published[known])


def in_other_units(energies: Mapping[str, float], forces: Mapping[str, float]) -> str:
    """The MAE of energies in eV and of forces in eV/Angstrom, in meV and in kcal/mol."""
    of_energies = ""
    if energies:
        of_energies = f"energy MAE {1000 * energies['mae']:.3f} meV = {energies['mae'] / KCAL_PER_MOL:.4f} kcal/mol, "
    return f"{of_energies}force MAE {1000 * forces['mae']:.3f} meV/A = {forces['mae'] / KCAL_PER_MOL:.4f} kcal/mol/A"
