"""What an OpenI or ModelArts job brought in becomes options of train.py and eval.py."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cloud.attached import find_all, find_data, find_one
from cloud.job import Job, JobError, add_job_arguments, in_job, open_job
from configs.loading import ConfigError
from data_tools.dataset import SAMPLE
from data_tools.graph import DataError
from experiment.command_line import CommandLine
from experiment.provenance import masked
from experiment.run_folder import CONFIG, LOG, files_of_run
from experiment.run_log import log_to, set_up_log
from training import checkpoint as checkpoints

log = logging.getLogger("geospore")
PROGRAM_FOLDER = Path(__file__).parents[1]
CHECKPOINT = f"run folder or .safetensors checkpoint ({checkpoints.BEST}, {checkpoints.LAST})"
DATA_KEY, PRETRAINED_KEY, OUTPUT_KEY = "data.file", "training.pretrained", "run.output"
PAIR_KEYS = ("data.train_file", "data.test_file")
YES, NO = "true", "false"
FOUND = ".found"
SLIP = 0.85  # so similar to a known option is a slip of the pen rather than an option of the platform


def parse_options(parser: CommandLine, arguments: list[str] | None) -> argparse.Namespace:
    """Parse a command line, with the options of the platforms; in a job, options that nobody knows are only listed.

    Raises:
        ConfigError: outside a job, an unknown option.
    """
    add_job_arguments(parser)
    options, unknown = parser.parse_known_args(arguments)
    if unknown and not in_job(options):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.unknown = []
    for word in unknown:  # a value follows its option
        hint = parser.nearest(word.partition("=")[0], SLIP) if word.startswith("-") else ""
        options.unknown += [f"{word} ({hint.strip()})" if hint else word]
    return options


def is_yes(text: str, option: str) -> bool:
    """The truth value of an option that may come as a flag or, from a form, with a word.

    Raises:
        ConfigError: it is neither true nor false.
    """
    if text.strip().lower() not in (YES, NO, ""):
        raise ConfigError(f"{option} {text}: expected true or false, or nothing behind it")
    return text.strip().lower() == YES


def enter_job(options: argparse.Namespace, is_main: bool = True) -> Job:
    """The job that the program runs in, with everything fetched that its form names; outside one, a job that is none.

    Args:
        options: of the command line.
        is_main: whether this process is the one of the job that logs and uploads.

    Raises:
        JobError: an SDK is missing or fails, or an option cannot be understood.
    """
    if in_job(options):
        set_up_log()
        if options.unknown:
            log.info("options that this program does not know, ignored: %s", " ".join(masked(options.unknown)))
    job = open_job(options, is_main)
    predicts = getattr(options, "input", None) or getattr(options, "smiles", None)
    if job.active and job.output is None and is_main and not predicts:
        log.warning("warning: the job's form names no place for results (--train_url, --result_url); if the platform "
                    "removes this machine's files at the end, they are lost")  # fmt: skip
    return job


def use_for_training(options: argparse.Namespace, job: Job) -> None:
    """Change the options of train.py to what the job has brought; outside a job nothing happens.

    Raises:
        JobError, DataError: something that the job should have brought is not there, or not one thing.
    """
    if not job.active:
        return
    sub = options.output or _chosen(options, OUTPUT_KEY) or ""
    if job.output is not None and job.is_main:
        # a result too, also where the program fails at once; a log that is there, or will be brought, stays as it is
        first = not (job.output / LOG).exists() and not _earlier(job, "") and (options.resume or NO).lower() == NO
        log_to(job.output / (LOG if first else f"job-{job.started}.log"), last=False)
    if options.config and not Path(options.config).exists() and (PROGRAM_FOLDER / options.config).exists():
        options.config = str(PROGRAM_FOLDER / options.config)  # platforms start it in a folder of their own
    _use_data(options, job)
    if not _resume(options, job, sub):
        _use_weights(options, job)
        earlier = _earlier(job, sub)
        if earlier and not is_yes(options.overwrite, "--overwrite"):
            raise JobError(
                f"{earlier}: a run is there already; --resume True continues it, --overwrite True replaces it, "
                "--output NAME puts the new one beside it"
            )
    if job.output is not None:
        options.output = None
        _set(options, OUTPUT_KEY, job.output / sub)


def _earlier(job: Job, sub: str) -> str:
    """Where the results of an earlier run are that this one would replace; empty where there are none."""
    if job.output is None or not job.is_main:
        return ""
    if (job.output / sub).is_dir() and files_of_run(job.output / sub):
        return str(job.output / sub)
    return job.address_of(f"{sub}/{CONFIG}" if sub else CONFIG) if job.address_of else ""


def use_for_evaluation(options: argparse.Namespace, job: Job) -> None:
    """Change the options of eval.py to what the job has brought; outside a job nothing happens.

    Raises:
        DataError: something that the job should have brought is not one thing.
    """
    if not job.active:
        return
    if job.weights and not (options.ckpt and Path(options.ckpt).exists()):
        found = _attached(job.weights, options.ckpt) or _checkpoint(job, job.weights, options.ckpt or "")
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


def _use_weights(options: argparse.Namespace, job: Job) -> None:
    """The attached checkpoint, or what --set training.pretrained chooses from it, is what the run starts from."""
    wanted = _chosen(options, PRETRAINED_KEY)
    if job.weights and wanted != "" and not (wanted and Path(wanted).exists()):
        place = _attached(job.weights, wanted)
        found = _checkpoint(job, [place] if place else job.weights, "" if place else wanted or "")
        if found is not None:
            _set(options, PRETRAINED_KEY, found)


def _resume(options: argparse.Namespace, job: Job, sub: str) -> bool:
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
    job.once(f"run of {sources} in {folder}", lambda scratch: _bring_run(job, sources, folder, sub, scratch))
    if not _holds_run(folder):
        if wish.lower() != YES:
            raise JobError(f"--resume {wish}: expected a run folder with config.yaml and {checkpoints.LAST}")
        options.resume = None
        log.info("nothing to resume: neither the output folder nor the attached weights hold a run; a new one begins")
        return False
    log.info("resuming the run in %s", folder)
    options.resume, options.config = str(folder), None
    return True


def _bring_run(job: Job, sources: list[Path], folder: Path, sub: str, scratch: Path) -> None:
    """Put a run into its folder of the output: what it holds comes first, then its address, then the sources."""
    if _holds_run(folder):
        return
    earlier = scratch / "earlier"
    if job.fetch_output is not None:
        job.fetch_output(earlier)
    for places in ([earlier / sub], sources):
        runs, _ = find_all([place for place in places if place.exists()], scratch, _holds_run)
        if len(runs) > 1:
            raise JobError(f"--resume: expected one run, found {', '.join(map(str, runs))}; attach only one")
        if runs:  # with the file last that makes it a run: a copy that is cut short is none
            folder.mkdir(parents=True, exist_ok=True)
            files = filter(Path.is_file, runs[0].iterdir())
            for file in sorted(files, key=lambda file: file.name == CONFIG):
                shutil.copy2(file, folder / file.name)
            return


def _data(job: Job, places: list[Path], name: str = "") -> Path:
    """The one data set in files or folders; archives are unpacked once a server."""
    return _find_once(job, f"data {name}", places, lambda scratch: find_data(places, scratch, name))


def _checkpoint(job: Job, places: list[Path], name: str = "") -> Path | None:
    """The one checkpoint in files or folders; None where --model_url has none, which may be a place for results."""

    def find(scratch: Path) -> Path:
        return find_one(places, scratch, _is_checkpoint, CHECKPOINT, PRETRAINED_KEY, name)

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


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in (checkpoints.BEST, checkpoints.LAST))
    return path.suffix == ".safetensors"


def _holds_run(path: Path) -> bool:
    return (path / CONFIG).is_file() and any(path.glob(f"{Path(checkpoints.LAST).stem}*.safetensors"))


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
