"""``eval.py --atoms``: which atoms matter, of the structures that the other options name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.formats.smiles_records import Record
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.targets import FORCE_CONSTANTS
from data_tools.tables import name_of_row
from experiment.atom_files import atom_rows, place_of_atoms, write_atoms
from experiment.atoms import AtomTable, attribute_atoms, mean_of_members
from experiment.chosen_targets import with_targets
from experiment.command_line import BAD_INPUT
from experiment.evaluation_options import changes_of
from experiment.prediction import outside_of, read_structures, warn
from experiment.provenance import Command
from experiment.selection import select
from experiment.several_models import load_ensemble
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


def which_atoms(options: argparse.Namespace, paths: Sequence[str], command: Command) -> int:
    """Write numbers of each atom to standard output, or to the folder of ``--output`` with pictures.

    Args:
        options: of eval.py.
        paths: of the model; of several, their mean is looked at.
        command: that was given.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError, DataError, CheckpointError: a model or structures that cannot be used, or a place.
    """
    folder = place_of_atoms(options.output)
    members, lead = members_and_lead(options, paths)
    for one in members:
        check_model(one)
    chosen = chosen_structures(lead, members[1:], options)
    found = [attribute_atoms(one, chosen.packed, chosen.rows, chosen.undetermined) for one in members]
    atoms = mean_of_members(found) if len(found) > 1 else found[0]
    warn_of_incomplete(atoms)
    if folder is None:
        sys.stdout.write(csv_text(atom_rows(lead, atoms)))
    else:
        write_atoms(folder, lead, atoms, chosen.records, command, [one.file for one in members])
    return chosen.exit_code


def members_and_lead(options: argparse.Namespace, paths: Sequence[str]) -> tuple[Sequence[Trained], Trained]:
    """The models, each with the task of ``--target``, and the first with the elements that all of them know.

    Raises:
        ConfigError, CheckpointError: they cannot be used, or do not belong together.
    """
    if len(paths) == 1:
        trained = with_targets(load_trained(paths[0], changes_of(options)), options.target)
        return [trained], trained
    ensemble = with_targets(load_ensemble(paths, changes_of(options)), options.target)
    return ensemble.members, ensemble.lead


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
        raise ConfigError(
            f"--atoms: expected one target, {trained.file} predicts {names}; choose one with "
            f"--target {trained.task.target.name}"
        )
    level = trained.config.run.amp_level
    if level != "O0":
        raise ConfigError(f"--atoms: expected float32 or float64, got run.amp_level={level}; give --amp_level O0")


def chosen_structures(trained: Trained, others: Sequence[Trained], options: argparse.Namespace) -> Chosen:
    """The structures of ``--input`` or ``--smiles``, or the labelled ones of ``--data`` and ``--split``.

    Args:
        trained: the model.
        others: further ones, whose range counts too.
        options: of eval.py.

    Raises:
        DataError, ConfigError: they cannot be used.
    """
    if options.input or options.smiles:
        molecules, table, packed, outside = read_structures(trained, options.input, options.smiles, others)
        records = [molecules.records[row] for row in molecules.rows] if molecules.records else []
        code = BAD_INPUT if molecules.refusals else 0
        return Chosen(packed, np.arange(len(table)), outside.undetermined, records, code)
    found = select(trained, options.data, options.split, options.keys)
    packed, rows = found.labelled.packed, found.rows
    outside = outside_of([trained, *others], packed, rows)
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
