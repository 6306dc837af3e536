"""How a task is evaluated: one object a kind of task, with predictions, baselines, metrics and pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from mindspore import nn

from configs.schema import Config
from data_tools.dataset import Task
from data_tools.graph import StructureTable
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.statistics import Normalizer
from data_tools.labels.targets import FORCE_CONSTANTS
from experiment.evaluation.energy_forces import EnergyForces
from experiment.evaluation.evaluator import Evaluator, Labelled
from experiment.evaluation.probe_evaluator import ProbeEvaluator
from experiment.evaluation.scalar import Scalar
from experiment.evaluation.second_derivatives import SecondDerivatives
from experiment.evaluation.several_tasks import SeveralTasks
from training.distributed import Ranks

Evaluation = Scalar | EnergyForces | SecondDerivatives | SeveralTasks
#: the evaluation of each kind of task
EVALUATIONS: dict[str, type[Scalar] | type[EnergyForces]] = {"scalar": Scalar, "energy_forces": EnergyForces}


def kind_of(task: Task, table: StructureTable) -> str:
    """The kind of a task on some data: derivatives are computed where the target has them and the data publish some."""
    if task.target.name == FORCE_CONSTANTS:
        return FORCE_CONSTANTS
    derived = task.target.has_forces and EnergyForces.quantities(table) != Scalar.quantities(table)
    return "energy_forces" if derived else "scalar"


def evaluation_of(
    config: Config,
    task: Task,
    model: nn.Cell,
    normalizer: Normalizer,
    labelled: Labelled,
    sets: list[np.ndarray],
    ranks: Ranks = Ranks(),  # noqa: B008  a frozen constant
    chosen: Sequence[int] = (),
) -> Evaluation:
    """The evaluation of a model on labelled structures.

    Args:
        config: of the run: precision and size of a batch.
        task: what is predicted.
        model: the network.
        normalizer: takes outputs to the target's unit.
        labelled: the structures.
        sets: the rows it will be asked for, which share one static shape.
        ranks: processes that share the work.
        chosen: which outputs of the network the tasks are; empty: all of them.
    """
    packed, kind_name = labelled.packed, kind_of(task, labelled.packed.table)
    if kind_name == FORCE_CONSTANTS:
        settings, dtype = config.training, config.run.dtype
        columns = ProbeEvaluator(
            model, packed, sets, normalizer, settings.eval_batch_size, dtype, ranks, settings.stress_weight > 0
        )
        return SecondDerivatives(task, labelled, columns)
    if task.others:
        evaluator = evaluator_of(
            config, Scalar.quantities(packed.table), model, normalizer, packed, sets, ranks, chosen
        )
        return SeveralTasks(task, labelled, evaluator)
    kind = EVALUATIONS[kind_name]
    evaluator = evaluator_of(config, kind.quantities(packed.table), model, normalizer, packed, sets, ranks, chosen)
    return kind(task, labelled, evaluator)


def evaluator_of(
    config: Config,
    quantities: Collection[str],
    model: nn.Cell,
    normalizer: Normalizer,
    packed: PackedGraphs,
    sets: list[np.ndarray],
    ranks: Ranks = Ranks(),  # noqa: B008  a frozen constant
    chosen: Sequence[int] = (),
) -> Evaluator:
    """Predictions of structures that need no labels.

    Args:
        config, model, normalizer, sets, ranks, chosen: as of ``evaluation_of``.
        quantities: what is predicted.
        packed: graphs with the model's cutoff, and triplets if it uses them.
    """
    return Evaluator(
        model, packed, sets, normalizer, config.training.eval_batch_size, config.run.dtype, ranks, quantities, chosen
    )
