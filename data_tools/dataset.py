"""A data set ready to learn from: packed graphs, split, labels of one target and their standardisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools import qm9
from data_tools.coverage.learned_range import LearnedRange, learn
from data_tools.formats import md17
from data_tools.formats.label_keys import NO_KEYS, check_keys, rename
from data_tools.formats.readers import holds_smiles, read_table
from data_tools.formats.smiles_records import TABLES
from data_tools.formats.spelling import advice
from data_tools.graph import DataError, Provider, StructureTable, value_name
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import PackedGraphs, pack
from data_tools.labels.force_constant_probes import PROBES, ForceConstantProbes
from data_tools.labels.own_property import check_varies, size_suspicions, with_labels
from data_tools.labels.providers import StoredLabels
from data_tools.labels.splits import Split
from data_tools.labels.statistics import Normalizer, element_counts, fit_normalizer, undetermined
from data_tools.labels.targets import is_target, label_values
from data_tools.labels.tasks import AUTO, Task, resolve_task
from data_tools.tables import ELEMENTS, QM9, cell_volumes, join_tables, name_of_row

__all__ = ["AUTO", "Dataset", "Task", "make_dataset", "open_graphs", "open_two_files", "resolve_task"]

SAMPLE = "sample"
CRYSTALS = "crystals"
CRYSTALS_FILE = Path(__file__).parent / "samples" / "crystals_100.npz"
WEIGHTS = {"forces": "force_weight", "stress": "stress_weight"}  # keys of the section training
SHAPES = {"forces": (3,), "stress": (3, 3)}  # of one atom and of one structure


def is_shipped(file: str | Path) -> bool:
    """Whether a name means data that ship with the project, whose properties are targets."""
    return file in (SAMPLE, CRYSTALS)


def open_two_files(
    train_file: str,
    test_file: str,
    cutoff: float,
    progress: bool = False,
    keys: Mapping[str, str] = NO_KEYS,
    labels: Sequence[str] = (),
) -> PackedGraphs:
    """The graphs of a file to learn from and a file to measure on, in one table whose rows are labelled so.

    Args:
        train_file, test_file: files of structures; ``sample`` is the shipped ethanol of rMD17.
        cutoff: Angstrom.
        progress: report on stderr.
        keys: label -> the name that both files have for it.
        labels: what is learned, as of ``open_graphs``.

    Raises:
        DataError: a file cannot be used.
    """
    files = (train_file, md17.SAMPLE_TRAIN), (test_file, md17.SAMPLE_TEST)
    tables = [_read(shipped if file == SAMPLE else file, progress, keys, labels) for file, shipped in files]
    parts = [
        dataclasses.replace(table, split=np.full(len(table), part))
        for table, part in zip(tables, ("train", "test"), strict=True)
    ]
    return pack(join_tables(parts, ("train:", "test:")), cutoff, progress)


def _read(file: str | Path, progress: bool, keys: Mapping[str, str], labels: Sequence[str]) -> StructureTable:
    """A file of structures, those that have one of the labels where there are properties of the user's own."""
    table = read_table(file, progress, keys, labels)
    in_table = Path(file).suffix.lower() in TABLES
    return with_labels(Path(file), table, labels) if (in_table and labels) or not all(map(is_target, labels)) else table


def open_graphs(
    file: str | Path,
    cutoff: float,
    progress: bool = False,
    keys: Mapping[str, str] = NO_KEYS,
    labels: Sequence[str] = (),
) -> PackedGraphs:
    """The graphs of any file that the readers know.

    Args:
        file: ``sample`` or ``crystals``, which ship with the project, a folder of packed graphs, or a file of
            structures (QM9 files lose the 3,054 molecules of uncharacterized.txt).
        cutoff: Angstrom; a packed folder must have been made with the same.
        progress: report on stderr.
        keys: label -> the name that the file has for it; see ``data_tools.formats.label_keys``.
        labels: what is learned: targets, or properties of the file under their own names; structures that have none of
            these are left out.  Tables with SMILES have the labels that are asked for, here or by ``keys``.

    Raises:
        DataError: the file cannot be used.
    """
    if file == SAMPLE:
        return pack(read_table(qm9.SAMPLE_FILE, keys=keys), cutoff)
    if file == CRYSTALS:
        return pack(read_table(CRYSTALS_FILE, keys=keys), cutoff)
    if holds_smiles(file) and (not labels or Path(file).suffix.lower() not in TABLES):
        raise DataError(f"{file}: SMILES have no labels and no geometries; to predict them: eval.py --input {file}")
    if packed_folder.is_packed(file):
        packed = packed_folder.load(file)
        if abs(packed.cutoff - cutoff) > 1e-9:
            raise DataError(
                f"{file}: packed with a cutoff of {packed.cutoff:g} Angstrom, the model needs {cutoff:g}; "
                f"run scripts/prepare_qm9.py with --cutoff {cutoff:g}"
            )
        return dataclasses.replace(packed, table=rename(Path(file), packed.table, check_keys(keys, labels)))
    table = _read(file, progress, keys, labels)
    if table.origin == QM9:
        table, _ = qm9.exclude_uncharacterized(table)
    return pack(table, cutoff, progress)


@dataclass(frozen=True)
class Dataset:
    """Graphs with the labels of one task.

    Attributes:
        packed: the graphs.
        split: rows for training, validation and test.
        labels: (M,) float64 in the target's unit, under the task's definition; NaN where there is none.
        counts: (M, 119) atoms of each element.
        normalizer: standardisation fitted on the training rows.
        forces: (A, 3) float64 in the target's unit per Angstrom, NaN where unknown; None where the data have none.
        stress: (M, 3, 3) float64 in the target's unit per Angstrom^3, NaN where unknown; None where the data have none.
        parts: where several tasks share a network, the data set of each, whose split has the rows with its label.
    """

    packed: PackedGraphs
    split: Split
    labels: np.ndarray
    counts: np.ndarray
    normalizer: Normalizer
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    parts: tuple[Dataset, ...] = ()

    @property
    def every(self) -> tuple[Dataset, ...]:
        """One for each task."""
        return self.parts or (self,)

    def standardised(
        self, quantities: Collection[str] = ("energy",), seed: int = 0, probes: str = PROBES[0]
    ) -> Provider:
        """What the network learns; energies are NaN outside the training rows.

        Args:
            quantities: labels of graphs, ``energy`` (the target, whatever it is) and ``stress``, which brings the
                ``volume`` (Angstrom^3) along that it belongs to; of nodes, ``forces``.  With ``hessian_product``, of
                nodes, there are probes, others in every epoch, and forces and stress are 0.
            seed: of the probes.
            probes: kind of them, one of ``PROBES``.

        Raises:
            DataError: no training row has one of them, or no validation row.
        """
        if "hessian_product" in quantities:
            constants = self.packed.table.force_constants
            assert constants is not None  # their labels are there
            return ForceConstantProbes(self.packed, constants, seed, self.normalizer.scale, probes, tuple(quantities))
        of_structures: dict[str, np.ndarray] = {}
        if "energy" in quantities:
            of_structures["energy"] = self._outputs()
        for k, part in enumerate(self.parts):
            if value_name(k) in quantities:
                of_structures[value_name(k)] = part._outputs()
        if "stress" in quantities:
            of_structures["stress"] = self._known("stress", self.stress) / self.normalizer.scale
            of_structures["volume"] = cell_volumes(self.packed.table)
        of_atoms: dict[str, np.ndarray] = {}
        if "forces" in quantities:
            of_atoms["forces"] = self._known("forces", self.forces) / self.normalizer.scale
        return StoredLabels(self.packed, of_structures, of_atoms)

    def _outputs(self) -> np.ndarray:
        """(M,) what the network has to put out for the training rows; NaN for the others."""
        rows, values = self.split.train, np.full(len(self.labels), np.nan)
        values[rows] = self.normalizer.apply(self.labels[rows], self.counts[rows])
        return values

    def rows_of_an_epoch(self, probes: str = PROBES[0]) -> np.ndarray:
        """The training rows, for the probes ``rows`` each as often as its structure has rows of force constants."""
        rows, constants = self.split.train, self.packed.table.force_constants
        return rows if constants is None or probes != "rows" else np.repeat(rows, 3 * constants.n_primitive[rows])

    def _known(self, name: str, values: np.ndarray | None) -> np.ndarray:
        """The published values, if some are there to learn from and some to choose the best model by."""
        table, shape = self.packed.table, SHAPES[name]
        for part, rows in (("training", self.split.train), ("validation", self.split.valid)):
            places = self.packed.atoms_of(rows) if name == "forces" else rows
            if values is None or values.shape[1:] != shape or not np.isfinite(values[places]).any():
                hint = "" if values is not None else advice(name, (*table.label_names, *table.unread))
                if name == "stress" and table.cells is None:
                    hint = "the data are molecules, which have none"
                raise DataError(
                    f"{table.source.partition(' sha256 ')[0]}: expected {name} in the {part} rows, found none; "
                    f"{hint or f'give data with {name}'}, or set training.{WEIGHTS[name]}=0"
                )
        assert values is not None
        return values

    def forces_of(self, rows: np.ndarray) -> np.ndarray | None:
        """(atoms of these rows, 3) published forces, NaN where unknown; None where the data have none."""
        return None if self.forces is None else self.forces[self.packed.atoms_of(rows)]

    @property
    def train_elements(self) -> list[int]:
        """Atomic numbers that occur in the training rows."""
        return present_elements(self.counts[self.split.train])


def make_dataset(packed: PackedGraphs, split: Split, task: Task, shared: bool = False) -> Dataset:
    """Labels and standardisation of a task on a data set.

    Of several tasks each has those rows of the split that have its label.

    Args:
        packed: the graphs.
        split: rows for training, validation and test.
        task: what is learned.
        shared: whether a task that stands alone is one of several whose network has learned from these structures.

    Raises:
        DataError: labels are missing.
    """
    if task.others or shared:
        parts = tuple(make_dataset(packed, _labelled_part(packed, split, one), one) for one in task.every)
        laws = dataclasses.replace(parts[0].normalizer, others=tuple(part.normalizer for part in parts[1:]))
        return dataclasses.replace(parts[0], split=split, normalizer=laws, parts=parts)
    labels = label_values(packed.table, task.target, task.reference)
    for part, rows in (("train", split.train), ("valid", split.valid), ("test", split.test)):
        if not len(rows):
            if np.isnan(labels).all():
                raise DataError(f"expected numbers as {task.target.name}, all {len(labels)} structures have none; "
                                "fill them in, or learn another target")  # fmt: skip
            raise DataError(
                f"the {part} rows of split {split.name} with the label {task.target.name} are empty; choose another "
                "split or other sizes"
            )
        if np.isnan(labels[rows]).any():
            missing = np.flatnonzero(np.isnan(labels))
            more = f", like {len(missing) - 1} others of {len(labels)}" if len(missing) > 1 else ""
            raise DataError(f"{name_of_row(packed.table, int(rows[np.isnan(labels[rows])][0]))}: no label "
                            f"{task.target.name}{more}; remove what has none, or learn another target")  # fmt: skip
    check_varies(task.target, labels[split.train])
    counts = element_counts(packed.table.numbers, packed.table.n_atoms)
    forces = packed.table.of_atoms.get("forces") if task.target.has_forces else None
    known = None if forces is None else forces[packed.atoms_of(split.train)]
    normalizer = fit_normalizer(labels[split.train], counts[split.train], task.standardisation, forces=known)
    stress = packed.table.of_structures.get("stress") if task.target.has_forces else None
    return Dataset(packed, split, labels, counts, normalizer, forces, stress)


def _labelled_part(packed: PackedGraphs, split: Split, task: Task) -> Split:
    """The rows of a split that have the label of a task."""
    known = np.isfinite(label_values(packed.table, task.target, task.reference))
    train, valid, test = (rows[known[rows]] for rows in (split.train, split.valid, split.test))
    return Split(train, valid, test, split.name)


def reference_suspicions(dataset: Dataset, task: Task) -> list[str]:
    """Warnings where the training structures give no reference for others that will be measured.

    Frames of one molecule fix the sum of its elements' contributions and no other sum: a model of ethanol knows the
    forces of benzene better than its energy.

    Returns:
        One line, or none: with another standardisation than per_element there are no references.
    """
    if task.standardisation != "per_element":
        return []
    split, counts = dataset.split, dataset.counts
    measured = np.concatenate([split.valid, split.test])
    found = measured[undetermined(counts[split.train], counts[measured])]
    if not len(found):
        return []
    first = name_of_row(dataset.packed.table, int(found[0]))
    return [
        f"{len(found)} of {len(measured)} validation and test molecules (first: {first}) have a composition for which "
        f"the training molecules give no reference {task.target.name}: expect its prediction to be off by a constant; "
        "train on molecules of this composition too"
    ]


def readout_suspicions(dataset: Dataset, task: Task, several: bool = False) -> list[str]:
    """Warnings where the labels of a user's own property, alone or one of several, do not fit its readout."""
    rows, target = dataset.split.train, task.target
    key = f"target.readouts={target.name}=" if several else "target.readout="
    return size_suspicions(target, task.readout, dataset.labels[rows], dataset.counts[rows], key)


def range_of(dataset: Dataset, task: Task) -> LearnedRange:
    """What the training structures of a data set cover for a task."""
    # per_element fits references to the compositions; without, the network must learn those of total energies from them
    total = any(one.reference == "total" or one.target.has_forces for one in task.every)
    fitted = any(one.standardisation == "per_element" for one in task.every)
    return learn(dataset.packed, dataset.split.train, total or fitted)


def present_elements(counts: np.ndarray) -> list[int]:
    """Atomic numbers that occur in a matrix of element counts (M, 119)."""
    return np.flatnonzero(counts.sum(axis=0)).tolist()


def with_unseen_elements(counts: np.ndarray, known: list[int]) -> np.ndarray:
    """(M,) bool: which structures hold an element outside ``known``."""
    return np.delete(counts, known, axis=1).any(axis=1)


def symbols(numbers: list[int]) -> str:
    """Atomic numbers as text, ``H, C, N``."""
    return ", ".join(ELEMENTS[number - 1] for number in numbers)
