"""The evaluation of force constants of crystals and of their phonons, beside trivial baselines."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_tools import dataset as data
from data_tools.crystals import Crystal, crystal_of
from data_tools.graph import StructureTable
from experiment.evaluation.evaluator import Labelled, Predictions, refuse_not_finite
from experiment.evaluation.force_constant_table import lines as lines_of
from experiment.evaluation.force_constant_table import summary
from experiment.evaluation.force_constants import SHELL_MEANS, Judged, judge
from experiment.evaluation.probe_evaluator import FORCES, PRODUCT, STRESS, ProbeEvaluator
from experiment.evaluation.shell_means import ShellMeans
from experiment.figures import plot_predictions
from experiment.phonon_figures import plot_bands
from experiment.plot_style import Subject, picture, pretty_unit
from physics.phonon_spectra import band_structure
from training.files import write_rows

log = logging.getLogger("geospore")
ASYMMETRY = "asymmetry"  # largest difference of two force constants that should be equal, eV/Angstrom^2


class SecondDerivatives:
    """All force constants of the rows of the primitive atoms; in training a few columns of each structure.

    Args:
        task: the force constants.
        labelled: the structures, whose table has force constants.
        evaluator: predicts for them.
    """

    def __init__(self, task: data.Task, labelled: Labelled, evaluator: ProbeEvaluator):
        self.target, self.labelled, self.evaluator = task.target, labelled, evaluator
        self.judged: Judged | None = None

    @cached_property
    def baselines(self) -> ShellMeans:
        """The means of the training materials."""
        if self.labelled.learned_from is not None:
            return ShellMeans.of(crystals_of(*self.labelled.learned_from))
        table = self.labelled.packed.table
        known = np.flatnonzero(np.isfinite(self.labelled.labels))
        log.warning("warning: the %s are those of the structures that are measured: a better baseline than any that "
                    "does not know them", SHELL_MEANS)  # fmt: skip
        return ShellMeans.of(crystals_of(table, known))

    def predict(self, rows: np.ndarray) -> Predictions:
        """The force constants of the structures ``rows`` (K,)."""
        return self.evaluator(rows)

    def baseline_errors(self, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """MAE of the baselines over all columns, by the column of metrics.csv that they belong beside."""
        crystals = crystals_of(self.labelled.packed.table, rows)
        sizes = [crystal.n_atoms for crystal in crystals]  # a column has three numbers for each atom
        errors = judge(crystals, {}, self.baselines, phonons=False).errors
        return {"mae": {whose: float(np.average(found["mae"], weights=sizes)) for whose, found in errors.items()}}

    def errors(self, rows: np.ndarray, quantities: Collection[str]) -> dict[str, float]:
        """MAE of each quantity, and the ``asymmetry``, over a few columns of each structure that are always the same.

        Raises:
            LossError: a prediction is NaN or infinite.
        """
        found = self.evaluator.errors(rows)
        bad = ~np.isfinite(found.columns) | ~np.isfinite(found.forces) | ~np.isfinite(found.stress)
        refuse_not_finite(bad, self.labelled.packed.table, rows)
        count = found.components.sum()
        return {
            PRODUCT: float(found.columns.sum() / count),
            FORCES: float(found.forces.sum() / count),
            STRESS: float(found.stress.mean() / 9),
            ASYMMETRY: float(found.asymmetry.max()),
        }

    def metrics(
        self, rows: np.ndarray, models: Mapping[str, Predictions], determined: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Metrics of models and baselines; predictions that are given under two names count once.

        Args:
            rows: (K,) structures that have force constants.
            models: name to predictions for them.
            determined: of no meaning here: no reference is needed.

        Returns:
            ``metrics``: whose, to mean and median over the materials of their MAE in eV/Angstrom^2; and
            ``force_constants``: all metrics, as ``force_constant_table.summary`` has them.
        """
        compared: dict[str, tuple[np.ndarray, ...]] = {}
        for name, found in models.items():
            if not any(found is models[other] for other in compared):
                compared[name] = found.blocks
        self.judged = judge(crystals_of(self.labelled.packed.table, rows), compared, self.baselines)
        table = {
            whose: {"mae": float(errors["mae"].mean()), "median": float(np.median(errors["mae"])), "count": len(rows)}
            for whose, errors in self.judged.errors.items()
        }
        return {"metrics": table, "force_constants": summary(self.judged)}

    def lines(self, title: str, tables: Mapping[str, Any]) -> list[str]:
        """The metrics that were computed last as lines of the log; ``title`` is above them."""
        return [] if self.judged is None else ["\n".join([title, *lines_of(self.judged)])]

    def write(self, file: Path, rows: np.ndarray, found: Predictions) -> None:
        """The metrics of each material that were computed last, of models and baselines, as CSV.

        Args:
            file: that is written.
            rows: (K,) of these materials.
            found: predictions for them, whose metrics they are.
        """
        table, judged = self.labelled.packed.table, self.judged
        assert judged is not None and judged.stable is not None
        lines = []
        for place, row in enumerate(rows.tolist()):
            line: dict[str, Any] = {"id": int(table.ids[row]), "name": judged.materials[place]}
            line["stable in the reference"] = bool(judged.stable[place])
            for whose, errors in judged.errors.items():
                line[f"stable, {whose}"] = bool(judged.predicted_stable[whose][place])
                line |= {f"{key}, {whose}": f"{values[place]:.8g}" for key, values in errors.items()}
            lines.append(line)
        write_rows(file, lines)

    def draw(self, folder: Path, subject: Subject, rows: np.ndarray, found: Predictions) -> None:
        """The pictures of the test set in a run folder: all force constants, and the bands of one material.

        It is the material whose MAE is the median of the test set.
        """
        crystals = crystals_of(self.labelled.packed.table, rows)
        published, predicted = flat([crystal.blocks for crystal in crystals]), flat(found.blocks)
        with picture(folder / "predictions.png") as path:
            plot_predictions(
                published, predicted, "force constant", self.target.unit, path, "numbers of the blocks",
                subject.of_test(),
            )  # fmt: skip
        errors = [float(np.abs(one.blocks - blocks).mean()) for one, blocks in zip(crystals, found.blocks, strict=True)]
        place = int(np.argsort(errors, kind="stable")[(len(errors) - 1) // 2])  # the lower one of two
        chosen = crystals[place]
        with picture(folder / "bands.png") as path:
            bands = band_structure(dataclasses.replace(chosen, blocks=found.blocks[place]))
            title = (
                f"{chosen.name}, MAE {errors[place]:.3f} {pretty_unit(self.target.unit)}, the median of the test set"
            )
            plot_bands(path, bands, band_structure(chosen), subject.of_test(), title)


def crystals_of(table: StructureTable, rows: np.ndarray) -> list[Crystal]:
    """The crystals of some rows."""
    return [crystal_of(table, row) for row in rows.tolist()]


def flat(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The numbers of all blocks, one after the other."""
    return np.concatenate([one.ravel() for one in blocks])
