"""Approximations of the Hessian of trained potentials: error against the exact one, and cost.

    python scripts/benchmarks/hessian_approximations.py --data runs/phonondb.npz --materials mp-2490 mp-8393 \
        --page results/force_constants/approximations.md

The primitive cell of each material stands for a small crystal.  Costs are counted in products with the Hessian, in
forces or in energies, and in seconds of this machine.  All of it is measured of the first potential; of the others what
one table compares.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
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
from experiment.phonon_source import shipped
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
from training.device import versions
from training.files import write_text

PROGRAM = "scripts/benchmarks/hessian_approximations.py"
PROBES, STEPS = (8, 64, 512), (1e-2, 1e-3, 1e-6)  # Angstrom
FEW_PROBES, FEW_STEPS = (64,), (1e-3,)  # of potentials after the first
RATTLED = 0.05  # Angstrom: where the control J J^T is not zero
MARGIN = 1.3  # edges of displaced structures over those of the structure


EXACT = "exact, float64"


class Row(NamedTuple):
    """One line of the table: what, its error relative to |H|, its cost in words, seconds."""

    words: str
    error: float
    cost: str
    seconds: float


#: by potential: each structure with its lines
Found = dict[str, list[tuple[Structure, list[Row]]]]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", nargs="+", default=shipped(), help="run folders or checkpoints of potentials")
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


def of_products(products: Products, exact: np.ndarray, few: bool) -> list[Row]:
    """What is made of products with the Hessian."""
    rows, size, counts = [], len(exact), FEW_PROBES if few else PROBES
    ranks = sorted({rank for rank in (size // 8, size // 2) if rank})
    cases: list[tuple[str, Callable]] = [
        *((f"diagonal from {count} random signs", lambda n=count: diagonal(products, n, 0)) for count in counts),
        *(
            (f"blocks of atoms from {count} random signs", lambda n=count: block_diagonal(products, n, 0))
            for count in counts
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


def of_surface(surface: Surface, exact: np.ndarray, dtype: str, few: bool) -> list[Row]:
    """What is made of forces and of energies."""
    positions, rows = np.asarray(surface.structure.positions, np.float64), []
    steps = FEW_STEPS if few else STEPS
    for step in steps:
        started = time.perf_counter()
        found = central_differences(lambda at: surface(at)[1], positions, step)
        cost = f"{2 * positions.size} forces"
        words = f"central differences of forces, {step:g} A, {dtype}"
        rows.append(Row(words, Approximation(found, 0).error(exact), cost, time.perf_counter() - started))
    for step in steps:
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


def measure(ckpt: str, structure: Structure, few: bool = False) -> list[Row]:
    """All lines of one structure, or few; float64, and float32 where it is what is measured."""
    trained = load_trained(ckpt, [("run.dtype", "float64")])
    graph = build_graph(structure, trained.config.model.cutoff)
    products, _ = hessian_of(trained, graph, np.float64)
    started = time.perf_counter()
    exact = products.exact()
    rows = [Row(EXACT, 0.0, f"{len(exact)} products", time.perf_counter() - started)]
    rows += of_products(products, exact, few)
    surface = Surface(trained, structure, "float64")
    surface(np.asarray(structure.positions, np.float64)[None])  # compiles
    rows += of_surface(surface, exact, "float64", few) + of_gradient(trained, surface, exact)
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
    return rows + of_surface(surface, exact, "float32", few)


def page(found: Found, command: Command) -> str:
    """The Markdown page."""
    first, used = next(iter(found)), ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Approximations of a Hessian: errors and costs", "",
        "Trained potentials, on primitive cells of materials that they have not seen. Error: |H' - H| / |H| in the "
        "Frobenius norm against the exact Hessian of the same potential in float64; seconds on one CPU, beside other",
        f"programs, without compilation. J is the gradient of the energy. Commit {command.record()['commit']}; {used}.",
        "", "```text", command.text, "```", "",
    ]  # fmt: skip
    if len(found) > 1:
        lines += beside_each_other(found)
    for structure, rows in found[first]:
        lines += [
            f"## {structure.name}, {len(structure.numbers)} atoms, {first}", "",
            "| method | error | cost | seconds |", "|---|---|---|---|",
            *(f"| {row.words} | {row.error:.2g} | {row.cost} | {row.seconds:.2g} |" for row in rows), "",
        ]  # fmt: skip
    return "\n".join(lines)


def beside_each_other(found: Found) -> list[str]:
    """The errors of what was measured of every potential: a line for each material and method."""
    lines = [
        "## All potentials: errors", "",
        f"| material | method | {' | '.join(found)} |", "|---" * (len(found) + 2) + "|",
    ]  # fmt: skip
    for ofs in zip(*found.values(), strict=True):
        errors = [{row.words: row.error for row in rows} for _, rows in ofs]
        for words in (words for words in errors[-1] if all(words in one for one in errors) and words != EXACT):
            shown = " | ".join(f"{one[words]:.2g}" for one in errors)
            lines.append(f"| {ofs[0][0].name} | {words} | {shown} |")
    return [*lines, ""]


def run(options: argparse.Namespace, command: Command) -> None:
    """Measure, print, write.

    Raises:
        DataError, ConfigError: a file that does not fit.
    """
    table = read_crystal_file(options.data).table
    rows = rows_of(table, options.materials)
    names = [Path(ckpt).name for ckpt in options.ckpt]
    if len(set(names)) < len(names):  # of several run folders
        names = options.ckpt
    found: Found = {name: [] for name in names}
    for ckpt, (name, measured) in zip(options.ckpt, found.items(), strict=True):
        for crystal in crystals_of(select_rows(table, rows), np.arange(len(rows))):
            structure = primitive(crystal)
            measured.append((structure, measure(ckpt, structure, few=name != names[0])))
            for row in measured[-1][1]:
                cost = f"{row.cost}, {row.seconds:.3g} s"
                print(f"{name} {crystal.name} {row.words}: {row.error:.3g}, {cost}", flush=True)
    if options.page:
        write_text(options.page, page(found, command))
        cases = {
            name: {structure.name: [row._asdict() for row in rows] for structure, rows in measured}
            for name, measured in found.items()
        }
        record = {**command.record(), "versions": versions(), "cases": cases}
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
