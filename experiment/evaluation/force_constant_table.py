"""Errors of force constants over materials, as numbers and as a table: means and medians, baselines always beside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiment.evaluation.force_constants import TEMPERATURE, Judged


class Row(NamedTuple):
    """What a metric is called in a table, its unit and its digits."""

    title: str
    unit: str = ""
    digits: int = 3


ROWS = {
    "mae": Row("MAE", "eV/A^2"),
    "mae_on_site": Row("  on-site", "eV/A^2"),
    "mae_first_shell": Row("  first shell", "eV/A^2"),
    "mae_rest": Row("  rest", "eV/A^2"),
    "frobenius": Row("relative Frobenius"),
    "frobenius_off_site": Row("  off-site"),
    "slope": Row("slope on the reference"),
    "frequency_mae": Row("frequencies", "THz", 2),
    "frequency_bias": Row("  bias", "THz", 2),
    "highest_frequency": Row("highest frequency", "K", 0),
    "free_energy": Row(f"free energy, {TEMPERATURE:.0f} K", "kJ/mol an atom", 2),
    "entropy": Row(f"entropy, {TEMPERATURE:.0f} K", "J/K/mol an atom", 2),
    "heat_capacity": Row(f"Cv, {TEMPERATURE:.0f} K", "J/K/mol an atom", 2),
}
#: counts of materials: what the reference says, then what was predicted
VERDICTS = ("stable_stable", "stable_unstable", "unstable_stable", "unstable_unstable")
ALL, STABLE = "all materials", "stable in the reference"

#: statistic to value
Statistics = dict[str, float]
#: part of the materials, to whose, to the metric, to its statistics
Summary = dict[str, dict[str, dict[str, Statistics]]]


def summary(judged: Judged) -> Summary:
    """Mean and median of every metric over all materials, and over those that are stable in the reference.

    Returns:
        For ``ALL``, and for ``STABLE`` where phonons are compared and one is: whose, to the metric, to ``mean``,
        ``median`` and ``count`` of the materials that have it; ``stability`` has the counts of ``VERDICTS``.
    """
    count = len(judged.materials)
    parts = {ALL: np.ones(count, bool)}
    if judged.stable is not None and judged.stable.any():
        parts[STABLE] = judged.stable
    return {title: {whose: _of(judged, whose, part) for whose in judged.errors} for title, part in parts.items()}


def table(judged: Judged) -> list[list[str]]:
    """Rows of cells `mean / median`, a header first, all materials and then those stable in the reference."""
    found: list[list[str]] = []
    for title, of_all in summary(judged).items():
        count = len(judged.materials) if judged.stable is None or title == ALL else int(judged.stable.sum())
        found.append([f"{title} ({count}): mean / median", "unit", *of_all])
        for key, row in ROWS.items():
            if any(key in metrics for metrics in of_all.values()):
                found.append([row.title, row.unit, *(_cell(of_one.get(key), row.digits) for of_one in of_all.values())])
        if judged.stable is not None:
            for verdict in VERDICTS if title == ALL else VERDICTS[:2]:
                counts = [f"{of_one['stability'][verdict]:.0f}" for of_one in of_all.values()]
                found.append([verdict.replace("_", ", predicted "), "materials", *counts])
    return found


def lines(judged: Judged) -> list[str]:
    """``table`` as aligned text."""
    rows = table(judged)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([*map(str.ljust, cells[:2], widths), *map(str.rjust, cells[2:], widths[2:])]) for cells in rows]


def markdown(judged: Judged) -> list[str]:
    """``table`` as Markdown, one table for each part of the materials."""
    found: list[str] = []
    for cells in table(judged):
        header = cells[1] == "unit"
        if header and found:
            found.append("")
        found.append(f"| {' | '.join(cells)} |")
        if header:
            found.append("|" + "---|" * len(cells))
    return found


def _of(judged: Judged, whose: str, part: np.ndarray) -> dict[str, Statistics]:
    """Statistics of one prediction over a part of the materials."""
    found: dict[str, Statistics] = {}
    for key, values in judged.errors[whose].items():
        there = values[part & ~np.isnan(values)]
        if len(there):
            found[key] = {"mean": float(there.mean()), "median": float(np.median(there)), "count": len(there)}
    if judged.stable is not None:
        pairs = np.bincount(2 * ~judged.stable[part] + ~judged.predicted_stable[whose][part], minlength=4)
        found["stability"] = dict(zip(VERDICTS, map(float, pairs), strict=True))
        found["stability"] |= {"right": float(pairs[0] + pairs[3]), "count": float(pairs.sum())}
    return found


def _cell(statistics: Statistics | None, digits: int) -> str:
    if statistics is None:
        return "-"
    return f"{statistics['mean']:.{digits}f} / {statistics['median']:.{digits}f}"
