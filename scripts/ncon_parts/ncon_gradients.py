"""Gradients of the training loss where they pass through the products of a SEGNN, and what float16 makes of them.

A tap is a parameter of zeros that is added to a tensor: the gradient with respect to it is that of the tensor.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_gradients.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from data_tools.graph import GraphBatch
from data_tools.graphs.loader import known_of
from experiment.trainer import terms_of
from scripts.ncon_parts.ncon_products import PRE_POOL, Product, products_of, record
from scripts.ncon_parts.ncon_ranges import NOTHING, Error, Range, error_of, range_of
from scripts.ncon_parts.ncon_subject import Subject
from training.objective import Layout, loss_of

SCALES = (1.0, 1024.0)  # of the loss
NO_STEP = (0.0, 0.0, 0.0)  # scalars of an optimiser that is not there


class Backward(NamedTuple):
    """The backward pass of the products.

    Attributes:
        structures: of the batch, training structures; the loss is the configuration's own.
        ranges: kind of a product to the ranges of gradients with respect to its ``result``, to what goes into its
            mixing (``between``), and to its ``weights``.
        errors: loss scale to kind of a product to the error of the gradients of its weights in float16.
        lost: loss scale to how many of these are infinite or no number.
    """

    structures: int
    ranges: dict[str, dict[str, Range]]
    errors: dict[float, dict[str, Error]]
    lost: dict[float, int]


class Tapped(nn.Cell):
    """A mixing of channels, or a turn out of the frame, with a tap at what goes in and one at what comes out.

    Args:
        cell: the mixing, or the turn.
        given, result: shapes of the two.
        dtype: of the taps.
    """

    kernel = None  # its owner asks whether there is one

    def __init__(self, cell: nn.Cell, given: tuple[int, ...], result: tuple[int, ...], dtype: ms.Type):
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.before, self.after = (Parameter(Tensor(np.zeros(shape), dtype)) for shape in (given, result))

    def construct(self, z: Tensor, *others: Any) -> Tensor:
        """As the cell's."""
        return self.cell(z + self.before, *others) + self.after


def measure_gradients(subject: Subject, structures: int) -> Backward:
    """The backward pass of a batch of training structures, the first ones of the split."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rows = subject.dataset.split.train[:structures]
    terms = terms_of(subject.config.training)
    labels = subject.dataset.standardised([term.quantity for term in terms])(rows, 0)
    batch, layout = subject.batch(rows, np.float64, labels), Layout(terms)
    arguments = {scale: layout.arguments(batch, known_of(labels), scale, NO_STEP)[: layout.of_loss] for scale in SCALES}
    exact, half = subject.build("float64", "float64"), subject.build("float64", "float16")
    products = products_of(subject, exact.network)
    weights = {product: _cell(exact, product.owner).weight for product in products if product.owner}
    taps = _insert_taps(exact, products, batch)
    wanted = [*weights.values(), *(tap for tapped in taps.values() for tap in (tapped.before, tapped.after))]
    found = dict(zip([id(one) for one in wanted], _gradients(exact, layout, wanted)(*arguments[1.0]), strict=True))
    ranges: dict[str, dict[str, Range]] = {}
    for product, tapped in taps.items():
        parts = {"result": tapped.after, "between": tapped.before}
        if product.owner:
            parts["weights"] = weights[product]
        kind = ranges.setdefault(product.kind, dict.fromkeys(parts, NOTHING))
        for name, parameter in parts.items():
            kind[name] = kind[name] + range_of([found[id(parameter)].asnumpy()])
    of_half = _gradients(half, layout, [_cell(half, product.owner).weight for product in weights])
    errors, lost = {}, {}
    true = [found[id(one)].asnumpy() for one in weights.values()]
    for scale in SCALES:
        rounded = [gradient.asnumpy() / scale for gradient in of_half(*arguments[scale])]
        errors[scale] = _by_kind(list(weights), true, rounded)
        lost[scale] = sum(int((~np.isfinite(one)).sum()) for one in rounded)
    return Backward(len(rows), ranges, errors, lost)


def _cell(model: nn.Cell, name: str) -> Any:
    return dict(model.cells_and_names())[name]


def _insert_taps(model: nn.Cell, products: Sequence[Product], batch: GraphBatch) -> dict[Product, Tapped]:
    """Taps around the last cell of the products of the first, the middle and the last layer, and behind these."""
    layers = [layer for layer in dict.fromkeys(product.layer for product in products) if layer != PRE_POOL]
    tapped = {layers[0], layers[len(layers) // 2], layers[-1], PRE_POOL}
    inputs = record(model, products, batch)
    cells: dict[str, Any] = dict(model.cells_and_names())
    taps = {}
    for k, product in enumerate(products):
        if product.layer not in tapped:
            continue
        name = f"{product.owner}.mixing" if product.owner else product.couple
        given, (parent, attribute) = inputs[name], name.rsplit(".", 1)
        result = cells[name](*given)
        taps[product] = Tapped(cells[name], given[0].shape, result.shape, given[0].dtype)
        setattr(cells[parent], attribute, taps[product])
        taps[product].before.name, taps[product].after.name = f"before.{k}", f"after.{k}"  # the cells name all alike
    return taps


def _gradients(model: nn.Cell, layout: Layout, parameters: Sequence[Parameter]) -> Any:
    """The arguments of a loss to its gradients, compiled: those of a loss on forces are wrong otherwise."""
    model.set_train()
    forward = loss_of(model, layout, parameters[0].dtype)
    derive = ms.grad(forward, None, ParameterTuple(parameters), has_aux=True)

    def gradients(*arguments):
        return derive(*arguments)[0]

    return ms.jit(gradients)


def _by_kind(products: Sequence[Product], true: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> dict[str, Error]:
    """The error of the gradients of each kind of product, of all layers together."""
    result = {}
    for kind in dict.fromkeys(product.kind for product in products):
        places = [k for k, product in enumerate(products) if product.kind == kind]
        result[kind] = error_of([true[k] for k in places], [found[k] for k in places])
    return result
