"""Networks that are alike, compiled once: the weights of one model after the other are put into the same network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from data_tools.graphs.packed import PackedGraphs
from experiment.evaluation import evaluator_of
from experiment.evaluation.evaluator import Evaluator
from experiment.model import build_single
from experiment.trained import Trained
from training.device import random_state_kept
from training.step import EvaluationStep
from training.weights import assign, parameters_of


class SharedNetworks:
    """A compiled step for each kind of network that was asked for; the networks of the models stay as they are."""

    def __init__(self) -> None:
        self._steps: dict[tuple, EvaluationStep] = {}

    def evaluator(
        self, trained: Trained, quantities: Collection[str], packed: PackedGraphs, sets: Sequence[np.ndarray]
    ) -> Evaluator:
        """Predictions of a model, until another one is asked for.

        Args:
            trained: the model.
            quantities: what is predicted, see ``experiment.evaluation.evaluator``.
            packed: graphs with its cutoff, and triplets if it uses them.
            sets: rows that share one static shape.
        """
        config = trained.config
        found = evaluator_of(
            config, quantities, trained.model, trained.normalizer, packed, list(sets), chosen=trained.chosen
        )
        key = trained.kind, found.step.wanted
        if key not in self._steps:
            with random_state_kept():
                network = build_single(config, trained.network_task)
            self._steps[key] = EvaluationStep(network, found.step.wanted)
        found.step = self._steps[key]
        assign(found.step.model, parameters_of(trained.model), str(trained.file))
        return found
