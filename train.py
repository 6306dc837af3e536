"""Train a model: configuration -> data -> model -> loop -> report.

    python train.py --config configs/schnet/qm9_lite_tuned.yaml --target gap --epochs 20

The run folder holds config.yaml, train.log, metrics.csv, metrics.json, best and last checkpoints, predictions.csv and
three pictures.  ``--resume RUN`` continues a run.  A mistake in the input is one line and exit code 2.
"""

from __future__ import annotations

from experiment.startup import begin

if __name__ == "__main__":
    begin()

import logging
import os
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from cloud.job import Job
from cloud.options import enter_job, use_for_training
from configs.loading import ConfigError, config_to_yaml
from configs.rules import check_rules
from configs.schema import Config
from data_tools.labels.splits import Split, save_split
from data_tools.source_files import sha256_of
from experiment import provenance
from experiment.command_line import exit_code
from experiment.data import dataset_of, open_packed, resolve_task
from experiment.evaluation.evaluator import Evaluator
from experiment.model import build_single
from experiment.provenance import Command, command_of
from experiment.report import describe, report
from experiment.resolve import resolve
from experiment.results import write_metrics
from experiment.run_folder import CONFIG as RUN_CONFIG
from experiment.run_folder import LOG as RUN_LOG
from experiment.run_folder import SPLIT, RunFolder
from experiment.run_log import log_to, set_up_log
from experiment.trainer import (
    check_agreement,
    check_continuation,
    check_same_data,
    foresee,
    make_batches,
    make_trainer,
    warn_of_schedule,
)
from experiment.training_options import chosen_sizes, configure, parse_arguments
from training import checkpoint as checkpoints
from training.device import set_up, versions
from training.distributed import join
from training.files import clock, write_text
from training.interruption import release, undone_by_interruption
from training.launch import check_launch, is_launched, is_scheduler, launched_rank
from training.loop import Trainer
from training.step import compile_count

log = logging.getLogger("geospore")


def write_start(stage: Path, config: Config, split: Split, trainer: Trainer | None) -> None:
    """The first files of a run; of a continued one those that may differ.

    Args:
        stage: where to write them.
        config: of the run.
        split: of the run.
        trainer: of a new run, whose state before the first step is written; None for a continued one.
    """
    write_text(stage / RUN_CONFIG, config_to_yaml(config))
    save_split(split, stage / SPLIT)
    if trainer is not None:
        trainer.save_start(stage)


def run(config: Config, place: RunFolder, dry: bool, job: Job, command: Command, chosen: Collection[str] = ()) -> None:
    """Train and report; everything that can fail is tried before anything in the run folder changes.

    Args:
        config: the configuration.
        place: where the results go.
        dry: only measure what the run would take.
        job: of a platform, which takes the results out.
        command: that was given.
        chosen: sizes of the split that must not adapt to the data.
    """
    started = time.perf_counter()
    task, folder = resolve_task(config), place.path  # a mistake in the target is told before the data are read
    ranks = set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    damaged: list[str] = []
    previous = checkpoints.newest(folder, damaged.append) if place.resume else None
    packed = open_packed(config)
    if previous is not None:
        check_same_data(packed.table.source, previous, folder)
    config, adapted = resolve(config, task, packed.table, chosen)
    check_rules(config)
    dataset = dataset_of(config, packed, task)
    split = dataset.split
    if previous is not None:
        check_continuation(config, dataset, task, previous, folder)
    model = build_single(config, task)
    pretrained = None
    if config.training.pretrained and previous is None:
        file = checkpoints.find(config.training.pretrained)
        checkpoints.assign(model, checkpoints.load_weights(file).weights, config.training.pretrained)
        pretrained = {"file": str(file), "sha256": sha256_of(file)}
    origin = provenance.of_run(
        command, dataset.packed.table.source, pretrained, previous.information if previous else None
    )
    for line in provenance.log_lines(origin):
        log.info("%s", line)
    describe(config, dataset, task, model, ranks, adapted)
    evaluate = Evaluator(
        model, dataset.packed, [split.valid, split.test], dataset.normalizer, config.training.eval_batch_size,
        config.run.dtype, ranks, dataset.forces is not None, dataset.stress is not None,
    )  # fmt: skip
    batches = make_batches(config, dataset, ranks)
    trainer = make_trainer(config, dataset, task, model, batches, evaluate, folder, ranks)
    trainer.information["provenance"] = origin
    if previous is not None:
        for words in damaged:
            log.warning("skipped a checkpoint: %s", words)
        trainer.restore(previous)
        log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
    check_agreement(config, dataset, trainer)
    warn_of_schedule(trainer)
    shapes, seconds = trainer.compile()
    log.info("compiled %d training shapes in %.1f s", shapes, seconds)
    if dry:
        log.info("dry run, nothing written: %s", foresee(config, split, trainer, batches, evaluate))
        return
    evaluate.compile()
    if ranks.is_main:
        place.begin(lambda stage: write_start(stage, config, split, None if place.resume else trainer))
        log_to(folder / RUN_LOG, fresh=not place.resume)
    trainer.run(after_save=job.upload)
    metrics = report(config, dataset, task, trainer, evaluate, folder)
    total = time.perf_counter() - started
    content = {
        "task": task.to_dict(),
        "split": split.name,
        "counts": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        **metrics,
        "parameters": sum(p.size for p in model.trainable_params()),
        "compilations": {"training": compile_count(trainer.step), "evaluation": compile_count(evaluate.step)},
        "padding_waste_percent": batches.waste,
        "processes": ranks.size,
        "seconds": total,
        "versions": versions(),
        "provenance": origin,
    }
    if ranks.is_main:
        write_metrics(folder / "metrics.json", content)
    log.info("compilations: %d training, %d evaluation", compile_count(trainer.step), compile_count(evaluate.step))
    log.info("finished in %s; everything is in %s", clock(total), folder)


def start_processes(count: str, arguments: list[str]) -> NoReturn:
    """Become the launcher of ``count`` processes of this program, each of which takes one device.

    Raises:
        ConfigError: no count.
    """
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"--device_num {count}: expected a number of devices, 1 or more")
    launcher = Path(__file__).parent / "scripts" / "run_distribute_train.sh"
    os.environ["PYTHON"] = sys.executable
    release()
    os.execvp("bash", ["bash", str(launcher), count, *arguments])


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of("train.py", arguments)
    try:
        if is_scheduler():
            check_launch("CPU")
            join()  # serves the processes of the run until they have ended
        options = parse_arguments(arguments)
        if options.device_num and not is_launched():
            start_processes(options.device_num, sys.argv[1:] if arguments is None else arguments)
        set_up_log()
        is_main = launched_rank() == 0
        with enter_job(options, is_main) as job:  # uploads the results at the end, whatever the end is
            use_for_training(options, job)
            config, place = configure(options)
            with undone_by_interruption(place.release), place if is_main and not options.dry_run else nullcontext():
                run(config, place, options.dry_run, job, command, chosen_sizes(options))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
