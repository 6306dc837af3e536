"""What ``eval.py --input`` reads and where it writes: everything that can be wrong with either is found here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools import dataset as data
from data_tools.formats.readers import holds_smiles, read_table
from data_tools.formats.smiles import Molecules, make_molecules
from data_tools.formats.smiles_records import records_of_file, records_of_words
from data_tools.formats.writers import GEOMETRY_MARK, geometries_text
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import describe_source
from training.files import write_text

STANDARD_OUTPUT = "-"
FRAME_SUFFIXES = (".xyz", ".extxyz")
TABLE_NAME, GEOMETRIES = "predictions.csv", ".geometries.xyz"
PLACES = "a .csv file, an .xyz file where energies are predicted, or a folder, which has no suffix or exists"


class Place(NamedTuple):
    """Where predictions go.

    Attributes:
        file: None for standard output.
        frames: whether it is extended xyz rather than CSV.
    """

    file: Path | None
    frames: bool

    @property
    def geometries(self) -> Path | None:
        """Where the geometries that were made from SMILES go; None where the predictions have them or go nowhere."""
        return None if self.file is None or self.frames else self.file.with_suffix(GEOMETRIES)


def place_of_predictions(output: str | None, source: str | None) -> Place:
    """Where ``--output`` puts predictions for ``--input``; nothing is made yet.

    Args:
        output: the option; empty, None or ``-``: standard output.
        source: the file that is read.

    Raises:
        ConfigError: no name for predictions, a place that cannot be written, or a file that would be lost.
    """
    if not output or output == STANDARD_OUTPUT:
        return Place(None, False)
    path, suffix = Path(output), Path(output).suffix.lower()
    if _is_folder(output):
        place = Place(path / TABLE_NAME, False)
    elif suffix == ".csv" or suffix in FRAME_SUFFIXES:
        place = Place(path, suffix in FRAME_SUFFIXES)
    else:
        raise ConfigError(f"--output {output}: expected {PLACES}, found the suffix {path.suffix}; choose another name")
    assert place.file is not None
    _check_writable(output, place.file)
    if (place.file.parent / "config.yaml").exists() and (place.file.exists() or place.file.name == TABLE_NAME):
        raise ConfigError(f"--output {output}: expected a place outside of a run folder; choose another name")
    for file in (place.file, place.geometries):
        if file is not None and source and file.exists() and Path(source).exists() and file.samefile(source):
            raise ConfigError(f"--output {output}: {file} is the file of --input; choose another name")
    geometries = place.geometries
    if geometries is not None and geometries.exists() and (not source or holds_smiles(source)):
        _check_ours(output, geometries)
    return place


def folder_of_metrics(output: str | None) -> Path | None:
    """The folder of ``--output`` without ``--input``; nothing is made yet.

    Raises:
        ConfigError: a name with the suffix of a file, a run folder, or a place that cannot be written.
    """
    if not output:
        return None
    folder = Path(output)
    if output == STANDARD_OUTPUT:
        raise ConfigError("--output -: expected a folder for metrics.json and tables; leave it out to see them alone")
    if (folder / "config.yaml").exists():
        raise ConfigError(f"--output {output}: expected a folder that is no run folder; choose another name")
    if not _is_folder(output):
        raise ConfigError(
            f"--output {output}: expected a folder for metrics.json and {TABLE_NAME}, which has no suffix or exists, "
            f"found the suffix {folder.suffix}; choose another name"
        )
    _check_writable(output, folder / TABLE_NAME)
    return folder


def _is_folder(output: str) -> bool:
    path = Path(output)
    return path.is_dir() or not path.suffix or output.endswith(("/", os.sep))


def _check_writable(output: str, file: Path) -> None:
    if file.is_dir():
        raise ConfigError(f"--output {output}: {file} is a folder; choose another name")
    parent = next((one for one in file.parents if one.exists()), Path())
    if not parent.is_dir():
        raise ConfigError(f"--output {output}: expected a folder at {parent}, found a file; choose another name")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {output}: cannot write into {parent}; check its permissions")


def _check_ours(output: str, file: Path) -> None:
    """Refuse to write geometries over a file that is not of an earlier prediction."""
    with file.open("rb") as stream:
        start = stream.read(1 << 12)
    if GEOMETRY_MARK.encode() not in start:
        raise ConfigError(
            f"--output {output}: the geometries made from SMILES go to {file}, which is another file; move it or "
            "choose another name"
        )


def read_input(file: str | None, smiles: list[str] | None) -> Molecules:
    """The structures of ``--input`` or ``--smiles``; those of SMILES as far as they can be made.

    Raises:
        DataError: nothing can be read.
    """
    if smiles:
        return make_molecules(Path("--smiles"), records_of_words(smiles), "SMILES of the command line")
    assert file is not None
    path = Path(file)
    if holds_smiles(path):
        return make_molecules(path, records_of_file(path), describe_source(path), progress=True)
    table = read_table(path, progress=True)
    return Molecules((), table, np.arange(len(table)), ())


def unlearned_elements(molecules: Molecules, known: list[int]) -> dict[int, str]:
    """Per structure that holds an element which a model has not learned: the reason to refuse it."""
    table = molecules.table
    if table is None:
        return {}
    owner = np.repeat(np.arange(len(table)), table.n_atoms)
    strange = ~np.isin(table.numbers, known)
    reasons = {}
    for row in np.unique(owner[strange]).tolist():
        found = data.symbols(np.unique(table.numbers[strange & (owner == row)]).tolist())
        reasons[row] = f"the model has not learned {found}, only {held_elements(known)}"
    return reasons


def held_elements(known: list[int]) -> str:
    """The elements of a model, as a message lists them."""
    return data.symbols(known) if len(known) < 20 else f"{len(known)} elements up to {data.symbols(known[-1:])}"


def name_refusals(source: str, molecules: Molecules) -> StructureTable:
    """A line on standard error for each record that is left out; returns the structures of the others.

    Raises:
        DataError: there are no others.
    """
    refusals = molecules.refusals
    if molecules.table is None:
        first = f"none of {len(refusals)} records can be used, the first is " if len(refusals) > 1 else ""
        raise DataError(f"{source}: {first}{refusals[0]}; correct it")
    for refusal in refusals:
        print(f"error: {source}: {refusal}; left out", file=sys.stderr)
    return molecules.table


def in_order_of_records(rows: list[dict[str, Any]], molecules: Molecules) -> list[dict[str, Any]]:
    """One row a record: those of the structures, and empty ones with a column ``error`` for refused records."""
    if not molecules.refusals:
        return rows
    by_record = {row: values | {"error": ""} for row, values in zip(molecules.rows.tolist(), rows, strict=True)}
    for refusal in molecules.refusals:
        error = f"{refusal.record.place}: {refusal.reason}"
        by_record[refusal.row] = dict.fromkeys(rows[0], "") | {"name": refusal.record.name, "error": error}
    return [by_record[row] for row in sorted(by_record)]


def write_geometries(place: Place, molecules: Molecules) -> None:
    """The geometries that were made from SMILES, beside the predictions."""
    if place.geometries is None or not molecules.records or molecules.table is None:
        return
    smiles = [molecules.records[row].smiles for row in molecules.rows]
    write_text(place.geometries, geometries_text(molecules.table, smiles))
    print(f"wrote the geometries that were made to {place.geometries}")
