"""Parity files from the original SEGNN of any size: outputs, forces, module outputs and gradients.

The configuration is a JSON object; every key has a default:

| key          | default      | meaning                                                                          |
|--------------|--------------|----------------------------------------------------------------------------------|
| hidden ...   | as published | the fields of `Size` in peer_segnn_model.py                                      |
| molecules    | six          | names of ase.build.molecule, rattled by 0.05 Angstrom                            |
| seed         | 0            | of weights and geometries                                                        |
| outputs_only | false        | leaves out module outputs, gradients, float32 and what describes the products    |
| hessian      | null         | of the summed output of this one of the molecules: hessian64 (3n, 3n)            |

The float64 model has the float32 parameters upcast, and constants made in float64.  Norms get random weights, biases
and running statistics, which start at one and zero: a forgotten one would pass unseen.  With batch norm the names above
hold for eval mode; `*_train` are those of one step in train mode, and `running64_train/` the statistics after it.
`--compare FILE` takes molecules and weights from an existing parity file, prints the largest difference of each group
of arrays, and exits 1 beyond 1e-12 relative in float64.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_segnn_golden.py is a part of peer_segnn.py: see python scripts/peers/peer_segnn.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse
import dataclasses
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scripts.peers.peer_data import PeerBatch
from scripts.peers.peer_golden import MOLECULES, compare, molecule_edges, rattled_molecules, recorder, write_golden
from scripts.peers.peer_segnn_model import (
    RUNNING,
    Original,
    PeerError,
    Size,
    build_original,
    default_dtype,
    hidden_irreps,
    load_original,
    own_state,
    read_state,
    run_network,
    with_attributes,
)

DEFAULTS: dict[str, Any] = dataclasses.asdict(Size()) | {
    "molecules": list(MOLECULES), "seed": 0, "outputs_only": False, "hessian": None,
}  # fmt: skip
SPREAD = 0.1  # of random weights and biases of a norm
PREPARED = ("x", "edge_attr", "node_attr", "additional_message_features")
#: modules whose outputs a file holds: the layers and their parts
SHOWN = re.compile(r"layers\.\d+(\.\w+)?|[a-z]+_(layer|pool\d)")
LAWS = ("invariance_err", "equivariance_err")  # of an older parity file: rounding, which nobody can reproduce


def read_golden_config(path: Path) -> dict[str, Any]:
    """Read and complete a configuration.

    Raises:
        PeerError: an unknown key.
    """
    given = json.loads(path.read_text(encoding="utf-8"))
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise PeerError(f"{path}: unknown keys {unknown}; known are {sorted(DEFAULTS)}")
    return DEFAULTS | given


def size_of(config: dict[str, Any]) -> Size:
    """The part of a configuration that determines the network."""
    return Size(**{field.name: config[field.name] for field in dataclasses.fields(Size)})


def make_batch(arrays: dict[str, np.ndarray], size: Size, dtype: torch.dtype) -> PeerBatch:
    """Molecules of a parity file as a batch; positions ask for their gradient."""
    positions = torch.from_numpy(arrays["pos"]).to(dtype).requires_grad_()
    edges = torch.from_numpy(molecule_edges(arrays, size.radius))
    numbers, graph = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["batch"])
    batch = PeerBatch(numbers, positions, graph, edges, torch.zeros(0), torch.zeros((0, 3)))
    return with_attributes(batch, size)


def spread_norms(model: nn.Module, seed: int) -> None:
    """Random weights, biases and running statistics for every norm."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, tensor in own_state(model).items():
            kind = name.split(".")[-2]
            if not kind.endswith("_norm"):
                continue
            centre = 1.0 if name.endswith(("weight", "running_var")) else 0.0
            tensor.copy_(centre + SPREAD * torch.randn(tensor.shape, generator=generator))


def evaluate(model: nn.Module, batch: PeerBatch, bits: str, modules: bool) -> dict[str, np.ndarray]:
    """Outputs, forces and, with `modules`, module outputs; float64 ones also parameter gradients."""
    found: dict[str, np.ndarray] = {}
    shown = [(name, module) for name, module in model.named_modules() if modules and SHOWN.fullmatch(name)]
    handles = [module.register_forward_hook(recorder(found, f"h{bits}/{name}")) for name, module in shown]
    out = run_network(model, batch)
    for handle in handles:
        handle.remove()
    found[f"out{bits}"] = out.detach().numpy()
    found[f"forces{bits}"] = -torch.autograd.grad(out.sum(), batch.positions, retain_graph=True)[0].numpy()
    if modules and bits == "64":
        cotangent = torch.linspace(-1, 1, len(out), dtype=out.dtype).view(out.shape)
        found["out_cotangent"] = cotangent.numpy()
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad((out * cotangent).sum(), parameters, allow_unused=True)
        pairs = zip(names, gradients, strict=True)
        found |= {f"grad64/{name}": gradient.numpy() for name, gradient in pairs if gradient is not None}
    return found


def trained(model: nn.Module, batch: PeerBatch) -> dict[str, np.ndarray]:
    """What one step in train mode gives, and the running statistics after it; names end with _train."""
    model.train()
    found = evaluate(model, batch, "64", True)
    model.eval()
    result = {}
    for key, value in found.items():
        group, _, name = key.partition("/")
        result[f"{group}_train/{name}" if name else f"{group}_train"] = value
    running = {f"running64_train/{name}": value for name, value in own_state(model).items() if name.endswith(RUNNING)}
    return result | {key: value.numpy() for key, value in running.items()}


def products(model: nn.Module) -> dict[str, np.ndarray]:
    """Irreps, path weights and instructions of every tensor product."""
    found: dict[str, np.ndarray] = {}
    for name, module in model.named_modules():
        if not name.endswith(".tp"):
            continue
        rows = [(i.i_in1, i.i_in2, i.i_out, *i.path_shape) for i in module.instructions]
        found[f"tpinfo/{name}/irreps"] = np.array(
            [str(irreps) for irreps in (module.irreps_in1, module.irreps_in2, module.irreps_out)]
        )
        found[f"tpinfo/{name}/path_weight"] = np.array([i.path_weight for i in module.instructions])
        found[f"tpinfo/{name}/instructions"] = np.array(rows, dtype=np.int64)
    return found


def hessian(model: nn.Module, size: Size, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Second derivatives (3n, 3n) of one molecule's output, per Angstrom^2."""
    atoms = arrays["batch"] == arrays["names"].tolist().index(name)
    one = {"z": arrays["z"][atoms], "pos": arrays["pos"][atoms], "batch": np.zeros(int(atoms.sum()), np.int64)}
    batch = make_batch(one, size, torch.float64)

    def output(positions: Tensor) -> Tensor:
        return run_network(model, with_attributes(batch._replace(positions=positions), size)).sum()

    found = torch.autograd.functional.hessian(output, batch.positions.detach())
    return found.reshape(3 * len(one["z"]), -1).numpy()


def pair_of_models(
    original: Original, config: dict[str, Any], source: Path | None
) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """The float32 and the float64 network with equal parameters, and the float32 state dict."""
    size = size_of(config)
    torch.manual_seed(config["seed"])
    single = build_original(original, size, torch.float32).eval()
    if source is None:
        spread_norms(single, config["seed"])
    else:
        read_state(source, single)
    double = build_original(original, size, torch.float64).eval()
    with torch.no_grad():
        state = own_state(single)
        for name, tensor in own_state(double).items():
            tensor.copy_(state[name])
    values = {key: value for key, value in single.state_dict().items() if value.is_floating_point() and value.numel()}
    return single, double, {key: value for key, value in values.items() if not key.endswith("output_mask")}


def make_arrays(original: Original, config: dict[str, Any], source: Path | None) -> dict[str, np.ndarray]:
    """Return every array of a parity file; molecules and weights come from `source` where it is given."""
    size = size_of(config)
    if source is None:
        arrays = rattled_molecules(config["seed"], config["molecules"])
    else:
        with np.load(source) as given:
            arrays = {key: given[key] for key in ("z", "pos", "batch", "names")}
    single, double, state = pair_of_models(original, config, source)
    arrays["edge_index"] = molecule_edges(arrays, size.radius)
    arrays["hidden_irreps"] = np.array([str(hidden_irreps(original, size))])
    meta = [f"{name} {version(name)}" for name in ("e3nn", "torch_geometric", "torch")]
    arrays |= {"config": np.array(json.dumps(config)), "meta": np.array(["Steerable-E3-GNN", *meta])}
    everything = not config["outputs_only"]
    for model, dtype, bits in ((double, torch.float64, "64"), (single, torch.float32, "32"))[: 1 + everything]:
        with default_dtype(dtype):  # the constants of the harmonics
            batch = make_batch(arrays, size, dtype)
            arrays |= evaluate(model, batch, bits, everything)
        values = zip(PREPARED, batch.prepared, strict=True)
        arrays |= {f"{name}{bits}": value.detach().numpy() for name, value in values}
    if everything:
        buffers = {name: value for name, value in double.named_buffers() if name.endswith(("bias_idx", "correction"))}
        arrays |= {f"buf64/{name}": value.numpy() for name, value in buffers.items()} | products(double)
    if config["hessian"]:
        with default_dtype(torch.float64):
            arrays["hessian64"] = hessian(double, size, arrays, config["hessian"])
    if size.norm == "batch":
        with default_dtype(torch.float64):
            arrays |= trained(double, make_batch(arrays, size, torch.float64))
    return arrays | {f"sd/{key}": value.numpy() for key, value in state.items()}


def add_golden_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand `golden`."""
    parser.add_argument("--config", type=Path, required=True, help="JSON object; see the head of peer_segnn_golden.py")
    parser.add_argument("--output", type=Path, help="parity file to write (.npz)")
    parser.add_argument("--compare", type=Path, help="parity file to recompute from its own weights")


def run_golden(args: argparse.Namespace) -> None:
    """Write a parity file with its list of arrays, or compare with an existing one."""
    torch.set_num_threads(args.threads)
    arrays = make_arrays(load_original(args.original), read_golden_config(args.config), args.compare)
    if args.output:
        write_golden(args.output, arrays)
    if args.compare and not compare(arrays, args.compare, LAWS):
        raise SystemExit(1)
