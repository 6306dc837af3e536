"""What an OpenI or ModelArts job brought in becomes options of train.py and eval.py."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloud.attached import find_all, find_data, find_one
from cloud.job import Job, JobError
from configs.loading import ConfigError
from data_tools.dataset import SAMPLE
from data_tools.graph import DataError

log = logging.getLogger("geospore")
PROGRAM_FOLDER = Path(__file__).parents[1]
DATA_KEY, PRETRAINED_KEY, OUTPUT_KEY = "data.file", "training.pretrained", "run.output"
PAIR_KEYS = ("data.train_file", "data.test_file")
YES, NO = "true", "false"
FOUND = ".found"


@dataclass(frozen=True)
class RunFiles:
    """What the files of a run folder are called.

    Attributes:
        config, log, best, last: of the configuration, the log and the two checkpoints.
        patterns: of all that a run writes besides its log.
    """

    config: str
    log: str
    best: str
    last: str
    patterns: tuple[str, ...]

    def in_folder(self, folder: Path) -> bool:
        """Whether a folder holds something that a run has written; its log alone is no run."""
        return any(path.is_file() for pattern in self.patterns for path in folder.glob(pattern))

    def is_checkpoint(self, path: Path) -> bool:
        """Whether a path is a checkpoint, or a folder that holds one under a name of a run."""
        if path.is_dir():
            return any((path / name).is_file() for name in (self.best, self.last))
        return path.suffix == ".safetensors"

    def can_continue(self, folder: Path) -> bool:
        """Whether a run in a folder can be resumed."""
        return (folder / self.config).is_file() and any(folder.glob(f"{Path(self.last).stem}*.safetensors"))


def is_yes(text: str, option: str) -> bool:
    """The truth value of an option that may come as a flag or, from a form, with a word.

    Raises:
        ConfigError: it is neither true nor false.
    """
    if text.strip().lower() not in (YES, NO, ""):
        raise ConfigError(f"{option} {text}: expected true or false, or nothing behind it")
    return text.strip().lower() == YES


def log_file(options: argparse.Namespace, job: Job, run: RunFiles) -> Path | None:
    """Where the log of a training goes from the start, so that it is a result also of a program that fails at once.

    A log that is there, or that will be brought with the run to be resumed, stays as it is.
    """
    if job.output is None or not job.is_main:
        return None
    resumes = (options.resume or NO).lower() != NO
    first = not (job.output / run.log).exists() and not _earlier(job, "", run) and not resumes
    return job.output / (run.log if first else f"job-{job.started}.log")


def settle_training(options: argparse.Namespace, job: Job, run: RunFiles) -> None:
    """Change the options of train.py to what the job has brought; outside a job nothing happens.

    Raises:
        JobError, DataError: something that the job should have brought is not there, or not one thing.
    """
    if not job.active:
        return
    sub = options.output or _chosen(options, OUTPUT_KEY) or ""
    if options.config and not Path(options.config).exists() and (PROGRAM_FOLDER / options.config).exists():
        options.config = str(PROGRAM_FOLDER / options.config)  # platforms start it in a folder of their own
    _use_data(options, job)
    if not _resume(options, job, sub, run):
        _use_weights(options, job, run)
        earlier = _earlier(job, sub, run)
        if earlier and not is_yes(options.overwrite, "--overwrite"):
            raise JobError(
                f"{earlier}: a run is there already; --resume True continues it, --overwrite True replaces it, "
                "--output NAME puts the new one beside it"
            )
    if job.output is not None:
        options.output = None
        _set(options, OUTPUT_KEY, job.output / sub)


def _earlier(job: Job, sub: str, run: RunFiles) -> str:
    """Where the results of an earlier run are that this one would replace; empty where there are none."""
    if job.output is None or not job.is_main:
        return ""
    if (job.output / sub).is_dir() and run.in_folder(job.output / sub):
        return str(job.output / sub)
    return job.address_of(f"{sub}/{run.config}" if sub else run.config) if job.address_of else ""


def settle_evaluation(options: argparse.Namespace, job: Job, run: RunFiles) -> None:
    """Change the options of eval.py to what the job has brought; outside a job nothing happens.

    Raises:
        DataError: something that the job should have brought is not one thing.
    """
    if not job.active:
        return
    if job.weights and not (options.ckpt and Path(options.ckpt).exists()):
        found = _attached(job.weights, options.ckpt) or _checkpoint(job, run, job.weights, options.ckpt or "")
        options.ckpt = str(found) if found else options.ckpt
    if options.input:
        options.input = str(_attached(job.data, options.input) or options.input)
    elif job.data and not options.smiles and not (options.data and Path(options.data).exists()):
        place = _attached(job.data, options.data)
        options.data = str(_data(job, [place] if place else job.data, "" if place else options.data or ""))
    if job.output is not None:
        options.output = str(job.output / (options.output or ("" if options.input or options.smiles else "evaluation")))


def _use_data(options: argparse.Namespace, job: Job) -> None:
    """The attached data set, or what --set chooses from it, is the data of the run."""
    pair = [key for key in PAIR_KEYS if _chosen(options, key)]
    for key in pair or [DATA_KEY]:
        wanted = _chosen(options, key)
        if job.data and wanted != SAMPLE:
            place = _attached(job.data, wanted)
            if place is not None or not wanted or not Path(wanted).exists():
                _set(options, key, _data(job, [place] if place else job.data, "" if place else wanted or ""))


def _use_weights(options: argparse.Namespace, job: Job, run: RunFiles) -> None:
    """The attached checkpoint, or what --set training.pretrained chooses from it, is what the run starts from."""
    wanted = _chosen(options, PRETRAINED_KEY)
    if job.weights and wanted != "" and not (wanted and Path(wanted).exists()):
        place = _attached(job.weights, wanted)
        found = _checkpoint(job, run, [place] if place else job.weights, "" if place else wanted or "")
        if found is not None:
            _set(options, PRETRAINED_KEY, found)


def _resume(options: argparse.Namespace, job: Job, sub: str, run: RunFiles) -> bool:
    """Continue the run that --resume names, in the folder ``sub`` of the job's output; whether there is one.

    ``--resume True`` means the run that the output folder or the attached weights hold, and is no mistake where there
    is none: the same form then serves for the first job and for those that continue it.
    """
    wish = options.resume or ""
    if wish.lower() in ("", NO):
        options.resume = None
        return False
    folder = job.output
    if folder is None:
        if wish.lower() == YES:
            raise JobError("--resume True: expected an output folder of the job; give --train_url in its form")
        return True
    folder = folder / sub
    sources = job.weights if wish.lower() == YES else [_attached(job.weights, wish) or Path(wish)]
    job.once(f"run of {sources} in {folder}", lambda scratch: _bring_run(job, run, sources, folder, sub, scratch))
    if not run.can_continue(folder):
        if wish.lower() != YES:
            raise JobError(f"--resume {wish}: expected a run folder with {run.config} and {run.last}")
        options.resume = None
        log.info("nothing to resume: neither the output folder nor the attached weights hold a run; a new one begins")
        return False
    log.info("resuming the run in %s", folder)
    options.resume, options.config = str(folder), None
    return True


def _bring_run(job: Job, run: RunFiles, sources: list[Path], folder: Path, sub: str, scratch: Path) -> None:
    """Put a run into its folder of the output: what it holds comes first, then its address, then the sources."""
    if run.can_continue(folder):
        return
    earlier = scratch / "earlier"
    if job.fetch_output is not None:
        job.fetch_output(earlier)
    for places in ([earlier / sub], sources):
        runs, _ = find_all([place for place in places if place.exists()], scratch, run.can_continue)
        if len(runs) > 1:
            raise JobError(f"--resume: expected one run, found {', '.join(map(str, runs))}; attach only one")
        if runs:  # with the file last that makes it a run: a copy that is cut short is none
            folder.mkdir(parents=True, exist_ok=True)
            files = filter(Path.is_file, runs[0].iterdir())
            for file in sorted(files, key=lambda file: file.name == run.config):
                shutil.copy2(file, folder / file.name)
            return


def _data(job: Job, places: list[Path], name: str = "") -> Path:
    """The one data set in files or folders; archives are unpacked once a server."""
    return _find_once(job, f"data {name}", places, lambda scratch: find_data(places, scratch, name))


def _checkpoint(job: Job, run: RunFiles, places: list[Path], name: str = "") -> Path | None:
    """The one checkpoint in files or folders; None where --model_url has none, which may be a place for results."""
    what = f"run folder or .safetensors checkpoint ({run.best}, {run.last})"

    def find(scratch: Path) -> Path:
        return find_one(places, scratch, run.is_checkpoint, what, PRETRAINED_KEY, name)

    try:
        return _find_once(job, f"checkpoint {name}", places, find)
    except DataError as error:
        if job.weights_from != "model_url":
            raise
        log.info("left aside: %s", error)
        return None


def _find_once(job: Job, what: str, places: list[Path], find: Callable[[Path], Path]) -> Path:
    def make(scratch: Path) -> None:
        found = _with_readable_name(find(scratch), scratch)
        found = found.relative_to(scratch) if found.is_relative_to(scratch) else found
        (scratch / FOUND).write_bytes(os.fsencode(found))

    folder = job.once(f"{what} in {' '.join(map(str, places))}", make)
    return folder / os.fsdecode((folder / FOUND).read_bytes())


def _with_readable_name(found: Path, scratch: Path) -> Path:
    """What was found, or a link to it: c2net leaves names from Windows in Chinese as GBK, which are no text here."""
    try:
        str(found).encode()
    except UnicodeEncodeError:
        link = scratch / os.fsencode(found.name).decode("gb18030", "replace")
        link.symlink_to(found)
        return link
    return found


def _attached(places: list[Path], name: str | None) -> Path | None:
    """What is called so: an attached file, or a path below an attached folder or below one of its folders."""
    if not name:
        return None
    paths = [place for place in places if place.name == name]
    for place in places:
        paths += [folder / name for folder in (place, *sorted(place.glob("*/")))]
    return next((path for path in paths if path.exists()), None)


def _chosen(options: argparse.Namespace, key: str) -> str | None:
    """What --set gives for a key; None where it does not."""
    pairs = (text.partition("=") for text in options.set)
    return next((value for name, _, value in reversed(list(pairs)) if name == key), None)


def _set(options: argparse.Namespace, key: str, value: Path | str) -> None:
    options.set.append(f"{key}={value}")
