"""MindSpore's profiler around the first steps of a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mindspore import profiler

from training.files import one_line

log = logging.getLogger("geospore")


class StepProfiler:
    """Profiles the first steps between ``__enter__`` and ``__exit__``; the training goes on after them, or without it.

    Args:
        steps: how many; 0: none, and the profiler is not started.
        folder: where it writes, in a folder of its own for each start.
        wait: returns once the steps that have been called are done.
    """

    def __init__(self, steps: int, folder: Path, wait: Callable[[], None]):
        self.left, self.folder, self.wait = steps, folder, wait
        self.steps, self.running = steps, None

    def __enter__(self) -> StepProfiler:
        """Start."""
        if self.steps:
            self._try("start", self._start)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, where the training ends before its first steps are over."""
        if self.running is not None:
            self._try("stop", self._stop)

    def after_step(self) -> None:
        """Count a step, and stop after the last."""
        self.left -= 1
        if self.running is not None and self.left <= 0:
            self._try("stop", self._stop)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        handler = profiler.tensorboard_trace_handler(str(self.folder))
        self.running = profiler.profile(on_trace_ready=handler)
        log.info("profiling the first %d steps, into %s", self.steps, self.folder)

    def _stop(self) -> None:
        running: Any = self.running
        self.running, started = None, time.perf_counter()
        self.wait()
        running.stop()
        log.info(
            "profiled %d steps, analysed in %.1f s: %s",
            self.steps - max(self.left, 0), time.perf_counter() - started, self.folder,
        )  # fmt: skip

    def _try(self, what: str, call: Callable[[], None]) -> None:
        """A profiler that does not run here is no reason to end a training."""
        try:
            call()
        except (RuntimeError, OSError, ValueError, TypeError, AttributeError, ImportError) as error:
            self.running = None
            reason = one_line(error)[:200]
            log.warning("warning: the profiler of MindSpore does not %s here (%s); the training goes on", what, reason)
