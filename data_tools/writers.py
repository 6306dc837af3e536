"""Structures with what a model predicts for them, as text of the usual formats."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from data_tools.graph import StructureTable
from data_tools.tables import name_of_row


def frames_text(
    table: StructureTable, energies: np.ndarray, forces: np.ndarray, outside: Sequence[str] | None = None
) -> str:
    """Structures in extended xyz as ASE writes it.

    Args:
        table: M structures with A atoms.
        energies: (M,) eV; NaN where there is none, and none is written.
        forces: (A, 3) eV/Angstrom.
        outside: for each structure what of it is outside of what the model has learned; an entry where it is something.
    """
    text, starts = io.StringIO(), np.cumsum(table.n_atoms) - table.n_atoms
    for row, (start, size) in enumerate(zip(starts, table.n_atoms, strict=True)):
        atoms = slice(start, start + size)
        cell = None if table.cells is None or not table.cells[row].any() else table.cells[row]
        frame = Atoms(table.numbers[atoms], table.positions[atoms], cell=cell, pbc=cell is not None)
        frame.info["name"] = name_of_row(table, row)
        if outside is not None and outside[row]:
            frame.info["outside"] = outside[row]
        energy = {"energy": float(energies[row])} if np.isfinite(energies[row]) else {}
        frame.calc = SinglePointCalculator(frame, **energy, forces=forces[atoms])
        write_extxyz(text, [frame])
    return text.getvalue()
