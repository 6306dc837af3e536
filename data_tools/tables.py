"""Making and cutting ``StructureTable`` objects: the checks that hold for whatever file the structures came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.graphs.neighbors import ragged_range
from data_tools.labels.compact_force_constants import (
    check_force_constants,
    join_force_constants,
    select_force_constants,
)

ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc "
    "Lv Ts Og"
).split()
ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(ELEMENTS, 1)}

QM9 = "qm9"  # the origin of tables whose ids are gdb indices

LARGEST_CELL = 1e3  # Angstrom; the search for neighbours fills larger ones with empty boxes
LARGEST_COORDINATE = 1e6  # Angstrom; float32 cannot tell bonds apart far from the origin, and squares overflow


def check_table(path: Path, table: StructureTable) -> StructureTable:
    """Check the values of a table that a reader made; ``path`` names the file in errors.

    Raises:
        DataError: no structures, lengths that do not add up, an unknown element, or a value that is not finite
            (labels may be NaN, which means missing), or a coordinate beyond ``LARGEST_COORDINATE``.
    """
    if len(table) == 0:
        raise DataError(f"{path}: expected at least one structure, found none; check that this is the right file")
    atoms = int(table.n_atoms.sum())
    counts = table.n_atoms
    wrong = counts.min() < 1 or counts.max() > len(table.numbers)  # the latter also where the sum has overflowed
    if wrong or table.numbers.shape != (atoms,) or table.positions.shape != (atoms, 3):
        raise DataError(
            f"{path}: expected at least one atom per structure and {atoms} atoms in all, found "
            f"{len(table.numbers)} elements and positions of shape {table.positions.shape}; the file is inconsistent"
        )
    bad = (table.numbers < 1) | (table.numbers > len(ELEMENTS))
    if bad.any():
        atom = int(bad.argmax())
        raise DataError(
            f"{path}: expected atomic numbers from 1 to {len(ELEMENTS)}, found {table.numbers[atom]} in "
            f"{name_of_row(table, row_of_atom(table, atom))}; correct the element"
        )
    bad = ~(np.abs(table.positions) <= LARGEST_COORDINATE).all(axis=1)  # NaN is bad too
    if bad.any():
        atom = int(bad.argmax())
        raise DataError(
            f"{path}: expected finite coordinates up to {LARGEST_COORDINATE:g} Angstrom, found "
            f"{table.positions[atom].tolist()} in {name_of_row(table, row_of_atom(table, atom))}; correct or remove "
            "that structure"
        )
    if table.cells is not None and not (np.abs(table.cells) <= LARGEST_CELL).all():
        raise DataError(
            f"{path}: expected finite lattice vectors up to {LARGEST_CELL:g} Angstrom, found others; correct them"
        )
    _check_labels(path, table)
    return table


def _check_labels(path: Path, table: StructureTable) -> None:
    """Every label has one owner, as many rows as its owner has, and no infinite value."""
    twice = sorted(table.of_structures.keys() & table.of_atoms.keys())
    if twice:
        raise DataError(f"{path}: expected {twice[0]} to be a label of structures or of atoms, found both; rename one")
    owners = (table.of_structures, len(table), "structure"), (table.of_atoms, len(table.numbers), "atom")
    for labels, count, owner in owners:
        for name, values in labels.items():
            if values.ndim == 0 or len(values) != count:
                raise DataError(
                    f"{path}: expected one row of {name} for each {owner}, {count} in all, found an array of shape "
                    f"{values.shape}; the file is inconsistent"
                )
            if np.isinf(values).any():
                raise DataError(
                    f"{path}: expected finite values of {name}, found an infinite one; correct that structure"
                )
    if table.force_constants is not None:
        check_force_constants(path, table.force_constants, table.n_atoms)


def cell_volumes(table: StructureTable) -> np.ndarray:
    """(M,) float64 volume of each cell, Angstrom^3; NaN for molecules."""
    if table.cells is None:
        return np.full(len(table), np.nan)
    volumes = np.abs(np.linalg.det(table.cells))
    return np.where(volumes > 0, volumes, np.nan)


def row_of_atom(table: StructureTable, atom: int) -> int:
    """The structure to which an atom of the flat arrays belongs."""
    return int(np.searchsorted(np.cumsum(table.n_atoms), atom, side="right"))


def structure_of_row(table: StructureTable, row: int) -> Structure:
    """One molecule of a table."""
    end = int(table.n_atoms[: row + 1].sum())
    atoms = slice(end - int(table.n_atoms[row]), end)
    return Structure(table.numbers[atoms], table.positions[atoms])


def name_of_row(table: StructureTable, row: int) -> str:
    """What to call a structure in a message: its name, or its identity in the source."""
    return table.names[row] if table.names else f"structure {table.ids[row]}"


def table_of_structures(
    path: Path,
    structures: Sequence[Structure],
    source: str,
    of_structures: dict[str, np.ndarray] | None = None,
    of_atoms: dict[str, np.ndarray] | None = None,
) -> StructureTable:
    """Join structures into one table with ids 0, 1, 2, ...; molecules among crystals get a zero cell.

    Args:
        path: the file, for messages.
        structures: M structures with A atoms in all.
        source: of the table.
        of_structures: labels with leading dimension M.
        of_atoms: labels with leading dimension A.

    Raises:
        DataError: as ``check_table``; ``path`` names the file.
    """
    if not structures:
        raise DataError(f"{path}: expected at least one structure, found none; check that this is the right file")
    cells = None
    if any(structure.cell is not None for structure in structures):
        cells = np.stack([np.zeros((3, 3)) if one.cell is None else one.cell for one in structures])
    table = StructureTable(
        numbers=np.concatenate([structure.numbers for structure in structures]).astype(np.int32),
        positions=np.concatenate([structure.positions for structure in structures]).astype(np.float64),
        n_atoms=np.array([len(structure.numbers) for structure in structures], np.int64),
        ids=np.arange(len(structures)),
        of_structures=of_structures or {},
        of_atoms=of_atoms or {},
        names=tuple(structure.name for structure in structures),
        cells=cells,
        source=source,
    )
    return check_table(path, table)


def join_tables(tables: Sequence[StructureTable], names: Sequence[str]) -> StructureTable:
    """Several tables as one; a label that only some of them have is NaN in the others.

    A label whose shape or owner is not the same in all tables is left out and named in ``unread``.

    Args:
        tables: with structures of any kind; their rows are labelled in ``split``, or those of none are; the origin
            stays where it is the same.
        names: per table, what the names of its structures begin with.
    """
    of_structures, left = _joined([t.of_structures for t in tables], [len(t) for t in tables])
    of_atoms, left_of_atoms = _joined([t.of_atoms for t in tables], [len(t.numbers) for t in tables])
    twice = of_structures.keys() & of_atoms.keys()
    left_out = dict.fromkeys((*left, *left_of_atoms, *sorted(twice)))
    labelled = any(table.split is not None for table in tables)
    cells = None
    if any(table.cells is not None for table in tables):
        cells = np.concatenate([np.zeros((len(t), 3, 3)) if t.cells is None else t.cells for t in tables])
    return StructureTable(
        numbers=np.concatenate([table.numbers for table in tables]),
        positions=np.concatenate([table.positions for table in tables]),
        n_atoms=np.concatenate([table.n_atoms for table in tables]),
        ids=np.concatenate([table.ids for table in tables]),
        of_structures={name: values for name, values in of_structures.items() if name not in twice},
        of_atoms={name: values for name, values in of_atoms.items() if name not in twice},
        force_constants=join_force_constants([t.force_constants for t in tables], [t.n_atoms for t in tables]),
        names=tuple(
            f"{name} {name_of_row(table, row)}"
            for table, name in zip(tables, names, strict=True)
            for row in range(len(table))
        ),
        cells=cells,
        split=np.concatenate([table.split for table in tables if table.split is not None]) if labelled else None,
        source=", ".join(table.source for table in tables),
        origin=tables[0].origin if len({table.origin for table in tables}) == 1 else "",
        unread=tuple(dict.fromkeys((*(name for table in tables for name in table.unread), *left_out))),
        remarks=tuple(words for table in tables for words in table.remarks),
    )


def _joined(labels: Sequence[dict[str, np.ndarray]], counts: Sequence[int]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of one owner over several tables, NaN where a table lacks one, and the names of those of several shapes.

    Args:
        labels: per table its labels.
        counts: per table the rows of their owner.
    """
    joined, left = {}, []
    for name in dict.fromkeys(name for one in labels for name in one):
        shapes = {one[name].shape[1:] for one in labels if name in one}
        if len(shapes) > 1:
            left.append(name)
            continue
        shape = shapes.pop()
        parts = (one.get(name, np.full((count, *shape), np.nan)) for one, count in zip(labels, counts, strict=True))
        joined[name] = np.concatenate(list(parts))
    return joined, left


def select_rows(table: StructureTable, rows: np.ndarray) -> StructureTable:
    """The structures ``rows`` of a table, in that order.

    Args:
        table: M structures.
        rows: (K,) integer row numbers, or an (M,) boolean mask.
    """
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    starts = np.cumsum(table.n_atoms) - table.n_atoms
    counts = table.n_atoms[rows]
    atoms = ragged_range(starts[rows], counts)
    constants = table.force_constants
    return dataclasses.replace(
        table,
        numbers=table.numbers[atoms],
        positions=table.positions[atoms],
        n_atoms=counts,
        ids=table.ids[rows],
        of_structures={name: values[rows] for name, values in table.of_structures.items()},
        of_atoms={name: values[atoms] for name, values in table.of_atoms.items()},
        force_constants=None if constants is None else select_force_constants(constants, table.n_atoms, rows, atoms),
        names=tuple(table.names[row] for row in rows) if table.names else (),
        cells=None if table.cells is None else table.cells[rows],
        split=None if table.split is None else table.split[rows],
    )
