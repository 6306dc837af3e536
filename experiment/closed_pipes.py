"""A reader of standard output that leaves early (``| head``) ends a program without a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

CLOSED = 128 + getattr(signal, "SIGPIPE", 13)  # what a shell reports of a program whose reader has left


def until_closed(main: Callable[[], int]) -> int:
    """Run a program whose text may be long; nothing is said when its reader leaves.

    Args:
        main: the program, which returns its exit code.

    Returns:
        The exit code: that of ``main``, or ``CLOSED``.
    """
    try:
        code = main()
        sys.stdout.flush()  # here, where it can be caught, and not when the interpreter ends
    except BrokenPipeError:
        return reader_has_left()
    return code


def reader_has_left() -> int:
    """Let what is still in the buffer go nowhere; returns the exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return CLOSED
