"""Which labelled structures eval.py measures: rows of the data of the run, or of another file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from configs.loading import names_of
from data_tools import dataset as data
from data_tools.formats.readers import holds_smiles
from data_tools.graph import DataError, StructureTable
from data_tools.labels.splits import Split, digest, make_split
from data_tools.labels.targets import label_values
from data_tools.source_files import same_content
from experiment.data import for_model
from experiment.evaluation.evaluator import Labelled
from experiment.resolve import open_dataset, split_of
from experiment.trained import Trained

log = logging.getLogger("geospore")
BY_IDENTITY = ("sample", "cormorant")  # splits that find their structures in any file, or refuse it


@dataclass(frozen=True)
class Selection:
    """Which structures are measured.

    Attributes:
        labelled: the structures, their labels under the checkpoint's definition.
        rows: (K,) which of them are measured.
        name: what a table of results calls these rows.
        sets: rows whose batches share one static shape; as in the run, so that its metrics come out again exactly.
        validation: rows of the structures that the run was validated on; None in other data than those of the run.
    """

    labelled: Labelled
    rows: np.ndarray
    name: str
    sets: list[np.ndarray]
    validation: np.ndarray | None = None


def select(trained: Trained, file: str | None, split: str | None, keys: str | None) -> Selection:
    """The structures that the options of eval.py name.

    Args:
        trained: the model.
        file: labelled structures; None: the data of the run.
        split: which rows; None: all of a file, the test rows of the run.
        keys: names of labels in the file; None: those of the run.

    Raises:
        DataError: they cannot be used.
        ConfigError: ``keys`` is no such text.
    """
    if not file:
        return select_own(trained, split or "test")
    names = trained.config.data.keys if keys is None else names_of(keys, "--keys")
    return select_file(trained, file, split or "all", names)


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
    changed = not same_content(source, now) or bool(stored and stored != digest(own))
    if changed:
        words = f"the data are not those of the run: {now} now, {source} then"
        if split != "all" and trained.config.data.split not in BY_IDENTITY:
            raise DataError(
                f"{words}; divided anew, structures that it was trained on would be tested on; give --split all, "
                "or other structures with --data FILE"
            )
        log.warning("warning: %s", words)
    rows = np.arange(len(dataset.packed)) if split == "all" else getattr(own, split)
    sets = [own.valid, own.test] if split in ("valid", "test") else [rows]
    name = f"all structures of {now}" if split == "all" else f"{split} structures of split {own.name}"
    labelled = dataclasses.replace(Labelled.of(dataset), elements=trained.elements)
    return Selection(labelled, rows, name, sets, None if changed else own.valid)


def select_file(trained: Trained, file: str, split: str, keys: Mapping[str, str]) -> Selection:
    """Rows of any labelled file, whose names of labels are ``keys``.

    Raises:
        DataError: the file cannot be used, has no labels, or does not say which rows ``split`` means.
    """
    try:
        names = [task.target.name for task in trained.task.every]
        packed = data.open_graphs(file, trained.config.model.cutoff, progress=True, keys=keys, labels=names)
    except DataError as error:
        hint = "; to predict without labels give --input instead of --data" if holds_smiles(file) else ""
        raise DataError(f"{for_evaluation(error)}{hint}") from None
    table = packed.table
    try:
        labels = [label_values(table, task.target, task.reference) for task in trained.task.every]
    except DataError as error:
        words = for_evaluation(error)
        raise DataError(f"{file}: {words}; to predict without labels give --input instead of --data") from None
    rows, name = np.arange(len(table)), f"all structures of {table.source}"
    if split != "all":
        found = split_in_file(trained, table, file)
        rows, name = getattr(found, split), f"{split} structures of split {found.name} in {table.source}"
    if not len(rows):
        raise DataError(f"{file}: there are no {name}; choose another --split")
    dataset = training_data(trained)
    labelled = Labelled.beside(dataset, for_model(packed, trained.config), labels, trained.elements)
    return Selection(labelled, rows, name, [rows])


def for_evaluation(error: DataError) -> str:
    """What an error says, with this program's option for the names of labels."""
    return str(error).replace("--set data.keys=", "--keys ")


def split_in_file(trained: Trained, table: StructureTable, file: str) -> Split:
    """The run's split where it can be applied to the file, else the file's own labels.

    The run's comes first: another split of the same structures would measure on structures the model was trained on.

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
            pass  # other structures
    if table.split is not None:
        return make_split("labelled", table)
    raise DataError(
        f"{file}: the run's split {kind} does not apply to this file and its rows are not labelled train, valid or "
        "test; use --split all"
    )


def training_data(trained: Trained) -> data.Dataset | None:
    """The data set that the baselines are fitted on; None, and a line of the log, without it."""
    if "converted_from" in trained.information:
        log.info("baselines: not available, the training structures of converted weights are not known")
        return None
    try:
        return open_dataset(trained.config, trained.task)
    except DataError as error:
        log.info("baselines: not available, the run's own data cannot be read (%s)", error)
        return None
