"""The laws of models of force constants themselves, on both paths; one of them is not equivariant, which is shown.

A matrix of force constants (3N, 3N) is made of the products with all unit probes.  All numbers are float64; the
tolerances stand in ``helpers.TOLERANCES``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import (
    BUDGET,
    PATHS,
    TIGHT,
    TOLERANCES,
    Case,
    assert_close,
    build,
    crystals,
    molecule,
    moved,
    on_path,
    repeated,
    rotations,
)
from mindspore import Tensor

from data_tools.graph import Structure
from data_tools.graphs.batching import build_graph
from models import DIRECT, BlockModel
from physics.derivatives import QUANTITIES, Compiled, DerivativeError, HessianProduct, has_energy, observables
from physics.hessian import exact_rows
from training.step import to_tensors

pytestmark = pytest.mark.usefixtures("graph_mode")

CUTOFF = 3.0
HEAD = {
    "irreps": "4x0e+3x1o+2x2e", "blocks": 1, "lmax": 2, "bessel": 3, "gaussians": 3, "channels": 2,
    "average_degree": 5.0,
}  # fmt: skip
TRANSFORMER = {"features": 6, "blocks": 1, "heads": 2, "gaussians": 4, "average_degree": 5.0}
CASES = (
    Case("direct_head", "direct_head", HEAD, CUTOFF),
    Case("direct_head-pairs", "direct_head", HEAD | {"channels": 0}, CUTOFF),
    Case("graph_transformer", "graph_transformer", TRANSFORMER, CUTOFF),
)
LINES = tuple((case, path) for case in CASES for path in case.paths)
SKEWED = crystals()[1]


class Bench:
    """A model with its compiled product and the gradient of a loss on products, of another budget on each path."""

    def __init__(self, case, path):
        self.case, self.path = case, path
        self.of_loss = BUDGET if path == PATHS[0] else TIGHT
        with on_path(path):
            self.model = build(case)
        self.product = HessianProduct(self.model)
        self.weights = ms.ParameterTuple(self.model.trainable_params())
        derive = observables(self.model, ("hessian_product",))

        def loss(*arguments):
            wrong = (derive(*arguments[:-1])[0] - arguments[-1]) * arguments[8].reshape(-1, 1)
            return (wrong * wrong).sum()

        self.gradient = Compiled(self.model, ms.value_and_grad(loss, None, self.weights))

    def products(self, structures, probe, budget=BUDGET):
        """Phi v (N, 3) of the real atoms for v (N, 3)."""
        inputs = to_tensors(self.case.batch(structures, budget).inputs)
        v = np.zeros((budget.nodes, 3))
        v[: len(probe)] = probe
        return self.product(*inputs, Tensor(v)).asnumpy()[: len(probe)]

    def matrix(self, structures):
        """Phi (3N, 3N) of the real atoms."""
        size = 3 * sum(len(structure.numbers) for structure in structures)
        return np.stack([self.products(structures, row.reshape(-1, 3)).ravel() for row in np.eye(size)], axis=1)

    def loss(self, structures):
        """A loss on products against fixed numbers, and its gradient of each parameter."""
        budget = self.of_loss
        random, atoms = np.random.default_rng(3), sum(len(structure.numbers) for structure in structures)
        v, target = np.zeros((2, budget.nodes, 3))
        v[:atoms], target[:atoms] = random.normal(size=(2, atoms, 3))
        found, gradients = self.gradient(
            *to_tensors(self.case.batch(structures, budget).inputs), Tensor(v), Tensor(target)
        )
        named = {p.name: gradient.asnumpy() for p, gradient in zip(self.weights, gradients, strict=True)}
        return float(found.asnumpy()), named


@pytest.fixture(scope="module", params=LINES, ids=lambda line: f"{line[0].name}-{line[1]}")
def bench(request):
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield Bench(*request.param)
    ms.set_context(mode=before)


def structures():
    """A crystal without symmetry, one of an atom and its images, and a molecule."""
    return [SKEWED, crystals()[0], molecule("H2O", 2)]


def probe_of(atoms, seed=0):
    return np.random.default_rng(seed).normal(size=(atoms, 3))


def blocks(matrix):
    """(3N, 3N) as (N, N, 3, 3)."""
    atoms = len(matrix) // 3
    return matrix.reshape(atoms, 3, atoms, 3).transpose(0, 2, 1, 3)


def turned(matrix, rotation):
    """R Phi_ij R^T of each block."""
    whole = np.kron(np.eye(len(matrix) // 3), rotation)
    return whole @ matrix @ whole.T


def test_they_are_in_the_table():
    assert {case.model for case in CASES} == DIRECT.keys()


def test_there_is_no_energy(bench):
    assert isinstance(bench.model, BlockModel) and not has_energy(bench.model)
    for quantity in QUANTITIES[:-1]:
        with pytest.raises(DerivativeError, match="expected hessian_product alone"):
            observables(bench.model, (quantity, "hessian_product"))


def test_sum_rule_exchange_symmetry_and_blocks_of_graphs(bench):
    """Exact by construction, of a cell whose atoms meet through several images."""
    matrix = bench.matrix(structures())
    parts = blocks(matrix)
    scale = np.abs(matrix).max()
    assert scale > 0.1 and np.isfinite(matrix).all()
    assert_close(parts.sum(1), np.zeros((7, 3, 3)), "symmetry", scale)
    assert_close(matrix, matrix.T, "symmetry", scale)
    assert np.abs(parts[:3, :3]).min() > 0 and not parts[:3, 3:].any() and not parts[3:4].any()  # its images move along
    assert not parts[4:, :4].any()


def test_blocks_need_not_be_symmetric(bench):
    """Where two edges of an atom are multiplied, and only there."""
    parts = blocks(bench.matrix([SKEWED]))
    of_two = np.abs(parts[0, 1] - parts[0, 1].T).max() / np.abs(parts[0, 1]).max()
    assert of_two > 1e-2 if bench.case.name == "direct_head" else of_two < TOLERANCES["symmetry"]


def test_permutation_translation_and_choice_of_the_cell(bench):
    (crystal,), v = [SKEWED], probe_of(3)
    expected = bench.products([crystal], v)
    order = np.array([2, 0, 1])
    other = Structure(crystal.numbers[order], crystal.positions[order], crystal.cell)
    assert_close(bench.products([other], v[order]), expected[order], "symmetry")
    displaced = crystal.positions + np.array([1.7, -20.3, 4.1])
    displaced[1] += crystal.cell[0] - 2 * crystal.cell[2]
    assert_close(bench.products([Structure(crystal.numbers, displaced, crystal.cell)], v), expected, "symmetry")
    sheared = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ crystal.cell
    assert_close(bench.products([Structure(crystal.numbers, crystal.positions, sheared)], v), expected, "symmetry")


def test_rotation_and_inversion_or_why_not(bench):
    """The graph transformer has other force constants for a crystal that is turned, also by a quarter of a turn."""
    matrix = bench.matrix([SKEWED])
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for rotation in (*rotations(2), quarter):
        found, expected = bench.matrix([moved(SKEWED, rotation)]), turned(matrix, rotation)
        if bench.case.model == "direct_head":
            assert_close(found, expected, "symmetry")
        else:
            frequencies = np.linalg.eigvalsh(found) - np.linalg.eigvalsh(matrix)  # squared, of equal masses
            assert min(np.abs(found - expected).max(), np.abs(frequencies).max()) > 1e-2 * np.abs(matrix).max()


def test_padding_changes_nothing(bench):
    """Products; gradients of a loss on them are compared below, of two budgets on two paths."""
    several = structures()
    v = probe_of(7)
    assert_close(bench.products(several, v, TIGHT), bench.products(several, v), "padding")


def test_batch_equals_single(bench):
    several, v = structures(), probe_of(7)
    singles = [bench.products([one], part) for one, part in zip(several, np.split(v, [3, 4]), strict=True)]
    assert_close(np.concatenate(singles), bench.products(several, v), "symmetry")


def test_a_supercell_folds_to_its_cell(bench):
    """Rows of a supercell, summed over the images, and the product with a probe that all cells share."""
    large, v = repeated(SKEWED, (2, 1, 1)), probe_of(3)
    expected = bench.products([SKEWED], v)
    assert_close(bench.products([large], np.tile(v, (2, 1))), np.tile(expected, (2, 1)), "symmetry")
    folded = blocks(bench.matrix([large]))[:3].reshape(3, 2, 3, 3, 3).sum(1)
    assert_close(folded, blocks(bench.matrix([SKEWED])), "symmetry")


def test_nothing_jumps_at_the_cutoff(bench):
    ammonia, v = molecule("NH3", rattle=0.0), probe_of(5)
    found = []
    for distance in (0.7 * CUTOFF, CUTOFF - 1e-7, CUTOFF + 1e-7):
        place = ammonia.positions[0] + np.array([0.0, 0.0, distance])
        one = Structure(np.append(ammonia.numbers, 8), np.vstack((ammonia.positions, place)))
        found.append(bench.products([one], v))
    near, inside, outside = found
    assert_close(inside, outside, "continuity", scale=np.abs(near - inside).max())


def test_the_gradient_of_a_loss_is_its_differences(bench):
    """Against central differences of the loss along one random direction in parameter space."""
    if (bench.case.name, bench.path) != (bench.case.model, PATHS[0]):
        return
    several, random, step = structures(), np.random.default_rng(1), 1e-6
    _, gradients = bench.loss(several)
    before = {p.name: p.asnumpy().copy() for p in bench.weights}
    direction = {name: random.normal(size=values.shape) for name, values in before.items()}
    losses = []
    try:
        for sign in (1, -1):
            for p in bench.weights:
                p.set_data(Tensor(before[p.name] + sign * step * direction[p.name]))
            losses.append(bench.loss(several)[0])
    finally:
        for p in bench.weights:
            p.set_data(Tensor(before[p.name]))
    expected = sum(float((gradients[name] * direction[name]).sum()) for name in gradients)
    assert_close(np.array((losses[0] - losses[1]) / (2 * step)), np.array(expected), "differences")


@pytest.fixture(scope="module")
def with_kernels():
    """What the kernels have computed, by the name of the line, whose operators come next."""
    return {}


def test_operators_compute_what_the_kernels_compute(bench, with_kernels):
    """Products, and the gradients of a loss on them, whatever the number of ghosts; every parameter has one."""
    if bench.case.paths == PATHS[:1]:
        return
    found = bench.products(structures(), probe_of(7)), *bench.loss(structures())
    if bench.path == PATHS[0]:
        with_kernels[bench.case.name] = found, bench.of_loss
        return
    expected, budget = with_kernels[bench.case.name]
    assert bench.of_loss != budget
    assert_close(found[0], expected[0], "gradients")
    assert found[1] == pytest.approx(expected[1], rel=1e-12)
    largest = max(np.abs(gradient).max() for gradient in expected[2].values())
    for name, gradient in expected[2].items():
        scale = max(np.abs(gradient).max(), 1e-3 * largest)
        assert_close(found[2][name], gradient, "gradients", scale=scale)
        assert np.abs(gradient).max() > 0, f"{name} has no gradient"


def test_rows_come_as_a_stream_and_in_the_other_mode(bench):
    """As second derivatives do, compiled in PYNATIVE mode too."""
    if (bench.case.name, bench.path) != (bench.case.model, PATHS[0]):
        return
    ms.set_context(mode=ms.PYNATIVE_MODE)
    graphs = [build_graph(SKEWED, CUTOFF)]
    (rows,) = exact_rows(HessianProduct(bench.model), graphs, CUTOFF, np.float64, [[0, 2]]).arrays()
    ms.set_context(mode=ms.GRAPH_MODE)
    expected = bench.matrix([SKEWED]).reshape(3, 3, 3, 3)[[0, 2]]
    assert_close(rows, expected, "modes")
