"""The operators of the final graphs that MindSpore compiles models to, with the C++ kernels for CPUs switched off.

``main`` prints one line of JSON for each step of each model.  MindSpore writes its graphs only where the environment
says so from the beginning, as ``environment`` makes it, so this is a process of its own.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_graphs.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn

from models import build_model
from models.cpu_kernels.build import SWITCH
from physics.derivatives import HessianProduct
from scripts.doctor_parts.doctor_models import ethanol, sizes
from training.device import MODES
from training.objective import Term
from training.optimizer import AdamW, operator_scalars
from training.step import EvaluationStep, TrainStep, to_tensors

#: models at the sizes of their configurations; on features alone no operator depends, but on the number of blocks
AUDITED: dict[str, tuple[str, dict[str, Any]]] = {
    "schnet lite": ("schnet", {"features": 64, "filters": 64, "blocks": 2, "gaussians": 25}),
    "schnet full": ("schnet", {"features": 128, "filters": 128, "blocks": 3, "gaussians": 50}),
    "dimenetpp": (
        "dimenetpp",
        {"features": 128, "blocks": 4, "interaction_features": 64, "basis_features": 8, "output_features": 256},
    ),
    "segnn": ("segnn", {"features": 128, "blocks": 7}),
    "graph attention": ("graph_attention_transformer", {"blocks": 6}),
    "equivariant potential": ("equivariant_potential", {"blocks": 3, "average_degree": 30.0}),
}
AMP_LEVELS = ("O0", "O2")
ONE_PRECISION = ("segnn", "graph_attention_transformer", "equivariant_potential")  # models that know O0 alone
TRAIN, FORCES = "train step", "train step on forces"
STEPS = (TRAIN, FORCES, "evaluation", "evaluation with forces", "Hessian product")
TERMS = {TRAIN: (Term("energy", 1.0, "mae"),), FORCES: (Term("energy", 0.1, "mae"), Term("forces", 1.0, "mae"))}
CLIP_NORM, EMA_DECAY = 10.0, 0.99  # as the shipped configurations for forces have them
LAW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}
FRAMES = 2
#: nodes that only order others or name their results, and start nothing on a device
BOOKKEEPING = frozenset({"MakeTuple", "TupleGetItem", "Load", "UpdateState", "Depend", "Return"})
PASS = "task_emit"  # of MindSpore's compiler, after which a graph is final
FINAL = f"*_{PASS}_*.ir"
NODE = re.compile(r"^\s*%\d+\(.*?\) = (?:PrimFunc_)?(\w+)\(", re.MULTILINE)


class AuditError(RuntimeError):
    """Graphs that cannot be counted: one line with the reason and what to do."""

    exit_code = 1


class Audited(NamedTuple):
    """The operators of one step of one model.

    Attributes:
        model: key of ``AUDITED``.
        amp_level: of ``AMP_LEVELS``.
        step: of ``STEPS``.
        operators: how many of each.
    """

    model: str
    amp_level: str
    step: str
    operators: dict[str, int]


def environment(folder: Path) -> dict[str, str]:
    """What a process needs in its environment so that its final graphs are written to a folder, without kernels."""
    graphs = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(folder), "MS_DEV_DUMP_IR_PASSES": PASS}
    return {**graphs, SWITCH: "0", "GLOG_v": "3"}


def model_of(name: str, amp_level: str, **hyperparameters: object) -> nn.Cell:
    """A model as it is on Ascend and GPU, where a swish is one operator."""
    chosen: dict[str, Any] = {"dtype": "float32", "amp_level": amp_level, "readout": "sum", **hyperparameters}
    model = build_model(name, **chosen)
    for _, cell in model.cells_and_names():
        if hasattr(cell, "on_cpu"):
            cell.on_cpu = False
    return model


def step_of(name: str, model: nn.Cell, step: str) -> tuple[nn.Cell, tuple[Tensor, ...]]:
    """A step of a model and its arguments."""
    batch = ethanol(name, "float32", FRAMES, forces=True)
    if step in TERMS:
        optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"], CLIP_NORM, EMA_DECAY)
        cell = TrainStep(model, optimizer, TERMS[step])
        known = {target: int(mask.sum()) for target, mask in batch.masks.items()}
        return cell, cell.layout.arguments(batch, known, 1.0, operator_scalars(1, **LAW))
    inputs = to_tensors(batch.inputs)
    if step == "Hessian product":
        return HessianProduct(model), (*inputs, Tensor(batch.inputs.positions))
    return EvaluationStep(model, ("forces",) if step == "evaluation with forces" else ()), inputs


def operators_of(cell: nn.Cell, arguments: Sequence[Tensor], folder: Path) -> Counter[str]:
    """Compile a cell and count the operators of its final graph.

    Raises:
        AuditError: MindSpore wrote no graph.
    """
    for file in folder.rglob("*.*"):
        file.unlink()
    cell.compile(*arguments)
    found = [NODE.findall(file.read_text(encoding="utf-8")) for file in folder.rglob(FINAL)]
    counts = Counter(name for names in found for name in names if name not in BOOKKEEPING)
    if not counts:
        raise AuditError(
            f"MindSpore {ms.__version__} wrote no final graph ({FINAL}): expected one for each compilation"
        )
    return counts


def audited(folder: Path, models: Sequence[str], amp_levels: Sequence[str], steps: Sequence[str]) -> Iterator[Audited]:
    """Compile steps of models one after the other."""
    ms.set_context(mode=MODES["GRAPH"])
    for model in models:
        name, chosen = AUDITED[model]
        for amp_level in amp_levels if name not in ONE_PRECISION else amp_levels[:1]:
            for step in steps:
                cell, arguments = step_of(name, model_of(name, amp_level, **sizes(name) | chosen), step)
                yield Audited(model, amp_level, step, dict(operators_of(cell, arguments, folder)))


def main() -> int:
    """Print what each compilation gives as soon as it is known."""
    parser = argparse.ArgumentParser(description="Count operators; see python scripts/doctor.py --audit.")
    parser.add_argument("folder", type=Path, help="of MS_DEV_SAVE_GRAPHS_PATH")
    for row in audited(parser.parse_args().folder, tuple(AUDITED), AMP_LEVELS, STEPS):
        print(json.dumps(row._asdict()), flush=True)
    return 0
