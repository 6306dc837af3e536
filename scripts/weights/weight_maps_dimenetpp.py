"""Which weight of torch_geometric's DimeNetPlusPlus is which parameter of ours.

Its state dict says neither the cutoff nor the exponent of the envelope: those of the configuration count.  The bases
of its published weights have faults frozen in, so it wants ``model.reference_bugs``.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_maps_dimenetpp.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from scripts.weights.weight_source import Counts, Sizes, Source, State, WeightError, layers, matrix


def _residual(ours: str, theirs: str) -> list[tuple[str, str, bool]]:
    return [(f"{ours}.first", f"{theirs}.lin1", True), (f"{ours}.second", f"{theirs}.lin2", True)]


def _names(counts: Counts) -> dict[str, str]:
    names = {
        "network.radial.frequencies": "rbf.freq",
        "network.embedding.elements.table": "emb.emb.weight",
        "network.embedding.weight": "emb.lin.weight",
        "network.embedding.bias": "emb.lin.bias",
    }
    parts = [("network.embedding.radial", "emb.lin_rbf", True)]
    for k in range(counts["blocks"]):
        ours, theirs = f"network.interactions.{k}", f"interaction_blocks.{k}"
        for basis, short in (("radial", "rbf"), ("spherical", "sbf")):
            names[f"{ours}.{basis}_first.weight"] = f"{theirs}.lin_{short}1.weight"
            names[f"{ours}.{basis}_second.weight"] = f"{theirs}.lin_{short}2.weight"
        parts += [
            (f"{ours}.source", f"{theirs}.lin_kj", True),
            (f"{ours}.target", f"{theirs}.lin_ji", True),
            (f"{ours}.down", f"{theirs}.lin_down", False),
            (f"{ours}.up", f"{theirs}.lin_up", False),
            (f"{ours}.skip", f"{theirs}.lin", True),
        ]
        for side in ("before", "after"):
            for layer in range(counts[f"layers_{side}_skip"]):
                parts += _residual(f"{ours}.{side}_skip.{layer}", f"{theirs}.layers_{side}_skip.{layer}")
    for k in range(counts["blocks"] + 1):
        ours, theirs = f"network.outputs.{k}", f"output_blocks.{k}"
        parts += [(f"{ours}.{name}", f"{theirs}.{key}", False) for name, key in
                  (("radial", "lin_rbf"), ("up", "lin_up"), ("output", "lin"))]  # fmt: skip
        parts += [(f"{ours}.hidden.{n}", f"{theirs}.lins.{n}", True) for n in range(counts["output_layers"])]
    return names | layers(parts)


def _sizes(state: State) -> Sizes:
    block, output = "interaction_blocks.0", "output_blocks.0"
    basis, radial = matrix(state, f"{block}.lin_rbf1.weight").shape
    columns = matrix(state, f"{block}.lin_sbf1.weight").shape[1]
    if not radial or columns % radial:
        raise WeightError(f"{block}.lin_sbf1.weight: expected a multiple of {radial} columns, found {columns}; "
                          "the weights are damaged")  # fmt: skip
    return {
        "features": matrix(state, "emb.emb.weight").shape[1],
        "interaction_features": matrix(state, f"{block}.lin_down.weight").shape[0],
        "basis_features": basis,
        "output_features": matrix(state, f"{output}.lin_up.weight").shape[0],
        "spherical": columns // radial,
        "radial": radial,
        "outputs": matrix(state, f"{output}.lin.weight").shape[0],
        "reference_bugs": True,
    }


def _observed(counts: Counts) -> dict[str, tuple[str, str]]:
    found = {
        "h/rbf": ("network.radial", "pair"),
        "h/sbf": ("network.spherical", "triplet"),
        "h/emb": ("network.embedding", "edge"),
    }
    for k in range(counts["blocks"]):
        found[f"h/interaction_blocks.{k}"] = (f"network.interactions.{k}", "edge")
    for k in range(counts["blocks"] + 1):
        found[f"h/output_blocks.{k}"] = (f"network.outputs.{k}", "node")
    return found


DIMENETPP_SOURCES: dict[str, Source] = {
    "pyg-dimenetpp": Source(
        model="dimenetpp",
        mark=r"interaction_blocks\.0\.lin_rbf1\.weight",
        repeated={
            "blocks": r"interaction_blocks\.(\d+)\.",
            "layers_before_skip": r"interaction_blocks\.\d+\.layers_before_skip\.(\d+)\.",
            "layers_after_skip": r"interaction_blocks\.\d+\.layers_after_skip\.(\d+)\.",
            "output_layers": r"output_blocks\.\d+\.lins\.(\d+)\.",
        },
        names=_names,
        buffers=(),
        required=(),
        clean=dict,
        sizes=_sizes,
        readouts=lambda _: ("sum",),
        derived=lambda _: {},
        references=lambda _: None,
        elements="emb.emb.weight",
        observed=_observed,
    )
}
