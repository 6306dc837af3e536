"""Curves of a training as event files of TensorBoard, where run.tensorboard asks for them.

They hold the columns of metrics.csv against the number of updates, with units in the tags.  Every start writes the
whole course of the run anew, after a mark by which TensorBoard drops what was there before: a resumed run has one curve
without gaps or points that stand twice, however the earlier process ended.  The package tensorboardX is needed only
then.  Its EventsWriter is used and not its SummaryWriter, whose thread dies on a full disk, after which the training
would wait for it forever.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.loading import ConfigError
from configs.schema import RunConfig
from training.files import one_line

log = logging.getLogger("geospore")
FILES = "events.out.tfevents.*"
AXES = ("epoch", "step", "seconds", "structures_per_second")  # columns of the history that are no scalars here
UNITS = {"force_mae": "eV/A", "stress_mae": "eV/A^3"}  # besides that of the target


def check_tensorboard(run: RunConfig) -> None:
    """Make sure that event files can be written, before anything is.

    Raises:
        ConfigError: they are wanted, and the package is missing or does not work.
    """
    if not run.tensorboard:
        return
    try:
        import tensorboardX.event_file_writer  # noqa: F401, PLC0415  an optional package
    except Exception as error:  # of another version of protobuf it is no ImportError
        raise ConfigError(
            f"run.tensorboard=true: expected the package tensorboardX, got: {one_line(error)[:200]}; install it with "
            "pip install tensorboardX==2.6.*, or leave run.tensorboard out"
        ) from None


def tag_of(column: str, units: Mapping[str, str]) -> str:
    """The tag of a column of metrics.csv: ``valid/mae [eV]`` of valid_mae, ``train/loss``, ``train/lr``.

    Args:
        column: its name.
        units: of ``mae``, or of ``gap_mae`` and so on where there are several targets.
    """
    part, _, name = column.partition("_") if "_" in column else ("train", "", column)
    unit = UNITS.get(name) or units.get(name)
    return f"{part}/{name} [{unit}]" if unit else f"{part}/{name}"


class TensorboardCurves:
    """The event file of one process.

    Args:
        folder: of the run; None: nothing is written.
        units: as of ``tag_of``.
        history: rows of the epochs that are done already.
    """

    def __init__(self, folder: Path | None, units: Mapping[str, str], history: list[dict[str, float]]):
        self.units, self.written = units, 0
        self.writer: Any = None
        if folder is not None:
            self._try(lambda: self._begin(folder, history))

    def __enter__(self) -> TensorboardCurves:
        """For a training inside the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self.writer is not None:
            self._try(self.writer.close)

    def add(self, history: list[dict[str, float]]) -> None:
        """Write the epochs that have been finished since the last call; the training goes on where that fails."""
        if self.writer is not None:
            self._try(lambda: self._add(history, time.time()))

    def _begin(self, folder: Path, history: list[dict[str, float]]) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415  an optional package
        from tensorboardX.proto import event_pb2  # noqa: PLC0415

        self.writer = EventsWriter(str(folder.resolve() / "events"))
        mark = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self.writer.write_event(event_pb2.Event(wall_time=time.time(), step=0, session_log=mark))
        # the epochs before have their own times, so that an axis of time shows how long they took
        start = time.time() - sum(row["seconds"] for row in history)
        for done in range(len(history)):
            start += history[done]["seconds"]
            self._add(history[: done + 1], start)
        self.writer.flush()

    def _add(self, history: list[dict[str, float]], now: float) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # noqa: PLC0415  an optional package

        for row in history[self.written :]:
            values = [
                summary_pb2.Summary.Value(tag=tag_of(name, self.units), simple_value=value)
                for name, value in row.items()
                if name not in AXES
            ]
            summary = summary_pb2.Summary(value=values)
            self.writer.write_event(event_pb2.Event(wall_time=now, step=int(row["step"]), summary=summary))
        self.written = len(history)
        self.writer.flush()

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # a full disk, most likely
            writer, self.writer = self.writer, None
            log.warning("warning: no more curves for TensorBoard are written: %s", one_line(error)[:300])
            with contextlib.suppress(Exception):
                writer.close()
