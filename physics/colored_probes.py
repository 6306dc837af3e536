"""Exact Hessians of large structures from few products: atoms far apart share a probe.

A network of L layers gives each atom an energy that depends on the atoms within L steps along edges, so

    (1)  H_ij = 0    unless some atom is within L steps of both, that is unless i and j are within 2 L steps

and of a product with the sum of several columns each row belongs to one of them, if no atom is within 2 L steps of two
(Curtis, Powell and Reid, IMA J. Appl. Math. 13, 117, 1974).  Nothing is cut off: the zeros are those of the model.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from data_tools.graph import AtomGraph
from physics.approximations import Products


def reached(graph: AtomGraph, layers: int) -> sparse.csr_matrix:
    """(N, N) which atoms are within 2 L steps of each other.

    Args:
        graph: one structure.
        layers: L of the model.
    """
    atoms = len(graph.numbers)
    ones = np.ones(len(graph.senders), np.int8)
    step = sparse.csr_matrix((ones, (graph.receivers, graph.senders)), (atoms, atoms)) + sparse.identity(atoms, np.int8)
    found = sparse.identity(atoms, np.int8, format="csr")
    for _ in range(2 * layers):
        found = ((found @ step) > 0).astype(np.int8)
    return found


def colors(graph: AtomGraph, layers: int) -> np.ndarray:
    """(N,) a number for each atom; no atom is within 2 L steps of two atoms with one number."""
    near = reached(graph, layers).astype(np.int32)
    conflicts = (near @ near.T).tolil().rows  # of each atom those that share a row with it
    found = np.full(len(graph.numbers), -1)
    for atom in np.argsort([-len(row) for row in conflicts], kind="stable").tolist():
        taken = set(found[conflicts[atom]].tolist())
        found[atom] = next(color for color in range(len(found) + 1) if color not in taken)
    return found


def hessian(products: Products, graph: AtomGraph, layers: int) -> np.ndarray:
    """The Hessian (3 N, 3 N), with three products for each color.

    Args:
        products: of the structure.
        graph: the structure.
        layers: L of the model.
    """
    near, color = reached(graph, layers).toarray() > 0, colors(graph, layers)
    atoms, count = len(color), int(color.max()) + 1
    fields = np.zeros((count, 3, atoms, 3))
    for axis in range(3):
        fields[color, axis, np.arange(atoms), axis] = 1
    rows = products(fields.reshape(-1, atoms, 3)).reshape(count, 3, atoms, 3)
    found = np.zeros((atoms, 3, atoms, 3))
    for atom in range(atoms):
        found[atom][:, near[atom]] = rows[color[atom]][:, near[atom]]
    return found.reshape(3 * atoms, 3 * atoms)
