"""The SDKs of OpenI and ModelArts, c2net and moxing: imported and called so that whatever they do becomes one line.

``c2net`` only prints that it could not fetch, unpack or upload something, and says nothing where it cannot import
moxing; so what it prints is read, and what it should have brought is looked for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO

from data_tools.source_files import one_line

log = logging.getLogger("geospore")

METHOD, MOXING = "DATA_DOWNLOAD_METHOD", "MOXING"  # without the variable c2net refuses to work
DATA, WEIGHTS, RESULTS = "DATASET_URL", "PRETRAIN_MODEL_URL", "OUTPUT_URL"
RESULTS_FOLDER = "LOCAL_OUTPUT_PATH"
NAMES = {DATA: ("data set", "dataset_name"), WEIGHTS: ("model", "model_name")}
NOTHING = {"", "[]", "{}", "[{}]", "none", "null"}  # what forms pass for a field left empty
FAILURE = "\u274c"  # where c2net says that something failed, it begins so
NOT_UNPACKED = re.compile(rf"{FAILURE} Extraction failed for (.+?\.(?:zip|tar\.gz)): ")
NOTES = ".*_cache_file"  # with them c2net takes a folder for ready when a job starts again
FUNCTIONS = {"prepare": "prepare the job", "upload_output": "upload the results"}
OTHER_IMAGE = "choose an image with another one, or install c2net 0.2.0"


class JobError(RuntimeError):
    """Something that the job's form asked for cannot be had: one line."""

    exit_code = 2


class Terminated(SystemExit):
    """SIGTERM asked the program to end; an SDK that ends the program by itself raises another SystemExit."""


class _Listener:
    """A text stream that passes on what it gets, as far as the stream's encoding has it, and keeps it."""

    def __init__(self, stream: TextIO):
        self.stream, self.text = stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Keep the text and write it."""
        self.text += text
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)


def is_nothing(value: str) -> bool:
    """Whether a form's field was left empty."""
    return value.strip().lower() in NOTHING


def moxing_file(wanted_by: str) -> Any:
    """The functions of moxing that copy files: ``copy_parallel`` and others.

    Args:
        wanted_by: the option with its address, for the message.

    Raises:
        JobError: it cannot be imported, or another package of that name is installed.
    """
    try:
        files = getattr(importlib.import_module("moxing"), "file", None)
        usable = callable(getattr(files, "copy_parallel", None))
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # its import checks the machine and may raise anything
        raise JobError(
            f"{wanted_by}: moxing, which copies from and to such addresses, cannot be used ({one_line(error)}); "
            "choose an image that has it"
        ) from None
    if not usable:
        raise JobError(
            f"{wanted_by}: the package moxing that is installed is not the platform's (it has no file.copy_parallel); "
            "choose an image that has it"
        )
    return files


def is_openi_job() -> bool:
    """Whether c2net's environment variables say so; of an image without c2net all that it works with must be there."""
    return bool(os.environ.get(METHOD)) and (has_c2net() or RESULTS_FOLDER in os.environ)


def has_c2net() -> bool:
    """Whether the SDK of OpenI is installed."""
    return importlib.util.find_spec("c2net") is not None


def prepare() -> dict[str, str]:
    """Let c2net fetch everything; returns the folders ``data``, ``weights`` (empty: none chosen) and ``output``.

    Raises:
        JobError: c2net or moxing cannot be used, or something that the form names was not brought.
    """
    method = os.environ[METHOD]
    if method == MOXING and not all(is_nothing(os.environ.get(name, "")) for name in (DATA, WEIGHTS, RESULTS)):
        moxing_file(f"{METHOD} {MOXING}")
    context, said = _call("prepare")
    try:
        data, weights = Path(context.dataset_path), Path(context.pretrain_model_path)
        output = str(context.output_path)
    except (AttributeError, TypeError) as error:
        raise JobError(f"c2net cannot prepare the job: {one_line(error)}; {OTHER_IMAGE}") from None
    return {"data": _brought(DATA, data, said), "weights": _brought(WEIGHTS, weights, said), "output": output}


def uploads() -> bool:
    """Whether c2net knows where results go; else a warning, for it would copy them to a folder called None."""
    known = os.environ[METHOD] != MOXING or not is_nothing(os.environ.get(RESULTS, ""))
    if not known:
        log.warning("warning: %s is not set, so c2net uploads no results; they stay on this machine", RESULTS)
    return known


def upload() -> None:
    """Let c2net upload the results.

    Raises:
        JobError: it says that it could not.
    """
    said = _call("upload_output")[1]
    if FAILURE in said:
        raise JobError(said[said.index(FAILURE) :])


def _call(name: str) -> tuple[Any, str]:
    """What a function of c2net returns, and what it has printed.

    Raises:
        JobError: c2net is missing or another package, or the function fails.
    """
    listener = _Listener(sys.stdout)
    try:
        with contextlib.redirect_stdout(listener):  # type: ignore[type-var]
            context = importlib.import_module("c2net.context")
            if all(callable(getattr(context, function, None)) for function in FUNCTIONS):
                return getattr(context, name)(), listener.text
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # it raises what it likes
        advice = "look at the data set and model chosen in its form"
        if isinstance(error, ImportError | SystemExit):
            advice = OTHER_IMAGE
        elif isinstance(error, OSError):
            advice = "check the permissions and the free space there"
        raise JobError(f"c2net cannot {FUNCTIONS[name]}: {one_line(error)}; {advice}") from None
    raise JobError(
        "the package c2net that is installed is not the platform's (it has no context.prepare or "
        f"context.upload_output); {OTHER_IMAGE}"
    )


def _brought(variable: str, folder: Path, said: str) -> str:
    """The folder where c2net has put what a variable lists; empty where nothing was chosen.

    Raises:
        JobError: something that was chosen is not there or not unpacked; the run would go on with other data.
    """
    what, wanted = NAMES[variable][0], os.environ.get(variable, "")
    found = sorted(entry.name for entry in folder.glob("*") if not entry.name.startswith("."))
    names = _names(variable)
    missing = [name for name in names if not any(_filled(folder / place) for place in (name, _stem(name)))]
    damaged = [path for path in NOT_UNPACKED.findall(said) if _is_archive_in(folder, Path(path))]
    # a platform that mounts folders may call them as it likes, but not some in one way and some in another
    other_names = bool(found) and len(missing) == len(names) and os.environ[METHOD] != MOXING
    if not damaged and (other_names or not missing) and (found or is_nothing(wanted)):
        if missing:
            log.warning("warning: the job's form names the %s %s; in %s c2net has put %s", what, ", ".join(names),
                        folder, ", ".join(found))  # fmt: skip
        return str(folder) if found else ""
    for note in folder.glob(NOTES):
        with contextlib.suppress(OSError):
            note.unlink()  # or the job, started again, would take this for all of it
    if damaged:
        raise JobError(f"c2net cannot unpack {', '.join(damaged)}; look at its lines above, and make the archive again")
    raise JobError(
        f"c2net has not brought the {what} {', '.join(missing) or wanted}; look at its lines above and at the job's "
        "form (where it unpacks, it takes .zip and .tar.gz archives only)"
    )


def _names(variable: str) -> list[str]:
    """Names of the data sets or models in a variable; none where it is no such list."""
    try:
        return [str(entry[NAMES[variable][1]]) for entry in json.loads(os.environ.get(variable) or "[]") if entry]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _filled(path: Path) -> bool:
    return path.is_file() or any(not entry.name.startswith(".") for entry in path.glob("*"))


def _stem(name: str) -> str:
    """The folder that c2net unpacks an archive into."""
    return name.removesuffix(".zip").removesuffix(".tar.gz")


def _is_archive_in(folder: Path, path: Path) -> bool:
    """Whether c2net failed at an archive, not at a folder with the name of one; it removes those that it has copied."""
    return path.is_relative_to(folder) and not path.is_dir()
