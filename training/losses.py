"""Masked losses on standardised labels; loss and metric are the same functions."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

SMALLEST = 1e-12  # below every error: the slope of the root stays finite
LOSSES = ("mse", "mae", "huber", "norm")


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


ERRORS = {"mse": squared_error, "mae": absolute_error, "huber": huber_error, "norm": norm_error}
