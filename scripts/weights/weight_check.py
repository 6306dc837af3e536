"""Comparison of a converted model with a parity file: outputs, forces, block outputs and parameter gradients.

A parity file (.npz; ``scripts/peers/peer_schnet.py golden`` writes one) holds molecules ``z``, ``pos``, ``batch``,
their edges (``edge_index`` with rows neighbour, centre; or ``idx_j``, ``idx_i``) and what the original computes:
``out64``, ``forces64`` = -d(sum of out)/d pos, ``h64/<module>``, ``grad64/<parameter>`` = d(sum of out *
``out_cotangent``)/d parameter, and the same in float32.

A difference is max|ours - theirs| / max|theirs| against the float64 array; the divisor of a gradient is never less than
a share of the largest gradient of all, because a bias that cannot matter has gradient 0.  Tolerances:

    float64:  1e-9.
    float32:  FLOOR + PEER_FACTOR * (what the original itself loses in float32 on the same array).  Both are there for
              MindSpore's float32 exponential, which is good to 4e-6 on a CPU (torch's: 6e-8) and alone makes the
              activations err about ten times as much.  Parity files hold no float32 gradients, so for these there is
              a fixed tolerance.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("weight_check.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from data_tools.labels.statistics import Normalizer
from models.e3.irreps import Irreps
from models.e3.layout import channels_last
from scripts.weights.parity_file import Golden, numbers_of
from scripts.weights.weight_files import read_arrays
from scripts.weights.weight_source import Counts, Source

BITS = {64: np.float64, 32: np.float32}
FLOAT64_TOLERANCE = 1e-9
PEER_FACTOR, FLOOR, GRADIENT_TOLERANCE_32 = 10.0, 1e-5, 1e-4
POSITIONS = 2  # argument of the differentiated function, after cotangent and numbers
GRADIENTS_SHOWN = 4  # the worst ones, in the table
SMALL_GRADIENT = {64: 1e-5, 32: 1e-2}  # share of the largest gradient that divides a smaller one
REFERENCES = "references"  # energies of the free atoms, kept in the normaliser


@dataclass(frozen=True)
class Difference:
    """One compared array.

    Attributes:
        kind: outputs, forces, blocks or gradients.
        name: key in the parity file.
        mode: MindSpore's mode.
        bits: 64 or 32.
        value: relative difference.
        tolerance: what is accepted.
    """

    kind: str
    name: str
    mode: str
    bits: int
    value: float
    tolerance: float

    @property
    def accepted(self) -> bool:
        """False for a NaN too."""
        return self.value <= self.tolerance


@dataclass(frozen=True)
class Evaluation:
    """What one model computes from the molecules of a parity file, in the file's units and order.

    ``blocks`` are the outputs of its cells by their names, ghosts included; ``irreps`` are those of its features.
    """

    outputs: np.ndarray
    forces: np.ndarray
    blocks: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    irreps: Irreps


def evaluate(model: nn.Cell, golden: Golden, normalizer: Normalizer, cells: Collection[str], dtype: type) -> Evaluation:
    """Run a model on a parity file's molecules in the current mode; what its cells return is always PYNATIVE's."""
    inputs = tuple(Tensor(array) for array in golden.batch(dtype).inputs)
    parameters = list(model.trainable_params())

    def weighted(cotangent, *arguments):
        output = model(*arguments)
        return (output * cotangent).sum(), output

    derive = ms.value_and_grad(weighted, POSITIONS, parameters, has_aux=True)
    graphs, nodes = len(golden.n_atoms), len(golden.arrays["z"])
    weights = golden.cotangent()
    ones, cotangent = np.zeros((2, graphs + 1, *weights.shape[1:]))
    ones[:graphs], cotangent[:graphs] = 1.0, weights
    (_, output), (slope, _) = derive(Tensor(ones.astype(dtype)), *inputs)
    _, (_, gradients) = derive(Tensor(cotangent.astype(dtype)), *inputs)
    named = {
        parameter.name: normalizer.scale * gradient.asnumpy().astype(np.float64)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    }
    # the energies of free atoms are no parameters of ours; y is linear in them (see Normalizer)
    share = weights / golden.n_atoms if normalizer.average else weights
    return Evaluation(
        outputs=_in_their_units(normalizer, output.asnumpy()[:graphs], golden.counts),
        forces=-normalizer.scale * slope.asnumpy()[:nodes].astype(np.float64),
        blocks=outputs_of_cells(model, inputs, cells),
        gradients=named | {REFERENCES: golden.counts.T @ share},
        irreps=getattr(model.network, "irreps", Irreps()),
    )


def outputs_of_cells(model: nn.Cell, inputs: tuple[Tensor, ...], names: Collection[str]) -> dict[str, np.ndarray]:
    """What cells of a model return, by their names, ghosts included; ``name:k`` is the k-th of several results.

    Hooks read it, which MindSpore calls in PYNATIVE mode alone.
    """
    found: dict[str, np.ndarray] = {}

    def keep(name: str, place: str) -> Callable:
        def hook(cell: nn.Cell, arguments: tuple, result: Any) -> None:
            found[name] = (result[int(place)] if place else result).asnumpy().astype(np.float64)

        return hook

    before, cells = ms.get_context("mode"), dict(model.cells_and_names())
    wanted = [(name, *name.partition(":")[::2]) for name in names]
    hooks = [cells[cell].register_forward_hook(keep(name, place)) for name, cell, place in wanted]
    try:
        ms.set_context(mode=ms.PYNATIVE_MODE)
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        ms.set_context(mode=before)
    return found


def compare(
    found: Evaluation, golden: Golden, source: Source, counts: Counts, mode: str, bits: int
) -> list[Difference]:
    """Differences of every array that both sides have; ``counts`` are those of ``Source.names``."""
    arrays = golden.arrays
    rows = [_difference("outputs", "out", found.outputs, golden, mode, bits)]
    if "forces64" in arrays:
        rows.append(_difference("forces", "forces", found.forces, golden, mode, bits))
    for name, (cell, kind) in source.observed(counts).items():
        rows_of = "node" if kind == "feature" else kind
        if file_key(name, 64) in arrays and rows_of in golden.places:
            values = golden.real(rows_of, found.blocks[cell])
            if kind == "feature":
                values = values[:, np.argsort(channels_last(found.irreps))]
            rows.append(_difference("blocks", name, values, golden, mode, bits, rows_of))
    return rows + _gradient_differences(found, golden, source, counts, mode, bits)


def not_compared(golden: Path, rows: list[Difference]) -> list[str]:
    """Results in a parity file that have no counterpart here: they must not pass for verified."""
    compared = {row.name for row in rows} | {row.name.replace("32", "64", 1) for row in rows}
    results = re.compile(r"(out|forces|rep)64|(h64|grad64)/.*")
    return sorted(key for key in read_arrays(golden) if results.fullmatch(key) and key not in compared)


def file_key(name: str, bits: int) -> str:
    """``h/lin1`` is ``h64/lin1`` in the file, and ``out`` is ``out64``."""
    head, slash, tail = name.partition("/")
    return f"{head}{bits}{slash}{tail}"


def _in_their_units(normalizer: Normalizer, outputs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Outputs (G,) or (G, outputs) as the original returns them."""
    columns = [normalizer.invert(column, counts) for column in outputs.reshape(len(outputs), -1).T]
    return np.stack(columns, 1).reshape(outputs.shape)


def _difference(
    kind: str, name: str, ours: np.ndarray, golden: Golden, mode: str, bits: int, rows: str = ""
) -> Difference:
    """``rows`` are the file's: nodes, pairs, edges or triplets; without it the array is in our order and size."""

    def reference(key: str) -> np.ndarray:
        if not rows:
            return numbers_of(golden, key, ours.shape)
        places = golden.places[rows]
        stored = 2 * len(places) if rows == "pair" else len(places)
        return numbers_of(golden, key, (stored, *ours.shape[1:]))[places]

    exact = reference(file_key(name, 64))
    scale = max(float(np.abs(exact).max()), 1e-300)
    tolerance, single = FLOAT64_TOLERANCE, file_key(name, 32)
    if bits == 32:
        peer = float(np.abs(reference(single) - exact).max()) / scale if single in golden.arrays else 0.0
        tolerance = FLOOR + PEER_FACTOR * peer
    return Difference(kind, file_key(name, bits), mode, bits, float(np.abs(ours - exact).max()) / scale, tolerance)


def _gradient_differences(
    found: Evaluation, golden: Golden, source: Source, counts: Counts, mode: str, bits: int
) -> list[Difference]:
    names = source.names(counts) | {REFERENCES: "atomref.weight"}
    keys = {ours: f"grad64/{theirs}" for ours, theirs in names.items() if f"grad64/{theirs}" in golden.arrays}
    values = {ours: found.gradients[ours][: len(np.atleast_1d(golden.arrays[key]))] for ours, key in keys.items()}
    exact = {key: numbers_of(golden, key, values[ours].shape) for ours, key in keys.items()}
    sizes = {key: float(np.abs(array).max(initial=0.0)) for key, array in exact.items()}
    floor = SMALL_GRADIENT[bits] * max(sizes.values(), default=0.0)
    tolerance = FLOAT64_TOLERANCE if bits == 64 else GRADIENT_TOLERANCE_32
    parts = ({k.removeprefix(p): v for k, v in golden.arrays.items() if k.startswith(p)} for p in ("sd/", "grad64/"))
    weights, gradients = parts
    for ours, array in source.reshaped(weights | gradients).items() if gradients else ():
        keys[ours], exact[ours], values[ours] = ours, array.astype(np.float64), found.gradients[ours]
        sizes[ours] = float(np.abs(array).max(initial=0.0))
    rows = []
    for ours, key in keys.items():
        error = np.abs(values[ours] - exact[key]).max()
        rows.append(Difference("gradients", key, mode, bits, float(error) / max(sizes[key], floor), tolerance))
    return rows


def table(rows: list[Difference]) -> str:
    """Every array with its largest differences over the modes; of the gradients the worst few."""
    worst: dict[str, dict[int, Difference]] = {}
    for row in rows:
        bits = worst.setdefault(row.name if row.kind == "gradients" else row.name.replace("32", "64", 1), {})
        if row.bits not in bits or not row.value <= bits[row.bits].value:
            bits[row.bits] = row
    gradients = [name for name in worst if name.startswith("grad64/")]
    gradients.sort(key=lambda name: -max(_excess(row) for row in worst[name].values()))
    shown = [name for name in worst if name not in gradients] + gradients[:GRADIENTS_SHOWN]
    lines = [f"{'array':44s}   {'float64':>8s} {'allowed':>8s}   {'float32':>8s} {'allowed':>8s}"]
    for name in shown:
        both = worst[name][64], worst[name][32]
        figures = "   ".join(f"{row.value:8.1e} {row.tolerance:8.1e}" for row in both)
        lines.append(f"{name:44s}   {figures}{'' if all(row.accepted for row in both) else '   BEYOND'}")
    if len(gradients) > GRADIENTS_SHOWN:
        lines.append(f"and {len(gradients) - GRADIENTS_SHOWN} more gradients with smaller differences")
    return "\n".join(lines)


def _excess(row: Difference) -> float:
    """How near to its tolerance a difference is, or how far beyond; a NaN is the worst."""
    return float(np.nan_to_num(row.value / row.tolerance, nan=np.inf))
