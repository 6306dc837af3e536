"""Which weight of SchNet in torch_geometric and in schnetpack is which parameter of ours.

| source            | radial basis                         | outside the network                       |
|-------------------|--------------------------------------|-------------------------------------------|
| pyg-schnet        | exact linspace, as its float64 model | mean, std, atomref: all per atom          |
| schnetpack-schnet | its own buffers offsets and widths   | nothing: the head is ``atomistic.Atomwise`` |
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_maps_schnet.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re

import numpy as np

from models.elements import ELEMENTS
from scripts.weights.weight_source import Counts, Sizes, Source, State, WeightError, layers, matrix, short

PLAIN = {"filter": "elementwise", "envelope": "cosine"}  # both originals


# ---------------------------------------------------------------- torch_geometric.nn.models.SchNet


def _pyg_names(counts: Counts) -> dict[str, str]:
    names = {"network.embedding.table": "embedding.weight"}
    for k in range(counts["blocks"]):
        ours, theirs = f"network.interactions.{k}", f"interactions.{k}"
        names |= layers(
            (
                (f"{ours}.filter.hidden", f"{theirs}.mlp.0", True),
                (f"{ours}.filter.output", f"{theirs}.mlp.2", True),
                (f"{ours}.input", f"{theirs}.conv.lin1", False),
                (f"{ours}.update.hidden", f"{theirs}.conv.lin2", True),
                (f"{ours}.update.output", f"{theirs}.lin", True),
            )
        )
    return names | layers((("network.value.hidden", "lin1", True), ("network.value.output", "lin2", True)))


def _pyg_clean(state: State) -> State:
    """PyG lists the filter network twice, as ``mlp`` and as ``conv.nn``; keep one."""
    result = dict(state)
    for key in state:
        alias = re.sub(r"\.conv\.nn\.", ".mlp.", key)
        if alias == key:
            continue
        if alias in state and not np.array_equal(state[alias], state[key]):
            raise WeightError(f"{key} and {alias} are one tensor in PyG but differ here; the weights are damaged")
        result[alias] = result.pop(key)
    return result


def _pyg_sizes(state: State) -> Sizes:
    filters, gaussians = matrix(state, "interactions.0.mlp.0.weight").shape
    offsets = state["distance_expansion.offset"].astype(np.float64)
    even = np.linspace(0.0, offsets[-1], len(offsets)) if offsets.ndim == 1 and offsets.size > 1 else None
    if even is None or not offsets[-1] > 0 or not np.allclose(offsets, even, rtol=0, atol=1e-5 * abs(offsets[-1])):
        raise WeightError(
            "distance_expansion.offset: expected even steps from 0 to the cutoff; this is not PyG's SchNet"
        )
    sizes = {"features": matrix(state, "embedding.weight").shape[1], "filters": filters}
    cutoff = {"cutoff": short(offsets[-1])}
    return sizes | {"gaussians": gaussians} | cutoff | {"convention": "pyg", **PLAIN}


def _pyg_derived(state: State) -> dict[str, np.ndarray]:
    stored = state["distance_expansion.offset"]
    offsets = np.linspace(0.0, short(stored[-1]), len(stored))
    derived = {
        "network.basis.offsets": offsets,
        "network.basis.coefficients": np.full(len(offsets), -0.5 / offsets[1] ** 2),
    }
    return derived | ({"head.masses": np.asarray(state["atomic_mass"])} if "atomic_mass" in state else {})


def _pyg_references(state: State) -> np.ndarray | None:
    if "atomref.weight" not in state or "atomic_mass" in state:  # PyG adds none to a dipole
        return None
    table = np.asarray(state["atomref.weight"], np.float64).reshape(-1)
    references = np.full(ELEMENTS, np.nan)
    references[: len(table)] = table[:ELEMENTS]
    return references


def _pyg_observed(counts: Counts) -> dict[str, tuple[str, str]]:
    found = {
        "h/embedding": ("network.embedding", "node"),
        "h/distance_expansion": ("network.basis", "pair"),
        "h/lin1": ("network.value.hidden", "node"),
        "h/lin2": ("network.value", "node"),
    }
    for k in range(counts["blocks"]):
        found[f"h/interactions.{k}.mlp"] = (f"network.filters:{k}", "pair")
        found[f"h/interactions.{k}"] = (f"network.interactions.{k}", "node")
    return found


# ---------------------------------------------------------------- schnetpack.representation.SchNet and Atomwise


def _spk_names(counts: Counts) -> dict[str, str]:
    names = {"network.embedding.table": "representation.embedding.weight"}
    for k in range(counts["blocks"]):
        ours, theirs = f"network.interactions.{k}", f"representation.interactions.{k}"
        names |= layers(
            (
                (f"{ours}.filter.hidden", f"{theirs}.filter_network.0", True),
                (f"{ours}.filter.output", f"{theirs}.filter_network.1", True),
                (f"{ours}.input", f"{theirs}.in2f", False),
                (f"{ours}.update.hidden", f"{theirs}.f2out.0", True),
                (f"{ours}.update.output", f"{theirs}.f2out.1", True),
            )
        )
    return names | layers(
        (("network.value.hidden", "output.outnet.0", True), ("network.value.output", "output.outnet.1", True))
    )


def _spk_clean(state: State) -> State:
    """In a whole ``NeuralNetworkPotential`` the head is the first of ``output_modules``."""
    return {re.sub(r"^output_modules\.0\.", "output.", key): value for key, value in state.items()}


def _spk_sizes(state: State) -> Sizes:
    filters, gaussians = matrix(state, "representation.interactions.0.filter_network.0.weight").shape
    features = matrix(state, "representation.embedding.weight").shape[1]
    cutoff = short(state["representation.cutoff_fn.cutoff"].reshape(-1)[0])
    sizes = {"features": features, "filters": filters, "gaussians": gaussians, "cutoff": cutoff}
    return sizes | {"convention": "schnetpack", **PLAIN}


def _spk_derived(state: State) -> dict[str, np.ndarray]:
    widths = state["representation.radial_basis.widths"].astype(np.float64)
    return {
        "network.basis.offsets": state["representation.radial_basis.offsets"].astype(np.float64),
        "network.basis.coefficients": -0.5 / (widths * widths),
    }


def _spk_observed(counts: Counts) -> dict[str, tuple[str, str]]:
    found = {
        "h/representation.radial_basis": ("network.basis", "pair"),
        "h/representation.cutoff_fn": ("network.envelope", "pair"),
        "rep": ("network:1", "node"),
        "h/output.outnet": ("network.value", "node"),
    }
    for k in range(counts["blocks"]):
        found[f"h/representation.interactions.{k}"] = (f"network.interactions.{k}", "node")
    return found


SCHNET_SOURCES: dict[str, Source] = {
    "pyg-schnet": Source(
        model="schnet",
        mark=r"distance_expansion\.offset",
        repeated={"blocks": r"interactions\.(\d+)\."},
        names=_pyg_names,
        buffers=(r"atomref\.weight", "initial_atomref", "atomic_mass"),
        required=("distance_expansion.offset",),
        clean=_pyg_clean,
        sizes=_pyg_sizes,
        readouts=lambda state: ("dipole",) if "atomic_mass" in state else ("sum", "mean"),
        derived=_pyg_derived,
        references=_pyg_references,
        elements="embedding.weight",
        observed=_pyg_observed,
    ),
    "schnetpack-schnet": Source(
        model="schnet",
        mark=r"representation\.radial_basis\.offsets",
        repeated={"blocks": r"representation\.interactions\.(\d+)\."},
        names=_spk_names,
        buffers=(),
        required=tuple(
            f"representation.{key}" for key in ("radial_basis.offsets", "radial_basis.widths", "cutoff_fn.cutoff")
        ),
        clean=_spk_clean,
        sizes=_spk_sizes,
        readouts=lambda _: ("sum", "mean"),
        derived=_spk_derived,
        references=lambda _: None,
        elements="representation.embedding.weight",
        observed=_spk_observed,
    ),
}
