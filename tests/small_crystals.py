"""Two small crystals, and strains: a cell whose only atom has nothing but its own images, and a skewed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ase.build
import numpy as np
from helpers import Case

from data_tools.graph import Budget, GraphBatch, Labels, Structure
from data_tools.graphs.batching import build_graph, join, pad
from models import NEEDS_TRIPLETS

OFFSETS, WEIGHTS = (-2, -1, 1, 2), (1.0, -8.0, 8.0, -1.0)  # f(-2h), ... to 12 h f'
STEP = 1e-3  # of a strain


def one_atom() -> Structure:
    """A primitive cell of one argon atom."""
    atoms = ase.build.bulk("Ar", "fcc", a=3.6)
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, np.array(atoms.cell), "one atom")


def skewed() -> Structure:
    """Eight atoms of three elements in a cell without right angles."""
    atoms = ase.build.bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.numbers[1] = 6
    skew = np.array([[1.0, 0.1, 0.05], [0.0, 1.0, 0.2], [0.03, 0.0, 1.1]])
    atoms.set_cell(atoms.cell.array @ skew, scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, np.array(atoms.cell), "skewed")


def repeated(crystal: Structure, copies: int) -> Structure:
    """So many cells of a crystal along its first vector."""
    assert crystal.cell is not None
    moves = np.arange(copies)[:, None, None] * crystal.cell[0]
    cell = crystal.cell * np.array([[copies], [1], [1]])
    positions = (crystal.positions + moves).reshape(-1, 3)
    return Structure(np.tile(crystal.numbers, copies), positions, cell, f"{copies} x {crystal.name}")


def strained(structure: Structure, strain: np.ndarray) -> Structure:
    """Every vector x of a structure taken to (1 + strain) x."""
    change = np.eye(3) + strain
    cell = None if structure.cell is None else structure.cell @ change.T
    return Structure(structure.numbers, structure.positions @ change.T, cell, structure.name)


def volumes(structures: Sequence[Structure]) -> np.ndarray:
    """(M,) cubic Angstrom; NaN for molecules."""
    return np.array([np.nan if one.cell is None else abs(np.linalg.det(one.cell)) for one in structures])


def labelled(case: Case, structures: Sequence[Structure], budget: Budget, labels: Labels) -> GraphBatch:
    """Structures padded to a budget, with their labels."""
    triplets = case.model in NEEDS_TRIPLETS
    graphs = [build_graph(structure, case.cutoff, triplets) for structure in structures]
    budget = budget._replace(triplets=8 * budget.edges if triplets else 0)
    return pad(join(graphs), budget, case.cutoff, np.float64, labels)


def strain_slope(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The derivative of values (G,) with respect to each element of a strain, by differences of fourth order.

    Returns:
        (G, 3, 3).
    """
    columns = []
    for place in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[place] = STEP
        values = np.array([function(offset * strain) for offset in OFFSETS], np.float64)
        columns.append(np.tensordot(np.array(WEIGHTS), values, 1) / (12 * STEP))
    return np.stack(columns, axis=-1).reshape(-1, 3, 3)
