"""The state of the optimiser as checkpoints keep it: one array for each weight."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from test_optimizer import gradients, make, start

from training.device import MODES
from training.optimizer import average_of, moments_of, set_state


def test_the_state_for_checkpoints_is_named_after_the_weights():
    _, optimizer, _ = make(start())
    assert set(moments_of(optimizer)) == {"first.weight0", "first.weight1", "second.weight0", "second.weight1"}


@pytest.mark.parametrize("kind", MODES)
def test_the_state_comes_back_for_each_weight(kind, same_mode):
    ms.set_context(mode=MODES[kind])
    _, optimizer, update = make(start(), ema_decay=0.9, amsgrad=True)
    for step_gradients in gradients(3):
        update(step_gradients)
    moments, average = moments_of(optimizer), average_of(optimizer)
    assert moments["largest.weight0"].shape == (4, 3) and average["weight1"].shape == (5,)
    _, other, _ = make(start(), ema_decay=0.9, amsgrad=True)
    assert not set_state(other, moments, average)
    for name, part in {**moments_of(other), **average_of(other)}.items():
        np.testing.assert_array_equal(part, {**moments, **average}[name])


def test_a_state_that_does_not_fit_changes_nothing():
    _, optimizer, _ = make(start(), ema_decay=0.9)
    moments, average = moments_of(optimizer), average_of(optimizer)
    changed = {name: part + 1 for name, part in moments.items()}
    assert set_state(optimizer, changed, {}) == ["average.weight0", "average.weight1"]
    assert set_state(optimizer, {**changed, "second.weight1": np.zeros(1)}, average) == ["second.weight1"]
    for name, part in moments_of(optimizer).items():
        np.testing.assert_array_equal(part, moments[name])
