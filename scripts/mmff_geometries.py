"""Molecules at the geometries that their SMILES would give, with the labels that they have: to train for such input.

    python scripts/mmff_geometries.py --data sample --split sample --sizes 3000 300 1000 --output runs/mmff.npz

For each molecule RDKit finds the bonds and makes geometries (ETKDG, then MMFF), as eval.py does of SMILES.  FILE.npz
holds the molecules at their own geometry and at these; FILE_split.npz, for data.split=file, keeps each in its part of
the split: training molecules at every geometry, validation and test molecules at the first that RDKit made.  Molecules
that RDKit cannot make are left out and named in FILE_left_out.csv.  Exit code 2 and one line on stderr for bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy", "rdkit", "tqdm"))

import numpy as np

from data_tools.formats.force_field_geometries import conformers_of
from data_tools.formats.npz_format import CONFORMER
from data_tools.formats.readers import holds_smiles, read_table
from data_tools.graph import DataError, StructureTable
from data_tools.labels.splits import Split, make_split, save_split
from data_tools.progress_bar import track
from data_tools.qm9 import SAMPLE_FILE, exclude_uncharacterized
from data_tools.source_files import one_line
from data_tools.tables import QM9, name_of_row, structure_of_row
from data_tools.units import HARTREE, QM9_UNITS
from experiment.command_line import exit_code
from scripts.help_defaults import Defaults
from training.files import replacing, write_rows

SPLITS = ("sample", "cormorant", "110k", "labelled")


class Geometry(NamedTuple):
    """One molecule at one geometry: its row in the source, number of the geometry (0: its own), (n, 3) Angstrom."""

    row: int
    conformer: int
    positions: np.ndarray


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="sample", help="file of neutral molecules, or sample")
    parser.add_argument("--split", default="sample", help=f"{', '.join(SPLITS)}, or an index file such as a run's")
    parser.add_argument("--sizes", type=int, nargs=3, metavar=("TRAIN", "VALID", "TEST"),
                        help="only the first so many molecules of each part")  # fmt: skip
    parser.add_argument("--conformers", type=int, default=1, help="geometries that are made of a training molecule")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="packed file to write, .npz")
    options = parser.parse_args(arguments)
    if options.conformers < 1:
        parser.error(f"--conformers {options.conformers}: expected at least 1")
    if options.sizes and min(options.sizes) < 1:
        parser.error(f"--sizes {' '.join(map(str, options.sizes))}: expected at least 1 each")
    return options


def opened(data: str, split: str) -> tuple[StructureTable, Split]:
    """The molecules and their split.

    Raises:
        DataError: they cannot be used, or are not molecules with labels.
    """
    if holds_smiles(data):
        raise DataError(f"{data}: expected molecules at geometries of their own, found SMILES, which train.py reads")
    table = read_table(SAMPLE_FILE if data == "sample" else data, progress=True)
    if table.origin == QM9:
        table, _ = exclude_uncharacterized(table)
    if table.cells is not None:
        raise DataError(f"{data}: expected molecules, found crystals, which MMFF does not know")
    if not labels_of(table):
        raise DataError(f"{data}: expected a number of each molecule to learn, found none; give data with labels")
    if split in SPLITS:
        return table, make_split(split, table)
    return table, make_split("file", table, file=split)


def labels_of(table: StructureTable) -> dict[str, np.ndarray]:
    """(M,) labels of the molecules in the units of the packed layout; none that has more than one number."""
    numbers = {name: values for name, values in table.of_structures.items() if values.ndim == 1}
    return {name: values / HARTREE if QM9_UNITS.get(name) == "eV" else values for name, values in numbers.items()}


def made(
    table: StructureTable, parts: dict[str, np.ndarray], conformers: int
) -> tuple[dict[str, list[Geometry]], list[dict[str, str]]]:
    """The geometries of each part, and the molecules that are left out, with the reason."""
    found: dict[str, list[Geometry]] = {part: [] for part in parts}
    left_out = []
    every = [(part, int(row)) for part, rows in parts.items() for row in rows]
    for part, row in track(every, "geometries", "molecules", len(every), True):
        structure = structure_of_row(table, row)
        try:
            positions = conformers_of(structure, conformers if part == "train" else 1)
        except ValueError as error:
            left_out.append({"molecule": name_of_row(table, row), "part": part, "reason": one_line(error)})
            continue
        found[part] += [Geometry(row, k, place) for k, place in enumerate((structure.positions, *positions))]
    return found, left_out


def write(output: Path, table: StructureTable, found: dict[str, list[Geometry]], name: str) -> None:
    """The packed file and its split, each whole or not at all."""
    every = [geometry for geometries in found.values() for geometry in geometries]
    rows = np.array([geometry.row for geometry in every], np.int64)
    conformers = np.array([geometry.conformer for geometry in every], np.int64)
    arrays = {
        "n_atoms": table.n_atoms[rows],
        "Z": np.concatenate([structure_of_row(table, row).numbers for row in rows]),
        "R": np.concatenate([geometry.positions for geometry in every]).astype(np.float32),
        **{label: values[rows] for label, values in labels_of(table).items()},
        "molecule": rows,
        CONFORMER: conformers,
    }
    with replacing(output) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    ends = np.cumsum([len(geometries) for geometries in found.values()])
    train, valid, test = np.split(np.arange(len(every)), ends[:-1])
    valid, test = (part[conformers[part] == 1] for part in (valid, test))
    save_split(Split(train, valid, test, f"{name}-mmff"), output.with_name(f"{output.stem}_split.npz"))


def run(options: argparse.Namespace) -> None:
    """Make and write everything.

    Raises:
        DataError: data, split or output that cannot be used, or a part without a molecule.
    """
    output: Path = options.output
    if output.suffix != ".npz" or output.is_dir():
        raise DataError(f"{output}: expected a file with the ending .npz to write, found another name or a folder")
    table, split = opened(options.data, options.split)
    output.parent.mkdir(parents=True, exist_ok=True)  # now, not after all the work
    sizes = options.sizes or [len(table)] * 3
    parts = {part: getattr(split, part)[:size] for part, size in zip(("train", "valid", "test"), sizes, strict=True)}
    found, left_out = made(table, parts, options.conformers)
    first = f"; the first: {left_out[0]['molecule']}: {left_out[0]['reason']}" if left_out else ""
    empty = [part for part, geometries in found.items() if not geometries]
    if empty:
        raise DataError(f"{options.data}: expected molecules that RDKit can make, found none of part {empty[0]}{first}")
    if left_out:
        write_rows(output.with_name(f"{output.stem}_left_out.csv"), left_out)
        print(f"left out: {len(left_out):,} of {sum(map(len, parts.values())):,} molecules{first}", file=sys.stderr)
    write(output, table, found, split.name)
    counts = ", ".join(f"{len({geometry.row for geometry in one}):,} {part}" for part, one in found.items())
    print(f"wrote {output}: {sum(map(len, found.values())):,} geometries of {counts} molecules")


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        run(options)
    except (DataError, OSError, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
