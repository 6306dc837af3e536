"""A command line: its mistakes are one line with exit code 2, its help and its hints know the configuration."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_type_hints

from configs import foreign
from configs.loading import ConfigError
from configs.schema import MODEL_CONFIGS, Config
from data_tools.source_files import one_line
from experiment.closed_pipes import reader_has_left
from training import interruption

BAD_INPUT, SIGNAL = 2, 128
ALIKE = 0.72  # how similar names must be


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
    """Print a mistake as one line on standard error and return the exit code; anything unexpected is raised again.

    Exceptions that are meant for a user say their ``exit_code``.
    """
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        print(interruption.words(number), file=sys.stderr)
        return getattr(error, "exit_code", SIGNAL + number)
    if isinstance(error, BrokenPipeError):  # the reader of standard output has left, nothing is wrong
        return reader_has_left()
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        print(one_line(error) if code > SIGNAL else f"error: {one_line(error)}", file=sys.stderr)
        return code
    if isinstance(error, OSError):
        print(f"error: {one_line(error)}; check the path, its permissions and the free space", file=sys.stderr)
        return BAD_INPUT
    raise error


def help_of(key: str, words: str, default: str | None = None) -> str:
    """The help of an option: what it is, its key, the choices and the default.

    Args:
        key: ``section.key``.
        words: what it is.
        default: None: that of the schema.
    """
    section, _, name = key.partition(".")
    field = next(item for item in dataclasses.fields(get_type_hints(Config)[section]) if item.name == name)
    choices = field.metadata.get("choices")
    parts = [key, *([f"one of {', '.join(choices)}"] if choices else [])]
    shown = str(field.default) if default is None else default
    return f"{words} ({'; '.join(parts)}; default: {shown or 'none'})".replace("%", "%%")


def meant(option: str, known: Iterable[str], settable: bool, similarity: float = ALIKE) -> str:
    """What an unknown option was meant to be, ``--lr`` or ``--set data.file=VALUE``; empty if that is unknown.

    Args:
        option: as it was typed, without a value.
        known: the options of the program, with their dashes.
        settable: whether the program has ``--set``.
        similarity: how alike names must be, 1 for the same.
    """
    typed = option.lstrip("-").replace("-", "_").lower()[:80]
    options = {name.lstrip("-"): name for name in known if name.startswith("--")}
    meanings = {other: options[name] for other, name in foreign.OPTIONS.items() if name in options}
    if settable:
        meanings = _keys() | meanings
    meanings |= {name.lower(): option for name, option in options.items()}
    if typed in meanings:
        return meanings[typed]
    close = difflib.get_close_matches(typed, meanings, n=1, cutoff=similarity)
    return meanings[close[0]] if close else ""


def _keys() -> dict[str, str]:
    """Every key of the configuration by its name alone, and by the names of others."""
    sections: Mapping[str, Any] = {**get_type_hints(Config), "model": None}
    names: dict[str, str] = {}
    for section, section_class in sections.items():
        classes = MODEL_CONFIGS.values() if section == "model" else [section_class]
        for item in (item for one in classes for item in dataclasses.fields(one)):
            if item.name not in ("name", "file"):  # of several sections, or too short to be meant
                names.setdefault(item.name, f"--set {section}.{item.name}=VALUE")
    return names | {other: f"--set {key}=VALUE" for other, key in foreign.KEYS.items()}
