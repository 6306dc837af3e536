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
from scripts.benchmarks.timed_steps import Side, answer, timed
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
KINDS = ("column", "energy", "forces", "all columns")
OF_PEER = ("column", "forces")
WORDS = {
    "column": "train step on one column, with the forces",
    "energy": "train step on the energy",
    "forces": "energy and forces",
    "all columns": "force constants: the columns of the primitive cell",
}


def rock_salt(repeats: int, symbols: str = "NaCl", lattice: float = LATTICE, displaced: float = DISPLACED) -> Structure:
    """A supercell of 8 repeats^3 atoms, each a little displaced; those of a primitive cell are the first two.

    Args:
        repeats: conventional cells along each direction.
        symbols: of the two elements.
        lattice: constant of the conventional cell, Angstrom.
        displaced: standard deviation of each component, Angstrom.
    """
    atoms = ase.build.bulk(symbols, "rocksalt", lattice, cubic=True).repeat(repeats)
    atoms.rattle(displaced, seed=0)
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


def our_call(kind: str, graph: AtomGraph) -> Callable[[], object]:
    """What is timed, of one kind."""
    settings = {key: value for key, value in vars(load_config(CONFIG).model).items() if key != "name"}
    settings["average_degree"] = len(graph.senders) / len(graph.numbers)
    cutoff = settings["cutoff"]
    model = build_model("equivariant_potential", dtype="float32", amp_level="O0", readout="sum", **settings)
    if kind in ("column", "energy"):
        return train_step(model, graph, "energy" if kind == "energy" else "hessian_product", cutoff)
    derive, product = EnergyAndForces(model), HessianProduct(model)
    tensors = to_tensors(pad(join([graph]), budget_of(graph), cutoff, np.float32).inputs)
    primitive = [0, int(np.argmax(graph.numbers != graph.numbers[0]))]

    def forces() -> np.ndarray:
        return derive(*tensors)[1].asnumpy()

    def columns() -> np.ndarray:
        return exact_rows(product, [graph], cutoff, np.float32, atoms=[primitive]).arrays()[0]

    return forces if kind == "forces" else columns


def serve(kind: str, repeats: int) -> None:
    """Answer requests for timed calls; the first one is told on standard error."""
    set_up("GRAPH", "CPU", 0, seed=0)
    call = our_call(kind, build_graph(rock_salt(repeats), load_config(CONFIG).model.cutoff))
    (first,) = timed(call, 1)
    print(json.dumps({"first": first}), file=sys.stderr, flush=True)
    answer(lambda count: timed(call, count))


def compare(repeats: int, options: argparse.Namespace, folder: Path) -> dict:
    """Medians of both sides for one supercell, and the largest memory of each process."""
    structure = rock_salt(repeats)
    graph = build_graph(structure, load_config(CONFIG).model.cutoff)
    file = folder / "structure.npz"
    np.savez(file, numbers=structure.numbers, positions=structure.positions, cell=np.array(structure.cell))
    os.environ["JAX_PLATFORMS"] = "cpu"
    row: dict = {"atoms": len(graph.numbers), "edges": len(graph.senders)}
    for kind in KINDS:
        started = time.perf_counter()
        sides = {"ours": Side([sys.executable, __file__, "--serve", kind, "--repeats", str(repeats)])}
        row[f"first {kind} s"] = time.perf_counter() - started
        if kind in OF_PEER and repeats <= options.largest_of_peer:
            started = time.perf_counter()
            sides["peer"] = Side([options.peer_python, str(PEER), "--structure", str(file), "--kind", kind])
            row[f"peer first {kind} s"] = time.perf_counter() - started
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                time.sleep(0.3)  # let the other side's threads go to sleep
                seconds[name] += side.run(options.steps)[1:]
        for name, side in sides.items():
            row[f"{name} {kind} ms"] = 1e3 * float(np.median(seconds[name]))
            row[f"{name} {kind} MB"] = side.memory()
            side.close()
        if "peer" in sides:
            row[f"ratio {kind}"] = row[f"peer {kind} ms"] / row[f"ours {kind} ms"]
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
        "| atoms | edges | what | ours, ms | nequix, ms | ratio | until the first result, s: "
        "ours, nequix | memory, MB: ours, nequix |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for kind in KINDS:
            cells = [f"{row[f'ours {kind} ms']:.1f}", "", "", f"{row[f'first {kind} s']:.0f}"]
            cells.append(f"{row[f'ours {kind} MB']:.0f}")
            if f"ratio {kind}" in row:
                cells[1:3] = f"{row[f'peer {kind} ms']:.0f}", f"{row[f'ratio {kind}']:.1f}"
                cells[3] += f", {row[f'peer first {kind} s']:.0f}"
                cells[4] += f", {row[f'peer {kind} MB']:.0f}"
            lines.append(f"| {row['atoms']} | {row['edges']} | {WORDS[kind]} | " + " | ".join(cells) + " |")
    over = ", ".join(f"{row['ours column ms'] / row['ours energy ms']:.1f} ({row['atoms']} atoms)" for row in rows)
    lines += ["", f"A step on a column takes {over} times a step on the energy.", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the page."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--peer_python", help="interpreter with nequix")
    parser.add_argument("--repeats", nargs="+", type=int, default=[1, 2, 3, 4], help="supercells of 8 repeats^3 atoms")
    parser.add_argument("--largest_of_peer", type=int, default=2, help="largest repeats of the peer")
    parser.add_argument("--serve", choices=KINDS, help="answer requests for timed calls of one kind; used by itself")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    command = command_of(PROGRAM, arguments)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.repeats[0])
        return 0
    if not options.peer_python:
        parser.error("--peer_python: expected an interpreter with nequix, see requirements-parity.txt")
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
