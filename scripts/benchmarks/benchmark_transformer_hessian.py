"""What a Hessian of the graph attention transformer costs, beside the original Equiformer differentiated by torch.

    python scripts/benchmarks/benchmark_transformer_hessian.py --peer_python PYTHON --original EQUIFORMER \
        --page results/system/benchmark_transformer_hessian.md

Displaced rock salt of 8 and 64 atoms with its periodic images.  Both sides have the same weights and are timed in one
run, in turns; their Hessians are compared.  torch takes all rows, by a loop of backward passes over the forces and by
passes of several rows at once; ours takes all rows too, and those of the primitive cell alone, which are all that force
constants need.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import nn

from configs.loading import load_config
from data_tools.graph import AtomGraph, Budget
from data_tools.graphs.batching import build_graph, join, pad
from data_tools.labels.statistics import Normalizer
from experiment.provenance import command_of
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import exact_rows
from scripts import convert_weights
from scripts.benchmarks.benchmark_columns import rock_salt
from scripts.benchmarks.force_constant_page import paragraph
from scripts.benchmarks.timed_steps import Side, timed
from scripts.help_defaults import Defaults
from scripts.weights.weight_files import read_weights
from scripts.weights.weight_maps import check_keys, convert
from training.device import set_up, versions
from training.files import write_text
from training.step import to_tensors

PROGRAM = "scripts/benchmarks/benchmark_transformer_hessian.py"
PEER = Path(__file__).parents[1] / "peers" / "peer_equiformer.py"
CONFIG = Path(__file__).parents[2] / "configs" / "graph_attention_transformer" / "qm9_original.yaml"
CUTOFF, LATTICE, DISPLACEMENT = 5.0, 4.2, 0.02  # Angstrom
SIZES = {8: 1, 64: 2}  # atoms: conventional cells along each direction
ROWS = 24  # that torch computes; what all rows take is told in proportion
COMPILED_ROWS = {8: 24, 64: 4}  # the same with products that e3nn compiles
EDGES_AT_ONCE = 7168  # of a backward pass in torch: 16 rows of 8 atoms, 2 of 64
#: calls in each round
COUNTS = {"gradient": 20, "forces": 2, "rows": 1, "batches": 1, "all rows": 1, "primitive cell": 5}
MODELS = {
    "small": {"irreps": "16x0e+8x0o+8x1e+8x1o+4x2e+4x2o", "irreps_head": "8x0e+2x0o+2x1e+2x1o+1x2e+1x2o",
              "irreps_mlp": "24x0e+8x0o+8x1e+8x1o+4x2e+4x2o", "irreps_features": "32x0e", "blocks": 2, "heads": 4,
              "radial": 16, "radial_features": 16},
    "crystals": {"irreps": "32x0e+16x1o+8x2e", "irreps_head": "8x0e+4x1o+2x2e", "irreps_mlp": "64x0e+32x1o+16x2e",
                 "irreps_features": "64x0e", "blocks": 2, "heads": 4, "radial": 16, "radial_features": 32},
}  # fmt: skip


def original_size(settings: dict) -> dict:
    """Arguments of the original's constructor."""
    return {
        "irreps_node_embedding": settings["irreps"], "irreps_head": settings["irreps_head"],
        "irreps_mlp_mid": settings["irreps_mlp"], "irreps_feature": settings["irreps_features"],
        "num_layers": settings["blocks"], "num_heads": settings["heads"], "number_of_basis": settings["radial"],
        "fc_neurons": [settings["radial_features"]] * 2, "irreps_sh": "1x0e+1x1o+1x2e", "max_radius": CUTOFF,
        "nonlinear_message": True, "alpha_drop": 0.0,
    }  # fmt: skip


def our_model(settings: dict, weights: Path, dtype: str) -> nn.Cell:
    """The network with the original's weights."""
    pairs = [(f"model.{key}", str(value)) for key, value in settings.items()]
    config = load_config(
        CONFIG, [*pairs, ("model.cutoff", str(CUTOFF)), ("model.alpha_drop", "0"), ("run.dtype", dtype)]
    )
    parameters = convert("equiformer", check_keys("equiformer", read_weights(weights), weights))
    task = convert_weights.task_of(config, Normalizer(1.0, 0.0))
    return convert_weights.converted_model(config, task, parameters, weights)


def our_calls(model: nn.Cell, graph: AtomGraph, dtype: str) -> dict[str, Callable[[], np.ndarray]]:
    """One gradient and Hessians as functions of nothing."""
    derive, product, kind = EnergyAndForces(model), HessianProduct(model), np.dtype(dtype).type
    budget = Budget(len(graph.numbers) + 1, len(graph.senders) + 4, 0, 2)
    tensors = to_tensors(pad(join([graph]), budget, CUTOFF, kind).inputs)

    def rows(atoms: list[list[int]] | None = None) -> np.ndarray:
        return exact_rows(product, [graph], CUTOFF, kind, atoms).arrays()[0]

    def gradient() -> np.ndarray:
        return derive(*tensors)[1].asnumpy()

    return {"gradient": gradient, "all rows": rows, "primitive cell": lambda: rows([[0, 1]])}


def peer_of(options: argparse.Namespace, structure: Path, size: dict, output: Path, rows: int, *flags: str) -> Side:
    """The original in a process of its own, which has written its weights."""
    words = ["--original", str(options.original), "--structure", str(structure), "--size", json.dumps(size)]
    words += ["--output", str(output), "--edges_at_once", str(EDGES_AT_ONCE), "--rows", str(rows)]
    words += ["--dtype", options.dtype, "--threads", str(options.threads)]
    return Side([options.peer_python, str(PEER), *words, *flags])


def of_all(rows: float, forces: float, computed: int, count: int) -> float:
    """Seconds of all rows in torch, from those of the first ones, which begin with the forces."""
    return forces + count / computed * (rows - forces)


def compiled(atoms: int, options: argparse.Namespace, structure: Path, size: dict, output: Path) -> dict:
    """The same with products that e3nn compiles by TorchScript: the loop over rows, told for all, and its memory."""
    output.mkdir()
    peer = peer_of(options, structure, size, output, COMPILED_ROWS[atoms], "--torchscript")
    peer.run(1, "rows")  # compiles
    forces, rows = (float(np.median(peer.run(2, call))) for call in ("forces", "rows"))
    row = {"compiled ms": 1e3 * of_all(rows, forces, COMPILED_ROWS[atoms], 3 * atoms), "compiled MB": peer.memory()}
    peer.close()
    return row


def compare(name: str, atoms: int, options: argparse.Namespace, folder: Path) -> dict:
    """Medians of both sides for one model and one crystal, and how far their Hessians are apart."""
    graph = build_graph(rock_salt(SIZES[atoms], "CO", LATTICE, DISPLACEMENT), CUTOFF)
    structure, output = folder / f"{name}_{atoms}.npz", folder / f"{name}_{atoms}"
    np.savez(structure, numbers=graph.numbers, positions=graph.positions, senders=graph.senders,
             receivers=graph.receivers, shifts=graph.shifts)  # fmt: skip
    output.mkdir()
    size = original_size(MODELS[name])
    peer = peer_of(options, structure, size, output, ROWS)
    ours = our_calls(our_model(MODELS[name], output / "weights.npz", options.dtype), graph, options.dtype)
    found = {call: function() for call, function in ours.items()}
    seconds: dict[str, list[float]] = {f"{side} {call}": [] for side, call in _calls()}
    for _ in range(options.rounds if atoms == min(SIZES) else 1):
        for side, call in _calls():
            time.sleep(0.3)  # let the other side's threads go to sleep
            taken = timed(ours[call], COUNTS[call]) if side == "ours" else peer.run(COUNTS[call], call)
            seconds[f"{side} {call}"] += taken
            print(f"{name}, {atoms} atoms, {side}, {call}: {np.median(taken):.3g} s", file=sys.stderr, flush=True)
    row: dict = {"model": name, "atoms": atoms, "edges": len(graph.senders), "peer MB": peer.memory()}
    peer.close()
    forces = float(np.median(seconds["peer forces"]))
    for call in ("rows", "batches"):
        expected = np.load(output / f"{call}.npy")
        rows = found["all rows"].reshape(3 * atoms, 3 * atoms)[:ROWS]
        row[f"{call} difference"] = float(np.abs(rows - expected).max() / np.abs(expected).max())
        seconds[f"peer {call}"] = [of_all(value, forces, ROWS, 3 * atoms) for value in seconds[f"peer {call}"]]
    row |= {f"{call} ms": 1e3 * float(np.median(values)) for call, values in seconds.items()}
    row |= compiled(atoms, options, structure, size, folder / f"{name}_{atoms}_compiled")
    print(json.dumps(row), flush=True)
    return row


def _calls() -> tuple[tuple[str, str], ...]:
    """Side and name of what is timed, in turns."""
    peer = [("peer", call) for call in ("gradient", "forces", "rows", "batches")]
    return (*(("ours", call) for call in ("gradient", "all rows", "primitive cell")), *peer)


def page_of(rows: list[dict], options: argparse.Namespace, command: str) -> str:
    """The page's text."""
    head = ["model", "atoms", "edges", "gradient: ours, torch", "all rows: ours", "torch, row by row",
            "torch, in batches", "TorchScript, row by row", "ratio to rows", "ratio to batches",
            "ratio to TorchScript", "primitive cell: ours", "largest difference: rows, batches",
            "memory of torch; TorchScript, MB"]  # fmt: skip
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = ["# Hessians of the graph attention transformer, beside the original in torch", "",
             "```text", command, "```", "",
             f"{options.dtype}, medians, ms; {options.threads} threads each; {used}.", "",
             f"| {' | '.join(head)} |", "|" + "---|" * len(head)]  # fmt: skip
    for row in rows:
        time_of = {call: row[f"{side} {call} ms"] for side, call in _calls() if call != "gradient"}
        time_of["compiled"] = row["compiled ms"]
        gradients = f"{row['ours gradient ms']:.1f}, {row['peer gradient ms']:.1f}"
        cells = [row["model"], row["atoms"], row["edges"], gradients,
                 *(f"{time_of[call]:.0f}" for call in ("all rows", "rows", "batches", "compiled")),
                 *(f"{time_of[call] / time_of['all rows']:.1f}" for call in ("rows", "batches", "compiled")),
                 f"{time_of['primitive cell']:.0f}", f"{row['rows difference']:.0e}, {row['batches difference']:.0e}",
                 f"{row['peer MB']:.0f}; {row['compiled MB']:.0f}"]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    sizes = "; ".join(f"`{name}`: {model['irreps']}, {model['blocks']} blocks" for name, model in MODELS.items())
    text = f"""Both sides have the same weights, random ones. The crystal is displaced rock salt with all periodic
        images within {CUTOFF:g} Angstrom. {sizes}. torch: a backward pass over the forces for each row, and
        passes of as many rows at once as have {EDGES_AT_ONCE:,} edges, by vmap; its products as
        they are written, e3nn's default with torch 2.10 and later; TorchScript: compiled, its default before, the loop
        over rows after a first one. The primitive cell's six rows are all that force constants need. torch computes
        the first {ROWS} rows, with TorchScript of 64 atoms the first {COMPILED_ROWS[64]}; all rows are told in
        proportion, beside the forces, which it computes once. The differences are those of these rows, over their
        largest entry. {min(SIZES)} atoms: medians of {options.rounds} rounds; more: one round."""
    return "\n".join([*lines, "", paragraph(text), ""])


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the table."""
    command = command_of(PROGRAM, arguments)
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Hessians of the transformer beside the original Equiformer's."
    )
    parser.add_argument("--peer_python", required=True, help="interpreter with torch, torch_geometric and e3nn")
    parser.add_argument("--original", type=Path, required=True, help="checkout of Equiformer's repository")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--atoms", nargs="+", type=int, default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="of 8 atoms; of more, whose rows take minutes, one")
    parser.add_argument("--threads", type=int, default=2, help="threads of the peer")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    options = parser.parse_args(arguments)
    set_up("GRAPH", "CPU", 0, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(name, atoms, options, Path(folder)) for name in options.models for atoms in options.atoms]
    if options.page:
        write_text(options.page, page_of(rows, options, command.text))
        record = {**command.record(), "versions": versions(), "dtype": options.dtype, "rows": rows}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
