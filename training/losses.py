"""Masked losses on standardised labels; loss and metric are the same functions."""

from __future__ import annotations

from mindspore import Tensor, ops

LOSSES = ("mse", "mae", "huber")


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``values`` (G,) where ``mask`` (G,) is 1; 0 for a batch of ghosts."""
    return (values * mask).sum()


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


ERRORS = {"mse": squared_error, "mae": absolute_error, "huber": huber_error}
