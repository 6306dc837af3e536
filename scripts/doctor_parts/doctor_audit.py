"""Which operators a model's steps consist of on Ascend and GPU, how many, and where MindSpore documents them to run."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_audit.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiment.provenance import Command
from scripts.doctor_parts.doctor_graphs import AMP_LEVELS, AUDITED, BOOKKEEPING, STEPS, Audited, AuditError, environment
from scripts.doctor_parts.doctor_platforms import Declared, declared
from training.device import versions
from training.files import one_line

ROOT = Path(__file__).parents[2]
ABOUT = """\
# Operators of the final graphs

What MindSpore compiles each step to with the C++ kernels for CPUs switched off: the operators that Ascend and GPU run.
Compiled on a CPU with the swish of those devices; what their own compilers fuse or split afterwards is not seen here.
Nodes that only order or name others ({bookkeeping}) are not counted.
Train steps clip the gradient and keep a moving average of the weights.
"""


def measure() -> list[Audited]:
    """Compile every step of every model in a process that writes its graphs to a temporary folder.

    Raises:
        AuditError: that process failed.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as words:
        program = "import sys; from scripts.doctor_parts.doctor_graphs import main; sys.exit(main())"
        command = [sys.executable, "-c", program, folder]
        surroundings = {**os.environ, **environment(Path(folder))}
        with subprocess.Popen(
            command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=words, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    row = Audited(**json.loads(line))
                    rows.append(row)
                    print(f"{row.model} {row.amp_level} {row.step}: {sum(row.operators.values())}", flush=True)
        words.seek(0)
        errors = words.read().splitlines()
    if process.returncode:
        last = next((line for line in reversed(errors) if line.strip()), "no words")
        raise AuditError(f"the graphs could not be compiled (exit code {process.returncode}): {one_line(last)}")
    return rows


def creeping(operators: Sequence[str]) -> list[str]:
    """Operators that are not declared for Ascend and GPU."""
    return [name for name in sorted(set(operators)) if not declared(name).for_targets()]


def report(rows: Sequence[Audited], command: Command) -> str:
    """The tables in Markdown."""
    record = command.record()
    commit, dash, state = (record["commit"] or "unknown").partition("-")
    programs = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        ABOUT.format(bookkeeping=", ".join(sorted(BOOKKEEPING))),
        "```bash", "python scripts/doctor.py --audit --output results/system/operators.md", "```", "",
        f"{programs}; commit {commit[:12]}{dash}{state}; {record['started']}.", "",
        *totals(rows), "", *platforms(rows), "",
    ]  # fmt: skip
    return "\n".join(lines)


def totals(rows: Sequence[Audited]) -> list[str]:
    """How many operators each step has, and how many of them only give a tensor another shape."""
    found = {(row.model, row.amp_level, row.step): row.operators for row in rows}
    lines = ["## How many, and how many of them are Reshape", "", _line(["model", "amp", *STEPS])]
    lines.append(_line(["---"] * (2 + len(STEPS))))
    for model in AUDITED:
        for amp_level in AMP_LEVELS:
            counts = [found.get((model, amp_level, step)) for step in STEPS]
            if any(counts):
                cells = [f"{sum(of.values())} ({of.get('Reshape', 0)})" if of else "" for of in counts]
                lines.append(_line([model, amp_level, *cells]))
    return lines


def platforms(rows: Sequence[Audited]) -> list[str]:
    """Each operator, the platforms of its pages, and the most that one step of each model has of it."""
    names = sorted({name for row in rows for name in row.operators})
    models = list(dict.fromkeys(row.model for row in rows))
    lines = [
        "## Where each is declared to run, and the most in one step", "",
        _line(["operator", "primitive's page", "function's page", *models, ""]), _line(["---"] * (4 + len(models))),
    ]  # fmt: skip
    for name in names:
        most = [max((row.operators.get(name, 0) for row in rows if row.model == model), default=0) for model in models]
        pages = declared(name)
        lines.append(_line([name, *_pages(pages), *map(str, most), _remark(pages)]))
    return lines


def _pages(pages: Declared) -> tuple[str, str]:
    own = "none" if pages.primitive is None else _words(pages.primitive)
    other = "none" if pages.function is None else f"{_words(pages.function)} ({pages.source})"
    return own, other


def _words(names: frozenset[str]) -> str:
    return " ".join(name for name in ("Ascend", "GPU", "CPU") if name in names)


def _remark(pages: Declared) -> str:
    if not pages.for_targets():
        return "NOT DECLARED for Ascend and GPU"
    both = pages.primitive is not None and pages.function is not None
    return "the two pages disagree" if both and pages.primitive != pages.function else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
