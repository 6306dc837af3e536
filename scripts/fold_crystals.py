"""Make a file to train models of force constants on: small cells of many crystals instead of their supercells.

    python scripts/fold_crystals.py --data runs/phonondb.npz runs/more.npz --output runs/train.npz \
        --valid results/force_constants/valid.txt --test results/force_constants/test.txt

Every crystal but those of the two lists, of which each line is a name, is given by one or two cells of its own (see
``physics.folded_cells``); those of the lists stay as they are.  Beside FILE.npz is FILE_split.npz, for data.split=file.
Exit code 2 and one line on stderr for bad input; the output is there whole or not at all.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy", "tqdm"))

import numpy as np

from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.crystal_file import CrystalFile, read_crystal_file, write_crystals
from data_tools.graph import DataError
from data_tools.labels.splits import Split, save_split
from data_tools.progress_bar import track
from data_tools.source_files import one_line
from experiment.command_line import exit_code
from physics.folded_cells import cells_to_train_on
from scripts.help_defaults import Defaults


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files of scripts/prepare_crystals.py")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="packed file to write, .npz")
    for part in ("valid", "test"):
        parser.add_argument(f"--{part}", type=Path, required=True, metavar="FILE", help="a name in each line")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cells")
    return parser.parse_args(arguments)


def names_of(path: Path) -> list[str]:
    """The lines of a list.

    Raises:
        DataError: it cannot be read, or a name stands there twice.
    """
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a text file with a name in each line ({one_line(error)})") from None
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: expected different names, one in each line, found {len(set(names))} in {len(names)}")
    return names


def fold(files: list[Path], output: Path, valid: Path, test: Path, seed: int) -> None:
    """Write the packed file and its split.

    Raises:
        DataError: files that cannot be read, names that are not there, or no crystal to train on.
    """
    started = time.monotonic()
    if output.suffix != ".npz" or output.is_dir():
        raise DataError(f"{output}: expected a file with the ending .npz to write, found another name or a folder")
    parts = {"valid": names_of(valid), "test": names_of(test)}
    part_of = {name: part for part, names in parts.items() for name in names}
    if len(part_of) < sum(map(len, parts.values())):
        raise DataError(f"{valid}, {test}: expected no name in both")
    found: dict[str, list[tuple[Crystal, str]]] = {"train": [], "valid": [], "test": []}
    crystals = _crystals([read_crystal_file(file) for file in files])
    for crystal, source in track(crystals, "cells", "crystals", len(crystals), True):
        part = part_of.get(crystal.name, "train")
        cells = cells_to_train_on(crystal, seed) if part == "train" else [crystal]
        found[part] += [(cell, source) for cell in cells]
    for part, names in parts.items():
        missing = sorted(set(names) - {crystal.name for crystal, _ in found[part]})
        if missing:
            raise DataError(f"{missing[0]}: expected it in {', '.join(map(str, files))}; {len(missing)} are missing")
    if not found["train"]:
        raise DataError(f"{output}: expected crystals that are neither in {valid} nor in {test}")
    every = [pair for pairs in found.values() for pair in pairs]
    write_crystals(output, [crystal for crystal, _ in every], [source for _, source in every])
    ends = np.cumsum([len(pairs) for pairs in found.values()])
    train, of_valid, of_test = np.split(np.arange(ends[-1]), ends[:-1])
    save_split(Split(train, of_valid, of_test, "by-name"), output.with_name(f"{output.stem}_split.npz"))
    atoms = np.mean([crystal.n_atoms for crystal, _ in found["train"]])
    print(
        f"wrote {output}: {len(train):,} cells of {atoms:.1f} atoms on average to train on, {len(of_valid)} crystals "
        f"to validate, {len(of_test)} to test, {output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s"
    )


def _crystals(files: list[CrystalFile]) -> list[tuple[Crystal, str]]:
    return [(crystal_of(file.table, row), file.sources[row]) for file in files for row in range(len(file.table))]


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        fold(options.data, options.output, options.valid, options.test, options.seed)
    except (DataError, OSError, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
