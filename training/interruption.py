"""SIGTERM and Ctrl-C end a run at the next step, with its state saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn


class Stopped(Exception):  # noqa: N818  not an error: the run was asked to stop
    """A run was asked to stop and has saved its state; ``signal`` is what asked."""

    def __init__(self, number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}; the state is saved")
        self.signal = number


class StopRequest:
    """While open, SIGTERM and SIGINT set ``requested`` instead of ending the process; a second one ends it.

    Python delivers signals to the main thread only; elsewhere nothing changes.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = number

    def leave(self, step: int) -> NoReturn:
        """End the run; the caller has saved the state after ``step`` updates.

        Raises:
            Stopped: always; SIGTERM where only another process of the run was asked.
        """
        raise Stopped(self.requested or signal.SIGTERM, step)
