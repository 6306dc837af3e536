"""What is worth saying about a cell and its supercell before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import spglib

from data_tools.crystals import Crystal
from data_tools.graph import Structure
from data_tools.graphs.batching import build_graph
from physics.checks import radius_within

WIDE = 10.0  # Angstrom: force constants beyond half of it are small in most crystals
EXACT, ROUNDED = 1e-5, 1e-2  # Angstrom: phonopy's tolerance of symmetry, and one for coordinates that a file rounds
ANIONS = {1, 7, 8, 9, 15, 16, 17, 33, 34, 35, 52, 53}  # H N O F P S Cl As Se Br Te I


def space_group(structure: Structure, tolerance: float = EXACT) -> tuple[str, int]:
    """International symbol and number; empty and 0 where spglib finds none.

    Args:
        structure: a crystal.
        tolerance: of positions, Angstrom.
    """
    assert structure.cell is not None
    fractions = structure.positions @ np.linalg.inv(structure.cell)
    atoms: Any = (structure.cell, fractions, structure.numbers)
    found = spglib.get_spacegroup(atoms, symprec=tolerance)
    symbol, _, number = (found or " (0)").rpartition(" ")
    return symbol.strip(), int(number.strip("()"))


def rounded_symmetry(structure: Structure) -> str:
    """A warning where coordinates are rounded so that symmetry is lost; empty where they are not."""
    exact, loose = space_group(structure), space_group(structure, ROUNDED)
    if exact == loose or not loose[1]:
        return ""
    return (
        f"{structure.name}: the atoms have space group {exact[0] or 'none'} within {EXACT:g} Angstrom and {loose[0]} "
        f"within {ROUNDED:g}: coordinates are rounded, or atoms are displaced; give more digits to keep the symmetry"
    )


def small_supercell(crystal: Crystal, cutoff: float | None) -> str:
    """A warning where a potential reaches beyond what a supercell can tell apart; empty where it does not.

    Args:
        crystal: its supercell.
        cutoff: of the potential, Angstrom; None: unknown.
    """
    assert crystal.supercell.cell is not None
    radius = radius_within(crystal.supercell.cell)
    if cutoff is None or cutoff <= radius:
        return ""
    return (
        f"{crystal.name}: the supercell tells images of an atom apart up to {radius:.2f} Angstrom, the cutoff of the "
        f"potential is {cutoff:g}: force constants of several images are added up, and frequencies between the wave "
        "vectors that fit the supercell are interpolated wrongly; use a larger --supercell"
    )


def repetitions(structure: Structure) -> tuple[int, int, int]:
    """The fewest cells along each lattice vector whose supercell is ``WIDE`` across in every direction."""
    assert structure.cell is not None
    widths = 1 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)  # distances of opposite faces
    counts = [max(1, int(np.ceil(WIDE / width - 1e-6))) for width in widths.tolist()]
    return counts[0], counts[1], counts[2]


def polar_without_charges(crystal: Crystal) -> str:
    """A warning where long-range forces of dipoles may be missing; empty with Born charges, or for one element.

    Whether a crystal conducts cannot be seen here: an anion beside another element is taken for a polar insulator.
    """
    elements = set(crystal.supercell.numbers.tolist())
    if crystal.born is not None or len(elements) < 2 or not elements & ANIONS:
        return ""
    return (
        f"{crystal.name}: the material may be polar and there are no Born charges: longitudinal and transverse optical "
        "modes are not split near Gamma; give --born BORN, or ignore this for a metal"
    )


def in_a_box(structure: Structure, cutoff: float | None) -> str:
    """Why a structure is no crystal: no atom reaches an image of itself; empty where one does, as in a slab or a chain.

    Args:
        structure: the cell.
        cutoff: within which atoms reach each other, Angstrom; None: ``WIDE``.
    """
    reach = WIDE if cutoff is None else cutoff
    if _reaches_itself(structure, reach):
        return ""
    return (
        f"{structure.name}: expected a crystal, found atoms of which none reaches its own image over neighbours within "
        f"{reach:g} Angstrom: a molecule in a box has no bands; for its vibrations use get_hessian of the calculator"
    )


def _reaches_itself(structure: Structure, reach: float) -> bool:
    """Whether a path from neighbour to neighbour leads from an atom to its image in another cell."""
    assert structure.cell is not None
    graph = build_graph(structure, reach)
    steps = np.rint(graph.shifts @ np.linalg.inv(structure.cell)).astype(np.int64)  # of senders, in lattice vectors
    order = np.argsort(graph.receivers, kind="stable")
    starts = np.searchsorted(graph.receivers[order], np.arange(len(structure.numbers) + 1))
    cells: dict[int, np.ndarray] = {}
    for first in range(len(structure.numbers)):
        waiting = [] if first in cells else [first]
        cells.setdefault(first, np.zeros(3, np.int64))
        while waiting:
            atom = waiting.pop()
            for edge in order[starts[atom] : starts[atom + 1]]:
                neighbor, cell = int(graph.senders[edge]), cells[atom] + steps[edge]
                if neighbor not in cells:
                    cells[neighbor] = cell
                    waiting.append(neighbor)
                elif (cells[neighbor] != cell).any():
                    return True
    return False
