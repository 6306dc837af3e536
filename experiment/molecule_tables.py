"""What a set of models says of few molecules, to read: a table each, rounded to what the spread leaves certain."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

FEW = 8  # molecules; more are CSV
SPREAD, UNCERTAIN, OUTSIDE, ERROR = "calibrated spread", "uncertain", "outside", "error"  # in the names of columns
COLUMN = re.compile(r"(?P<name>(?P<property>.*?)( total| atomisation)?) \[(?P<unit>[^\[\]]*)\]")
HEADS = ("property", "value", "spread", "unit", "")
LEGEND = (
    "spread: calibrated standard deviation of the error; uncertain: it is larger than for 95 % of the validation "
    "molecules\nas CSV: --output FILE.csv, or --output - here"
)


def tables_of(rows: Sequence[Mapping[str, str]], common: str) -> str:
    """Tables of molecules, one below the other.

    Args:
        rows: one a molecule, as of predictions.csv of a set of models.
        common: the name of the column with the spread of all properties.
    """
    return "\n".join([*(_table(row, common) for row in rows), LEGEND]) + "\n"


def _table(row: Mapping[str, str], common: str) -> str:
    """The lines of one molecule."""
    if row.get(ERROR):
        return f"{row['name']}\n  not predicted: {row[ERROR]}\n"
    uncertain = row.get(UNCERTAIN, "").split(", ")
    lines = [HEADS]
    for column, value in row.items():
        found = COLUMN.fullmatch(column)
        if found is None or column.startswith(SPREAD) or column == common:
            continue
        unit = found["unit"]
        name = next((one for one in (found["name"], found["property"]) if f"{SPREAD} {one} [{unit}]" in row), "")
        spread = row.get(f"{SPREAD} {name} [{unit}]", "")
        shown = (*rounded(value, spread), unit, UNCERTAIN if name in uncertain else "")
        lines.append((found["name"], *shown))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [row["name"]]
    for name, value, spread, unit, flag in lines:
        numbers = f"{value:>{widths[1]}}  {spread:>{widths[2]}}"
        text.append(f"  {name:{widths[0]}}  {numbers}  {unit:{widths[3]}}  {flag}".rstrip())
    if row.get(common):
        text.append(f"  spread of all properties: {row[common]} (above 1: unlike the molecules that were learned)")
    if row.get(OUTSIDE):
        text.append(f"  outside of what was learned: {row[OUTSIDE]}")
    return "\n".join(text) + "\n"


def rounded(value: str, spread: str) -> tuple[str, str]:
    """A value and its spread, both to the second digit of the spread; without one, the value to six digits."""
    if not value or not spread or not float(spread) > 0:
        return (f"{float(value):.6g}" if value else "none"), spread
    places = min(max(1 - math.floor(math.log10(float(spread))), 0), 9)
    return f"{float(value):.{places}f}", f"{float(spread):.{places}f}"
