"""What float16 does to numbers that are known in float64: counts of overflow and underflow, and errors."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_ranges.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LARGEST, NORMAL, SMALLEST = 65504.0, 2.0**-14, 2.0**-24  # of float16; below NORMAL it has fewer digits
#: smaller than this beside the largest number of a tensor is the rounding of a zero in float64, and counts as 0
ROUNDING = 1e-13


class Range(NamedTuple):
    """Numbers in float64 and what becomes of them in float16.

    Attributes:
        values: how many are not 0.
        smallest, largest: of the magnitudes that are not 0.
        overflow: become infinite, or no number.
        zero: become 0.
        subnormal: keep less than 11 bits.
    """

    values: int
    smallest: float
    largest: float
    overflow: int
    zero: int
    subnormal: int

    def __add__(self, other: tuple) -> Range:  # type: ignore[override]
        """Both sets of numbers."""
        theirs = Range(*other)
        return Range(
            self.values + theirs.values,
            min(self.smallest, theirs.smallest),
            max(self.largest, theirs.largest),
            self.overflow + theirs.overflow,
            self.zero + theirs.zero,
            self.subnormal + theirs.subnormal,
        )


NOTHING = Range(0, np.inf, 0.0, 0, 0, 0)


class Error(NamedTuple):
    """How far numbers are off, over the root of the mean square of the exact ones; infinite where one is no number."""

    rms: float
    largest: float


def range_of(exact: Sequence[np.ndarray], half: Sequence[np.ndarray] | None = None) -> Range:
    """The range of tensors.

    Args:
        exact: in float64.
        half: what they are in float16; None: each rounded.
    """
    total = NOTHING
    for k, values in enumerate(exact):
        magnitude = np.abs(values)
        counted = magnitude > ROUNDING * magnitude.max(initial=0.0)
        if not counted.any():
            continue
        with np.errstate(over="ignore"):
            found = np.abs(values.astype(np.float16) if half is None else half[k])[counted].astype(np.float64)
        kept = magnitude[counted]
        total = total + Range(
            kept.size,
            float(kept.min()),
            float(kept.max()),
            int((~np.isfinite(found)).sum()),
            int((found == 0).sum()),
            int(((found > 0) & (found < NORMAL)).sum()),
        )
    return total


def error_of(exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Error:
    """The error of tensors against those in float64."""
    true, other = (
        np.concatenate([np.ravel(one).astype(np.float64) for one in tensors] or [np.zeros(0)])
        for tensors in (exact, found)
    )
    scale = np.sqrt((true * true).mean()) if true.size else 0.0
    if scale == 0.0:
        return Error(0.0, 0.0) if not np.any(other) else Error(np.inf, np.inf)
    if not np.isfinite(other).all():
        return Error(np.inf, np.inf)
    difference = np.abs(other - true)
    return Error(float(np.sqrt((difference * difference).mean()) / scale), float(difference.max() / scale))
