"""What phonopy raises on a wrong file becomes one line that names the file; what it prints is not shown."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from data_tools.graph import DataError
from data_tools.source_files import one_line, shown

LONGEST = 160  # characters of phonopy's own words in a message
PANIC = "PanicException"  # of phonopy's parts in Rust; no Exception


@contextmanager
def guarded(where: str, expected: str, remedy: str = "correct the file") -> Iterator[None]:
    """Calls of phonopy with what a file says.

    Args:
        where: the file, for messages.
        expected: what should have been there.
        remedy: what to do.

    Raises:
        DataError: whatever phonopy raises.
    """
    silence = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{where}: expected {expected} that fits into memory, found more; divide it") from None
    except BaseException as error:
        if not isinstance(error, Exception | SystemExit) and type(error).__name__ != PANIC:
            raise
        words = f"{type(error).__name__}: {shown(one_line(error))[:LONGEST]}"
        raise DataError(f"{where}: expected {expected}, it cannot be used ({words}); {remedy}") from None
