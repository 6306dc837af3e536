"""What the periodic table says of an element, for networks that see few examples of each.

The description of an element has its period, the block it belongs to, how full the shells beyond the core of the noble
gas before it are (filled in the order of Madelung's rule), and its covalent radius.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, initializer

from models.blocks import ShiftedSoftplus, TwoLayers
from models.elements import ELEMENTS
from models.graph_ops import gather

SHELLS = "1s 2s 2p 3s 3p 4s 3d 4p 5s 4d 5p 6s 4f 5d 6p 7s 5f 6d 7p".split()
CAPACITIES = {"s": 2, "p": 6, "d": 10, "f": 14}
OWN = 0.1  # standard deviation of what an element has beside its description, to begin with
SPREAD = 2.0  # of each number of the description over the elements: features are then about as large as free ones
#: (ELEMENTS,) covalent radii, Angstrom (Cordero et al., Dalton Trans. 2832, 2008); 2.0 where there is none
# fmt: off
COVALENT_RADII = np.array(
    [
        0., 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02,
        1.06, 2.03, 1.76, 1.7, 1.6, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.2, 1.19, 1.2, 1.2, 1.16,
        2.2, 1.95, 1.9, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.4,
        2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.9, 1.87, 1.87, 1.75,
        1.7, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.4, 1.5, 1.5, 2.6, 2.21, 2.15, 2.06, 2.0,
        1.96, 1.9, 1.87, 1.8, 1.69, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0,
        2.0, 2.0, 2.0, 2.0, 2.0, 2.0,
    ]
)
# fmt: on


def descriptions() -> np.ndarray:
    """(ELEMENTS, 10) float64: period / 7, block (4), shells (4) and radius - 1.5 Angstrom; zeros for the ghost."""
    rows = np.zeros((ELEMENTS, 10))
    blocks = list(CAPACITIES)
    for number in range(1, ELEMENTS):
        left, fillings, block, period = number, np.zeros(4), 0, 1
        for shell in SHELLS:
            kind = shell[1]
            if kind == "s":  # a period begins; the noble gas before it is the core
                period, fillings = int(shell[0]), np.zeros(4)
            block = blocks.index(kind)
            fillings[block] = min(left, CAPACITIES[kind]) / CAPACITIES[kind]
            left -= CAPACITIES[kind]
            if left <= 0:
                break
        rows[number] = (period / 7, *np.eye(4)[block], *fillings, COVALENT_RADII[number] - 1.5)
    return rows


def standardised(rows: np.ndarray) -> np.ndarray:
    """Descriptions whose columns have mean 0 and standard deviation ``SPREAD`` over the elements; the ghost has 0."""
    rows = rows.copy()
    rows[1:] = SPREAD * (rows[1:] - rows[1:].mean(axis=0)) / rows[1:].std(axis=0)
    return rows


class DescribedElements(nn.Cell):
    """a[Z] + dense(ssp(dense(description of Z))): elements that are alike begin alike.

    Args:
        features: F, of an atom.
        dtype: of the parameters.

    Attributes:
        scale: factors of the atoms, see ``models.atom_scale``; None: 1.
    """

    def __init__(self, features: int, dtype: mstype.Type):
        super().__init__()
        known = standardised(descriptions())
        self.descriptions = Tensor(known, dtype)
        self.table = Parameter(initializer(Normal(OWN), (ELEMENTS, features), dtype), name="table")
        self.scale: Parameter | None = None
        self.describe = TwoLayers(known.shape[1], features, features, ShiftedSoftplus(dtype), dtype)

    def construct(self, numbers: Tensor) -> Tensor:
        """Atomic numbers (N,) to (N, F)."""
        features = gather(self.table + self.describe(self.descriptions), numbers)
        return features if self.scale is None else features * self.scale
