"""Train a model: configuration -> data -> model -> loop -> report.

    python train.py --config configs/schnet/qm9_lite.yaml --target gap --epochs 20

The run folder holds config.yaml, train.log, metrics.csv, metrics.json, best and last checkpoints, predictions.csv and
three pictures.  ``--resume RUN`` continues a run.  A mistake in the input is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing to a user

from assembly import check_agreement, foresee, make_batches, make_trainer, open_fitted
from configs.loading import ConfigError, config_to_yaml, load_config, override_of
from configs.schema import Config
from data_tools import dataset as data
from data_tools.plausibility import unit_suspicions
from data_tools.split_sizes import SIZES
from data_tools.splits import save_split
from job_options import enter_job, parse_options, use_for_training
from measures import baseline_predictions, measure_forces, metrics_of
from models import cpu_kernels
from session import (
    CommandLine,
    Evaluator,
    build_single,
    exit_code,
    log,
    resolve_task,
    set_up_log,
)
from training import checkpoint as checkpoints
from training.cloud_job import Job
from training.cpu_runtime import cores
from training.distributed import Ranks, is_launched, is_scheduler, join, launched_rank
from training.files import clock, write_text
from training.loop import Trainer
from training.platform import set_up, versions
from training.report import draw, draw_forces, metrics_table, write_metrics, write_predictions
from training.step import compile_count

#: command-line options that stand for one key of the configuration
OPTIONS = {
    "target": "target.name",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "subset_size": "data.train_size",
    "lr": "optimizer.lr",
    "mode": "run.mode",
    "device_target": "run.device_target",
    "device_id": "run.device_id",
    "dtype": "run.dtype",
    "seed": "run.seed",
    "output": "run.output",
}


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: an unknown option.
    """
    parser = CommandLine(description="Train a model.", epilog="All keys and their meaning: configs/schema.py.")
    parser.add_argument("--config", help="YAML file, for example configs/schnet/qm9_lite.yaml")
    for option, key in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="VALUE", help=f"sets {key}")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="sets any other key")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder")
    parser.add_argument("--device_num", metavar="N", help="use so many devices of this machine, a process for each")
    parser.add_argument("--dry_run", action="store_true", help="only measure what the run will take; writes nothing")
    return parse_options(parser, arguments)


def overrides_of(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Every option and ``--set`` as (section.key, text).

    Raises:
        ConfigError: a ``--set`` without ``=``.
    """
    pairs = [(key, getattr(options, option)) for option, key in OPTIONS.items() if getattr(options, option) is not None]
    return [*pairs, *map(override_of, options.set)]


def configure(options: argparse.Namespace) -> tuple[Config, Path]:
    """The configuration and the run folder; a resumed run takes its own configuration with the given changes.

    Raises:
        ConfigError: neither or both of --config and --resume, or a mistake in the configuration.
    """
    if (options.config is None) == (options.resume is None):
        raise ConfigError("give either --config FILE for a new run or --resume RUN to continue one")
    if options.resume:
        folder = Path(options.resume)
        return load_config(folder / "config.yaml", overrides_of(options)), folder
    config = load_config(options.config, overrides_of(options))
    name = f"{config.model.name}_{Path(options.config).stem}_{config.target.name}_seed{config.run.seed}"
    return config, Path(config.run.output or Path("runs") / name)


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
        trivial = {name: table[name]["mae"] for name in baselines}
        draw(
            folder, trainer.progress.history, labels, found.values, found.embeddings, task.target.name, unit, trivial
        )  # fmt: skip
        if "test_forces" in content and true_forces is not None and found.forces is not None:
            draw_forces(folder, true_forces, found.forces, f"{unit}/A")
    best_row = trainer.progress.history[trainer.progress.best_epoch - 1]
    validation = {key: value for key, value in best_row.items() if key.startswith("valid_")}
    return {**content, "best_epoch": trainer.progress.best_epoch, **validation}


def open_folder(folder: Path, resume: bool) -> None:
    """Make the run folder ready for its log and checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.tidy(folder, keep=resume)
    set_up_log(folder)


def run(config: Config, folder: Path, resume: bool, dry: bool, job: Job, chosen: Collection[str] = ()) -> None:
    """Train and report; everything that can be checked is checked before the folder is touched."""
    started = time.perf_counter()
    task = resolve_task(config)
    ranks = set_up(config.run.mode, config.run.device_target, config.run.device_id, config.run.seed)
    damaged: list[str] = []
    previous = checkpoints.newest(folder, damaged.append) if resume else None
    pretrained = checkpoints.load(config.training.pretrained) if config.training.pretrained else None
    model = build_single(config, task)
    if pretrained is not None and previous is None:
        checkpoints.assign(model, pretrained.weights, config.training.pretrained)
    config, dataset, adapted = open_fitted(config, task, chosen)
    split = dataset.split
    writes = ranks.is_main and not dry
    if writes:
        open_folder(folder, resume)
    else:
        set_up_log()
    describe(config, dataset, task, model, ranks, adapted)
    evaluate = Evaluator(
        model, dataset.packed, [split.valid, split.test], dataset.normalizer, config.training.eval_batch_size,
        config.run.dtype, ranks, forces=dataset.forces is not None,
    )  # fmt: skip
    batches = make_batches(config, dataset, ranks)
    trainer = make_trainer(config, dataset, task, model, batches, evaluate, folder, ranks)
    if previous is not None:
        for words in damaged:
            log.warning("skipped a checkpoint: %s", words)
        trainer.restore(previous)
        log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
    if writes:
        write_text(folder / "config.yaml", config_to_yaml(config))
        save_split(split, folder / "split.npz")
    check_agreement(config, dataset, trainer)
    shapes, seconds = trainer.compile()
    log.info("compiled %d training shapes in %.1f s", shapes, seconds)
    if dry:
        log.info("dry run, nothing written: %s", foresee(config, split, trainer, batches, evaluate))
        return
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
    os.execvp("bash", ["bash", str(launcher), count, *arguments])


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        if is_scheduler():
            join()  # serves the processes of the run until they have ended
        options = parse_arguments(arguments)
        if options.device_num and not is_launched():
            start_processes(options.device_num, sys.argv[1:] if arguments is None else arguments)
        with enter_job(options, launched_rank() == 0) as job:  # uploads the results at the end, whatever the end is
            use_for_training(options, job)
            config, folder = configure(options)
            run(config, folder, bool(options.resume), options.dry_run, job, chosen_sizes(options))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
