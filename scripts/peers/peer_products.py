"""Timed tensor products of e3nn, forward and backward, on request (`timed_steps.py`).

Features 36x0e+36x1o+36x2e with attributes 1x0e+1x1o+1x2e+1x3o, as in SEGNN.  `fully` leads to the features again with
every path mixed by weights (u, v, w); `uvu` keeps the channels of the features apart, one weight for each channel and
path, and leads to one block of 36 channels for each path whose degree is at most 2.  Gradients are taken for both
inputs and the weights.  Runs in the peers' interpreter (requirements-parity.txt).
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_products.py is a part of peer_segnn.py: see python scripts/peers/peer_segnn.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse
import time

import torch
from e3nn.o3 import FullyConnectedTensorProduct, Irreps, TensorProduct

from scripts.peers.peer_bench import Steps, serve

FEATURES, ATTRIBUTES = Irreps("36x0e+36x1o+36x2e"), Irreps("1x0e+1x1o+1x2e+1x3o")
WARM_UP = 3  # TorchScript specialises in the first calls


def depthwise(shared: bool) -> TensorProduct:
    """The uvu product; its output is sorted by irrep, paths of one irrep in their order."""
    paths = [
        (irrep, left, right)
        for left, (_, first) in enumerate(FEATURES)
        for right, (_, second) in enumerate(ATTRIBUTES)
        for irrep in first * second
        if irrep in FEATURES
    ]
    paths.sort(key=lambda path: path[0])
    outputs = Irreps([(FEATURES[left].mul, irrep) for irrep, left, _ in paths])
    instructions = [(left, right, place, "uvu", True) for place, (_, left, right) in enumerate(paths)]
    return TensorProduct(FEATURES, ATTRIBUTES, outputs, instructions, shared_weights=shared, internal_weights=False)


class ProductBench:
    """One tensor product with its inputs; one call is one timed step.

    Args:
        product: fully or uvu.
        edges: rows of the inputs.
        shared: one set of weights for all rows, or one for each.
    """

    def __init__(self, product: str, edges: int, shared: bool) -> None:
        torch.manual_seed(0)
        if product == "uvu":
            self.product = depthwise(shared)
        else:
            self.product = FullyConnectedTensorProduct(
                FEATURES, ATTRIBUTES, FEATURES, shared_weights=shared, internal_weights=False
            )
        rows = () if shared else (edges,)
        shapes = (edges, FEATURES.dim), (edges, ATTRIBUTES.dim), (*rows, self.product.weight_numel)
        self.inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
        self.cotangent = torch.randn((edges, self.product.irreps_out.dim))
        self.warm_up = WARM_UP

    def step(self) -> float:
        """Run one step and return its seconds."""
        start = time.perf_counter()
        torch.autograd.grad(self.product(*self.inputs), self.inputs, self.cotangent)
        return time.perf_counter() - start


def run_products(args: argparse.Namespace) -> None:
    """Serve timed steps, or time some and print their median."""
    torch.set_num_threads(args.threads)
    bench: Steps = ProductBench(args.product, args.edges, args.weights == "shared")
    serve(bench, args.steps)


def add_products_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand `bench-products`."""
    parser.add_argument("--product", choices=("fully", "uvu"), default="fully")
    parser.add_argument("--weights", choices=("shared", "edge"), default="shared", help="one set, or one for each edge")
    parser.add_argument("--edges", type=int, default=1000)
    parser.set_defaults(run=run_products)
