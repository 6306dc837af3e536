"""Turn a published QM9 file into a folder of packed, memory-mapped graphs.

    python scripts/prepare_qm9.py --source dsgdb9nsd.xyz.tar.bz2 --output data/qm9_5A
    python scripts/prepare_qm9.py --download --output data/qm9_5A

Exit code 2 and one line on stderr if the input is not usable; the output folder is there whole or not at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import DATA, begin

if __name__ == "__main__":
    begin(DATA)

from data_tools import qm9
from data_tools.formats.readers import SUPPORTED, read_table
from data_tools.graph import DataError
from data_tools.graphs.packed import pack
from data_tools.graphs.packed_folder import is_packed, load, save
from data_tools.labels.plausibility import unit_suspicions
from data_tools.source_files import one_line
from data_tools.tables import QM9
from scripts.help_defaults import Defaults

BAD_INPUT, INTERRUPTED = 2, 130


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description=__doc__.split("\n")[0], epilog=f"SOURCE is one of: {SUPPORTED}."
    )
    parser.add_argument("--source", type=Path, help="file or folder to read; with --download, the folder to fetch into")
    parser.add_argument("--output", type=Path, required=True, help="folder of packed graphs to write")
    parser.add_argument("--cutoff", type=float, default=5.0, help="Angstrom (default: 5.0)")
    parser.add_argument(
        "--download", action="store_true", help="fetch the data set first (86 MB, default folder: data/raw)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.source is None and not parsed.download:
        parser.error("give --source FILE, or --download to fetch the data set")
    return parsed


def check_output(folder: Path) -> None:
    """Refuse an output that cannot be written before the long read, not after it.

    Raises:
        DataError: a file, or a folder with other things in it.
    """
    if folder.is_file():
        raise DataError(f"{folder}: expected a folder to write to, found a file; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not is_packed(folder):
        raise DataError(f"{folder}: expected a new or a packed graph folder, found other files; choose another name")


def prepare(source: Path | None, output: Path, cutoff: float, download: bool) -> None:
    """Read, leave out, find neighbours, write; prints what it does.

    Args:
        source: file or folder to read; with ``download`` the folder to fetch into.
        output: folder of packed graphs.
        cutoff: Angstrom.
        download: fetch the data set first.

    Raises:
        DataError: anything wrong with the input or the output.
    """
    if not 0 < cutoff < float("inf"):
        raise DataError(f"--cutoff {cutoff}: expected a positive number of Angstrom")
    check_output(output)
    started = time.monotonic()
    if download:
        source = qm9.download(source or Path("data/raw"), progress=True)
    assert source is not None
    table = read_table(source, progress=True)
    print(f"read {table.source}")
    if table.origin != QM9:
        raise DataError(
            f"{source}: expected molecules with gdb indices, this is not QM9; give other data to train.py as data.file"
        )
    kept, counts = qm9.exclude_uncharacterized(table, complete=download)
    part = "" if counts.read == qm9.MOLECULES else f" (a part of QM9: the whole data set has {qm9.MOLECULES:,})"
    print(f"{counts.read:,} read, {counts.excluded:,} excluded, {counts.kept:,} kept{part}")
    print(f"labels: {', '.join(kept.label_names) or 'none, geometries only'}")
    for words in unit_suspicions(kept):
        print(f"warning: {words}", file=sys.stderr)
    packed = dataclasses.replace(pack(kept, cutoff, progress=True), notes=counts._asdict())
    save(packed, output)
    written = load(output)
    print(
        f"wrote {output}: {len(written):,} molecules, {int(written.n_pairs.sum()):,} pairs within {cutoff:g} Angstrom, "
        f"{time.monotonic() - started:.1f} s"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        prepare(options.source, options.output, options.cutoff, options.download)
    except DataError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {options.output}: cannot write it ({one_line(error)})", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
