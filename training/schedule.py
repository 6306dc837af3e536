"""The learning rate as a function of the step.

A run of T steps warms up in the first W and cools down in the last C.  t counts from the end of the warm-up, and S =
T - W - C steps are the schedule's own.

| schedule    | rate of step t                                                                                        |
|-------------|-------------------------------------------------------------------------------------------------------|
| constant    | lr                                                                                                    |
| cosine      | half a cosine from lr to min_lr                                                                       |
| one_cycle   | half a cosine from lr / 25 to lr in ``warmup_fraction`` of the T - C steps, then half a cosine to     |
|             | lr / 250,000; W is not used                                                                           |
| exponential | lr decay_rate^(t / decay_steps)                                                                       |
| step        | lr decay_rate^floor(t / decay_steps)                                                                  |
| plateau     | lr decay_rate^reductions                                                                              |
| milestones  | lr decay_rate^(number of milestones m with t >= m S), m shares of 1, as torch's MultiStepLR           |

``physics_aware`` is the constant lr times a factor that changes after each epoch, see the function.

``one_cycle`` is that of Smith and Topin (arXiv 1708.07120) with the constants of torch's OneCycleLR, which takes a fall
of less than one step whole; a run of one step makes it at lr.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SCHEDULES = ("constant", "cosine", "one_cycle", "exponential", "step", "plateau", "physics_aware", "milestones")
SYMMETRY = 1e-4  # eV/Angstrom^2: of ``physics_aware``
HALVED, GROWTH = 0.5, 1.05


def learning_rate(
    name: str,
    step: int,
    total_steps: int,
    lr: float,
    *,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    decay_rate: float = 0.5,
    decay_steps: int = 10000,
    warmup_fraction: float = 0.3,
    cooldown_steps: int = 0,
    milestones: Sequence[float] = (),
    reductions: int = 0,
) -> float:
    """The learning rate of the update with number ``step`` (0 for the first) of ``total_steps``.

    Args:
        name: one of ``SCHEDULES``; see the module.
        step: updates made so far.
        total_steps: T, updates of the whole run.
        lr: the highest rate.
        warmup_steps, warmup_lr: W and the rate that the linear rise before the schedule starts from; ``one_cycle`` has
            a rise of its own.
        min_lr: lower bound after the warm-up.
        decay_rate, decay_steps, warmup_fraction, milestones: see the module.
        cooldown_steps: C, the last steps of the run, which are made at ``min_lr``.
        reductions: how often the plateau has lowered the rate so far.

    Raises:
        ValueError: unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}: expected one of {', '.join(SCHEDULES)}")
    total_steps = max(1, total_steps - cooldown_steps)
    if cooldown_steps and step >= total_steps:
        return min_lr
    if name != "one_cycle" and step < warmup_steps:
        return _mixed(lr, warmup_lr, (step + 1) / warmup_steps)
    past, rest = step - warmup_steps, max(1, total_steps - warmup_steps)
    if name == "one_cycle":
        rate = _one_cycle(step, total_steps, lr, warmup_fraction)
    elif name == "cosine":
        rate = _half_cosine(lr, min_lr, past / rest)
    else:
        rate = lr * decay_rate ** _decays(name, past, rest, decay_steps, milestones, reductions)
    return max(rate, min_lr)


def physics_aware(factor: float, asymmetry: float, better: bool) -> float:
    """The factor of the rate after an epoch: halved while force constants are not symmetric, else larger if it helps.

    Second derivatives of an energy are symmetric to rounding (3e-7 eV/Angstrom^2 of SchNet in float32 on the shipped
    crystals): of them only the growth is left.

    Args:
        factor: so far.
        asymmetry: largest difference |Phi_(i a)(j b) - Phi_(j b)(i a)| on the validation structures, eV/Angstrom^2.
        better: whether the epoch has the best validation score so far.
    """
    if asymmetry > SYMMETRY:
        return HALVED * factor
    return GROWTH * factor if better else factor


def _decays(name: str, past: int, rest: int, decay_steps: int, milestones: Sequence[float], reductions: int) -> float:
    """How often the rate has been multiplied with ``decay_rate`` after ``past`` of ``rest`` steps."""
    return {
        "constant": 0.0,
        "physics_aware": 0.0,  # of lr times its factor
        "exponential": past / decay_steps,
        "step": past // decay_steps,
        "plateau": reductions,
        # rounded: 0.7 of 10 steps are 7, though their product is a little more
        "milestones": sum(past >= round(share * rest, 6) for share in milestones),
    }[name]


def _one_cycle(step: int, total_steps: int, lr: float, warmup_fraction: float) -> float:
    """Rises until ``peak``, a step that need not be whole, and falls from there to the last."""
    peak, last = warmup_fraction * total_steps - 1, total_steps - 1
    if last == 0:
        return lr
    if step < peak:
        return _half_cosine(lr / 25.0, lr, step / peak)
    # a fall of less than one step would end the run at a rate of nothing
    return _half_cosine(lr, lr / 25.0 / 1e4, (step - peak) / max(1.0, last - peak))


def _half_cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` while ``share`` goes from 0 to 1."""
    return _mixed(start, end, 0.5 * (1.0 + math.cos(math.pi * min(1.0, share))))


def _mixed(first: float, second: float, share: float) -> float:
    """``share`` of the first and the rest of the second, never beyond either."""
    return min(max(first, second), max(min(first, second), share * first + (1.0 - share) * second))
