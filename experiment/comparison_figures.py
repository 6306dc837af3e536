"""The curves of several runs in one picture: errors and losses, against epochs and against time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiment.comparison import title
from experiment.figures import PlainLogFormatter
from experiment.plot_style import STEPS, new_figure, pretty_unit, show_full_numbers, style, write
from experiment.run_files import Error, RunFiles

# Okabe and Ito's colours without black and yellow, and lines that differ where the colours come again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)))
LOOKS = list(product(LINES, COLOURS))
MOST_RUNS = len(LOOKS)
PARTS = {"valid": "validation", "train": "training"}
LOSS = "train_loss"


def plot_comparison(runs: Sequence[RunFiles], path: str | Path, about: str = "") -> None:
    """Draw validation and training errors and the training loss of all runs, by epochs and by minutes.

    Errors of another target or unit have a row of panels of their own.  The first run has the broadest lines, so that
    one that coincides with it leaves it visible.

    Args:
        runs: those without an epoch are left out; at most ``MOST_RUNS``.
        path: PNG to write.
        about: a title; empty: none.

    Raises:
        ValueError: no epoch to draw, or too many runs.
    """
    runs = [run for run in runs if run.rows]
    if not runs or len(runs) > MOST_RUNS:
        raise ValueError(f"expected 1 to {MOST_RUNS} runs with epochs, got {len(runs)}")
    errors = list(dict.fromkeys((part, one) for run in runs for one in run.errors for part in PARTS))
    drawn = [
        (part, one) for part, one in errors if any(_column(run, f"{part}_{one.key}", one) is not None for run in runs)
    ]
    timed = any(run.seconds is not None for run in runs)
    with style():
        figure = new_figure(7.2 * (1 + timed), 1.2 + 2.7 * (len(drawn) + 1), [])
        panels = figure.subplots(len(drawn) + 1, 1 + timed, squeeze=False, sharex="col", sharey="row")
        for line, (part, one) in zip(panels, drawn, strict=False):
            _draw(line, runs, f"{part}_{one.key}", one)
            line[0].set_ylabel(f"{PARTS[part]} {pretty_unit(title(one))}")
        _draw(panels[-1], runs, LOSS, None)
        panels[-1][0].set_ylabel("training loss")
        panels[-1][0].set_xlabel("epoch")
        panels[-1][0].xaxis.set_major_locator(MaxNLocator(integer=True, steps=STEPS, min_n_ticks=1))
        if timed:
            panels[-1][1].set_xlabel("time of epochs (min)")
        handles, labels = panels[-1][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), title=about or None)
        write(figure, path)


def _column(run: RunFiles, name: str, error: Error | None) -> np.ndarray | None:
    """(K,) a column of a run; None where it has none, or one of another target or unit."""
    if (error is not None and error not in run.errors) or name not in run.rows[0]:
        return None
    return np.array([row[name] for row in run.rows])


def _draw(panels: np.ndarray, runs: Sequence[RunFiles], name: str, error: Error | None) -> None:
    """One column of all runs against epochs, and against minutes where there is a second panel."""
    every = []
    for position, (run, (line, colour)) in enumerate(zip(runs, LOOKS, strict=False)):
        values = _column(run, name, error)
        look: dict[str, Any] = {"color": colour, "linestyle": line, "label": run.name.replace("$", r"\$")}
        look |= {"linewidth": 4.5, "alpha": 0.45} if position == 0 and len(runs) > 1 else {"linewidth": 1.6}
        if values is None:
            panels[0].plot([], [], **look)
            continue
        every.append(values[np.isfinite(values)])
        panels[0].plot([row["epoch"] for row in run.rows], values, **_dotted(look, values))
        if len(panels) > 1 and run.seconds is not None:
            minutes = np.cumsum([row["seconds"] for row in run.rows]) / 60
            panels[1].plot(minutes, values, **_dotted(look, values))
    for axes in panels:
        axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
    _scale(panels[0], np.concatenate(every) if every else np.zeros(0))


def _dotted(look: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    """The look of a line, with points where there are few: one epoch alone has no line."""
    return look | ({"marker": "o", "markersize": 3.5} if len(values) <= 30 else {})


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Logarithmic where values span more than a factor of 5: a linear axis would show the first epochs only."""
    if len(values) and values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
        axes.yaxis.set_minor_formatter(PlainLogFormatter(minor_thresholds=(1.5, 0.6)))
    else:
        show_full_numbers(axes.yaxis, values)
