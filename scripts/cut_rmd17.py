"""The frames of one published split of rMD17 as a file for training or testing.

    python scripts/cut_rmd17.py --file npz_data/rmd17_aspirin.npz --rows splits/index_train_01.csv --output train.npz

Both files are in the published archive, https://doi.org/10.6084/m9.figshare.12672038; the splits count frames from 0.
Files of MD17 and sGDML, which name their arrays otherwise, work too; arrays that are no frames are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("numpy",))

import numpy as np

from data_tools.formats.md17 import MD17, RMD17, layout_of, read_frames
from data_tools.graph import DataError
from data_tools.source_files import array_names, read_arrays, shown
from scripts.help_defaults import Defaults
from training.files import one_line, replacing


def read_rows(path: Path) -> np.ndarray:
    """The whole numbers of a text file, one a line.

    Raises:
        DataError: no text, another line, or a number that stands there twice.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected one whole number a line, found no text; give a list of frames") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in numbered:
        if not line.isdigit() or len(line) > 9:
            raise DataError(f"{path}: expected one whole number a line, found {shown(line)} in line {number}")
    rows = np.array([int(line) for _, line in numbered], np.int64)
    if not len(rows):
        raise DataError(f"{path}: expected one whole number a line, found none; give a list of frames")
    values, counts = np.unique(rows, return_counts=True)
    if counts.max() > 1:
        raise DataError(f"{path}: expected every frame once, found {values[counts.argmax()]} twice; remove one of them")
    return rows


def cut(file: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a file of frames with these frames alone, in this order.

    Raises:
        DataError: neither layout, damaged, or a row that is no frame.
    """
    layout = layout_of(array_names(file))
    if layout is None:
        raise DataError(
            f"{file}: expected the arrays {', '.join(RMD17[:4])} (rMD17) or {', '.join(MD17[:4])} (MD17); "
            "give an npz file of one of them"
        )
    frames = len(read_frames(file, layout))  # refuses what training would refuse
    if rows.max() >= frames:
        raise DataError(f"{file}: expected frames 0 to {frames - 1}, found {rows.max()} in the list; give its own list")
    arrays = read_arrays(file, {name for name in layout if name})
    of_frames = {layout.positions, layout.energy, layout.forces}
    return {name: array[rows] if name in of_frames else array for name, array in arrays.items()}


def main(arguments: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="The frames of a published split as a file of their own."
    )
    parser.add_argument("--file", type=Path, required=True, help="npz file of rMD17 or MD17")
    parser.add_argument("--rows", type=Path, required=True, help="text file, one frame a line, counted from 0")
    parser.add_argument("--output", type=Path, required=True, help="npz file to write")
    options = parser.parse_args(arguments)
    try:
        if options.output.suffix != ".npz":
            raise DataError(f"{options.output}: expected a name that ends with .npz")
        rows = read_rows(options.rows)
        arrays = cut(options.file, rows)
        with replacing(options.output) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    except (DataError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(rows)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
