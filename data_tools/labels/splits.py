"""Which molecules train, which validate, which test: named splits, and their index files.

| kind      | train / valid / test                                                                                    |
|-----------|---------------------------------------------------------------------------------------------------------|
| cormorant | 100,000 / 17,748 / 13,083 of QM9 by gdb index (Cormorant, EGNN, SEGNN); of a part of QM9 what it holds  |
| 110k      | 110,000 / 10,000 / the rest, by seed (SchNet, DimeNet++, Equiformer)                                    |
| random    | sizes or fractions, by seed                                                                             |
| sample    | the shipped molecules: 18,000 / 2,000 / 2,807 from default_rng(0)                                       |
| labelled  | the file's own labels                                                                                   |
| two_files | rows labelled test stay so, those labelled train are divided into train and valid, by seed              |
| file      | an index file (npz of `save_split`, or csv with the header ``position,split``)                          |

Results on different splits are not comparable: every table names its split.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, StructureTable
from data_tools.source_files import one_line, read_arrays, read_text, require_file, shown, storable
from data_tools.tables import QM9

KINDS = ("cormorant", "110k", "random", "sample", "labelled", "two_files", "file")
CORMORANT_FILE = Path(__file__).parents[1] / "samples" / "egnn_cormorant_split_gdb_index_1based.npz"
QM9_RAW_SIZE = 133_885
SAMPLE_SIZE, SAMPLE_TEST, SAMPLE_VALID = 22_807, 2_807, 2_000
_SAMPLE_CHECKSUM = 3_886_175_329  # zlib.crc32 of the gdb indices as little-endian int64
CHOOSE_SIZES = ("random", "two_files")
SMALLER = "choose smaller sizes, or fractions such as 0.8"
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Positions into a table; no position is in two parts or twice in one.

    Attributes:
        train: (K,) int64, in the order that subsets are taken from.
        valid: (K,) int64.
        test: (K,) int64.
        name: what tables of results call it.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    name: str

    def __post_init__(self) -> None:
        for part in _PARTS:
            positions = np.asarray(getattr(self, part))
            if positions.ndim != 1 or (len(positions) and not np.issubdtype(positions.dtype, np.integer)):
                raise DataError(f"split '{self.name}': {part} must hold whole numbers, got {positions.dtype}")
            # a number beyond 64 bits with a sign must not come back as another
            object.__setattr__(self, part, np.minimum(positions, 2**62).astype(np.int64))
        everything = np.concatenate([self.train, self.valid, self.test])
        values, counts = np.unique(everything, return_counts=True)
        if len(values) < len(everything):
            raise DataError(
                f"split '{self.name}': {len(everything) - len(values)} positions occur twice, for example "
                f"{values[counts > 1][0]}; train, valid and test must not overlap"
            )

    def subset(self, size: int) -> Split:
        """The same split with the first ``size`` training molecules.

        Raises:
            DataError: fewer than 1 or more than there are.
        """
        if not 1 <= size <= len(self.train):
            raise DataError(f"train_size 1..{len(self.train)} expected for split '{self.name}', got {size}")
        name = self.name if size == len(self.train) else f"{self.name}-train{size}"
        return replace(self, train=self.train[:size], name=name)


def make_split(
    kind: str,
    table: StructureTable,
    seed: int = 0,
    train_size: int | float | None = None,
    valid_size: int | float | None = None,
    test_size: int | float | None = None,
    file: str | Path | None = None,
) -> Split:
    """Build the split of a table.

    Args:
        kind: one of `KINDS`.
        table: the structures to split.
        seed: of the permutation, for ``110k``, ``random`` and ``two_files``.
        train_size: take the first so many training molecules (int), or this fraction (float, of the table for
            ``random``, of the rows to learn from for ``two_files``, else of the training part).  None: all.
        valid_size: only for ``random`` and ``two_files``, same meaning; None: a tenth (of the rows to learn from).
        test_size: only for these, same meaning; None: a tenth, for ``two_files`` all.
        file: only for ``file``, the index file.

    Raises:
        DataError: an unknown kind, options of another kind, sizes that the table cannot serve, or a table that the
            kind does not fit.
    """
    builders: dict[str, Callable[[], Split]] = {
        "cormorant": lambda: _cormorant_split(table),
        "110k": lambda: _split_110k(table, seed),
        "random": lambda: _random_split(table, seed, train_size, valid_size, test_size),
        "sample": lambda: _sample_split(table),
        "labelled": lambda: _labelled_split(table),
        "two_files": lambda: _two_files_split(table, seed, train_size, valid_size, test_size),
        "file": lambda: load_split(str(file)),
    }
    if kind not in builders:
        raise DataError(f"unknown split '{kind}': one of {', '.join(KINDS)} expected")
    if (kind == "file") != (file is not None):
        raise DataError(f"an index file belongs to split 'file' and to no other: split '{kind}' with file {file}")
    if kind not in CHOOSE_SIZES and (valid_size is not None or test_size is not None):
        raise DataError(f"split '{kind}' fixes its valid and test molecules: remove valid_size and test_size")
    split = builders[kind]()
    _check_range(split, len(table), "" if file is None else f"{file}: ")
    if kind in CHOOSE_SIZES or train_size is None:
        return split
    return split.subset(count_of(train_size, len(split.train), "train_size"))


def count_of(size: int | float, total: int, what: str = "size") -> int:
    """A number of molecules from a number (int) or a fraction (float below 1).

    Raises:
        DataError: it is neither, or more than the total.
    """
    if isinstance(size, float) and 0 < size < 1:
        return int(size * total + 1e-9)  # 0.29 of 100 are 29, though their product is a little less
    if isinstance(size, bool) or size != int(size) or not 0 <= size <= total:
        raise DataError(f"{what}: a whole number up to {total} or a fraction between 0 and 1 expected, got {size}")
    return int(size)


def save_split(split: Split, path: str | Path) -> None:
    """Write an index file (npz) under a temporary name, then rename it, so that no half file is ever left.

    Args:
        split: the split.
        path: file to write.

    Raises:
        DataError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, train=split.train, valid=split.valid, test=split.test, name=split.name)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write split {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_split(path: str | Path) -> Split:
    """Read an index file: npz of `save_split`, or csv with the header ``position,split`` (0-based positions).

    Raises:
        DataError: the file is missing, corrupt or of another layout.
    """
    path = Path(path)
    try:
        require_file(path, "a split file")
        return _read_csv(path) if path.suffix.lower() == ".csv" else _read_npz(path)
    except (OSError, ValueError, OverflowError, csv.Error) as error:  # DataError is a ValueError
        words = one_line(error).removeprefix(f"{path}: ")[:300]
        raise DataError(words if str(path) in words else f"split file {path} cannot be read: {words}") from None


def digest(split: Split) -> str:
    """The SHA-256 of the positions of a split."""
    sha256 = hashlib.sha256()
    for part in _PARTS:
        positions = getattr(split, part)
        sha256.update(len(positions).to_bytes(8, "little") + np.asarray(positions, "<i8").tobytes())
    return sha256.hexdigest()


def stored_digest(path: Path) -> str:
    """The ``digest`` of an index file that a run has stored; empty where there is none."""
    return digest(load_split(path)) if path.is_file() else ""


def contains_element(table: StructureTable, atomic_number: int, positions: np.ndarray | None = None) -> np.ndarray:
    """Which structures contain an element.

    Args:
        table: the structures.
        atomic_number: the element.
        positions: (K,) int64 rows of the table; None: all.

    Returns:
        (K,) bool.
    """
    structure_of_atom = np.repeat(np.arange(len(table)), table.n_atoms)
    found = np.bincount(structure_of_atom[table.numbers == atomic_number], minlength=len(table)) > 0
    return found if positions is None else found[positions]


def fluorine_mask(table: StructureTable, positions: np.ndarray | None = None) -> np.ndarray:
    """`contains_element` for fluorine.

    The shipped molecules labelled ``train`` by the Cormorant split hold no fluorine, of its test rows 1.6 % do: a model
    trained on them has never seen the element, so tables report these molecules apart.
    """
    return contains_element(table, 9, positions)


def _cormorant_split(table: StructureTable) -> Split:
    """The published sets in the published order, restricted to the molecules of the table."""
    ids = np.asarray(table.ids, np.int64)
    if table.origin != QM9:
        raise DataError("split 'cormorant' is by gdb index, and these data are not QM9: use 'random' or 'labelled'")
    if len(ids) == 0 or ids.min() < 1 or ids.max() > QM9_RAW_SIZE or len(np.unique(ids)) < len(ids):
        raise DataError(f"split 'cormorant' is by gdb index: distinct ids 1..{QM9_RAW_SIZE} of QM9 expected")
    position_of = np.full(QM9_RAW_SIZE + 1, -1, np.int64)
    position_of[ids] = np.arange(len(ids))
    with np.load(CORMORANT_FILE, allow_pickle=False) as published:
        parts = {part: position_of[published[part]] for part in _PARTS}
    return Split(**{part: positions[positions >= 0] for part, positions in parts.items()}, name="cormorant")


def _split_110k(table: StructureTable, seed: int) -> Split:
    if len(table) <= 120_000:
        raise DataError(f"split '110k' needs more than 120,000 molecules (QM9 has 130,831), got {len(table)}")
    order = np.random.default_rng(seed).permutation(len(table))
    return Split(order[:110_000], order[110_000:120_000], order[120_000:], f"110k-seed{seed}")


def _random_split(
    table: StructureTable,
    seed: int,
    train_size: int | float | None,
    valid_size: int | float | None,
    test_size: int | float | None,
) -> Split:
    """Test first, then valid, then train: another train_size leaves the other two and the order of train alone."""
    total = len(table)
    n_test = count_of(0.1 if test_size is None else test_size, total, "test_size")
    n_valid = count_of(0.1 if valid_size is None else valid_size, total, "valid_size")
    n_train = total - n_test - n_valid if train_size is None else count_of(train_size, total, "train_size")
    if n_train < 1 or n_train + n_valid + n_test > total:
        wanted = f"{n_train} train + {n_valid} valid + {n_test} test molecules"
        raise DataError(f"{wanted} do not fit into {total}; {SMALLER}")
    order = np.random.default_rng(seed).permutation(total)
    used = n_test + n_valid
    name = f"random-{n_train}-{n_valid}-{n_test}-seed{seed}"
    return Split(order[used : used + n_train], order[n_test:used], order[:n_test], name)


def _two_files_split(
    table: StructureTable,
    seed: int,
    train_size: int | float | None,
    valid_size: int | float | None,
    test_size: int | float | None,
) -> Split:
    """Valid first, then train, as in `_random_split`; the test rows keep their order."""
    whole = _labelled_split(table)
    if len(whole.valid) or not len(whole.test):
        raise DataError("split 'two_files' needs rows labelled train and test: give data.train_file and data.test_file")
    learn = whole.train[np.random.default_rng(seed).permutation(len(whole.train))]
    n_valid = count_of(0.1 if valid_size is None else valid_size, len(learn), "valid_size")
    n_train = len(learn) - n_valid if train_size is None else count_of(train_size, len(learn), "train_size")
    n_test = len(whole.test) if test_size is None else count_of(test_size, len(whole.test), "test_size")
    if n_train < 1 or n_train + n_valid > len(learn):
        raise DataError(
            f"{n_train} train + {n_valid} valid structures do not fit into the {len(learn)} to learn from; {SMALLER}"
        )
    name = f"two_files-{n_train}-{n_valid}-{n_test}-seed{seed}"
    return Split(learn[n_valid : n_valid + n_train], learn[:n_valid], whole.test[:n_test], name)


def _sample_split(table: StructureTable) -> Split:
    checksum = zlib.crc32(np.asarray(table.ids, "<i8").tobytes())
    if len(table) != SAMPLE_SIZE or checksum != _SAMPLE_CHECKSUM:
        raise DataError(
            f"split 'sample' belongs to the {SAMPLE_SIZE:,} shipped QM9 molecules in their order; this table has "
            f"{len(table):,} rows or another order: use 'random' or 'cormorant'"
        )
    order = np.random.default_rng(0).permutation(SAMPLE_SIZE)
    used = SAMPLE_TEST + SAMPLE_VALID
    return Split(order[used:], order[SAMPLE_TEST:used], order[:SAMPLE_TEST], "sample")


def _labelled_split(table: StructureTable) -> Split:
    if table.split is None:
        raise DataError("split 'labelled' needs a file that labels its rows; this one does not: use 'random'")
    unknown = sorted({str(label) for label in table.split} - set(_PARTS))
    if unknown:
        raise DataError(f"row labels train, valid and test expected, got also {', '.join(map(repr, unknown))}")
    return Split(**{part: np.flatnonzero(table.split == part) for part in _PARTS}, name="labelled")


def _read_npz(path: Path) -> Split:
    content = read_arrays(path)
    # The name tells an index file of ours from published ones, whose numbers are 1-based gdb indices.
    missing = {*_PARTS, "name"} - set(content)
    if missing:
        raise DataError(
            f"split file {path} lacks {', '.join(sorted(missing))}: arrays train, valid, test of 0-based positions "
            "and a name expected"
        )
    return Split(content["train"], content["valid"], content["test"], shown(content["name"]))


def _read_csv(path: Path) -> Split:
    rows = csv.DictReader(read_text(path, "a split file").splitlines())
    if rows.fieldnames is None or not {"position", "split"} <= set(rows.fieldnames):
        raise DataError(f"split file {path}: the header position,split expected, got {shown(rows.fieldnames)}")
    parts: dict[str, list[int]] = {part: [] for part in _PARTS}
    for row in rows:
        if row["split"] not in parts:
            found = shown(row["split"])
            raise DataError(f"split file {path} line {rows.line_num}: train, valid or test expected, got {found}")
        parts[row["split"]].append(int(row["position"] or ""))  # None where the row is too short
    return Split(**{part: np.array(positions, np.int64) for part, positions in parts.items()}, name=storable(path.stem))


def _check_range(split: Split, total: int, where: str) -> None:
    everything = np.concatenate([split.train, split.valid, split.test])
    if len(split.train) == 0:
        raise DataError(f"{where}split '{split.name}' leaves no training molecule in this table of {total}")
    if everything.min() < 0 or everything.max() >= total:
        raise DataError(
            f"{where}split '{split.name}' has positions {everything.min()}..{everything.max()}: 0..{total - 1} expected"
        )
