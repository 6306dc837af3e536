"""What the precision of the products does to predictions and to their gradients with respect to positions."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_effect.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from typing import NamedTuple

import mindspore as ms
import numpy as np

from data_tools.graphs.batching import chunks
from data_tools.graphs.budgets import batch_sizes, choose_budgets
from data_tools.graphs.loader import fitted_batch
from experiment.data import DTYPES
from physics.derivatives import EnergyAndForces
from scripts.ncon_parts.ncon_subject import Subject
from training.step import to_tensors

REFERENCE = ("float64", "float64")
BATCH = 64  # structures
#: dtype of the model and of its products
CASES = (REFERENCE, ("float64", "float32"), ("float64", "float16"), ("float32", "float32"), ("float32", "float16"))


class Difference(NamedTuple):
    """Numbers beside those of the reference, in their unit.

    Attributes:
        mean, largest: of the magnitudes of the differences.
        relative: root of the mean square of the differences over that of the reference.
        lost: how many are infinite or no number; the others are compared.
    """

    mean: float
    largest: float
    relative: float
    lost: int


class Effect(NamedTuple):
    """A precision beside float64.

    Attributes:
        dtype, ncon_dtype: of the model and of its products.
        label_mae: mean absolute error of the predictions against the labels, in the unit of the target.
        prediction: in the unit of the target.
        gradient: with respect to positions, in that unit per Angstrom; of an energy the negative of the forces.
        size: root of the mean square of that gradient.
    """

    dtype: str
    ncon_dtype: str
    label_mae: float
    prediction: Difference
    gradient: Difference
    size: float


def measure_effect(subject: Subject) -> list[Effect]:
    """Predictions of the measured structures in every precision, the reference first.

    Float16 has MindSpore's operators, the others the kernels of a CPU where there are some.
    """
    found, labels = [], subject.dataset.labels[subject.rows]
    exact: tuple[np.ndarray, np.ndarray] | None = None
    for dtype, ncon_dtype in CASES:
        values, gradient = predict(subject, dtype, ncon_dtype)
        exact = exact or (values, gradient)
        found.append(
            Effect(
                dtype, ncon_dtype, float(np.abs(values - labels).mean()), difference(exact[0], values),
                difference(exact[1], gradient), float(np.sqrt((gradient * gradient).mean())),
            )
        )  # fmt: skip
    return found


def predict(subject: Subject, dtype: str, ncon_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (M,) of the measured structures, and their gradients with respect to positions (atoms, 3)."""
    ms.set_context(mode=ms.GRAPH_MODE)
    dataset, rows = subject.dataset, subject.rows
    derive = EnergyAndForces(subject.build(dtype, ncon_dtype, kernels=True))
    outputs, slopes = [], []
    batches = chunks(rows, BATCH)
    budgets = choose_budgets(batch_sizes(dataset.packed, batches), len(batches[0]), 1)
    for batch in batches:
        padded = fitted_batch(dataset.packed, batch, budgets, None, DTYPES[dtype])
        values, forces = derive(*to_tensors(padded.inputs))
        outputs.append(values.asnumpy()[: len(batch)])
        slopes.append(-forces.asnumpy()[: int(padded.inputs.node_mask.sum())])
    values = dataset.normalizer.invert(np.concatenate(outputs).astype(np.float64), dataset.counts[rows])
    return values, np.concatenate(slopes).astype(np.float64) * dataset.normalizer.scale


def difference(exact: np.ndarray, found: np.ndarray) -> Difference:
    """Of two arrays."""
    known = np.isfinite(found)
    lost = int((~known).sum())
    if not known.any():
        return Difference(np.inf, np.inf, np.inf, lost)
    off, true = np.abs(found[known] - exact[known]), exact[known]
    relative = np.sqrt((off * off).mean()) / max(np.sqrt((true * true).mean()), np.finfo(float).tiny)
    return Difference(float(off.mean()), float(off.max()), float(relative), lost)
