"""The elements: a table of features with a row for each of them, and their standard atomic weights."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import Initializer, initializer

from models.graph_ops import gather

ELEMENTS = 119  # rows of a table: row 0 belongs to the ghosts, the others are atomic numbers
#: (ELEMENTS,) atomic mass units (IUPAC 2016; the longest-lived isotope where there is none); 0 for a ghost.
# fmt: off
ATOMIC_MASSES = np.array(
    [
        0.0, 1.008, 4.002602, 6.94, 9.0121831, 10.81, 12.011, 14.007, 15.999, 18.998403163,
        20.1797, 22.98976928, 24.305, 26.9815385, 28.085, 30.973761998, 32.06, 35.45, 39.948, 39.0983,
        40.078, 44.955908, 47.867, 50.9415, 51.9961, 54.938044, 55.845, 58.933194, 58.6934, 63.546,
        65.38, 69.723, 72.63, 74.921595, 78.971, 79.904, 83.798, 85.4678, 87.62, 88.90584,
        91.224, 92.90637, 95.95, 97.90721, 101.07, 102.9055, 106.42, 107.8682, 112.414, 114.818,
        118.71, 121.76, 127.6, 126.90447, 131.293, 132.90545196, 137.327, 138.90547, 140.116, 140.90766,
        144.242, 144.91276, 150.36, 151.964, 157.25, 158.92535, 162.5, 164.93033, 167.259, 168.93422,
        173.054, 174.9668, 178.49, 180.94788, 183.84, 186.207, 190.23, 192.217, 195.084, 196.966569,
        200.592, 204.38, 207.2, 208.9804, 208.98243, 209.98715, 222.01758, 223.01974, 226.02541, 227.02775,
        232.0377, 231.03588, 238.02891, 237.04817, 244.06421, 243.06138, 247.07035, 247.07031, 251.07959, 252.083,
        257.09511, 258.09843, 259.101, 262.11, 267.122, 268.126, 271.134, 270.133, 269.1338, 278.156,
        281.165, 281.166, 285.177, 286.182, 289.19, 289.194, 293.204, 293.208, 294.214,
    ]
)
# fmt: on


class ElementEmbedding(nn.Cell):
    """Features of an atom that depend on its element alone.

    Args:
        features: F, of an atom.
        initial: of the table's numbers.
        dtype: of the table.

    Attributes:
        scale: factors of the atoms, see ``models.atom_scale``; None: 1.
    """

    def __init__(self, features: int, initial: Initializer, dtype: mstype.Type):
        super().__init__()
        self.table = Parameter(initializer(initial, (ELEMENTS, features), dtype), name="table")
        self.scale: Parameter | None = None

    def construct(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N,) to (N, F)."""
        features = gather(self.table, numbers)
        return features if self.scale is None else features * self.scale


def every_row(table: np.ndarray) -> np.ndarray:
    """A table (rows, ...) that holds the first elements only, with rows of zeros for the others: (ELEMENTS, ...)."""
    rows = table[:ELEMENTS]
    return np.concatenate((rows, np.zeros((ELEMENTS - len(rows), *rows.shape[1:]), rows.dtype)))
