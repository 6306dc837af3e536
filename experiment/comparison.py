"""One table of several runs: how far they are, their errors, their times, and in what their configurations differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiment.run_files import DERIVED, UNKNOWN, Error, RunFiles
from training.files import clock

COMMIT = 10  # characters of a commit that are shown
PACKAGES = ("mindspore", "torch", "torch_geometric", "numpy", "python")  # whose versions are shown, in this order
#: keys that decide which structures are measured
OF_STRUCTURES = ("data.file", "data.train_file", "data.test_file", "data.split", "data.test_size")
#: rows of a table: column to text, with the same columns in all of them
Rows = list[dict[str, str]]


def comparison(runs: Sequence[RunFiles]) -> Rows:
    """One row a run; a cell is empty where a run has nothing of its column.

    Errors of other targets, or in other units, have columns of their own.  Of the configurations only the keys are
    shown in which they differ.

    Args:
        runs: at least one.
    """
    errors = list(dict.fromkeys((one.of, one.unit, one.key) for run in runs for one in run.errors))
    differing = differences(runs)
    rows = []
    for run in runs:
        best = run.best
        row = {"run": run.name, "state": state(run), "best epoch": f"{best['epoch']:g}" if best else ""}
        for part in ("valid", "test"):
            for of, unit, key in errors:
                error = Error(key, of, unit)
                value = None
                if error in run.errors:
                    value = best.get(f"valid_{key}") if part == "valid" else run.test_error(error)
                row[f"{part} {title(error)}"] = "" if value is None else f"{value:.5g}"
        seconds, steps = run.seconds, run.rows[-1]["step"] if run.rows else 0
        row["s/step"] = f"{seconds / steps:.4g}" if seconds is not None and steps else ""
        row["time of epochs"] = "" if seconds is None else clock(seconds)
        row |= {"versions": _versions(run), "commit": _commit(run)}
        rows.append(row | {key: shown(run.settings[key]) if key in run.settings else "" for key in differing})
    return rows


def title(error: Error) -> str:
    """What is measured, with its unit."""
    of = "" if error.of == UNKNOWN else f" {error.of}"
    return f"MAE{of} [{'unit unknown' if error.unit == UNKNOWN else error.unit}]"


def state(run: RunFiles) -> str:
    """How many epochs are done, of how many where the run is not finished."""
    done, whole = len(run.rows), run.settings.get("training.epochs")
    if run.metrics:
        return f"finished, {done} epochs" if run.rows else "finished"
    return f"epoch {done} of {whole}" if whole else f"epoch {done}"


def differences(runs: Sequence[RunFiles]) -> list[str]:
    """The keys whose values are not the same in all configurations; runs without a configuration are not asked."""
    configured = [run.settings for run in runs if run.settings]
    keys = dict.fromkeys(key for settings in configured for key in settings)
    missing = object()
    return [key for key in keys if len({repr(settings.get(key, missing)) for settings in configured}) > 1]


def shown(value: Any) -> str:
    """A value of a configuration in a cell."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _versions(run: RunFiles) -> str:
    versions = run.about.get("versions")
    known = versions if isinstance(versions, dict) else {}
    return ", ".join(f"{name} {known[name]}" for name in PACKAGES if name in known)


def _commit(run: RunFiles) -> str:
    provenance = run.about.get("provenance")
    commit = provenance.get("commit") if isinstance(provenance, dict) else None
    if not isinstance(commit, str):
        return ""
    digest, dash, mark = commit.partition("-")
    return digest[:COMMIT] + dash + mark


def notes(runs: Sequence[RunFiles]) -> list[str]:
    """What to know before numbers of the table are compared, one line each."""
    found = []
    targets: dict[str, list[str]] = {}
    for run in runs:
        for one in run.errors:
            if one.key not in DERIVED:
                targets.setdefault(title(one), []).append(run.name)
    if len(targets) > 1:
        listed = "; ".join(f"{words} of {', '.join(names)}" for words, names in targets.items())
        found.append(f"the runs have different targets or units, whose errors are no comparison: {listed}")
    differing = [key for key in OF_STRUCTURES if key in differences(runs)]
    if differing:
        found.append(f"the runs differ in {', '.join(differing)}: their errors may be those of different structures")
    return found


def markdown(rows: Rows) -> str:
    """Rows as a table of Markdown whose columns are aligned, so that it is read as plain text too."""
    names = list(rows[0])
    lines = [[_cell(name) for name in names], *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    text = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    text.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(text) + "\n"


def _cell(text: str) -> str:
    """A cell on one line, in which a bar is no border."""
    return " ".join(text.split()).replace("|", "\\|")
