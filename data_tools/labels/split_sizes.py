"""Sizes of a split that were written for a larger file: what of them a table can serve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from data_tools.graph import StructureTable
from data_tools.labels.splits import count_of, make_split

SIZES = ("train_size", "valid_size", "test_size")
DEFAULT = 0.1  # of the rows, where a size is 0: of valid always, of test for ``random``


def fit_sizes(
    kind: str,
    table: StructureTable,
    sizes: Mapping[str, int | float],
    chosen: Collection[str] = (),
    seed: int = 0,
    file: str | Path | None = None,
) -> tuple[dict[str, Any], str]:
    """Shrink sizes to a table, in proportion.

    Whole numbers that the table cannot serve share what the others leave.  Fractions, sizes of 0 and those that a
    person chose stay as they are; if nothing is left beside them, all stay, and `make_split` says what is wrong.

    Args:
        kind: of the split.
        table: the structures to split.
        sizes: value of each of `SIZES`, a number of rows, a fraction between 0 and 1, or 0 for the default.
        chosen: names of those that must not change.
        seed: as of `make_split`.
        file: as of `make_split`.

    Returns:
        The sizes, and one line that says what changed, empty where nothing did.

    Raises:
        DataError: the table does not fit the kind.
    """
    whole = make_split(kind, table, seed, file=file)
    train, test = len(whole.train), len(whole.test)
    flexible = {name: sizes[name] for name in SIZES if name not in chosen}
    fitted: dict[str, Any] = dict(sizes)
    if kind == "random":
        what = f"{len(table)} structures"
        fitted |= _shrink(sizes, len(table), chosen)
    elif kind == "two_files":
        train += len(whole.valid)
        what = f"{train} structures to learn from and {test} to test"
        fitted |= _shrink({name: sizes[name] for name in SIZES[:2]}, train, chosen)
        fitted |= {name: min(flexible[name], test) for name in flexible if name == "test_size"}
    else:
        what = f"split {kind} with {train} training structures"
        fitted |= {name: min(size, train) if name == "train_size" else 0 for name, size in flexible.items()}
    changes = [
        f"{name.removesuffix('_size')} {sizes[name]} -> {fitted[name] or 'that of the split'}"
        for name in SIZES
        if sizes[name] != fitted[name]
    ]
    return fitted, f"sizes of the profile adapted to {what}: {', '.join(changes)}" if changes else ""


def _shrink(sizes: Mapping[str, int | float], rows: int, chosen: Collection[str]) -> dict[str, int | float]:
    """Sizes that are taken from the same rows; one of 0 is the rest for train, a tenth for the others."""
    fixed, flexible = 0, {}
    for name, size in sizes.items():
        if size >= 1 and name not in chosen:
            flexible[name] = int(size)
        elif name == "train_size":
            fixed += count_of(size, rows, name) or 1  # the rest, which is 1 at least
        else:
            fixed += count_of(size or DEFAULT, rows, name)
    left, wanted = rows - fixed, sum(flexible.values())
    if wanted <= left or left < len(flexible):
        return dict(sizes)
    if not sizes["train_size"]:  # in proportion to what?  The default of the others leaves train the most
        return {name: min(size, max(1, count_of(DEFAULT, rows))) if name in flexible else size
                for name, size in sizes.items()}  # fmt: skip
    shares = {name: max(1, size * left // wanted) for name, size in flexible.items()}
    largest = max(flexible, key=lambda name: flexible[name])  # it takes what rounding leaves or lacks
    shares[largest] = min(flexible[largest], left - sum(shares.values()) + shares[largest])
    return {**sizes, **shares}
