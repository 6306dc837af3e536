"""Weights that other programs keep as one flat vector, taken to the matrices that products need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.e3.layout import split_and_join


class _SparseSum(nn.Cell):
    """y_j = sum_k f_kj w[i_kj] with few terms k; its gradient is another such sum.

    The gradient of a Gather would be a scatter of single numbers, which is slow.
    """

    def __init__(self, index: np.ndarray, factors: np.ndarray, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.index = tuple(Tensor(row, mstype.int32) for row in index)
        self.factors = tuple(None if np.all(row == 1) else Tensor(row, dtype) for row in factors)
        self.gather, self.add = ops.Gather(), ops.AddN()
        self.gradient: tuple = ()

    def construct(self, weights: Tensor) -> Tensor:
        """(M, numel) to (M, n)."""
        terms: tuple = ()
        for k in range(len(self.index)):
            term = self.gather(weights, self.index[k], 1)
            terms = (*terms, term if self.factors[k] is None else term * self.factors[k])
        return self.add(terms) if len(terms) > 1 else terms[0]

    def bprop(self, weights: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The transpose."""
        return (self.gradient[0](dout),)


def _transposed(index: np.ndarray, factors: np.ndarray, numel: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and factors of the transpose, (K', numel)."""
    used = np.argwhere(factors != 0)  # (k, j)
    target = index[used[:, 0], used[:, 1]]
    order = np.argsort(target, kind="stable")
    used, target = used[order], target[order]
    first = np.searchsorted(target, np.arange(numel))
    rank = np.arange(len(target)) - first[target]
    result = np.zeros((int(rank.max()) + 1, numel), np.int64)
    scaled = np.zeros(result.shape)
    result[rank, target] = used[:, 1]
    scaled[rank, target] = factors[used[:, 0], used[:, 1]]
    return result, scaled


class WeightMap(nn.Cell):
    """Matrices whose elements are sums of few weights of a flat vector, each with a factor.

    Args:
        numel: length of the vector.
        index: of each matrix (K, outputs, inputs), which weights its elements are made of.
        factors: as ``index``, what each is multiplied with; 0 where there is none.
        dtype: of the weights.
    """

    def __init__(self, numel: int, index: Sequence[np.ndarray], factors: Sequence[np.ndarray], dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        terms = max(len(one) for one in index)
        which, scale = (np.concatenate([_padded(one, terms) for one in arrays], 1) for arrays in (index, factors))
        self.map = _SparseSum(which, scale, dtype)
        transpose = _SparseSum(*_transposed(which, scale, numel), dtype)
        self.map.gradient, transpose.gradient = (transpose,), (self.map,)
        self.shapes = tuple((-1, *one.shape[1:]) for one in index)
        self.split, _ = split_and_join([one[0].size for one in index])

    def construct(self, weights: Tensor) -> tuple:
        """(M, numel) to matrices (M, outputs, inputs)."""
        parts = self.split(self.map(weights))
        matrices: tuple = ()
        for k in range(len(self.shapes)):
            matrices = (*matrices, parts[k].reshape(self.shapes[k]))
        return matrices


def _padded(terms: np.ndarray, count: int) -> np.ndarray:
    """(K, ...) to (count, n), with zeros for the terms that are missing."""
    flat = terms.reshape(len(terms), -1)
    return np.concatenate([flat, np.zeros((count - len(flat), flat.shape[1]), flat.dtype)])
