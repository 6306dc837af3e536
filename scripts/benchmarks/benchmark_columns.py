"""What training on force constants costs, beside nequix (JAX): steps on a random column, forces, whole force constants.

    python scripts/benchmarks/benchmark_columns.py --peer_python PYTHON --page results/system/benchmark_columns.md

A displaced supercell of rock salt, cutoff 5 Angstrom, models of the same irreps and layers with random weights.  Both
sides are timed in one run, in turns.  Ours also makes a step on energies and all columns of the primitive cell.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import ase.build
import numpy as np
from mindspore import Parameter, ParameterTuple, nn

from configs.loading import load_config
from data_tools.graph import AtomGraph, Budget, Labels, Structure
from data_tools.graphs.batching import build_graph, join, pad
from experiment.provenance import Command, command_of
from models import build_model
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import exact_rows
from scripts.benchmarks.timed_steps import Side
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep, to_tensors

ROOT = Path(__file__).parents[2]
PROGRAM = "scripts/benchmarks/benchmark_columns.py"
CONFIG, PEER = ROOT / "configs/equivariant_potential/crystals.yaml", ROOT / "scripts/peers/peer_nequix.py"
LATTICE, DISPLACED = 5.63, 0.03  # Angstrom
KINDS = ("column", "energy", "forces", "all columns")  # of ours; the peer has the first and the third
WORDS = {
    "column": "train step on one column, with the forces",
    "energy": "train step on the energy",
    "forces": "energy and forces",
    "all columns": "force constants: the columns of the primitive cell",
}


def rock_salt(repeats: int) -> Structure:
    """A supercell of 8 repeats^3 atoms, each a little displaced."""
    atoms = ase.build.bulk("NaCl", "rocksalt", LATTICE, cubic=True).repeat(repeats)
    atoms.rattle(DISPLACED, seed=0)
    return Structure(atoms.numbers.astype(np.int32), atoms.get_positions(), np.array(atoms.cell), "rock salt")


def train_step(model: nn.Cell, graph: AtomGraph, quantity: str, cutoff: float) -> Callable[[], object]:
    """A whole step, with the update of the weights, as a function of nothing."""
    count, random = len(graph.numbers), np.random.default_rng(0)
    terms = [Term(quantity)] if quantity == "energy" else [Term(quantity, 1.0, "norm"), Term("forces", 0.1, "norm")]
    probes, forces = np.zeros((count, 3)), np.zeros((count, 3))
    probes[0, 0] = 1.0
    of_nodes = {} if quantity == "energy" else {quantity: random.normal(size=(count, 3)), "forces": forces}
    labels = Labels({"energy": np.ones(1)} if quantity == "energy" else {}, of_nodes, probes)
    batch = pad(join([graph]), budget_of(graph), cutoff, np.float32, labels)
    weights: list[Parameter] = model.trainable_params()
    step = TrainStep(model, AdamW(ParameterTuple(weights), 0.9, 0.99, 5.0, 0.999), terms)
    known = {term.quantity: 1 if term.quantity == "energy" else 3 * count for term in terms}
    arguments = step.layout.arguments(batch, known, 1.0, operator_scalars(10, 1e-4, 0.9, 0.99, 1e-8, 0.0))

    def call() -> np.ndarray:
        return step(*arguments)[0].asnumpy()

    return call


def budget_of(graph: AtomGraph) -> Budget:
    """A shape with one ghost atom."""
    return Budget(len(graph.numbers) + 1, len(graph.senders) + 4, 0, 2)


def our_calls(graph: AtomGraph) -> tuple[dict[str, Callable[[], object]], dict[str, float], int]:
    """What is timed, seconds of each first call, and the number of parameters."""
    settings = {key: value for key, value in vars(load_config(CONFIG).model).items() if key != "name"}
    settings["average_degree"] = len(graph.senders) / len(graph.numbers)
    cutoff = settings["cutoff"]

    def model() -> nn.Cell:
        return build_model("equivariant_potential", dtype="float32", amp_level="O0", readout="sum", **settings)

    own = model()
    derive, product = EnergyAndForces(own), HessianProduct(own)
    tensors = to_tensors(pad(join([graph]), budget_of(graph), cutoff, np.float32).inputs)

    def forces() -> np.ndarray:
        return derive(*tensors)[1].asnumpy()

    calls: dict[str, Callable[[], object]] = {
        "column": train_step(model(), graph, "hessian_product", cutoff),
        "energy": train_step(model(), graph, "energy", cutoff),
        "forces": forces,
        "all columns": lambda: exact_rows(
            product,
            [graph],
            cutoff,
            np.float32,
            atoms=[[0, int(np.argmax(graph.numbers != graph.numbers[0]))]],
        ).arrays()[0],
    }
    first = {}
    for name, call in calls.items():
        started = time.perf_counter()
        call()
        first[name] = time.perf_counter() - started
    return calls, first, sum(weight.size for weight in own.trainable_params())


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of so many calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def compare(repeats: int, options: argparse.Namespace, folder: Path) -> dict:
    """Medians of both sides for one supercell."""
    structure = rock_salt(repeats)
    assert structure.cell is not None
    graph = build_graph(structure, load_config(CONFIG).model.cutoff)
    file = folder / "structure.npz"
    np.savez(file, numbers=structure.numbers, positions=structure.positions, cell=structure.cell)
    calls, first, parameters = our_calls(graph)
    seconds: dict[str, list[float]] = {f"ours {kind}": [] for kind in KINDS}
    os.environ["JAX_PLATFORMS"] = "cpu"
    sides = {
        kind: Side([options.peer_python, str(PEER), "--structure", str(file), "--kind", kind])
        for kind in ("column", "forces")
    }
    seconds |= {f"peer {kind}": [] for kind in sides}
    for _ in range(options.rounds):
        for kind, call in calls.items():
            time.sleep(0.3)  # let the other side's threads go to sleep
            seconds[f"ours {kind}"] += timed(call, options.steps)[1:]
            if kind in sides:
                time.sleep(0.3)
                seconds[f"peer {kind}"] += sides[kind].run(options.steps)[1:]
    memory = {kind: side.memory() for kind, side in sides.items()}
    for side in sides.values():
        side.close()
    row: dict = {"atoms": len(graph.numbers), "edges": len(graph.senders), "parameters": parameters}
    row |= {f"{name} ms": 1e3 * float(np.median(values)) for name, values in seconds.items()}
    row |= {f"first {name} s": value for name, value in first.items()}
    row |= {f"ratio {kind}": row[f"peer {kind} ms"] / row[f"ours {kind} ms"] for kind in sides}
    row |= {f"peer memory {kind} MB": value for kind, value in memory.items()}
    print(json.dumps(row, indent=1), flush=True)
    return row


def page(rows: list[dict], command: Command, about: dict) -> str:
    """The Markdown page."""
    lines = [
        "# Speed of training on force constants, beside nequix",
        "",
        "Displaced rock salt, cutoff 5 A, 64x0e+32x1o+16x2e, lmax 2, three layers, float32, random weights; nequix "
        f"0.4.5 (JAX, CPU). Both sides in one run, in turns, medians. {about['cores']} cores, {about['machine']}.",
        "",
        "```text",
        command.text,
        "```",
        "",
        "| atoms | edges | what | ours, ms | nequix, ms | ratio | first call of ours, with compilation, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for kind in KINDS:
            peer = f"{row[f'peer {kind} ms']:.0f}" if f"peer {kind} ms" in row else ""
            ratio = f"{row[f'ratio {kind}']:.1f}" if f"ratio {kind}" in row else ""
            ours, first = row[f"ours {kind} ms"], row[f"first {kind} s"]
            lines.append(
                f"| {row['atoms']} | {row['edges']} | {WORDS[kind]} | {ours:.1f} | {peer} | {ratio} | {first:.1f} |"
            )
    over = ", ".join(f"{row['ours column ms'] / row['ours energy ms']:.1f} ({row['atoms']} atoms)" for row in rows)
    lines += ["", f"A step on a column takes {over} times a step on the energy.", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the page."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--peer_python", required=True, help="interpreter with nequix")
    parser.add_argument("--repeats", nargs="+", type=int, default=[1, 2], help="supercells of 8 repeats^3 atoms")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    command = command_of(PROGRAM, arguments)
    options = parser.parse_args(arguments)
    set_up("GRAPH", "CPU", 0, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(repeats, options, Path(folder)) for repeats in options.repeats]
    about = {"versions": versions(), "cores": cores(), "machine": platform.machine()}
    if options.page:
        write_text(options.page, page(rows, command, about))
        record = {**command.record(), **about, "results": rows}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
