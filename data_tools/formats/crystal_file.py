"""The packed file of crystals: one npz of a table with force constants, the same bytes for the same crystals.

| array                       | shape, type            | meaning                                                  |
|-----------------------------|------------------------|----------------------------------------------------------|
| ``format``                  | () str                 | ``geospore-crystals-1``                                  |
| ``names``                   | (M,) str               | what the file calls each: ``mp-149``                     |
| ``sources``                 | (M,) str               | name and sha256 of what each was read from               |
| ``split``                   | (M,) str               | train, valid or test by material; see ``crystal_splits`` |
| ``numbers`` ... ``cells``   | see ``StructureTable`` | supercells, Angstrom                                     |
| ``force_constants_<field>`` | see ``ForceConstants`` | eV/Angstrom^2, u, Angstrom, e, THz                       |

No array is pickled; the zip has fixed times and order.  The split by chemical system is an index file beside it.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from data_tools.crystals import Crystal, table_of_crystals
from data_tools.graph import DataError, ForceConstants, StructureTable
from data_tools.labels.compact_force_constants import OWNERS
from data_tools.labels.crystal_splits import labels_by_material
from data_tools.source_files import array_names, describe_source, read_arrays, shown
from data_tools.tables import check_table, join_tables

FORMAT = "geospore-crystals-1"
FORCE_CONSTANTS = "force_constants_"
BLOCKS = FORCE_CONSTANTS + "blocks"
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
LONGEST = 1000  # characters of a name or a source
PARTS = ("train", "valid", "test")
WHOLE = ("n_primitive", "p2s", "s2p", "space_groups")  # fields of ``ForceConstants`` that are whole numbers
#: letters of ``numpy.dtype.kind``, whose rows an array has, and the shape of a row
KINDS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "names": ("U", "structures", ()),
    "sources": ("U", "structures", ()),
    "split": ("U", "structures", ()),
    "ids": ("iu", "structures", ()),
    "n_atoms": ("iu", "structures", ()),
    "cells": ("f", "structures", (3, 3)),
    "numbers": ("iu", "atoms", ()),
    "positions": ("f", "atoms", (3,)),
    **{
        f"{FORCE_CONSTANTS}{name}": ("iu" if name in WHOLE else "f", owner, row)
        for name, (owner, row) in OWNERS.items()
    },
}


class CrystalFile(NamedTuple):
    """What a packed file holds: M crystals, and per crystal the name and sha256 of what it was read from."""

    table: StructureTable
    sources: tuple[str, ...]


def is_crystal_file(names: set[str]) -> bool:
    """Whether an npz file with arrays of these names is a packed file of crystals."""
    return {"format", BLOCKS} <= names


def read_crystal_file(path: Path) -> CrystalFile:
    """The crystals of a packed file.

    Raises:
        DataError: another or a damaged file, arrays that do not belong together, or values that cannot be.
    """
    if not is_crystal_file(array_names(path)):
        raise DataError(
            f"{path}: expected a packed file of crystals, found other arrays; run scripts/prepare_crystals.py"
        )
    arrays = read_arrays(path)
    version = arrays["format"]
    if version.shape != () or str(version) != FORMAT:
        raise DataError(
            f"{path}: expected format {FORMAT}, found {shown(version)}; run scripts/prepare_crystals.py again"
        )
    wrong = [name for name, (kinds, _, row) in KINDS.items() if not _fits(arrays.get(name), kinds, row)]
    if wrong:
        found = "nothing" if wrong[0] not in arrays else f"{arrays[wrong[0]].dtype} of shape {arrays[wrong[0]].shape}"
        raise DataError(
            f"{path}: expected the array {wrong[0]} of crystals, found {found}; fetch or write the file again"
        )
    sizes, cells = arrays["n_atoms"].tolist(), arrays[f"{FORCE_CONSTANTS}n_primitive"].tolist()
    counts = {"structures": len(sizes), "atoms": sum(sizes), "primitive_atoms": sum(cells)}
    counts["blocks"] = sum(cell * size for cell, size in zip(cells, sizes, strict=False))  # not in 64 bits
    uneven = [name for name, (_, owner, _) in KINDS.items() if len(arrays[name]) != counts[owner]]
    if uneven or min(sizes, default=0) < 1 or min(cells) < 1:
        name = uneven[0] if uneven else "n_atoms"
        raise DataError(
            f"{path}: expected {counts['structures']} crystals with {counts['atoms']} atoms, as the counts say, found "
            f"{len(arrays[name])} in {name}; fetch or write the file again"
        )
    unknown = sorted(set(arrays["split"].tolist()) - set(PARTS))
    if unknown:
        raise DataError(
            f"{path}: expected split to be one of {', '.join(PARTS)}, found {shown(unknown[0])}; correct it"
        )
    return CrystalFile(_table(path, arrays), tuple(map(_text, arrays["sources"].tolist())))


def _text(words: str) -> str:
    """A text of the file, of which a message can be made."""
    return words if words.isprintable() and len(words) <= LONGEST else shown(words)


def _fits(array: np.ndarray | None, kinds: str, row: tuple[int, ...]) -> bool:
    return array is not None and array.ndim > 0 and array.dtype.kind in kinds and array.shape[1:] == row


def _table(path: Path, arrays: dict[str, np.ndarray]) -> StructureTable:
    """Arrays of the right sizes as a table, in the types of the project."""
    whole = {name: values.astype(np.int64) for name, values in arrays.items() if values.dtype.kind in "iu"}
    plain = {name: values.astype(np.float64) for name, values in arrays.items() if values.dtype.kind == "f"}
    fields = {name: (whole | plain)[f"{FORCE_CONSTANTS}{name}"] for name in OWNERS}
    table = StructureTable(
        numbers=np.clip(whole["numbers"], -1, 2**31 - 1).astype(np.int32),  # out of range must stay out of range
        positions=plain["positions"],
        n_atoms=whole["n_atoms"],
        ids=whole["ids"],
        force_constants=ForceConstants(**fields),
        names=tuple(map(_text, arrays["names"].tolist())),
        cells=plain["cells"],
        split=arrays["split"],
        source=describe_source(path),
    )
    return check_table(path, table)


def write_crystals(path: Path, crystals: Sequence[Crystal], sources: Sequence[str], seed: int = 0) -> None:
    """Write a packed file under a temporary name, then rename it.

    Args:
        path: the file.
        crystals: M of them.
        sources: per crystal the name and sha256 of what it was read from.
        seed: of the split by material.

    Raises:
        DataError: as ``table_of_crystals``.
    """
    table = table_of_crystals(path, crystals, "")
    assert table.force_constants is not None
    _write(path, _arrays(table, sources, seed), [table.force_constants.blocks])


def join_crystal_files(path: Path, parts: Sequence[Path], seed: int = 0) -> StructureTable:
    """Write the crystals of several packed files as one, of which only one at a time is in memory with its blocks.

    Args:
        path: the file.
        parts: packed files, in the order in which the crystals shall stand.
        seed: of the split by material.

    Returns:
        The table without force constants.

    Raises:
        DataError: a part is damaged.
    """
    tables: list[StructureTable] = []
    sources: list[str] = []
    for part in parts:
        table, one = read_crystal_file(part)
        constants = table.force_constants
        assert constants is not None
        kept = dataclasses.replace(constants, blocks=np.broadcast_to(np.zeros((3, 3)), constants.blocks.shape))
        tables.append(dataclasses.replace(table, force_constants=kept))
        sources.extend(one)
    arrays: dict[str, np.ndarray] = {}
    several = [_arrays(table, [""] * len(table), seed) for table in tables]
    for name in several[0]:
        arrays[name] = several[0][name] if name == "format" else np.concatenate([one[name] for one in several])
    arrays["ids"], arrays["sources"] = np.arange(len(sources)), np.array(sources, np.str_)

    def blocks() -> Iterator[np.ndarray]:
        for part in parts:
            yield read_arrays(part, {BLOCKS})[BLOCKS]

    _write(path, arrays, blocks())
    names = tuple(name for table in tables for name in table.names)
    return dataclasses.replace(join_tables(tables, [""] * len(tables)), names=names, force_constants=None)


def _arrays(table: StructureTable, sources: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Every array of the file but the blocks, in the order in which they stand there."""
    constants = table.force_constants
    assert constants is not None and table.cells is not None
    arrays = {
        "format": np.array(FORMAT),
        "names": np.array(table.names, np.str_),
        "sources": np.array(sources, np.str_),
        "split": labels_by_material(table.names, seed),
        "ids": table.ids,
        "n_atoms": table.n_atoms,
        "cells": table.cells,
        "numbers": table.numbers.astype(np.uint8),
        "positions": table.positions,
    }
    fields = {f"{FORCE_CONSTANTS}{name}": getattr(constants, name) for name in OWNERS if name != "blocks"}
    return arrays | fields


def _write(path: Path, arrays: dict[str, np.ndarray], blocks: Iterable[np.ndarray]) -> None:
    """The same bytes for the same arrays, there whole or not at all."""
    n_atoms, n_primitive = arrays["n_atoms"], arrays[f"{FORCE_CONSTANTS}n_primitive"]
    shape = (int((n_atoms * n_primitive).sum()), 3, 3)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with _member(archive, name) as stream:
                    np.lib.format.write_array(stream, array, (1, 0), allow_pickle=False)
            with _member(archive, BLOCKS) as stream:
                header = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for part in blocks:
                    stream.write(np.ascontiguousarray(part, "<f8").tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A member whose header says the same on every day and every system."""
    info = zipfile.ZipInfo(f"{name}.npy", TIME)
    info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o600 << 16
    return archive.open(info, "w", force_zip64=True)
