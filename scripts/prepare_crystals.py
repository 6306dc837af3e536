"""Turn files of phonopy, such as the archives of phonondb, into one packed file of crystals with force constants.

    python scripts/prepare_crystals.py --source phonondb --output data/phonondb.npz
    python scripts/prepare_crystals.py --source mp-149.tar.lzma NaCl/phonopy_params.yaml.xz --output data/two.npz

Beside FILE.npz: FILE_by_system.npz (split by chemical system, for data.split=file) and FILE_log.csv (every source, and
why it was skipped).  What cannot be read is skipped by name, the rest goes on; the same command after an interruption
goes on where it was.  Exit code 2 and one line on stderr if nothing can be read; the output is there whole or not at
all.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy", "scipy", "phonopy", "spglib", "h5py", "tqdm"))

from data_tools.formats.crystal_batch import Outcome, find_sources, make_parts
from data_tools.formats.crystal_file import join_crystal_files, read_crystal_file
from data_tools.graph import DataError
from data_tools.labels.crystal_splits import split_by_chemical_system
from data_tools.labels.splits import save_split
from data_tools.progress_bar import track
from data_tools.source_files import one_line
from scripts.help_defaults import Defaults

BAD_INPUT, INTERRUPTED = 2, 130
SHOWN = 5  # skipped sources that are named on the terminal; the log names all
COLUMNS = (
    "source",
    "name",
    "atoms",
    "primitive_atoms",
    "space_group",
    "lowest_at_gamma_thz",
    "lowest_on_mesh_thz",
    "skipped",
)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument(
        "--source",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="archives, files or folders of phonopy; of a folder all archives and all folders with forces below it",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="packed file to write, .npz")
    parser.add_argument("--processes", type=int, default=0, help="0: one for each core (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of both splits")
    return parser.parse_args(arguments)


def prepare(sources: list[Path], output: Path, processes: int, seed: int) -> None:
    """Read all sources, write the packed file, the split by chemical system and the log.

    Args:
        sources: files and folders.
        output: the packed file.
        processes: 0: one for each core.
        seed: of both splits.

    Raises:
        DataError: nothing can be read, or the output cannot be written there.
    """
    started = time.monotonic()
    if output.suffix != ".npz" or output.is_dir():
        raise DataError(f"{output}: expected a file with the ending .npz to write, found another name or a folder")
    if processes < 0:
        raise DataError(f"--processes {processes}: expected 0 or more")
    found = find_sources(sources)
    parts = output.with_name(f"{output.stem}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = make_parts(found, parts, processes or cores)
    outcomes = {one.source: one for one in track(made, "force constants", "materials", len(found), True)}
    ordered = [outcomes[source] for source in found]
    skipped = [one for one in ordered if one.reason]
    for one in skipped[:SHOWN]:
        print(f"skipped {one.source.name}: {one.reason}", file=sys.stderr)
    if len(skipped) > SHOWN:
        print(f"skipped {len(skipped) - SHOWN} more; see {log_of(output)}", file=sys.stderr)
    whole = [one.part for one in ordered if not one.reason]
    write_log(ordered, log_of(output))
    if not whole:
        raise DataError(f"{output}: expected at least one readable source, all {len(found)} were skipped; see above")
    table = join_crystal_files(output, whole, seed)
    save_split(split_by_chemical_system(table, seed), output.with_name(f"{output.stem}_by_system.npz"))
    shutil.rmtree(parts)
    print(
        f"wrote {output}: {len(table):,} crystals of {len(found):,} sources, {len(skipped):,} skipped, "
        f"{output.stat().st_size / 1e6:.1f} MB, {time.monotonic() - started:.1f} s"
    )


def log_of(output: Path) -> Path:
    """The log beside a packed file."""
    return output.with_name(f"{output.stem}_log.csv")


def write_log(outcomes: list[Outcome], path: Path) -> None:
    """One line for each source: what was read from it, or why nothing was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for one in outcomes:
                writer.writerow([one.source.name, *(("",) * 6 if one.reason else _described(one.part)), one.reason])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _described(part: Path) -> tuple:
    table = read_crystal_file(part).table
    constants = table.force_constants
    assert constants is not None
    gamma, mesh = constants.lowest_frequencies[0].tolist()
    sizes = int(table.n_atoms[0]), int(constants.n_primitive[0])
    return table.names[0], *sizes, int(constants.space_groups[0]), f"{gamma:.4f}", f"{mesh:.4f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        prepare(options.source, options.output, options.processes, options.seed)
    except DataError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {options.output}: cannot write it ({one_line(error)})", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
