"""Neighbour lists with a skin around the cutoff, kept while atoms move.

As long as no atom is further than half the skin from where the list was made, no pair outside the list can be closer
than the cutoff.  Before every call the pairs beyond the true cutoff are left out, for the envelopes of the models are
not 0 there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_tools.graph import AtomGraph, Structure
from data_tools.graphs.batching import build_graph, with_triplets


class SkinList:
    """The graph of a structure whose atoms move little between two calls.

    Args:
        cutoff: Angstrom.
        skin: Angstrom; more means fewer searches, and more pairs to look through at each call.
        triplets: whether the model uses them; they are listed at each call, from the edges shorter than the cutoff.

    Attributes:
        searches: how many times the neighbours were searched for.

    Raises:
        ValueError: a negative skin.
    """

    def __init__(self, cutoff: float, skin: float, triplets: bool = False):
        if not 0 <= skin < np.inf:
            raise ValueError(f"skin {skin}: expected 0 Angstrom or more")
        self.cutoff, self.skin, self.triplets = cutoff, skin, triplets
        self.searches = 0
        self.origin: Structure | None = None
        self.candidates: AtomGraph | None = None

    def __call__(self, structure: Structure) -> AtomGraph:
        """Every edge shorter than the cutoff, as ``build_graph`` returns them.

        Raises:
            DataError: two atoms coincide, or a cell that is none.
        """
        if self.candidates is None or not self._still_holds(structure):
            self.candidates = build_graph(structure, self.cutoff + self.skin)
            self.origin = structure
            self.searches += 1
        found, positions = self.candidates, structure.positions
        half = len(found.senders) // 2
        vectors = positions[found.senders[:half]] + found.shifts[:half] - positions[found.receivers[:half]]  # (P, 3)
        near = np.flatnonzero((vectors * vectors).sum(-1) < self.cutoff**2)
        edges = np.concatenate((near, near + half))  # the reverse of an edge stands half the list behind it
        graph = dataclasses.replace(
            found,
            positions=positions,
            senders=found.senders[edges],
            receivers=found.receivers[edges],
            shifts=found.shifts[edges],
        )
        return with_triplets(graph) if self.triplets else graph

    def _still_holds(self, structure: Structure) -> bool:
        """Whether the candidates are all pairs that can be within the cutoff: two atoms may each use half the skin."""
        origin = self.origin
        if origin is None or not np.array_equal(origin.numbers, structure.numbers):
            return False
        if (origin.cell is None) != (structure.cell is None):
            return False
        if origin.cell is not None and structure.cell is not None and not np.array_equal(origin.cell, structure.cell):
            return False
        moved = structure.positions - origin.positions
        return float((moved * moved).sum(-1).max()) <= (self.skin / 2) ** 2
