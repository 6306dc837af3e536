"""What float16 alone does to a label: the MAE between the labels of the shipped molecules and the same ones rounded.

    python scripts/benchmarks/label_rounding.py --target U0

For each label definition, raw and standardised over molecules: the label rounded once, and a sum over atoms that is
kept in float16 while every atom adds an equal share, which is how a network with the readout ``sum`` arrives at it.
No network of that precision and readout can be expected to do better.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import DATA, begin

if __name__ == "__main__":
    begin(DATA)

import numpy as np

from data_tools import qm9
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.labels.targets import get_target, label_values
from scripts.help_defaults import Defaults


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest numbers of float16."""
    return values.astype(np.float16).astype(np.float64)


def summed(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Each value as the sum of equal shares of its atoms, one after the other, in float16."""
    share, total = (values / counts).astype(np.float16), np.zeros(len(values), np.float16)
    for atom in range(counts.max()):
        total = np.where(atom < counts, total + share, total)
    return total.astype(np.float64)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Rounding of labels to float16.")
    parser.add_argument("--target", default="U0")
    options = parser.parse_args(arguments)
    try:
        target, table = get_target(options.target), read_table(qm9.SAMPLE_FILE)
        labels = {reference: label_values(table, target, reference) for reference in target.references}
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"MAE of {target.name} [{target.unit}] in float16, {len(table)} molecules")
    print(f"{'definition':14}{'mean':>12}{'deviation':>12}{'':16}{'rounded':>10}{'sum':>10}")
    for reference, values in labels.items():
        mean, deviation = values.mean(), values.std()
        for name, shift, scale in (("raw", 0.0, 1.0), ("standardised", mean, deviation)):
            units = (values - shift) / scale
            errors = [scale * np.abs(found - units).mean() for found in (rounded(units), summed(units, table.n_atoms))]
            print(f"{reference:14}{mean:12.1f}{deviation:12.2f}  {name:14}{errors[0]:10.4f}{errors[1]:10.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
