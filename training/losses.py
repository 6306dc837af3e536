"""Masked losses on standardised labels; loss and metric are the same functions.

Three kinds of error, each with the shape of the prediction: of single numbers or vectors (``ERRORS``), of all that is
known of a structure, given to each of its numbers (``STRUCTURE_ERRORS``), and ``frequency``, which is ``norm`` after
prediction and label have been multiplied with the weights of the atoms that make the mass-weighted product of them.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from models.graph_ops import gather, segment_sum

SMALLEST = 1e-12  # below every error: the slope of the root stays finite
TINY = 1e-24  # the same for the square of a norm that is divided by
FLOOR = 2.0**-7  # of an error on its own scale, in standardised units; exact in float32
FREQUENCY = "frequency"


class _MaskedSum(nn.Cell):
    """Sum of values where a mask is 1; the gradient is one product, where that of a sum spreads a number first."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.zeros = ops.ZerosLike()

    def construct(self, values: Tensor, mask: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar."""
        return (values * mask).sum()

    def bprop(self, values: Tensor, mask: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """Only what is summed has a gradient; a mask is given."""
        return mask * dout, self.zeros(mask)


_masked_sum = _MaskedSum()


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``values`` where ``mask``, of the same shape, is 1; 0 for a batch of ghosts."""
    return _masked_sum(values, mask)


def absolute_error(prediction: Tensor, label: Tensor) -> Tensor:
    """|prediction - label|, elementwise."""
    return ops.abs(prediction - label)


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """(prediction - label)^2, elementwise; written as a product because that is right to third order."""
    difference = prediction - label
    return difference * difference


def huber_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Half the square up to 1, linear beyond (Huber 1964), elementwise."""
    size = ops.abs(prediction - label)
    inner = ops.minimum(size, ops.ones_like(size))
    return inner * (size - inner / 2)


def norm_error(prediction: Tensor, label: Tensor) -> Tensor:
    """|x_n - y_n| / sqrt(D) of vectors of D numbers, the last axis, for each of them; the absolute error of a number.

    The mean over them is the length of the error, in units of that of equal components.  Where a part of a vector is
    not known, both hold 0 there.
    """
    if prediction.ndim < 2:
        return absolute_error(prediction, label)
    difference = prediction - label
    squares = (difference * difference).sum(-1, keepdims=True) / difference.shape[-1]
    return ops.sqrt(squares + SMALLEST) * ops.ones_like(difference)


def adaptive_error(prediction: Tensor, label: Tensor, counted: Tensor, owners: tuple) -> Tensor:
    """log(1 + e_g / FLOOR), where e_g is the mean of ``norm_error`` over what is known of the structure g.

    The gradient is that of e_g divided by e_g itself: each structure, and each term of a loss, is weighted by the size
    of its own error.  It is the Laplace likelihood e / b + log b at the width b = e that is the most likely, where
    Kendall, Gal and Cipolla (CVPR 2018) learn one width for each term.
    """
    known = structure_sums(counted, owners)
    sums = structure_sums(norm_error(prediction, label) * counted, owners)
    return _spread(ops.log(sums / ops.maximum(known, ops.ones_like(known)) / FLOOR + 1), prediction)


def frobenius_norm_error(prediction: Tensor, label: Tensor, counted: Tensor, owners: tuple) -> Tensor:
    """| |x_g| - |y_g| | / |y_g| of all numbers x and y of a structure g: a control, blind to signs and directions.

    0 where nothing is known; ``physics.matrix_losses`` has the same for whole matrices.
    """
    size, published = (ops.sqrt(structure_sums(one * one, owners) + TINY) for one in (prediction, label))
    return _spread(ops.abs(size - published) / published, prediction)


def structure_sums(values: Tensor, owners: tuple) -> Tensor:
    """Sum of the numbers of each structure, beside each of its rows.

    Args:
        values: (R, ...), a row for each atom or each structure.
        owners: of atoms, the structure of each (N,) and a tensor with a row for each structure; else empty.

    Returns:
        (R, 1).
    """
    sums = values.reshape(values.shape[0], -1).sum(-1, keepdims=True)
    if len(owners) == 0:
        return sums
    return gather(segment_sum(sums, owners[0], owners[1]), owners[0])


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """A number of each row (R, 1) for each number of the row, in the shape of another tensor (R, ...)."""
    return (values * ops.ones_like(like.reshape(like.shape[0], -1))).reshape(like.shape)


ERRORS = {"mse": squared_error, "mae": absolute_error, "huber": huber_error, "norm": norm_error}
STRUCTURE_ERRORS = {"adaptive": adaptive_error, "frobenius_norm": frobenius_norm_error}
LOSSES = (*ERRORS, *STRUCTURE_ERRORS, FREQUENCY)
OF_PRODUCTS = (FREQUENCY, "frobenius_norm")  # what is learned beside such a loss has ``norm``
