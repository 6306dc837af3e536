"""Structures with what a model predicts for them, as text of the usual formats."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, write_extxyz
from ase.stress import full_3x3_to_voigt_6_stress

from data_tools.graph import StructureTable
from data_tools.tables import name_of_row

#: what the comment line of a geometry made from SMILES says
GEOMETRY_MARK = "geometry=ETKDG+MMFF"


def geometries_text(table: StructureTable, smiles: Sequence[str]) -> str:
    """Structures that were made from SMILES in extended xyz, with their names, SMILES and total charges."""
    text, starts = io.StringIO(), np.cumsum(table.n_atoms) - table.n_atoms
    key, value = GEOMETRY_MARK.split("=")
    for row, (start, size) in enumerate(zip(starts, table.n_atoms, strict=True)):
        frame = Atoms(table.numbers[start : start + size], table.positions[start : start + size])
        frame.info = {"name": as_text(name_of_row(table, row)), "smiles": as_text(smiles[row]), key: value}
        frame.info |= {name: int(values[row]) for name, values in table.of_structures.items()}
        write_extxyz(text, [frame])
    return text.getvalue()


def atoms_text(
    table: StructureTable,
    columns: Mapping[str, np.ndarray],
    unit: str,
    entries: Mapping[str, np.ndarray],
    words: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Structures in extended xyz with a number of each atom in columns of their own, which viewers colour by.

    Args:
        table: M structures with A atoms.
        columns: name without blanks to (A,).
        unit: of the columns, for the comment line.
        entries: of the comment line: name without blanks to (M,) numbers; those that are not finite are left out.
        words: of the comment line: name without blanks to M texts; empty ones are left out.
    """
    text, starts = io.StringIO(), np.cumsum(table.n_atoms) - table.n_atoms
    for row, (start, size) in enumerate(zip(starts, table.n_atoms, strict=True)):
        atoms = slice(start, start + size)
        cell = None if table.cells is None or not table.cells[row].any() else table.cells[row]
        frame = Atoms(table.numbers[atoms], table.positions[atoms], cell=cell, pbc=cell is not None)
        frame.info = {"name": as_text(name_of_row(table, row)), "unit": as_text(unit)}
        frame.info |= {name: float(values[row]) for name, values in entries.items() if np.isfinite(values[row])}
        frame.info |= {name: as_text(texts[row]) for name, texts in (words or {}).items() if texts[row]}
        for name, values in columns.items():
            frame.new_array(name, values[atoms])
        write_extxyz(text, [frame])
    return text.getvalue()


def as_text(words: str) -> str:
    """Text as an entry of a comment line that is read as the same text: ASE takes ``F`` for false, 7 for a number."""
    plain = words.replace("\\", r"\\")  # ASE takes backslashes away and does not write them twice
    found = key_val_str_to_dict(key_val_dict_to_str({"name": plain})).get("name")
    if "\n" not in words and isinstance(found, str) and found == words:
        return plain
    return "_JSON " + json.dumps(words, ensure_ascii=False).replace("\\", r"\\")


def frames_text(
    table: StructureTable,
    energies: np.ndarray,
    forces: np.ndarray,
    stress: np.ndarray | None = None,
    outside: Sequence[str] | None = None,
    spreads: tuple[np.ndarray, np.ndarray, Sequence[str]] | None = None,
) -> str:
    """Structures in extended xyz as ASE writes it.

    Args:
        table: M structures with A atoms.
        energies: (M,) eV; NaN where there is none, and none is written.
        forces: (A, 3) eV/Angstrom.
        stress: (M, 3, 3) eV/Angstrom^3, positive in tension; written of crystals only.
        outside: for each structure what of it is outside of what the model has learned; an entry where it is something.
        spreads: (M,) and (A, 3) standard deviations of energies and forces, written as the entry ``energy_std`` and the
            column ``forces_std``, and M words for the entry ``uncertain``, which is left out where they are empty.
    """
    text, starts = io.StringIO(), np.cumsum(table.n_atoms) - table.n_atoms
    for row, (start, size) in enumerate(zip(starts, table.n_atoms, strict=True)):
        atoms = slice(start, start + size)
        cell = None if table.cells is None or not table.cells[row].any() else table.cells[row]
        frame = Atoms(table.numbers[atoms], table.positions[atoms], cell=cell, pbc=cell is not None)
        frame.info["name"] = as_text(name_of_row(table, row))
        if outside is not None and outside[row]:
            frame.info["outside"] = as_text(outside[row])
        if spreads is not None and np.isfinite(spreads[0][row]):
            frame.info["energy_std"] = float(spreads[0][row])
        if spreads is not None and spreads[2][row]:
            frame.info["uncertain"] = as_text(spreads[2][row])
        if spreads is not None:
            frame.new_array("forces_std", spreads[1][atoms])
        results: dict = {"energy": float(energies[row])} if np.isfinite(energies[row]) else {}
        if stress is not None and cell is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(stress[row])
        frame.calc = SinglePointCalculator(frame, **results, forces=forces[atoms])
        write_extxyz(text, [frame])
    return text.getvalue()
