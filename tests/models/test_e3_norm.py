"""models/e3/norm.py: e3nn's numbers, the definitions in NumPy, statistics, ghosts, equivariance and derivatives."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from e3_laws import GOLDEN, as_e3nn, assert_equivariant, assert_three_orders, here, random_parameters
from helpers import assert_close
from mindspore import Tensor, nn

from models.e3.irreps import Irreps
from models.e3.norm import EPS, SHARE, BatchNorm, EquivariantLayerNorm, GraphNorm, InstanceNorm
from models.graph_attention_transformer import FLOOR

IRREPS = Irreps("3x0e+2x0o+2x1o+1x0e+2x2e")
#: graphs of four nodes, one node and three; a graph without nodes; the last one is that of the ghosts
NODE_GRAPH = np.array([0, 0, 0, 0, 1, 2, 2, 2, 4, 4], np.int32)
REAL = NODE_GRAPH < 4
GRAPH_MASK = np.array([1.0, 1, 1, 0, 0])
GRAPHS = Tensor(NODE_GRAPH), Tensor(REAL.astype(float)), Tensor(GRAPH_MASK)
BY_GRAPH = [InstanceNorm, GraphNorm]
EVERY = [*BY_GRAPH, BatchNorm, EquivariantLayerNorm]


def smooth(irreps, dtype):
    """The layer norm of crystals."""
    return EquivariantLayerNorm(irreps, dtype, FLOOR)


def others_of(norm):
    """What a norm takes beside the features."""
    return {BatchNorm: GRAPHS[1:2], EquivariantLayerNorm: (), smooth: ()}.get(norm, GRAPHS)


def feature(seed, irreps=IRREPS):
    """A feature (N, dim) whose channels have means and sizes of their own, in e3nn's layout."""
    random = np.random.default_rng(seed)
    return random.normal(size=(len(NODE_GRAPH), irreps.dim)) * random.uniform(0.5, 2, irreps.dim) + 0.7


def parts_of(irreps, x):
    """Each irrep with its feature, (N, copies, 2 l + 1)."""
    for part, place in zip(irreps, irreps.slices(), strict=True):
        yield part.ir, x[:, place].reshape(len(x), part.mul, part.ir.dim)


def by_definition(norm, layer, x):
    """Equation (1) irrep by irrep, a graph at a time, in e3nn's layout."""
    weight, bias, shift = (
        None if one is None else one.asnumpy()
        for one in (
            (layer.weight, layer.bias, None) if norm in (BatchNorm, InstanceNorm)
            else (layer.affine_weight, layer.affine_bias, getattr(layer, "mean_shift", None))
        )
    )  # fmt: skip
    alone = norm in (EquivariantLayerNorm, smooth)
    sets = np.arange(len(x)) if alone else {BatchNorm: np.where(REAL, 0, 1)}.get(norm, NODE_GRAPH)
    fields, channel, scalar = [], 0, 0
    for ir, field in parts_of(IRREPS, x):
        copies = field.shape[1]
        result = np.empty_like(field)
        w = weight[channel : channel + copies, None]
        b = bias[scalar : scalar + copies, None] if ir.is_scalar else 0.0
        share = shift[scalar : scalar + copies, None] if ir.is_scalar and shift is not None else 1.0
        axes = (0, 1) if alone else 0  # of the means, beside the components
        for number in np.unique(sets):
            rows = field[sets == number]
            if ir.is_scalar or (norm is InstanceNorm and ir.l == 0):
                rows = rows - share * rows.mean(axes, keepdims=True)
            squares = (rows**2).mean(2, keepdims=True).mean(axes, keepdims=True)
            result[sets == number] = (
                w * rows / np.sqrt(squares + (FLOOR if norm is smooth and not ir.is_scalar else EPS)) + b
            )
        fields.append(result.reshape(len(x), -1))
        channel += copies
        scalar += copies * ir.is_scalar
    return np.concatenate(fields, 1)


@pytest.mark.parametrize("norm", [*EVERY, smooth])
@pytest.mark.parametrize("numbers, tolerance", [(np.float64, 1e-13), (np.float32, 2e-5)])
def test_definitions(path, norm, numbers, tolerance):
    x = feature(0)
    layer = random_parameters(norm(IRREPS, ms.float64 if numbers == np.float64 else ms.float32).set_train(True))
    others = [one.astype(ms.float32) if one.dtype == ms.float64 and numbers == np.float32 else one
              for one in others_of(norm)]  # fmt: skip
    found = layer(Tensor(here(IRREPS, x).astype(numbers)), *others).asnumpy()
    expected = by_definition(norm, layer, x)
    assert found.dtype == numbers
    assert np.abs(as_e3nn(IRREPS, found) - expected)[REAL].max() <= tolerance * np.abs(expected).max()
    assert np.isfinite(found).all()


def test_batch_norm_of_e3nn():
    irreps = GOLDEN["batchnorm/irreps"].item()
    layer, x = BatchNorm(irreps, ms.float64), Tensor(here(irreps, GOLDEN["batchnorm/x"]))
    mask = Tensor(np.ones(len(GOLDEN["batchnorm/x"])))
    layer.weight.set_data(Tensor(GOLDEN["batchnorm/w"]))
    layer.bias.set_data(Tensor(GOLDEN["batchnorm/b"]))
    cells = {"running_mean": layer.running_mean, "running_var": layer.running_var}
    for cell in cells.values():
        cell.noting = True
    found = as_e3nn(irreps, layer.set_train(True)(x, mask).asnumpy())
    assert np.abs(found - GOLDEN["batchnorm/y_train"]).max() <= 1e-12
    for name, cell in cells.items():
        value, observed = cell.value.asnumpy(), cell.observed_of_step.asnumpy()
        after = value + SHARE * (observed - value)  # as training.running_values takes it
        assert np.abs(after - GOLDEN[f"batchnorm/{name}"]).max() <= 1e-14
        cell.value.set_data(Tensor(after))
    found = as_e3nn(irreps, layer.set_train(False)(x, mask).asnumpy())
    assert np.abs(found - GOLDEN["batchnorm/y_eval"]).max() <= 1e-12


@pytest.mark.parametrize("norm", [BatchNorm, InstanceNorm])
def test_statistics(norm):
    """Scalars have the mean 0 and every channel the mean square 1, over the real rows of a graph or of the batch."""
    x = Tensor(here(IRREPS, 10 * feature(1)))
    found = as_e3nn(IRREPS, norm(IRREPS, ms.float64).set_train(True)(x, *others_of(norm)).asnumpy())
    for rows in [REAL] if norm is BatchNorm else [NODE_GRAPH == 0, NODE_GRAPH == 2]:
        for ir, field in parts_of(IRREPS, found[rows]):
            if ir.is_scalar:
                assert np.abs(field.mean(0)).max() < 1e-14
            assert np.abs((field**2).mean((0, 2)) - 1).max() < 1e-4  # EPS / s


def test_a_graph_of_one_node_has_scalars_of_zero():
    found = InstanceNorm(IRREPS, ms.float64)(Tensor(here(IRREPS, feature(2))), *GRAPHS).asnumpy()
    scalars = [part for part, (_, ir) in zip(IRREPS.slices(), IRREPS, strict=True) if ir.l == 0]
    assert not any(found[4, part].any() for part in scalars) and found[4].any()


@pytest.mark.parametrize("norm", EVERY)
def test_ghosts_change_nothing(norm):
    layer = random_parameters(norm(IRREPS, ms.float64).set_train(True))
    x = feature(3)
    other = np.where(REAL[:, None], x, 100 * feature(4))
    found, changed = (layer(Tensor(here(IRREPS, one)), *others_of(norm)).asnumpy() for one in (x, other))
    assert_close(changed[REAL], found[REAL], "padding")
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("norm", [*EVERY, smooth])
def test_rotation_and_inversion(norm):
    layer = random_parameters(norm(IRREPS, ms.float64).set_train(True))
    assert_equivariant(layer, IRREPS, IRREPS, feature(5), *others_of(norm))


@pytest.mark.parametrize("norm", EVERY)
def test_irreps_without_scalars(norm):
    layer = norm("2x1o+0x0e+1x0o", ms.float64).set_train(True)
    assert all("weight" in parameter.name for parameter in layer.trainable_params())
    found = layer(Tensor(feature(6, Irreps("2x1o+1x0o"))), *others_of(norm)).asnumpy()
    assert np.isfinite(found).all() and found.any()


@pytest.mark.parametrize("norm, gain", [(EquivariantLayerNorm, EPS**-0.5), (smooth, FLOOR**-0.5)])
def test_what_becomes_of_vectors_that_vanish_by_symmetry(norm, gain):
    """Near an inversion centre: the original's norm makes them 316 times as large, the smooth one leaves them."""
    irreps = Irreps("2x0e+3x1o+1x2e")
    x = feature(8, irreps)
    x[:, 2:] *= 1e-6
    found = norm(irreps, ms.float64)(Tensor(x)).asnumpy()
    np.testing.assert_allclose(found[:, 2:], gain * x[:, 2:], rtol=1e-6)


class OneAfterTheOther(nn.Cell):
    """The norms without running means, in one function to compile."""

    def __init__(self, irreps):
        super().__init__()
        self.instance, self.graph = InstanceNorm(irreps, ms.float64), GraphNorm(irreps, ms.float64)
        self.layer = EquivariantLayerNorm(irreps, ms.float64)

    def construct(self, x, node_graph, node_mask, graph_mask):
        x = self.layer(x)
        x = self.graph(x * x, node_graph, node_mask, graph_mask)
        return self.instance(x * x * x, node_graph, node_mask, graph_mask)


@pytest.mark.parametrize("cell, others", [(OneAfterTheOther, GRAPHS), (BatchNorm, GRAPHS[1:2])])
def test_derivatives_to_third_order(graph_mode, cell, others):
    """In the features and in the parameters; at features of zero too."""
    irreps = Irreps("2x0e+1x1o")
    layer = random_parameters(cell(irreps, ms.float64) if cell is BatchNorm else cell(irreps))
    x = feature(7, irreps)
    gradients = assert_three_orders(layer, x, *others, finite_at=0 * x, trains=True)
    assert gradients["x"].any()
