"""Predictions of a model in the target's unit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mindspore import nn

from data_tools.graph import Budget
from data_tools.graphs.loader import evaluation_batches, evaluation_budget, fitted_batch
from data_tools.graphs.neighbors import ragged_range
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import Normalizer, element_counts
from data_tools.tables import cell_volumes
from experiment.data import DTYPES
from training.distributed import Ranks
from training.step import EvaluationStep, predict, to_tensors


class Predictions(NamedTuple):
    """What a model says of M structures with A atoms in all.

    Attributes:
        values: (M,) float64 in the target's unit.
        embeddings: (M, F).
        forces: (A, 3) float64 in the target's unit per Angstrom; None where they were not asked for.
        stress: (M, 3, 3) float64 in the target's unit per Angstrom^3, positive in tension, NaN for molecules; None
            where it was not asked for.
    """

    values: np.ndarray
    embeddings: np.ndarray
    forces: np.ndarray | None
    stress: np.ndarray | None = None


class Evaluator:
    """Predictions of a model in the target's unit, by one compiled graph for all the sets it is made for.

    Args:
        model: the network.
        packed: graphs with the model's cutoff, and triplets if it uses them; see ``for_model``.
        sets: the rows it will be asked for.
        normalizer: takes outputs to the target's unit.
        batch_size: the most molecules in a batch.
        dtype: float32 or float64.
        ranks: processes that share the work; all of them get the result.
        forces: whether to predict forces too.
        stress: whether to predict stress too.
    """

    def __init__(
        self,
        model: nn.Cell,
        packed: PackedGraphs,
        sets: list[np.ndarray],
        normalizer: Normalizer,
        batch_size: int,
        dtype: str,
        ranks: Ranks = Ranks(),  # noqa: B008  a frozen constant
        forces: bool = False,
        stress: bool = False,
    ):
        self.step = EvaluationStep(model, [*(["forces"] if forces else []), *(["virial"] if stress else [])])
        self.forces, self.stress = forces, stress
        self.packed, self.normalizer, self.batch_size, self.dtype = packed, normalizer, batch_size, DTYPES[dtype]
        self.ranks = ranks
        self.budget: Budget = evaluation_budget(packed, sets, batch_size)

    def compile(self) -> None:
        """Compile, or find out that it cannot be compiled, before there is anything to evaluate."""
        nothing = fitted_batch(self.packed, np.zeros(0, np.int64), [self.budget], None, self.dtype)
        self.step(*to_tensors(nothing.inputs))

    def __call__(self, rows: np.ndarray) -> Predictions:
        """Predictions in the order of ``rows``; processes share the work."""
        batches = evaluation_batches(
            self.packed, rows, self.batch_size, self.dtype, self.budget, self.ranks.rank, self.ranks.size
        )
        places, outputs, embeddings, forces, virials = predict(self.step, batches)
        # the first process has a batch in any case, so it knows the size of an embedding
        features = int(self.ranks.sum(np.array([embeddings.shape[1] * self.ranks.is_main], np.float32))[0])
        values = np.zeros((len(rows), 1 + features))
        if len(places):
            values[places, 0], values[places, 1:] = outputs, embeddings
        values = self.ranks.sum(values)
        table = self.packed.table
        counts = element_counts(table.numbers, table.n_atoms)[rows]
        return Predictions(
            self.normalizer.invert(values[:, 0], counts),
            values[:, 1:].astype(embeddings.dtype),
            self._all_forces(rows, places, forces) if self.forces else None,
            self._all_stresses(rows, places, virials) if self.stress else None,
        )

    def _all_forces(self, rows: np.ndarray, places: np.ndarray, forces: np.ndarray) -> np.ndarray:
        """(A, 3) forces of all rows from those of this process's structures, which stand at ``places``."""
        n_atoms = self.packed.table.n_atoms[rows]
        starts = np.cumsum(n_atoms) - n_atoms
        result = np.zeros((int(n_atoms.sum()), 3))
        result[ragged_range(starts[places], n_atoms[places])] = forces * self.normalizer.scale
        return self.ranks.sum(result)

    def _all_stresses(self, rows: np.ndarray, places: np.ndarray, virials: np.ndarray) -> np.ndarray:
        """(M, 3, 3) stress of all rows from the virials of this process's structures, which stand at ``places``."""
        result = np.zeros((len(rows), 3, 3))
        result[places] = -virials * self.normalizer.scale
        return self.ranks.sum(result) / cell_volumes(self.packed.table)[rows, None, None]
