"""Packed graph files: every structure of a data set with its pairs, as flat memory-mapped arrays in one folder.

A folder holds one ``.npy`` per array and ``manifest.json`` (format version, cutoff, source with sha256, shapes).  Only
one half of the edges is stored, with atom numbers local to the structure: see the law of pairs in ``data_tools.graph``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_tools.graph import DataError, StructureTable
from data_tools.graphs.neighbors import index_dtype, molecule_pairs, periodic_pairs, ragged_range
from data_tools.graphs.triplets import count_triplets
from data_tools.source_files import one_line, shown
from data_tools.tables import QM9, check_table, name_of_row

FORMAT = "geospore-packed-graphs-1"
MANIFEST = "manifest.json"
#: kinds of number and dimensions of each array; labels are float of any shape
KINDS = {
    "numbers": ("iu", 1),
    "positions": ("f", 2),
    "n_atoms": ("iu", 1),
    "ids": ("iu", 1),
    "n_pairs": ("iu", 1),
    "pair_receivers": ("u", 1),
    "pair_senders": ("u", 1),
    "pair_shifts": ("f", 2),
    "cells": ("f", 3),
    "split": ("U", 1),
    "names": ("U", 1),
}
REQUIRED = ("numbers", "positions", "n_atoms", "ids", "n_pairs", "pair_receivers", "pair_senders")


@dataclass(frozen=True)
class PackedGraphs:
    """A table of structures together with their neighbour pairs (M structures, A atoms, P pairs in all).

    Attributes:
        table: the structures, labels and identities; see ``StructureTable``.
        cutoff: Angstrom.
        n_pairs: (M,) int64 pairs per structure.
        pair_receivers, pair_senders: (P,) unsigned integers, atom numbers inside the structure; receivers ascend.
        pair_shifts: (P, 3) float64 Angstrom, image offset of the sender; None when no structure is periodic.
        notes: what else the manifest says.
        triplets: whether batches carry triplets; whoever opens the graphs for a model says so, no file does.
    """

    table: StructureTable
    cutoff: float
    n_pairs: np.ndarray
    pair_receivers: np.ndarray
    pair_senders: np.ndarray
    pair_shifts: np.ndarray | None = None
    notes: dict[str, object] = field(default_factory=dict)
    triplets: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def atom_starts(self) -> np.ndarray:
        """(M,) int64 first atom of each structure."""
        return np.concatenate(([0], np.cumsum(self.table.n_atoms)[:-1])).astype(np.int64)

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the atoms of some rows in the flat arrays, one structure after the other."""
        return ragged_range(self.atom_starts[rows], self.table.n_atoms[rows])

    @cached_property
    def pair_starts(self) -> np.ndarray:
        """(M,) int64 first pair of each structure."""
        return np.concatenate(([0], np.cumsum(self.n_pairs)[:-1])).astype(np.int64)

    @cached_property
    def n_triplets(self) -> np.ndarray:
        """(M,) int64 triplets that each structure brings into a batch: 0 where batches carry none."""
        if not self.triplets:
            return np.zeros(len(self), np.int64)
        return count_triplets(self.table.n_atoms, self.n_pairs, self.pair_receivers, self.pair_senders)

    @cached_property
    def costs(self) -> np.ndarray:
        """(M,) int64 edges and triplets of each structure, nearly all of its work; batches are balanced by it."""
        return 2 * self.n_pairs + self.n_triplets

    def save(self, folder: str | Path) -> None:
        """Write the folder: first under a temporary name, then renamed, so that it is there whole or not at all.

        Raises:
            DataError: the folder exists and is not a packed graph folder.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
            raise DataError(f"{folder}: expected a new folder or packed graphs, found other files; choose another name")
        temporary = folder.with_name(folder.name + f".partial-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            arrays = self._arrays()
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            manifest = {
                "format": FORMAT,
                "cutoff_angstrom": self.cutoff,
                "source": self.table.source,
                "origin": self.table.origin,
                "structures": len(self),
                "arrays": {name: list(array.shape) for name, array in arrays.items()},
                "notes": self.notes,
            }
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _arrays(self) -> dict[str, np.ndarray]:
        table = self.table
        arrays = {
            "numbers": table.numbers.astype(np.uint8),
            "positions": table.positions,
            "n_atoms": table.n_atoms,
            "ids": table.ids,
            "n_pairs": self.n_pairs,
            "pair_receivers": self.pair_receivers,
            "pair_senders": self.pair_senders,
        }
        optional = {"pair_shifts": self.pair_shifts, "cells": table.cells, "split": table.split}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        if table.names:
            arrays["names"] = np.array(table.names, dtype=np.str_)
        return arrays | {f"label_{name}": values for name, values in table.labels.items()}


def pack(table: StructureTable, cutoff: float, progress: bool = False) -> PackedGraphs:
    """Find the pairs of every structure of a table.

    Args:
        table: structures in Angstrom.
        cutoff: Angstrom, positive.
        progress: show a progress bar (a terminal) or nothing (a file).

    Raises:
        DataError: the cutoff is not positive, the table is empty, or two atoms coincide.
    """
    if not cutoff > 0:
        raise DataError(f"cutoff {cutoff} Angstrom: expected a positive number")
    if len(table) == 0:
        raise DataError("no structures to pack; expected at least one")

    file = table.source.partition(" sha256 ")[0]

    def describe(k: int) -> str:
        return f"{file}: {name_of_row(table, k)}" if file else name_of_row(table, k)

    with tqdm(total=len(table), desc="neighbours", unit="mol", disable=None if progress else True) as bar:
        if table.cells is not None:
            pairs, shifts = _pack_periodic(table, cutoff, describe, bar.update)
        else:
            pairs, shifts = molecule_pairs(table.positions, table.n_atoms, cutoff, describe, bar.update), None
    receivers, senders, n_pairs = pairs
    return PackedGraphs(table, float(cutoff), n_pairs, receivers, senders, shifts)


def _pack_periodic(
    table: StructureTable, cutoff: float, describe: Callable[[int], str], report: Callable[[int], object]
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Pairs of crystals, one structure at a time (each has its own cell); a zero cell marks a molecule."""
    assert table.cells is not None
    starts = np.concatenate(([0], np.cumsum(table.n_atoms))).astype(np.int64)
    receivers, senders, shifts = [], [], []
    for k in range(len(table)):
        positions = table.positions[starts[k] : starts[k + 1]]
        if np.any(table.cells[k]):
            one = periodic_pairs(positions, table.cells[k], cutoff, describe(k))
        else:
            first, second, _ = molecule_pairs(positions, table.n_atoms[k : k + 1], cutoff, lambda _, k=k: describe(k))  # type: ignore[misc]
            one = (first, second, np.zeros((len(first), 3)))
        receivers.append(one[0])
        senders.append(one[1])
        shifts.append(one[2])
        report(1)
    small = index_dtype(int(table.n_atoms.max()))
    n_pairs = np.array([len(r) for r in receivers], np.int64)
    pairs = (np.concatenate(receivers).astype(small), np.concatenate(senders).astype(small), n_pairs)
    return pairs, np.concatenate(shifts)


def is_packed(path: str | Path) -> bool:
    """Whether ``path`` is a packed graph folder."""
    return (Path(path) / MANIFEST).is_file()


def load(folder: str | Path) -> PackedGraphs:
    """Open a packed graph folder; arrays stay on disk until they are used.

    Raises:
        DataError: not a packed graph folder, another format version, or files that are missing or damaged.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, cutoff = manifest["format"], float(manifest["cutoff_angstrom"])
        shapes = {name: tuple(shape) for name, shape in manifest["arrays"].items()}
        notes = dict(manifest.get("notes", {}))
        origin = manifest.get("origin")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{folder}: expected a packed graph folder with a readable {MANIFEST}, got {one_line(error)[:200]}; build "
            "it again"
        ) from None
    if version != FORMAT:
        raise DataError(f"{folder}: expected format {FORMAT}, got {shown(version)}; run scripts/prepare_qm9.py again")
    if not 0 < cutoff < float("inf"):
        raise DataError(f"{folder}: expected a positive cutoff in {MANIFEST}, got {cutoff}; build the folder again")
    arrays = {name: _open_array(folder, name, shape) for name, shape in shapes.items()}
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise DataError(f"{folder}: the arrays {', '.join(missing)} are missing; build it again")
    table = StructureTable(
        numbers=arrays["numbers"],
        positions=arrays["positions"],
        n_atoms=np.asarray(arrays["n_atoms"]),
        labels={name[6:]: array for name, array in arrays.items() if name.startswith("label_")},
        ids=np.asarray(arrays["ids"]),
        names=tuple(arrays["names"].tolist()) if "names" in arrays else (),
        cells=arrays.get("cells"),
        split=np.asarray(arrays["split"]) if "split" in arrays else None,
        source=str(manifest.get("source", "")),
        origin=_origin(origin, arrays),
    )
    _check_sizes(folder, table, arrays)
    return PackedGraphs(
        table,
        cutoff,
        np.asarray(arrays["n_pairs"]),
        arrays["pair_receivers"],
        arrays["pair_senders"],
        arrays.get("pair_shifts"),
        notes,
    )


def _origin(origin: object, arrays: dict[str, np.ndarray]) -> str:
    """What the manifest says; folders of earlier versions say nothing, and those without names hold QM9."""
    if origin is None:
        return QM9 if "names" not in arrays and len(arrays["ids"]) and arrays["ids"].min() > 0 else ""
    return QM9 if origin == QM9 else ""


def _open_array(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if not (file := folder / f"{Path(name).name}.npy").is_file():
        raise DataError(f"{folder / shown(name)}.npy: missing or damaged (no such file); build the folder again")
    try:
        # a plain array over the map: indexing the memmap class itself is several times slower
        array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a header can be wrong in a dozen ways, each with its own type
        raise DataError(f"{file}: missing or damaged ({one_line(error)[:200]}); build the folder again") from None
    if array.shape != shape:
        raise DataError(f"{file}: expected shape {shown(shape)}, got {array.shape}; build the folder again")
    kinds, dimensions = KINDS.get(name, ("f", None))
    if array.dtype.kind not in kinds or (dimensions is not None and array.ndim != dimensions) or array.ndim == 0:
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{file}: expected another type, got {found}; build the folder again")
    return array


def _check_sizes(folder: Path, table: StructureTable, arrays: dict[str, np.ndarray]) -> None:
    """The counts of a packed folder must add up and its values be sound, or every later index would be wrong."""
    # not in 64 bits, where counts of 2^62 add up to nothing
    rows, atoms, pairs = len(table), sum(table.n_atoms.tolist()), sum(arrays["n_pairs"].tolist())
    expected = {name: rows for name in ("ids", "n_pairs", "names", "cells", "split")}
    expected |= {"numbers": atoms, "positions": atoms}
    expected |= {"pair_receivers": pairs, "pair_senders": pairs, "pair_shifts": pairs}
    wrong = [name for name, length in expected.items() if name in arrays and len(arrays[name]) != length]
    wrong += [f"label_{name}" for name, values in table.labels.items() if len(values) not in (rows, atoms)]
    if wrong:
        found = ", ".join(f"{len(arrays[name])} in {name}" for name in wrong)
        raise DataError(
            f"{folder}: expected {rows} structures, {atoms} atoms and {pairs} pairs as its counts say, found {found}; "
            "build the folder again"
        )
    check_table(folder, table)
    # compared in the small type of the pairs: there are a hundred times as many pairs as molecules
    sizes: np.ndarray = table.n_atoms.astype(index_dtype(int(table.n_atoms.max())))
    largest = np.repeat(sizes, arrays["n_pairs"]) if arrays["n_pairs"].min() >= 0 else np.zeros(1, np.uint8)
    if (arrays["pair_senders"] >= largest).any() or (arrays["pair_receivers"] >= largest).any():
        raise DataError(f"{folder}: expected pairs of atoms of one structure, found others; build the folder again")
