"""Gates of rows that hold scalars s, gates g and columns x.

    (8)  c silu(s),  c' sigmoid(g) x

A row of the table of runs has the first column, the number of columns and the first of as many gates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor
from mindspore import dtype as mstype

from models.cpu_kernels.row_functions import RowFunction


class Gate(RowFunction):
    """(8) as a cell, rows (M, scalars + gates + columns) to (M, scalars + columns).

    Args:
        scalars: how many there are; there is a gate for every number of a column that the runs name.
        runs: (S, 3) the table, for the columns after both.
        constants: c and c'.
        dtype: of the rows.
    """

    def __init__(self, scalars: int, runs: np.ndarray, constants: Sequence[float], dtype: mstype.Type):
        width = scalars + int(runs[:, 1].sum())
        table, numbers = Tensor(runs, mstype.int32), Tensor(np.array(constants), dtype)
        super().__init__("gate", table, numbers, Tensor(np.zeros((1, width)), dtype))
