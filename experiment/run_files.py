"""What a training has left in its folder so far, for programs that compare runs.

A run of this project has config.yaml and, after its first epoch, metrics.csv and times.csv; at its end metrics.json.
The trainings of the peers (scripts/peers/) have metrics.csv and metrics.json, with units in the names of columns.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configs.loading import load_config
from configs.writing import config_to_dict
from data_tools.labels.own_property import target_of
from training.checkpoint import BEST, LAST, information_of
from training.files import one_line

CONFIG, CURVES, TIMES, METRICS = "config.yaml", "metrics.csv", "times.csv", "metrics.json"
COLUMN = re.compile(r"(?P<part>train|valid)_(?P<key>(?:force_|stress_)?mae)(?:_(?P<unit>.+))?")
#: by the key of a column: what is measured besides the target, its unit, its table in metrics.json, its weight
DERIVED = {
    "force_mae": ("forces", "eV/A", "test_forces", "training.force_weight"),
    "stress_mae": ("stress", "eV/A^3", "test_stress", "training.stress_weight"),
}
UNKNOWN = "unknown"
LARGEST = 50_000_000  # bytes of a file of numbers


class RunError(ValueError):
    """A run folder that cannot be used: one line with what was expected, what came and what to do."""

    exit_code = 2


class NoRunError(RunError):
    """A folder or file that is no run."""


class Error(NamedTuple):
    """An error that a run watches.

    Attributes:
        key: ``mae of TARGET``, ``force_mae`` or ``stress_mae``.
        of: the target, ``forces`` or ``stress``.
        unit: of it.
    """

    key: str
    of: str
    unit: str


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder.

    Attributes:
        name: that tables and curves have for it.
        folder: of the run.
        settings: the configuration by ``section.key``, without its folder; empty for a run of a peer.
        errors: that it watches.
        rows: one an epoch: ``epoch``, ``step``, ``train_loss``, ``lr``, of each key of ``errors`` ``train_KEY`` and
            ``valid_KEY`` in its unit, and ``seconds`` where they are known.
        metrics: what metrics.json holds; empty before the end.
        about: ``versions`` and ``provenance``, of metrics.json or the newest checkpoint.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    errors: tuple[Error, ...]
    rows: list[dict[str, float]]
    metrics: dict[str, Any]
    about: dict[str, Any]

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch: the one that metrics.json names, or else that of the least weighted error."""
        named = self.metrics.get("best_epoch") or _inner(self.metrics, "test_best_validation").get("epoch")
        found = [row for row in self.rows if row["epoch"] == named]
        if found or not self.rows:
            return found[0] if found else {}
        of_target = self.settings.get("training.energy_weight", 1.0)
        weights = {key: self.settings.get(words[3], 1.0) for key, words in DERIVED.items()}
        return min(
            self.rows,
            key=lambda row: sum(weights.get(one.key, of_target) * row[f"valid_{one.key}"] for one in self.errors),
        )

    def test_error(self, error: Error) -> float | None:
        """Of the best model on the test structures; None where it has not been measured."""
        peer = _inner(self.metrics, "test_best_validation").get(f"mae_{error.unit}")
        of_several = f"test of {error.of}"  # targets of one network
        table = DERIVED[error.key][2] if error.key in DERIVED else of_several if of_several in self.metrics else "test"
        value = _inner(self.metrics, table, "best model").get("mae") if peer is None else peer
        return float(value) if isinstance(value, int | float) else None

    @property
    def seconds(self) -> float | None:
        """Of all epochs so far; None where they are not known."""
        if not self.rows or any("seconds" not in row for row in self.rows):
            return None
        return sum(row["seconds"] for row in self.rows)


def read_run(folder: Path, name: str = "") -> RunFiles:
    """Read a run folder.

    Args:
        folder: of a finished or a running training, of this project or of a peer.
        name: for tables; empty: that of the folder.

    Raises:
        NoRunError: nothing of a run is there.
        RunError: a file of it is damaged.
    """
    if not folder.exists():
        raise RunError(f"{folder}: expected a run folder, found nothing there")
    if not folder.is_dir() or not any((folder / one).is_file() for one in (CONFIG, CURVES)):
        what = "no such file" if folder.is_dir() else "a file"
        raise NoRunError(f"{folder}: expected a run folder with {CONFIG} or {CURVES}, found {what}")
    settings = _settings(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    metrics = _read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    about = metrics or information_of(folder / (LAST if (folder / LAST).is_file() else BEST))
    rows, errors = _curves(folder, settings, metrics)
    return RunFiles(name or folder.resolve().name, folder, settings, errors, rows, metrics, about)


def _settings(file: Path) -> dict[str, Any]:
    sections = config_to_dict(load_config(file))
    flat = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    del flat["run.output"]
    return flat


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file}: expected JSON, got: {one_line(error)[:200]}; move the run elsewhere") from None
    if not isinstance(found, dict):
        raise RunError(f"{file}: expected the metrics of a run, got {type(found).__name__}; move the run elsewhere")
    return found


def _text(file: Path) -> str:
    if file.stat().st_size > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    return file.read_text(encoding="utf-8")


def _curves(
    folder: Path, settings: Mapping[str, Any], metrics: Mapping[str, Any]
) -> tuple[list[dict[str, float]], tuple[Error, ...]]:
    """The rows of metrics.csv with the seconds of times.csv, and the errors that they hold."""
    rows = _read_numbers(folder / CURVES)
    columns = _columns(rows[0] if rows else (), _targets(settings, metrics))
    errors = [error for part, error in columns.values() if part == "valid"]
    if rows and not ({"epoch", "step", "train_loss"} <= rows[0].keys() and errors):
        raise RunError(f"{folder / CURVES}: expected the columns epoch, step, train_loss and valid_mae, found others")
    plain = {name: f"{part}_{error.key}" for name, (part, error) in columns.items()}
    rows = [{plain.get(key, key): value for key, value in row.items()} for row in rows]
    times = {row.get("epoch"): row.get("seconds", math.nan) for row in _read_numbers(folder / TIMES)}
    for row in rows:
        if row["epoch"] in times:
            row["seconds"] = times[row["epoch"]]
    return rows, tuple(errors)


def _columns(names: Iterable[str], units: Mapping[str, str]) -> dict[str, tuple[str, Error]]:
    """The columns of metrics.csv that are errors: ``train`` or ``valid``, and of what.

    Args:
        names: of all columns.
        units: of each target; of a single one the columns do not say its name.
    """
    if len(units) > 1:
        named = {f"{part}_{of}_mae": (part, of) for of in units for part in ("train", "valid")}
        return {
            name: (named[name][0], Error(f"mae of {named[name][1]}", named[name][1], units[named[name][1]]))
            for name in names if name in named
        }  # fmt: skip
    (target, unit), found = *units.items(), {}
    for match in filter(None, map(COLUMN.fullmatch, names)):
        key, of, own_unit = match["key"], target, unit
        if key in DERIVED:
            of, own_unit = DERIVED[key][:2]
        else:
            key = f"mae of {target}"
        found[match[0]] = match["part"], Error(key, of, match["unit"] or own_unit)
    return found


def _targets(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """Name and unit of each target."""
    names = settings.get("target.names") or [settings.get("target.name") or _inner(metrics, "settings").get("target")]
    units = settings.get("target.units") or {}
    found = {}
    for name in names:
        try:
            target = target_of(str(name or ""), units.get(name, settings.get("target.unit") or ""), own=True)
            found[target.name] = target.unit
        except ValueError:
            found[str(name or UNKNOWN)] = UNKNOWN
    return found


def _read_numbers(file: Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, NaN where a cell is empty; none where there is no file."""
    if not file.is_file():
        return []
    try:
        rows = list(csv.DictReader(_text(file).splitlines()))
        return [{key: float(text) if text else math.nan for key, text in row.items()} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(
            f"{file}: expected rows of numbers, got: {one_line(error)[:200]}; move the run elsewhere"
        ) from None


def _inner(content: Any, *keys: str) -> dict[str, Any]:
    """A dictionary within dictionaries; empty where it is missing or something else."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
