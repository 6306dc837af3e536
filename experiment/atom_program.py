"""``eval.py --atoms``: which atoms matter, of the structures that the other options name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.coverage.outside import compare
from data_tools.formats.smiles_records import Record
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.targets import FORCE_CONSTANTS
from data_tools.tables import name_of_row
from experiment.atom_files import atom_rows, place_of_atoms, write_atoms
from experiment.atoms import AtomTable, attribute_atoms
from experiment.command_line import BAD_INPUT
from experiment.evaluation_options import changes_of
from experiment.prediction import read_structures, warn
from experiment.provenance import Command
from experiment.selection import select
from experiment.trained import Trained, load_trained
from physics.attribution import COMPLETE
from training.files import csv_text


class Chosen(NamedTuple):
    """What is looked at.

    Attributes:
        packed: graphs with the model's cutoff, and triplets if it uses them.
        rows: (K,) of them.
        undetermined: (K,) bool: whose composition has no reference.
        records: K of SMILES; empty where the structures come from elsewhere.
        exit_code: whether SMILES were left out.
    """

    packed: PackedGraphs
    rows: np.ndarray
    undetermined: np.ndarray
    records: Sequence[Record]
    exit_code: int


def which_atoms(options: argparse.Namespace, command: Command) -> int:
    """Write numbers of each atom to standard output, or to the folder of ``--output`` with pictures.

    Args:
        options: of eval.py.
        command: that was given.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: a model or structures that cannot be used, or a place.
    """
    folder = place_of_atoms(options.output)
    trained = load_trained(options.ckpt, changes_of(options))
    check_model(trained)
    chosen = chosen_structures(trained, options)
    atoms = attribute_atoms(trained, chosen.packed, chosen.rows, chosen.undetermined)
    warn_of_incomplete(atoms)
    if folder is None:
        sys.stdout.write(csv_text(atom_rows(trained, atoms)))
    else:
        write_atoms(folder, trained, atoms, chosen.records, command)
    return chosen.exit_code


def check_model(trained: Trained) -> None:
    """Refuse a model whose prediction is no number of a structure, or one in float16.

    Raises:
        ConfigError: it is.
    """
    if trained.task.target.name == FORCE_CONSTANTS:
        raise ConfigError(
            f"--atoms: expected a model of one number a structure, {trained.file} predicts force constants; what pairs "
            "of atoms do to each other are the blocks themselves"
        )
    if trained.task.others:
        names = ", ".join(task.target.name for task in trained.task.every)
        raise ConfigError(f"--atoms: expected a model of one target, {trained.file} predicts {names}")
    level = trained.config.run.amp_level
    if level != "O0":
        raise ConfigError(f"--atoms: expected float32 or float64, got run.amp_level={level}; give --amp_level O0")


def chosen_structures(trained: Trained, options: argparse.Namespace) -> Chosen:
    """The structures of ``--input`` or ``--smiles``, or the labelled ones of ``--data`` and ``--split``.

    Raises:
        DataError, ConfigError: they cannot be used.
    """
    if options.input or options.smiles:
        molecules, table, packed, outside = read_structures(trained, options.input, options.smiles)
        records = [molecules.records[row] for row in molecules.rows] if molecules.records else []
        code = BAD_INPUT if molecules.refusals else 0
        return Chosen(packed, np.arange(len(table)), outside.undetermined, records, code)
    found = select(trained, options.data, options.split, options.keys)
    packed, rows = found.labelled.packed, found.rows
    outside = compare(trained.learned, packed, rows)
    for words in [*trained.warnings, *outside.lines(lambda k: name_of_row(packed.table, int(rows[k])))]:
        warn(words)
    return Chosen(packed, rows, outside.undetermined, [], 0)


def warn_of_incomplete(atoms: AtomTable) -> None:
    """Say so where integrated gradients do not add up."""
    worst = int(atoms.incomplete.argmax())
    if atoms.incomplete[worst] > COMPLETE:
        count = int((atoms.incomplete > COMPLETE).sum())
        warn(
            f"integrated gradients of {count} of {len(atoms.incomplete)} structures do not add up to {COMPLETE:g}, the "
            f"worst is {name_of_row(atoms.table, worst)} ({atoms.incomplete[worst]:.1e}): the model turns "
            "sharply between no element and its own"
        )
