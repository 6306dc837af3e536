"""What flushing denormals to zero gives a trained potential: steps with it and without it, in turns.

    taskset -c 0 python scripts/benchmarks/denormals.py --page runs/denormals.md

Numbers below 1.2e-38 (float32) or 2.2e-308 (float64) are flushed to zero by physics/flushed_denormals.py around every
compiled cell, and by the kernels of models/cpu_kernels in the threads that run one.  The other side is a copy of the
project where neither happens, which has its kernels compiled anew.  MindSpore's own threads flush in any case; on one
core it runs graphs in the thread of Python, so that is where the two differ.  Both have the weights that ship and no
other difference; every case is a process of each side, and a block of steps of one follows a block of the other.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np

from configs.loading import ConfigError
from data_tools.dataset import open_graphs
from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.graph import Budget, GraphBatch
from data_tools.graphs.batching import build_graph, pad, take
from experiment.command_line import exit_code
from experiment.phonon_source import shipped
from experiment.provenance import Command, command_of
from experiment.trained import load_trained
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import exact_rows
from scripts.benchmarks.benchmark import TRIALS
from scripts.benchmarks.benchmark_columns import train_step
from scripts.benchmarks.force_constant_times import grown
from scripts.benchmarks.timed_steps import Side, answer, timed
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import versions
from training.files import write_text
from training.step import to_tensors

PROGRAM = "scripts/benchmarks/denormals.py"
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configs", "data_tools", "experiment", "models", "physics", "scripts", "training")
#: what flushes: file, its text, and what stands there in the copy that does not
FLUSHES = (
    ("models/cpu_kernels/threads.h", "thread_local bool known = false;", "thread_local bool known = true;"),
    ("physics/flushed_denormals.py", "flushed[PLACE] |= BITS", "flushed[PLACE] |= 0"),
)
CRYSTAL, REPEATS = "mp-9819", 2  # 64 atoms
PLACES = " and ".join(f"`{source}`" for source, _, _ in FLUSHES)
COLUMN, MOLECULES, FRAMES = "column", "molecules", 128
ETHANOL = str(ROOT / "data_tools" / "samples" / "ethanol_schnet.safetensors")
KINDS = {
    MOLECULES: ("float32", f"energies and forces of {FRAMES} frames of ethanol"),
    COLUMN: ("float32", "train step on one column, with the forces"),
    "rows": ("float32", "exact force constants: the rows of the primitive cell"),
    "rows64": ("float64", "exact force constants: the rows of the primitive cell"),
}


def without_flush(folder: Path) -> Path:
    """A copy of the project whose kernels keep denormals.

    Raises:
        ConfigError: the place in the source was not found.
    """
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for source, flushes, does_not in FLUSHES:
        text = (folder / source).read_text(encoding="utf-8")
        if text.count(flushes) != 1:
            raise ConfigError(f"{source}: expected `{flushes}` once; change {PROGRAM} with it")
        (folder / source).write_text(text.replace(flushes, does_not), encoding="utf-8")
    return folder


def call_of(kind: str, checkpoint: str) -> Callable[[], object]:
    """What is timed, with the trained weights."""
    dtype, _ = KINDS[kind]
    trained = load_trained(checkpoint, [("run.dtype", dtype)])
    if kind == MOLECULES:
        derive, inputs = EnergyAndForces(trained.model), to_tensors(frames(trained.config.model.cutoff).inputs)

        def forces() -> np.ndarray:
            return derive(*inputs)[1].asnumpy()

        return forces
    crystal, cutoff = grown(CRYSTAL, REPEATS), trained.config.model.cutoff
    graph = build_graph(crystal.supercell, cutoff)
    if kind == COLUMN:
        return train_step(trained.model, graph, "hessian_product", cutoff)
    product = HessianProduct(trained.model)

    def rows() -> np.ndarray:
        return exact_rows(product, [graph], cutoff, np.dtype(dtype).type, [crystal.p2s.tolist()]).arrays()[0]

    return rows


def frames(cutoff: float) -> GraphBatch:
    """Frames of ethanol, without padding but for a ghost."""
    ragged = take(open_graphs(SAMPLE_TRAIN, cutoff), np.arange(FRAMES))
    budget = Budget(len(ragged.numbers) + 1, 2 * len(ragged.senders) + 4, 0, FRAMES + 1)
    return pad(ragged, budget, cutoff, np.float32)


def denormal_share() -> float:
    """Which part of the radial functions of these frames, exp(c (d - m)^2), is denormal, before the network."""
    trained = load_trained(ETHANOL)
    basis, inputs = trained.model.network.basis, frames(trained.config.model.cutoff).inputs
    vectors = inputs.positions[inputs.senders] + inputs.shifts - inputs.positions[inputs.receivers]
    distances = np.linalg.norm(vectors, axis=1)[:, None].astype(np.float64)
    offsets, coefficients = (values.asnumpy().astype(np.float64) for values in (basis.offsets, basis.coefficients))
    values, limits = np.exp(coefficients * (distances - offsets) ** 2), np.finfo(np.float32)
    return float(((values >= limits.smallest_subnormal) & (values < limits.tiny)).mean())


def compare(kind: str, checkpoint: str, roots: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides, and the median over the rounds of their ratio."""
    words = ["--serve", kind, "--ckpt", str(Path(checkpoint).resolve())]
    sides = {name: Side([sys.executable, str(root / PROGRAM), *words]) for name, root in roots.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    ratios = []
    for number in range(options.rounds):
        block = {}
        for name in list(sides)[:: 1 if number % 2 else -1]:
            time.sleep(0.3)  # until the other side's threads are idle
            block[name] = sides[name].run(options.steps)[1:]
            seconds[name] += block[name]
        ratios.append(float(np.median(block["kept"]) / np.median(block["flushed"])))
    for side in sides.values():
        side.close()
    row = {"potential": Path(checkpoint).name, "kind": kind, "rounds": ratios, "ratio": float(np.median(ratios))}
    row |= {f"{name} ms": 1e3 * float(np.median(values)) for name, values in seconds.items()}
    row |= {f"{name} least ms": 1e3 * min(values) for name, values in seconds.items()}
    print(json.dumps(row), flush=True)
    return row


def page(rows: list[dict[str, Any]], command: Command, about: dict[str, Any]) -> str:
    """The Markdown page."""
    used = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "# Denormals flushed to zero, with trained potentials", "", "```text", command.text, "```", "",
        f"Commit {command.record()['commit']}; {used}; {about['cores']} cores, {platform.machine()}"
        + (f", {about['words']}." if about["words"] else "."), "",
        "What ships: the potentials of crystals on RbAsF6 of 64 atoms, and SchNet of ethanol, of whose radial "
        f"functions {100 * about['share']:.1f} % are denormal in float32. Kept: a copy of the project whose {PLACES}",
        "do nothing; MindSpore's own threads flush on both sides, but on one core it runs graphs in the thread of "
        "Python, which these two change. A process of each side,",
        f"{about['rounds']} blocks of {about['steps']} steps in turns; medians, and the median over the blocks of the "
        "ratio, above 1 where flushing is faster. What there is to gain depends on the processor: by NumPy a product",
        f"of a denormal takes this one {about['products'][0]:.1f} times as long as another, one that becomes denormal "
        f"{about['products'][1]:.1f} times.", "",
        "| potential | what | dtype | flushed, ms | kept, ms | kept / flushed | blocks | of the least |",
        "|---" * 8 + "|",
    ]  # fmt: skip
    for row in rows:
        dtype, words = KINDS[row["kind"]]
        least = row["kept least ms"] / row["flushed least ms"]
        lines.append(
            f"| {row['potential']} | {words} | {dtype} | {row['flushed ms']:.1f} | {row['kept ms']:.1f} | "
            f"{row['ratio']:.3f} | {min(row['rounds']):.2f} to {max(row['rounds']):.2f} | {least:.3f} |"
        )
    return "\n".join([*lines, ""])


def cost_of_products() -> tuple[float, float]:
    """How much longer than others float32 products of denormals take by NumPy, and products that become denormal."""
    one, result = np.ones(1 << 14, np.float32), np.empty(1 << 14, np.float32)
    denormal, small = np.full_like(one, 1e-39), np.full_like(one, 1e-20)
    seconds = [
        min(timed(partial(np.multiply, first, second, out=result), 1000))
        for first, second in ((one, one), (denormal, one), (small, small))
    ]
    return seconds[1] / seconds[0], seconds[2] / seconds[0]


def run(options: argparse.Namespace, command: Command) -> None:
    """Compare every case, then write.

    Raises:
        ConfigError: the source is another than this program knows.
    """
    with tempfile.TemporaryDirectory() as folder:
        roots = {"flushed": ROOT, "kept": without_flush(Path(folder))}
        kinds = [kind for kind in options.kinds if kind != MOLECULES]
        cases = [(kind, checkpoint) for checkpoint in options.ckpt for kind in kinds]
        cases += [(MOLECULES, ETHANOL)] if MOLECULES in options.kinds else []
        rows = [compare(kind, checkpoint, roots, options) for kind, checkpoint in cases]
    if options.page:
        about = {"versions": versions(), "cores": cores(), "words": options.words}
        about |= {"products": cost_of_products(), "rounds": options.rounds, "steps": options.steps}
        about |= {"share": denormal_share()}
        write_text(options.page, page(rows, command, about))
        record = {**command.record(), **about, "results": rows}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", nargs="+", default=shipped(), help="trained potentials of crystals")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=6, help="of a block, whose first does not count")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    parser.add_argument("--words", default="", help="of the machine and of what else it did, for the page")
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    try:
        options = parser.parse_args(arguments)
        if options.serve:
            call = call_of(options.serve, options.ckpt[0])
            for _ in range(TRIALS):
                call()
            answer(lambda count: timed(call, count))
        else:
            run(options, command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
