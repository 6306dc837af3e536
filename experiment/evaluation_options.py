"""The command line of eval.py."""

from __future__ import annotations

import argparse

from experiment.command_line import CommandLine, help_of
from experiment.job_options import parse_options

#: command-line options that stand for one key of the configuration in the checkpoint
OPTIONS = {
    "batch_size": ("training.eval_batch_size", "the most structures in a batch"),
    "mode": ("run.mode", "execution mode"),
    "amp_level": ("run.amp_level", "O2: float16 on edges and triplets; O3: float16 everywhere"),
    "device_target": ("run.device_target", "where the model runs"),
    "device_id": ("run.device_id", "number of the device"),
}
SPLITS = ("train", "valid", "test", "all")


def parse_arguments(arguments: list[str] | None, description: str | None = None) -> argparse.Namespace:
    """The command line.

    Args:
        arguments: None: this process's.
        description: of the program, for its help.

    Raises:
        ConfigError: an unknown option, or options that contradict each other.
    """
    parser = CommandLine(description=description)
    words = "a run folder (its best model) or a checkpoint; several, or an ensemble: their mean and spread"
    parser.add_argument("--ckpt", metavar="RUN", nargs="+", help=words)
    parser.add_argument("--data", metavar="FILE", help="labelled structures; without it, the data of the run")
    parser.add_argument("--split", choices=SPLITS, help="which rows; test, or with --data all")
    parser.add_argument("--input", metavar="FILE", help="structures to predict: .xyz, .sdf, .smi, or .csv of SMILES")
    parser.add_argument("--smiles", metavar="SMILES", nargs="+", action="extend", help="molecules to predict")
    parser.add_argument("--atoms", action="store_true", help="which atoms matter: numbers and pictures of each atom")
    words = "a folder; with --input or --smiles also a .csv or .xyz file, or - for CSV on standard output"
    parser.add_argument("--output", metavar="PATH", help=words)
    parser.add_argument("--target", metavar="NAME,...", help="some of the targets of models that predict several")
    parser.add_argument("--keys", metavar="LABEL=NAME,...", help="names of labels in the data, instead of data.keys")
    for option, (key, words) in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="VALUE", help=help_of(key, words, "that of the run"))
    options = parse_options(parser, arguments)
    options.members = options.ckpt or []
    options.ckpt = options.members[0] if options.members else None
    if options.input and (options.data or options.split or options.keys is not None):
        parser.error("--input predicts every structure of its file: give it without --data, --split and --keys")
    if options.smiles and (options.input or options.data or options.split or options.keys is not None):
        parser.error("--smiles predicts the molecules that it names: give it without --input, --data, --split, --keys")
    return options


def changes_of(options: argparse.Namespace) -> list[tuple[str, str]]:
    """``(section.key, text)`` of the options that change the configuration in the checkpoint."""
    given = {key: getattr(options, option) for option, (key, _) in OPTIONS.items()}
    if not options.data:  # a file of labelled structures has names of its own
        given["data.keys"] = options.keys
    return [(key, text) for key, text in given.items() if text is not None]
