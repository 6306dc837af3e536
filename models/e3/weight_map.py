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

    Args:
        index, factors: (K, n) i and f.
        axis: of the numbers in w.
        summed: axes of the terms that are summed, after the Gather; none for one term.
        keep_dims: whether the summed axes stay.
        dtype: of w.
    """

    def __init__(
        self,
        index: np.ndarray,
        factors: np.ndarray,
        axis: int,
        summed: tuple[int, ...],
        keep_dims: bool,
        dtype: mstype.Type,
    ):
        super().__init__(auto_prefix=False)
        self.index, self.axis, self.summed = Tensor(index, mstype.int32), axis, summed
        self.factors = None if np.all(factors == 1) else Tensor(factors, dtype)
        self.gather, self.sum = ops.Gather(), ops.ReduceSum(keep_dims)
        self.gradient: tuple = ()

    def construct(self, weights: Tensor) -> Tensor:
        """(M, numel) to (M, n), or one row of either as a vector."""
        terms = self.gather(weights, self.index, self.axis)  # (M, K, n), or (K, n) of a vector
        if self.factors is not None:
            terms = terms * self.factors
        return self.sum(terms, self.summed) if self.summed else terms

    def bprop(self, weights: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """The transpose."""
        return (self.gradient[0](dout),)


def _sparse_sums(index: np.ndarray, factors: np.ndarray, numel: int, dtype: mstype.Type) -> tuple[nn.Cell, nn.Cell]:
    """The sums of a vector (numel,), as one row (1, n), and those of rows (M, numel), (M, n)."""
    back = _transposed(index, factors, numel)
    several = (0,) if len(index) > 1 else ()
    of_vector, to_vector = (
        _SparseSum(index, factors, 0, several, True, dtype), _SparseSum(*back, 1, (0, 1), False, dtype)
    )  # fmt: skip
    of_rows, to_rows = (_SparseSum(*both, 1, (1,), False, dtype) for both in ((index, factors), back))
    for one, other in ((of_vector, to_vector), (of_rows, to_rows)):
        # in tuples, for a cell that owns the other as its part would own itself
        one.gradient, other.gradient = (other,), (one,)
    return of_vector, of_rows


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
        self.of_vector, self.of_rows = _sparse_sums(which, scale, numel, dtype)
        self.shapes = tuple((-1, *one.shape[1:]) for one in index)
        self.split, _ = split_and_join([one[0].size for one in index])

    def construct(self, weights: Tensor) -> tuple:
        """(M, numel) to matrices (M, outputs, inputs), or (numel,) to matrices (outputs, inputs)."""
        alone = weights.ndim == 1
        parts = self.split(self.of_vector(weights) if alone else self.of_rows(weights))
        matrices: tuple = ()
        for k in range(len(self.shapes)):
            matrices = (*matrices, parts[k].reshape(self.shapes[k][1:] if alone else self.shapes[k]))
        return matrices


def _padded(terms: np.ndarray, count: int) -> np.ndarray:
    """(K, ...) to (count, n), with zeros for the terms that are missing."""
    flat = terms.reshape(len(terms), -1)
    return np.concatenate([flat, np.zeros((count - len(flat), flat.shape[1]), flat.dtype)])
