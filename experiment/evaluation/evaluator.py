"""Predictions of a model in the target's unit, and the labels that they are measured against."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mindspore import nn

from data_tools.dataset import Dataset
from data_tools.graph import Budget, StructureTable
from data_tools.graphs.loader import evaluation_batches, evaluation_budget, fitted_batch
from data_tools.graphs.neighbors import ragged_range
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import Normalizer, element_counts
from data_tools.tables import cell_volumes, name_of_row
from experiment.data import DTYPES
from training.distributed import Ranks
from training.meter import LossError
from training.objective import OBSERVED
from training.step import EvaluationStep, predict, to_tensors

#: quantities; the value of a structure is called energy whatever the target is
ENERGY, FORCES, STRESS = "energy", "forces", "stress"


@dataclass(frozen=True)
class Labelled:
    """Labelled structures, and what trivial baselines are fitted on.

    Attributes:
        packed: graphs with the model's cutoff, and triplets if it uses them; see ``for_model``.
        labels: (M,) in the target's unit under the task's definition, NaN where there is none.
        elements: atomic numbers of the training structures.
        training: (K,) labels and (K, 119) element counts of the training structures; None where they are not known.
        learned_from: a table and its (K,) training rows; None where they are not known.
        parts: where several tasks share a network, what belongs to each of them.
    """

    packed: PackedGraphs
    labels: np.ndarray
    elements: list[int]
    training: tuple[np.ndarray, np.ndarray] | None
    learned_from: tuple[StructureTable, np.ndarray] | None = None
    parts: tuple[Labelled, ...] = ()

    @property
    def every(self) -> tuple[Labelled, ...]:
        """What belongs to each task."""
        return self.parts or (self,)

    @property
    def has_label(self) -> np.ndarray:
        """(M,) bool: which structures have a label, of any of the tasks."""
        return np.isfinite([part.labels for part in self.every]).any(axis=0)

    @classmethod
    def of(cls, dataset: Dataset) -> Labelled:
        """Those of a data set, whose training structures are at hand."""
        labels = [part.labels for part in dataset.every]
        return cls.beside(dataset, dataset.packed, labels, dataset.train_elements)

    @classmethod
    def beside(
        cls, dataset: Dataset | None, packed: PackedGraphs, labels: Sequence[np.ndarray], elements: list[int]
    ) -> Labelled:
        """Structures beside the data set that a model was trained on, where it is at hand.

        Args:
            dataset: that data set.
            packed: the structures.
            labels: (M,) of each task.
            elements: atomic numbers of the training structures.
        """
        datasets = [None] * len(labels) if dataset is None else dataset.every
        parts = [cls._of_task(one, packed, values, elements) for one, values in zip(datasets, labels, strict=True)]
        return parts[0] if len(parts) == 1 else dataclasses.replace(parts[0], parts=tuple(parts))

    @classmethod
    def _of_task(
        cls, dataset: Dataset | None, packed: PackedGraphs, labels: np.ndarray, elements: list[int]
    ) -> Labelled:
        if dataset is None:
            return cls(packed, labels, elements, None)
        train = dataset.split.train
        training = dataset.labels[train], dataset.counts[train]
        return cls(packed, labels, elements, training, (dataset.packed.table, train))


class Predictions(NamedTuple):
    """What a model says of M structures with A atoms in all.

    Attributes:
        values: (M,) float64 in the target's unit.
        embeddings: (M, F).
        forces: (A, 3) float64 in the target's unit per Angstrom; without rows where they were not asked for.
        stress: (M, 3, 3) float64 in the target's unit per Angstrom^3, positive in tension, NaN for molecules; without
            rows where it was not asked for.
        others: (M,) float64 of each further output of a network with several, in the unit of its target.
        blocks: (p, n, 3, 3) float64 force constants of each structure, eV/Angstrom^2; empty where they were not asked
            for.
    """

    values: np.ndarray
    embeddings: np.ndarray
    forces: np.ndarray = np.zeros((0, 3))
    stress: np.ndarray = np.zeros((0, 3, 3))
    blocks: tuple[np.ndarray, ...] = ()
    others: tuple[np.ndarray, ...] = ()

    @property
    def every(self) -> tuple[np.ndarray, ...]:
        """The values of each output."""
        return (self.values, *self.others)


class Evaluator:
    """Predictions of a model in the target's unit, by one compiled graph for all the sets it is made for.

    Args:
        model: the network.
        packed: graphs with the model's cutoff, and triplets if it uses them; see ``for_model``.
        sets: the rows it will be asked for.
        normalizer: takes outputs to the target's unit.
        batch_size: the most structures in a batch.
        dtype: float32 or float64.
        ranks: processes that share the work; all of them get the result.
        quantities: ``ENERGY``, and what is wanted besides: ``FORCES``, ``STRESS``.
        chosen: which outputs of the network ``normalizer`` has the laws of; empty: all of them.
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
        quantities: Collection[str] = (ENERGY,),
        chosen: Sequence[int] = (),
    ):
        self.step = EvaluationStep(model, [OBSERVED[quantity] for quantity in quantities if quantity != ENERGY])
        self.quantities = quantities
        self.packed, self.normalizer, self.batch_size, self.dtype = packed, normalizer, batch_size, DTYPES[dtype]
        self.ranks, self.chosen = ranks, list(chosen)
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
        laws = self.normalizer.every
        values = np.zeros((len(rows), len(laws) + features))
        if len(places):
            outputs = outputs.reshape(len(places), -1)
            values[places, : len(laws)] = outputs[:, self.chosen] if self.chosen else outputs
            values[places, len(laws) :] = embeddings
        values = self.ranks.sum(values)
        table = self.packed.table
        counts = element_counts(table.numbers, table.n_atoms)[rows]
        first, *others = (law.invert(values[:, k], counts) for k, law in enumerate(laws))
        return Predictions(
            first,
            values[:, len(laws) :].astype(embeddings.dtype),
            self._all_forces(rows, places, forces) if FORCES in self.quantities else forces,
            self._all_stresses(rows, places, virials) if STRESS in self.quantities else virials,
            others=tuple(others),
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


def refuse_not_finite(bad: np.ndarray, table: StructureTable, rows: np.ndarray) -> None:
    """Stop a run whose model predicts what is no number.

    Args:
        bad: (K,) whether a prediction is NaN or infinite.
        table: the structures.
        rows: (K,) of the validation structures.

    Raises:
        LossError: one is; the first are named.
    """
    if bad.any():
        raise LossError(
            f"the model predicts NaN or infinity for {bad.sum()} of {len(rows)} validation structures: "
            f"{', '.join(name_of_row(table, int(row)) for row in rows[bad][:10])}; lower the learning rate or set "
            "optimizer.clip_norm"
        )
