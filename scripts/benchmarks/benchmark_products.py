"""Tensor products forward and backward beside e3nn's: with the kernels for CPUs and with MindSpore's operators.

    python scripts/benchmarks/benchmark_products.py --peer_python PARITY/bin/python --output benchmark_products.json

PARITY is an environment made from requirements-parity.txt.  The products are those of scripts/peers/peer_products.py:
36x0e+36x1o+36x2e with the harmonics to degree 3, `fully` connected to the same irreps, or `uvu` to every path with a
degree of at most 2; gradients of a random linear function of the result in features, attributes and weights.  Features
are channels last here and first in e3nn.  Blocks of steps of the three sides alternate; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(interruptible=False)

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.cpu_kernels.build import SWITCH
from models.e3.depthwise_product import DepthwiseTensorProduct
from models.e3.irreps import Irreps
from models.e3.tensor_product import Coupling, FullyConnectedTensorProduct
from physics.derivatives import Compiled
from scripts.benchmarks.timed_steps import Side, answer
from scripts.help_defaults import Defaults
from training.cpu_runtime import cores
from training.device import set_up, versions
from training.files import write_text

PRODUCTS, WEIGHTS, PATHS = ("fully", "uvu"), ("shared", "edge"), ("kernels", "operators")
FEATURES, ATTRIBUTES = Irreps("36x0e+36x1o+36x2e"), Irreps.spherical_harmonics(3)
PEER = Path(__file__).parents[1] / "peers" / "peer_segnn.py"


class Value(nn.Cell):
    """A random linear function of a product.

    Args:
        product: fully or uvu.
        edges: rows of the inputs.
    """

    def __init__(self, product: str, edges: int):
        super().__init__()
        kind, degrees = mstype.float32, [part.ir for part in FEATURES]
        self.coupling = Coupling(ATTRIBUTES, degrees, degrees, kind, kind)
        if product == "uvu":
            self.product: nn.Cell = DepthwiseTensorProduct(
                FEATURES, self.coupling, FEATURES, "component", "element", False, kind, kind
            )
            width = self.product.irreps_out.dim
        else:
            self.product = FullyConnectedTensorProduct(
                FEATURES, FEATURES, self.coupling, "component", "element", False, False, kind, kind
            )
            width = FEATURES.dim
        self.cotangent = Tensor(np.random.default_rng(1).normal(size=(edges, width)), kind)

    def construct(self, x: Tensor, attributes: Tensor, weights: Tensor) -> Tensor:
        """Features (E, dim), attributes (E, 16) and weights to a number."""
        return (self.product(x, self.coupling(attributes), weights) * self.cotangent).sum()


def our_steps(product: str, weights: str, edges: int) -> Callable[[int], list[float]]:
    """A function that runs K steps and returns the seconds of each."""
    set_up("GRAPH", "CPU", 0, seed=0)
    value, random = Value(product, edges), np.random.default_rng(0)
    rows = edges if weights == "edge" else 1
    of_weights: tuple[int, ...] = (rows, value.product.numel)
    if weights == "shared" and product == "fully":
        of_weights = (value.product.numel,)
    shapes = [(edges, FEATURES.dim), (edges, ATTRIBUTES.dim), of_weights]
    inputs = [Tensor(random.normal(size=shape), mstype.float32) for shape in shapes]
    gradient = Compiled(value, ms.grad(value, (0, 1, 2)))

    def run(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            for each in gradient(*inputs):
                each.asnumpy()
            seconds.append(time.perf_counter() - started)
        return seconds

    run(3)
    return run


def our_side(path: str, case: list[str]) -> Side:
    """Our steps in a process of their own."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1" if path == "kernels" else "0"
    try:
        return Side([sys.executable, __file__, "--serve", *case])
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before


def compare(product: str, weights: str, edges: int, options: argparse.Namespace) -> dict:
    """Medians of one case."""
    case = ["--products", product, "--weights", weights, "--edges", str(edges)]
    sides = {path: our_side(path, case) for path in PATHS}
    words = ["--product", product, "--weights", weights, "--edges", str(edges), "--threads", str(options.threads)]
    sides["e3nn"] = Side([options.peer_python, str(PEER), "bench-products", *words])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            time.sleep(0.3)  # until the other sides' threads are idle
            seconds[name] += side.run(options.steps)[2:]  # the first steps of a block warm up threads and caches
    for side in sides.values():
        side.close()
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    ratios = {path: medians["e3nn"] / medians[path] for path in PATHS}
    print(
        f"{product:5} {weights:6} {edges:5} edges  "
        + "  ".join(f"{name} {value:.2f} ms" for name, value in medians.items())
        + "  ratios "
        + " ".join(f"{path} {ratio:.2f}" for path, ratio in ratios.items()),
        flush=True,
    )
    return {"product": product, "weights": weights, "edges": edges, "ms": medians, "ratio": ratios}


def main(arguments: list[str] | None = None) -> int:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Tensor products beside e3nn's.")
    parser.add_argument("--peer_python", help="interpreter with torch and e3nn")
    parser.add_argument("--products", nargs="+", default=list(PRODUCTS), choices=PRODUCTS)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS, help="of all or of each edge")
    parser.add_argument("--edges", nargs="+", type=int, default=[1000, 4000])
    parser.add_argument("--rounds", type=int, default=4, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=8, help="steps of a block; the first two do not count")
    parser.add_argument("--threads", type=int, default=2, help="threads of the peer")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--serve", action="store_true", help="only run our steps, on request")
    options = parser.parse_args(arguments)
    if options.serve:
        answer(our_steps(options.products[0], options.weights[0], options.edges[0]))
        return 0
    if options.peer_python is None:
        parser.error("--peer_python: expected an interpreter with torch and e3nn")
    results = [
        compare(product, weights, edges, options)
        for product in options.products
        for weights in options.weights
        for edges in options.edges
    ]
    if options.output:
        about = {"versions": versions(), "cores": cores(), "machine": platform.machine()}
        write_text(options.output, json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
