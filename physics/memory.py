"""How much memory a product of the Hessian takes, and how much there is.

    (1)  bytes = COMPILED + KEPT * s * W * (E + T / 25)       s: bytes of a number, W: rows of all weight matrices

Kept for the backward passes are outputs of layers, and a model has about W of them for each edge; a triplet counts a
25th.  Weights of equivariant layers are stored flat, the matrix of one degree after the other: k numbers are some
sqrt(k) rows, each of a channel with its components, two or so.  A network whose layers are operators of MindSpore for
the most part, kernels or not, keeps several times as much and says so (``of_operators``).  The constants estimate from
above; ``scripts/benchmarks/hessian_memory.py`` and ``scripts/benchmarks/force_constant_times.py`` measure beside them.
"""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn
from mindspore import dtype as mstype

from data_tools.graph import Budget
from models import graph_ops

COMPILED = 4e8  # bytes
#: by whether there are kernels for a CPU, and by bytes of a number: without kernels float64 takes 7 times as much
KEPT = {(True, 4): 1.5, (True, 8): 1.5, (False, 4): 3.0, (False, 8): 11.0}
#: of a network of operators, by the same: 1.1 to 1.4 times what graph attention transformers take
COMPILED_OPERATORS = {True: 5.5e8, False: 8e8}
KEPT_OPERATORS = {(True, 4): 4.5, (True, 8): 14.0, (False, 4): 18.0, (False, 8): 40.0}
EDGES_A_TRIPLET = 1 / 25
COMPONENTS = 2  # of a channel of an equivariant layer
#: W and ``of_operators`` of what was asked for before: walking through a model takes time beside a small product
WIDTHS: weakref.WeakKeyDictionary[nn.Cell, tuple[float, bool]] = weakref.WeakKeyDictionary()
MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def of_product(product: nn.Cell, budget: Budget, dtype: type) -> float:
    """Bytes for one batch of a shape by equation (1).

    Args:
        product: a compiled derivative of a model, or another cell with its weights.
        budget: static shape.
        dtype: of the weights, float32 or float64.
    """
    size = np.dtype(dtype).itemsize
    kernels = graph_ops.load(mstype.float64 if size == 8 else mstype.float32) is not None
    if product not in WIDTHS:
        rows = sum(_rows(weight) for weight in product.trainable_params())
        WIDTHS[product] = rows, any(getattr(cell, "of_operators", False) for _, cell in product.cells_and_names())
    width, of_operators = WIDTHS[product]
    compiled, kept = COMPILED, KEPT[kernels, size]
    if of_operators:
        compiled, kept = COMPILED_OPERATORS[kernels], max(kept, KEPT_OPERATORS[kernels, size])
    return compiled + kept * size * width * (budget.edges + EDGES_A_TRIPLET * budget.triplets)  # (1)


def _rows(weight: Parameter) -> float:
    """What a weight adds to W."""
    if weight.ndim == 2:
        return weight.shape[0]
    return COMPONENTS * math.sqrt(weight.size) if weight.ndim == 1 and weight.name.endswith(".weight") else 0.0


def available() -> float:
    """Bytes that this process may still take from the machine or from its container.

    Infinite where the device is not the CPU: its memory is its own, and it says itself what it lacks.
    """
    if ms.get_context("device_target") != "CPU":
        return math.inf
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if MEMINFO.is_file():
        free = 1024.0 * _entries(MEMINFO)["MemAvailable:"]
    limit, used, statistics = (CONTAINER / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        # files that were read are counted as used, and given up when memory is asked for
        taken = int(used.read_text()) - _entries(statistics)["inactive_file"]
        free = min(free, float(int(text) - taken))
    return free


def _entries(file: Path) -> dict[str, int]:
    """The first number of each line of a table, by the word before it."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
