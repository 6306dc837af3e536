"""Decay of matrices alone: the law of AdamW with two groups of weights."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from adamw_law import SETTINGS, STEPS, gradients, make, reference, start

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}
DTYPES = ("float32", "float64")


@pytest.fixture(params=MODES)
def mode(request, same_mode):
    ms.set_context(mode=MODES[request.param])
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_only_matrices_decay(mode, dtype, amsgrad):
    """The gradients are small, so that the decay is most of what a matrix moves, and a row would show any of it."""
    settings = SETTINGS | {"weight_decay": 10.0, "epsilon": 1e-3}
    weights, small = start(dtype), [[1e-3 * part for part in parts] for parts in gradients(STEPS, dtype)]
    _, _, update = make(weights, amsgrad=amsgrad, decay_on="matrices", **settings)
    if amsgrad:  # with gradients of one size the largest second moment is the present one
        small = [[np.full_like(part, 1e-3) for part in parts] for parts in small]
    expected = reference(weights, small, **settings, decay_on="matrices")
    rounding = np.finfo(dtype).eps
    for step, (step_gradients, (law, path)) in enumerate(zip(small, expected, strict=True), 1):
        for ours, theirs, length, weight in zip(update(step_gradients), law, path, weights, strict=True):
            allowed = 2e-6 * length + 2 * step * rounding * (np.abs(weight) + length)
            assert np.all(np.abs(ours - theirs) <= allowed), step
    ((_, with_decay), *_) = [law for law, _ in reference(weights, small[:1], **settings)]
    assert np.abs(with_decay - weights[1]).max() > 1e-4  # what the row would have moved


def test_decay_on_matrices_alone_is_decay_on_all(mode):
    """Where every weight is a matrix nothing is added to the graph, and no digit changes."""
    weights = [weight.reshape(-1, 1) for weight in start("float32")]
    given = [[part.reshape(-1, 1) for part in parts] for parts in gradients(3, "float32")]
    (_, first, one), (_, second, other) = make(weights), make(weights, decay_on="matrices")
    assert first.decays is None and second.decays is None
    for step_gradients in given:
        for ours, theirs in zip(one(step_gradients), other(step_gradients), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_unknown_kind_of_decay():
    with pytest.raises(ValueError, match="expected one of all, matrices"):
        make(start(), decay_on="biases")
