"""What the doctor asks of every model: train steps that agree in both modes, and forces and Hessians that are right.

Two frames of ethanol with their published energies and forces are the batch; the models have their default sizes.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_models.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn

from configs.schema import MODEL_CONFIGS
from data_tools.formats import md17
from data_tools.graph import AtomGraph, Budget, GraphBatch, Labels, Structure, StructureTable
from data_tools.graphs.batching import build_graph, join, pad
from models import NEEDS_TRIPLETS, build_model
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import exact_rows
from scripts.doctor_parts.doctor_checks import Row, below, guarded, judged, largest_difference
from training.device import MODES
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep, to_tensors

OBJECTIVES = {"energy": (Term("energy"),), "energy and forces": (Term("energy"), Term("forces"))}
FRAMES = 2
LAW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}
NO_UPDATE = (0.0, 1e-8, 0.0)  # lr', eps' and wd' of a step that only measures
TOO_LARGE = 1e38  # a loss scale at which the gradient overflows in float32
MODES_AGREE = 1e-4  # two train steps in float32, relative
STEP = {"float64": 1e-3, "float32": 1e-2}  # Angstrom, of central differences of fourth order
PARAMETER_STEP = 1e-2  # of the same along a random direction in the space of parameters, in float32
#: hyperparameters that no operator depends on: each block would compile for half a minute again
SMALLER = {
    "blocks": 1, "features": 32, "interaction_features": 16, "output_features": 32, "irreps": "16x0e+8x1o+4x2e",
    "irreps_head": "4x0e+2x1o+1x2e", "irreps_mlp": "16x0e+8x1o+4x2e", "irreps_features": "32x0e", "radial": 32,
}  # fmt: skip
DECIDED = {"dimenetpp": {"output_init": "zeros"}}  # what a run decides by its target
#: relative errors of forces and Hessians
LIMITS = {"float64": (1e-7, 1e-7), "float32": (1e-2, 1e-2)}
GRADIENT_LIMIT = 1e-2  # of the gradient of a loss in float32
CHANGES_NOTHING, CHANGES = "changes nothing", "changes the state or says nothing"
#: (f(-2h), f(-h), f(h), f(2h)) to 12 h f'
OFFSETS, WEIGHTS = (-2, -1, 1, 2), (1.0, -8.0, 8.0, -1.0)


class Trial(NamedTuple):
    """What some train steps of one model in one mode have shown.

    Attributes:
        losses: of the first two steps.
        moved: largest change of a parameter.
        without_gradient: parameters whose gradient is 0 in every element.
        gradient_error: of the loss along a random direction, relative to central differences.
        skipped: whether a step whose gradient overflows changed nothing and said so.
    """

    losses: np.ndarray
    moved: float
    without_gradient: list[str]
    gradient_error: float
    skipped: bool


def model_of(name: str, dtype: str) -> nn.Cell:
    """A model at its default size, always with the same random parameters."""
    ms.set_seed(0)
    model = build_model(name, dtype=dtype, amp_level="O0", readout="sum", **sizes(name, dtype))
    random = np.random.default_rng(0)
    for parameter in model.trainable_params():  # a bias of zero would hide mistakes
        noise = 0.05 * random.normal(size=parameter.shape)
        parameter.set_data(Tensor(parameter.asnumpy() + noise, parameter.dtype))
    return model


def sizes(name: str, dtype: str = "float32") -> dict:
    """Default hyperparameters of a model of a precision, smaller where that only saves time."""
    known = {**dataclasses.asdict(MODEL_CONFIGS[name]()), **DECIDED.get(name, {})}
    del known["name"]
    if "ncon_dtype" in known:
        known["ncon_dtype"] = dtype
    return known | {key: value for key, value in SMALLER.items() if key in known}


def ethanol_graphs(name: str, table: StructureTable, frames: int) -> list[AtomGraph]:
    """The first frames of the shipped sample as graphs for a model."""
    atoms = int(table.n_atoms[0])
    graphs = []
    for k in range(frames):
        rows = slice(k * atoms, (k + 1) * atoms)
        frame = Structure(table.numbers[rows], table.positions[rows], name=table.names[k])
        graphs.append(build_graph(frame, sizes(name)["cutoff"], name in NEEDS_TRIPLETS))
    return graphs


def ethanol(name: str, dtype: str, frames: int, forces: bool) -> GraphBatch:
    """Frames of the shipped sample for a model: energies (eV, relative to their mean), perhaps forces (eV/Angstrom)."""
    cutoff, triplets = sizes(name)["cutoff"], name in NEEDS_TRIPLETS
    table = md17.read_frames(md17.SAMPLE_TRAIN, md17.RMD17)
    atoms = int(table.n_atoms[0])
    graphs = ethanol_graphs(name, table, frames)
    ragged = join(graphs)
    most = len(ragged.triplet_in) + 2 * triplets
    budget = Budget(frames * atoms + 3, 2 * len(ragged.senders) + 6, most, frames + 1)
    energy = table.of_structures["energy"]
    of_nodes = {"forces": table.of_atoms["forces"][: frames * atoms]} if forces else {}
    labels = Labels({"energy": energy[:frames] - energy.mean()}, of_nodes)
    return pad(ragged, budget, cutoff, np.dtype(dtype).type, labels)


def try_training(name: str, mode: str, terms: tuple[Term, ...]) -> Trial:
    """Two updates, a step that overflows, and measurements of the loss beside the start; float32."""
    ms.set_context(mode=MODES[mode])
    model = model_of(name, "float32")
    batch = ethanol(name, "float32", FRAMES, forces=len(terms) > 1)
    known = {target: int(mask.sum()) for target, mask in batch.masks.items()}
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"])
    step = TrainStep(model, optimizer, terms, goes_on=True)

    def run(scale: float, scalars: tuple[float, float, float]) -> tuple[float, bool]:
        loss, _, finite = step(*step.layout.arguments(batch, known, scale, scalars))
        return float(loss.asnumpy()), bool(finite.asnumpy())

    start = parameters(optimizer)
    losses = [run(1.0, operator_scalars(1, **LAW))[0]]
    # after the first step the first moment is (1 - beta1) times the gradient
    gradient = [part / (1 - np.float32(LAW["beta1"])) for part in optimizer.parts(optimizer.first).values()]
    lost = [weight.name for weight, part in zip(optimizer.weights, gradient, strict=True) if not np.abs(part).max() > 0]
    losses.append(run(1.0, operator_scalars(2, **LAW))[0])
    before = parameters(optimizer)
    moved = max(float(np.abs(new - old).max()) for new, old in zip(before, start, strict=True))
    _, finite = run(TOO_LARGE, operator_scalars(3, **LAW))
    unchanged = all(np.array_equal(new, old) for new, old in zip(parameters(optimizer), before, strict=True))
    direction = [np.random.default_rng(k).normal(size=value.shape) for k, value in enumerate(start)]
    length = np.sqrt(sum((part**2).sum() for part in direction))

    def loss_at(offset: float) -> float:
        for weight, value, part in zip(optimizer.weights, start, direction, strict=True):
            weight.set_data(Tensor((value + offset / length * part).astype(np.float32)))
        return run(1.0, NO_UPDATE)[0]

    slope = central_difference(loss_at, PARAMETER_STEP)
    expected = sum(float((one * part).sum()) for one, part in zip(gradient, direction, strict=True)) / length
    error = abs(expected - float(slope)) / abs(float(slope))
    return Trial(np.array(losses), moved, lost, error, not finite and unchanged)


def parameters(optimizer: AdamW) -> list[np.ndarray]:
    """Copies of all weights."""
    return [weight.asnumpy().copy() for weight in optimizer.weights]


def central_difference(function: Callable[[float], np.ndarray | float], step: float) -> np.ndarray:
    """The derivative at 0, of fourth order."""
    values = np.array([function(offset * step) for offset in OFFSETS], np.float64)
    return np.tensordot(np.array(WEIGHTS), values, 1) / (12 * step)


def check_training(name: str) -> list[Row]:
    """One train step of a model for each objective, in both modes."""
    rows: list[Row] = []
    for words, terms in OBJECTIVES.items():
        rows += guarded(words, partial(training_rows, words, name, terms))
    return rows


def training_rows(title: str, name: str, terms: tuple[Term, ...]) -> list[Row]:
    """The rows of one objective of a model."""
    graph, pynative = (try_training(name, mode, terms) for mode in ("GRAPH", "PYNATIVE"))
    trials = (graph, pynative)
    finite = all(bool(np.isfinite(trial.losses).all()) for trial in trials)
    moved = min(trial.moved for trial in trials)
    lost = sorted({parameter for trial in trials for parameter in trial.without_gradient})
    skipped = all(trial.skipped for trial in trials)
    return [
        judged(f"{title}: loss", f"{graph.losses[0]:.6g} then {graph.losses[1]:.6g}", "finite", finite),
        judged(f"{title}: parameters move by", f"{moved:.1e}", "above 0", 0 < moved < np.inf),
        judged(f"{title}: parameters without gradient", ", ".join(lost) or "none", "none", not lost),
        below(f"{title}: GRAPH - PYNATIVE", largest_difference(pynative.losses, graph.losses), MODES_AGREE),
        below(f"{title}: gradient, GRAPH", graph.gradient_error, GRADIENT_LIMIT),
        below(f"{title}: gradient, PYNATIVE", pynative.gradient_error, GRADIENT_LIMIT),
        judged(f"{title}: step that overflows", CHANGES if not skipped else CHANGES_NOTHING, CHANGES_NOTHING, skipped),
    ]


def check_derivatives(name: str, dtype: str) -> list[Row]:
    """Forces, Hessian-vector products and Hessian rows of a model in both modes."""
    rows: list[Row] = []
    for mode in MODES:
        rows += guarded(mode, partial(derivative_rows, name, mode, dtype))
    return rows


def derivative_rows(name: str, mode: str, dtype: str) -> list[Row]:
    """Against central differences of energies for forces, of forces for the Hessian."""
    ms.set_context(mode=MODES[mode])
    model = model_of(name, dtype)
    physics, product = EnergyAndForces(model), HessianProduct(model)
    graphs = ethanol_graphs(name, md17.read_frames(md17.SAMPLE_TRAIN, md17.RMD17), 1)
    atoms, cutoff, kind = len(graphs[0].numbers), sizes(name)["cutoff"], np.dtype(dtype).type
    stream = exact_rows(product, graphs, cutoff, kind, atoms=[[0, atoms - 1]])
    inputs = pad(join(graphs), stream.batches.budgets[0], cutoff, kind).inputs  # one shape for both: one compilation

    def at(direction: np.ndarray) -> Callable[[float], np.ndarray]:
        """Energy and forces at a distance along a direction (N, 3), as one vector (1 + 3 N)."""

        def function(offset: float) -> np.ndarray:
            moved = inputs._replace(positions=(inputs.positions + offset * direction).astype(dtype))
            energies, forces = physics(*to_tensors(moved))
            return np.concatenate((energies.asnumpy()[:1], forces.asnumpy()[:atoms].ravel()))

        return function

    forces = physics(*to_tensors(inputs))[1].asnumpy()[:atoms]
    differences = np.zeros((3 * atoms, 1 + 3 * atoms))
    for component in range(3 * atoms):
        direction = np.zeros_like(inputs.positions)
        direction[component // 3, component % 3] = 1
        differences[component] = central_difference(at(direction), STEP[dtype])
    probe = np.zeros_like(inputs.positions)
    probe[:atoms] = np.random.default_rng(3).normal(size=(atoms, 3))
    second = -differences[:, 1:]  # of the energy
    products = product(*to_tensors(inputs), Tensor(probe)).asnumpy()[:atoms].ravel()
    rows = stream.arrays()[0].reshape(2, 3, -1)
    limit_forces, limit_hessian = LIMITS[dtype]
    return [
        below(f"{mode}: forces", largest_difference(forces.ravel(), -differences[:, 0]), limit_forces),
        below(f"{mode}: Hessian product", largest_difference(products, second @ probe[:atoms].ravel()),
              limit_hessian),
        below(f"{mode}: Hessian rows",
              largest_difference(rows, second.reshape(atoms, 3, -1)[[0, atoms - 1]]), limit_hessian),
    ]  # fmt: skip
