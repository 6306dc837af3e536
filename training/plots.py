"""Pictures of a run: predictions against labels, the course of training, the map of molecule embeddings.

Drawn with Matplotlib's Agg canvas, so no display is needed; written under a temporary name, then renamed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter, LogFormatterSciNotation, MaxNLocator
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from training.files import replacing

# Okabe and Ito's colours: told apart with every common form of colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOUR_MAP = "viridis"
HEXBIN_FROM = 2000  # points; from here on single dots hide the density
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.9,
    "legend.frameon": False,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "savefig.dpi": 180,
}


def plot_predictions(
    labels: np.ndarray,
    predictions: np.ndarray,
    target_name: str,
    unit: str,
    path: str | Path,
    counted: str = "structures",
) -> None:
    """Predictions against labels with the diagonal and MAE, RMSE, R2; beside it the histogram of the errors.

    Args:
        labels: (M,) in ``unit``.
        predictions: (M,) in ``unit``.
        target_name: name of the target, for the axes.
        unit: unit of both.
        path: PNG to write.
        counted: what a point is.

    Raises:
        ValueError: no points, or shapes that differ.
    """
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if labels.ndim != 1 or labels.shape != predictions.shape or len(labels) == 0:
        raise ValueError(f"labels and predictions (M,) with M > 0 expected, got {labels.shape}, {predictions.shape}")
    unit = _pretty_unit(unit)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.7), layout=ConstrainedLayoutEngine(wspace=0.06))
        scatter, histogram = figure.subplots(1, 2, width_ratios=(1.4, 1.0))
        _draw_scatter(figure, scatter, labels, predictions)
        scatter.set(xlabel=f"{target_name}, reference ({unit})", ylabel=f"{target_name}, predicted ({unit})")
        scatter.set_title(f"{target_name}: {len(labels):,} {counted}", loc="left")
        scatter.text(0.04, 0.96, _metric_text(labels, predictions, unit), transform=scatter.transAxes, va="top",
                     bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#BBBBBB", "alpha": 0.9})
        _draw_errors(histogram, predictions - labels, unit)
        _write(figure, path)


def plot_loss_curve(
    rows: Sequence[Mapping[str, Any]], unit: str, path: str | Path, baselines: Mapping[str, float] | None = None
) -> None:
    """Training loss, validation MAE and learning rate against the epoch, with trivial baselines as lines.

    Args:
        rows: rows of metrics.csv, one an epoch, with ``epoch``, ``train_loss``, ``valid_mae`` and ``lr``; numbers or
            their text, empty where an epoch was not validated.
        unit: unit of ``valid_mae``.
        path: PNG to write.
        baselines: per name the validation MAE of a trivial baseline in ``unit``.

    Raises:
        ValueError: no rows.
        KeyError: a row lacks one of the columns.
    """
    if not rows:
        raise ValueError("no epochs to draw")
    epoch, loss, mae, rate = (
        np.array([_number(row[key]) for row in rows]) for key in ("epoch", "train_loss", "valid_mae", "lr")
    )
    unit = _pretty_unit(unit)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 7.2), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(1.0, 1.35, 0.6))
        for axes, values, label, colour in zip(
            panels, (loss, mae, rate), ("train loss", f"validation MAE ({unit})", "learning rate"),
            (BLUE, ORANGE, GREEN), strict=True,
        ):
            drawn = np.isfinite(values)
            marker = "o" if drawn.sum() <= 60 else ""
            axes.plot(epoch[drawn], values[drawn], color=colour, marker=marker, markersize=4, linewidth=1.8)
            axes.set_ylabel(label)
            axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
            if drawn.any() and (values[drawn] > 0).all():
                _scale_axis(axes, values[drawn])
        _draw_baselines(panels[1], epoch, mae, baselines or {}, unit)
        figure.align_ylabels(panels)
        panels[-1].set_xlabel("epoch")
        panels[-1].set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        _write(figure, path)


def plot_tsne(
    embeddings: np.ndarray,
    values: np.ndarray,
    target_name: str,
    unit: str,
    path: str | Path,
    seed: int = 0,
    max_points: int = 1000,
) -> None:
    """Map of molecule embeddings in two dimensions (t-SNE from a PCA start), coloured by the target.

    The same seed gives the same picture.  Distances between far groups and the axes themselves mean nothing.

    Args:
        embeddings: (M, F) one row a structure.
        values: (M,) the target, in ``unit``.
        target_name: name of the target, for the colour bar.
        unit: unit of ``values``.
        path: PNG to write.
        seed: of the choice of points and of t-SNE.
        max_points: at most so many structures, chosen at random.

    Raises:
        ValueError: fewer than 3 structures, shapes that do not agree, or numbers that are not finite.
    """
    embeddings, values = np.asarray(embeddings, np.float64), np.asarray(values, np.float64)
    if embeddings.ndim != 2 or values.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings (M, F) and values (M,) expected, got {embeddings.shape}, {values.shape}")
    if len(values) < 3:
        raise ValueError(f"t-SNE needs at least 3 structures, got {len(values)}")
    if not (np.isfinite(embeddings).all() and np.isfinite(values).all()):
        raise ValueError("embeddings or values hold NaN or infinity")
    if len(values) > max_points:
        chosen = np.random.default_rng(seed).choice(len(values), max_points, replace=False)
        embeddings, values = embeddings[chosen], values[chosen]
    points = _tsne(embeddings, seed)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 5.4), layout="constrained")
        axes = figure.subplots()
        _draw_map(figure, axes, points, values, f"{target_name} ({_pretty_unit(unit)})")
        axes.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
        axes.set_title(f"Embeddings of {len(values):,} structures", loc="left")
        _write(figure, path)


def _draw_scatter(figure: Figure, axes: Axes, labels: np.ndarray, predictions: np.ndarray) -> None:
    finite = np.isfinite(labels) & np.isfinite(predictions)
    labels, predictions = labels[finite], predictions[finite]
    low, high = _limits(np.concatenate([labels, predictions]))
    if len(labels) >= HEXBIN_FROM:
        cells = axes.hexbin(
            labels, predictions, gridsize=70, extent=(low, high, low, high), bins="log", mincnt=1, cmap=COLOUR_MAP,
            linewidths=0.1,
        )
        bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30, format=LogFormatter(minor_thresholds=(2, 0.6)))
        bar.set_label("structures per cell")
        bar.outline.set_visible(False)
    else:
        size = float(np.clip(6000 / max(len(labels), 1), 10, 40))
        axes.scatter(labels, predictions, s=size, color=BLUE, alpha=0.45, linewidths=0)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.1, linestyle=(0, (5, 3)), zorder=3)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6))


def _draw_errors(axes: Axes, errors: np.ndarray, unit: str) -> None:
    """Histogram of the errors over the central 99 %; the title says how many lie outside."""
    finite = errors[np.isfinite(errors)]
    reach = float(np.percentile(np.abs(finite), 99)) if len(finite) else 0.0
    reach = reach if reach > 0 else 1.0
    outside = int(np.sum(np.abs(finite) > reach)) + len(errors) - len(finite)
    bins = int(np.clip(np.sqrt(len(errors)) * 1.5, 9, 61)) | 1  # odd: the middle bin is centred on zero
    axes.hist(finite, bins=bins, range=(-reach, reach), color=BLUE, alpha=0.85, edgecolor="white", linewidth=0.4)
    axes.axvline(0.0, color=GREY, linewidth=1.1, linestyle=(0, (5, 3)))
    if len(finite):
        axes.axvline(finite.mean(), color=ORANGE, linewidth=1.6)
        axes.text(0.99, 0.99, f"mean {finite.mean():+.3g} {unit}", color=ORANGE, transform=axes.transAxes, ha="right",
                  va="top")
        axes.set_ylim(top=1.12 * axes.get_ylim()[1])  # room for the text
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set(xlim=(-reach, reach), xlabel=f"error, predicted - reference ({unit})", ylabel="structures")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_title(f"errors ({outside:,} outside the frame)" if outside else "errors", loc="left")


def _draw_map(figure: Figure, axes: Axes, points: np.ndarray, values: np.ndarray, label: str) -> None:
    # A few extreme structures among many would wash out all others: the colours span the middle 98 %.
    many = len(values) >= 100
    low, high = np.percentile(values, (1, 99) if many else (0, 100))
    size = float(np.clip(6000 / len(values), 9, 60))
    dots = axes.scatter(points[:, 0], points[:, 1], c=values, vmin=low, vmax=high, cmap=COLOUR_MAP, s=size, lw=0)
    bar = figure.colorbar(dots, ax=axes, extend="both" if many else "neither", extendfrac=0.03, pad=0.02, aspect=28)
    bar.set_label(label)
    bar.outline.set_visible(False)


def _draw_baselines(
    axes: Axes, epoch: np.ndarray, mae: np.ndarray, baselines: Mapping[str, float], unit: str
) -> None:
    """Best epoch and trivial baselines in the panel of the validation MAE."""
    if np.isfinite(mae).any():
        best = int(np.nanargmin(mae))
        axes.plot(epoch[best], mae[best], marker="*", markersize=14, color=ORANGE, markeredgecolor="white",
                  linestyle="", label=f"best: {mae[best]:.4g} {unit} (epoch {epoch[best]:.0f})")
    for (name, value), style in zip(baselines.items(), _line_styles(len(baselines)), strict=True):
        axes.axhline(value, color=GREY, linewidth=1.3, linestyle=style, label=f"{name}: {value:.4g} {unit}")
    if axes.get_legend_handles_labels()[1]:
        # Above the panel: inside, it would cover one of the lines.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9.5, columnspacing=1.4, borderaxespad=0)


def _line_styles(count: int) -> list[Any]:
    styles = [(0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))]
    return [styles[index % len(styles)] for index in range(count)]


def _scale_axis(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic where values span more than a factor of 5: a linear axis would show the first epochs only."""
    if values.max() > 5 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(1.5, 0.6)))


def _tsne(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """(M, 2) t-SNE coordinates; the perplexity adapts to few structures, for which 30 neighbours do not exist."""
    if embeddings.shape[1] < 2:
        embeddings = np.pad(embeddings, ((0, 0), (0, 2 - embeddings.shape[1])))
    # A constant embedding has no principal axes, so t-SNE would divide by zero.
    if not np.ptp(embeddings, axis=0).any():
        return np.zeros((len(embeddings), 2))
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    # One thread: repeatable sums, and no threads that wait for each other where other work shares the cores.
    with threadpool_limits(limits=1):
        return TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)


def _metric_text(labels: np.ndarray, predictions: np.ndarray, unit: str) -> str:
    error = predictions - labels
    spread = np.sum((labels - labels.mean()) ** 2)
    r2 = f"{1 - np.sum(error**2) / spread:.4f}" if spread > 0 else "undefined"
    mae, rmse = np.mean(np.abs(error)), np.sqrt(np.mean(error**2))
    return f"MAE = {mae:.4g} {unit}\nRMSE = {rmse:.4g} {unit}\n$R^2$ = {r2}"


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of the values with a margin of 4 %; a unit interval where there is no range."""
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _pretty_unit(unit: str) -> str:
    """``a0^3`` with its subscript and superscript."""
    return re.sub(r"a0\^(\d)", r"$a_0^\1$", unit)


def _number(text: Any) -> float:
    return float("nan") if text is None or text == "" else float(text)


def _write(figure: Figure, path: str | Path) -> None:
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
