"""Which weight of the SEGNN of its authors (Steerable-E3-GNN) is which parameter of ours.

Its tensor products keep e3nn's flat weights, as ours do.  Its state dict says neither the cutoff nor how nodes are
pooled: those of the configuration count.  It also holds constants of e3nn, which are not needed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_maps_segnn.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re
from itertools import pairwise, product
from typing import Any

import numpy as np

from models.e3.hidden_irreps import SUBSPACES, hidden_irreps, with_gates
from models.e3.irreps import Irreps
from models.e3.tensor_product import fully_connected_paths
from models.elements import ELEMENTS
from scripts.weights.weight_source import Counts, Sizes, Source, State, WeightError

ATOMIC_NUMBERS = (1, 6, 7, 8, 9)  # of the one-hot vectors
POWERS = {1: "one_hot", 3: "cormorant"}  # numbers for each element
LMAX, LMAX_ATTRIBUTES, FEATURES = range(5), range(7), 513  # what is looked for
COUPLED = re.compile(r"layers\.0\.message_layer_2\.tp\._compiled_main.*\._w3j_(\d+)_(\d+)_(\d+)")
OF_LAYER = {"message.first": "message_layer_1", "message.second": "message_layer_2",
            "update_first.product": "update_layer_1", "update_second.product": "update_layer_2"}  # fmt: skip
OF_MODEL = {"pre_pool_first.product": "pre_pool1", "pre_pool_second.product": "pre_pool2"}
NORMS = {"norm": "feature_norm", "message.norm": "message_norm"}
STATISTICS = {"running_mean.value": "running_mean", "running_var.value": "running_var"}


def _names(counts: Counts) -> dict[str, str]:
    names = {"network.embedding.bias": "embedding_layer.biases"}
    pairs = [(f"network.{ours}", theirs) for ours, theirs in OF_MODEL.items()]
    for k in range(counts["blocks"]):
        pairs += [(f"network.layers.{k}.{ours}", f"layers.{k}.{theirs}") for ours, theirs in OF_LAYER.items()]
        norms = [(ours, theirs) for ours, theirs in NORMS.items() if counts[theirs]]
        for ours, theirs in norms:
            for part in ("weight", "bias"):
                names[f"network.layers.{k}.{ours}.{part}"] = f"layers.{k}.{theirs}.{part}"
            if counts["message_norm"]:
                for part, their_part in STATISTICS.items():
                    names[f"network.layers.{k}.{ours}.{part}"] = f"layers.{k}.{theirs}.{their_part}"
    for ours, theirs in pairs:
        names |= {f"{ours}.weight": f"{theirs}.tp.weight", f"{ours}.bias": f"{theirs}.biases"}
    if counts["post_pool"]:
        names |= {f"head.layers.{ours}.bias": f"post_pool{k}.biases" for k, ours in ((1, "hidden"), (2, "output"))}
    return names


def _counts(state: State) -> dict[str, int]:
    """The number of layers, and which of the norms and of the networks behind the pooling there are."""
    layers = [int(match[1]) + 1 for key in state if (match := re.match(r"layers\.(\d+)\.", key))]
    norms = {name: int(f"layers.0.{name}.weight" in state) for name in NORMS.values()}
    return {"blocks": min(len(state), max(layers, default=0)), "post_pool": int("post_pool1.biases" in state), **norms}


def _configured(settings: Any) -> dict[str, int]:
    """The same from the configuration's section ``model``."""
    norms = {"feature_norm": int(settings.norm != "none"), "message_norm": int(settings.norm == "batch")}
    return {"blocks": settings.blocks, "post_pool": int(settings.task == "graph"), **norms}


def _numel(irreps_in: Irreps, attributes: Irreps, irreps_out: Irreps) -> int:
    paths = fully_connected_paths(irreps_in, attributes, irreps_out)
    return sum(irreps_in[i].mul * irreps_out[k].mul for i, _, k in paths)


def _irreps(state: State) -> tuple[dict[str, int | str], Irreps]:
    """Numbers of the configuration whose irreps have as many biases and weights, and these irreps.

    Several numbers of features can have the same irreps: multiples of 16, and then of 8, 4, 2, are tried first.  The
    degrees are those of the Wigner symbols, where the state dict holds them.

    Raises:
        WeightError: there are none, or without the symbols they could be others.
    """
    scalars, copies = state["embedding_layer.biases"].size, state["layers.0.message_layer_2.biases"].size
    weights = state["layers.0.message_layer_2.tp.weight"].size
    coupled = {tuple(map(int, match.groups())) for key in state if (match := COUPLED.fullmatch(key))}
    sizes = sorted(range(1, FEATURES), key=lambda n: (-min(n & -n, 16), n))
    found: dict[Irreps, dict[str, int | str]] = {}
    for lmax, lmax_attributes, subspace in product(LMAX, LMAX_ATTRIBUTES, SUBSPACES):
        if coupled and coupled != _coupled(lmax, lmax_attributes):
            continue
        for features in sizes:
            try:
                irreps = hidden_irreps(features, lmax, lmax_attributes, subspace)
            except ValueError:
                continue
            same = (irreps[0].mul, irreps.num_irreps) == (scalars, copies)
            if same and _numel(irreps, Irreps.spherical_harmonics(lmax_attributes), with_gates(irreps)) == weights:
                numbers: dict[str, int | str] = {
                    "features": features,
                    "lmax": lmax,
                    "lmax_attributes": lmax_attributes,
                    "subspace": subspace,
                }
                found.setdefault(irreps, numbers)
    if not found:
        raise WeightError(
            f"layers.0.message_layer_2: expected the weights of hidden irreps of up to {FEATURES - 1} features, found "
            f"{weights} weights with {copies} biases; the weights are damaged or of another model"
        )
    if len(found) > 1:
        raise WeightError(
            f"layers.0.message_layer_2: {' or '.join(map(str, found))} have as many weights; keep the buffers "
            "..._w3j_... of the state dict, which say the degrees"
        )
    ((irreps, only),) = found.items()
    return only, irreps


def _coupled(lmax: int, lmax_attributes: int) -> set[tuple[int, ...]]:
    """The degrees above 0 that a product of such irreps couples."""
    return {
        (first, second, output)
        for first, second, output in product(range(1, lmax + 1), range(1, lmax_attributes + 1), range(1, lmax + 1))
        if abs(first - second) <= output <= first + second and (first + second + output) % 2 == 0
    }


def _powers(state: State, irreps: Irreps) -> int:
    size = state["embedding_layer.tp.weight"].size
    powers = size // (irreps.num_irreps * len(ATOMIC_NUMBERS))
    if powers not in POWERS or size != powers * irreps.num_irreps * len(ATOMIC_NUMBERS):
        raise WeightError(
            f"embedding_layer.tp.weight: expected {len(ATOMIC_NUMBERS)} (one_hot) or {3 * len(ATOMIC_NUMBERS)} "
            f"(cormorant) numbers of a node with {irreps.num_irreps} weights each, found {size} weights; gilmer's need "
            "bonds, which a structure does not have"
        )
    return powers


def _sizes(state: State) -> Sizes:
    found, irreps = _irreps(state)
    norm = "batch" if "layers.0.message_norm.weight" in state else "instance"
    last = state["post_pool2.biases" if "post_pool1.biases" in state else "pre_pool2.biases"]
    return {
        **found,
        "norm": norm if "layers.0.feature_norm.weight" in state else "none",
        "task": "graph" if "post_pool1.biases" in state else "node",
        "node_features": POWERS[_powers(state, irreps)],
        "outputs": last.size,
    }


def _reshaped(state: State) -> dict[str, np.ndarray]:
    """The tables of the elements, and the layers behind the pooling, whose matrices are (inputs, outputs)."""
    _, irreps = _irreps(state)
    powers, rows = _powers(state, irreps), np.cumsum([0, *(part.mul for part in irreps)])
    flat = np.asarray(state["embedding_layer.tp.weight"])
    inputs = powers * len(ATOMIC_NUMBERS)
    columns = [flat[inputs * a : inputs * b].reshape(inputs, b - a) for a, b in pairwise(rows)]
    both = np.concatenate(columns, 1).reshape(len(ATOMIC_NUMBERS), powers, -1)  # (elements, powers, copies)
    result = {}
    for power in range(powers):
        table = np.zeros((ELEMENTS, irreps.num_irreps), flat.dtype)
        table[list(ATOMIC_NUMBERS)] = both[:, power]
        result[f"network.embedding.tables.{power}.table"] = table
    for k, ours in ((1, "hidden"), (2, "output")):
        key = f"post_pool{k}"
        if f"{key}.tp.weight" in state:
            outputs = state[f"{key}.biases"].size
            result[f"head.layers.{ours}.weight"] = np.asarray(state[f"{key}.tp.weight"]).reshape(-1, outputs).T
    return result


def _observed(counts: Counts) -> dict[str, tuple[str, str]]:
    found = {
        "h/embedding_layer": ("network.embedding", "feature"),
        "h/pre_pool1": ("network.pre_pool_first", "feature"),
        "h/pre_pool2": ("network.pre_pool_second", "node"),
    }
    for k in range(counts["blocks"]):
        found |= {
            f"h/layers.{k}": (f"network.layers.{k}", "feature"),
            f"h/layers.{k}.aggr_module": (f"network.layers.{k}.message", "feature"),
            f"h/layers.{k}.update_layer_1": (f"network.layers.{k}.update_first", "feature"),
            f"h/layers.{k}.update_layer_2": (f"network.layers.{k}.update_second", "feature"),
        }
        if counts["feature_norm"]:
            found[f"h/layers.{k}.feature_norm"] = (f"network.layers.{k}.norm", "feature")
    return found


SEGNN_SOURCES: dict[str, Source] = {
    "segnn": Source(
        model="segnn",
        mark=r"layers\.0\.message_layer_1\.tp\.weight",
        repeated={"blocks": r"layers\.(\d+)\."},
        names=_names,
        buffers=(
            r".*\.tp\._compiled_main.*",
            r".*\.tp\.output_mask",
            r".*\.gate\..*",
            r".*\.num_batches_tracked",
            r"embedding_layer\.tp\.weight",
            r"post_pool\d\.tp\.weight",
        ),
        required=("embedding_layer.tp.weight",),
        clean=dict,
        sizes=_sizes,
        readouts=lambda state: ("sum",) if "post_pool1.biases" in state else ("sum", "mean"),
        derived=lambda _: {},
        references=lambda _: None,
        elements="",
        observed=_observed,
        reshaped=_reshaped,
        atomic_numbers=ATOMIC_NUMBERS,
        counted=_counts,
        configured=_configured,
    )
}
