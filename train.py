"""Train a model: configuration -> data -> model -> loop -> report.

    python train.py --config configs/schnet/qm9_lite.yaml --target gap --epochs 20

The run folder holds config.yaml, train.log, metrics.csv, metrics.json, best and last checkpoints, predictions.csv and
three pictures.  ``--resume RUN`` continues a run.  A mistake in the input is one line and exit code 2.
"""

from __future__ import annotations

from training.startup import begin

if __name__ == "__main__":
    begin()

import argparse
import os
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from assembly import (
    check_agreement,
    check_continuation,
    foresee,
    make_batches,
    make_trainer,
    open_fitted,
    warn_of_schedule,
)
from configs.loading import ConfigError, config_to_yaml, load_config, override_of
from configs.options import help_of
from configs.rules import check_resume_model, check_rules
from configs.schema import Config
from data_tools import dataset as data
from data_tools.plausibility import unit_suspicions
from data_tools.split_sizes import SIZES
from data_tools.splits import Split, save_split
from job_options import NO, YES, enter_job, is_yes, parse_options, use_for_training
from measures import baseline_predictions, measure_forces, metrics_of
from models import cpu_kernels
from session import (
    CommandLine,
    Evaluator,
    Predictions,
    build_single,
    exit_code,
    log,
    resolve_task,
)
from training import checkpoint as checkpoints
from training import provenance
from training.cloud_job import Job
from training.cpu_runtime import cores
from training.distributed import Ranks, join
from training.files import clock, write_text
from training.interruption import release, undone_by_interruption
from training.launch import check_launch, is_launched, is_scheduler, launched_rank
from training.loop import Trainer
from training.platform import set_up, versions
from training.provenance import Command, command_of
from training.report import Subject, draw, draw_forces, draw_history, metrics_table, write_metrics, write_predictions
from training.run_folder import CONFIG as RUN_CONFIG
from training.run_folder import LOG as RUN_LOG
from training.run_folder import SPLIT, RunFolder
from training.run_log import log_to, set_up_log
from training.step import compile_count
from training.visible_devices import warn_of_unused

#: command-line options that stand for one key of the configuration: the key, and what it is
OPTIONS = {
    "target": ("target.name", "property to predict: mu, alpha, homo, lumo, gap, r2, zpve, U0, U, H, G, Cv or energy"),
    "epochs": ("training.epochs", "passes through the training molecules"),
    "batch_size": ("training.batch_size", "molecules in a batch, over all devices"),
    "subset_size": ("data.train_size", "use only so many training molecules, 0: all"),
    "lr": ("optimizer.lr", "learning rate, the highest of a schedule"),
    "mode": ("run.mode", "execution mode"),
    "device_target": ("run.device_target", "where the model runs"),
    "device_id": ("run.device_id", "number of the device"),
    "dtype": ("run.dtype", "precision of weights and arithmetic; float16: --set run.amp_level=O2"),
    "seed": ("run.seed", "of the weights and of the order of molecules"),
    "output": ("run.output", "run folder; none: runs/<model>_<config>_<target>_seed<seed>, numbered if taken"),
}


EPILOG = """Defaults hold where the configuration says nothing.  All keys and their meaning: configs/schema.py."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: an unknown option.
    """
    parser = CommandLine(description="Train a model.", epilog=EPILOG)
    parser.add_argument("--config", help="YAML file, for example configs/schnet/qm9_lite.yaml")
    for option, (key, words) in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="VALUE", help=help_of(key, words))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="sets any other key")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder, instead of --config")
    parser.add_argument(
        "--overwrite", nargs="?", const=YES, default=NO, metavar="TRUE", help="replace the run that --output holds"
    )
    parser.add_argument("--device_num", metavar="N", help="use so many devices of this machine, a process for each")
    parser.add_argument("--dry_run", action="store_true", help="only measure what the run will take; writes nothing")
    return parse_options(parser, arguments)


def overrides_of(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Every option and ``--set`` as (section.key, text).

    Raises:
        ConfigError: a ``--set`` without ``=``.
    """
    given = {key: getattr(options, option) for option, (key, _) in OPTIONS.items()}
    return [*((key, text) for key, text in given.items() if text is not None), *map(override_of, options.set)]


def configure(options: argparse.Namespace) -> tuple[Config, RunFolder]:
    """The configuration and the run folder; a resumed run takes its own configuration with the given changes.

    Raises:
        ConfigError: neither or both of --config and --resume, options that contradict each other, or a mistake in the
            configuration.
    """
    if (options.config is None) == (options.resume is None):
        raise ConfigError("give either --config FILE for a new run or --resume RUN to continue one")
    overwrite, changes = is_yes(options.overwrite, "--overwrite"), overrides_of(options)
    if options.resume:
        folder = Path(options.resume)
        outputs = [text for key, text in changes if key == "run.output"]
        if overwrite or (outputs and Path(outputs[-1]).resolve() != folder.resolve()):
            raise ConfigError(
                f"--resume {folder} continues the run in that folder: leave out --output and --overwrite, or copy the "
                "folder first and resume the copy"
            )
        check_resume_model(load_config(folder / RUN_CONFIG), changes, str(folder))
        config = load_config(folder / RUN_CONFIG, changes)
        place = RunFolder(folder, resume=True)
    else:
        config = load_config(options.config, changes)
        name = f"{config.model.name}_{Path(options.config).stem}_{config.target.name}_seed{config.run.seed}"
        chosen = config.run.output
        place = RunFolder(Path(chosen or Path("runs") / name), overwrite=overwrite, numbered=not chosen)
    check_rules(config)
    return config, place


def chosen_sizes(options: argparse.Namespace) -> set[str]:
    """Sizes of the split that must not adapt to the data: those given as options, and all of a run that continues."""
    sizes = {f"data.{name}" for name in SIZES}
    return sizes if options.resume else sizes & {key for key, _ in overrides_of(options)}


def describe(
    config: Config, dataset: data.Dataset, task: data.Task, model: Any, ranks: Ranks, adapted: str = ""
) -> None:
    """What a person wants to know before hours are spent."""
    run, split, table = config.run, dataset.split, dataset.packed.table
    log.info("%s  device %s:%d  mode %s  %s  %d cores", "  ".join(f"{k} {v}" for k, v in versions().items()),
             run.device_target, run.device_id, run.mode, run.dtype, cores())  # fmt: skip
    if run.device_target == "CPU":
        log.info("kernels for CPUs: %s", cpu_kernels.state())
    warn_of_unused(run.device_target)
    if ranks.size > 1:
        log.info("rank %d of %d, process id %d", ranks.rank, ranks.size, os.getpid())
    log.info("data: %s: %d molecules, %d atoms", table.source, len(table), len(table.numbers))
    for words in [*unit_suspicions(table), *data.reference_suspicions(dataset, task)]:
        log.warning("warning: %s", words)
    if adapted:
        log.info(adapted)
    log.info("split %s: %d train, %d valid, %d test; elements in training: %s", split.name, len(split.train),
             len(split.valid), len(split.test), data.symbols(dataset.train_elements))  # fmt: skip
    log.info("target %s [%s], label definition %s, readout %s, standardisation %s (scale %.6g, shift %.6g %s)",
             task.target.name, task.target.unit, task.reference, task.readout, task.standardisation,
             dataset.normalizer.scale, dataset.normalizer.shift, task.target.unit)  # fmt: skip
    log.info("model %s: %d parameters", config.model.name, sum(p.size for p in model.trainable_params()))


def report(
    config: Config, dataset: data.Dataset, task: data.Task, trainer: Trainer, evaluate: Evaluator, folder: Path
) -> dict[str, Any]:
    """Test the best model beside the trivial baselines; write predictions and pictures; returns the metrics."""
    unit, rows, known = task.target.unit, dataset.split.test, dataset.train_elements
    best, ranks = trainer.evaluation_parameters(), trainer.ranks
    checkpoints.assign(trainer.model, best)
    last = evaluate(rows)
    if ranks.is_main:
        best = checkpoints.load(folder / checkpoints.BEST).weights
    checkpoints.assign(trainer.model, ranks.share(best))
    found = evaluate(rows)
    labels, counts, train = dataset.labels[rows], dataset.counts[rows], dataset.split.train
    baselines = baseline_predictions(dataset.labels[train], dataset.counts[train], counts)
    table = metrics_of(labels, counts, {"best model": found.values, "last model": last.values, **baselines}, known)
    log.info("test, %s [%s], best epoch %d:\n%s", task.target.name, unit, trainer.progress.best_epoch,
             metrics_table(table, unit))  # fmt: skip
    content: dict[str, Any] = {"test": table}
    true_forces = dataset.forces_of(rows)
    if true_forces is not None and found.forces is not None and last.forces is not None:
        models = {"best model": found.forces, "last model": last.forces}
        of_forces = measure_forces(table["best model"], models, true_forces, f"{unit}/A")
        content |= {"test_forces": of_forces} if of_forces else {}
    structures = dataset.packed.table
    names = [structures.names[row] for row in rows] if structures.names else []
    if ranks.is_main:
        write_predictions(
            folder / "predictions.csv", structures.ids[rows], names, found.values, labels, task.target.name, unit
        )
    if ranks.is_main and config.run.plots:
        draw_run(config, dataset, task, trainer, found, folder)
    best_row = trainer.progress.history[trainer.progress.best_epoch - 1]
    validation = {key: value for key, value in best_row.items() if key.startswith("valid_")}
    return {**content, "best_epoch": trainer.progress.best_epoch, **validation}


def draw_run(
    config: Config, dataset: data.Dataset, task: data.Task, trainer: Trainer, found: Predictions, folder: Path
) -> None:
    """The pictures of a run; baselines beside the course of training are those of the validation molecules."""
    split, progress = dataset.split, trainer.progress
    subject = Subject(
        folder.resolve().name, config.model.name, sum(p.size for p in trainer.model.trainable_params()),
        task.target.name, task.target.unit, split.name,
        {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}, progress.best_epoch,
    )  # fmt: skip
    draw(folder, subject, dataset.labels[split.test], found.values, found.embeddings)
    true_forces = dataset.forces_of(split.test)
    if true_forces is not None and found.forces is not None and np.isfinite(true_forces).any():
        draw_forces(folder, subject, true_forces, found.forces)
    counts = dataset.counts
    baselines = baseline_predictions(dataset.labels[split.train], counts[split.train], counts[split.valid])
    trivial = {name: float(np.abs(dataset.labels[split.valid] - values).mean()) for name, values in baselines.items()}
    of_forces, forces = {}, dataset.forces_of(split.valid)
    if forces is not None and np.isfinite(forces).any():
        of_forces = {"zero forces": float(np.nanmean(np.abs(forces)))}
    draw_history(folder, subject, progress.history, trivial, of_forces)


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


def run(
    config: Config, place: RunFolder, dry: bool, job: Job, command: Command, chosen: Collection[str] = ()
) -> None:
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
    task, folder = resolve_task(config), place.path
    ranks = set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    damaged: list[str] = []
    previous = checkpoints.newest(folder, damaged.append) if place.resume else None
    model = build_single(config, task)
    if config.training.pretrained and previous is None:
        pretrained = checkpoints.load(config.training.pretrained)
        checkpoints.assign(model, pretrained.weights, config.training.pretrained)
    config, dataset, adapted = open_fitted(config, task, chosen)
    split = dataset.split
    if previous is not None:
        check_continuation(config, dataset, task, previous, folder)
    origin = provenance.of_run(
        command, dataset.packed.table.source,
        checkpoints.find(config.training.pretrained) if config.training.pretrained and previous is None else None,
        previous.information if previous else None,
    )  # fmt: skip
    for line in provenance.log_lines(origin):
        log.info("%s", line)
    describe(config, dataset, task, model, ranks, adapted)
    evaluate = Evaluator(
        model, dataset.packed, [split.valid, split.test], dataset.normalizer, config.training.eval_batch_size,
        config.run.dtype, ranks, forces=dataset.forces is not None,
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
