"""train.py and eval.py inside a job of OpenI or ModelArts: its options, its log, and what it has brought."""

from __future__ import annotations

import argparse
import logging

from cloud.job import Job, add_job_arguments, in_job, open_job
from cloud.options import RunFiles, log_file, settle_evaluation, settle_training
from experiment.command_line import CommandLine
from experiment.provenance import masked
from experiment.run_folder import CONFIG, FILES, LOG
from experiment.run_log import log_to, set_up_log
from training.checkpoint import BEST, LAST

log = logging.getLogger("geospore")
RUN = RunFiles(CONFIG, LOG, BEST, LAST, FILES)
SLIP = 0.85  # so similar to a known option is a slip of the pen rather than an option of the platform


def parse_options(parser: CommandLine, arguments: list[str] | None) -> argparse.Namespace:
    """Parse a command line, with the options of the platforms; in a job, unknown options are only listed.

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
    """Change the options of train.py to what the job has brought; its log is a result of the job from the start.

    Raises:
        JobError, DataError: something that the job should have brought is not there, or not one thing.
    """
    file = log_file(options, job, RUN)
    if file is not None:
        log_to(file, last=False)
    settle_training(options, job, RUN)


def use_for_evaluation(options: argparse.Namespace, job: Job) -> None:
    """Change the options of eval.py to what the job has brought.

    Raises:
        DataError: something that the job should have brought is not one thing.
    """
    settle_evaluation(options, job, RUN)
