"""Weights that other programs keep as one flat vector, taken to the matrices that products need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype


class _Sums(nn.Cell):
    """What y_j = sum_k f_kj w[i_kj] with few terms k needs; an own method for it cannot be differentiated twice.

    Args:
        index, factors: (K, ...) i and f, of several y.
        axis: of the numbers in w.
        dtype: of w.
    """

    def __init__(self, index: Sequence[np.ndarray], factors: Sequence[np.ndarray], axis: int, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.alone, self.axis = tuple(len(one) == 1 for one in index), axis
        index, factors = ([one[0] if len(one) == 1 else one for one in arrays] for arrays in (index, factors))
        self.index = tuple(Tensor(one, mstype.int32) for one in index)
        self.factors = tuple(None if np.all(one == 1) else Tensor(one, dtype) for one in factors)
        self.gather, self.sum = ops.Gather(), ops.ReduceSum()
        self.gradient: tuple = ()


class _Matrices(_Sums):
    """All matrices of a vector, or of rows; the gradient of a Gather would be a scatter of single numbers, slow.

    This cell and ``_Vector`` are each other's gradient.

    Args: as those of ``_Sums``, with axis 0 for a vector and 1 for rows.
    """

    def construct(self, weights: Tensor) -> tuple:
        """(numel,) to matrices (outputs, inputs), or (M, numel) to (M, outputs, inputs)."""
        matrices: tuple = ()
        for k in range(len(self.index)):
            terms = self.gather(weights, self.index[k], self.axis)  # (K, outputs, inputs), or (M, K, outputs, inputs)
            if self.factors[k] is not None:
                terms = terms * self.factors[k]
            matrices = (*matrices, terms if self.alone[k] else self.sum(terms, self.axis))
        return matrices

    def bprop(self, weights: Tensor, out: tuple, dout: tuple) -> tuple:
        """The transpose; in PYNATIVE mode the gradient of one matrix alone is no tuple."""
        return (self.gradient[0](dout if isinstance(dout, tuple) else (dout,)),)


class _Vector(_Sums):
    """The gradient of the weights from those of all matrices; see ``_Matrices``.

    Args:
        index, factors: (K, numel) of the transpose, in all matrices flat.
        axis, dtype: as those of ``_Sums``.
    """

    def __init__(self, index: np.ndarray, factors: np.ndarray, axis: int, dtype: mstype.Type):
        super().__init__([index], [factors], axis, dtype)
        self.concat, self.by_row = ops.Concat(-1), axis == 1

    def construct(self, matrices: tuple) -> Tensor:
        """Matrices to the weights."""
        parts: tuple = ()
        for one in matrices:
            parts = (*parts, one.reshape(one.shape[0], -1) if self.by_row else one.reshape(-1))
        terms = self.gather(self.concat(parts) if len(parts) > 1 else parts[0], self.index[0], self.axis)
        if self.factors[0] is not None:
            terms = terms * self.factors[0]
        return terms if self.alone[0] else self.sum(terms, self.axis)

    def bprop(self, matrices: tuple, out: Tensor, dout: Tensor) -> tuple:
        """The matrices again."""
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
        transpose = _transposed(which, scale, numel)
        self.of_vector, self.of_rows = (_Matrices(index, factors, axis, dtype) for axis in (0, 1))
        for axis, one in enumerate((self.of_vector, self.of_rows)):
            back = _Vector(*transpose, axis, dtype)
            # in tuples, for a cell that owns the other as its part would own itself
            one.gradient, back.gradient = (back,), (one,)

    def construct(self, weights: Tensor) -> tuple:
        """(numel,) to matrices (outputs, inputs), or (M, numel) to (M, outputs, inputs)."""
        return self.of_vector(weights) if weights.ndim == 1 else self.of_rows(weights)


def _padded(terms: np.ndarray, count: int) -> np.ndarray:
    """(K, ...) to (count, n), with zeros for the terms that are missing."""
    flat = terms.reshape(len(terms), -1)
    return np.concatenate([flat, np.zeros((count - len(flat), flat.shape[1]), flat.dtype)])
