"""Force constants of a potential whose trunk computes in float16 while derivatives are taken in float64.

    python scripts/benchmarks/float16_force_constants.py --ckpt data_tools/samples/phonons_1.safetensors \
        --page results/force_constants/float16.md

A CPU has no fast float16, so it is emulated: numbers of the trunk are rounded to float16 and carried in float64.  The
trunk are the layers: their weights, and of each layer features, radial functions, harmonics, every message of an edge,
sums over neighbours, linear maps and gates, each rounded once, while sums and products inside of them are wide, as in a
matrix unit.  Geometry, radial basis, energies of pairs, readout and the sum of energies are float64.  A derivative goes
through a rounding as if it were not there (its own derivative is 0 nearly everywhere), so that first and second
derivatives are float64 arithmetic with factors that are float16 numbers; another form rounds them, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import json

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.dataset import CRYSTALS_FILE
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, StructureTable
from data_tools.tables import select_rows
from experiment.command_line import exit_code
from experiment.evaluation.second_derivatives import crystals_of
from experiment.provenance import Command, command_of
from experiment.trained import load_trained
from physics.checks import check_blocks
from physics.phonons import mesh_frequencies
from scripts.benchmarks.judge_potentials import predicted, rows_of
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/float16_force_constants.py"
EXACT, SINGLE, WEIGHTS, TRUNK, WHOLE = "float64", "float32", "weights", "trunk", "whole"
FORMS = {
    EXACT: "float64",
    SINGLE: "float32",
    WEIGHTS: "float16 weights of the trunk, else float64",
    TRUNK: "float16 trunk, derivatives in float64",
    WHOLE: "float16 trunk, derivatives rounded to float16 too",
}
LAWS = ("acoustic", "exchange", "space_group")  # names of ``physics.checks``
#: those of the test materials of results/force_constants/test.txt that ship
MATERIALS = ("mp-25", "mp-1958", "mp-2490", "mp-8393", "mp-9819", "mp-23295", "mp-675100", "mp-866696")


class Rounded(nn.Cell):
    """To float16 and back; derivatives pass unchanged, or are rounded themselves, a given number of times.

    Args:
        derivatives: how many orders of derivatives are rounded.
    """

    def __init__(self, derivatives: int = 0):
        super().__init__(auto_prefix=False)
        self.backwards: Any = Rounded(derivatives - 1) if derivatives else None

    def construct(self, x: Tensor) -> Tensor:
        """Any shape."""
        return ops.cast(ops.cast(x, mstype.float16), x.dtype)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """As of y = x."""
        return (dout if self.backwards is None else self.backwards(dout),)


class Between(nn.Cell):
    """A cell whose arguments, those that are numbers, and whose results are rounded.

    Args:
        cell: it.
        rounded: the rounding.
        given: how many of its arguments, from the first, are rounded.
    """

    def __init__(self, cell: nn.Cell, rounded: Rounded, given: int = 1):
        super().__init__(auto_prefix=False)
        self.cell, self.rounded, self.given = cell, rounded, given

    def construct(self, *arguments):
        """As the cell."""
        words: tuple = ()
        for k in range(len(arguments)):
            words = (*words, self.of(arguments[k]) if k < self.given else arguments[k])
        return self.of(self.cell(*words))

    def of(self, value):
        """A tensor, or each of several."""
        if isinstance(value, tuple):
            parts: tuple = ()
            for part in value:
                parts = (*parts, self.of(part))
            return parts
        return self.rounded(value)


class Errors(NamedTuple):
    """Of the force constants of one material.

    Attributes:
        frobenius: |Phi' - Phi| / |Phi|.
        acoustic, exchange, space_group: relative residuals, see ``physics.checks``.
        mean_frequency, worst_frequency: absolute differences on a mesh, THz.
    """

    frobenius: float
    acoustic: float
    exchange: float
    space_group: float
    mean_frequency: float
    worst_frequency: float


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", required=True, help="run folder or checkpoint of an equivariant_potential")
    parser.add_argument("--data", type=Path, default=CRYSTALS_FILE, help="packed file with the materials")
    parser.add_argument("--materials", nargs="+", default=list(MATERIALS), help="their names")
    parser.add_argument(
        "--forms", nargs="+", choices=list(FORMS)[1:], default=list(FORMS)[1:], help="of the arithmetic"
    )
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def round_weights(network: Any) -> None:
    """The weights of the layers, to float16."""
    for parameter in network.layers.get_parameters():
        values = parameter.asnumpy()
        parameter.set_data(Tensor(values.astype(np.float16).astype(values.dtype)))


def round_trunk(network: Any, derivatives: int) -> None:
    """Every step of the layers, see the top of the file."""
    rounded = Rounded(derivatives)
    for place in range(len(network.layers)):
        layer = network.layers[place]
        layer.sum.kernel = None  # makes no single messages
        layer.sum.product = Between(layer.sum.product, rounded, 0)
        layer.sum = Between(layer.sum, rounded, 3)  # of features, harmonics, radial functions
        for name in ("product", "mix", "stay", "element", "gate", "invariants"):
            if getattr(layer, name) is not None:
                setattr(layer, name, Between(getattr(layer, name), rounded))
        network.layers[place] = Between(layer, rounded, 2)


def force_constants(ckpt: str, table: StructureTable, form: str) -> list[np.ndarray]:
    """(p, n, 3, 3) eV/Angstrom^2 of every crystal.

    Raises:
        ConfigError: another model.
        DataError: a number that is not finite, as where float16 overflows.
    """
    dtype = "float32" if form == SINGLE else "float64"
    trained = load_trained(ckpt, [("run.dtype", dtype)])
    if trained.config.model.name != "equivariant_potential":
        raise ConfigError(f"--ckpt {ckpt}: expected an equivariant_potential, got a {trained.config.model.name}")
    if form in (WEIGHTS, TRUNK, WHOLE):
        round_weights(trained.model.network)
    if form in (TRUNK, WHOLE):
        round_trunk(trained.model.network, 2 if form == WHOLE else 0)
    blocks, _ = predicted(trained, table, dtype)
    if not all(np.isfinite(one).all() for one in blocks):
        raise DataError(f"{FORMS[form]}: expected finite force constants, got an overflow; choose other --forms")
    return blocks


def errors_of(crystal: Crystal, blocks: np.ndarray, exact: np.ndarray) -> Errors:
    """Of one material, beside exact blocks."""
    found, reference = replace(crystal, blocks=blocks), replace(crystal, blocks=exact)
    laws = {check.name: check.relative for check in check_blocks(found)}
    moved = np.abs(mesh_frequencies(found).frequencies - mesh_frequencies(reference).frequencies)
    size = float(np.linalg.norm(blocks - exact) / np.linalg.norm(exact))
    acoustic, exchange, space_group = (laws[name] for name in LAWS)
    return Errors(size, acoustic, exchange, space_group, float(moved.mean()), float(moved.max()))


def page(crystals: Sequence[Crystal], found: Mapping[str, list[Errors]], beside: list[float], command: Command) -> str:
    """The Markdown page."""
    head = ["arithmetic", "relative Frobenius", "sum rule", "exchange", "space group", "mean frequency, THz"]
    head.append("worst frequency, THz")
    error = f"{np.median(beside):.2g}"
    lines = [INTRODUCTION.format(command=command.text, count=len(crystals), error=error), *_heading(head)]
    for form, rows in found.items():
        several = np.array(rows)
        cells = [f"{np.median(column):.1e} / {column.max():.1e}" for column in several.T[:-1]]
        lines.append(_line([FORMS[form], *cells, f"{several[:, -1].max():.1e}"]))
    if TRUNK in found:
        head = [
            "material",
            "atoms",
            "relative Frobenius",
            "space group",
            "worst frequency, THz",
            "potential beside DFT",
        ]
        lines += ["", f"{FORMS[TRUNK]}, by material:", "", *_heading(head)]
        for crystal, row, error_of in zip(crystals, found[TRUNK], beside, strict=True):
            cells = [f"{value:.1e}" for value in (row.frobenius, row.space_group, row.worst_frequency)]
            lines.append(_line([crystal.name, f"{crystal.n_atoms}", *cells, f"{error_of:.2g}"]))
    return "\n".join(lines) + "\n"


def _heading(cells: list[str]) -> list[str]:
    return [_line(cells), "|" + "---|" * len(cells)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


INTRODUCTION = """# Force constants of a float16 trunk with float64 derivatives

A trained potential on {count} materials that it has not seen, beside its own exact force constants in float64.

```text
{command}
```

float16 is emulated: the weights of the layers, and of each layer features, radial functions, harmonics, the message of
every edge, sums over neighbours, linear maps and gates, are rounded to float16, once each, and carried in float64, as
where sums are wide. Geometry, radial basis, energies of pairs and the readout are float64. Derivatives go through a
rounding unchanged, so that they are float64 arithmetic with factors that are float16 numbers; in the last form they are
rounded at the same places, in first and second order.

Median / largest of the materials. Residuals of the laws are relative norms
([physics/README.md](../../physics/README.md)), frequencies are those of a mesh of 6 x 6 x 6 points. For comparison:
the relative error of the potential beside DFT is {error} (median).
"""


def run(options: argparse.Namespace, command: Command) -> None:
    """Measure, print, write.

    Raises:
        DataError, ConfigError: a file that does not fit.
    """
    table = read_crystal_file(options.data).table
    table = select_rows(table, rows_of(table, options.materials))
    crystals = crystals_of(table, np.arange(len(table)))
    exact = force_constants(options.ckpt, table, EXACT)
    beside = [
        float(np.linalg.norm(one - crystal.blocks) / np.linalg.norm(crystal.blocks))
        for crystal, one in zip(crystals, exact, strict=True)
    ]
    found: dict[str, list[Errors]] = {}
    for form in (EXACT, *options.forms):
        blocks = exact if form == EXACT else force_constants(options.ckpt, table, form)
        found[form] = [errors_of(*three) for three in zip(crystals, blocks, exact, strict=True)]
        for crystal, row in zip(crystals, found[form], strict=True):
            words = ", ".join(f"{name} {value:.2e}" for name, value in row._asdict().items())
            print(f"{FORMS[form]}, {crystal.name}: {words}", flush=True)
    if options.page:
        write_text(options.page, page(crystals, found, beside, command))
        names = [crystal.name for crystal in crystals]
        cases = {form: dict(zip(names, (row._asdict() for row in rows), strict=True)) for form, rows in found.items()}
        record = {**command.record(), "forms": FORMS, "errors": cases, "beside_dft": beside}
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
