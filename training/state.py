"""Where a run stands, and what its loop asks of the training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_tools.graph import GraphBatch
from training.schedule import physics_aware

#: columns of the history as earlier versions have called them
FORMER_COLUMNS = {"molecules_per_second": "structures_per_second"}


class Batch(Protocol):
    """One training batch (``data_tools.graphs.loader.Batch``)."""

    @property
    def part(self) -> GraphBatch:
        """What this process gets of it."""

    @property
    def rows(self) -> np.ndarray:
        """The rows of all its molecules."""

    @property
    def known(self) -> dict[str, int]:
        """How many numbers of each target are known."""


class Batches(Protocol):
    """What the loop needs of the training data (``data_tools.graphs.loader.TrainingBatches``)."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on, in its order."""

    def names(self, rows: np.ndarray) -> str:
        """The names of the structures of some rows, for messages."""

    def ghost_batches(self) -> Iterator[GraphBatch]:
        """One batch without real graphs per shape."""


class Quantity(NamedTuple):
    """Something whose mean absolute error is watched.

    Attributes:
        name: what the log puts before MAE, empty or ``force ``.
        key: what the columns of metrics.csv are called: ``mae``, ``force_mae`` or ``stress_mae``, in the unit of the
            target, in eV/Angstrom and in eV/Angstrom^3.
        unit: that the log shows.
        factor: so many of them in the project's unit.
    """

    name: str
    key: str
    unit: str
    factor: float = 1.0


def errors_in_words(part: str, quantities: Sequence[Quantity], errors: Sequence[float], colon: str = "") -> str:
    """``train energy MAE 4.1000 meV  train force MAE 21.0000 meV/A``; ``colon`` stands behind MAE."""
    return "  ".join(
        f"{part} {quantity.name}MAE{colon} {error * quantity.factor:.4f} {quantity.unit}"
        for quantity, error in zip(quantities, errors, strict=True)
    )


def error_columns(part: str, quantities: Sequence[Quantity], errors: Sequence[float]) -> dict[str, float]:
    """The same as columns of metrics.csv."""
    return {f"{part}_{quantity.key}": error for quantity, error in zip(quantities, errors, strict=True)}


class Score(NamedTuple):
    """How good a model is on the validation molecules.

    Attributes:
        value: what the best model has least of: the MAE, of several quantities their sum weighted as in the loss.
        errors: MAE of each quantity in its unit.
        asymmetry: largest of predicted force constants, eV/Angstrom^2.
    """

    value: float
    errors: tuple[float, ...]
    asymmetry: float = 0.0


@dataclass
class Progress:
    """Where a run stands; JSON-able, so that a resumed run continues from it.

    Attributes:
        epoch: finished epochs.
        step: updates made.
        position: batches of the current epoch that are done; with ``epoch`` and the seed this is all that the order of
            structures depends on.
        sums: of the current epoch's ``Meter``; empty at its start.
        seconds: spent in the current epoch.
        best_epoch, best_score: of the best model on the validation structures; see ``Score``.
        reductions: how often the plateau schedule has lowered the rate.
        factor: of the rate, of the schedule physics_aware.
        epochs_since_better: for the plateau and the early stop.
        loss_scale: fields of the ``LossScale``; empty without one.
        history: one row an epoch.
    """

    epoch: int = 0
    step: int = 0
    position: int = 0
    sums: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best_epoch: int = -1
    best_score: float = float("inf")
    reductions: int = 0
    factor: float = 1.0
    epochs_since_better: int = 0
    loss_scale: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Progress:
        """From what a checkpoint keeps."""
        history = [{FORMER_COLUMNS.get(key, key): value for key, value in row.items()} for row in content["history"]]
        return cls(**{**content, "history": history})

    def compare(self, score: Score, schedule: dict[str, Any]) -> bool:
        """Note how good the model is after an epoch, and what the schedule makes of it; returns whether it is the best.

        Args:
            score: on the validation structures.
            schedule: the section of the configuration.
        """
        better = score.value < self.best_score
        if better:
            self.best_score, self.best_epoch, self.epochs_since_better = score.value, self.epoch, 0
        else:
            self.epochs_since_better += 1
            if schedule["name"] == "plateau" and self.epochs_since_better % max(1, schedule["patience"]) == 0:
                self.reductions += 1
        if schedule["name"] == "physics_aware":
            self.factor = physics_aware(self.factor, score.asymmetry, better)
        return better

    def begin_epoch(self) -> None:
        """Nothing of the current epoch is done yet."""
        self.position, self.sums, self.seconds = 0, [], 0.0
