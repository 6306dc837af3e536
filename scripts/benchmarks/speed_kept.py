"""Is the program as fast as another checkout of it?  Blocks of steps of both alternate in one run on one machine.

    git worktree add ../before COMMIT
    python scripts/benchmarks/speed_kept.py --before ../before --output results/system/speed_kept.md

Each side is its own ``benchmark.py --serve``, in a process of its own.  A block of one side follows a block of the
other, and a ratio is the median over the rounds of what is measured within a round, so that a neighbour of the machine
who comes and goes meets both.  The first step is the time from the start of a process until it is warm: imports,
compilation and the first steps of every shape.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from experiment.startup import begin

    begin()

import argparse
import os
import subprocess
import time

import numpy as np

from experiment.provenance import commit_of
from scripts.benchmarks.benchmark import DIMENETPP, KINDS, PROFILES
from scripts.benchmarks.benchmark_hessian import SIZES
from scripts.benchmarks.timed_steps import Side
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import versions
from training.files import write_text

ROOT = Path(__file__).resolve().parents[2]
HESSIANS = {f"hessian_{atoms}": atoms for atoms in SIZES}  # kinds too, of SchNet: the whole Hessian of a molecule
SLOWER = {DIMENETPP: 5, f"hessian_{max(SIZES)}": 3}  # of these a block has fewer steps
FOLDERS, NAME = ("benchmarks", ""), "benchmark.py"  # below scripts: now, and until the scripts got folders


def program_of(checkout: Path) -> Path:
    """Where a checkout has its benchmark.

    Raises:
        SystemExit: it has none.
    """
    for folder in FOLDERS:
        if (file := checkout / "scripts" / folder / NAME).is_file():
            return file
    raise SystemExit(f"error: {checkout}: expected a checkout of this project with scripts/{FOLDERS[0]}/{NAME}")


def start(checkout: Path, profile: str, kind: str, batch_size: int) -> tuple[Side, float]:
    """A warm process of a checkout, and the seconds until it was warm."""
    words = [str(program_of(checkout)), "--serve", "--profiles", profile, "--kinds", kind]
    words += ["--batch_sizes", str(batch_size)]
    if kind in HESSIANS:
        words = [str(Path(__file__).with_name("served_hessian.py")), profile, str(HESSIANS[kind]), str(checkout)]
    before = os.getcwd()
    os.chdir(checkout)
    try:
        started = time.perf_counter()
        side = Side([sys.executable, *words])
        return side, time.perf_counter() - started
    finally:
        os.chdir(before)


def compare(checkouts: dict[str, Path], profile: str, kind: str, options: argparse.Namespace) -> dict:
    """One case: medians of both sides and the ratio after / before."""
    sides, first = {}, {}
    for name, checkout in checkouts.items():
        sides[name], first[name] = start(checkout, profile, kind, options.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    ratios = []
    steps = max(4, options.steps // SLOWER.get(kind, SLOWER.get(profile, 1)))
    for number in range(options.rounds):
        block = {}
        for name in list(sides)[:: 1 if number % 2 else -1]:
            time.sleep(0.3)  # until the other side's threads are idle
            block[name] = sides[name].run(steps)[2:]  # the first steps of a block warm up threads and caches
            seconds[name] += block[name]
        ratios.append(float(np.median(block["after"]) / np.median(block["before"])))
    for side in sides.values():
        side.close()
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    row = {
        "profile": profile, "step": kind, **{f"{name} [ms]": f"{value:.2f}" for name, value in medians.items()},
        "after / before": f"{np.median(ratios):.3f}", "rounds": f"{min(ratios):.2f} to {max(ratios):.2f}",
        "of minima": f"{min(seconds['after']) / min(seconds['before']):.3f}",
        **{f"{name}, until warm [s]": f"{value:.1f}" for name, value in first.items()},
    }  # fmt: skip
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def import_seconds(checkout: Path, rounds: int = 5) -> float:
    """The median time of ``train.py --help``: what is imported before anything is computed."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, "train.py", "--help"], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def page(rows: list[dict], imports: dict[str, float], commits: dict[str, str], options: argparse.Namespace) -> str:
    """The table as Markdown."""
    return "\n".join(
        [
            "# Speed kept", "",
            f"Commit {commits['before'][:12]} before, {commits['after'][:12]} after; {cores()} cores, "
            f"{', '.join(f'{name} {value}' for name, value in versions().items())}. Batches of {options.batch_size}, "
            f"{options.rounds} rounds of {options.steps} steps; medians, and the median over the rounds of the ratio.",
            "", "```bash", f"git worktree add ../before {commits['before'][:12]}",
            "python scripts/benchmarks/speed_kept.py --before ../before "
            f"--rounds {options.rounds} --steps {options.steps} --output results/system/speed_kept.md", "```",
            "", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|",
            *[f"| {' | '.join(row.values())} |" for row in rows], "",
            f"`python train.py --help`: {imports['before']:.2f} s before, {imports['after']:.2f} s after "
            "(median of 5).", "",
        ]
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument(
        "--profiles", nargs="+", default=[*PROFILES, DIMENETPP], choices=[*PROFILES, DIMENETPP], help="of the models"
    )
    kinds = [*KINDS, *HESSIANS]
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds, help="of the steps")
    parser.add_argument("--batch_size", type=int, default=32, help="structures in a batch")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=26, help="steps of a block; of larger ones fewer")
    parser.add_argument("--output", type=Path, help="Markdown file for the table")
    options = parser.parse_args(arguments)
    checkouts = {"before": options.before.resolve(), "after": ROOT}
    own = {name: program_of(checkout).relative_to(checkout).as_posix() for name, checkout in checkouts.items()}
    imports = {name: import_seconds(checkout) for name, checkout in checkouts.items()}
    rows = []
    for profile in options.profiles:
        kinds = [kind for kind in options.kinds if profile != DIMENETPP or kind in KINDS[:2]]
        rows += [compare(checkouts, profile, kind, options) for kind in kinds]
    commits = {name: commit_of(checkout, own[name]) or "unknown" for name, checkout in checkouts.items()}
    text = page(rows, imports, commits, options)
    if options.output:
        write_text(options.output, text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
