"""SIGTERM and Ctrl-C: a run ends at the next step with its state saved, anything else ends at once, in one line.

MindSpore replaces the C handler of SIGINT by one that sends SIGTERM to its own process, and an exception that Python
raises while MindSpore compiles is printed on 30 lines, dumped into the working folder, or lost.  A program that calls
``watch`` keeps both signals blocked in all its threads; one thread waits for them and asks the main thread, or ends
the process where MindSpore is at work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT = 128  # a shell's exit code of a signal, without its number
FROM_TERMINAL = 0x80  # si_code of a signal that the kernel sends, as for Ctrl-C
_undo: list[Callable[[], object]] = []


class Interrupted(KeyboardInterrupt):
    """The program was asked to end, and has nothing to save; ``signal`` is what asked."""

    def __init__(self, number: int):
        super().__init__(words(number))
        self.signal, self.exit_code = number, EXIT + number


def words(number: int) -> str:
    """The last line of a program that a signal has ended."""
    return f"interrupted by {'Ctrl-C (SIGINT)' if number == signal.SIGINT else signal.Signals(number).name}"


@contextlib.contextmanager
def undone_by_interruption(undo: Callable[[], object]) -> Iterator[None]:
    """While open, ``undo`` is called before the process ends without unwinding; it must not call MindSpore."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


def leave(number: int) -> NoReturn:
    """End the process at once: no exception passes through MindSpore."""
    for undo in reversed(_undo):
        with contextlib.suppress(Exception):
            undo()
    with contextlib.suppress(OSError):
        os.write(2, f"{words(number)}\n".encode())
    os._exit(EXIT + number)


def interrupt(number: int, frame: FrameType | None) -> None:
    """End the program: handler of both signals where there is nothing to save.

    Raises:
        Interrupted: outside of imports and of MindSpore, where an exception does what it should.
    """
    if cannot_raise(frame):
        leave(number)
    raise Interrupted(number)


def cannot_raise(frame: FrameType | None) -> bool:
    """Whether the code that is running was called by MindSpore or by an import."""
    mindspore = getattr(sys.modules.get("mindspore"), "__path__", None)
    marks = ("<frozen importlib", *(f"{path}{os.sep}" for path in mindspore or ()))
    while frame is not None:
        if frame.f_code.co_filename.startswith(marks):
            return True
        frame = frame.f_back
    return False


def watch() -> None:
    """Deliver SIGTERM and SIGINT to Python's handlers, whatever MindSpore does; to be called before its import.

    Handlers are set by ``signal.signal`` as usual.  They run in the main thread; where it is inside of MindSpore and
    the handler would only raise, the process ends at once.  A second signal ends it at once wherever it is.
    """
    if not hasattr(signal, "sigwaitinfo") or threading.current_thread() is not threading.main_thread():
        return
    # a shell without job control starts background jobs so: a Ctrl-C of the terminal is then meant for others
    ignored = frozenset(number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN)
    arrived: deque[int] = deque()
    wake = signal.SIGRTMIN + 6

    def deliver(_: int, frame: FrameType | None) -> None:
        while arrived:
            number = arrived.popleft()
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, interrupt)
    signal.signal(wake, deliver)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited by every thread that is made from now on
    main = threading.main_thread().ident

    def wait() -> None:
        asked = 0
        while True:
            found = signal.sigwaitinfo(SIGNALS)
            number, handler = found.si_signo, signal.getsignal(found.si_signo)
            if not callable(handler) or (number in ignored and found.si_code == FROM_TERMINAL):
                continue
            asked += 1
            lost = handler is interrupt and cannot_raise(sys._current_frames().get(main or 0))
            if asked > 1 or lost:
                leave(number)
            arrived.append(number)
            signal.pthread_kill(main or 0, wake)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    sys.excepthook = _last_line


def _last_line(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Before and after a program's own ``try``, an interruption is one line too."""
    if isinstance(error, Interrupted):
        leave(error.signal)
    sys.__excepthook__(kind, error, traceback)


def release() -> None:
    """Before another program takes the place of this one: it decides for itself about signals."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def killable() -> Iterator[None]:
    """Around a call that may wait for ever without letting other threads run: a signal just ends the process."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Stopped(Exception):  # noqa: N818  not an error: the run was asked to stop
    """A run was asked to stop and has saved its state; ``signal`` is what asked."""

    def __init__(self, number: int, step: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}; the state is saved; --resume continues the run")
        self.signal, self.exit_code = number, EXIT + number


class StopRequest:
    """While open, SIGTERM and SIGINT set ``requested`` instead of ending the process; a second one ends it.

    Python delivers signals to the main thread only; elsewhere nothing changes.
    """

    SIGNALS = SIGNALS

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

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            interrupt(number, frame)
        self.requested = number

    def leave(self, step: int) -> NoReturn:
        """End the run; the caller has saved the state after ``step`` updates.

        Raises:
            Stopped: always; SIGTERM where only another process of the run was asked.
        """
        raise Stopped(self.requested or signal.SIGTERM, step)
