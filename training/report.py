"""What a run leaves behind: metrics beside trivial baselines, predictions and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.files import write_rows, write_text
from training.plots import plot_loss_curve, plot_predictions, plot_tsne


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


def draw_forces(folder: Path, published: np.ndarray, predicted: np.ndarray, unit: str) -> None:
    """The picture of all known force components (A, 3) in a run folder."""
    known = np.isfinite(published)
    plot_predictions(published[known], predicted[known], "force component", unit, folder / "forces.png", "components")


def draw(
    folder: Path,
    history: list[dict[str, float]],
    labels: np.ndarray,
    predictions: np.ndarray,
    embeddings: np.ndarray,
    target: str,
    unit: str,
    baselines: Mapping[str, float],
) -> None:
    """The three pictures of a run folder."""
    plot_predictions(labels, predictions, target, unit, folder / "predictions.png")
    plot_loss_curve(history, unit, folder / "loss_curve.png", dict(baselines))
    if len(labels) > 2:
        plot_tsne(embeddings, labels, target, unit, folder / "tsne.png")
