"""Laws of what atoms do to a prediction: differences, completeness, order of atoms, padding, sums of the readout."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from helpers import BUDGET, CASES, SEGNN, TRANSFORMER, Case, assert_close, build, molecules, on_path
from mindspore import Tensor

from data_tools.graph import Structure
from models import DIRECT, MODELS
from models.atom_scale import scale_elements
from models.elements import ElementEmbedding
from physics.attribution import COMPLETE, AttentionOfBlocks, ScaleDerivative, attribute, quadrature, received
from training.step import to_tensors

#: every model, sums, a mean, a weighted one, a dipole and pooled features
OF_TABLE = ("schnet", "schnet-mean", "schnet-attention", "schnet-dipole", "dimenetpp")
LINES = (
    *(case for case in CASES if case.name in OF_TABLE),
    Case("segnn", "segnn", SEGNN | {"task": "graph", "node_features": "cormorant"}, 2.5),
    Case("graph_attention_transformer", "graph_attention_transformer", TRANSFORMER | {"envelope": "none"}, 3.0),
    Case(
        "equivariant_potential", "equivariant_potential",
        {"irreps": "4x0e+3x1o", "blocks": 1, "lmax": 1, "bessel": 3, "gaussians": 3, "average_degree": 5.0}, 3.0,
    ),
)  # fmt: skip
STEP = 1e-4
INTERMEDIATE = 0.6  # integrated gradients are made of derivatives like the one here


class Atoms:
    """A model with its compiled derivative; structures in, arrays of their real atoms out."""

    def __init__(self, case: Case):
        self.case = case
        with on_path("kernels"):
            self.model = build(case)
        self.size = BUDGET.nodes
        self.alpha = scale_elements(self.model, self.size)
        self.derivative = ScaleDerivative(self.model, self.alpha)

    def at(self, factor: float, structures: list[Structure]) -> np.ndarray:
        """dy/d alpha of all atoms."""
        inputs = self.case.batch(structures).inputs
        slope = self.derivative.at(factor, to_tensors(inputs))[2]
        assert not slope[inputs.node_mask == 0].any()  # ghosts
        return slope[inputs.node_mask == 1, 0]

    def outputs(self, factors: np.ndarray, structures: list[Structure]) -> np.ndarray:
        """y of each structure with a factor for each node."""
        self.alpha.set_data(Tensor(factors.reshape(-1, 1), self.alpha.dtype))
        return self.derivative(*to_tensors(self.case.batch(structures).inputs))[0][1].asnumpy()[: len(structures)]


@pytest.fixture(scope="module", params=LINES, ids=lambda case: case.name)
def atoms(request):
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield Atoms(request.param)
    ms.set_context(mode=before)


def shuffled(structure: Structure) -> tuple[Structure, np.ndarray]:
    order = np.random.default_rng(4).permutation(len(structure.numbers))
    return Structure(structure.numbers[order], structure.positions[order]), order


def check_differences(atoms):
    """The gradient is that of differences: a factor of one atom changed at a time."""
    structures = molecules()
    slope = atoms.at(INTERMEDIATE, structures)
    for atom in (2, 10):  # of the first two molecules
        ends = []
        for sign in (1, -1):
            factors = np.full(atoms.size, INTERMEDIATE)
            factors[atom] += sign * STEP
            ends.append(atoms.outputs(factors, structures).sum())
        assert_close(np.array([slope[atom]]), np.array([(ends[0] - ends[1]) / (2 * STEP)]), "differences")


def check_attention(atoms):
    """Without an envelope each atom gives 1 in all; what atoms get follows their order and no padding."""
    attention = AttentionOfBlocks(atoms.model)

    def of(structures):
        inputs = atoms.case.batch(structures).inputs
        weights = [one.asnumpy() for one in attention(*to_tensors(inputs))]
        given = np.bincount(inputs.receivers, weights=weights[0].mean(axis=1))
        assert_close(given[inputs.node_mask == 1], np.ones(int(inputs.node_mask.sum())), "symmetry")
        return received(weights, inputs)[inputs.node_mask == 1]

    structures = molecules()
    together = of(structures)
    assert together.mean() == pytest.approx(1) and np.ptp(together) > 0.1
    assert_close(np.concatenate([of([one]) for one in structures]), together, "padding")
    first, order = shuffled(structures[0])
    assert_close(of([first]), together[: len(order)][order], "symmetry")


def test_laws(atoms):
    """One test, so that each model is compiled once."""
    structures = molecules()
    check_differences(atoms)
    together = atoms.at(INTERMEDIATE, structures)
    assert_close(np.concatenate([atoms.at(INTERMEDIATE, [one]) for one in structures]), together, "padding")
    first, order = shuffled(structures[0])
    assert_close(atoms.at(INTERMEDIATE, [first]), together[: len(order)][order], "symmetry")
    if hasattr(atoms.model.network, "attention"):
        check_attention(atoms)
    inputs = atoms.case.batch(structures).inputs
    found = attribute(atoms.derivative, inputs, to_tensors(inputs))
    sums = np.bincount(inputs.node_graph, weights=found.integrated)[: len(structures)]
    difference = (found.outputs - found.without)[: len(structures)]
    size = np.bincount(inputs.node_graph, weights=np.abs(found.integrated))[: len(structures)]
    assert (np.abs(sums - difference) <= COMPLETE * size).all() and np.abs(difference).min() > 1e-3
    n = np.array([len(one.numbers) for one in structures])
    kind = getattr(atoms.model.head, "kind", None)
    if atoms.case.name == "schnet-attention":
        added, shares = (np.bincount(inputs.node_graph, weights=column)[: len(structures)] for column in found.values.T)
        assert_close(added, found.outputs[: len(structures)], "symmetry")
        assert_close(shares, np.ones(len(structures)), "symmetry")
        assert np.ptp(found.values[: n[0], 1]) > 1e-2
    if found.values.shape[1] == 1 and kind in ("sum", "mean"):
        added = np.bincount(inputs.node_graph, weights=found.values[:, 0])[: len(structures)]
        assert_close(added / (n if kind == "mean" else 1), found.outputs[: len(structures)], "symmetry")


def test_eager_mode_gives_the_same():
    before = ms.get_context("mode")
    found = []
    try:
        for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
            ms.set_context(mode=mode)
            one = Atoms(LINES[0])
            found.append(one.at(INTERMEDIATE, molecules()))
            check_differences(one)
    finally:
        ms.set_context(mode=before)
    assert_close(found[1], found[0], "modes")


def test_every_model_of_energies_is_looked_at():
    assert {case.model for case in LINES} == set(MODELS) and not set(DIRECT) & {case.model for case in LINES}


def test_the_sum_is_an_integral():
    places, weights = quadrature(32)
    for power in (0, 1, 2, 7):
        assert (weights * places**power).sum() == pytest.approx(1 / (power + 1), rel=1e-12)


def test_a_network_without_elements_is_refused():
    with pytest.raises(ValueError, match="expected a network with a table of elements"):
        scale_elements(ms.nn.Dense(2, 2), 3)
    table = ElementEmbedding(2, ms.common.initializer.Normal(1.0), ms.float32)
    assert scale_elements(table, 3) is table.scale


def test_pieces_find_a_sharp_turn():
    """A step of width 1e-5 at alpha = 0.3, which points that lie as close everywhere do not see."""

    class Sharp:
        def at(self, factor, tensors):
            turn = np.tanh((factor - 0.3) / 1e-5)
            slope = np.array([[1.0 + (1 - turn**2) / 1e-5], [2.0], [0.0]])
            return np.array([3.0 * factor + turn, 0.0]), np.zeros((3, 1)), slope

    inputs = SimpleNamespace(node_graph=np.array([0, 0, 1]), graph_mask=np.array([1.0, 0.0]))
    found = attribute(Sharp(), inputs, ())
    assert found.incomplete.max() <= COMPLETE and found.integrated[:2] == pytest.approx([3.0, 2.0], rel=1e-3)
