"""Weights of other programs as our parameters: the origins that are known, and the checks of a state dict."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_maps.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re

import numpy as np

from models.elements import ELEMENTS, every_row
from scripts.weights.weight_maps_dimenetpp import DIMENETPP_SOURCES
from scripts.weights.weight_maps_equiformer import EQUIFORMER_SOURCES
from scripts.weights.weight_maps_schnet import SCHNET_SOURCES
from scripts.weights.weight_maps_segnn import SEGNN_SOURCES
from scripts.weights.weight_source import Source, State, WeightError

SHOWN = 4  # names in an error
SOURCES: dict[str, Source] = SCHNET_SOURCES | DIMENETPP_SOURCES | SEGNN_SOURCES | EQUIFORMER_SOURCES


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
    counts = source.counts(state)
    expected = set(source.names(counts | {"blocks": max(counts["blocks"], 1)}).values()) | set(source.required)
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
        source.sizes(state)
    except (IndexError, TypeError, ValueError) as error:  # a shape that no such model has
        raise WeightError(f"{where}: {error}") from None
    return state


def convert(name: str, state: State) -> dict[str, np.ndarray]:
    """Our parameters by name, from a state dict that ``check_keys`` returned."""
    source = SOURCES[name]
    names = source.names(source.counts(state))
    copied = {ours: np.asarray(state[theirs]) for ours, theirs in names.items()}
    tables = {ours: every_row(copied[ours]) for ours, theirs in names.items() if theirs == source.elements}
    return copied | tables | source.derived(state) | source.reshaped(state)


def elements_of(name: str, state: State) -> list[int]:
    """Atomic numbers that the original knows; of the rows of a table it cannot be seen which were trained."""
    if SOURCES[name].atomic_numbers:
        return list(SOURCES[name].atomic_numbers)
    return list(range(1, min(len(state[SOURCES[name].elements]), ELEMENTS)))


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _other_source(name: str, state: State) -> str:
    for other, source in SOURCES.items():
        if other != name and any(re.fullmatch(source.mark, key) for key in state):
            return f"; they look like {other}: use --source {other}"
    return ""
