"""The command line of train.py: to a configuration and the folder of the run."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from cloud.options import NO, YES, is_yes
from configs.loading import ConfigError, config_from_dict, load_config, override_of
from configs.rules import check_resume_model, check_rules
from configs.schema import Config
from configs.writing import config_to_dict
from data_tools.labels.split_sizes import SIZES
from experiment.command_line import CommandLine, help_of
from experiment.inference import INFER
from experiment.job_options import parse_options
from experiment.run_folder import CONFIG, RunFolder
from training.device import save_graphs
from training.interruption import release
from training.launch import is_launched

log = logging.getLogger("geospore")
UNSAFE = re.compile(r"[^\w.+-]+")  # what the name of a property may have, and the name of a folder should not
GRAPHS = ("0", "1", "2", "3")  # levels of MindSpore's context
LAUNCHER = Path(__file__).parents[1] / "scripts" / "run_distribute_train.sh"

#: command-line options that stand for one key of the configuration: the key, and what it is
OPTIONS = {
    "target": (
        "target.name",
        "property to predict: mu, alpha, homo, lumo, gap, r2, zpve, U0, U, H, G, Cv, energy or force_constants, or one "
        "of your own data by its name there",
    ),
    "epochs": ("training.epochs", "passes through the training structures"),
    "batch_size": ("training.batch_size", "structures in a batch, over all devices"),
    "subset_size": ("data.train_size", "use only so many training structures, 0: all"),
    "lr": ("optimizer.lr", "learning rate, the highest of a schedule"),
    "mode": ("run.mode", "execution mode"),
    "device_target": ("run.device_target", "where the model runs"),
    "device_id": ("run.device_id", "number of the device"),
    "dtype": ("run.dtype", "precision of weights and arithmetic; float16: --set run.amp_level=O2"),
    "seed": ("run.seed", "of the weights and of the order of structures"),
    "output": ("run.output", "run folder; none: runs/<model>_<config>_<target>_seed<seed>, numbered if taken"),
}
EPILOG = "Defaults hold where the configuration says nothing.  All keys and their meaning: configs/schema.py."


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: an unknown option.
    """
    parser = CommandLine(description="Train a model.", epilog=EPILOG)
    words = "YAML file, for example configs/schnet/qm9_lite_tuned.yaml"
    parser.add_argument("--config", "--config_file_path", metavar="FILE", help=words)
    for option, (key, meaning) in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="VALUE", help=help_of(key, meaning))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="sets any other key")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder, instead of --config")
    parser.add_argument(
        "--overwrite", nargs="?", const=YES, default=NO, metavar="TRUE", help="replace the run that --output holds"
    )
    parser.add_argument("--device_num", metavar="N", help="use so many devices of this machine, a process for each")
    parser.add_argument("--dry_run", action="store_true", help="only measure what the run will take; writes nothing")
    parser.add_argument("--save_graphs", metavar="N", help="write MindSpore's graphs while they are compiled: 0 to 3")
    parser.add_argument("--save_graphs_path", metavar="FOLDER", default="./graphs", help="where (default: ./graphs)")
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
        if not (folder / CONFIG).is_file():
            found = "a file" if folder.is_file() else f"none with {CONFIG}" if folder.is_dir() else "nothing there"
            raise ConfigError(f"--resume {folder}: expected the folder of a run, found {found}; check the path")
        before = load_config(folder / CONFIG)
        check_resume_model(before, changes, str(folder))
        config = config_from_dict(config_to_dict(before), str(folder / CONFIG), changes)
        place = RunFolder(folder, resume=True)
        _check_mode(config, options)
    else:
        config = load_config(options.config, changes)
        _check_mode(config, options)
        target = UNSAFE.sub("_", "-".join(config.target.names) or config.target.name)
        name = f"{config.model.name}_{Path(options.config).stem}_{target}_seed{config.run.seed}"
        name += "_infer" if config.run.run_mode == INFER else ""
        chosen = config.run.output
        place = RunFolder(Path(chosen or Path("runs") / name), overwrite=overwrite, numbered=not chosen)
    check_rules(config)
    return config, place


def _check_mode(config: Config, options: argparse.Namespace) -> None:
    """Refuse options of a training where a checkpoint is only measured.

    Raises:
        ConfigError: one is given.
    """
    given = [name for name in ("resume", "dry_run", "device_num") if getattr(options, name)]
    if config.run.run_mode == INFER and (given or is_launched()):
        what = f"--{given[0]} belongs" if given else "several processes belong"
        raise ConfigError(f"run.run_mode=infer measures a checkpoint: {what} to run.run_mode=train")


def keep_graphs(options: argparse.Namespace) -> None:
    """Have MindSpore write its graphs, where --save_graphs asks for that.

    Raises:
        ConfigError: no such level, or no folder can be made.
    """
    text = options.save_graphs or "0"
    level = {"true": "1", "false": "0"}.get(text.lower(), text)
    if level not in GRAPHS:
        raise ConfigError(f"--save_graphs {text}: expected one of {', '.join(GRAPHS)}")
    if level != "0":
        save_graphs(int(level), options.save_graphs_path)
        log.info("the graphs of MindSpore go to %s", options.save_graphs_path)


def start_processes(count: str, arguments: list[str]) -> NoReturn:
    """Become the launcher of ``count`` processes of train.py, each of which takes one device.

    Raises:
        ConfigError: no count.
    """
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"--device_num {count}: expected a number of devices, 1 or more")
    os.environ["PYTHON"] = sys.executable
    release()
    os.execvp("bash", ["bash", str(LAUNCHER), count, *arguments])


def chosen_sizes(options: argparse.Namespace) -> set[str]:
    """Sizes of the split that must not adapt to the data: those given as options, and all of a run that continues."""
    sizes = {f"data.{name}" for name in SIZES}
    return sizes if options.resume else sizes & {key for key, _ in overrides_of(options)}
