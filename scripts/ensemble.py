"""Train an ensemble: one configuration with several seeds, whose spread says how sure a prediction is.

    python scripts/ensemble.py --config configs/schnet/qm9_lite_tuned.yaml --target gap --seeds 4 --output runs/ensemble
    python eval.py --ckpt runs/ensemble

Every option of train.py may follow (--epochs, --set, ...) except --seed, --resume, --overwrite and --dry_run.  The
members have the seeds 0, 1, ... and are runs of train.py in folders of their own (seed0, seed1, ...); the split of the
data is the same for all.  Called again with the same options, finished members are left alone, interrupted ones go on
where they were, and more --seeds add members.  A member that fails is named in one line, the others are trained.  At
the end there is a table of their errors, with mean and standard deviation.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from experiment.startup import begin

    begin(interruptible=False)  # the trainings that it starts decide for themselves about signals

import argparse
import contextlib
import logging
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cloud.options import is_yes
from configs.loading import ConfigError, load_config
from configs.rules import check_rules
from configs.schema import Config
from experiment.closed_pipes import until_closed
from experiment.command_line import BAD_INPUT, SIGNAL, CommandLine, exit_code
from experiment.comparison import Rows, comparison, markdown
from experiment.data import resolve_task
from experiment.ensemble_folder import (
    RECORD,
    EnsembleRecord,
    can_resume,
    has_begun,
    is_ensemble,
    is_finished,
    member_folder,
    read_record,
    write_record,
)
from experiment.inference import INFER
from experiment.run_files import read_run
from experiment.run_folder import FolderError
from experiment.training_options import overrides_of
from experiment.training_options import parse_arguments as parse_training
from scripts.quickstart_plan import differences
from training.interruption import Interrupted

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
MOST_SEEDS = 1000
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
#: lines of a training's log that are shown; all of them are in its train.log
SHOWN = re.compile(r"epoch \d+/\d+  train loss|early stop|test MAE|the state after step|warning:")
#: what every member has to itself, and why an option cannot set it
OWN = {
    "run.seed": "the members have the seeds 0, 1, ...; --seeds says how many",
    "run.output": "members have folders in that of --output",
    "run.ckpt_file": "every member would replace that of the one before",
}
FORBIDDEN = ("seed", "resume", "dry_run")


class Plan(NamedTuple):
    """What is to be trained.

    Attributes:
        folder: of the ensemble.
        config_file: the YAML file.
        words: options of train.py beside it.
        record: configuration and number of members.
    """

    folder: Path
    config_file: str
    words: list[str]
    record: EnsembleRecord


def parse(arguments: list[str] | None) -> Plan:
    """The options.

    Raises:
        ConfigError: an unknown one, one that a member cannot have, or a mistake in the configuration.
        DataError: an unknown target.
    """
    parser = CommandLine(description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file, as of train.py")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="how many members, 2 or more (default: 4)")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="new, or that of the ensemble to go on with")
    options, words = parser.parse_known_args(arguments)
    if not 2 <= options.seeds <= MOST_SEEDS:
        raise ConfigError(
            f"--seeds: expected 2 to {MOST_SEEDS} members, got {options.seeds}; for one model call train.py"
        )
    training = parse_training(["--config", options.config, *words])
    config = load_config(options.config, overrides_of(training))
    check_options(training, config)
    check_rules(config)
    resolve_task(config)
    return Plan(Path(options.output), options.config, words, EnsembleRecord(config, options.seeds))


def check_options(training: argparse.Namespace, config: Config) -> None:
    """Refuse options of train.py that belong to one run.

    Raises:
        ConfigError: one is given.
    """
    given = [name for name in FORBIDDEN if getattr(training, name)]
    if is_yes(training.overwrite, "--overwrite"):
        given.append("overwrite")
    if given:
        raise ConfigError(
            f"--{given[0]}: expected options that all members share; {OWN['run.seed']}, members go on by themselves, "
            "and a new ensemble needs another --output"
        )
    for key, _ in overrides_of(training):
        if key in OWN:
            raise ConfigError(f"--set {key}: {OWN[key]}; leave it out")
    if config.run.ckpt_file:
        raise ConfigError(f"run.ckpt_file: {OWN['run.ckpt_file']}; leave it out")
    if config.run.run_mode == INFER:
        raise ConfigError("run.run_mode=infer measures a checkpoint; expected a training, run.run_mode=train")


def check_place(plan: Plan) -> None:
    """Refuse a folder of something else, or of an ensemble with other settings.

    Raises:
        FolderError, ConfigError: it is one.
    """
    folder, wished = plan.folder, plan.record
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: expected a folder for an ensemble, found a file; choose another --output")
    if not is_ensemble(folder):
        there = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
        if there:
            raise FolderError(
                f"{folder}: expected a new or empty folder, or one of an ensemble, found {', '.join(there[:3])}"
                f"{' and more' if len(there) > 3 else ''}; choose another --output"
            )
        return
    record = read_record(folder)
    if not has_begun(folder, record.seeds):
        return
    other = differences(record.config, wished.config, set())
    if other:
        raise ConfigError(
            f"{folder} holds an ensemble with other settings than these: {', '.join(other[:4])}"
            f"{f' and {len(other) - 4} more' if len(other) > 4 else ''}; give the same options, or another --output"
        )
    if wished.seeds < record.seeds:
        raise ConfigError(
            f"--seeds {wished.seeds}: expected {record.seeds} or more, the members that {folder} has; to use fewer, "
            "name their folders: eval.py --ckpt RUN RUN"
        )


def command_of_member(plan: Plan, seed: int) -> list[str]:
    """What trains a member, or continues its training."""
    run = member_folder(plan.folder, seed)
    if can_resume(run):
        return [sys.executable, str(TRAIN), "--resume", str(run), *plan.words]
    place = ["--seed", str(seed), "--output", str(run)]
    return [sys.executable, str(TRAIN), "--config", plan.config_file, *plan.words, *place]


def train_member(plan: Plan, seed: int) -> tuple[int, str]:
    """Train a member in a process of its own, whose important lines are printed.

    Returns:
        Its exit code, and the last line of its standard error.

    Raises:
        KeyboardInterrupt: this program was asked to end; so was the training, which has saved its state.
    """
    name = member_folder(plan.folder, seed).name
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command_of_member(plan, seed), stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        try:
            for line in process.stdout or ():
                words = STAMP.sub("", line.rstrip())
                if SHOWN.match(words):
                    print(f"{name}: {words}", flush=True)
            code = process.wait()
        except BaseException as error:
            process.send_signal(signal.SIGINT if type(error) is KeyboardInterrupt else signal.SIGTERM)
            try:
                process.communicate()
            except KeyboardInterrupt:  # asked again
                process.kill()
            raise
        errors.seek(0)
        lines = [line.strip() for line in errors if line.strip()]
    return code, lines[-1].removeprefix("error: ") if lines else "it has said nothing"


def train_members(plan: Plan) -> int:
    """Train what is not finished; returns the exit code.

    Raises:
        ConfigError: a training refuses its input, which is that of all the others too.
    """
    failed = 0
    for seed in range(plan.record.seeds):
        run = member_folder(plan.folder, seed)
        if is_finished(run):
            print(f"{run.name}: finished already", flush=True)
            continue
        print(f"{run.name}: {'goes on' if can_resume(run) else 'begins'}, all of its log is in {run}", flush=True)
        code, words = train_member(plan, seed)
        if code == BAD_INPUT:
            raise ConfigError(f"{run.name}: {words}")
        if code > SIGNAL:
            print(f"{run.name}: {words}; the same command goes on with the ensemble", file=sys.stderr)
            return code
        if code:
            failed = failed or (code if code > 0 else 1)
            print(f"error: {run.name} has failed with exit code {code}: {words}; the others go on", file=sys.stderr)
    return failed


def summary(plan: Plan) -> Rows:
    """One row a member with its errors, then their mean and standard deviation."""
    logging.getLogger("geospore").setLevel(logging.ERROR)
    folders = [member_folder(plan.folder, seed) for seed in range(plan.record.seeds)]
    runs = [read_run(folder) for folder in folders if is_finished(folder)]
    if not runs:
        return []
    kept = ("state", "best epoch", "valid MAE", "test MAE", "time of epochs")
    rows = [
        {name: text for name, text in row.items() if name == "run" or name.startswith(kept)} for row in comparison(runs)
    ]
    errors = [name for name in rows[0] if " MAE" in name]
    if len(rows) > 1:
        values = {name: [float(row[name]) for row in rows if row[name]] for name in errors}
        for title, law in (("mean", np.mean), ("standard deviation", deviation)):
            empty: dict[str, str] = dict.fromkeys(rows[0], "")
            rows.append(empty | {"run": title} | {name: f"{law(found):.5g}" for name, found in values.items() if found})
    return rows


def deviation(values: list[float]) -> Any:
    """With K - 1 in the denominator."""
    return np.std(values, ddof=1) if len(values) > 1 else np.nan


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does, so that the training that runs is asked to end too."""

    def interrupt(number: int, _: Any) -> None:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        plan = parse(arguments)
        check_place(plan)
        was_there = plan.folder.exists()
        write_record(plan.folder, plan.record)
        try:
            with ended_by_signals():
                code = train_members(plan)
        finally:
            undo_empty(plan, was_there)
        rows = summary(plan)
        if rows:
            sys.stdout.write(markdown(rows))
        if len(rows) > 1:
            print(f"what they predict together: python eval.py --ckpt {plan.folder}")
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return code


def undo_empty(plan: Plan, was_there: bool) -> None:
    """Where no member has begun, leave the place as it was."""
    if not has_begun(plan.folder, plan.record.seeds):
        (plan.folder / RECORD).unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                plan.folder.rmdir()


if __name__ == "__main__":
    sys.exit(until_closed(main))
