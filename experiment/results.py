"""What a run leaves behind: metrics beside trivial baselines, predictions and pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiment.figures import plot_loss_curve, plot_predictions, plot_tsne
from experiment.plot_style import how_many, pretty_unit
from training.files import one_line, write_rows, write_text

log = logging.getLogger("geospore")


def metrics_table(rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Rows of metrics as aligned text: count, MAE, RMSE, largest error in ``unit``, and R2."""
    width = max(len(name) for name in rows)
    header = f"{'':{width}}  {'count':>7}  {'MAE/' + unit:>14}  {'RMSE/' + unit:>15}  {'max/' + unit:>14}  {'R2':>8}"
    lines = [header]
    for name, row in rows.items():
        lines.append(
            f"{name:{width}}  {int(row['count']):7d}  {row['mae']:14.5f}  {row['rmse']:15.5f}  "
            f"{row['max_error']:14.5f}  {row['r2']:8.4f}"
        )
    return "\n".join(lines)


def write_metrics(path: Path, content: Mapping[str, Any]) -> None:
    """Write metrics.json; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def write_predictions(
    path: Path,
    ids: np.ndarray,
    names: Sequence[str],
    predictions: np.ndarray,
    labels: np.ndarray | None,
    target: str,
    unit: str,
) -> None:
    """Write one row a structure: identity, prediction and, with labels, label and error; units in the header."""
    column = f"{target} [{unit}]"
    rows = []
    for k, prediction in enumerate(predictions):
        row: dict[str, Any] = {"id": int(ids[k])}
        if names:
            row["name"] = names[k]
        if labels is not None:
            row[f"label {column}"] = f"{labels[k]:.8g}"
        row[f"predicted {column}"] = f"{prediction:.8g}" if np.isfinite(prediction) else ""
        if labels is not None:
            row[f"error {column}"] = f"{prediction - labels[k]:.8g}" if np.isfinite(prediction) else ""
        rows.append(row)
    write_rows(path, rows)


@dataclass(frozen=True)
class Subject:
    """What the pictures of a run are about; their footers say it, so that each is understood on its own.

    Attributes:
        run: name of the run folder.
        model: name of the model.
        parameters: how many numbers it learns.
        target, unit: what it predicts.
        split: name of the split.
        counts: structures of its sets ``train``, ``valid`` and ``test``.
        best_epoch: of the model whose predictions are shown.
    """

    run: str
    model: str
    parameters: int
    target: str
    unit: str
    split: str
    counts: Mapping[str, int]
    best_epoch: int

    def footer(self, *shown: str) -> list[str]:
        """The parts of a footer; ``shown`` are those that only one picture has."""
        return [
            f"run {self.run}",
            f"model {self.model}, {self.parameters:,} parameters",
            f"target {self.target} ({pretty_unit(self.unit)})",
            *shown,
        ]

    def of_test(self) -> list[str]:
        """The footer of a picture of the test set."""
        return self.footer(
            f"test set of split {self.split}: {how_many(self.counts['test'], 'structures')}",
            f"best model, epoch {self.best_epoch}",
        )

    def of_training(self) -> list[str]:
        """The footer of the course of training."""
        train, valid = (f"{self.counts[name]:,}" for name in ("train", "valid"))
        return self.footer(f"split {self.split}: {train} training and {valid} validation structures")


def draw_forces(folder: Path, subject: Subject, published: np.ndarray, predicted: np.ndarray) -> None:
    """The picture of all known force components (A, 3) in a run folder."""
    known = np.isfinite(published)
    with _picture(folder / "forces.png") as path:
        plot_predictions(
            published[known], predicted[known], "force component", f"{subject.unit}/A", path, "force components",
            subject.of_test(),
        )  # fmt: skip


def draw(folder: Path, subject: Subject, labels: np.ndarray, predictions: np.ndarray, embeddings: np.ndarray) -> None:
    """The pictures of the test set in a run folder: predictions and map of embeddings."""
    target, unit, about = subject.target, subject.unit, subject.of_test()
    with _picture(folder / "predictions.png") as path:
        plot_predictions(labels, predictions, target, unit, path, about=about)
    if len(labels) > 2:
        with _picture(folder / "tsne.png") as path:
            plot_tsne(embeddings, labels, target, unit, path, about=about)


def draw_history(
    folder: Path,
    subject: Subject,
    history: list[dict[str, float]],
    baselines: Mapping[str, float],
    force_baselines: Mapping[str, float],
) -> None:
    """The course of training in a run folder; the baselines are MAE on the validation structures."""
    with _picture(folder / "loss_curve.png") as path:
        plot_loss_curve(
            history, subject.unit, path, subject.best_epoch, baselines, force_baselines, subject.of_training()
        )


@contextmanager
def _picture(path: Path) -> Iterator[Path]:
    """Draw a picture, or say why not: the numbers of a run must not be lost for a picture of them."""
    try:
        yield path
    except Exception as error:
        path.unlink(missing_ok=True)  # one of an earlier run would pass for this one
        log.warning("warning: %s is not drawn: %s", path.name, one_line(error)[:300])
