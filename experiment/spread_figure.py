"""The picture of an ensemble: errors of its mean against its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes

from experiment.figures import PlainLogFormatter
from experiment.plot_style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    how_many,
    new_figure,
    plain,
    pretty_unit,
    style,
    write,
)
from experiment.uncertainty import LEVELS, Calibration, rank_correlation

BINS = 10  # of equal numbers of structures
FEWEST_IN_BIN = 5


def plot_spread(
    errors: np.ndarray,
    spreads: np.ndarray,
    calibration: Calibration | None,
    target_name: str,
    unit: str,
    path: str | Path,
    about: Sequence[str] = (),
) -> None:
    """Draw |error| against spread on logarithmic axes, with root mean squares of groups and the intervals.

    Args:
        errors, spreads: (M,) in ``unit``; zeros have no place on a logarithmic axis and are counted, not drawn.
        calibration: its scale is that of the intervals; None: they are those of the spread as it is.
        target_name: name of the target, for the axes.
        unit: of both.
        path: PNG to write.
        about: parts of the footer.

    Raises:
        ValueError: nothing to draw.
    """
    sizes = np.abs(errors)
    shown = (sizes > 0) & (spreads > 0)
    if not shown.any():
        raise ValueError("every error or every spread is 0")
    unit, name = plain(pretty_unit(unit)), plain(target_name)
    scale = calibration.scale if calibration is not None and math.isfinite(calibration.scale) else 1.0
    with style():
        figure = new_figure(6.4, 5.4, about)
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log")
        axes.scatter(spreads[shown], sizes[shown], s=9, color=BLUE, alpha=0.35, linewidths=0, rasterized=True)
        _draw_intervals(axes, spreads[shown], scale)
        groups = group_means(sizes[shown], spreads[shown])
        if len(groups) > 1:
            axes.plot(*groups.T, color=ORANGE, marker="o", markersize=5, label="root mean squares of groups")
        if calibration is not None and calibration.threshold > 0:
            axes.axvline(calibration.threshold, color=GREEN, linewidth=1.2, label="uncertain to the right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
            axis.set_minor_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
        axes.set(xlabel=f"{name}, spread of the members ({unit})", ylabel=f"{name}, |error| of their mean ({unit})")
        left_out = f", {len(shown) - shown.sum()} with a zero not drawn" if not shown.all() else ""
        correlation = rank_correlation(sizes, spreads)
        axes.set_title(f"{how_many(len(shown), 'structures')}{left_out}, rank correlation {correlation:.2f}")
        figure.legend(loc="outside upper left", fontsize=9, ncols=2)
        write(figure, path)


def _draw_intervals(axes: Axes, spreads: np.ndarray, scale: float) -> None:
    """Lines below which ``LEVELS`` of the errors are, if ``scale`` times the spread is their standard deviation."""
    ends = np.array([spreads.min(), spreads.max()])
    for level, dash in zip(LEVELS, DASHES, strict=False):
        width = NormalDist().inv_cdf((1 + level) / 2) * scale
        label = f"{100 * level:.0f} % interval" + (f", spread times {scale:.3g}" if scale != 1 else "")
        axes.plot(ends, width * ends, color=GREY, linestyle=dash, linewidth=1.3, label=label)


def group_means(sizes: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """(B, 2) root mean squares of spreads and of errors, of ``BINS`` groups in the order of spreads.

    Args:
        sizes, spreads: (M,).
    """
    count = min(BINS, len(sizes) // FEWEST_IN_BIN)
    groups = np.array_split(np.argsort(spreads, kind="stable"), count) if count else []
    return np.array([[np.sqrt(np.mean(each[group] ** 2)) for each in (spreads, sizes)] for group in groups])
