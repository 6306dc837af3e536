"""Which atoms of structures a prediction depends on, in the unit of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.graph import GraphBatch, StructureTable
from data_tools.graphs.loader import evaluation_batches, evaluation_budget
from data_tools.graphs.neighbors import ragged_range
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import element_counts
from data_tools.tables import select_rows
from experiment.data import DTYPES
from experiment.trained import Trained
from models.atom_scale import scale_elements
from models.heads import OF_SEVERAL, AttentionReadout, Readout, ReadoutOfEach
from physics.attribution import AttentionOfBlocks, ScaleDerivative, attribute, received
from training.step import to_tensors

CONTRIBUTION, LEARNED = "contribution", "contribution_of_network"
GRADIENT, INTEGRATED = "gradient_x_input", "integrated_gradients"
ATTENTION, WEIGHT = "attention_received", "attention"
WITHOUT_UNIT = (ATTENTION, WEIGHT)


@dataclass(frozen=True)
class AtomTable:
    """What is known of the atoms of K structures with A atoms in all.

    Attributes:
        table: the structures.
        predictions: (K,) in the unit of the target; NaN where training gives no reference for the composition.
        without: (K,) the same with no element anywhere, where integrated gradients begin.
        incomplete: (K,) how far integrated gradients are from adding up to the difference of the two, relative to the
            sum of their sizes.
        columns: (A,) by name.  ``contribution`` of readouts that are a sum, a mean or one with attention: they add up
            to the prediction.
            ``contribution_of_network`` is the same without what composition alone gives: reference energies of
            elements and the mean of the training labels, where there are some.
            ``gradient_x_input`` and ``integrated_gradients`` of every model: see ``physics.attribution``.
            ``attention`` of a readout with attention: the weights of atoms, 1 in all.
            ``attention_received`` where there is attention between atoms.
    """

    table: StructureTable
    predictions: np.ndarray
    without: np.ndarray
    incomplete: np.ndarray
    columns: dict[str, np.ndarray]

    def sums(self, column: str) -> np.ndarray:
        """(K,) of a column over the atoms of each structure."""
        return np.add.reduceat(self.columns[column], np.cumsum(self.table.n_atoms) - self.table.n_atoms)


def attribute_atoms(trained: Trained, packed: PackedGraphs, rows: np.ndarray, undetermined: np.ndarray) -> AtomTable:
    """Measure it.

    Args:
        trained: the model, with one task; it computes with factors of atoms from here on.
        packed: graphs with the model's cutoff, and triplets if it uses them.
        rows: (K,) of them.
        undetermined: (K,) bool: whose composition has no reference.
    """
    model, config, normalizer = trained.model, trained.config, trained.normalizer
    model.set_train(False)
    size = config.training.eval_batch_size
    budget = evaluation_budget(packed, [rows], size)
    output = trained.chosen[0] if len(trained.network_task.every) > 1 else None
    derivative = ScaleDerivative(model, scale_elements(model, budget.nodes), output)
    attention = AttentionOfBlocks(model) if hasattr(model.network, "attention") else None
    table = select_rows(packed.table, rows)
    weighted = isinstance(model.head, AttentionReadout)
    readout = trained.task.readout
    additive = weighted or (isinstance(model.head, Readout | ReadoutOfEach) and readout in OF_SEVERAL)
    chosen = {CONTRIBUTION: additive, GRADIENT: True, INTEGRATED: True, WEIGHT: weighted, ATTENTION: bool(attention)}
    names = [name for name, there in chosen.items() if there]
    columns = {name: np.zeros(len(table.numbers)) for name in names}
    outputs, without, incomplete = (np.zeros(len(rows)) for _ in range(3))
    for batch in evaluation_batches(packed, rows, size, DTYPES[config.run.dtype], budget):
        tensors = to_tensors(batch.inputs)
        found, count = attribute(derivative, batch.inputs, tensors), len(batch.ids)
        outputs[batch.ids], without[batch.ids] = found.outputs[:count], found.without[:count]
        incomplete[batch.ids] = found.incomplete[:count]
        numbers = {CONTRIBUTION: found.values[:, 0], GRADIENT: found.gradients, INTEGRATED: found.integrated}
        if weighted:
            numbers[WEIGHT] = found.values[:, 1]
        if attention is not None:
            numbers[ATTENTION] = received([one.asnumpy() for one in attention(*tensors)], batch.inputs)
        _place(columns, numbers, table, batch)
    for name in (GRADIENT, INTEGRATED):
        columns[name] *= normalizer.scale
    if additive:
        n = np.repeat(table.n_atoms, table.n_atoms)
        values = normalizer.scale * columns[CONTRIBUTION] / (n if readout == "mean" else 1)
        columns[CONTRIBUTION] = values + normalizer.shares(table.numbers, table.n_atoms)
        columns[CONTRIBUTION][np.repeat(undetermined, table.n_atoms)] = np.nan
        if normalizer.references.any() or normalizer.shift:
            columns = {CONTRIBUTION: columns.pop(CONTRIBUTION), LEARNED: values, **columns}
    counts = element_counts(table.numbers, table.n_atoms)
    predictions, begun = normalizer.invert(outputs, counts), normalizer.invert(without, counts)
    predictions[undetermined] = begun[undetermined] = np.nan
    return AtomTable(table, predictions, begun, incomplete, columns)


def mean_of_members(members: Sequence[AtomTable]) -> AtomTable:
    """What the mean of several models depends on: all of it is linear in the prediction, but for the attention.

    Members may be of different kinds: what some of them do not have is left out.
    """
    first, *others = members
    names = [name for name in first.columns if all(name in one.columns for one in others)]
    columns = {name: np.mean([one.columns[name] for one in members], axis=0) for name in names}
    predictions, without = (
        np.mean([getattr(one, key) for one in members], axis=0) for key in ("predictions", "without")
    )
    return AtomTable(first.table, predictions, without, np.max([one.incomplete for one in members], axis=0), columns)


def _place(
    columns: dict[str, np.ndarray], numbers: dict[str, np.ndarray], table: StructureTable, batch: GraphBatch
) -> None:
    """Put the numbers of the real nodes of a batch where their atoms stand in the table."""
    starts = np.cumsum(table.n_atoms) - table.n_atoms
    places = ragged_range(starts[batch.ids], table.n_atoms[batch.ids])
    for name, column in columns.items():
        column[places] = numbers[name][: len(places)]
