"""The schedules of the learning rate against their laws and torch's numbers, at every length of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.schedule import SCHEDULES, learning_rate
from training.state import Progress, Score

# torch 2.13: OneCycleLR(SGD([p], lr=1.0), max_lr=2e-3, total_steps=10), the rate before each step
TORCH_ONE_CYCLE = [
    7.999999999999999e-05, 0.0010400000000000001, 0.002, 0.0019009692640269472, 0.001623491307899526,
    0.0012225240438725783, 0.0007774839561274215, 0.00037651669210047396, 9.903873597305257e-05, 8e-09,
]  # fmt: skip


def test_one_cycle_is_torchs():
    found = [learning_rate("one_cycle", step, 10, 2e-3) for step in range(10)]
    np.testing.assert_allclose(found, TORCH_ONE_CYCLE, rtol=1e-12, atol=1e-18)


def test_cosine():
    found = [learning_rate("cosine", step, 8, 1.0, min_lr=0.2) for step in range(9)]
    np.testing.assert_allclose(found, 0.2 + 0.4 * (1 + np.cos(np.pi * np.arange(9) / 8)), rtol=1e-12)


def test_exponential_and_step():
    smooth = [learning_rate("exponential", step, 99, 1.0, decay_rate=0.25, decay_steps=4) for step in range(9)]
    np.testing.assert_allclose(smooth, 0.25 ** (np.arange(9) / 4), rtol=1e-12)
    stairs = [learning_rate("step", step, 99, 1.0, decay_rate=0.25, decay_steps=4) for step in range(9)]
    np.testing.assert_allclose(stairs, 0.25 ** (np.arange(9) // 4), rtol=1e-12)


def test_plateau_and_constant():
    found = [learning_rate("plateau", 5, 99, 1.0, decay_rate=0.5, reductions=count) for count in range(4)]
    assert found == [1.0, 0.5, 0.25, 0.125]
    assert {learning_rate("constant", step, 99, 0.3) for step in range(99)} == {0.3}


def test_physics_aware():
    """Halved while the asymmetry is above 1e-4, whether better or not; then 1.05 times at each improvement."""
    progress = Progress()
    schedule = {"name": "physics_aware"}
    epochs = [(5.0, 2e-4, 0.5), (6.0, 2e-4, 0.25), (4.0, 1e-4, 0.2625), (4.5, 0.0, 0.2625), (3.0, 0.0, 0.275625)]
    for value, asymmetry, expected in epochs:
        assert progress.compare(Score(value, (), asymmetry), schedule) == (value in (5.0, 4.0, 3.0))
        assert progress.factor == pytest.approx(expected)
        assert learning_rate("physics_aware", 9, 99, 2.0 * progress.factor) == 2.0 * progress.factor
    assert Progress.of(json.loads(json.dumps(vars(progress)))).factor == progress.factor, (
        "a resumed run goes on with it"
    )
    assert Progress.of({key: value for key, value in vars(Progress()).items() if key != "factor"}).factor == 1


def test_milestones_are_torchs():
    """As torch.optim.lr_scheduler.MultiStepLR: the rate falls at the step with the number of the milestone."""
    found = [learning_rate("milestones", step, 10, 1.0, decay_rate=0.1, milestones=[0.8, 0.9]) for step in range(10)]
    np.testing.assert_allclose(found, [1.0] * 8 + [0.1, 0.01], rtol=1e-12)
    assert learning_rate("milestones", 0, 10, 1.0) == 1.0


def torch_milestones(step, milestones, lr, rate):
    """The closed form of MultiStepLR: one factor for each milestone that is not beyond the step."""
    return lr * rate ** np.searchsorted(np.sort(milestones), step, side="right")


@pytest.mark.parametrize("shares", [[0.8, 0.9], [0.9, 0.8], [0.7], [0.1, 0.2, 0.3], [0.5, 0.5]])
def test_milestones_at_every_length(shares):
    """The rate falls at the first whole step that is not before the share, whatever the order of the milestones."""
    for total in range(1, 51):
        rates = [learning_rate("milestones", k, total, 1.0, decay_rate=0.1, milestones=shares) for k in range(total)]
        whole = [-(-round(share * 10) * total // 10) for share in shares]
        np.testing.assert_allclose(rates, [torch_milestones(k, whole, 1.0, 0.1) for k in range(total)], rtol=1e-12)
        assert rates[0] == 1.0


def test_milestones_count_between_warm_up_and_cool_down():
    settings = {"warmup_steps": 10, "cooldown_steps": 20, "milestones": [0.5], "decay_rate": 0.1, "min_lr": 1e-3}
    rates = [learning_rate("milestones", step, 130, 1.0, **settings) for step in range(130)]
    assert rates[59] == 1.0 and rates[60] == pytest.approx(0.1) and rates[109] == pytest.approx(0.1)
    assert set(rates[110:]) == {1e-3}


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one_cycle"])
def test_the_warm_up_rises_in_a_line_and_the_schedule_follows_it(name):
    settings = {"warmup_steps": 4, "warmup_lr": 0.2, "decay_steps": 3, "milestones": [0.5]}
    found = [learning_rate(name, step, 20, 1.0, **settings) for step in range(20)]
    np.testing.assert_allclose(found[:4], [0.4, 0.6, 0.8, 1.0], rtol=1e-12)
    without = [learning_rate(name, step, 16, 1.0, decay_steps=3, milestones=[0.5]) for step in range(16)]
    np.testing.assert_allclose(found[4:], without, rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_never_falls_below_its_minimum(name):
    settings = {"min_lr": 0.1, "decay_rate": 0.1, "decay_steps": 2, "reductions": 9, "milestones": [0.2, 0.4]}
    found = [learning_rate(name, step, 40, 1.0, **settings) for step in range(45)]
    assert min(found) >= 0.1 and max(found) <= 1.0


FRACTIONS = (0, 0.1, 0.3, 0.5, 1)


def shapes_of(name, total):
    """Warm-ups and cool-downs from none to more than the run; ``one_cycle`` has a warm-up of its own."""
    lengths = {0, 1, 2, total // 2, total - 1, total, total + 2}
    for warmup in lengths if name != "one_cycle" else (0, 3):
        for cooldown in lengths:
            for fraction in FRACTIONS if name == "one_cycle" else (0.3,):
                yield {"warmup_steps": warmup, "cooldown_steps": cooldown, "warmup_fraction": fraction}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_length_has_a_rate(name):
    """Between 0 and the highest for every step of every run, and in each run one that is not next to nothing."""
    lr, numbers = 1e-3, {"decay_rate": 0.1, "decay_steps": 2, "reductions": 1, "milestones": [0.5]}
    for total in range(1, 51):
        for shape in shapes_of(name, total):
            for least in (0.0, 1e-5, lr):
                rates = [learning_rate(name, k, total, lr, min_lr=least, **shape, **numbers) for k in range(total)]
                assert all(0 <= rate <= lr for rate in rates), (total, shape)
                begun = 0 if name == "one_cycle" else shape["warmup_steps"]
                assert min(rates[begun:], default=least) >= least, (total, shape)
                assert max(rates) >= lr / 100, (total, shape)


def torch_one_cycle(step, total, lr, fraction):
    """As torch.optim.lr_scheduler.OneCycleLR.get_lr computes it, with its defaults."""
    phases = [(fraction * total - 1, lr / 25, lr), (total - 1, lr, lr / 25 / 1e4)]
    begin = 0
    for number, (end, first, last) in enumerate(phases):
        if step <= end or number == 1:
            return last + (first - last) / 2 * (1 + np.cos(np.pi * (step - begin) / (end - begin)))
        begin = end


def test_one_cycle_is_torchs_at_every_length():
    """Where torch divides by zero the first step is the peak; where its fall takes less than a step, ours takes one."""
    for step, expected in enumerate(TORCH_ONE_CYCLE):
        assert torch_one_cycle(step, 10, 2e-3, 0.3) == pytest.approx(expected, rel=1e-12, abs=1e-18)
    for total in range(1, 51):
        for fraction in FRACTIONS:
            rates = [learning_rate("one_cycle", step, total, 1.0, warmup_fraction=fraction) for step in range(total)]
            peak = fraction * total - 1
            if total == 1 or peak == 0:
                assert rates[0] == 1.0
            elif fraction == 1 or total * (1 - fraction) >= 1:
                expected = [torch_one_cycle(step, total, 1.0, fraction) for step in range(total)]
                np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-15)
            if peak >= 0 and peak == round(peak):
                assert rates[round(peak)] == max(rates) == pytest.approx(1.0, rel=1e-12)


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="expected one of constant, cosine"):
        learning_rate("linear", 0, 1, 1.0)


def test_one_cycle_whose_rise_is_one_step_begins_at_its_top():
    """The warm-up of 0.1 of 10 steps has no length to divide by."""
    rates = [learning_rate("one_cycle", step, 10, 2e-3, warmup_fraction=0.1) for step in range(10)]
    assert rates[0] == 2e-3 and rates == sorted(rates, reverse=True)
