"""How far the predictions of a trained model change when the structures are rotated, reflected or inverted."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("turned_predictions.py is a part of geometries.py: see python scripts/benchmarks/geometries.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import dataclasses
from pathlib import Path

import numpy as np

from data_tools.graph import StructureTable
from data_tools.graphs.packed import pack
from data_tools.graphs.rotations import random_rotations
from data_tools.tables import select_rows
from experiment.data import DTYPES, open_packed
from experiment.evaluation.evaluator import Evaluator
from experiment.trained import load_trained

TURNS = ("rotated", "reflected", "inverted")


def largest_differences(folder: Path, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Largest |prediction of the turned structure / prediction - 1|, by precision and turn.

    Args:
        folder: run of a model of one target of molecules.
        rows: (M,) of its data, each of which is turned by a matrix of its own.
    """
    found: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        trained = load_trained(folder, [("run.dtype", dtype)])
        table = select_rows(open_packed(trained.config).table, rows)
        values = {name: _predicted(trained, turned(table, name), dtype) for name in ("", *TURNS)}
        found[dtype] = {name: float(np.abs(values[name] / values[""] - 1).max()) for name in TURNS}
    return found


def turned(table: StructureTable, turn: str) -> StructureTable:
    """The molecules of a table, each turned at random; inverted: at the origin; "": as they are."""
    matrices = np.tile(-np.eye(3) if turn == "inverted" else np.eye(3), (len(table), 1, 1))
    if turn in ("rotated", "reflected"):
        matrices = random_rotations(0, np.arange(len(table)), np.full(len(table), TURNS.index(turn)))
        wrong = (np.linalg.det(matrices) < 0) != (turn == "reflected")
        matrices[wrong] *= -1
    of_atoms = np.repeat(matrices, table.n_atoms, axis=0)
    return dataclasses.replace(table, positions=np.einsum("kab,kb->ka", of_atoms, table.positions))


def _predicted(trained, table: StructureTable, dtype: str) -> np.ndarray:
    packed, rows = pack(table, trained.config.model.cutoff), np.arange(len(table))
    batch_size = trained.config.training.eval_batch_size
    return Evaluator(trained.model, packed, [rows], trained.normalizer, batch_size, dtype)(rows).values
