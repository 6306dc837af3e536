"""A command line whose mistakes are one line with exit code 2."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from typing import Any, NoReturn

from cloud.job import JobError
from configs.loading import ConfigError
from configs.options import ALIKE, meant
from data_tools.graph import DataError
from data_tools.source_files import one_line
from experiment.run_folder import FolderError
from training import interruption
from training.checkpoint import CheckpointError
from training.device import DeviceError
from training.distributed import RankError
from training.interruption import Stopped
from training.meter import LossError

BAD_INPUT, LOSS_NOT_FINITE, SIGNAL = 2, 3, 128


class CommandLine(argparse.ArgumentParser):
    """A parser whose mistakes are errors of one line that name the nearest option."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            ConfigError: always.
        """
        unknown = re.match(r"unrecognized arguments: (-[^\s=]*)", message)
        if unknown:
            message = f"unknown option {unknown[1]}: {self.nearest(unknown[1])}"
        raise ConfigError(f"{message.rstrip('; :')}; --help lists the options")

    def nearest(self, option: str, similarity: float = ALIKE) -> str:
        """A question whether a known option was meant; nothing where none is as similar (1: the same)."""
        known = self._option_string_actions
        found = meant(option, known, "--set" in known, similarity)
        return f"did you mean {found}? " if found else ""


def exit_code(error: BaseException) -> int:
    """Print a mistake as one line on standard error and return the exit code; anything unexpected is raised again."""
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        print(interruption.words(number), file=sys.stderr)
        return SIGNAL + number
    if isinstance(error, Stopped):
        print(f"{error}; --resume continues the run", file=sys.stderr)
        return SIGNAL + error.signal
    if isinstance(error, LossError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return LOSS_NOT_FINITE
    if isinstance(error, ConfigError | DataError | CheckpointError | DeviceError | FolderError | JobError | RankError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    if isinstance(error, OSError):
        print(f"error: {one_line(error)}; check the path, its permissions and the free space", file=sys.stderr)
        return BAD_INPUT
    raise error
