"""Packed graphs as a folder: memory-mapped arrays, each named by its owner, and a manifest.

A folder holds one ``.npy`` per array and ``manifest.json``: format, cutoff, source with sha256, origin, and per array
its owner, shape and unit.  The owner says what its rows are: structures, atoms, pairs, primitive_atoms or blocks.

| array                              | owner                             | unit                                       |
|------------------------------------|-----------------------------------|--------------------------------------------|
| ``structure_<label>``              | structures                        | of the label; empty where the project has  |
| ``atom_<label>``                   | atoms                             | none for it                                |
| ``force_constants_<field>``        | see ``ForceConstants``            | eV/Angstrom^2, u, Angstrom, e, THz         |
| the others                         | see ``StructureTable``, ``PackedGraphs`` | Angstrom                            |
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from data_tools.graph import DataError, ForceConstants, StructureTable
from data_tools.graphs.neighbors import index_dtype
from data_tools.graphs.packed import PackedGraphs
from data_tools.source_files import one_line, shown
from data_tools.tables import check_table
from data_tools.units import LABEL_UNITS

FORMAT, EARLIER = "geospore-packed-graphs-2", ("geospore-packed-graphs-1",)
MANIFEST = "manifest.json"
SHOWN = 3  # arrays in a message


class Kind(NamedTuple):
    """What an array must be: letters of ``numpy.dtype.kind``, whose rows it has, the shape of a row, and its unit."""

    kinds: str
    owner: str
    row: tuple[int, ...] = ()
    unit: str = ""


KINDS = {
    "numbers": Kind("iu", "atoms"),
    "positions": Kind("f", "atoms", (3,), "Angstrom"),
    "n_atoms": Kind("iu", "structures"),
    "ids": Kind("iu", "structures"),
    "n_pairs": Kind("iu", "structures"),
    "pair_receivers": Kind("u", "pairs"),
    "pair_senders": Kind("u", "pairs"),
    "pair_shifts": Kind("f", "pairs", (3,), "Angstrom"),
    "cells": Kind("f", "structures", (3, 3), "Angstrom"),
    "split": Kind("U", "structures"),
    "names": Kind("U", "structures"),
    "force_constants_blocks": Kind("f", "blocks", (3, 3), "eV/Angstrom^2"),
    "force_constants_n_primitive": Kind("iu", "structures"),
    "force_constants_p2s": Kind("iu", "primitive_atoms"),
    "force_constants_s2p": Kind("iu", "atoms"),
    "force_constants_masses": Kind("f", "atoms", (), "u"),
    "force_constants_primitive_cells": Kind("f", "structures", (3, 3), "Angstrom"),
    "force_constants_born": Kind("f", "primitive_atoms", (3, 3), "e"),
    "force_constants_dielectric": Kind("f", "structures", (3, 3)),
    "force_constants_space_groups": Kind("iu", "structures"),
    "force_constants_lowest_frequencies": Kind("f", "structures", (2,), "THz"),
}
REQUIRED = ("numbers", "positions", "n_atoms", "ids", "n_pairs", "pair_receivers", "pair_senders")
OF_FORCE_CONSTANTS = tuple(name for name in KINDS if name.startswith("force_constants_"))
LABEL_OWNERS = {"structure_": "structures", "atom_": "atoms"}  # beginning of the name of an array -> its owner


def is_packed(path: str | Path) -> bool:
    """Whether ``path`` is a packed graph folder."""
    return (Path(path) / MANIFEST).is_file()


def save(packed: PackedGraphs, folder: str | Path) -> None:
    """Write the folder: first under a temporary name, then renamed, so that it is there whole or not at all.

    Raises:
        DataError: the folder exists and is not a packed graph folder.
    """
    folder = Path(folder)
    if folder.exists() and not is_packed(folder) and any(folder.iterdir()):
        raise DataError(f"{folder}: expected a new folder or packed graphs, found other files; choose another name")
    temporary = folder.with_name(folder.name + f".partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        arrays, described = _arrays(packed), {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            kind = _kind_of(name)
            assert kind is not None
            described[name] = {"owner": kind.owner, "shape": list(array.shape), "unit": kind.unit}
        manifest = {
            "format": FORMAT,
            "cutoff_angstrom": packed.cutoff,
            "source": packed.table.source,
            "origin": packed.table.origin,
            "structures": len(packed),
            "arrays": described,
            "notes": packed.notes,
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _arrays(packed: PackedGraphs) -> dict[str, np.ndarray]:
    """Every array of the folder by its name."""
    table = packed.table
    arrays = {
        "numbers": table.numbers.astype(np.uint8),
        "positions": table.positions,
        "n_atoms": table.n_atoms,
        "ids": table.ids,
        "n_pairs": packed.n_pairs,
        "pair_receivers": packed.pair_receivers,
        "pair_senders": packed.pair_senders,
    }
    optional = {"pair_shifts": packed.pair_shifts, "cells": table.cells, "split": table.split}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    if table.names:
        arrays["names"] = np.array(table.names, dtype=np.str_)
    if table.force_constants is not None:
        arrays |= {f"force_constants_{name}": array for name, array in vars(table.force_constants).items()}
    for labels, begin in zip((table.of_structures, table.of_atoms), LABEL_OWNERS, strict=True):
        arrays |= {begin + quote(name, safe=""): values for name, values in labels.items()}
    return arrays


def _kind_of(name: str) -> Kind | None:
    """What the array of a name must be; the row of a label has any shape.  None for a name that no array has."""
    for begin, owner in LABEL_OWNERS.items():
        if name.startswith(begin):
            return Kind("f", owner, (), LABEL_UNITS.get(unquote(name.removeprefix(begin)), ""))
    return KINDS.get(name)


def load(folder: str | Path) -> PackedGraphs:
    """Open a packed graph folder; arrays stay on disk until they are used.

    Raises:
        DataError: not a packed graph folder, another format, or files that are missing or damaged.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    arrays = {name: _open_array(folder, name, one) for name, one in manifest["arrays"].items()}
    missing = [name for name in REQUIRED if name not in arrays]
    if any(name in arrays for name in OF_FORCE_CONSTANTS):
        missing += [name for name in OF_FORCE_CONSTANTS if name not in arrays]
    if missing:
        raise DataError(f"{folder}: the arrays {', '.join(missing)} are missing; build it again")
    table = StructureTable(
        numbers=arrays["numbers"],
        positions=arrays["positions"],
        n_atoms=arrays["n_atoms"],
        ids=arrays["ids"],
        of_structures=_labels(arrays, "structure_"),
        of_atoms=_labels(arrays, "atom_"),
        force_constants=_force_constants(arrays),
        names=tuple(arrays["names"].tolist()) if "names" in arrays else (),
        cells=arrays.get("cells"),
        split=arrays.get("split"),
        source=manifest["source"],
        origin=manifest["origin"],
    )
    _check_sizes(folder, table, arrays)
    return PackedGraphs(
        table,
        manifest["cutoff"],
        arrays["n_pairs"],
        arrays["pair_receivers"],
        arrays["pair_senders"],
        arrays.get("pair_shifts"),
        manifest["notes"],
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The entries of the manifest that are used, each of its type; shapes are tuples."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = content["format"]
        if version in EARLIER:
            raise DataError(_make_anew(folder, content))
        if version != FORMAT:
            raise DataError(
                f"{folder}: expected format {FORMAT}, got {shown(version)}; run scripts/prepare_qm9.py again"
            )
        manifest: dict[str, Any] = {
            "cutoff": float(content["cutoff_angstrom"]),
            "source": str(content["source"]),
            "origin": str(content["origin"]),
            "notes": dict(content["notes"]),
            "arrays": {
                name: {"owner": str(one["owner"]), "shape": tuple(one["shape"]), "unit": str(one["unit"])}
                for name, one in content["arrays"].items()
            },
        }
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{folder}: expected a packed graph folder with a readable {MANIFEST}, got {one_line(error)[:200]}; build "
            "it again"
        ) from None
    if not 0 < manifest["cutoff"] < float("inf"):
        raise DataError(
            f"{folder}: expected a positive cutoff in {MANIFEST}, got {manifest['cutoff']}; build the folder again"
        )
    return manifest


def _make_anew(folder: Path, manifest: dict[str, Any]) -> str:
    """The message for a folder of an earlier format: the command that makes it again."""
    source = str(manifest.get("source", "")).partition(" sha256 ")[0].partition(":")[0]
    file = shlex.quote(shown(source)) if source else "FILE"
    cutoff = float(manifest["cutoff_angstrom"])
    return (
        f"{folder}: expected format {FORMAT}, got {shown(manifest['format'])} of an earlier version; make it anew: "
        f"python scripts/prepare_qm9.py --source {file} --output {shlex.quote(str(folder))} --cutoff {cutoff!r}"
    )


def _labels(arrays: dict[str, np.ndarray], begin: str) -> dict[str, np.ndarray]:
    return {unquote(name.removeprefix(begin)): values for name, values in arrays.items() if name.startswith(begin)}


def _force_constants(arrays: dict[str, np.ndarray]) -> ForceConstants | None:
    if OF_FORCE_CONSTANTS[0] not in arrays:
        return None
    return ForceConstants(**{name.removeprefix("force_constants_"): arrays[name] for name in OF_FORCE_CONSTANTS})


def _open_array(folder: Path, name: str, described: dict[str, Any]) -> np.ndarray:
    kind, file = _kind_of(name), folder / f"{Path(name).name}.npy"
    if not file.is_file():
        raise DataError(f"{folder / shown(name)}.npy: missing or damaged (no such file); build the folder again")
    if kind is None or (described["owner"], described["unit"]) != (kind.owner, kind.unit):
        expected = "no such array" if kind is None else f"the owner {kind.owner} and the unit '{kind.unit}'"
        found = f"the owner {shown(described['owner'])} and the unit '{shown(described['unit'])}'"
        raise DataError(f"{file}: expected {expected}, {MANIFEST} says {found}; build the folder again")
    try:
        with warnings.catch_warnings():  # of a damaged header, beside the error that follows
            warnings.simplefilter("ignore")
            # a plain array over the map: indexing the memmap class itself is several times slower
            array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a header can be wrong in a dozen ways, each with its own type
        raise DataError(f"{file}: missing or damaged ({one_line(error)[:200]}); build the folder again") from None
    if array.shape != described["shape"]:
        raise DataError(
            f"{file}: expected shape {shown(described['shape'])}, got {array.shape}; build the folder again"
        )
    right = array.shape[1:] == kind.row if name in KINDS else True
    if array.dtype.kind not in kind.kinds or array.ndim == 0 or not right:
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{file}: expected another type, got {found}; build the folder again")
    return array


def _check_sizes(folder: Path, table: StructureTable, arrays: dict[str, np.ndarray]) -> None:
    """The counts of a packed folder must add up and its values be sound, or every later index would be wrong."""
    # not in 64 bits, where counts of 2^62 add up to nothing
    sizes: list[int] = table.n_atoms.tolist()
    counts = {"structures": len(table), "atoms": sum(sizes), "pairs": sum(arrays["n_pairs"].tolist())}
    if table.force_constants is not None:
        cells: list[int] = table.force_constants.n_primitive.tolist()
        counts["primitive_atoms"] = sum(cells)
        counts["blocks"] = sum(cell * size for cell, size in zip(cells, sizes, strict=False))
    owners = {name: kind.owner for name in arrays if (kind := _kind_of(name)) is not None}
    wrong = [name for name, owner in owners.items() if len(arrays[name]) != counts[owner]]
    if wrong:
        found = ", ".join(f"{len(arrays[name])} in {name}" for name in wrong[:SHOWN]) + " ..." * (len(wrong) > SHOWN)
        expected = ", ".join(f"{count} {owner}" for owner, count in counts.items())
        raise DataError(f"{folder}: expected {expected} as its counts say, found {found}; build the folder again")
    check_table(folder, table)
    # compared in the small type of the pairs: there are a hundred times as many pairs as molecules
    small: np.ndarray = table.n_atoms.astype(index_dtype(int(table.n_atoms.max())))
    largest = np.repeat(small, arrays["n_pairs"]) if arrays["n_pairs"].min() >= 0 else np.zeros(1, np.uint8)
    if (arrays["pair_senders"] >= largest).any() or (arrays["pair_receivers"] >= largest).any():
        raise DataError(f"{folder}: expected pairs of atoms of one structure, found others; build the folder again")
