"""Models and ways to train them on force constants, each for the same time, judged on the same unseen materials.

    python scripts/benchmarks/equal_time.py --data runs/train.npz --peers results/force_constants/peers.json \
        --output runs/equal_time --page results/force_constants/equal_time.md

Each way is a training of train.py with a profile that ships and the options of ``WAYS``: first 40 steps, which say what
a step takes, then as many steps as fit into --minutes, with the learning rate going to 0.  Neither starting nor
compiling counts.  What is finished is not done again: the program goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import json

import numpy as np

from configs.loading import load_config
from data_tools.crystals import Crystal
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.rotations import random_rotations
from data_tools.labels.splits import Split, load_split, save_split
from data_tools.source_files import one_line
from data_tools.tables import select_rows
from experiment.command_line import exit_code
from experiment.evaluation.force_constant_table import ROWS
from experiment.evaluation.force_constants import SHELL_MEANS, ZERO, judge
from experiment.evaluation.second_derivatives import crystals_of
from experiment.evaluation.shell_means import ShellMeans
from experiment.provenance import Command, command_of
from experiment.trained import Trained, load_trained
from physics.derivatives import has_energy
from physics.force_constants import exchange_asymmetry, sum_rule
from scripts.benchmarks.displaced_cells import write_displaced
from scripts.benchmarks.judge_potentials import predicted, rows_of
from scripts.benchmarks.trainings import train
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/equal_time.py"
STEPS = 40  # that say what a step takes
COMMON = {"data.split": "file", "training.loss": "norm", "run.plots": "false"}
BASELINES = (ZERO, SHELL_MEANS)
SHOWN = ("mae", "mae_rest", "frobenius", "frequency_mae", "highest_frequency", "free_energy", "entropy")


class Way(NamedTuple):
    """A training.

    Attributes:
        title: in the table.
        model: whose profile for crystals is used.
        options: beside it.
        materials: how many of the training materials are used; 0: all.
        other_systems: leave out those with the same elements as a test material.
    """

    title: str
    model: str
    options: dict[str, str] = {}  # noqa: RUF012  a NamedTuple
    materials: int = 0
    other_systems: bool = False


POTENTIAL = "equivariant_potential"
DISPLACED = {
    "target.name": "energy", "training.energy_weight": "0", "training.force_weight": "1", "training.probes": "columns",
}  # fmt: skip
WAYS = {
    "columns": Way("equivariant potential, columns", POTENTIAL),
    "directions": Way("equivariant potential, directions", POTENTIAL, {"training.probes": "directions"}),
    "rows": Way("equivariant potential, all rows", POTENTIAL, {"training.probes": "rows"}),
    "forces": Way("equivariant potential, forces of displaced structures", POTENTIAL, DISPLACED),
    "direct": Way("direct head on the same layers", "direct_head"),
    "attention": Way("graph attention transformer", "graph_attention_transformer"),
    "schnet": Way("SchNet", "schnet"),
    "dimenetpp": Way("DimeNet++", "dimenetpp"),
    "segnn": Way("SEGNN", "segnn"),
    "transformer": Way("graph transformer (not equivariant)", "graph_transformer"),
    "rotated": Way("graph transformer, rotated structures", "graph_transformer", {"data.augment_rotations": "true"}),
    "soft": Way(
        "graph transformer, soft equivariance loss", "graph_transformer", {"training.equivariance_weight": "1"}
    ),
    "systems": Way("columns, no training material of a test material's elements", POTENTIAL, other_systems=True),
    **{f"materials_{n}": Way(f"columns, {n:,} materials", POTENTIAL, materials=n) for n in (50, 100, 200, 400, 800)},
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="file of fold_crystals.py, its split beside it")
    parser.add_argument(
        "--peers", type=Path, required=True, help="JSON of scripts/peers/potentials.py: what to judge on"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--page", type=Path, help="Markdown page of all that is finished; a JSON file goes beside it")
    return parser.parse_args(arguments)


class Trainings:
    """Trainings on a file of crystals.

    Args:
        data: file of ``fold_crystals.py``.
        peers: what names the materials that are judged on.
        folder: of the trainings.
    """

    def __init__(self, data: Path, peers: Path, folder: Path):
        try:
            names = json.loads(peers.read_text(encoding="utf-8"))["materials"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{peers}: expected the JSON of scripts/peers/potentials.py ({one_line(error)})") from None
        self.data, self.folder, self.table = data, folder, read_crystal_file(data).table
        self.split = load_split(data.with_name(f"{data.stem}_split.npz"))
        self.tested = select_rows(self.table, rows_of(self.table, names))
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self, way: Way, count: int) -> np.ndarray:
        """So many training rows of a way, or all that it may use, in a random order that is the same for all ways."""
        rows = np.random.default_rng(0).permutation(self.split.train)
        names = np.array(self.table.names)[rows]
        if way.materials:
            kept = np.random.default_rng(1).permutation(np.unique(names))[: way.materials]
            rows = rows[np.isin(names, kept)]
        if way.other_systems:
            known = {elements_of(self.tested, row) for row in range(len(self.tested))}
            rows = np.array([row for row in rows.tolist() if elements_of(self.table, row) not in known])
        return rows[:count]

    def train(self, name: str, output: Path, steps: int) -> tuple[float, int]:
        """A training of about so many steps; returns the seconds of its steps, and how many they were."""
        way = WAYS[name]
        batch = load_config(Path(profile_of(way.model))).training.batch_size
        of_rows = way.options.get("training.probes") == "rows"
        available = self.rows(way, len(self.table))
        assert self.table.force_constants is not None
        draws = 3 * self.table.force_constants.n_primitive[available] if of_rows else np.ones(len(available), int)
        count = int(np.searchsorted(np.cumsum(draws), steps * batch)) + 1
        epochs = max(1, round(steps * batch / max(int(draws.sum()), 1))) if count > len(available) else 1
        rows, data = available[:count], self.data
        if way.options.get("target.name") == "energy":
            data, rows = self._displaced(), np.flatnonzero(np.isin(self.split.train, rows))
            others = np.setdiff1d(np.arange(len(self.split.train)), rows)
            split = Split(rows, others[1:49], others[:1], "equal-time")
        else:
            split = Split(rows, self.split.valid, self.split.test[:1], "equal-time")
        split_file = output.with_name(f"{output.name}_split.npz")
        save_split(split, split_file)
        options = {**COMMON, "data.file": str(data), "data.split_file": str(split_file), **way.options}
        words = ["--epochs", str(epochs), *(w for k, v in options.items() for w in ("--set", f"{k}={v}"))]
        train(profile_of(way.model), output, words)
        with (output / "times.csv").open() as file:
            seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
        draws_of = draws[:count].sum() * epochs
        return seconds, int(-(-draws_of // batch))

    def _displaced(self) -> Path:
        file = self.folder / "displaced.extxyz"
        if not file.exists():
            split = self.data.with_name(f"{self.data.stem}_split.npz")
            write_displaced(self.data, split, file, seed=0)
        return file


def elements_of(table: StructureTable, row: int) -> tuple[int, ...]:
    """The atomic numbers in a structure."""
    ends = np.cumsum(table.n_atoms)
    return tuple(np.unique(table.numbers[ends[row] - table.n_atoms[row] : ends[row]]).tolist())


def profile_of(model: str) -> str:
    """The file of a model's profile for crystals."""
    return f"configs/{model}/crystals.yaml"


def judged(folder: Path, table: StructureTable, crystals: Sequence[Crystal]) -> dict[str, Any]:
    """Errors of a trained model, and what they took."""
    trained = load_trained(folder)
    blocks, seconds = predicted(trained, table, "float32")
    change = None if has_energy(trained.model) else changed_by_rotation(trained, table, blocks)
    parameters = sum(parameter.size for parameter in trained.model.trainable_params())
    return {
        "parameters": parameters, "cpu_seconds_a_material": seconds / len(table), "changed_by_rotation": change,
        **judged_blocks(blocks, crystals),
    }  # fmt: skip


def judged_blocks(blocks: Sequence[np.ndarray], crystals: Sequence[Crystal]) -> dict[str, Any]:
    """Errors of force constants (p, n, 3, 3) of some crystals in eV/Angstrom^2, and what laws they break."""
    found = judge(crystals, {"own": blocks}, ShellMeans.of(crystals[:1]))
    both = [replace(crystal, blocks=one) for crystal, one in zip(crystals, blocks, strict=True)]
    assert found.stable is not None
    return {
        "errors": {key: np.round(values, 6).tolist() for key, values in found.errors["own"].items()},
        "stability_right": int((found.predicted_stable["own"] == found.stable).sum()),
        "largest_sum_eV_per_A2": max(float(np.abs(sum_rule(one.blocks)).max()) for one in both),
        "largest_exchange_eV_per_A2": max(float(np.abs(exchange_asymmetry(one)).max()) for one in both),
    }


def changed_by_rotation(trained: Trained, table: StructureTable, blocks: list[np.ndarray]) -> float:
    """Mean over the crystals of |Phi(R x) - R Phi(x) R^T| / |Phi(x)|, 0 of what is equivariant, with a random R."""
    assert table.cells is not None
    rotation = random_rotations(0, np.zeros(1, int), np.zeros(1, int))[0]
    rotated = replace(table, positions=table.positions @ rotation.T, cells=table.cells @ rotation.T)
    found = []
    for whole, other in zip(blocks, predicted(trained, rotated, "float32")[0], strict=True):
        turned = np.einsum("ab,pqbc,dc->pqad", rotation, whole, rotation)
        found.append(np.linalg.norm(other - turned) / np.linalg.norm(whole))
    return float(np.mean(found))


def one_way(trainings: Trainings, name: str, minutes: float) -> None:
    """Train and judge, unless that is done."""
    file = trainings.folder / f"{name}.json"
    if file.exists():
        return
    started = time.monotonic()
    short, whole = trainings.folder / f"{name}_short", trainings.folder / name
    seconds, steps = trainings.train(name, short, STEPS)
    seconds, steps = trainings.train(name, whole, max(STEPS, round(60 * minutes * steps / seconds)))
    crystals = crystals_of(trainings.tested, np.arange(len(trainings.tested)))
    found = judged(whole, trainings.tested, crystals)
    with (whole / "metrics.csv").open() as lines:
        last = list(csv.DictReader(lines))[-1]
    record = {"minutes": seconds / 60, "steps": steps, "last": last, **found}
    write_text(file, json.dumps(record, indent=1) + "\n")
    mae = np.mean(found["errors"]["mae"])
    whole_time = time.monotonic() - started
    print(f"{name}: {steps:,} steps in {seconds:.0f} s, MAE {mae:.4f} eV/A^2, {whole_time:.0f} s in all", flush=True)


def page(records: dict[str, dict[str, Any]], peers: dict[str, Any], command: Command) -> str:
    """The table of all that is finished."""
    lines = heading()
    for whose in BASELINES:
        right = np.sum(np.array(peers["predicted_stable"][whose]) == np.array(peers["stable"]))
        lines.append(_line([whose, "", "", ""], peers["errors"][whose], [f"{right}", "", ""]))
    lines += [line_of(WAYS[name].title, record) for name, record in records.items()]
    return INTRODUCTION.format(command=command.text, count=len(peers["materials"])) + "\n".join(lines) + "\n"


def heading() -> list[str]:
    """The first two lines of the table."""
    metrics = [f"{ROWS[key].title.strip()}, {ROWS[key].unit}".rstrip(", ") for key in SHOWN]
    laws = ["stability right", "sum rule; exchange, eV/A^2", "rotated"]
    head = ["way", "parameters", "minutes", "steps", *metrics, *laws]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]


def line_of(title: str, record: dict[str, Any]) -> str:
    """A line of the table, of the record of a training."""
    first = [title, f"{record['parameters']:,}", f"{record['minutes']:.1f}", f"{record['steps']:,}"]
    laws = f"{record['largest_sum_eV_per_A2']:.0e}; {record['largest_exchange_eV_per_A2']:.0e}"
    change = record.get("changed_by_rotation")
    return _line(
        first, record["errors"], [f"{record['stability_right']}", laws, "" if change is None else f"{change:.1g}"]
    )


def _line(first: list[str], errors: dict[str, list[float]], last: list[str]) -> str:
    cells = [f"{np.nanmean(v):.{ROWS[k].digits}f} / {np.nanmedian(v):.{ROWS[k].digits}f}"
             for k, v in ((k, np.array(errors[k], float)) for k in SHOWN)]  # fmt: skip
    return "| " + " | ".join([*first, *cells, *last]) + " |"


INTRODUCTION = """# Models and ways to train them on force constants, a few minutes each

Every line is one training from random weights on the training cells of [potential_training.md](potential_training.md),
of one seed, judged on the same {count} unseen materials as [potentials.md](potentials.md) in float32; mean / median.
Rotated: by how much force constants of a rotated or reflected crystal differ from the rotated ones, relative to their
Frobenius norm, of models that have no energy; the others are equivariant ([controls.md](controls.md)).

```bash
{command}
```

"""


def run(options: argparse.Namespace, command: Command) -> None:
    """Train, judge, write.

    Raises:
        DataError: files that do not fit, or a training that failed.
    """
    trainings = Trainings(options.data, options.peers, options.output)
    for name in options.ways:
        one_way(trainings, name, options.minutes)
    if options.page:
        files = {name: options.output / f"{name}.json" for name in WAYS}
        records = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
        write_text(options.page, page(records, json.loads(options.peers.read_text()), command))
        record = {**command.record(), "ways": records}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        run(parse(arguments), command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
