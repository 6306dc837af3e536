"""CPU time of the force constants of many materials, exact or by finite displacements, with the same potential.

    python scripts/benchmarks/material_times.py --data runs/phonondb.npz --method exact

Exact: all rows of the atoms of the primitive cell, 3 p products of the Hessian, without any symmetry.  Displacements:
forces of phonopy's displaced supercells, as few as the space group allows, from which its solver makes the rest.
Products: exact products along the same displacements in the place of these forces.  All materials are one stream of
batches, so that they share a few compiled shapes; it is computed twice, and compiles nothing the second time.  Prints
JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np
from mindspore import Tensor

from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import AtomGraph
from data_tools.graphs.batching import build_graph, pad
from data_tools.graphs.probes import batches_of_probes, ragged_of, sizes_of
from experiment.command_line import exit_code
from experiment.phonon_source import shipped
from experiment.trained import load_calculator
from physics.calculator import Calculator
from physics.finite_displacements import Displaced, blocks_of_forces, displaced_cells
from physics.hessian import COMPILATION, EDGES_AT_ONCE, exact_rows
from scripts.benchmarks.check_configs import memory
from scripts.benchmarks.judge_potentials import rows_of
from scripts.help_defaults import Defaults
from training.step import to_tensors

TEST = Path(__file__).resolve().parents[2] / "results" / "force_constants" / "test.txt"


def materials_of(data: Path, names: Sequence[str]) -> list[Crystal]:
    """These materials of a packed file, in their order.

    Raises:
        DataError: no such file, or one of them is not there.
    """
    table = read_crystal_file(data).table
    return [crystal_of(table, row) for row in rows_of(table, names).tolist()]


def exact(calculator: Calculator, crystals: Sequence[Crystal]) -> list[np.ndarray]:
    """Compact force constants (p, n, 3, 3) of every crystal, eV/Angstrom^2."""
    graphs = [build_graph(crystal.supercell, calculator.cutoff) for crystal in crystals]
    atoms = [crystal.p2s.tolist() for crystal in crystals]
    rows = exact_rows(calculator.product, graphs, calculator.cutoff, calculator.dtype, atoms).arrays()
    return [one.transpose(0, 2, 1, 3) * calculator.normalizer.scale for one in rows]


def stream(
    calculator: Calculator, graphs: Sequence[AtomGraph], owners: np.ndarray, fields: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Forces, or products of the Hessian with fields, one structure after the other: (sum of n, 3) in eV and Angstrom.

    Args:
        calculator: of the potential.
        graphs: M of them.
        owners: (P,) the graphs to compute, a graph as often as it stands there.
        fields: P displacements (n, 3) in Angstrom; none: forces.
    """
    found = []
    for part, budget in batches_of_probes(sizes_of(graphs), owners, EDGES_AT_ONCE, COMPILATION):
        ragged = ragged_of(graphs, owners[part])
        count = int(ragged.n_atoms.sum())
        tensors = to_tensors(pad(ragged, budget, calculator.cutoff, calculator.dtype).inputs)
        if fields:
            probe = np.zeros((budget.nodes, 3), calculator.dtype)
            probe[:count] = np.concatenate(fields[part])
            values = calculator.product(*tensors, Tensor.from_numpy(probe))
        else:
            values = calculator.energy_and_forces(*tensors)[1]
        found.append(values.asnumpy()[:count])
    return np.concatenate(found) * calculator.normalizer.scale


def solved(crystals: Sequence[Crystal], displaced: Sequence[Displaced], forces: np.ndarray) -> list[np.ndarray]:
    """Force constants of every crystal from the forces of its displaced supercells, which follow each other."""
    ends = np.cumsum([cells.positions[..., 0].size for cells in displaced])
    return [
        blocks_of_forces(crystal, cells, part.reshape(cells.positions.shape), symmetrisations=0)
        for crystal, cells, part in zip(crystals, displaced, np.split(forces, ends[:-1]), strict=True)
    ]


def by_displacements(calculator: Calculator, crystals: Sequence[Crystal]) -> list[np.ndarray]:
    """The same as ``exact``, from differences of forces."""
    displaced = [displaced_cells(crystal) for crystal in crystals]
    graphs = [
        build_graph(dataclasses.replace(crystal.supercell, positions=positions), calculator.cutoff)
        for crystal, cells in zip(crystals, displaced, strict=True)
        for positions in cells.positions
    ]
    return solved(crystals, displaced, stream(calculator, graphs, np.arange(len(graphs))))


def by_products(calculator: Calculator, crystals: Sequence[Crystal]) -> list[np.ndarray]:
    """The same from exact products along phonopy's displacements."""
    displaced = [displaced_cells(crystal) for crystal in crystals]
    graphs = [build_graph(crystal.supercell, calculator.cutoff) for crystal in crystals]
    owners = np.repeat(np.arange(len(crystals)), [len(cells.atoms) for cells in displaced])
    fields = [
        positions - crystal.supercell.positions
        for crystal, cells in zip(crystals, displaced, strict=True)
        for positions in cells.positions
    ]
    return solved(crystals, displaced, -stream(calculator, graphs, owners, fields))


WAYS: dict[str, Callable[[Calculator, Sequence[Crystal]], list[np.ndarray]]] = {
    "exact": exact, "displacements": by_displacements, "products": by_products,
}  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds a material, with compilation and without; the force constants go to a file.

    Raises:
        DataError, CheckpointError: files that do not fit.
    """
    names = options.materials.read_text(encoding="utf-8").split()
    crystals, calculator = materials_of(options.data, names), load_calculator(options.ckpt, dtype="float64")
    seconds = []
    for _ in range(2):
        started = time.process_time()
        blocks = WAYS[options.method](calculator, crystals)
        seconds.append((time.process_time() - started) / len(crystals))
    if options.output:
        np.savez(options.output, *blocks)
    return {"cpu_seconds": seconds[0], "cpu_seconds_compiled": seconds[1], "memory_gib": memory()}


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="packed file of scripts/prepare_crystals.py")
    parser.add_argument("--method", choices=tuple(WAYS), required=True)
    parser.add_argument("--ckpt", default=shipped()[0], help="run folder or checkpoint")
    parser.add_argument("--materials", type=Path, default=TEST, help="text file with their names")
    parser.add_argument("--output", type=Path, help="file for the force constants, .npz")
    try:
        print(json.dumps(measure(parser.parse_args(arguments))))
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
