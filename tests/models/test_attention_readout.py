"""The readout with attention: the mean where scores do not count, weights that are 1 in all, one atom, large scores."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import (
    BUDGET,
    DIMENETPP,
    ONE_BLOCK,
    SEGNN,
    TRANSFORMER,
    Bench,
    Case,
    assert_close,
    build,
    model_of,
    molecule,
    molecules,
)
from mindspore import Tensor

from data_tools.graph import Structure
from models.heads import FIRST_SHARPNESS, AttentionReadout
from physics.derivatives import EnergyAndForces
from training.step import to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

CASE = Case("schnet-attention", "schnet", ONE_BLOCK | {"readout": "attention"}, 3.0)
ARGON = Structure(np.array([18]), np.zeros((1, 3)))
MODES = (ms.GRAPH_MODE, ms.PYNATIVE_MODE)


def head(outputs: int, sharpness: float) -> AttentionReadout:
    made = AttentionReadout(outputs, ms.float64)
    made.sharpness.set_data(Tensor(np.full(outputs, sharpness)))
    return made


def graph(structures):
    """The ten graph inputs, and the atoms of each structure."""
    inputs = CASE.batch(structures).inputs
    ends = np.cumsum([len(one.numbers) for one in structures])
    return to_tensors(inputs), [slice(*pair) for pair in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["kernels", "operators"])
def test_without_sharpness_it_is_the_mean(path, mode):
    """Outputs and forces, of the same weights; with sharpness they are others."""
    ms.set_context(mode=mode)
    bench = Bench(CASE, path)
    sharp = bench.run(molecules())
    bench.model.head.sharpness.set_data(Tensor([0.0], ms.float64))
    outputs, forces = bench.run(molecules())
    inputs, parts = graph(molecules())
    values = bench.model.network(*inputs)[0].asnumpy()[:, 0]
    assert_close(outputs, np.array([values[part].mean() for part in parts]), "symmetry")
    mean = bench.model
    mean.head = MeanOfFirst()
    assert_close(forces, EnergyAndForces(mean)(*inputs)[1].asnumpy()[: len(forces)], "symmetry")
    assert np.abs(sharp[0] - outputs).min() > 1e-3 and np.abs(sharp[1] - forces).max() > 1e-3


class MeanOfFirst(ms.nn.Cell):
    """The mean of the first column, by hand."""

    def construct(self, values, *graph):
        node_graph, node_mask, graph_mask = graph[-3:]
        totals = ms.ops.UnsortedSegmentSum()(values[:, 0] * node_mask, node_graph, graph_mask.shape[0])
        members = ms.ops.UnsortedSegmentSum()(node_mask, node_graph, graph_mask.shape[0])
        return totals / (members + (1 - graph_mask))


@pytest.mark.parametrize("mode", MODES)
def test_against_numpy(mode):
    """Two outputs with scores of their own, some very large; one atom; ghosts and graphs without atoms."""
    ms.set_context(mode=mode)
    structures = [molecule("CH3CH2OH"), ARGON, molecule("H2O")]
    inputs, parts = graph(structures)
    values = np.random.default_rng(0).normal(size=(BUDGET.nodes, 4))
    values[:, 3] *= 1e4
    made = head(2, 2.0)
    found = made(Tensor(values), *inputs).asnumpy()
    both = made.contributions(Tensor(values), *inputs[-3:]).asnumpy()
    assert np.isfinite(found).all() and not found[len(parts) :].any() and not both[parts[-1].stop :].any()
    for row, part in enumerate(parts):
        powers = np.exp(2 * (values[part, 2:] - values[part, 2:].max(axis=0)))
        weights = powers / powers.sum(axis=0)
        assert_close(both[part, 2:], weights, "symmetry")
        assert_close(both[part, :2], weights * values[part, :2], "symmetry")
        assert_close(found[row], (weights * values[part, :2]).sum(axis=0), "symmetry")
    assert found[1] == pytest.approx(values[parts[1], :2][0])


def test_a_lone_atom_has_no_gradient_of_its_score():
    """One weight of 1, whatever the score; the value has all of the gradient."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    inputs, (part,) = graph([ARGON])
    made = head(1, 2.0)
    slope = ms.grad(lambda values: made(values, *inputs).sum())(Tensor(np.full((BUDGET.nodes, 2), 3.0))).asnumpy()
    assert slope[part].tolist() == [[1.0, 0.0]] and not slope[part.stop :].any()


def test_scores_of_zero_can_learn():
    """As those of a network whose last layer begins with zeros, once the values differ."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    inputs, (part, *_) = graph(molecules())
    values = np.zeros((BUDGET.nodes, 2))
    values[:, 0] = np.arange(BUDGET.nodes)
    slope = ms.grad(lambda values: AttentionReadout(1, ms.float64)(values, *inputs).sum())(Tensor(values)).asnumpy()
    own = values[part, 0]
    assert_close(slope[part, 1], FIRST_SHARPNESS * (own - own.mean()) / len(own), "symmetry")


@pytest.mark.parametrize("model, changes", [("dimenetpp", DIMENETPP), ("segnn", SEGNN)])
def test_other_networks_have_it(model, changes):
    """The value of a structure is between those of its atoms, and not their mean."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    case = Case(model, model, changes | {"readout": "attention"}, 2.5)
    made = build(case)
    inputs = to_tensors(case.batch(molecules()).inputs)
    found = made(*inputs).asnumpy()
    values = made.network(*inputs)[0].asnumpy()[:9, 0]
    assert values.min() < found[0] < values.max() and abs(found[0] - values.mean()) > 1e-6 and not found[3:].any()


def test_it_begins_near_the_mean():
    model = model_of("schnet", readout="attention", **ONE_BLOCK)
    mean = model_of("schnet", readout="mean", **ONE_BLOCK)
    added = sum(p.size for p in model.trainable_params()) - sum(p.size for p in mean.trainable_params())
    assert added == ONE_BLOCK["features"] // 2 + 1 + 1  # a row and its bias, and the sharpness
    assert 0 < float(model.head.sharpness.asnumpy()[0]) == pytest.approx(FIRST_SHARPNESS)


@pytest.mark.parametrize(
    "model, changes",
    [("graph_attention_transformer", TRANSFORMER), ("segnn", SEGNN | {"task": "graph"})],
)
def test_a_network_without_scores_is_refused(model, changes):
    with pytest.raises(ValueError, match="readout attention: expected a network of atom values with outputs"):
        model_of(model, readout="attention", cutoff=3.0, **changes)


def test_readouts_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="readout 'attention': expected one of sum, mean"):
        model_of("schnet", readout=("attention", "sum"), **ONE_BLOCK | {"outputs": 2})
    model = model_of("schnet", readout=("attention", "attention"), **ONE_BLOCK | {"outputs": 2})
    assert model.head.sharpness.shape == (2,)
