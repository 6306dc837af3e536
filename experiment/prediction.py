"""Predictions for structures without labels, from a file or from SMILES."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from configs.loading import ConfigError
from configs.rules import check_force_precision
from data_tools import dataset as data
from data_tools.coverage.outside import Outside, compare
from data_tools.formats.smiles import Molecules
from data_tools.formats.writers import frames_text
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import PackedGraphs, pack
from data_tools.labels.plausibility import unit_suspicions
from data_tools.labels.targets import FORCE_CONSTANTS, atom_references
from data_tools.tables import name_of_row, row_of_atom
from experiment.command_line import BAD_INPUT
from experiment.data import for_model
from experiment.evaluation import evaluator_of
from experiment.evaluation.evaluator import ENERGY, FORCES, STRESS, Predictions
from experiment.prediction_files import (
    Place,
    held_elements,
    in_order_of_records,
    name_refusals,
    read_input,
    unlearned_elements,
    write_geometries,
)
from experiment.trained import Trained
from training.files import csv_text, write_rows, write_text
from training.visible_devices import unused


def predict_input(trained: Trained, file: str | None, smiles: list[str] | None, place: Place) -> int:
    """Predict every structure of ``--input`` or ``--smiles``; the CSV is all that goes to standard output.

    Args:
        trained: the model.
        file, smiles: one of them is given.
        place: where the predictions go.

    Returns:
        The exit code: whether SMILES were left out.

    Raises:
        ConfigError: the place is for energies with forces, and the model predicts something else.
        DataError: the structures cannot be used.
    """
    check_predictable(trained, place)
    molecules, table, packed, outside = read_structures(trained, file, smiles)
    found = predict(trained, packed, wanted(place, table))
    for values in found.every:
        values[outside.undetermined] = np.nan
    write(trained, molecules, table, found, outside.column(), place)
    return BAD_INPUT if molecules.refusals else 0


def check_predictable(trained: Trained, place: Place) -> None:
    """Refuse a model that has no number of a structure, or a place for other numbers than its own.

    Raises:
        ConfigError: it is one.
    """
    if trained.task.target.name == FORCE_CONSTANTS:
        raise ConfigError(f"{trained.file}: the model predicts force constants, which are no number of a structure; "
                          "measure it with --data FILE")  # fmt: skip
    if place.frames and not trained.task.target.has_forces:
        raise ConfigError(f"--output {place.file}: extended xyz holds energies and forces; the model predicts "
                          f"{trained.task.target.name}: give a .csv file or a folder")  # fmt: skip


class Structures(NamedTuple):
    """What is predicted: records and their refusals, the structures, their graphs, and what of them is outside."""

    molecules: Molecules
    table: StructureTable
    packed: PackedGraphs
    outside: Outside


def read_structures(
    trained: Trained, file: str | None, smiles: list[str] | None, others: Sequence[Trained] = ()
) -> Structures:
    """Read ``--input`` or ``--smiles`` for a model; warnings and what is left out go to standard error.

    Args:
        trained: the model.
        file, smiles: one of them is given.
        others: models of other properties, whose range counts too.

    Raises:
        DataError: the structures cannot be used.
    """
    for words in unused(trained.config.run.device_target):
        warn(words)
    source = file or "--smiles"
    known = sorted(trained.known)
    molecules = read_input(file, smiles)
    if molecules.records:
        molecules = molecules.refuse(unlearned_elements(molecules, known))
    table = name_refusals(source, molecules)
    for words in [*trained.geometry_warnings(table.source), *unit_suspicions(table)]:
        warn(words)
    check_elements(source, table, known)
    packed = for_model(pack(table, trained.config.model.cutoff, progress=True), trained.config)
    outside = outside_of([trained, *others], packed, np.arange(len(table)))
    for words in [*trained.warnings, *outside.lines(lambda row: name_of_row(table, row))]:
        warn(words)
    return Structures(molecules, table, packed, outside)


def outside_of(models: Sequence[Trained], packed: PackedGraphs, rows: np.ndarray) -> Outside:
    """What of some rows is outside of what one of the models has learned."""
    found = compare(models[0].learned, packed, rows)
    seen = [models[0].information.get("range")]
    for other in models[1:]:
        if other.information.get("range") not in seen:  # models of one split have learned from the same structures
            seen.append(other.information.get("range"))
            found = found.joined(compare(other.learned, packed, rows))
    return found


class Spread(NamedTuple):
    """How far the members of an ensemble are apart.

    Attributes:
        values: (M,) standard deviations of the predictions of each output in its target's unit, NaN where there is
            none.
        forces: (A, 3) the same of each component of the forces; without rows where they were not asked for.
        uncertain: M words, ``yes``, ``no`` or nothing where that is not known; of several targets the names of those
            that are.
    """

    values: Sequence[np.ndarray]
    forces: np.ndarray
    uncertain: list[str]

    def rows(self, trained: Trained) -> list[dict[str, str]]:
        """Columns of a CSV file, one row a structure."""
        columns = [f"spread {task.target.name} [{task.target.unit}]" for task in trained.task.every]
        return [
            {
                **{
                    column: f"{values[row]:.6g}" if np.isfinite(values[row]) else ""
                    for column, values in zip(columns, self.values, strict=True)
                },
                "uncertain": words,
            }
            for row, words in enumerate(self.uncertain)
        ]


def warn(words: str) -> None:
    """A line on standard error."""
    print(f"warning: {words}", file=sys.stderr)


def wanted(place: Place, table: StructureTable) -> tuple[str, ...]:
    """What is predicted: extended xyz holds forces too, and the stress of crystals."""
    if not place.frames:
        return (ENERGY,)
    return (ENERGY, FORCES) if table.cells is None else (ENERGY, FORCES, STRESS)


def predict(trained: Trained, packed: PackedGraphs, quantities: Collection[str]) -> Predictions:
    """What a model says of every structure.

    Raises:
        ConfigError: forces or stress in float16.
    """
    check_force_precision(trained.config, quantities)
    every = np.arange(len(packed))
    return evaluator_of(
        trained.config, quantities, trained.model, trained.normalizer, packed, [every], chosen=trained.chosen
    )(every)


def write(
    trained: Trained,
    molecules: Molecules,
    table: StructureTable,
    found: Predictions,
    outside: list[str],
    place: Place,
    spread: Spread | None = None,
) -> None:
    """Write predictions where they go; the geometries of SMILES beside them.

    Args:
        trained: the model.
        molecules: what was read, refused records included.
        table: the structures.
        found: predictions for them.
        outside: the column that says in what a structure lies outside of what the model has learned.
        place: where they go.
        spread: of an ensemble whose mean ``found`` is.
    """
    rows = prediction_rows(trained, table, found.every)
    more = [{} for _ in rows] if spread is None else spread.rows(trained)
    rows = [row | added | {"outside": words} for row, added, words in zip(rows, more, outside, strict=True)]

    def frames() -> str:
        stress = found.stress if len(found.stress) else None
        spreads = None if spread is None else (spread.values[0], spread.forces, spread.uncertain)
        return frames_text(table, found.values, found.forces, stress, outside, spreads)

    put(rows, molecules, place, frames)


def put(rows: list[dict[str, Any]], molecules: Molecules, place: Place, frames: Callable[[], str]) -> None:
    """Write rows of a table where they go; the geometries of SMILES beside them.

    Args:
        rows: one a structure.
        molecules: what was read, refused records included.
        place: where they go.
        frames: makes what is written instead of the rows where the place is extended xyz.
    """
    if place.file is None:
        sys.stdout.write(csv_text(in_order_of_records(rows, molecules)))
        return
    place.file.parent.mkdir(parents=True, exist_ok=True)
    write_geometries(place, molecules)
    if place.frames:
        write_text(place.file, frames())
    else:
        write_rows(place.file, in_order_of_records(rows, molecules))
    left_out = f", {len(molecules.refusals)} records are left out" if molecules.refusals else ""
    print(f"wrote {len(rows)} predictions to {place.file}{left_out}")


def prediction_rows(trained: Trained, table: StructureTable, predictions: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """One row a structure: its name, the prediction of each task, and the total energies of atomisation energies."""
    columns = {}
    for task, values in zip(trained.task.every, predictions, strict=True):
        definition = "" if task.reference == "none" else f" {task.reference}"
        columns[f"{task.target.name}{definition} [{task.target.unit}]"] = values
        if task.reference == "atomisation":
            owner = np.repeat(np.arange(len(table)), table.n_atoms)
            free_atoms = np.bincount(owner, weights=atom_references(task.target)[table.numbers])
            columns[f"{task.target.name} total [{task.target.unit}]"] = values + free_atoms
    return [
        {"name": name_of_row(table, row)}
        | {column: f"{values[row]:.10g}" if np.isfinite(values[row]) else "" for column, values in columns.items()}
        for row in range(len(table))
    ]


def check_elements(file: str, table: StructureTable, known: list[int]) -> None:
    """Refuse elements for which a model has nothing learned.

    Raises:
        DataError: names the first structure and element that is not among ``known``.
    """
    unknown = ~np.isin(table.numbers, known)
    if unknown.any():
        atom = int(unknown.argmax())
        held = held_elements(known)
        raise DataError(
            f"{file}: {name_of_row(table, row_of_atom(table, atom))}: the model has not learned the element "
            f"{data.symbols([int(table.numbers[atom])])}, only {held}; remove this structure"
        )
