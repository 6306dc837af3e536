"""Spherical harmonics of vectors, with derivatives along tangents.

    (15)  P_1 = r or r / |r|,   P_(l+1)m = sum K_ijm P_li P_1j,   Y_l = c_l P_l

Those of the vector 0 divided by its length, and all their derivatives, are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor
from mindspore import dtype as mstype

from models.cpu_kernels.row_functions import RowFunction


class Harmonics(RowFunction):
    """(15) as a cell, vectors (M, 3) to (M, (lmax + 1)^2).

    Args:
        factors: (lmax + 1,) c.
        normalize: whether vectors are divided by their lengths.
        couplings: K of each degree from 1 to lmax - 1, (2 l + 1, 3, 2 l + 3).
        dtype: of the vectors.
    """

    def __init__(self, factors: Sequence[float], normalize: bool, couplings: Sequence[np.ndarray], dtype: mstype.Type):
        lmax, terms, coefficients = len(factors) - 1, [], list(factors)
        for degree, coupling in enumerate(couplings, 1):
            for place in np.argwhere(coupling):
                terms.append((degree, *place))
                coefficients.append(coupling[tuple(place)])
        table = np.array([lmax, int(normalize), *np.array(terms, int).reshape(-1)], np.int32)
        like = Tensor(np.zeros((1, (lmax + 1) ** 2)), dtype)
        super().__init__("harmonics", Tensor(table), Tensor(np.array(coefficients), dtype), like)
