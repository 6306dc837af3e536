"""The loss scale that keeps small float16 gradients from vanishing."""

from __future__ import annotations

from dataclasses import dataclass

#: what a run can choose
LOSS_SCALES = ("none", "dynamic")


@dataclass
class LossScale:
    """A dynamic loss scale (Micikevicius et al., ICLR 2018, section 3.2); JSON-able, part of a run's progress.

    A step that is not finite is skipped and the scale halved; after ``GROWTH_STEPS`` finite steps in a row it doubles.
    Powers of two change no digit of a gradient.

    Attributes:
        value: what the loss is multiplied with.
        finite_steps: made since the last change.
        skipped: steps so far that changed nothing.
    """

    START = 2.0**15
    LARGEST = 2.0**24
    GROWTH_STEPS = 2000

    value: float = START
    finite_steps: int = 0
    skipped: int = 0

    def update(self, finite: bool) -> None:
        """Count a step and adapt the scale."""
        if not finite:
            self.value, self.finite_steps, self.skipped = self.value / 2, 0, self.skipped + 1
            return
        self.finite_steps += 1
        if self.finite_steps >= self.GROWTH_STEPS and self.value < self.LARGEST:
            self.value, self.finite_steps = self.value * 2, 0
