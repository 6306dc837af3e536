"""Providers of labels: what a batch gets for its rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_tools.graph import Labels
from data_tools.graphs.packed import PackedGraphs


@dataclass(frozen=True)
class StoredLabels:
    """A ``Provider`` of arrays of a whole data set (M structures, A atoms): the same labels at every draw.

    Attributes:
        packed: the data set.
        of_structures: per name, an array with leading dimension M; NaN where there is no label.
        of_atoms: per name, an array with leading dimension A; NaN where there is no label.
    """

    packed: PackedGraphs
    of_structures: dict[str, np.ndarray] = field(default_factory=dict)
    of_atoms: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, rows: np.ndarray, draws: int | np.ndarray = 0) -> Labels:
        """The labels of some rows and of their atoms, in that order."""
        atoms = self.packed.atoms_of(rows) if self.of_atoms else rows
        return Labels(
            {name: values[rows] for name, values in self.of_structures.items()},
            {name: values[atoms] for name, values in self.of_atoms.items()},
        )
