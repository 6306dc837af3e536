"""Which weight of a foreign model is which parameter of ours: one line of ``SOURCES`` for each origin.

Everything here is NumPy: a state dict comes in as a mapping of arrays, our parameters go out under our names.

| source            | model  | radial basis                         | outside the network                       |
|-------------------|--------|--------------------------------------|-------------------------------------------|
| pyg-schnet        | schnet | exact linspace, as its float64 model | mean, std, atomref: all per atom          |
| schnetpack-schnet | schnet | its own buffers offsets and widths   | nothing: the head is ``atomistic.Atomwise`` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from data_tools.graph import DataError

State = Mapping[str, np.ndarray]
Sizes = dict[str, int | float | str]

ELEMENT_ROWS = 119  # atomic numbers 0 to 118
SHOWN = 4  # names in an error


class WeightError(DataError):
    """Weights that cannot be used: one line with what was expected, what came and what to do."""


@dataclass(frozen=True)
class Source:
    """How the weights of one origin become ours.

    Attributes:
        model: name in ``models.MODELS``.
        mark: pattern of a key that this origin has and the others lack.
        block: pattern of the keys of one block, whose group is the block's number.
        names: number of blocks to {our parameter: their key}, for the parameters that are copied as they are.
        buffers: patterns of keys that are not parameters, or not copied as they are.
        required: of the buffers, those that the conversion needs.
        clean: state dict to one with the keys of ``names``; refuses aliases that contradict each other.
        sizes: state dict to the values of the configuration's section ``model`` that fit it.
        readouts: state dict to the readouts that it can belong to.
        derived: state dict to our parameters that are not copied as they are.
        references: state dict to the energies of the free atoms (119,), or None.
        observed: number of blocks to {array of a parity file: our quantity}, see ``scripts.weight_check``.
    """

    model: str
    mark: str
    block: str
    names: Callable[[int], dict[str, str]]
    buffers: tuple[str, ...]
    required: tuple[str, ...]
    clean: Callable[[State], State]
    sizes: Callable[[State, int], Sizes]
    readouts: Callable[[State], tuple[str, ...]]
    derived: Callable[[State], dict[str, np.ndarray]]
    references: Callable[[State], np.ndarray | None]
    observed: Callable[[int], dict[str, str]]

    def blocks(self, state: State) -> int:
        """Number of blocks in the weights; 0 when there is none."""
        found = [re.match(self.block, key) for key in state]
        return max((int(match.group(1)) + 1 for match in found if match), default=0)


def check_keys(name: str, state: State, where: object = "weights") -> State:
    """The state dict with its keys as ``Source.names`` has them.

    Args:
        name: key of ``SOURCES``.
        state: arrays by their keys in the original.
        where: the file, for errors.

    Raises:
        WeightError: keys are missing or unknown, or a value is not finite.
    """
    source = SOURCES[name]
    for key, value in state.items():
        if value.dtype.kind not in "fiub":
            raise WeightError(f"{where}: {key[:60]}: expected numbers, got {value.dtype}; the weights are damaged")
    try:
        state = source.clean(state)
    except WeightError as error:
        raise WeightError(f"{where}: {error}") from None
    expected = set(source.names(max(source.blocks(state), 1)).values()) | set(source.required)
    missing = sorted(expected - state.keys())
    known = re.compile("|".join(source.buffers))
    unknown = sorted(key for key in state.keys() - expected if not known.fullmatch(key))
    if missing or unknown:
        parts = [
            f"{len(keys)} {what}: {_some(keys)}" for what, keys in (("missing", missing), ("unknown", unknown)) if keys
        ]
        raise WeightError(f"{where}: the keys are not those of {name}: {'; '.join(parts)}{_other_source(name, state)}")
    for key in sorted(expected):
        if not np.isfinite(state[key]).all():
            raise WeightError(
                f"{where}: {key} holds a value that is not finite; use weights of a run that did not diverge"
            )
    try:
        source.sizes(state, source.blocks(state))
    except (IndexError, TypeError, ValueError) as error:  # a shape that no such model has
        raise WeightError(f"{where}: {error}") from None
    return state


def convert(name: str, state: State) -> dict[str, np.ndarray]:
    """Our parameters by name, from a state dict that ``check_keys`` returned."""
    source = SOURCES[name]
    copied = {ours: np.asarray(state[theirs]) for ours, theirs in source.names(source.blocks(state)).items()}
    return copied | source.derived(state)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _other_source(name: str, state: State) -> str:
    for other, source in SOURCES.items():
        if other != name and any(re.fullmatch(source.mark, key) for key in state):
            return f"; they look like {other}: use --source {other}"
    return ""


def _matrix(state: State, key: str) -> np.ndarray:
    if state[key].ndim != 2:
        raise WeightError(f"{key}: expected a matrix, got shape {state[key].shape}; the weights are damaged")
    return state[key]


def _layers(pairs: Iterable[tuple[str, str, bool]]) -> dict[str, str]:
    """(ours, theirs, has a bias) of each linear layer to the names of its arrays."""
    names = {}
    for ours, theirs, bias in pairs:
        names[f"{ours}.weight"] = f"{theirs}.weight"
        if bias:
            names[f"{ours}.bias"] = f"{theirs}.bias"
    return names


def _short(value: np.ndarray) -> float:
    """The float32 number 4.6999998 was written as 4.7."""
    return float(str(np.float32(value)))


# ---------------------------------------------------------------- torch_geometric.nn.models.SchNet


def _pyg_names(blocks: int) -> dict[str, str]:
    names = {"embedding": "embedding.weight"}
    for k in range(blocks):
        ours, theirs = f"interactions.{k}", f"interactions.{k}"
        names |= _layers(
            (
                (f"{ours}.filter.hidden", f"{theirs}.mlp.0", True),
                (f"{ours}.filter.output", f"{theirs}.mlp.2", True),
                (f"{ours}.input", f"{theirs}.conv.lin1", False),
                (f"{ours}.update_hidden", f"{theirs}.conv.lin2", True),
                (f"{ours}.update_output", f"{theirs}.lin", True),
            )
        )
    return names | _layers((("head_hidden", "lin1", True), ("head_output", "lin2", True)))


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


def _pyg_sizes(state: State, blocks: int) -> Sizes:
    filters, gaussians = _matrix(state, "interactions.0.mlp.0.weight").shape
    offsets = state["distance_expansion.offset"].astype(np.float64)
    even = np.linspace(0.0, offsets[-1], len(offsets)) if offsets.ndim == 1 and offsets.size > 1 else None
    if even is None or not offsets[-1] > 0 or not np.allclose(offsets, even, rtol=0, atol=1e-5 * abs(offsets[-1])):
        raise WeightError(
            "distance_expansion.offset: expected even steps from 0 to the cutoff; this is not PyG's SchNet"
        )
    sizes = {"features": _matrix(state, "embedding.weight").shape[1], "filters": filters, "blocks": blocks}
    cutoff = {"cutoff": _short(offsets[-1])}
    return sizes | {"gaussians": gaussians} | cutoff | {"convention": "pyg", "filter": "elementwise"}


def _pyg_derived(state: State) -> dict[str, np.ndarray]:
    stored = state["distance_expansion.offset"]
    offsets = np.linspace(0.0, _short(stored[-1]), len(stored))
    derived = {"basis.offsets": offsets, "basis.coefficients": np.full(len(offsets), -0.5 / offsets[1] ** 2)}
    return derived | ({"readout.masses": np.asarray(state["atomic_mass"])} if "atomic_mass" in state else {})


def _pyg_references(state: State) -> np.ndarray | None:
    if "atomref.weight" not in state or "atomic_mass" in state:  # PyG adds none to a dipole
        return None
    table = np.asarray(state["atomref.weight"], np.float64).reshape(-1)
    references = np.full(ELEMENT_ROWS, np.nan)
    references[: len(table)] = table[:ELEMENT_ROWS]
    return references


def _pyg_observed(blocks: int) -> dict[str, str]:
    edges = {"h/distance_expansion": "gaussians"} | {f"h/interactions.{k}.mlp": f"filters.{k}" for k in range(blocks)}
    updates = {f"h/interactions.{k}": f"updates.{k}" for k in range(blocks)}
    return {"h/embedding": "embedding", **edges, **updates, "h/lin1": "hidden", "h/lin2": "values"}


# ---------------------------------------------------------------- schnetpack.representation.SchNet and Atomwise


def _spk_names(blocks: int) -> dict[str, str]:
    names = {"embedding": "representation.embedding.weight"}
    for k in range(blocks):
        ours, theirs = f"interactions.{k}", f"representation.interactions.{k}"
        names |= _layers(
            (
                (f"{ours}.filter.hidden", f"{theirs}.filter_network.0", True),
                (f"{ours}.filter.output", f"{theirs}.filter_network.1", True),
                (f"{ours}.input", f"{theirs}.in2f", False),
                (f"{ours}.update_hidden", f"{theirs}.f2out.0", True),
                (f"{ours}.update_output", f"{theirs}.f2out.1", True),
            )
        )
    return names | _layers((("head_hidden", "output.outnet.0", True), ("head_output", "output.outnet.1", True)))


def _spk_clean(state: State) -> State:
    """In a whole ``NeuralNetworkPotential`` the head is the first of ``output_modules``."""
    return {re.sub(r"^output_modules\.0\.", "output.", key): value for key, value in state.items()}


def _spk_sizes(state: State, blocks: int) -> Sizes:
    filters, gaussians = _matrix(state, "representation.interactions.0.filter_network.0.weight").shape
    features = _matrix(state, "representation.embedding.weight").shape[1]
    cutoff = _short(state["representation.cutoff_fn.cutoff"].reshape(-1)[0])
    sizes = {"features": features, "filters": filters, "blocks": blocks, "gaussians": gaussians, "cutoff": cutoff}
    return sizes | {"convention": "schnetpack", "filter": "elementwise"}


def _spk_derived(state: State) -> dict[str, np.ndarray]:
    widths = state["representation.radial_basis.widths"].astype(np.float64)
    return {
        "basis.offsets": state["representation.radial_basis.offsets"].astype(np.float64),
        "basis.coefficients": -0.5 / (widths * widths),
    }


def _spk_observed(blocks: int) -> dict[str, str]:
    edges = {"h/representation.radial_basis": "gaussians", "h/representation.cutoff_fn": "envelope"}
    updates = {f"h/representation.interactions.{k}": f"updates.{k}" for k in range(blocks)}
    return {**edges, **updates, "rep": "nodes", "h/output.outnet": "values"}


SOURCES: dict[str, Source] = {
    "pyg-schnet": Source(
        model="schnet",
        mark=r"distance_expansion\.offset",
        block=r"interactions\.(\d+)\.",
        names=_pyg_names,
        buffers=(r"atomref\.weight", "initial_atomref", "atomic_mass"),
        required=("distance_expansion.offset",),
        clean=_pyg_clean,
        sizes=_pyg_sizes,
        readouts=lambda state: ("dipole",) if "atomic_mass" in state else ("sum", "mean"),
        derived=_pyg_derived,
        references=_pyg_references,
        observed=_pyg_observed,
    ),
    "schnetpack-schnet": Source(
        model="schnet",
        mark=r"representation\.radial_basis\.offsets",
        block=r"representation\.interactions\.(\d+)\.",
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
        observed=_spk_observed,
    ),
}
