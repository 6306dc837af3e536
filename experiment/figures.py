"""Pictures of a run: predictions against labels, and the course of training.

Each takes ``about``, the parts of its footer: which run, model, target and set of structures it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, StrMethodFormatter

from experiment.plot_style import (
    BLUE,
    COLOUR_MAP,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    STEPS,
    how_many,
    new_figure,
    plain,
    pretty_unit,
    show_full_numbers,
    space_ticks,
    style,
    with_minus,
    write,
)
from training.state import Quantity

HEXBIN_FROM = 2000  # points; from here on single dots hide the density
DIAGONAL: dict[str, Any] = {"color": GREY, "linewidth": 1.1, "linestyle": (0, (5, 3))}


class PlainLogFormatter(LogFormatter):
    """Matplotlib's choice of labels, written 0.6 and not 6e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick, or nothing."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def plot_predictions(
    labels: np.ndarray,
    predictions: np.ndarray,
    target_name: str,
    unit: str,
    path: str | Path,
    counted: str = "structures",
    about: Sequence[str] = (),
) -> None:
    """Predictions against labels with the diagonal and MAE, RMSE, R2; beside it the histogram of the errors.

    Args:
        labels: (M,) in ``unit``.
        predictions: (M,) in ``unit``; those that are not finite are counted, not drawn.
        target_name: name of the target, for the axes.
        unit: unit of both.
        path: PNG to write.
        counted: what a point is, in the plural.
        about: parts of the footer.

    Raises:
        ValueError: no points, or shapes that differ.
    """
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if labels.ndim != 1 or labels.shape != predictions.shape or len(labels) == 0:
        raise ValueError(f"labels and predictions (M,) with M > 0 expected, got {labels.shape}, {predictions.shape}")
    unit, target_name = plain(pretty_unit(unit)), plain(target_name)
    with style(), np.errstate(over="ignore"):
        figure = new_figure(9.6, 4.9, about, wspace=0.06)
        scatter, histogram = figure.subplots(1, 2, width_ratios=(1.4, 1.0))
        _draw_scatter(figure, scatter, labels, predictions, counted)
        scatter.set(xlabel=f"{target_name}, reference ({unit})", ylabel=f"{target_name}, predicted ({unit})")
        name = "" if target_name in counted else f"{target_name}: "
        _put_titles(scatter, name + how_many(len(labels), counted), _metric_text(labels, predictions, unit), "black")
        _draw_errors(histogram, predictions - labels, unit, counted)
        space_ticks(figure, [[scatter.xaxis, scatter.yaxis], [histogram.xaxis]])
        write(figure, path)


class Curve(NamedTuple):
    """One line of a panel: ``values`` (K,), one an epoch, NaN where there is none."""

    name: str
    values: np.ndarray
    colour: str


class Panel(NamedTuple):
    """One of the panels below each other that share the epochs; ``unit`` and baselines are those of the curves."""

    label: str
    curves: list[Curve]
    unit: str = ""
    baselines: Mapping[str, float] = {}


def plot_loss_curve(
    rows: Sequence[Mapping[str, Any]],
    quantities: Sequence[Quantity],
    path: str | Path,
    best_epoch: int,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    about: Sequence[str] = (),
) -> None:
    """Training loss, MAE of training and validation of each quantity, and learning rate by epoch.

    Args:
        rows: rows of metrics.csv, one an epoch, with ``epoch``, ``train_loss``, ``lr`` and, for the key of each
            quantity, ``train_mae`` and ``valid_mae``; numbers or their text, empty where an epoch was not validated.
        quantities: whose errors are shown, in the units of the log.
        path: PNG to write.
        best_epoch: of the model that the run keeps as its best.
        baselines: key of a quantity to names and MAE of trivial baselines on the validation structures.
        about: parts of the footer.

    Raises:
        ValueError: no rows.
        KeyError: a row lacks one of the columns.
    """
    if not rows:
        raise ValueError("no epochs to draw")
    epoch = _column(rows, "epoch")
    errors = [_error_panel(rows, one, (baselines or {}).get(one.key, {})) for one in quantities]
    panels = [
        Panel("training loss", [Curve("", _column(rows, "train_loss"), BLUE)]),
        *errors,
        Panel("learning rate", [Curve("", _column(rows, "lr"), GREEN)]),
    ]
    heights = [1.0, *[1.35] * len(errors), 0.6]
    with style():
        figure = new_figure(8.4, 5.2 + 2.2 * len(errors), about)
        for axes, panel in zip(
            figure.subplots(len(panels), 1, sharex=True, height_ratios=heights), panels, strict=True
        ):
            axes.set_ylabel(panel.label)
            _draw_curves(axes, epoch, panel, best_epoch)
        figure.align_ylabels(figure.axes)
        axes.set_xlabel("epoch")
        axes.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=STEPS, min_n_ticks=1))
        write(figure, path)


def _error_panel(rows: Sequence[Mapping[str, Any]], quantity: Quantity, baselines: Mapping[str, float]) -> Panel:
    """The errors of a quantity in the unit that the log has them in."""
    curves = [
        Curve(name, quantity.factor * _column(rows, f"{part}_{quantity.key}"), colour)
        for name, part, colour in (("train (during the epoch)", "train", BLUE), ("validation", "valid", ORANGE))
    ]
    unit = plain(pretty_unit(quantity.unit))
    scaled = {name: quantity.factor * value for name, value in baselines.items()}
    return Panel(f"{quantity.name}MAE ({unit})", curves, unit, scaled)


def _draw_scatter(figure: Figure, axes: Axes, labels: np.ndarray, predictions: np.ndarray, counted: str) -> None:
    finite = np.isfinite(labels) & np.isfinite(predictions)
    labels, predictions = labels[finite], predictions[finite]
    low, high = _limits(np.concatenate([labels, predictions]))
    if len(labels) >= HEXBIN_FROM:
        cells = axes.hexbin(
            labels,
            predictions,
            gridsize=70,
            extent=(low, high, low, high),
            bins="log",
            mincnt=1,
            cmap=COLOUR_MAP,
            linewidths=0.1,
        )
        bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30, format=LogFormatter(minor_thresholds=(2, 0.6)))
        bar.set_label(f"{counted} per cell")
        bar.outline.set_visible(False)
    else:
        size = float(np.clip(6000 / max(len(labels), 1), 10, 40))
        axes.scatter(labels, predictions, s=size, color=BLUE, alpha=0.45, linewidths=0)
    axes.plot([low, high], [low, high], zorder=3, **DIAGONAL)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        show_full_numbers(axis, np.array([low, high]))


def _draw_errors(axes: Axes, errors: np.ndarray, unit: str, counted: str) -> None:
    """Histogram of the errors, of many over the central 99 %; the title says how many lie outside."""
    finite = errors[np.isfinite(errors)]
    part = 99 if len(finite) >= 200 else 100
    reach = 1.05 * float(np.percentile(np.abs(finite), part)) if len(finite) else 0.0
    reach = reach if reach > 0 else 1.0
    outside, missing = int(np.sum(np.abs(finite) > reach)), len(errors) - len(finite)
    bins = int(np.clip(np.sqrt(len(errors)) * 1.5, 9, 61)) | 1  # odd: the middle bin is centred on zero
    axes.hist(finite, bins=bins, range=(-reach, reach), color=BLUE, alpha=0.85, edgecolor="white", linewidth=0.4)
    axes.axvline(0.0, **DIAGONAL)
    axes.set(xlim=(-reach, reach), xlabel=f"error, predicted − reference ({unit})", ylabel=counted)
    notes = [f"{outside:,} outside the range"] if outside else []
    notes += [f"{missing:,} not finite"] if missing else []
    title = f"errors ({', '.join(notes)})" if notes else "errors"
    mean = ""
    if len(finite):
        mean = f"mean {with_minus(f'{finite.mean():+.3g}')} {unit}"
        axes.axvline(finite.mean(), color=ORANGE, linewidth=1.6)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=STEPS))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        axes.set(ylim=(0, 1), yticks=[])
    show_full_numbers(axes.xaxis, np.array([-reach, reach]))
    _put_titles(axes, title, mean, ORANGE)


def _put_titles(axes: Axes, title: str, line: str, colour: str) -> None:
    """A title and a line of numbers above the frame; inside, they would cover points or bars."""
    axes.set_title(f"{title}\n", loc="left")
    axes.text(0, 1.02, line, fontsize=10, color=colour, transform=axes.transAxes)


def _draw_curves(axes: Axes, epoch: np.ndarray, panel: Panel, best_epoch: int) -> None:
    """The curves of one panel; with the best epoch on the last of them and trivial baselines where they have names."""
    _, curves, unit, baselines = panel
    every = [np.array(list(baselines.values()))]
    for curve in curves:
        drawn = np.isfinite(curve.values)
        every.append(curve.values[drawn])
        marker = "o" if drawn.sum() <= 60 else ""
        axes.plot(
            epoch[drawn],
            curve.values[drawn],
            color=curve.colour,
            marker=marker,
            markersize=4,
            linewidth=1.8,
            label=curve.name,
        )
    axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
    _scale_axis(axes, np.concatenate(every))
    if not curves[-1].name:
        return
    best = curves[-1].values[epoch == best_epoch]
    if np.isfinite(best).any():
        axes.plot(
            best_epoch,
            best[0],
            marker="*",
            markersize=14,
            color=ORANGE,
            markeredgecolor="white",
            linestyle="",
            label=f"best model: {best[0]:.4g} {unit} (epoch {best_epoch})",
        )
    for position, (name, value) in enumerate(baselines.items()):
        axes.axhline(
            value,
            color=GREY,
            linewidth=1.3,
            linestyle=DASHES[position % len(DASHES)],
            label=f"validation, {name}: {value:.4g} {unit}",
        )
    # Above the panel: inside, it would cover one of the lines.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, columnspacing=1.4, borderaxespad=0.2)


def _scale_axis(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic where values span more than a factor of 5: a linear axis would show the first epochs only."""
    if len(values) and values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
        axes.yaxis.set_minor_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
    else:
        show_full_numbers(axes.yaxis, values)


def _metric_text(labels: np.ndarray, predictions: np.ndarray, unit: str) -> str:
    error = predictions - labels
    spread = np.sum((labels - labels.mean()) ** 2) if np.ptp(labels) > 0 else 0.0
    r2 = 1 - np.sum(error**2) / spread if spread > 0 else np.nan
    r2_text = "undefined" if np.isnan(r2) else with_minus(f"{r2:.4f}" if r2 > -100 else f"{r2:.3g}")
    mae, rmse = np.mean(np.abs(error)), np.sqrt(np.mean(error**2))
    return f"MAE {with_minus(f'{mae:.4g}')} {unit}   RMSE {with_minus(f'{rmse:.4g}')} {unit}   R² {r2_text}"


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of the values with a margin of 4 %; a unit interval where there is no range."""
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or max(0.5, 1e-6 * abs(high))
    return low - margin, high + margin


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(K,) a column of metrics.csv; NaN where it is empty."""
    return np.array([np.nan if row[key] is None or row[key] == "" else float(row[key]) for row in rows])
