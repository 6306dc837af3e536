"""Every product of a SEGNN in float16 beside float64: the model's own cells, given what the float64 model gives them.

A product is what stands between two nonlinearities: the coupling with the attributes, or the turn into the frame of an
edge, and the mixing of channels.  Its inputs are rounded to float16, and so is what passes from the first to the
second.  A path alone is the same product with the weights of all other paths set to 0.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_products.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from data_tools.graph import GraphBatch
from models.e3.block_product import BlockProduct, BlockSum
from models.e3.channel_mixing import ChannelMixing
from models.e3.hidden_irreps import with_gates
from models.e3.irreps import Irreps
from models.e3.tensor_product import fully_connected_paths
from scripts.ncon_parts.ncon_ranges import Error, Range, error_of, range_of
from scripts.ncon_parts.ncon_subject import Subject
from training.step import to_tensors

MESSAGES, OUT, UPDATES, PRE_POOL = ("message 1", "message 2"), "out of frame", ("update 1", "update 2"), "pre-pool"
KINDS = (*MESSAGES, OUT, *UPDATES, f"{PRE_POOL} 1", f"{PRE_POOL} 2")
DEPTH = 4096  # terms of the sum that shows how a product adds


class Product(NamedTuple):
    """One product of a model.

    Attributes:
        layer: ``1`` and so on, or ``pre-pool``.
        kind: one of ``KINDS``.
        couple: name of the cell that multiplies with attributes or rotations; empty: none.
        owner: name of the cell that has the weights and the ``mixing``; empty: none.
        irreps: of the features and of the result; None where there are no weights.
    """

    layer: str
    kind: str
    couple: str
    owner: str
    irreps: tuple[Irreps, Irreps] | None


class Measured(NamedTuple):
    """A product in float16.

    Attributes:
        product: which.
        error: of the result.
        emulated: of the result, with operands rounded to float16, sums in float32 and one rounding at the end.
        ranges: of its inputs, of what passes inside of it, and of its result, by name.
        paths: ``l1 x l2 -> l3`` to the error and the range of what this path adds.
    """

    product: Product
    error: Error
    emulated: Error
    ranges: dict[str, Range]
    paths: dict[str, tuple[Error, Range]]


class Wide(nn.Cell):
    """A product of matrices of float16 numbers that adds in float32 and rounds once."""

    def __init__(self, multiply: Any):
        super().__init__(auto_prefix=False)
        self.operator = multiply

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        """As the operator's."""
        return ops.cast(self.operator(ops.cast(x, mstype.float32), ops.cast(y, mstype.float32)), x.dtype)


def products_of(subject: Subject, network: Any) -> list[Product]:
    """All products of a network, in its order."""
    irreps, found = network.irreps, []
    inner = with_gates(irreps) if irreps.lmax else irreps
    for k, layer in enumerate(network.layers):
        message, update = f"network.layers.{k}.message", f"network.layers.{k}.update"
        number = str(k + 1)
        ends = layer.message.into.irreps_out
        found += [
            Product(number, MESSAGES[0], f"{message}.into", f"{message}.first", (ends, inner)),
            Product(number, MESSAGES[1], "", f"{message}.second", (irreps, inner)),
            Product(number, OUT, f"{message}.out.sum", "", None),
            _steerable(number, UPDATES[0], f"{update}_first", (irreps + irreps, inner)),
            _steerable(number, UPDATES[1], f"{update}_second", (irreps, irreps)),
        ]
    outputs = subject.model.outputs if subject.model.task == "node" else network.pooled
    read = Irreps([(outputs, "0e")])
    return [
        *found,
        _steerable(PRE_POOL, f"{PRE_POOL} 1", "network.pre_pool_first", (irreps, inner)),
        _steerable(PRE_POOL, f"{PRE_POOL} 2", "network.pre_pool_second", (irreps, read)),
    ]


def _steerable(layer: str, kind: str, name: str, irreps: tuple[Irreps, Irreps]) -> Product:
    return Product(layer, kind, f"{name}.product.couple", f"{name}.product", irreps)


def emulate(model: nn.Cell) -> nn.Cell:
    """Have the products of a model add in float32, whatever the operators of the device do; returns it."""
    for _, cell in model.cells_and_names():
        if isinstance(cell, BlockProduct | BlockSum):
            cell.multiply = Wide(cell.multiply)
        elif isinstance(cell, ChannelMixing):
            cell.product.multiply = Wide(cell.product.multiply)
    return model


def record(model: nn.Cell, products: Sequence[Product], batch: GraphBatch) -> dict[str, tuple]:
    """What the cells of products are given in a run of the model, by name."""
    kept: dict[str, tuple] = {}
    cells = dict(model.cells_and_names())
    handles = []

    def note(name: str) -> Any:
        def hook(cell: nn.Cell, inputs: tuple) -> None:
            kept[name] = inputs

        return hook

    for product in products:
        for name in (product.couple, f"{product.owner}.mixing" if product.owner else ""):
            if name:
                handles.append(cells[name].register_forward_pre_hook(note(name)))
    model(*to_tensors(batch.inputs))
    for handle in handles:
        handle.remove()
    return kept


def measure_products(subject: Subject, batch: GraphBatch) -> list[Measured]:
    """All products of a subject in float16, for one batch without ghost edges."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    exact, half = subject.build("float64", "float64"), subject.build("float64", "float16")
    wide = emulate(subject.build("float64", "float16"))
    products = products_of(subject, exact.network)
    inputs = record(exact, products, batch)
    cells = [dict(model.cells_and_names()) for model in (exact, half, wide)]
    atoms = len(batch.inputs.numbers) - 1  # without the ghost
    return [_measure(subject, product, inputs, cells, atoms) for product in products]


def _measure(
    subject: Subject, product: Product, inputs: Mapping[str, tuple], cells: Sequence[Mapping[str, nn.Cell]], atoms: int
) -> Measured:
    between = [_coupled(product, inputs, one) for one in cells]
    count = atoms if product.kind not in (*MESSAGES, OUT) else 0
    exact, half, wide = (_arrays(_mixed(product, z, one, None), count) for z, one in zip(between, cells, strict=True))
    ranges = _input_ranges(product, inputs, cells[0], atoms)
    if product.couple and product.owner:
        ranges["between"] = range_of(*(_arrays(z, count) for z in between[:2]))
    ranges["result"] = range_of(exact, half)
    paths = {}
    for name, mask in _path_masks(subject, product).items():
        alone, rounded = (
            _arrays(_mixed(product, z, one, mask), count) for z, one in zip(between[:2], cells[:2], strict=True)
        )
        paths[name] = error_of(alone, rounded), range_of(alone, rounded)
    return Measured(product, error_of(exact, half), error_of(exact, wide), ranges, paths)


def _coupled(product: Product, inputs: Mapping[str, tuple], cells: Mapping[str, Any]) -> Any:
    """What the channels are mixed of: the coupled features, or the features where they stand in the frame already."""
    if not product.couple:
        return inputs[f"{product.owner}.mixing"][0]
    cell = cells[product.couple]
    kind = (cell.into.product if product.kind == MESSAGES[0] else cell).contraction
    return cell(*_in_precision(inputs[product.couple], kind))


def _mixed(product: Product, z: Any, cells: Mapping[str, Any], mask: np.ndarray | None) -> Any:
    """The result of a product without its bias, with all weights or with some."""
    if not product.owner:
        return z
    owner = cells[product.owner]
    weight = owner.weight if mask is None else owner.weight * Tensor(mask, owner.weight.dtype)
    return owner.mixing(z, weight, None)


def _in_precision(arguments: tuple, kind: mstype.Type) -> tuple:
    """The arguments of a cell that couples, with the matrices in the precision of its contraction."""
    features, matrices, *others = arguments
    if isinstance(matrices[0], tuple):  # frames: the rotations, and squared lengths, which the cell rounds itself
        matrices = (tuple(ops.cast(one, kind) for one in matrices[0]), *matrices[1:])
    else:
        matrices = tuple(ops.cast(one, kind) for one in matrices)
    return (features, matrices, *others)


def _arrays(tensors: Any, atoms: int = 0) -> list[np.ndarray]:
    """A tensor or nested tuples of them as arrays.

    Args:
        tensors: what has rows of edges, or of atoms.
        atoms: how many of the atoms are real, where the rows belong to them and to one ghost; 0: all rows count.
    """
    if isinstance(tensors, tuple | list):
        return [array for one in tensors for array in _arrays(one, atoms)]
    array = tensors.asnumpy()
    return [array[: len(array) // (atoms + 1) * atoms] if atoms else array]


def _input_ranges(
    product: Product, inputs: Mapping[str, tuple], cells: Mapping[str, Any], atoms: int
) -> dict[str, Range]:
    """The ranges of what goes into a product."""
    features, matrices, *_ = inputs[product.couple or f"{product.owner}.mixing"]
    found: dict[str, Range] = {}
    if product.kind == MESSAGES[0]:
        found["features"], found["rotations"] = range_of(_arrays(features, atoms)), range_of(_arrays(matrices[0]))
        found["squared lengths"] = range_of(_arrays(matrices[1]))
    elif product.kind == MESSAGES[1]:
        found["features"] = range_of(_arrays(features))
    elif product.kind == OUT:
        found["features"], found["rotations"] = range_of(_arrays(features)), range_of(_arrays(matrices))
    else:
        found["features"], found["attributes"] = (range_of(_arrays(one, atoms)) for one in (features, matrices))
    if product.owner:
        owner = cells[product.owner]
        found["weights"] = range_of(_arrays(owner.mixing.weights(owner.weight.reshape(1, -1))))
    return found


def _path_masks(subject: Subject, product: Product) -> dict[str, np.ndarray]:
    """For each ``l1 x l2 -> l3`` of a product, (numel,) 1 where a weight belongs to it."""
    if product.irreps is None:
        return {}
    attributes = Irreps.spherical_harmonics(subject.model.lmax_attributes)
    source, target = product.irreps
    names, sizes = [], []
    for i, j, k in fully_connected_paths(source, attributes, target):
        names.append(f"{source[i].ir.l} x {attributes[j].ir.l} -> {target[k].ir.l}")
        sizes.append(source[i].mul * target[k].mul)
    of_weights = np.repeat(names, sizes)
    return {name: (of_weights == name).astype(np.float64) for name in dict.fromkeys(names)}


def accumulation() -> str:
    """How the device's products of float16 matrices add, by sums that a float16 sum gets wrong."""
    ones = np.ones((1, DEPTH))
    large = np.array([[6e4, 6e4, -6e4]])
    kept = True
    for operator, batched in ((ops.MatMul(), False), (ops.BatchMatMul(), True)):
        for values, expected in ((ones, DEPTH), (large, 6e4)):
            x, y = values, np.ones((values.shape[1], 1))
            x, y = (one[None] if batched else one for one in (x, y))
            found = operator(Tensor(x, mstype.float16), Tensor(y, mstype.float16)).asnumpy()
            kept = kept and float(found.reshape(-1)[0]) == expected
    return "float32 or wider, rounded to float16 once" if kept else "less than float32"
