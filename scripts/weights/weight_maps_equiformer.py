"""Which weight of Equiformer's GraphAttentionTransformer, with nonlinear messages, is which parameter of ours.

Its layers keep e3nn's flat weights, as ours do.  Its state dict says neither the irreps nor the cutoff, the averages
and the numbers of heads: those of the configuration count, and weights that do not fit them are refused with the shapes
of both.  The original has no envelope.  It also holds constants of e3nn, which are not needed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_maps_equiformer.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re
from typing import Any

import numpy as np

from models.elements import ELEMENTS
from scripts.weights.weight_source import Counts, Sizes, Source, State, WeightError, matrix

ATOMIC_NUMBERS = (1, 6, 7, 8, 9)  # of the one-hot vectors
TABLE, GAUSSIANS, FREQUENCIES = "atom_embed.atom_type_lin.tp.weight", "rbf.mean", "rbf.rbf.frequencies"
OF_RADIAL = re.compile(r"edge_deg_embed\.rad\.net\.(\d+)\.weight")
OF_ATTENTION = {
    "sources": "merge_src", "targets": "merge_dst", "logits": "sep_alpha", "hidden": "sep_act.lin",
    "value": "sep_value.lin", "project": "proj",
}  # fmt: skip
OF_BLOCK = {"feed_forward.first": "ffn.fctp_1", "feed_forward.second": "ffn.fctp_2", "shortcut": "ffn_shortcut"}
WITHOUT_BIAS = ("targets",)


def _names(counts: Counts) -> dict[str, str]:
    last = counts["blocks"] - 1
    names = {"embedding.bias": "atom_embed.atom_type_lin.bias.0"}
    if counts["gaussian"]:
        parts = {"mean": "mean", "std": "std", "scale": "weight", "shift": "bias"}
        names |= {f"basis.{ours}": f"rbf.{theirs}" for ours, theirs in parts.items()}
    else:
        names["basis.functions.frequencies"] = FREQUENCIES
    names |= {"edge_degree.weight": "edge_deg_embed.exp.tp.weight", "edge_degree.bias": "edge_deg_embed.exp.bias.0"}
    names |= _of_radial("edge_degree.radial", "edge_deg_embed.rad", counts["radial_layers"])
    pairs = {"edge_degree.project": "edge_deg_embed.proj", "head.hidden": "head.0", "head.output": "head.2"}
    norms = {"norm": "norm"}
    for k in range(counts["blocks"]):
        ours, theirs = f"blocks.{k}", f"blocks.{k}"
        pairs |= {f"{ours}.attention.{one}": f"{theirs}.ga.{other}" for one, other in OF_ATTENTION.items()}
        pairs |= {
            f"{ours}.{one}": f"{theirs}.{other}"
            for one, other in OF_BLOCK.items()
            if one != "shortcut" or (k == last and counts["shortcut"])
        }
        names[f"{ours}.attention.alpha_dot"] = f"{theirs}.ga.alpha_dot"
        names[f"{ours}.attention.weight"] = f"{theirs}.ga.sep_value.dtp.tp.weight"
        names |= _of_radial(f"{ours}.attention.radial", f"{theirs}.ga.sep_act.dtp_rad", counts["radial_layers"])
        norms |= {f"{ours}.{one}": f"{theirs}.{one}" for one in ("norm_1", "norm_2")}
    for ours, theirs in pairs.items():
        names[f"{ours}.weight"] = f"{theirs}.tp.weight"
        if not ours.endswith(WITHOUT_BIAS):
            names[f"{ours}.bias"] = f"{theirs}.bias.0"
    if counts["norm"]:
        affine = ("affine_weight", "affine_bias")
        names |= {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in norms.items() for part in affine}
    return {f"network.{ours}": theirs for ours, theirs in names.items()}


def _of_radial(ours: str, theirs: str, layers: int) -> dict[str, str]:
    """Linear layer, layer norm and activation in turn, and a last layer whose bias is called offset."""
    names = {f"{ours}.last.weight": f"{theirs}.net.{3 * layers}.weight", f"{ours}.last.bias": f"{theirs}.offset"}
    for k in range(layers):
        for part in ("weight", "bias"):
            names[f"{ours}.hidden.{k}.{part}"] = f"{theirs}.net.{3 * k}.{part}"
            names[f"{ours}.norms.{k}.affine_{part}"] = f"{theirs}.net.{3 * k + 1}.{part}"
    return names


def _counts(state: State) -> dict[str, int]:
    """Numbers of blocks and of the hidden layers of a radial network, and which parts there are."""
    blocks = [int(match[1]) + 1 for key in state if (match := re.match(r"blocks\.(\d+)\.", key))]
    layers = [int(match[1]) // 3 for key in state if (match := OF_RADIAL.fullmatch(key))]
    return {
        "blocks": min(len(state), max(blocks, default=0)),
        "radial_layers": min(len(state), max(layers, default=0)),
        "norm": int("norm.affine_weight" in state),
        "gaussian": int(FREQUENCIES not in state),
        "shortcut": int(any(".ffn_shortcut." in key for key in state)),
    }


def _configured(settings: Any) -> dict[str, int]:
    """The same from the configuration's section ``model``."""
    return {
        "blocks": settings.blocks,
        "radial_layers": settings.radial_layers,
        "norm": int(settings.norm == "layer"),
        "gaussian": int(settings.basis == "gaussian"),
        "shortcut": int(settings.irreps != settings.irreps_features),
    }


def _sizes(state: State) -> Sizes:
    layers = range(_counts(state)["radial_layers"])
    radial = [matrix(state, f"edge_deg_embed.rad.net.{3 * k}.weight") for k in layers]
    hidden = {weights.shape[0] for weights in radial}
    if len(hidden) != 1:
        raise WeightError(f"edge_deg_embed.rad: expected hidden layers of one size, found sizes {sorted(hidden)}")
    dot = state["blocks.0.ga.alpha_dot"]
    if dot.ndim != 3:
        raise WeightError(
            f"blocks.0.ga.alpha_dot: expected three axes, found shape {dot.shape}; the weights are damaged"
        )
    _one_for_each_element(state)
    return {
        "irreps_features": f"{state['head.0.bias.0'].size}x0e",
        "heads": dot.shape[1],
        "basis": "bessel" if FREQUENCIES in state else "gaussian",
        "radial": radial[0].shape[1],
        "radial_features": hidden.pop(),
        "norm": "layer" if "norm.affine_weight" in state else "none",
        "envelope": "none",
        "elements": "free",
    }


def _one_for_each_element(state: State) -> np.ndarray:
    """The weights of the elements, (elements, scalars).

    Raises:
        WeightError: they are of other elements.
    """
    scalars, flat = state["atom_embed.atom_type_lin.bias.0"].size, state[TABLE]
    if flat.size != scalars * len(ATOMIC_NUMBERS):
        raise WeightError(
            f"{TABLE}: expected weights of {len(ATOMIC_NUMBERS)} elements (H, C, N, O, F) for {scalars} scalars, found "
            f"{flat.size}"
        )
    return np.asarray(flat).reshape(len(ATOMIC_NUMBERS), scalars)


def _reshaped(state: State) -> dict[str, np.ndarray]:
    """The table of the elements."""
    rows = _one_for_each_element(state)
    table = np.zeros((ELEMENTS, rows.shape[1]), rows.dtype)
    table[list(ATOMIC_NUMBERS)] = rows
    return {"network.embedding.elements.table": table}


def _observed(counts: Counts) -> dict[str, tuple[str, str]]:
    found = {
        "h/atom_embed.atom_type_lin": ("network.embedding", "feature"),
        "h/rbf": ("network.basis", "pair"),
        "h/edge_deg_embed": ("network.edge_degree", "feature"),
        "h/head": ("network.head.output", "node"),
        "h/norm": ("network.norm", "node"),
    }
    last = counts["blocks"] - 1
    for k in range(counts["blocks"]):
        kind = "node" if k == last else "feature"
        found |= {
            f"h/blocks.{k}.norm_1": (f"network.blocks.{k}.norm_1", "feature"),
            f"h/blocks.{k}.norm_2": (f"network.blocks.{k}.norm_2", "feature"),
            f"h/blocks.{k}.ga.sep_act.dtp_rad": (f"network.blocks.{k}.attention.radial", "edge"),
            f"h/blocks.{k}.ga.proj": (f"network.blocks.{k}.attention.project", "feature"),
            f"h/blocks.{k}.ga": (f"network.blocks.{k}.attention", "feature"),
            f"h/blocks.{k}.ffn": (f"network.blocks.{k}.feed_forward", kind),
            f"h/blocks.{k}": (f"network.blocks.{k}", kind),
        }
    if counts["shortcut"]:
        found[f"h/blocks.{last}.ffn_shortcut"] = (f"network.blocks.{last}.shortcut", "node")
    return found


EQUIFORMER_SOURCES: dict[str, Source] = {
    "equiformer": Source(
        model="graph_attention_transformer",
        mark=r"edge_deg_embed\.exp\.tp\.weight",
        repeated={"blocks": r"blocks\.(\d+)\.", "radial_layers": OF_RADIAL.pattern},
        names=_names,
        # the weights of products that a radial network gives are there too, as arrays of no number
        buffers=(r".*\._w3j_\d+_\d+_\d+", r".*\.output_mask", r".*\.gate\..*", r".*\.acts\..*", r"atomref",
                 r".*\.tp\._compiled_main.*", r".*\.(?:dw|dtp)\.tp\.weight", re.escape(TABLE)),
        required=(TABLE,),
        clean=dict,
        sizes=_sizes,
        readouts=lambda _: ("sum",),
        derived=lambda _: {},
        references=lambda _: None,
        elements="",
        observed=_observed,
        reshaped=_reshaped,
        atomic_numbers=ATOMIC_NUMBERS,
        counted=_counts,
        configured=_configured,
    )
}  # fmt: skip
