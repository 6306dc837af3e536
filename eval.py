"""Measure a checkpoint on labelled molecules, or predict structures of your own.

    python eval.py --ckpt runs/RUN                                       the test molecules of the run
    python eval.py --ckpt runs/RUN --data FILE --split all --output FOLDER
    python eval.py --ckpt runs/RUN --input molecules.smi --output predictions.csv
    python eval.py --ckpt runs/RUN --smiles CCO C1CC1
    python eval.py --ckpt runs/RUN --input frames.xyz --output predictions.xyz        energies with forces

Metrics stand beside two trivial baselines; --output FOLDER keeps them as metrics.json and predictions.csv.  Predictions
for --input go to standard output, or to --output, a .csv file or a folder that gets a predictions.csv; the header names
the unit.  SMILES stand in lines (.smi) or in a column smiles of a table (.csv, .tsv); their geometries are made, and
written beside the predictions (predictions.geometries.xyz).  A molecule of SMILES that cannot be used is named on
standard error and in the column error, the others are predicted, and the exit code is 2.  A model of atomisation
energies also gives total energies: plus the free atoms.  A model of energies whose gradient is a force can write both
as extended xyz, and its forces are measured where the data have some.  Weights are the moving average where the run
kept one.  Structures outside of what the model has learned are named in warnings and in the column ``outside`` (see
data_tools/coverage/outside.py); a composition for which training gives no reference energy has no energy.  A mistake
in the input is one line and exit code 2.
"""

from __future__ import annotations

from experiment.startup import begin

if __name__ == "__main__":
    begin()

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloud.options import enter_job, parse_options, use_for_evaluation
from configs.loading import ConfigError, names_of
from configs.options import help_of
from data_tools import dataset as data
from data_tools.coverage.outside import compare
from data_tools.formats.label_keys import NO_KEYS
from data_tools.formats.readers import GEOMETRY_WARNING
from data_tools.formats.writers import frames_text
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import PackedGraphs, pack
from data_tools.labels.plausibility import unit_suspicions
from data_tools.labels.splits import Split, digest, make_split
from data_tools.labels.statistics import element_counts
from data_tools.labels.targets import atom_references, label_values
from data_tools.source_files import same_content, sha256_of
from data_tools.tables import name_of_row, row_of_atom
from experiment.command_line import BAD_INPUT, CommandLine, exit_code
from experiment.data import for_model, open_dataset, split_of
from experiment.evaluation.evaluator import Evaluator, Predictions
from experiment.evaluation.stress_errors import measure_stress
from experiment.measures import baseline_predictions, measure_forces, metrics_of
from experiment.prediction_files import (
    Place,
    folder_of_metrics,
    held_elements,
    in_order_of_records,
    name_refusals,
    place_of_predictions,
    read_input,
    unlearned_elements,
    write_geometries,
)
from experiment.provenance import Command, command_of
from experiment.results import metrics_table, write_metrics, write_predictions
from experiment.run_log import set_up_log
from experiment.trained import Trained, load_trained
from training.device import versions
from training.files import csv_text, write_rows, write_text
from training.visible_devices import unused, warn_of_unused

log = logging.getLogger("geospore")

#: command-line options that stand for one key of the configuration in the checkpoint
OPTIONS = {
    "batch_size": ("training.eval_batch_size", "the most molecules in a batch"),
    "mode": ("run.mode", "execution mode"),
    "amp_level": ("run.amp_level", "O2: float16 on edges and triplets; O3: float16 everywhere"),
    "device_target": ("run.device_target", "where the model runs"),
    "device_id": ("run.device_id", "number of the device"),
}
SPLITS = ("train", "valid", "test", "all")
BY_IDENTITY = ("sample", "cormorant")  # splits that find their molecules in any file, or refuse it


@dataclass(frozen=True)
class Selection:
    """Labelled molecules to measure on.

    Attributes:
        packed: the graphs.
        labels: (M,) in the target's unit under the checkpoint's definition, NaN where there is none.
        rows: (K,) which of them are measured.
        name: what a table of results calls these rows.
        sets: rows whose batches share one static shape; as in the run, so that its metrics come out again exactly.
        training: labels and element counts of the training molecules; None where they are not available.
    """

    packed: PackedGraphs
    labels: np.ndarray
    rows: np.ndarray
    name: str
    sets: list[np.ndarray]
    training: tuple[np.ndarray, np.ndarray] | None


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: an unknown option, or options that contradict each other.
    """
    parser = CommandLine(description=__doc__)
    parser.add_argument("--ckpt", metavar="RUN", help="a run folder (its best model) or a checkpoint")
    parser.add_argument("--data", metavar="FILE", help="labelled molecules; without it, the data of the run")
    parser.add_argument("--split", choices=SPLITS, help="which rows; test, or with --data all")
    parser.add_argument("--input", metavar="FILE", help="structures to predict: .xyz, .sdf, .smi, or .csv of SMILES")
    parser.add_argument("--smiles", metavar="SMILES", nargs="+", action="extend", help="molecules to predict")
    parser.add_argument("--output", metavar="PATH", help="a folder; with --input or --smiles also a .csv or .xyz file")
    parser.add_argument("--keys", metavar="LABEL=NAME,...", help="names of labels in the data, instead of data.keys")
    for option, (key, words) in OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="VALUE", help=help_of(key, words, "that of the run"))
    options = parse_options(parser, arguments)
    if options.input and (options.data or options.split or options.keys is not None):
        parser.error("--input predicts every structure of its file: give it without --data, --split and --keys")
    if options.smiles and (options.input or options.data or options.split or options.keys is not None):
        parser.error("--smiles predicts the molecules that it names: give it without --input, --data, --split, --keys")
    return options


def select_own(trained: Trained, split: str) -> Selection:
    """Rows of the data the checkpoint was trained on.

    Raises:
        DataError: converted weights, or the data cannot be used.
    """
    if "converted_from" in trained.information:
        raise DataError(f"{trained.file}: converted weights have no data of their own; give --data FILE")
    try:
        dataset = open_dataset(trained.config, trained.task)
    except DataError as error:
        raise DataError(f"the data of the run cannot be used: {error}; or give --data FILE") from None
    source, now = trained.information.get("source") or "", dataset.packed.table.source
    own, stored = dataset.split, trained.information.get("split_sha256")
    if not same_content(source, now) or (stored and stored != digest(own)):
        words = f"the data are not those of the run: {now} now, {source} then"
        if split != "all" and trained.config.data.split not in BY_IDENTITY:
            raise DataError(
                f"{words}; divided anew, molecules that it was trained on would be tested on; give --split all, or "
                "other molecules with --data FILE"
            )
        log.warning("warning: %s", words)
    rows = np.arange(len(dataset.packed)) if split == "all" else getattr(own, split)
    sets = [own.valid, own.test] if split in ("valid", "test") else [rows]
    name = f"all molecules of {now}" if split == "all" else f"{split} molecules of split {own.name}"
    training = dataset.labels[own.train], dataset.counts[own.train]
    return Selection(dataset.packed, dataset.labels, rows, name, sets, training)


def select_file(trained: Trained, file: str, split: str, keys: Mapping[str, str] = NO_KEYS) -> Selection:
    """Rows of any labelled file, whose names of labels are ``keys``.

    Raises:
        DataError: the file cannot be used, has no labels, or does not say which rows ``split`` means.
    """
    try:
        packed = data.open_graphs(file, trained.config.model.cutoff, progress=True, keys=keys)
    except DataError as error:
        raise DataError(for_evaluation(error)) from None
    table = packed.table
    try:
        labels = label_values(table, trained.task.target, trained.task.reference)
    except DataError as error:
        words = for_evaluation(error)
        raise DataError(f"{file}: {words}; to predict without labels give --input instead of --data") from None
    rows, name = np.arange(len(table)), f"all molecules of {table.source}"
    if split != "all":
        found = split_in_file(trained, table, file)
        rows, name = getattr(found, split), f"{split} molecules of split {found.name} in {table.source}"
    if not len(rows):
        raise DataError(f"{file}: there are no {name}; choose another --split")
    return Selection(packed, labels, rows, name, [rows], training_molecules(trained))


def for_evaluation(error: DataError) -> str:
    """What an error says, with this program's option for the names of labels."""
    return str(error).replace("--set data.keys=", "--keys ")


def split_in_file(trained: Trained, table: StructureTable, file: str) -> Split:
    """The run's split where it can be applied to the file, else the file's own labels.

    The run's comes first: another split of the same molecules would measure on molecules the model was trained on.

    Raises:
        DataError: neither is there.
    """
    if same_content(table.source, trained.information.get("source") or ""):
        return split_of(trained.config, table)
    kind = trained.config.data.split
    if kind in BY_IDENTITY and "converted_from" not in trained.information:
        try:
            return make_split(kind, table)
        except DataError:
            pass  # other molecules
    if table.split is not None:
        return make_split("labelled", table)
    raise DataError(
        f"{file}: the run's split {kind} does not apply to this file and its rows are not labelled train, valid or "
        "test; use --split all"
    )


def training_molecules(trained: Trained) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels and element counts that the baselines are fitted on; None, and a line of the log, without them."""
    if "converted_from" in trained.information:
        log.info("baselines: not available, the training molecules of converted weights are not known")
        return None
    try:
        dataset = open_dataset(trained.config, trained.task)
    except DataError as error:
        log.info("baselines: not available, the run's own data cannot be read (%s)", error)
        return None
    return dataset.labels[dataset.split.train], dataset.counts[dataset.split.train]


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


def measure(trained: Trained, chosen: Selection) -> tuple[np.ndarray, Predictions, dict[str, dict[str, float]]]:
    """Rows that have a label, their predictions, and the metrics of model and baselines.

    Where training gives no reference energy for a composition the prediction is NaN, and the row is not measured.

    Raises:
        DataError: no row has a label.
    """
    rows = chosen.rows[np.isfinite(chosen.labels[chosen.rows])]
    if len(rows) < len(chosen.rows):
        log.info("%d of %d molecules have no label and are left out", len(chosen.rows) - len(rows), len(chosen.rows))
    if not len(rows):
        raise DataError(f"no molecule has the label {trained.task.target.name}; to predict, give --input")
    table = chosen.packed.table
    counts = element_counts(table.numbers, table.n_atoms)[rows]
    published = (published_forces(trained, chosen.packed), published_stress(trained, chosen.packed))
    found = evaluator(trained, chosen.packed, chosen.sets, *(labels is not None for labels in published))(rows)
    outside = compare(trained.learned, chosen.packed, rows)
    for words in [*trained.warnings, *outside.lines(lambda k: name_of_row(table, int(rows[k])))]:
        log.warning("warning: %s", words)
    there = ~outside.undetermined
    found.values[~there] = np.nan
    if not there.any():
        log.warning("warning: there are no metrics of %s: no molecule has a reference", trained.task.target.name)
        return rows, found, {}
    if not there.all():
        log.warning("warning: without a reference, and left out of the metrics of %s: %d of %d molecules",
                    trained.task.target.name, len(rows) - there.sum(), len(rows))  # fmt: skip
    baselines = {} if chosen.training is None else baseline_predictions(*chosen.training, counts[there])
    predictions = {"model": found.values[there], **baselines}
    return rows, found, metrics_of(chosen.labels[rows][there], counts[there], predictions, trained.elements)


def published_forces(trained: Trained, packed: PackedGraphs) -> np.ndarray | None:
    """(A, 3) in eV/Angstrom; None where the data have none or the model's target has no gradient."""
    return packed.table.of_atoms.get("forces") if trained.task.target.has_forces else None


def published_stress(trained: Trained, packed: PackedGraphs) -> np.ndarray | None:
    """(M, 3, 3) in eV/Angstrom^3; None where the data have none or the model's target has no gradient."""
    return packed.table.of_structures.get("stress") if trained.task.target.has_forces else None


def stress_found(trained: Trained, packed: PackedGraphs, rows: np.ndarray, found: Predictions) -> dict:
    """Metrics of stress components beside those of zero; empty without published stress."""
    published = published_stress(trained, packed)
    metrics = {} if published is None else measure_stress({"model": found.stress}, published[rows])
    return {"stress_metrics": metrics} if metrics else {}


def forces_found(trained: Trained, packed: PackedGraphs, rows: np.ndarray, found: Predictions, energies: dict) -> dict:
    """Metrics of force components beside those of zero; empty without published forces."""
    published = published_forces(trained, packed)
    if published is None or found.forces is None:
        return {}
    atoms, unit = packed.atoms_of(rows), f"{trained.task.target.unit}/A"
    metrics = measure_forces(energies, {"model": found.forces}, published[atoms], unit)
    return {"force_metrics": metrics} if metrics else {}


def evaluator(
    trained: Trained, packed: PackedGraphs, sets: list[np.ndarray], forces: bool = False, stress: bool = False
) -> Evaluator:
    """The model's predictions in the target's unit.

    Raises:
        ConfigError: forces or stress in float16.
    """
    config = trained.config
    if (forces or stress) and config.run.amp_level != "O0":
        raise ConfigError(f"--amp_level {config.run.amp_level}: expected O0 where forces are computed")
    return Evaluator(
        trained.model, for_model(packed, config), sets, trained.normalizer, config.training.eval_batch_size,
        config.run.dtype, forces=forces, stress=stress,
    )  # fmt: skip


def run_metrics(trained: Trained, options: argparse.Namespace, folder: Path | None, command: Command) -> None:
    """Measure, print the table and write it into ``folder``."""
    task = trained.task
    warn_of_unused(trained.config.run.device_target)
    if options.data:
        keys = trained.config.data.keys if options.keys is None else names_of(options.keys, "--keys")
        chosen = select_file(trained, options.data, options.split or "all", keys)
    else:
        chosen = select_own(trained, options.split or "test")
    for words in unit_suspicions(chosen.packed.table):
        log.warning("warning: %s", words)
    rows, found, metrics = measure(trained, chosen)
    if metrics:
        log.info("%s [%s], label definition %s, %s\n%s", task.target.name, task.target.unit, task.reference,
                 chosen.name, metrics_table(metrics, task.target.unit))  # fmt: skip
    of_forces = forces_found(trained, chosen.packed, rows, found, metrics.get("model", {}))
    of_forces |= stress_found(trained, chosen.packed, rows, found)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    table, unit = chosen.packed.table, task.target.unit
    names = [table.names[row] for row in rows] if table.names else []
    labels = chosen.labels[rows]
    write_predictions(folder / "predictions.csv", table.ids[rows], names, found.values, labels, task.target.name, unit)
    progress = trained.information.get("progress", {})
    content = {
        "checkpoint": str(trained.file),
        "checkpoint_sha256": sha256_of(trained.file),
        "epoch": progress.get("epoch"),
        "task": task.to_dict(),
        "data": table.source,
        "molecules": chosen.name,
        "metrics": metrics,
        **of_forces,
        "versions": versions(),
        "provenance": command.record(),
        "training_provenance": trained.information.get("provenance"),
    }
    write_metrics(folder / "metrics.json", content)
    log.info("wrote %s and %s", folder / "metrics.json", folder / "predictions.csv")


def run_predictions(trained: Trained, options: argparse.Namespace, place: Place) -> int:
    """Predict every structure of --input or --smiles; the CSV is all that goes to standard output.

    Returns:
        The exit code: whether SMILES were left out.
    """
    for words in unused(trained.config.run.device_target):
        print(f"warning: {words}", file=sys.stderr)
    frames, source = place.frames, options.input or "--smiles"
    if frames and not trained.task.target.has_forces:
        raise ConfigError(f"--output {place.file}: extended xyz holds energies and forces; the model predicts "
                          f"{trained.task.target.name}: give a .csv file or a folder")  # fmt: skip
    with_reference = np.flatnonzero(np.isfinite(trained.normalizer.references)).tolist()
    known = sorted(set(trained.elements) & set(with_reference))
    molecules = read_input(options.input, options.smiles)
    if molecules.records:
        molecules = molecules.refuse(unlearned_elements(molecules, known))
    table = name_refusals(source, molecules)
    if GEOMETRY_WARNING in table.source:
        print(f"warning: {GEOMETRY_WARNING}", file=sys.stderr)
    for words in unit_suspicions(table):
        print(f"warning: {words}", file=sys.stderr)
    check_elements(source, table, known)
    packed = pack(table, trained.config.model.cutoff, progress=True)
    every = np.arange(len(table))
    outside = compare(trained.learned, packed, every)
    for words in [*trained.warnings, *outside.lines(lambda row: name_of_row(table, row))]:
        print(f"warning: {words}", file=sys.stderr)
    found = evaluator(trained, packed, [every], frames, frames and table.cells is not None)(every)
    found.values[outside.undetermined] = np.nan
    rows = prediction_rows(trained, table, found.values)
    rows = [row | {"outside": words} for row, words in zip(rows, outside.column(), strict=True)]
    code = BAD_INPUT if molecules.refusals else 0
    if place.file is None:
        sys.stdout.write(csv_text(in_order_of_records(rows, molecules)))
        return code
    place.file.parent.mkdir(parents=True, exist_ok=True)
    write_geometries(place, molecules)
    if found.forces is not None:
        write_text(place.file, frames_text(table, found.values, found.forces, found.stress, outside.column()))
    else:
        write_rows(place.file, in_order_of_records(rows, molecules))
    left_out = f", {len(molecules.refusals)} records are left out" if molecules.refusals else ""
    print(f"wrote {len(rows)} predictions to {place.file}{left_out}")
    return code


def prediction_rows(trained: Trained, table: StructureTable, predictions: np.ndarray) -> list[dict[str, Any]]:
    """One row a structure: its name, the prediction, and the total energy of an atomisation energy."""
    task = trained.task
    definition = "" if task.reference == "none" else f" {task.reference}"
    columns = {f"{task.target.name}{definition} [{task.target.unit}]": predictions}
    if task.reference == "atomisation":
        owner = np.repeat(np.arange(len(table)), table.n_atoms)
        free_atoms = np.bincount(owner, weights=atom_references(task.target)[table.numbers])
        columns[f"{task.target.name} total [{task.target.unit}]"] = predictions + free_atoms
    return [
        {"name": name_of_row(table, row)}
        | {column: f"{values[row]:.10g}" if np.isfinite(values[row]) else "" for column, values in columns.items()}
        for row in range(len(table))
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of("eval.py", arguments)
    try:
        options = parse_arguments(arguments)
        with enter_job(options) as job:  # its results are uploaded at the end
            use_for_evaluation(options, job)
            if not options.ckpt:
                raise ConfigError("expected --ckpt RUN, a run folder or a checkpoint; --help lists the options")
            changes = [
                (key, getattr(options, option))
                for option, (key, _) in OPTIONS.items()
                if getattr(options, option) is not None
            ]
            if options.input or options.smiles:
                place = place_of_predictions(options.output, options.input)
                return run_predictions(load_trained(options.ckpt, changes), options, place)
            if options.keys is not None and not options.data:
                changes.append(("data.keys", options.keys))
            folder = folder_of_metrics(options.output)
            trained = load_trained(options.ckpt, changes)
            set_up_log()
            run_metrics(trained, options, folder, command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
