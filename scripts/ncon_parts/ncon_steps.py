"""Seconds of a train step for each precision of the products, in processes that take turns."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_steps.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple

from data_tools.graphs.batching import chunks
from data_tools.graphs.budgets import batch_sizes, choose_budgets
from data_tools.graphs.loader import fitted_batch, known_of
from experiment.data import DTYPES
from experiment.trainer import terms_of
from models.cpu_kernels import library
from scripts.benchmarks.timed_steps import Side
from scripts.ncon_parts.ncon_subject import Subject
from training.optimizer import AdamW, operator_scalars
from training.step import TrainStep

KERNELS, OPERATORS = "kernels", "operators"
#: precision of the products and path; there are no kernels for float16
CASES = tuple(
    (ncon_dtype, path)
    for ncon_dtype in ("float16", "float32", "float64")
    for path in (OPERATORS, KERNELS)
    if (ncon_dtype, path) != ("float16", KERNELS)
)
BATCHES, WARM = 4, 3  # of one shape
LAW = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0}


class StepTime(NamedTuple):
    """Train steps of one precision.

    Attributes:
        dtype, ncon_dtype: of the model and of its products.
        path: ``KERNELS`` or ``OPERATORS``.
        median, least: milliseconds.
        steps: how many were timed.
        first: seconds until the process was warm.
    """

    dtype: str
    ncon_dtype: str
    path: str
    median: float
    least: float
    steps: int
    first: float


def measure_steps(program: Path, words: Sequence[str], dtype: str, rounds: int, steps: int) -> list[StepTime]:
    """Time every case; blocks of steps of one follow those of the other.

    Args:
        program: which serves steps.
        words: that tell it which model.
        dtype: of the model.
        rounds: blocks of each case.
        steps: of a block.
    """
    cases = [case for case in CASES if case[1] == OPERATORS or library()]
    sides, first = [], []
    seconds: list[list[float]] = []
    for ncon_dtype, path in cases:
        started = time.perf_counter()
        sides.append(Side([sys.executable, str(program), *words, "--serve", ncon_dtype, path]))
        first.append(time.perf_counter() - started)
        seconds.append([])
    for number in range(rounds):
        for k in range(len(cases))[:: 1 if number % 2 else -1]:
            time.sleep(0.3)  # until the threads of the last one are idle
            seconds[k] += sides[k].run(steps + 1)[1:]
    for side in sides:
        side.close()
    return [
        StepTime(dtype, *case, 1e3 * float(np.median(own)), 1e3 * min(own), len(own), until)
        for case, own, until in zip(cases, seconds, first, strict=True)
    ]


def steps_of(subject: Subject, ncon_dtype: str, path: str, batch_size: int) -> Callable[[int], list[float]]:
    """A function that makes K warm train steps and returns the seconds of each."""
    ms.set_context(mode=ms.GRAPH_MODE)
    dataset, dtype, terms = subject.dataset, subject.config.run.dtype, terms_of(subject.config.training)
    model = subject.build(dtype, ncon_dtype, kernels=path == KERNELS)
    batches = chunks(dataset.split.train[: BATCHES * batch_size], batch_size)
    budgets = choose_budgets(batch_sizes(dataset.packed, batches), len(batches[0]), 1)
    provider = dataset.standardised([term.quantity for term in terms])
    labels = [provider(rows, 0) for rows in batches]
    padded = [
        fitted_batch(dataset.packed, rows, budgets, own, DTYPES[dtype])
        for rows, own in zip(batches, labels, strict=True)
    ]
    optimizer = AdamW(ParameterTuple(model.trainable_params()), LAW["beta1"], LAW["beta2"])
    step, count = TrainStep(model, optimizer, terms), 0

    def run(steps: int) -> list[float]:
        nonlocal count
        seconds = []
        for _ in range(steps):
            k = count % len(padded)
            started = time.perf_counter()
            scalars = operator_scalars(count + 1, **LAW)
            step(*step.layout.arguments(padded[k], known_of(labels[k]), 1.0, scalars))[0].asnumpy()
            seconds.append(time.perf_counter() - started)
            count += 1
        return seconds

    run(WARM)
    return run
