"""The original SEGNN from a checkout of its repository: loading it, its sizes, and what its data set computes.

The checkout is read where it lies; nothing of it is part of this repository.  Runs in the peers' interpreter
(requirements-parity.txt).
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_segnn_model.py is a part of peer_segnn.py: see python scripts/peers/peer_segnn.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from e3nn.o3 import Irreps, spherical_harmonics
from torch import Tensor, nn
from torch_geometric.nn import global_mean_pool

from scripts.peers.peer_data import PeerBatch

PACKAGE = "original_segnn"  # its own name, models, is one of ours
REPOSITORY = "https://github.com/RobDHess/Steerable-E3-GNN"
ELEMENTS = (1, 6, 7, 8, 9)  # the order of the one-hot features
RUNNING = ("running_mean", "running_var")
CHOICES = {
    "norm": ("instance", "batch", "none"), "pool": ("avg", "sum"), "subspace": ("weightbalanced", "balanced"),
    "features": ("one_hot", "cormorant"), "task": ("graph", "node"),
}  # fmt: skip
INPUTS = {"one_hot": 5, "cormorant": 15}


class PeerError(Exception):
    """Something that was given is not what this program needs; one line."""


class Original(NamedTuple):
    """The classes of the checkout."""

    network: Callable[..., nn.Module]
    balanced: Callable[..., Irreps]
    weight_balanced: Callable[..., Irreps]


@dataclass(frozen=True)
class Size:
    """What determines the network; the names of the original, its QM9 values as defaults.

    Attributes:
        hidden: channels of the scalar layer whose number of weights, or number of components, is matched.
        lmax_h: largest degree of the hidden features.
        lmax_attr: largest degree of the attributes.
        layers: message passing layers.
        radius: of the neighbours, Angstrom.
        norm: instance, batch or none.
        pool: avg or sum over the atoms.
        subspace: weightbalanced or balanced.
        features: one_hot or cormorant.
        task: graph, one value per molecule, or node, one per atom.
    """

    hidden: int = 128
    lmax_h: int = 2
    lmax_attr: int = 3
    layers: int = 7
    radius: float = 2.0
    norm: str = "instance"
    pool: str = "avg"
    subspace: str = "weightbalanced"
    features: str = "one_hot"
    task: str = "graph"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise PeerError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")


class Graph(SimpleNamespace):
    """What the network reads of a batch."""

    def contains_isolated_nodes(self) -> bool:
        """No: the attributes here have a row for every atom, which is what this question is about."""
        return False


def load_original(folder: Path) -> Original:
    """Import the original from a checkout.

    Raises:
        PeerError: the folder holds none.
    """
    if not (folder / "models" / "segnn").is_dir():
        raise PeerError(f"--original {folder}: expected a checkout of the original SEGNN; git clone {REPOSITORY}")
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder / "models")]
    sys.modules[PACKAGE] = package
    irreps = import_module(f"{PACKAGE}.balanced_irreps")
    # Its instance norm pools fields (N, channels, components) along atoms with a function that pools along the last
    # dimension but one since some version of torch_geometric.
    vars(import_module(f"{PACKAGE}.segnn.instance_norm"))["global_mean_pool"] = pool_atoms
    network = import_module(f"{PACKAGE}.segnn.segnn").SEGNN
    return Original(network, irreps.BalancedIrreps, irreps.WeightBalancedIrreps)


def pool_atoms(values: Tensor, graph: Tensor) -> Tensor:
    """The mean over the atoms of each molecule, (N, ...) to (G, ...)."""
    return global_mean_pool(values.flatten(1), graph).view(-1, *values.shape[1:])


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Constants are made in torch's default type."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def hidden_irreps(original: Original, size: Size) -> Irreps:
    """The hidden features; the line that the original prints about them goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        if size.subspace == "balanced":
            return original.balanced(size.lmax_h, size.hidden, True)
        attributes = Irreps.spherical_harmonics(size.lmax_attr)
        return original.weight_balanced(Irreps(f"{size.hidden}x0e"), attributes, sh=True, lmax=size.lmax_h)


def build_original(original: Original, size: Size, dtype: torch.dtype) -> nn.Module:
    """The network with its own initial weights, its constants in `dtype`."""
    attributes = Irreps.spherical_harmonics(size.lmax_attr)
    with default_dtype(dtype):
        return original.network(
            Irreps(f"{INPUTS[size.features]}x0e"),
            hidden_irreps(original, size),
            Irreps("1x0e"),
            attributes,
            attributes,
            num_layers=size.layers,
            norm=size.norm,
            pool=size.pool,
            task=size.task,
            additional_message_irreps=Irreps("1x0e"),
        )


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics: the state dict without the constants of e3nn."""
    running = {name: value for name, value in model.named_buffers() if name.endswith(RUNNING)}
    return dict(model.named_parameters()) | running


def read_state(path: Path, model: nn.Module) -> None:
    """Load an .npz of `sd/<key>` arrays; constants in it are left alone, for theirs may be rounded to float32.

    Raises:
        PeerError: a key is missing or has another shape.
    """
    with np.load(path) as arrays, torch.no_grad():
        for name, tensor in own_state(model).items():
            key = f"sd/{name}"
            if key not in arrays.files or arrays[key].shape != tuple(tensor.shape):
                found = arrays[key].shape if key in arrays.files else "nothing"
                raise PeerError(f"{path}: expected {key} of shape {tuple(tensor.shape)}, found {found}")
            tensor.copy_(torch.from_numpy(arrays[key]))


def input_features(numbers: Tensor, node_graph: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """One-hot elements (N, 5), or with powers 0, 1 and 2 of Z / (largest Z of the molecule) (N, 15)."""
    one_hot = (numbers.unsqueeze(-1) == torch.tensor(ELEMENTS)).to(dtype)
    if not bool(one_hot.any(-1).all()):
        raise PeerError(f"expected atomic numbers {ELEMENTS}, got {sorted(set(numbers.tolist()))}")
    if kind == "one_hot":
        return one_hot
    largest = torch.zeros(int(node_graph.max()) + 1, dtype=numbers.dtype)
    largest = largest.scatter_reduce(0, node_graph, numbers, "amax")
    charge = numbers.to(dtype) / largest[node_graph].to(dtype)
    powers = charge.unsqueeze(-1) ** torch.arange(3, dtype=dtype)
    return (one_hot.unsqueeze(-1) * powers.unsqueeze(1)).flatten(1)


def geometry(positions: Tensor, edge_index: Tensor, lmax: int) -> tuple[Tensor, Tensor, Tensor]:
    """Attributes of edges (E, A) and atoms (N, A), A = (lmax + 1)^2, and squared distances (E, 1) in Angstrom^2.

    The attributes of an atom are the mean over the edges that end at it, and zero where none does; the network sets
    the scalar one to 1.
    """
    source, target = edge_index
    vectors = positions[source] - positions[target]
    irreps = Irreps.spherical_harmonics(lmax)
    edges = spherical_harmonics(irreps, vectors, normalize=True, normalization="component")
    arriving = torch.bincount(target, minlength=len(positions)).clamp(min=1).unsqueeze(-1)
    nodes = torch.zeros((len(positions), irreps.dim), dtype=edges.dtype).index_add(0, target, edges) / arriving
    return edges, nodes, vectors.pow(2).sum(-1, keepdim=True)


def with_attributes(batch: PeerBatch, size: Size) -> PeerBatch:
    """The batch with what the original's data set computes beforehand."""
    features = input_features(batch.numbers, batch.node_graph, size.features, batch.positions.dtype)
    return batch._replace(prepared=(features, *geometry(batch.positions, batch.edge_index, size.lmax_attr)))


def run_network(model: nn.Module, batch: PeerBatch) -> Tensor:
    """The output (G, 1), or (N, 1) for the node task, of a batch with attributes."""
    features, edges, nodes, squared = batch.prepared
    fields: dict[str, Any] = {"x": features, "pos": batch.positions, "batch": batch.node_graph}
    fields |= {"edge_index": batch.edge_index, "edge_attr": edges, "node_attr": nodes}
    return model(Graph(additional_message_features=squared, **fields))
