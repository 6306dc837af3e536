"""Which crystals train, which validate, which test: by material, and by chemical system, which is harder.

A material or a system belongs to a part by a hash of its name and a seed, so it keeps its part when others are added
to the file, and two files agree on what they share.  The parts are therefore only about as large as ``SHARES`` says.
By chemical system, all crystals of the same elements are in one part: a model has not seen their combination.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from data_tools.graph import StructureTable
from data_tools.labels.splits import Split
from data_tools.tables import ELEMENTS

SHARES = (("test", 0.1), ("valid", 0.2), ("train", 1.0))  # of the range of the hash, up to


def labels_by_material(names: Iterable[str], seed: int = 0) -> np.ndarray:
    """(M,) str ``train``, ``valid`` or ``test`` of materials, by their names."""
    return np.array([_part(f"material {name}", seed) for name in names], np.str_)


def chemical_systems(table: StructureTable) -> list[str]:
    """Per structure its elements by symbol, sorted: ``Cl-Na``."""
    pieces = np.split(table.numbers, np.cumsum(table.n_atoms)[:-1])
    return ["-".join(sorted({ELEMENTS[number - 1] for number in piece.tolist()})) for piece in pieces]


def split_by_chemical_system(table: StructureTable, seed: int = 0) -> Split:
    """The rows of a table, with all crystals of the same elements in one part."""
    labels = np.array([_part(f"system {system}", seed) for system in chemical_systems(table)], np.str_)
    parts = {part: np.flatnonzero(labels == part) for part, _ in SHARES}
    return Split(**parts, name=f"chemical-system-seed{seed}")


def _part(key: str, seed: int) -> str:
    place = int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64
    return next(part for part, end in SHARES if place < end)
