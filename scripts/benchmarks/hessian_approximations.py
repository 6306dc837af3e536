"""Approximations of the Hessian of a trained potential: error against the exact one, and cost.

    python scripts/benchmarks/hessian_approximations.py --ckpt data_tools/samples/phonons_1.safetensors \
        --data runs/phonondb.npz --materials mp-2490 mp-8393 --page results/force_constants/approximations.md

The primitive cell of each material stands for a small crystal.  Costs are counted in products with the Hessian, in
forces or in energies, and in seconds of this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np
from mindspore import Tensor

from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import AtomGraph, Structure
from data_tools.graphs.batching import build_graph, join, pad
from data_tools.graphs.budgets import choose_budgets
from data_tools.graphs.probes import sizes_of
from data_tools.tables import select_rows
from experiment.command_line import exit_code
from experiment.evaluation.second_derivatives import crystals_of
from experiment.provenance import Command, command_of
from experiment.trained import Trained, load_trained
from physics.approximations import (
    AT_ONCE,
    Approximation,
    Products,
    block_diagonal,
    diagonal,
    energy_differences,
    low_rank,
    outer_product,
)
from physics.derivatives import EnergyAndForces, HessianProduct
from scripts.benchmarks.judge_potentials import rows_of
from scripts.benchmarks.relaxed_cells import primitive
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/hessian_approximations.py"
PROBES, STEPS = (8, 64, 512), (1e-2, 1e-3, 1e-6)  # Angstrom
RATTLED = 0.05  # Angstrom: where the control J J^T is not zero
MARGIN = 1.3  # edges of displaced structures over those of the structure


class Row(NamedTuple):
    """One line of the table: what, its error relative to |H|, its cost in words, seconds."""

    words: str
    error: float
    cost: str
    seconds: float


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", required=True, help="run folder or checkpoint of a potential")
    parser.add_argument("--data", type=Path, required=True, help="packed file with the materials")
    parser.add_argument("--materials", nargs="+", required=True, help="their names")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


class Surface:
    """Energies and forces of displaced copies of one structure, in batches of one shape.

    Args:
        trained: the potential.
        structure: a crystal.
        dtype: ``float32`` or ``float64``, as the potential has been loaded.
    """

    def __init__(self, trained: Trained, structure: Structure, dtype: str):
        self.derive, self.structure = EnergyAndForces(trained.model), structure
        self.cutoff, self.dtype = trained.config.model.cutoff, np.dtype(dtype).type
        self.scale = trained.normalizer.scale
        sizes = AT_ONCE * sizes_of([build_graph(structure, self.cutoff)])
        sizes[:, 1] = np.ceil(MARGIN * sizes[:, 1])
        (self.budget,) = choose_budgets(sizes, AT_ONCE, 1, triplets=True)

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (K, N, 3) to energies (K,) eV, without a constant, and forces (K, N, 3) eV/Angstrom."""
        energies, forces, atoms = [], [], positions.shape[1]
        for start in range(0, len(positions), AT_ONCE):
            part = positions[start : start + AT_ONCE]
            graphs = [build_graph(replace(self.structure, positions=one), self.cutoff) for one in part]
            inputs = pad(join(graphs), self.budget, self.cutoff, self.dtype).inputs
            values, slopes = self.derive(*(Tensor.from_numpy(array) for array in inputs))
            energies.append(values.asnumpy()[: len(part)].astype(np.float64))
            forces.append(slopes.asnumpy()[: len(part) * atoms].reshape(part.shape).astype(np.float64))
        return self.scale * np.concatenate(energies), self.scale * np.concatenate(forces)


def central_differences(forces: Callable[[np.ndarray], np.ndarray], positions: np.ndarray, step: float) -> np.ndarray:
    """-(F(r + h e) - F(r - h e)) / 2 h for every column e, (3 N, 3 N)."""
    size = positions.size
    moves = step * np.eye(size).reshape(size, *positions.shape)
    ends = forces(np.concatenate((positions + moves, positions - moves)))
    return -(ends[:size] - ends[size:]).reshape(size, size) / (2 * step)


def of_products(products: Products, exact: np.ndarray) -> list[Row]:
    """What is made of products with the Hessian."""
    rows, size = [], len(exact)
    ranks = sorted({rank for rank in (size // 8, size // 2) if rank})
    cases: list[tuple[str, Callable]] = [
        *((f"diagonal from {count} random signs", lambda n=count: diagonal(products, n, 0)) for count in PROBES),
        *(
            (f"blocks of atoms from {count} random signs", lambda n=count: block_diagonal(products, n, 0))
            for count in PROBES
        ),
        *(
            (f"largest {rank} of {size} eigenvalues, Lanczos", lambda n=rank: low_rank(products, n, 0))
            for rank in ranks
        ),
    ]
    for words, make in cases:
        started = time.perf_counter()
        found = make()
        rows.append(Row(words, found.error(exact), f"{found.products} products", time.perf_counter() - started))
    diagonals = np.diag(np.diag(exact))
    rows.append(Row("the exact diagonal alone, for comparison", Approximation(diagonals, 0).error(exact), "", 0.0))
    return rows


def of_surface(surface: Surface, exact: np.ndarray, dtype: str) -> list[Row]:
    """What is made of forces and of energies."""
    positions, rows = np.asarray(surface.structure.positions, np.float64), []
    for step in STEPS:
        started = time.perf_counter()
        found = central_differences(lambda at: surface(at)[1], positions, step)
        cost = f"{2 * positions.size} forces"
        words = f"central differences of forces, {step:g} A, {dtype}"
        rows.append(Row(words, Approximation(found, 0).error(exact), cost, time.perf_counter() - started))
    for step in STEPS:
        started = time.perf_counter()
        four = energy_differences(lambda at: surface(at)[0], positions, step)
        words = f"control: four energies for each element, {step:g} A, {dtype}"
        rows.append(Row(words, four.error(exact), f"{four.products} energies", time.perf_counter() - started))
    return rows


def of_gradient(trained: Trained, surface: Surface, exact: np.ndarray) -> list[Row]:
    """The control J J^T at the published structure, and beside the exact Hessian of a displaced one."""
    positions = np.asarray(surface.structure.positions, np.float64)
    moved = positions + RATTLED * np.random.default_rng(0).normal(size=positions.shape)
    rows = []
    for words, place in (("at the structure", positions), (f"atoms displaced by {RATTLED} A", moved)):
        started = time.perf_counter()
        gradient = -surface(place[None])[1][0]
        seconds = time.perf_counter() - started
        graph = build_graph(replace(surface.structure, positions=place), surface.cutoff)
        truth = exact if place is positions else hessian_of(trained, graph, surface.dtype)[1]
        found = outer_product(gradient)
        rows.append(Row(f"control: J J^T, {words}", found.error(truth), "1 gradient", seconds))
    return rows


def hessian_of(trained: Trained, graph: AtomGraph, dtype: type) -> tuple[Products, np.ndarray]:
    """Products with a Hessian, and all of it in eV/Angstrom^2."""
    products = Scaled(
        trained.normalizer.scale, HessianProduct(trained.model), graph, trained.config.model.cutoff, dtype
    )
    return products, products.exact()


class Scaled(Products):
    """Products in eV/Angstrom^2."""

    def __init__(self, scale: float, *arguments: object):
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.scale = scale

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """Fields (K, N, 3) to products (K, N, 3)."""
        return self.scale * super().__call__(fields)


def measure(ckpt: str, structure: Structure) -> list[Row]:
    """All lines of one structure; float64, and float32 where it is what is measured."""
    trained = load_trained(ckpt, [("run.dtype", "float64")])
    graph = build_graph(structure, trained.config.model.cutoff)
    products, _ = hessian_of(trained, graph, np.float64)
    started = time.perf_counter()
    exact = products.exact()
    rows = [Row("exact, float64", 0.0, f"{len(exact)} products", time.perf_counter() - started)]
    rows += of_products(products, exact)
    surface = Surface(trained, structure, "float64")
    surface(np.asarray(structure.positions, np.float64)[None])  # compiles
    rows += of_surface(surface, exact, "float64") + of_gradient(trained, surface, exact)
    single = load_trained(ckpt, [("run.dtype", "float32")])
    products, _ = hessian_of(single, graph, np.float32)
    started = time.perf_counter()
    found = products.exact()
    rows.append(
        Row(
            "exact, float32",
            Approximation(found, 0).error(exact),
            f"{len(exact)} products",
            time.perf_counter() - started,
        )
    )
    surface = Surface(single, structure, "float32")
    surface(np.asarray(structure.positions, np.float64)[None])
    return rows + of_surface(surface, exact, "float32")


def page(found: Sequence[tuple[Structure, list[Row]]], command: Command) -> str:
    """The Markdown page."""
    lines = [
        "# Approximations of a Hessian: errors and costs",
        "",
        "A trained potential, on primitive cells of materials that it has not seen. Error: |H' - H| / |H| in the "
        "Frobenius norm against the exact Hessian in float64; seconds on one CPU, beside other programs, without "
        "compilation. J is the gradient of the energy.",
        "",
        "```text",
        command.text,
        "```",
        "",
    ]
    for structure, rows in found:
        lines += [
            f"## {structure.name}, {len(structure.numbers)} atoms", "",
            "| method | error | cost | seconds |", "|---|---|---|---|",
            *(f"| {row.words} | {row.error:.2g} | {row.cost} | {row.seconds:.2g} |" for row in rows), "",
        ]  # fmt: skip
    return "\n".join(lines)


def run(options: argparse.Namespace, command: Command) -> None:
    """Measure, print, write.

    Raises:
        DataError, ConfigError: a file that does not fit.
    """
    table = read_crystal_file(options.data).table
    rows = rows_of(table, options.materials)
    found = []
    for crystal in crystals_of(select_rows(table, rows), np.arange(len(rows))):
        found.append((primitive(crystal), measure(options.ckpt, primitive(crystal))))
        for row in found[-1][1]:
            print(f"{crystal.name} {row.words}: {row.error:.3g}, {row.cost}, {row.seconds:.3g} s", flush=True)
    if options.page:
        write_text(options.page, page(found, command))
        cases = {structure.name: [row._asdict() for row in rows] for structure, rows in found}
        write_text(options.page.with_suffix(".json"), json.dumps({**command.record(), "cases": cases}, indent=1) + "\n")


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
