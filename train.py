"""Train a model: configuration -> data -> model -> loop -> report.

    python train.py --config configs/schnet/qm9_lite_tuned.yaml --target gap --epochs 20

The run folder holds config.yaml, train.log, metrics.csv, metrics.json, best and last checkpoints, predictions.csv and
three pictures.  ``--resume RUN`` continues a run.  With run.run_mode=infer, run.ckpt_file is measured on the test
structures instead.  A mistake in the input is one line and exit code 2.
"""

from __future__ import annotations

from experiment.startup import begin

if __name__ == "__main__":
    begin()

import logging
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext

from cloud.job import Job
from configs.schema import Config
from data_tools.dataset import make_dataset
from experiment import provenance
from experiment.command_line import exit_code
from experiment.continuation import continued
from experiment.data import open_packed, resolve_task
from experiment.epochs import train
from experiment.evaluation import evaluation_of
from experiment.evaluation.evaluator import Labelled
from experiment.forecast import foresee
from experiment.inference import INFER, infer
from experiment.job_options import enter_job, use_for_training
from experiment.model import build
from experiment.named_files import check_named_files, open_log_file
from experiment.provenance import Command, command_of
from experiment.report import report
from experiment.resolve import resolve
from experiment.run_folder import LOG, RunFolder, write_start
from experiment.run_log import log_to, set_up_log
from experiment.summary import describe, log_scale
from experiment.tensorboard_curves import check_tensorboard
from experiment.trainer import check_agreement, make_batches, make_trainer, warn_of_schedule
from experiment.training_options import chosen_sizes, configure, keep_graphs, parse_arguments, start_processes
from experiment.transfer import begin_from
from training.device import set_up
from training.distributed import join
from training.interruption import undone_by_interruption
from training.launch import check_launch, is_launched, is_scheduler, launched_rank

log = logging.getLogger("geospore")


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
    ranks = set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    task = resolve_task(config)  # a mistake in the target is told before the data are read
    for line in provenance.command_lines(command):
        log.info("%s", line)
    log.info("Loading data...")
    packed = open_packed(config)
    begun = continued(config, task, packed.table.source, place)
    previous = begun.checkpoint if begun is not None else None
    config, split, adapted = resolve(config, task, packed, chosen, begun)
    dataset = make_dataset(packed, split, task)
    log_scale(dataset.normalizer, task)
    log.info("Initializing model...")
    model = build(config, task)
    pretrained = begin_from(model, config, task, dataset.train_elements, previous is not None)
    origin = provenance.of_run(command, packed.table.source, pretrained, previous.information if previous else None)
    for line in provenance.pretrained_lines(origin):
        log.info("%s", line)
    describe(config, dataset, task, model, ranks, adapted)
    labelled = Labelled.of(dataset)
    evaluation = evaluation_of(config, task, model, dataset.normalizer, labelled, [split.valid, split.test], ranks)
    batches = make_batches(config, dataset, ranks)
    trainer = make_trainer(config, dataset, task, model, batches, evaluation, place.path, ranks, previous)
    trainer.information["provenance"] = origin
    check_agreement(dataset, trainer)
    warn_of_schedule(trainer)
    shapes, seconds = trainer.compile()
    log.info("compiled %d training shapes in %.1f s", shapes, seconds)
    if dry:
        on_host = config.run.device_target == "CPU"
        log.info("dry run, nothing written: %s", foresee(trainer, batches, evaluation, split.valid, on_host))
        return
    evaluation.evaluator.compile()
    if ranks.is_main:
        place.begin(lambda stage: write_start(stage, config, split, None if place.resume else trainer.save_start))
        open_log_file(config.run)
        log_to(place.path / LOG, fresh=not place.resume)
    train(config, trainer, job)
    report(config, dataset, task, trainer, batches, evaluation, started)


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
            check_named_files(config.run)
            check_tensorboard(config.run)
            keep_graphs(options)
            with undone_by_interruption(place.release), place if is_main and not options.dry_run else nullcontext():
                if config.run.run_mode == INFER:
                    infer(config, place, command)
                else:
                    run(config, place, options.dry_run, job, command, chosen_sizes(options))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
