"""What an OpenI or ModelArts job brings in and takes out: its options, its folders, copies and uploads.

Two SDKs move the files: ``c2net`` (OpenI; environment variables say what from where) and ``moxing`` (ModelArts, older
OpenI; options give s3:// or obs:// addresses).  A newer ModelArts job needs neither: its options are local folders.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any

from cloud import sdks
from cloud.sdks import JobError, Terminated, is_nothing
from data_tools.source_files import one_line

log = logging.getLogger("geospore")

# a platform that gives a list gives its first entry as data_url too
DATA_OPTIONS, WEIGHTS_OPTIONS = ("multi_data_url", "data_url"), ("ckpt_url", "pretrain_url", "model_url")
OUTPUT_OPTIONS = ("train_url", "result_url")
HELP = {
    "data_url": "folder or address of the data set",
    "multi_data_url": "JSON list of data sets: dataset_url, dataset_name",
    "ckpt_url": "file, folder or address of a checkpoint",
    "pretrain_url": "the same, or a JSON list: model_url, model_name",
    "model_url": "the same as ckpt_url, where there is a checkpoint",
    "train_url": "folder or address for the results",
    "result_url": "the same as train_url",
}
MODELARTS_FOLDER = "MA_JOB_DIR"  # set in every ModelArts job, whose form can choose variables instead of options
JOB_NAMES = ("MA_VJ_NAME", "JOB_ID", "BATCH_JOB_ID")
PROCESSES = ("RANK_SIZE", "MS_WORKER_NUM")
FAST_DISK = Path("/cache")
SHOWN = 300  # characters of a value in a message
LEAST_ROOM = 1 << 20  # bytes, as of a small checkpoint


@dataclass
class Job:
    """The job that a program runs in; one of no platform does nothing.

    Attributes:
        active: whether there is one.
        data, weights: files and folders that were attached, on the local disk.
        weights_from: the option that named the weights; empty for c2net.
        output: the folder whose content is the result of the job; None: wherever the program likes.
        is_main: whether this process is the one that uploads.
        send: uploads ``output``; None where the platform does so itself.
        fetch_output: copies what earlier jobs left at the address for results into the given folder.
        address_of: where a file of this name is at the address for results; empty if it is not there.
        started: local date and time as part of a file name.
        place: a folder on the local disk for what is copied and unpacked.
    """

    active: bool = False
    data: list[Path] = field(default_factory=list)
    weights: list[Path] = field(default_factory=list)
    weights_from: str = ""
    output: Path | None = None
    is_main: bool = True
    send: Callable[[], object] | None = None
    fetch_output: Callable[[Path], object] | None = None
    address_of: Callable[[str], str] | None = None
    started: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S"))
    place: Path = field(default_factory=lambda: _local_disk() / "geospore")

    def upload(self) -> None:
        """Take the results out; a failure is a warning, for the next upload may succeed."""
        if self.send is None or not self.is_main:
            return
        try:
            self.send()
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # an SDK may raise anything; the training goes on
            log.warning("warning: the results could not be uploaded: %s", one_line(error))

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder that one process of this server fills while the others wait; it is whole or not there.

        A process that dies gives the lock back and leaves a partial folder, which the next one replaces.

        Args:
            name: tells folders apart.
            make: fills the folder that it is given.
        """
        import fcntl  # noqa: PLC0415  Windows has none, and no such jobs

        folder = self.place / hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        partial, done = folder.with_suffix(".partial"), folder.with_suffix(".done")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir() and done.is_file() and done.read_text(encoding="utf-8") == _launch():
                return folder
            done.unlink(missing_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            done.write_text(_launch(), encoding="utf-8")
        return folder

    def __enter__(self) -> Job:
        self.before: Any = None
        if self.active and threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not self.active:
            return
        if self.before is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the platform has asked already
        if error is not None:
            log.error("the job ends: %s", one_line(error))
        self.upload()
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)


class _Address(argparse.Action):
    """Keeps what is given where an option comes twice: a platform may add its own, empty or the same, to a form's."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option_string: Any = None) -> None:
        """Take a value.

        Raises:
            ConfigError: another one was given before.
        """
        before, default = _given(namespace, self.dest), str(self.default).strip()
        setattr(namespace, self.dest, value)
        after = _given(namespace, self.dest)
        if before and not after:
            setattr(namespace, self.dest, before)
        elif before not in ("", default) and before.rstrip("/") != after.rstrip("/"):
            parser.error(f"--{self.dest} is given twice, as {before} and as {after}: give one of them")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that the platforms pass; any may come without a value."""
    group = parser.add_argument_group("OpenI and ModelArts jobs", "The platform fills these in; see README.md.")
    for option, words in HELP.items():
        default = os.environ.get(option, "") if MODELARTS_FOLDER in os.environ else ""
        group.add_argument(
            f"--{option}", action=_Address, nargs="?", default=default, const="", metavar="URL", help=words
        )


def in_job(options: argparse.Namespace) -> bool:
    """Whether a platform runs this program: its environment or one of its options says so.

    An SDK alone does not: notebooks of the same platforms have them installed.
    """
    return sdks.is_openi_job() or any(_given(options, option) for option in HELP)


def open_job(options: argparse.Namespace, is_main: bool = True) -> Job:
    """Fetch what the job brings; outside one, a job that does nothing.

    Raises:
        JobError: an SDK is missing or fails, or an option cannot be understood.
    """
    if not in_job(options):
        return Job()
    job = Job(active=True, is_main=is_main)
    target = next(filter(None, (_given(options, option) for option in OUTPUT_OPTIONS)), "")
    if sdks.has_c2net() and sdks.is_openi_job():
        _open_c2net(job)
    elif sdks.is_openi_job() and not target:
        raise JobError(
            f"{sdks.METHOD} is set, so this is an OpenI job, but its SDK c2net is not installed: the data would not be "
            "found and the results be lost; choose an image that has it, or install c2net 0.2.0"
        )
    # platforms give the same data set twice; what is on this machine needs no SDK
    for option in sorted(DATA_OPTIONS, key=lambda option: _is_address(_given(options, option))):
        job.data = job.data or _fetch_all(job, option, _given(options, option))
    for option in WEIGHTS_OPTIONS:
        if not job.weights:
            job.weights, job.weights_from = _fetch_weights(job, option, _given(options, option)), option
    if job.output is None and target:
        _open_output(job, target)
    return job


def _open_c2net(job: Job) -> None:
    """Let c2net fetch everything, once a server, and take over its folders."""

    def prepare(folder: Path) -> None:
        (folder / "paths.json").write_text(json.dumps(sdks.prepare()), encoding="utf-8")

    paths = json.loads((job.once("c2net", prepare) / "paths.json").read_text(encoding="utf-8"))
    job.data, job.weights = ([Path(paths[key])] if paths[key] else [] for key in ("data", "weights"))
    job.output = _writable(sdks.RESULTS_FOLDER, Path(paths["output"]))
    job.send = sdks.upload if sdks.uploads() else None
    log.info("OpenI job (c2net): data %s, weights %s, results %s", *(path or "none" for path in paths.values()))


def _open_output(job: Job, target: str) -> None:
    """Results go straight into a local folder, or to a folder that is uploaded to an address."""
    if not _is_address(target):
        job.output = _writable("--train_url", Path(target))
        log.info("results go to %s", target)
        return
    output = job.place / f"output-{hashlib.sha256(os.fsencode(target)).hexdigest()[:16]}"
    _writable(f"--train_url {target}: the copy on this machine", output)
    files = sdks.moxing_file(f"--train_url {target}")

    def fetch(folder: Path) -> None:
        with _copying(f"--train_url {target}"):
            if files.exists(target):
                files.copy_parallel(target, str(folder))

    def address_of(name: str) -> str:
        address = f"{target.rstrip('/')}/{name}"
        with _copying(f"--train_url {target}"):
            return address if files.exists(address) else ""

    job.output = output
    job.send = lambda: files.copy_parallel(str(output), target)
    job.fetch_output = fetch
    job.address_of = address_of
    log.info("results go to %s and from there to %s", output, target)


def _writable(wanted_by: str, folder: Path) -> Path:
    """The folder, made where it was not there, after a try: hours later a disk that is full loses the results.

    Raises:
        JobError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-") as file:
            file.write(bytes(LEAST_ROOM))
    except OSError as error:
        raise JobError(
            f"{wanted_by} {folder}: the results cannot be written there ({error.strerror or one_line(error)}); give "
            "another folder, or check its permissions and the free space"
        ) from None
    return folder


def _fetch_weights(job: Job, option: str, value: str) -> list[Path]:
    """As ``_fetch_all``; but some platforms mean by model_url the place for results, where nothing is yet."""
    try:
        return _fetch_all(job, option, value)
    except JobError as error:
        if option != "model_url":
            raise
        log.info("left aside: %s", error)
        return []


def _fetch_all(job: Job, option: str, value: str) -> list[Path]:
    """Local files and folders for the value of an option: a path, an address or a JSON list of them."""
    entries = _entries(option, value)
    return [_fetch(job, option, url, name, number) for number, (url, name) in enumerate(entries)]


def _entries(option: str, value: str) -> list[tuple[str, str]]:
    """(address or path, name) of everything that an option names."""
    if not value:
        return []
    if not value.startswith(("[", "{")):
        return [(value, "")]
    try:
        content = json.loads(value)
        entries = [entry for entry in (content if isinstance(content, list) else [content]) if entry]
        url, name = ("dataset_url", "dataset_name") if option in DATA_OPTIONS else ("model_url", "model_name")
        return [(str(entry[url]), str(entry.get(name) or "")) for entry in entries if entry[url]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise JobError(
            f"--{option} {value[:SHOWN]}: expected a path, an address or a JSON list of them ({one_line(error)})"
        ) from None


def _fetch(job: Job, option: str, url: str, name: str, number: int) -> Path:
    if not _is_address(url):
        if not Path(url).exists():
            raise JobError(f"--{option} {url}: expected a file or folder, found nothing there; check the job's form")
        return Path(url)
    names = (PurePosixPath(path).name for path in (name, url.rstrip("/")))
    name = next((name for name in names if name not in ("", "..")), "attached")

    def copy(folder: Path) -> None:
        files = sdks.moxing_file(f"--{option} {url}")
        log.info("copying %s", url)
        with _copying(f"--{option} {url}"):
            files.copy_parallel(url, str(folder / name))
        if option in DATA_OPTIONS and not any(path.is_file() for path in folder.rglob("*")):
            raise JobError(f"--{option} {url}: expected files, found nothing there; check the address")

    # the folder that holds it, so that a data set can be chosen by its name
    return job.once(f"{option} {number} {url}", copy)


@contextlib.contextmanager
def _copying(wanted_by: str) -> Iterator[None]:
    """Make one line of whatever moxing raises.

    Raises:
        JobError: it has raised something.
    """
    try:
        yield
    except Terminated:
        raise
    except (Exception, SystemExit) as error:
        raise JobError(f"{wanted_by}: moxing cannot copy it ({one_line(error)}); check the address") from None


def _given(options: argparse.Namespace, option: str) -> str:
    value = (getattr(options, option, "") or "").strip()
    return "" if is_nothing(value) else value


def _is_address(url: str) -> bool:
    return "://" in url


def _launch() -> str:
    """The same for all processes of one server that were started together; a lone process fetches again each time."""
    if not any(os.environ.get(name, "1") not in ("", "0", "1") for name in PROCESSES):
        return f"process {os.getpid()}"
    return next((os.environ[name] for name in JOB_NAMES if os.environ.get(name)), f"parent {os.getppid()}")


def _local_disk() -> Path:
    return FAST_DISK if os.access(FAST_DISK, os.W_OK) else Path(tempfile.gettempdir())


def _leave(number: int, _: FrameType | None) -> None:
    raise Terminated(128 + number)
