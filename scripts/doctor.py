"""Check the machine before hours are spent on it: versions, operators, derivatives, train steps, forces and Hessians.

    python scripts/doctor.py
    python scripts/doctor.py --device_target Ascend --device_id 0
    python scripts/doctor.py --audit --output results/system/operators.md

Prints a table with one line for each check: what was measured, its limit, and ok, WRONG or known limitation.  The exit
code is 0 if everything that the suite relies on is right, 1 if not, 2 for a device that is not there.  Takes one to
three minutes, nearly all of it compilation.

With ``--audit`` it counts instead the operators that the steps of every model are compiled to without the C++ kernels,
beside the platforms that MindSpore documents for each; exit code 1 if one is not declared for Ascend and GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

from experiment.closed_pipes import until_closed
from experiment.command_line import CommandLine, exit_code
from experiment.provenance import command_of
from models import MODELS
from scripts.doctor_parts import doctor_audit, doctor_checks, doctor_derivatives, doctor_models, doctor_operators
from scripts.doctor_parts.doctor_checks import WRONG, Row, guarded
from training.device import set_up
from training.files import write_text

TARGETS = ("CPU", "GPU", "Ascend")
WIDEST = 70  # what is longer, as errors are, does not widen the column


def sections(options: argparse.Namespace, dtype: str) -> list[tuple[str, str, Callable[[], list[Row]]]]:
    """Title, heading of the column of measurements, and check, in the order of the table.

    Args:
        options: device_target and device_id.
        dtype: the best precision of the device, for derivatives.
    """
    operators, header = f"operators in {dtype}: derivatives 0 to 3, relative error", doctor_derivatives.HEADER
    found: list[tuple[str, str, Callable[[], list[Row]]]] = [
        ("machine", "", partial(doctor_checks.machine, options.device_target, options.device_id)),
        ("precision", "", partial(doctor_checks.precision, dtype)),
        ("derivatives of derivatives, relative error", "", doctor_checks.second_derivatives),
        (operators, header, lambda: doctor_derivatives.check_operators(doctor_operators.operators(dtype), dtype)),
        ("operators in float32, relative error", "",
         lambda: doctor_derivatives.check_single_precision(doctor_operators.operators("float32"))),
        ("float16, which nothing here needs", "", doctor_checks.half_precision),
    ]  # fmt: skip
    for name in MODELS:
        derivatives = f"{name}: forces and Hessians in {dtype} against differences, relative error"
        found.append((f"{name}: train steps in float32", "", partial(doctor_models.check_training, name)))
        found.append((derivatives, "", partial(doctor_models.check_derivatives, name, dtype)))
    return found


def table(title: str, heading: str, rows: list[Row]) -> str:
    """A section of the table, its columns aligned."""
    cells = [(title, heading or "measured", "limit", ""), *rows]
    widths = [max(len(row[k]) for row in cells[k == 0 :] if len(row[k]) <= WIDEST) for k in range(3)]
    lines = ["  ".join(f"{text:{width}}" for text, width in zip(row, [*widths, 0], strict=True)) for row in cells[1:]]
    head = "  ".join(f"{text:{width}}" for text, width in zip(("", *cells[0][1:3]), widths, strict=True))
    return "\n".join(line.rstrip() for line in (title, head, *lines))


def examine(options: argparse.Namespace) -> list[Row]:
    """Run every check and print its section as soon as it is known; returns all rows."""
    set_up("GRAPH", options.device_target, options.device_id, seed=0)
    rows: list[Row] = []
    for title, heading, check in sections(options, doctor_checks.best_precision()):
        started = time.perf_counter()
        section = guarded(title, check)
        rows += section
        print(f"{table(title, heading, section)}\n({time.perf_counter() - started:.1f} s)\n", flush=True)
    return rows


def audit(output: Path | None, arguments: list[str] | None) -> int:
    """Count the operators of every model; returns 1 if one is not declared for Ascend and GPU."""
    command = command_of("scripts/doctor.py", arguments)
    rows = doctor_audit.measure()
    if output:
        write_text(output, doctor_audit.report(rows, command))
    else:
        print(doctor_audit.report(rows, command))
    wrong = doctor_audit.creeping([name for row in rows for name in row.operators])
    for name in wrong:
        print(f"{WRONG}: {name} is not declared for Ascend and GPU")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    started = time.perf_counter()
    parser = CommandLine(description="Check that this machine computes what the suite relies on.")
    parser.add_argument("--device_target", default="CPU", choices=TARGETS, help="default: %(default)s")
    parser.add_argument("--device_id", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--audit", action="store_true", help="count the operators of every model instead")
    parser.add_argument("--output", type=Path, help="Markdown file for the audit; else it is printed")
    try:
        options = parser.parse_args(arguments)
        if options.output and not options.audit:
            parser.error("--output: expected together with --audit")
        if options.audit:
            return audit(options.output, arguments)
        rows = examine(options)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    wrong = [row.name for row in rows if row.verdict == WRONG]
    print(f"{len(rows)} checks, {len(wrong)} {WRONG}, {time.perf_counter() - started:.0f} s")
    for name in wrong:
        print(f"{WRONG}: {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
