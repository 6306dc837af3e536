"""Measure the train step and inference of every model beside its original, in one run, on the same molecules.

    python scripts/benchmarks/benchmark.py --peer_python PARITY/bin/python --output results/system/benchmark_schnet.json
    python scripts/benchmarks/benchmark.py --peer_python PARITY/bin/python --profiles dimenetpp --rounds 3 --steps 8
    python scripts/benchmarks/benchmark.py --peer_python PARITY/bin/python --profiles segnn_small segnn --rounds 3 \
        --steps 8 --original ORIGINAL --output results/system/benchmark_segnn.json

PARITY is an environment made from requirements-parity.txt, ORIGINAL a checkout of the code of SEGNN's authors; the
originals of SchNet and DimeNet++ are those of PyG.  Blocks of steps of ours and of the peer alternate, so
a machine that slows down slows both; medians over all steps and the ratio of the medians are printed.  Batches are
prepared before the clock runs, on both sides; ours are padded to their buckets, so ghosts count as our cost.  Each side
is a process of its own, whose largest resident memory is reported.  The kinds
``forces_train`` and ``forces_infer`` use the shipped frames of ethanol with energies and forces, the others QM9.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import numpy as np
from mindspore import ParameterTuple

from configs.schema import DimeNetPlusPlusConfig, SchNetConfig, SegnnConfig
from data_tools.dataset import open_graphs
from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.graphs.batching import chunks
from data_tools.graphs.budgets import batch_sizes, choose_budgets
from data_tools.graphs.loader import fitted_batch
from data_tools.labels.providers import StoredLabels
from models import GraphModel, build_model
from physics.derivatives import EnergyAndForces
from scripts.benchmarks.timed_steps import Side, answer
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep, to_tensors

PROFILES: dict[str, dict[str, Any]] = {
    "lite": {"features": 64, "filters": 64, "blocks": 2, "gaussians": 25},
    "full": {"features": 128, "filters": 128, "blocks": 3, "gaussians": 50},
}
PEERS = Path(__file__).parents[1] / "peers"
DIMENETPP = "dimenetpp"  # a profile too: the original's size on QM9
SEGNN_PROFILES = {
    "segnn": SegnnConfig(),
    "segnn_small": SegnnConfig(features=32, blocks=2),
}  # the original's size, and a small one
ALL = (*PROFILES, DIMENETPP, *SEGNN_PROFILES)
SLOW = (DIMENETPP, "segnn")  # whose steps are twenty times as long
FEWER = 6  # batches of those
KINDS = ("train", "infer", "forces_train", "forces_infer")
CUTOFF = 5.0  # Angstrom
BATCHES = 24
LAW = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}


def batches_of(profile: str, batch_size: int, kind: str) -> list[np.ndarray]:
    """Rows of the shipped molecules, or of the frames of ethanol, in batches."""
    count = (FEWER if profile in SLOW else BATCHES) * batch_size
    if kind.startswith("forces_"):
        order = np.resize(np.random.default_rng(0).permutation(1000), count)
    else:
        order = np.random.default_rng(0).permutation(22807)[4807 : 4807 + count]
    return chunks(order, batch_size)


def model_of(profile: str, dtype: str = "float32") -> GraphModel:
    """An untrained model of a profile, whose readout is the sum."""
    settings: SchNetConfig | DimeNetPlusPlusConfig | SegnnConfig
    if profile == DIMENETPP:
        settings = DimeNetPlusPlusConfig(cutoff=CUTOFF, output_init="orthogonal")
    elif profile in SEGNN_PROFILES:
        settings = dataclasses.replace(SEGNN_PROFILES[profile], ncon_dtype=dtype)
    else:
        settings = SchNetConfig(cutoff=CUTOFF, **PROFILES[profile])
    return build_model(dtype=dtype, amp_level="O0", readout="sum", **dataclasses.asdict(settings))


def cutoff_of(profile: str) -> float:
    """Angstrom."""
    return SEGNN_PROFILES[profile].cutoff if profile in SEGNN_PROFILES else CUTOFF


#: on one core, without planned launches, MindSpore tries two ways of launching in 50 runs and keeps the faster one
TRIALS = 50


def our_steps(profile: str, batches: list[np.ndarray], kind: str, mode: str) -> Callable[[int], list[float]]:
    """A function that runs K steps over the batches and returns the seconds of each."""
    set_up(mode, "CPU", 0, seed=0)
    with_forces = kind.startswith("forces_")
    packed = open_graphs(SAMPLE_TRAIN if with_forces else "sample", cutoff_of(profile))
    packed = dataclasses.replace(packed, triplets=profile == DIMENETPP)
    table = packed.table
    if with_forces:
        energy = table.of_structures["energy"]
        provider = StoredLabels(packed, {"energy": energy - energy.mean()}, {"forces": table.of_atoms["forces"]})
    else:
        provider = StoredLabels(packed, {"energy": table.of_structures["gap"]})
    budgets = choose_budgets(batch_sizes(packed, batches), len(batches[0]), 4, packed.triplets)
    padded = [fitted_batch(packed, rows, budgets, provider(rows)) for rows in batches]
    model = model_of(profile)
    if kind.endswith("infer"):
        arguments = [to_tensors(batch.inputs) for batch in padded]
        derive = EnergyAndForces(model)

        def step(k: int) -> None:
            if with_forces:
                derive(*arguments[k % len(arguments)])[1].asnumpy()
            else:
                model(*arguments[k % len(arguments)]).asnumpy()
    else:
        optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"])
        train = TrainStep(model, optimizer, [Term("energy"), *([Term("forces")] if with_forces else [])])
        known = [{name: int(mask.sum()) for name, mask in batch.masks.items()} for batch in padded]

        def step(k: int) -> None:
            batch = k % len(padded)
            scalars = operator_scalars(k + 1, **LAW)
            train(*train.layout.arguments(padded[batch], known[batch], 1.0, scalars))[0].asnumpy()

    count = 0

    def run(steps: int) -> list[float]:
        nonlocal count
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            step(count)
            seconds.append(time.perf_counter() - started)
            count += 1
        return seconds

    run(2 * len(padded))  # every shape is compiled
    if profile not in SLOW:  # for steps of a second it would take too long, and change nothing
        shapes = [sum(array.size for array in batch.inputs) for batch in padded]
        rarest = min(shapes.count(shape) for shape in shapes)
        run(-(-TRIALS // rarest) * len(padded))
    return run


def our_side(profile: str, batch_size: int, kind: str, mode: str) -> Side:
    """Our steps."""
    case = ["--profiles", profile, "--batch_sizes", str(batch_size), "--kinds", kind, "--mode", mode]
    return Side([sys.executable, __file__, "--serve", *case])


def peer_side(options: argparse.Namespace, profile: str, batch_size: int, kind: str, ids: Path) -> Side:
    """The original."""
    if profile == DIMENETPP:
        words = [str(PEERS / "peer_dimenetpp.py"), "bench"]
    elif profile in SEGNN_PROFILES:
        settings = SEGNN_PROFILES[profile]
        words = [
            str(PEERS / "peer_segnn.py"), "bench", "--original", str(options.original),
            "--hidden", str(settings.features), "--layers", str(settings.blocks),
        ]  # fmt: skip
    else:
        words = [str(PEERS / "peer_schnet.py"), "bench", "--batch_size", str(batch_size)]
        for key in ("features", "blocks", "gaussians"):
            words += [f"--{key}", str(PROFILES[profile][key])]
    words += ["--kind", kind, "--threads", str(options.threads), "--ids_file", str(ids)]
    return Side([options.peer_python, *words])


def compare(profile: str, batch_size: int, kind: str, options: argparse.Namespace, folder: Path) -> dict:
    """Medians of ours and of the peer for one case."""
    batches = batches_of(profile, batch_size, kind)
    ids = folder / f"ids_{kind}_{batch_size}.npz"
    np.savez(ids, ids=np.stack(batches))
    ours = our_side(profile, batch_size, kind, options.mode)
    peer = peer_side(options, profile, batch_size, kind, ids)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    rounds = []
    for _ in range(options.rounds):
        block = {}
        for name, run in (("ours", ours.run), ("peer", peer.run)):
            time.sleep(0.3)  # until the other side's threads are idle
            block[name] = run(options.steps)[2:]  # the first steps of a block warm up threads and caches
            seconds[name] += block[name]
        rounds.append(float(np.median(block["peer"]) / np.median(block["ours"])))
    memory = {"ours": ours.memory(), "peer": peer.memory()}
    ours.close()
    peer.close()
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    result = {
        "profile": profile, "batch_size": batch_size, "kind": kind,
        "ours_ms": medians["ours"], "peer_ms": medians["peer"], "ratio": medians["peer"] / medians["ours"],
        "ratio_of_minima": min(seconds["peer"]) / min(seconds["ours"]),
        "ratios_of_rounds": [min(rounds), max(rounds)],
        "ours_memory_mb": memory["ours"], "peer_memory_mb": memory["peer"],
    }  # fmt: skip
    print(
        f"{profile:5} batch {batch_size:4} {kind:6} ours {medians['ours']:8.2f} ms  peer {medians['peer']:8.2f} ms  "
        f"ratio {result['ratio']:.2f}  (rounds {min(rounds):.2f} to {max(rounds):.2f}, "
        f"minima {result['ratio_of_minima']:.2f})  memory {memory['ours']:.0f} and {memory['peer']:.0f} MB",
        flush=True,
    )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Train step and inference beside the originals."
    )
    parser.add_argument("--peer_python", help="interpreter with torch, torch_geometric and e3nn")
    parser.add_argument("--profiles", nargs="+", default=["lite", "full"], choices=ALL)
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--kinds", nargs="+", default=["train", "infer"], choices=KINDS)
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=26, help="steps of a block; the first two do not count")
    parser.add_argument("--threads", type=int, default=2, help="threads of the peer")
    parser.add_argument("--mode", default="GRAPH", choices=["GRAPH", "PYNATIVE"])
    parser.add_argument("--original", type=Path, help="checkout of SEGNN's original, for its profiles")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--serve", action="store_true", help="only run our steps, on request")
    options = parser.parse_args(arguments)
    if options.serve:
        case = options.profiles[0], options.batch_sizes[0], options.kinds[0]
        answer(our_steps(case[0], batches_of(*case), case[2], options.mode))
        return 0
    if options.peer_python is None:
        parser.error("--peer_python: expected an interpreter with torch and torch_geometric")
    if options.original is None and set(options.profiles) & set(SEGNN_PROFILES):
        parser.error("--original: expected a checkout of SEGNN's original; see scripts/peers/peer_segnn.py")
    with tempfile.TemporaryDirectory() as folder:
        results = [
            compare(profile, batch_size, kind, options, Path(folder))
            for profile in options.profiles
            for batch_size in options.batch_sizes
            for kind in options.kinds
        ]
    if options.output:
        about = {"versions": versions(), "cores": cores(), "machine": platform.machine(), "mode": options.mode}
        write_text(options.output, json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
