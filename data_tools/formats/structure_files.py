"""One structure of a file that a table names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.source_files import one_line, require_file, shown
from data_tools.tables import LARGEST_COORDINATE

#: endings of crystals, and how ASE calls their formats; files called POSCAR or CONTCAR are of the second
CRYSTALS = {".cif": "cif", ".vasp": "vasp", ".poscar": "vasp"}
VASP_NAMES = ("POSCAR", "CONTCAR")
OTHERS = (".xyz", ".extxyz", ".sdf")
LARGEST_FILE = 1 << 26  # bytes of one structure
WHOLE = 1e-6  # deviation from 1 of the occupation of a site


def read_structure(
    table: Path, place: str, name: str, read: Callable[[Path], StructureTable]
) -> tuple[Path, Structure]:
    """The structure of a file that a row names, which lies in the folder of the table or below.

    Args:
        table: the file that names it.
        place: where it does, for messages.
        name: relative to the folder of the table.
        read: reads what is no cif or POSCAR.

    Returns:
        Its path, and the structure with ``name`` as its name.

    Raises:
        DataError: a name that leads out of the folder, no such file, another format, no structure or several.
    """
    where = f"{table}: {place}"
    if not name:
        raise DataError(f"{where}: expected the name of a file, found nothing; fill it in or remove the row")
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if not name.isprintable() or ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise DataError(
            f"{where}: expected the name of a file in the folder of the table or below, found '{shown(name)}'; put the "
            "files there and write their names relative to it"
        )
    file = table.parent / name
    kind = "vasp" if file.name.startswith(VASP_NAMES) else CRYSTALS.get(file.suffix.lower())
    if kind is None and file.suffix.lower() not in OTHERS:
        raise DataError(
            f"{where}: expected a file {', '.join((*OTHERS, *CRYSTALS))} or POSCAR, found '{shown(name)}'; convert it"
        )
    require_file(file, f"the structure of {place} of {table.name}", LARGEST_FILE)
    if kind is not None:
        return file, _crystal(file, kind, name)
    found = read(file)
    if len(found) != 1:
        raise DataError(f"{file}: expected one structure, found {len(found)}; write the one that is meant")
    cell = None if found.cells is None or not found.cells[0].any() else found.cells[0]
    return file, Structure(found.numbers, found.positions, cell, name)


def _crystal(file: Path, kind: str, name: str) -> Structure:
    import ase.io  # noqa: PLC0415  (heavy)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames: Any = ase.io.read(file, index=":", format=kind)
    except Exception as error:  # of ASE's readers
        raise DataError(
            f"{file}: expected a crystal, cannot read it ({type(error).__name__}: {one_line(error)[:200]}); check it"
        ) from None
    if len(frames) != 1 or not len(frames[0]):
        raise DataError(f"{file}: expected one crystal, found {len(frames)} structures; write the one that is meant")
    atoms = frames[0]
    sound = (np.abs(atoms.cell.array) <= LARGEST_COORDINATE).all()  # NaN is not
    if not atoms.pbc.all() or not sound or abs(atoms.cell.volume) < WHOLE:
        raise DataError(f"{file}: expected a crystal that is periodic in three directions, found {atoms.cell.array}")
    occupied = atoms.info.get("occupancy") or {}
    if any(abs(share - 1) > WHOLE for site in occupied.values() for share in site.values()):
        raise DataError(f"{file}: expected sites with one whole atom each, found sites occupied in part; order them")
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, np.array(atoms.cell, np.float64), name)
