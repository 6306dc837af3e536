"""Derivatives with respect to a strain, by differences, and batches of structures with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from helpers import Case

from data_tools.graph import Budget, GraphBatch, Labels, Structure
from data_tools.graphs.batching import build_graph, join, pad
from models import NEEDS_TRIPLETS

OFFSETS, WEIGHTS = (-2, -1, 1, 2), (1.0, -8.0, 8.0, -1.0)  # f(-2h), ... to 12 h f'
STEP = 3e-4  # of a strain


def strain_slope(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How values change with a strain that takes every vector x to (1 + strain) x, by differences of fourth order.

    Args:
        function: the matrix 1 + strain to values (G,).

    Returns:
        (G, 3, 3).
    """
    columns = []
    for place in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[place] = STEP
        values = np.array([function(np.eye(3) + offset * strain) for offset in OFFSETS], np.float64)
        columns.append(np.tensordot(np.array(WEIGHTS), values, 1) / (12 * STEP))
    return np.stack(columns, axis=-1).reshape(-1, 3, 3)


def volumes(structures: Sequence[Structure]) -> np.ndarray:
    """(M,) cubic Angstrom; NaN for molecules."""
    return np.array([np.nan if one.cell is None else abs(np.linalg.det(one.cell)) for one in structures])


def labelled(case: Case, structures: Sequence[Structure], budget: Budget, labels: Labels) -> GraphBatch:
    """Structures padded to a budget, with their labels."""
    triplets = case.model in NEEDS_TRIPLETS
    graphs = [build_graph(structure, case.cutoff, triplets) for structure in structures]
    budget = budget._replace(triplets=8 * budget.edges if triplets else 0)
    return pad(join(graphs), budget, case.cutoff, np.float64, labels)
