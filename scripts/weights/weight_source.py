"""What a foreign origin of weights is: how its state dict becomes our parameters, as one object per origin.

Everything here is NumPy: a state dict comes in as a mapping of arrays, our parameters go out under our names.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_source.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.graph import DataError

State = Mapping[str, np.ndarray]
Sizes = dict[str, int | float | str]
Counts = Mapping[str, int]


class WeightError(DataError):
    """Weights that cannot be used: one line with what was expected, what came and what to do."""


@dataclass(frozen=True)
class Source:
    """How the weights of one origin become ours.

    Attributes:
        model: name in ``models.MODELS``.
        mark: pattern of a key that this origin has and the others lack.
        repeated: field of the configuration's section ``model`` that counts repeated parts, to the pattern of the keys
            of one of them, whose group is its number; the first counts the blocks.
        names: those counts to {our parameter: their key}, for the parameters that are copied as they are.
        buffers: patterns of keys that are not parameters, or not copied as they are.
        required: of the buffers, those that the conversion needs.
        clean: state dict to one with the keys of ``names``; refuses aliases that contradict each other.
        sizes: state dict to the values of the configuration's section ``model`` that fit it, without the counts.
        readouts: state dict to the readouts that it can belong to.
        derived: state dict to our parameters that are not copied as they are.
        references: state dict to the energies of the free atoms (119,), or None.
        elements: key of their table with a row for each element.
        observed: the counts to {array of a parity file: (our cell that returns it, what its rows are: ``node``,
            ``pair``, ``edge`` or ``triplet``; ``feature``: nodes with irreps, channels last)}.
        reshaped: state dict to our parameters whose numbers stand elsewhere in theirs; their gradients too.
        atomic_numbers: of the elements that it knows, where no table has a row for each.
        counted: state dict to the counts, where ``repeated`` does not say them all.
        configured: the same from the configuration's section ``model``.
    """

    model: str
    mark: str
    repeated: dict[str, str]
    names: Callable[[Counts], dict[str, str]]
    buffers: tuple[str, ...]
    required: tuple[str, ...]
    clean: Callable[[State], State]
    sizes: Callable[[State], Sizes]
    readouts: Callable[[State], tuple[str, ...]]
    derived: Callable[[State], dict[str, np.ndarray]]
    references: Callable[[State], np.ndarray | None]
    elements: str
    observed: Callable[[Counts], dict[str, tuple[str, str]]]
    reshaped: Callable[[State], dict[str, np.ndarray]] = lambda _: {}
    atomic_numbers: tuple[int, ...] = ()
    counted: Callable[[State], dict[str, int]] | None = None
    configured: Callable[[Any], dict[str, int]] | None = None

    def counts(self, state: State) -> dict[str, int]:
        """How often each repeated part is in the weights; no more often than there are arrays, whatever a key says."""
        if self.counted is not None:
            return self.counted(state)
        found = {}
        for name, pattern in self.repeated.items():
            matches = [re.match(pattern, key) for key in state]
            found[name] = min(len(state), max((int(match.group(1)) + 1 for match in matches if match), default=0))
        return found

    def counts_of(self, settings: Any) -> dict[str, int]:
        """The counts that the configuration's section ``model`` says."""
        if self.configured is not None:
            return self.configured(settings)
        return {name: getattr(settings, name) for name in self.repeated}


def matrix(state: State, key: str) -> np.ndarray:
    """An array of the weights.

    Raises:
        WeightError: it is no matrix.
    """
    if state[key].ndim != 2:
        raise WeightError(f"{key}: expected a matrix, got shape {state[key].shape}; the weights are damaged")
    return state[key]


def layers(pairs: Iterable[tuple[str, str, bool]]) -> dict[str, str]:
    """(ours, theirs, has a bias) of each linear layer to the names of its arrays."""
    names = {}
    for ours, theirs, bias in pairs:
        names[f"{ours}.weight"] = f"{theirs}.weight"
        if bias:
            names[f"{ours}.bias"] = f"{theirs}.bias"
    return names


def short(value: np.ndarray) -> float:
    """The float32 number 4.6999998 was written as 4.7."""
    return float(str(np.float32(value)))
