"""What ``modes.py`` says of its cases: how far they differ, and the page of its results."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("modes_report.py is a part of modes.py: see python scripts/benchmarks/modes.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import platform
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from experiment.provenance import Command
from training.cpu_runtime import cores
from training.device import versions

OK = "OK"
LOSSES, FIRST, LATER, WEIGHTS = "losses", "gradient of the first step", "gradient after the steps", "weights"
#: quantity: the largest relative difference that rounding explains, in float32 and in float64
TOLERANCES = {LOSSES: (1e-4, 1e-9), FIRST: (1e-3, 1e-9), LATER: (1e-3, 1e-9), WEIGHTS: (1e-2, 1e-8)}
PRECISIONS = ("float32", "float64")
FLOOR = 1e-3  # what is smaller than this part of the largest number of all parameters is rounding of those
ABOUT_CASES = """\
Each case is a process of its own, one after the other: train steps of a configuration, on batches of the static shape
that most of its batches have. The first step includes compilation, not imports and data; the step is the median of
those after two. Memory is the largest of the process."""
ABOUT_DIFFERENCES = """\
Relative differences max |a - b| / max |a| of two cases from equal seeds on equal batches: of the losses of the first
{updates} steps, and, of the parameter that differs most, of the gradient at the first step and of gradient and weights
after {updates} steps. The max |a| of a parameter counts as at least {floor:g} of that of all parameters. Gradients are
those that the optimiser gets, clipped where the configuration clips. Accepted: {accepted}."""
#: of one case: quantity to the arrays by name; of gradients and weights an array for each parameter
Numbers = Mapping[str, Mapping[str, np.ndarray]]


def tolerance(quantity: str, dtype: str) -> float:
    """The largest relative difference of a quantity that is accepted in a precision."""
    return TOLERANCES[quantity][PRECISIONS.index(dtype)]


def relative_differences(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of each array max |a - b| / max |a|; NaN where a number is NaN, and where the a of every array are 0.

    The max |a| of an array counts as at least ``FLOOR`` times that of all arrays.

    Raises:
        ValueError: the names or the shapes differ.
    """
    if {name: value.shape for name, value in a.items()} != {name: value.shape for name, value in b.items()}:
        raise ValueError("expected the same parameters on both sides")
    sizes = {name: np.max(np.abs(value)).astype(np.float64) for name, value in a.items()}
    least = FLOOR * np.max([*sizes.values()])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: float(np.max(np.abs(a[name].astype(np.float64) - b[name])) / np.maximum(size, least))
            for name, size in sizes.items()
        }


def differences(cases: Mapping[tuple[str, str], Numbers], dtype: str) -> list[dict[str, Any]]:
    """Every pair of cases of one configuration that differ in the mode alone, or in the path alone.

    Args:
        cases: (mode, path) to what was computed.
        dtype: of the configuration.

    Returns:
        For each pair ``compared``, the largest relative difference by quantity, and ``beyond``: the quantities that
        differ by more than their tolerance, those that are not finite included, with the array where they do most.
    """
    rows = []
    for (one, a), (other, b) in combinations(cases.items(), 2):
        if (one[0] == other[0]) == (one[1] == other[1]):
            continue
        common = one[1] if one[1] == other[1] else one[0]
        pair = [next(word for word in case if word != common) for case in (one, other)]
        row: dict[str, Any] = {"compared": f"{pair[0]}, {pair[1]} ({common})", "beyond": {}}
        for quantity in TOLERANCES:
            found = relative_differences(a[quantity], b[quantity])
            worst = max(found, key=lambda name: (np.isnan(found[name]), found[name]))
            row[quantity] = found[worst]
            if not found[worst] <= tolerance(quantity, dtype):
                row["beyond"][quantity] = worst
        rows.append(row)
    return rows


def page(results: Sequence[Mapping[str, Any]], updates: int, command: Command) -> str:
    """The results of all configurations in Markdown.

    Args:
        results: of each configuration ``config``, ``dtype``, ``cases`` and ``differences``.
        updates: steps before the gradients are compared.
        command: that was given.
    """
    record = command.record()
    commit, dash, state = (record["commit"] or "unknown").partition("-")
    programs = ", ".join(f"{name} {version}" for name, version in versions().items())
    kinds = [dtype for dtype in PRECISIONS if any(result["dtype"] == dtype for result in results)]
    accepted = "; ".join(
        f"{quantity} {', '.join(f'{tolerance(quantity, dtype):.0e} in {dtype}' for dtype in kinds)}"
        for quantity in TOLERANCES
    )
    return "\n".join(
        [
            "# GRAPH and PYNATIVE, with the C++ kernels and with MindSpore's operators", "",
            f"Commit {commit[:12]}{dash}{state}; {record['started']}; {programs}; {platform.machine()}, "
            f"{cores()} cores.", "", "```bash", command.text, "```", "",
            ABOUT_CASES,
            "", "## Time and memory", "",
            *_lines(
                ("configuration", "structures", "mode", "path", "first step [s]", "step [ms]", "steps", "memory [GiB]",
                 "result"),
                [_case_cells(result["config"], case) for result in results for case in result["cases"]],
            ),
            "", "## Differences", "",
            ABOUT_DIFFERENCES.format(updates=updates, floor=FLOOR, accepted=accepted), "",
            *_lines(
                ("configuration", "a, b", *TOLERANCES, "result"),
                [_pair_cells(result["config"], pair) for result in results for pair in result["differences"]],
            ),
            "",
        ]
    )  # fmt: skip


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _case_cells(config: str, case: Mapping[str, Any]) -> list[str]:
    if case["result"] != OK:
        measured = ["-", case["mode"], case["path"], "-", "-", "-", f"{case['memory_gib']:.2f}"]
    else:
        measured = [
            str(case["batch_size"]), case["mode"], case["path"], f"{case['first_seconds']:.1f}",
            f"{1e3 * case['step_seconds']:.1f}", str(case["timed"]), f"{case['memory_gib']:.2f}",
        ]  # fmt: skip
    return [config, *measured, case["result"]]


def _pair_cells(config: str, pair: Mapping[str, Any]) -> list[str]:
    verdict = "; ".join(f"{quantity} differ: {worst}" for quantity, worst in pair["beyond"].items()) or OK
    return [config, pair["compared"], *(f"{pair[quantity]:.1e}" for quantity in TOLERANCES), verdict]
