"""Progress of a long loop: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], label: str, unit: str, total: int | None, show: bool) -> Iterator[Item]:
    """Yield the items unchanged and report on stderr how many have passed.

    Args:
        items: what to loop over.
        label: what is being done (``reading``).
        unit: what is counted (``molecules``).
        total: how many there will be; None if unknown.
        show: False reports nothing.
    """
    if not show:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, desc=label, unit=f" {unit}", total=total)
    else:
        next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        for count, item in enumerate(items, 1):
            yield item
            if time.monotonic() > next_line:
                of_total = f" of {total:,}" if total else ""
                print(f"{label}: {count:,}{of_total} {unit}", file=sys.stderr, flush=True)
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
