"""The packed npz layout of QM9: a few flat arrays for all molecules together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_tools.formats.label_keys import FORCES, NO_KEYS, absent, shape_of_label
from data_tools.formats.smiles import MADE_HERE
from data_tools.graph import DataError, StructureTable
from data_tools.qm9 import origin_of
from data_tools.source_files import describe_source, read_arrays
from data_tools.tables import check_table
from data_tools.units import QM9_PROPERTIES, from_qm9_units

STRUCTURE_KEYS = ("n_atoms", "Z", "R")
LAYOUT = "n_atoms, Z, R, optionally gdb_index, split and QM9 properties in Hartree"
CONFORMER = "conformer"  # number of the geometry of a molecule: 0 its own, others made by RDKit
DIMENET_KEYS = {"id", "N", "Z", "R"}
SPLIT_NAMES = ("train", "valid", "test")


def read_npz(path: Path, keys: Mapping[str, str] = NO_KEYS) -> StructureTable:
    """A packed npz file: ``n_atoms`` (M,), ``Z`` (A,) and ``R`` (A, 3) in Angstrom for M molecules of A atoms in all.

    Optional: ``gdb_index`` (M,), ``split`` (M,) of train / valid / test, and any of the 15 QM9 properties (M,) in the
    published units (Hartree for energies).  The table's source says so where scripts/mmff_geometries.py has made some
    of the geometries (``conformer``, (M,)).  Arrays with other names are left alone and named in that source,
    but for those that ``keys`` names: properties of QM9 in the published units, ``energy`` (M,) in eV and ``forces``
    (A, 3) in eV/Angstrom.

    Raises:
        DataError: no npz file, damaged, pickled, other keys, or lengths that do not fit; or DimeNet's qm9_eV.npz.
    """
    arrays = read_arrays(path)
    if arrays.keys() >= DIMENET_KEYS:
        raise DataError(
            f"{path}: this is the layout of DimeNet's qm9_eV.npz (keys id, N, Z, R; energies in eV, ids from 0), which "
            "left out the wrong 3,054 molecules: it took the 1-based numbers of uncharacterized.txt for 0-based ones, "
            "so most of the invalid molecules are still in it; use dsgdb9nsd.xyz.tar.bz2 or gdb9.tar.gz instead"
        )
    missing = [key for key in STRUCTURE_KEYS if key not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path}: expected the arrays {LAYOUT}; {', '.join(missing)} missing, found {found[:200]} (rMD17 has "
            "nuclear_charges, coords, energies, forces; MD17 has z, R, E, F)"
        )
    n_atoms = _integers(path, arrays, "n_atoms", None)
    atoms = sum(n_atoms.tolist())  # not in 64 bits, where counts of 2^62 add up to nothing
    numbers = _integers(path, arrays, "Z", atoms)
    positions = checked_array(path, arrays, "R", "iuf", (len(numbers), 3)).astype(np.float64)
    ids = _integers(path, arrays, "gdb_index", len(n_atoms)) if "gdb_index" in arrays else np.arange(len(n_atoms))
    names = {name: name for name in QM9_PROPERTIES if name in arrays} | dict(keys)
    unread = sorted(arrays.keys() - {*STRUCTURE_KEYS, *names.values(), "gdb_index", "split"})
    table = StructureTable(
        numbers=np.clip(numbers, -1, 2**31 - 1).astype(np.int32),  # out of range must stay out of range
        positions=positions,
        n_atoms=n_atoms,
        ids=ids,
        split=_split(path, arrays, len(n_atoms)) if "split" in arrays else None,
        source=_source(path, arrays, unread),
        origin=origin_of(numbers, n_atoms) if "gdb_index" in arrays and n_atoms.min(initial=1) > 0 else "",
        unread=tuple(unread),
    )
    for label, values in _labels(path, arrays, names, len(n_atoms), keys).items():
        owner = table.of_atoms if label == FORCES else table.of_structures
        owner[label] = shape_of_label(path, table, label, values) if label in keys else values
    return check_table(path, table)


def _source(path: Path, arrays: dict[str, np.ndarray], unread: list[str]) -> str:
    """What describes a file: also that geometries in it are made by RDKit, and which arrays are not read."""
    conformers = arrays.get(CONFORMER, np.zeros(0, np.int64))
    notes = [MADE_HERE] if conformers.dtype.kind in "iu" and conformers.any() else []
    notes += [f"arrays not read: {', '.join(unread)}"] if unread else []
    return "; ".join((describe_source(path), *notes))


def _labels(
    path: Path, arrays: dict[str, np.ndarray], names: dict[str, str], count: int, keys: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The arrays that ``names`` gives for labels, in the project's units; those of ``keys`` in any shape yet."""
    for label, name in keys.items():
        if name not in arrays:
            raise DataError(absent(path, label, name, sorted(arrays)))
    shapes = {label: arrays[name].shape if label in keys else (count,) for label, name in names.items()}
    labels = {label: checked_array(path, arrays, name, "iuf", shapes[label]) for label, name in names.items()}
    properties = from_qm9_units({label: values for label, values in labels.items() if label in QM9_PROPERTIES})
    others = {label: values.astype(np.float64) for label, values in labels.items() if label not in properties}
    return properties | others


def checked_array(
    path: Path, arrays: dict[str, np.ndarray], name: str, kinds: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The array ``name`` if its kind of number and its shape are right.

    Args:
        path: the file, for the message.
        arrays: what it holds.
        name: which of them.
        kinds: letters of ``numpy.dtype.kind``.
        shape: what its shape must be.

    Raises:
        DataError: another kind or shape.
    """
    array = arrays[name]
    if array.dtype.kind not in kinds or array.shape != shape:
        raise DataError(
            f"{path}: expected {name} with shape {shape} and a type of kind {kinds}, found {array.dtype} of shape "
            f"{array.shape}; the arrays do not belong together"
        )
    return array


def _integers(path: Path, arrays: dict[str, np.ndarray], name: str, length: int | None) -> np.ndarray:
    """A list of whole numbers, of any length if ``length`` is None, as int64."""
    shape = (arrays[name].size if length is None else length,)
    return checked_array(path, arrays, name, "iu", shape).astype(np.int64)


def _split(path: Path, arrays: dict[str, np.ndarray], length: int) -> np.ndarray:
    split = checked_array(path, arrays, "split", "SU", (length,)).astype(np.str_)
    unknown = sorted(set(split.tolist()) - set(SPLIT_NAMES))
    if unknown:
        raise DataError(
            f"{path}: expected split to be one of {', '.join(SPLIT_NAMES)}, found {unknown[0]!r}; correct it"
        )
    return split
