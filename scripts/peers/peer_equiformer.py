"""Time gradients and Hessians of the original Equiformer, by torch's autograd, on request.

The other side of ``benchmark_transformer_hessian.py``; runs in an interpreter of its own (requirements-parity.txt).
ORIGINAL is a checkout of https://github.com/atomicarchitects/equiformer, which is read where it lies; the edges, with
their periodic images, are given to it.  Each line ``gradient K``, ``rows K`` (a loop of backward passes over the
forces) or ``batches K`` (passes of several rows at once) on standard input is answered by one JSON list of K seconds,
and leaves the last Hessian in the folder of the weights, rows.npy or batches.npy.  ``forces K`` makes the forces alone,
with the graph that the passes need.

e3nn's products run as they are written, which is its default with torch 2.10 and later; --torchscript compiles them by
TorchScript, which was its default when the original was published.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import BAD_INPUT, TORCH, begin

if __name__ == "__main__":
    begin((*TORCH, "e3nn"), "requirements-parity.txt")
    import e3nn

    # before its modules are imported, which ask for it
    e3nn.set_optimization_defaults(jit_mode="script" if "--torchscript" in sys.argv else "eager")

import numpy as np
import torch
import torch_geometric  # noqa: F401  before ``load_original``: it asks what torch_scatter and torch_cluster are
from e3nn import o3
from torch import Tensor, nn

from scripts.benchmarks.timed_steps import answer_by_name, timed
from scripts.help_defaults import Defaults

PACKAGE = "original_equiformer"
REPOSITORY = "https://github.com/atomicarchitects/equiformer"
ROWS = {1: 0, 6: 1, 7: 2, 8: 3, 9: 4}  # of the one-hot vectors


def scatter(src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None, reduce: str = "sum") -> Tensor:
    """What the original takes from torch_scatter: sums over rows with the same index."""
    if dim != 0 or reduce != "sum":
        raise NotImplementedError(f"scatter with dim={dim}, reduce={reduce}")
    rows = int(index.max()) + 1 if dim_size is None else dim_size
    return torch.zeros(rows, *src.shape[1:], dtype=src.dtype).index_add(0, index, src)


#: packages of the original: edges are given here, and Bessel functions (of ocpmodels) are not used
REPLACED: dict[str, dict[str, Any]] = {
    "torch_scatter": {"scatter": scatter}, "torch_cluster": {"radius_graph": None}, "ocpmodels": {},
    "ocpmodels.models": {}, "ocpmodels.models.gemnet": {}, "ocpmodels.models.gemnet.layers": {},
    "ocpmodels.models.gemnet.layers.radial_basis": {"RadialBasis": type("RadialBasis", (), {})},
}  # fmt: skip


def load_original(folder: Path) -> ModuleType:
    """The module of the network; of other packages that it imports only torch_scatter is used here, and replaced.

    Raises:
        SystemExit: the folder holds none.
    """
    if not (folder / "nets" / "graph_attention_transformer.py").is_file():
        print(f"error: --original {folder}: expected a checkout of Equiformer; git clone {REPOSITORY}", file=sys.stderr)
        raise SystemExit(BAD_INPUT)
    for name, content in REPLACED.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder / "nets")]
    sys.modules[PACKAGE] = package
    return import_module(f"{PACKAGE}.graph_attention_transformer")


def energy_of(model: nn.Module, arrays: dict[str, np.ndarray], dtype: torch.dtype) -> tuple:
    """The energy of one crystal as a function of its positions (N, 3), and these.

    The parts of the original are called in the order of its own forward pass; vectors have their images' shifts.
    """
    places = torch.tensor([ROWS[int(number)] for number in arrays["numbers"]])
    senders, receivers = (torch.from_numpy(arrays[name]).long() for name in ("senders", "receivers"))
    one_hot = nn.functional.one_hot(places, len(ROWS)).to(dtype)  # the original's is float32
    shifts, graph = torch.from_numpy(arrays["shifts"]).to(dtype), torch.zeros_like(places)

    def energy(positions: Tensor) -> Tensor:
        vectors = positions[senders] + shifts - positions[receivers]  # (E, 3)
        harmonics = o3.spherical_harmonics(model.irreps_edge_attr, vectors, normalize=True, normalization="component")
        nodes = model.atom_embed.atom_type_lin(one_hot)
        radial = model.rbf(vectors.norm(dim=1))
        nodes = nodes + model.edge_deg_embed(nodes, harmonics, radial, senders, receivers, graph)
        ones = torch.ones_like(nodes.narrow(1, 0, 1))
        for block in model.blocks:
            nodes = block(node_input=nodes, node_attr=ones, edge_src=senders, edge_dst=receivers, edge_attr=harmonics,
                          edge_scalars=radial, batch=graph)  # fmt: skip
        values = model.head(model.norm(nodes, batch=graph))
        return model.scale_scatter(values, graph, dim=0).sum()

    return energy, torch.from_numpy(arrays["positions"]).to(dtype)


def forces(energy: object, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and the energy's gradient in them, both (N, 3), with the graph that a backward pass over it needs."""
    where = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(where), where, create_graph=True)  # type: ignore[operator]
    return where, gradient


def by_rows(energy: object, positions: Tensor, count: int, at_once: int = 1) -> Tensor:
    """The first rows of the Hessian (count, 3N) by backward passes over the forces.

    Args:
        energy: of positions.
        positions: (N, 3).
        count: how many rows, at most 3N.
        at_once: rows of one pass, by vmap where they are more than one.
    """
    where, gradient = forces(energy, positions)
    gradient = gradient.flatten()[:count]
    if at_once == 1:
        rows = [torch.autograd.grad(one, where, retain_graph=True)[0].flatten() for one in gradient]
        return torch.stack(rows)
    found = [
        torch.autograd.grad(gradient, where, basis, retain_graph=True, is_grads_batched=True)[0].flatten(1)
        for basis in torch.eye(count, dtype=gradient.dtype).split(at_once)
    ]
    return torch.cat(found)


def main() -> None:
    """Serve timed calls until standard input ends."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Gradients and Hessians of Equiformer.")
    parser.add_argument("--original", type=Path, required=True, help="checkout of its repository")
    parser.add_argument("--structure", type=Path, required=True, help=".npz with the graph of a crystal")
    parser.add_argument("--size", required=True, help="JSON: arguments of the original's constructor")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and the Hessians")
    parser.add_argument("--edges_at_once", type=int, default=7168, help="of rows in one pass")
    parser.add_argument("--rows", type=int, default=0, help="only so many rows, the first; 0: all")
    parser.add_argument("--torchscript", action="store_true", help="let e3nn compile its products by TorchScript")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    model = load_original(options.original).GraphAttentionTransformer(**json.loads(options.size)).to(dtype).eval()
    with np.load(options.structure) as arrays:
        energy, positions = energy_of(model, dict(arrays), dtype)
        edges = len(arrays["senders"])
    at_once = max(1, options.edges_at_once // edges)
    count = options.rows or positions.numel()
    calls = {
        "gradient": torch.func.grad(energy), "forces": lambda places: forces(energy, places)[1].detach(),
        "rows": partial(by_rows, energy, count=count),
        "batches": partial(by_rows, energy, count=count, at_once=at_once),
    }  # fmt: skip
    calls["gradient"](positions)
    state = {f"sd/{name}": value.numpy() for name, value in model.state_dict().items() if value.numel()}
    np.savez(options.output / "weights.npz", **state)

    def kept(name: str, count: int) -> list[float]:
        """Seconds of so many calls, whose last result is kept."""
        found: list[Tensor] = []
        seconds = timed(lambda: found.append(calls[name](positions)), count)
        np.save(options.output / f"{name}.npy", found[-1].detach().numpy())
        return seconds

    answer_by_name({name: partial(kept, name) for name in calls})


if __name__ == "__main__":
    main()
