"""Draw validation curves of runs of ours and of the peer in one picture.

    python scripts/benchmarks/overlay_curves.py --run ours=runs/gap --run PyG=peer/gap --unit eV --output curves.png

Each RUN is a folder with the metrics.csv of train.py or of `train` of scripts/peers/peer_schnet.py or
peer_dimenetpp.py.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("matplotlib",))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from scripts.help_defaults import Defaults


def read_curve(folder: Path) -> tuple[list[int], list[float]]:
    """Epochs and validation MAE of a run folder."""
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in rows[0] if name.startswith("valid_mae"))
    return [int(row["epoch"]) for row in rows], [float(row[column]) for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture and print the last and the lowest value of each curve."""
    parser = argparse.ArgumentParser(
        formatter_class=Defaults, description="Validation curves of several runs in one picture."
    )
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--title", default="")
    parser.add_argument("--unit", default="eV")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for position, text in enumerate(options.run):
        name, _, folder = text.partition("=")
        try:
            epochs, values = read_curve(Path(folder))
        except (OSError, StopIteration, KeyError, ValueError, IndexError) as error:
            print(f"error: --run {text}: expected NAME=FOLDER with a metrics.csv in it ({error})", file=sys.stderr)
            return 2
        # the first curve is broad, so that one that coincides with it leaves it visible
        width, strength = (6, 0.4) if position == 0 else (1.5, 1.0)
        axes.plot(epochs, values, linewidth=width, alpha=strength, marker="o", markersize=3, label=name)
        print(f"{name}: last {values[-1]:.4f} {options.unit}, lowest {min(values):.4f} {options.unit}")
    axes.set(xlabel="epoch", ylabel=f"validation MAE / {options.unit}", yscale="log", title=options.title)
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    temporary = options.output.with_name(f".{options.output.name}.partial.png")
    figure.savefig(temporary, dpi=150)
    temporary.replace(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
