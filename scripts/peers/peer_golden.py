"""Parity files from a torch SchNet of any size: outputs, forces, block outputs and gradients in float64 and float32.

The configuration is a JSON object; every key has a default:

| key                 | default | meaning                                                                             |
|---------------------|---------|-------------------------------------------------------------------------------------|
| peer                | "pyg"   | "pyg" (torch_geometric) or "schnetpack"                                             |
| features, filters   | 64      | channels of the atoms and of the filters; filters defaults to features              |
| blocks, gaussians   | 2, 25   | interaction blocks and radial functions                                             |
| cutoff              | 5.0     | Angstrom                                                                            |
| readout             | "add"   | "add" or "mean" over atoms                                                          |
| dipole              | false   | pyg only: length of sum_i q_i (r_i - centre of mass)                                |
| mean, std           | null    | pyg only: applied to each atom before the readout                                   |
| atomref             | null    | pyg only: {"6": -1029.86, ...} by atomic number, added to each atom                 |
| seed                | 0       | of weights and geometries                                                           |

The float64 model has the float32 parameters upcast.  PyG's constants are built in float64; schnetpack cannot be built
so and its buffers are float32 upcast.  `--compare FILE` takes molecules and weights from an existing parity file
instead, prints the largest difference of each group of arrays, and exits 1 beyond 1e-12 relative in float64.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_golden.py is a part of peer_schnet.py: see python scripts/peers/peer_schnet.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import ase.build
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import dataloader
from torch_geometric import __version__ as pyg_version
from torch_geometric.nn.models import SchNet

from scripts.peers.peer_data import GivenEdges, find_edges

MOLECULES = ("CH4", "H2O", "C6H6", "CH3CH2OH", "NH3", "CF4")
RATTLE = 0.05  # Angstrom
BIAS_SCALE = 0.1  # biases start at zero in both peers: a forgotten bias would pass unseen
TOLERANCE = 1e-12
DEFAULTS: dict[str, Any] = {
    "peer": "pyg", "features": 64, "filters": None, "blocks": 2, "gaussians": 25, "cutoff": 5.0, "readout": "add",
    "dipole": False, "mean": None, "std": None, "atomref": None, "seed": 0,
}  # fmt: skip


class SchNetPackModel(nn.Module):
    """Schnetpack's representation and Atomwise head behind the call (numbers, positions, molecule) of PyG."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        # schnetpack 2.1.1 imports this name, which newer torch no longer has; nothing here uses it.
        vars(dataloader).setdefault("T_co", TypeVar("T_co", covariant=True))
        # Imported here: it loads a training framework, which nothing else in these scripts needs.
        from schnetpack import atomistic, representation  # noqa: PLC0415
        from schnetpack.nn import CosineCutoff, GaussianRBF  # noqa: PLC0415

        self.representation = representation.SchNet(
            config["features"],
            config["blocks"],
            radial_basis=GaussianRBF(config["gaussians"], config["cutoff"]),
            cutoff_fn=CosineCutoff(config["cutoff"]),
            n_filters=config["filters"],
        )
        mode = {"add": "sum", "mean": "avg"}[config["readout"]]
        self.output = atomistic.Atomwise(n_in=config["features"], aggregation_mode=mode)
        self.interaction_graph = GivenEdges()

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        """Return one value per molecule (G,)."""
        idx_j, idx_i = self.interaction_graph.edge_index
        inputs = {"_atomic_numbers": z, "_Rij": pos[idx_j] - pos[idx_i], "_idx_i": idx_i, "_idx_j": idx_j}
        inputs |= {"_idx_m": batch, "_n_atoms": torch.bincount(batch)}
        inputs = self.representation(inputs)
        self.atom_features = inputs["scalar_representation"].detach()
        return self.output(inputs)["y"]


def read_config(path: Path) -> dict[str, Any]:
    """Read and complete a configuration."""
    given = json.loads(path.read_text())
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise SystemExit(f"{path}: unknown keys {unknown}; known are {sorted(DEFAULTS)}")
    config = DEFAULTS | given
    config["filters"] = config["filters"] or config["features"]
    pyg_only = [key for key in ("dipole", "mean", "std", "atomref") if config[key] not in (None, False)]
    if config["peer"] == "schnetpack" and pyg_only:
        raise SystemExit(f"{path}: {pyg_only} exist for the peer pyg only")
    return config


def rattled_molecules(seed: int, names: Sequence[str] = MOLECULES) -> dict[str, np.ndarray]:
    """Return z (N,), pos (N, 3) in Angstrom, batch (N,) and names; positions are exact in float32."""
    atoms = [ase.build.molecule(name) for name in names]
    positions = np.concatenate([molecule.positions for molecule in atoms])
    positions = positions + np.random.default_rng(seed).normal(0.0, RATTLE, positions.shape)
    return {
        "z": np.concatenate([molecule.numbers for molecule in atoms]).astype(np.int64),
        "pos": positions.round(6).astype(np.float32).astype(np.float64),
        "batch": np.repeat(np.arange(len(atoms)), [len(molecule) for molecule in atoms]),
        "names": np.array(names),
    }


def molecule_edges(arrays: dict[str, np.ndarray], cutoff: float) -> np.ndarray:
    """Return edge_index (2, E): neighbour, centre; sorted by (centre, neighbour)."""
    n_atoms = np.bincount(arrays["batch"])
    neighbour, centre, counts = find_edges(arrays["pos"], n_atoms, cutoff)
    first = np.repeat(np.cumsum(n_atoms) - n_atoms, counts)
    return np.stack([neighbour + first, centre + first])


def build_peer(config: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    """Build the peer in `dtype`, with its own initial weights."""
    if config["peer"] == "schnetpack":
        return SchNetPackModel(config).eval().to(dtype)
    atomref = None
    if config["atomref"] is not None:
        atomref = torch.zeros((100, 1), dtype=torch.float32)
        for number, value in config["atomref"].items():
            atomref[int(number)] = value
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # PyG makes its constants (Gaussian centres, ln 2) in the default type
    try:
        model = SchNet(
            config["features"],
            config["filters"],
            config["blocks"],
            config["gaussians"],
            config["cutoff"],
            interaction_graph=GivenEdges(),
            readout=config["readout"],
            dipole=config["dipole"],
            mean=config["mean"],
            std=config["std"],
            atomref=None if atomref is None else atomref.to(dtype),
        )
    finally:
        torch.set_default_dtype(previous)
    return model.eval()


def observed_modules(config: dict[str, Any]) -> list[str]:
    """Return the modules whose outputs the file holds, by their names in the state dict."""
    if config["peer"] == "schnetpack":
        blocks = [f"representation.interactions.{block}" for block in range(config["blocks"])]
        return ["representation.radial_basis", "representation.cutoff_fn", *blocks, "output.outnet"]
    blocks = [f"interactions.{block}" for block in range(config["blocks"])]
    return ["embedding", "distance_expansion", "interactions.0.mlp", "interactions.0.conv", *blocks, "lin1", "lin2"]


def recorder(found: dict[str, np.ndarray], key: str) -> Callable[..., None]:
    """Return a forward hook that keeps the module's output; it returns None, else torch would replace that output."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found[key] = output.detach().numpy().copy()

    return hook


def evaluate(
    model: nn.Module, config: dict[str, Any], arrays: dict[str, np.ndarray], dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """Return output, forces, module outputs and gradients, with the file's names."""
    bits = "64" if dtype == torch.float64 else "32"
    modules, observed = dict(model.named_modules()), observed_modules(config)
    found: dict[str, np.ndarray] = {}
    handles = [modules[name].register_forward_hook(recorder(found, f"h{bits}/{name}")) for name in observed]
    z, batch = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["batch"])
    positions = torch.from_numpy(arrays["pos"]).to(dtype).requires_grad_()
    out = model(z, positions, batch)
    for handle in handles:
        handle.remove()
    found[f"out{bits}"] = out.detach().numpy()
    if isinstance(model, SchNetPackModel):
        found[f"rep{bits}"] = model.atom_features.numpy()
    found[f"forces{bits}"] = -torch.autograd.grad(out.sum(), positions, retain_graph=True)[0].numpy()
    if bits == "64":
        cotangent = torch.linspace(-1, 1, len(out), dtype=dtype).view(out.shape)
        found["out_cotangent"] = cotangent.numpy()
        (out * cotangent).sum().backward()
        found |= {
            f"grad64/{name}": parameter.grad.numpy()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    return found


def set_weights(model: nn.Module, config: dict[str, Any], weights: Path | None) -> None:
    """Take the parameters from a parity file, or make the biases of fresh weights random."""
    with torch.no_grad():
        if weights is not None:
            with np.load(weights) as arrays:
                for name, parameter in model.named_parameters():
                    parameter.copy_(torch.from_numpy(arrays[f"sd/{name}"]))
            return
        generator = torch.Generator().manual_seed(config["seed"] + 1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, BIAS_SCALE, generator=generator)


def make_arrays(config: dict[str, Any], source: Path | None) -> dict[str, np.ndarray]:
    """Return every array of a parity file; molecules and weights come from `source` where it is given."""
    if source is None:
        arrays = rattled_molecules(config["seed"])
    else:
        with np.load(source) as given:
            arrays = {key: given[key] for key in ("z", "pos", "batch", "names")}
    edges = molecule_edges(arrays, config["cutoff"])
    torch.manual_seed(config["seed"])
    single = build_peer(config, torch.float32)
    set_weights(single, config, source)
    double = build_peer(config, torch.float64)
    with torch.no_grad():
        parameters = dict(single.named_parameters())
        for name, parameter in double.named_parameters():
            parameter.copy_(parameters[name])
    for model in (single, double):
        model.interaction_graph.edge_index = torch.from_numpy(edges)
    arrays |= evaluate(double, config, arrays, torch.float64) | evaluate(single, config, arrays, torch.float32)
    arrays |= {f"sd/{key}": value.numpy() for key, value in single.state_dict().items() if value.is_floating_point()}
    versions = [f"torch_geometric {pyg_version}", f"torch {torch.__version__}"]
    if config["peer"] == "schnetpack":
        arrays |= {
            "idx_i": edges[1],
            "idx_j": edges[0],
            "meta": np.array([f"schnetpack {version('schnetpack')}", versions[1]]),
        }
    else:
        distance = np.linalg.norm(arrays["pos"][edges[0]] - arrays["pos"][edges[1]], axis=-1)
        arrays |= {"edge_index": edges, "edge_weight": distance, "meta": np.array(versions)}
        arrays["edge_attr64"] = arrays["h64/distance_expansion"]
        arrays |= {f"buf64/{key}": value.numpy() for key, value in double.named_buffers()}
    return arrays | {"config": np.array(json.dumps(config))}


def hessian_arrays(config: dict[str, Any], source: Path, name: str) -> dict[str, np.ndarray]:
    """The Hessian of one molecule of a parity file by torch.autograd: z, pos, hessian64 (3N, 3N) per Angstrom^2."""
    with np.load(source) as given:
        atoms = given["batch"] == given["names"].tolist().index(name)
        arrays = {"z": given["z"][atoms], "pos": given["pos"][atoms], "batch": np.zeros(int(atoms.sum()), np.int64)}
    model = build_peer(config, torch.float64)
    set_weights(model, config, source)
    model.interaction_graph.edge_index = torch.from_numpy(molecule_edges(arrays, config["cutoff"]))
    z, batch = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["batch"])
    result = torch.autograd.functional.hessian(lambda x: model(z, x, batch).sum(), torch.from_numpy(arrays["pos"]))
    size = 3 * len(arrays["z"])
    versions = np.array([f"torch_geometric {pyg_version}", f"torch {torch.__version__}"])
    return {"z": arrays["z"], "pos": arrays["pos"], "hessian64": result.reshape(size, size).numpy(), "meta": versions}


def compare(arrays: dict[str, np.ndarray], path: Path, ignored: tuple[str, ...] = ()) -> bool:
    """Print the largest relative difference of each group of arrays; return whether all float64 ones are small.

    Names that start like one of `ignored` are left out.
    """
    worst: dict[str, float] = {}
    with np.load(path) as golden:
        for key in golden.files:
            if golden[key].dtype.kind != "f" or key.startswith(ignored):
                continue
            if key not in arrays or arrays[key].shape != golden[key].shape:
                raise SystemExit(f"{path} has {key} {golden[key].shape}, which this configuration does not make")
            scale = max(float(np.abs(golden[key]).max()), 1.0)
            difference = float(np.abs(arrays[key].astype(np.float64) - golden[key]).max()) / scale
            group = key.split("/")[0]
            worst[group] = max(worst.get(group, 0.0), difference)
    for group, difference in sorted(worst.items()):
        print(f"{group:16s} {difference:.2e}")
    return all(difference <= TOLERANCE for group, difference in worst.items() if not group.endswith("32"))


def write_golden(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a parity file, and its list of arrays beside it as .txt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)
    lines = [f"{key}\t{value.shape}\t{value.dtype}\n" for key, value in arrays.items()]
    path.with_suffix(".txt").write_text("".join(lines))
    print(f"{path}: {len(arrays)} arrays")


def add_golden_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand `golden`."""
    parser.add_argument("--config", type=Path, required=True, help="JSON object; see the head of peer_golden.py")
    parser.add_argument("--output", type=Path, help="parity file to write (.npz)")
    parser.add_argument("--peer", choices=["pyg", "schnetpack"], help="instead of the configuration's peer")
    parser.add_argument("--compare", type=Path, help="parity file to recompute from its own weights")
    parser.add_argument("--hessian", help="of this molecule of --compare FILE, instead of everything else")


def run_golden(args: argparse.Namespace) -> None:
    """Write a parity file with its list of arrays, or compare with an existing one."""
    config = read_config(args.config)
    if args.peer:
        config["peer"] = args.peer
    if args.hessian:
        arrays = hessian_arrays(config, args.compare, args.hessian)
    else:
        arrays = make_arrays(config, args.compare)
    if args.output:
        write_golden(args.output, arrays)
    if args.compare and not args.hessian and not compare(arrays, args.compare):
        raise SystemExit(1)
