"""How far force constants break translation, periodicity and exchange symmetry before anything is done about it.

    python scripts/benchmarks/law_residuals.py --page results/force_constants/controls.md

Some programs train networks with the squares of these residuals as terms of the loss.  Of every family of models here,
untrained from its profile, and of the potentials that ship, exact force constants of two shipped materials in float64
are compared with the laws that such terms ask for:

    translation    sum_j Phi_ij = 0; and Phi of the crystal that is moved by a vector is Phi
    periodicity    Phi is the same where some atoms are given by their images in other cells
    exchange       Phi_ij^ab = Phi_ji^ba

A table between two marks of the page is replaced, all else on it stays.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import load_config
from data_tools.crystals import Crystal, crystal_of
from data_tools.dataset import CRYSTALS_FILE, resolve_task
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.graphs.batching import build_graph
from experiment.command_line import exit_code
from experiment.model import build
from experiment.phonon_source import shipped
from experiment.provenance import command_of
from experiment.resolve import AVERAGES, with_names
from experiment.trained import load_trained
from models import NEEDS_TRIPLETS
from physics.derivatives import HessianProduct
from physics.force_constants import exchange_asymmetry, sum_rule
from physics.hessian import exact_rows
from scripts.help_defaults import Defaults
from training.device import set_up
from training.files import write_text

PROGRAM = "scripts/benchmarks/law_residuals.py"
ROOT = Path(__file__).resolve().parents[2]
FAMILIES = (
    "schnet", "dimenetpp", "segnn", "graph_attention_transformer", "equivariant_potential", "direct_head",
    "graph_transformer",
)  # fmt: skip
MATERIALS = ("mp-1550", "mp-1784")
OFFSET = (1.234, -0.567, 7.89)  # Angstrom
START, END = "<!-- residuals -->", "<!-- /residuals -->"


class Network(NamedTuple):
    """A model in float64, and what its outputs are multiplied by, eV."""

    name: str
    model: Any
    cutoff: float
    triplets: bool
    scale: float


class Residuals(NamedTuple):
    """The largest of each law, and the largest force constant, eV/Angstrom^2."""

    largest: float
    sums: float
    moved: float
    images: float
    exchange: float


def untrained(family: str, table: StructureTable, changes: list[tuple[str, str]]) -> Network:
    """A family from its profile, with changes, with random weights; its averages are those of some crystals."""
    config = load_config(ROOT / "configs" / family / "crystals.yaml", [("run.dtype", "float64"), *changes])
    task = resolve_task("force_constants")
    config = with_names(config, task)
    set_up("GRAPH", "CPU", 0, seed=0)
    model: Any = config.model
    cutoff = model.cutoff
    graphs = [build_graph(crystal_of(table, row).supercell, cutoff) for row in range(len(table))]
    atoms = sum(len(graph.numbers) for graph in graphs)
    found = dict(zip(AVERAGES, (sum(len(g.senders) for g in graphs) / atoms, atoms / len(graphs)), strict=True))
    averages = {name: found[name] for name in AVERAGES if getattr(model, name, None) == 0}
    config = dataclasses.replace(config, model=dataclasses.replace(model, **averages))
    words = "".join(f" {key}={text}" for key, text in changes)
    return Network(f"{family}{words}, random weights", build(config, task), cutoff, family in NEEDS_TRIPLETS, 1.0)


def trained(path: str) -> Network:
    """A potential that ships."""
    found = load_trained(path, [("run.dtype", "float64")])
    cutoff, name = found.config.model.cutoff, found.config.model.name
    return Network(Path(path).name, found.model, cutoff, name in NEEDS_TRIPLETS, found.normalizer.scale)


def blocks_of(network: Network, product: HessianProduct, structure: Structure, p2s: np.ndarray) -> np.ndarray:
    """(p, n, 3, 3) force constants of the atoms ``p2s``, eV/Angstrom^2."""
    graph = build_graph(structure, network.cutoff, triplets=network.triplets)
    (rows,) = exact_rows(product, [graph], network.cutoff, np.float64, [p2s.tolist()]).arrays()
    return rows.transpose(0, 2, 1, 3) * network.scale


def residuals(network: Network, product: HessianProduct, crystal: Crystal) -> Residuals:
    """Of one crystal."""
    cell = crystal.supercell
    assert cell.cell is not None
    blocks = blocks_of(network, product, cell, crystal.p2s)
    images = np.random.default_rng(0).integers(-2, 3, size=(len(cell.numbers), 3))
    shifted = dataclasses.replace(cell, positions=cell.positions + np.array(OFFSET))
    elsewhere = dataclasses.replace(cell, positions=cell.positions + images @ cell.cell)
    moved, other = (blocks_of(network, product, one, crystal.p2s) for one in (shifted, elsewhere))
    found = dataclasses.replace(crystal, blocks=blocks)
    values = (blocks, sum_rule(blocks), moved - blocks, other - blocks, exchange_asymmetry(found))
    return Residuals(*(float(np.abs(value).max()) for value in values))


def rows_of(table: StructureTable, names: list[str]) -> np.ndarray:
    """Rows of some materials.

    Raises:
        DataError: one is not there.
    """
    place = {name: row for row, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise DataError(f"--materials {missing[0]}: expected one that ships, such as {', '.join(MATERIALS)}")
    return np.array([place[name] for name in names])


def lines(
    families: list[str], changes: list[tuple[str, str]], table: StructureTable, chosen: np.ndarray
) -> Iterator[str]:
    """The rows of the table in Markdown, each as soon as it is known; with changes of the families alone."""
    yield "| model | material | largest force constant | sum over atoms | moved crystal | other images | exchange |"
    yield "|---|---|---|---|---|---|---|"
    sources = [*families, *([] if changes else shipped())]
    for source in sources:
        network = untrained(source, table, changes) if source in FAMILIES else trained(source)
        network.model.set_train(False)
        product = HessianProduct(network.model)
        for row in chosen.tolist():
            crystal = crystal_of(table, row)
            found = residuals(network, product, crystal)
            numbers = " | ".join(f"{value:.1e}" for value in found[1:])
            yield f"| {network.name} | {crystal.name} | {found.largest:.3g} | {numbers} |"


def put(page: Path, table: list[str], start: str = START, end: str = END) -> None:
    """Replace what stands between two marks of a page.

    Raises:
        DataError: the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise DataError(f"{page}: expected {start} and {end} on lines of their own, found others; add them")
    before, after = text[: text.index(start)], text[text.index(end) :]
    write_text(page, f"{before}{start}\n" + "\n".join(table) + f"\n{after}")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES, help="of untrained models")
    parser.add_argument("--materials", nargs="+", default=list(MATERIALS), help="of those that ship")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the profiles of these families")
    parser.add_argument("--page", type=Path, help="Markdown page with the marks of the table")
    command = command_of(PROGRAM, arguments)
    try:
        options = parser.parse_args(arguments)
        changes = [(key, text) for key, _, text in (pair.partition("=") for pair in options.set)]
        table = read_crystal_file(CRYSTALS_FILE).table
        chosen = rows_of(table, options.materials)
        found = []
        for line in lines(options.families, changes, table, chosen):
            print(line, flush=True)
            found.append(line)
        if options.page:
            put(options.page, [*found, "", "```text", command.text, "```"])
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
