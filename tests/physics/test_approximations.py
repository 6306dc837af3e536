"""Approximate Hessians against exact ones, and exact ones from few probes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import CASES, build, crystals, molecule, repeated

from data_tools.graph import Budget, DataError, Structure
from data_tools.graphs.batching import build_graph, join, pad
from physics.approximations import (
    AT_ONCE,
    Approximation,
    Products,
    block_diagonal,
    diagonal,
    energy_differences,
    low_rank,
    outer_product,
)
from physics.colored_probes import colors, hessian, reached
from physics.derivatives import EnergyAndForces, HessianProduct
from training.step import to_tensors

pytestmark = pytest.mark.usefixtures("graph_mode")

CUTOFF, SHORT = 3.0, 2.6
(SCHNET,) = (case for case in CASES if case.name == "schnet-polynomial")  # one layer


@pytest.fixture(scope="module")
def model():
    return build(SCHNET)


@pytest.fixture(scope="module")
def ethanol():
    return build_graph(molecule("CH3CH2OH", 1), CUTOFF)


@pytest.fixture(scope="module")
def products(model, ethanol):
    return Products(HessianProduct(model), ethanol, CUTOFF, np.float64)


@pytest.fixture(scope="module")
def exact(products):
    found = products.exact()
    assert np.abs(found - found.T).max() < 1e-12 * np.abs(found).max()
    return found


def test_products_count_and_do_not_depend_on_the_batch(products, exact):
    fields = np.random.default_rng(0).normal(size=(AT_ONCE + 3, products.atoms, 3))
    before = products.count
    found = products(fields)
    assert products.count == before + len(fields)
    expected = fields.reshape(len(fields), -1) @ exact
    assert np.abs(found.reshape(len(fields), -1) - expected).max() < 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("approximate", [diagonal, block_diagonal])
def test_what_random_signs_estimate_converges_as_their_root(products, exact, approximate):
    n = products.atoms
    kept = np.eye(3 * n) if approximate is diagonal else np.kron(np.eye(n), np.ones((3, 3)))
    errors = {}
    for probes in (16, 1024):
        found = [approximate(products, probes, seed) for seed in range(4)]
        assert all(one.products == probes for one in found)
        assert all(not one.matrix[kept == 0].any() for one in found)
        errors[probes] = np.sqrt(np.mean([np.square(one.matrix - kept * exact).sum() for one in found]))
    assert 5 < errors[16] / errors[1024] < 13  # 8
    best = np.linalg.norm(exact * (1 - kept)) / np.linalg.norm(exact)  # of any such matrix
    assert best <= approximate(products, 1024, 9).error(exact) < 1.1 * best + 0.1


def test_low_rank_is_the_best_of_its_rank(products, exact):
    values = np.linalg.eigvalsh(exact)
    sizes = np.sort(np.abs(values))
    for rank in (3, 12):
        found = low_rank(products, rank, 0)
        assert found.error(exact) == pytest.approx(np.sqrt((sizes[:-rank] ** 2).sum() / (sizes**2).sum()), rel=1e-6)
        assert rank < found.products
    with pytest.raises(DataError, match="rank 27: expected 1 to 26 for 9 atoms"):
        low_rank(products, 27, 0)
    with pytest.raises(DataError, match="probes 0"):
        diagonal(products, 0, 0)


def test_the_outer_product_of_the_gradient_is_no_hessian(model, ethanol, exact):
    budget = Budget(len(ethanol.numbers) + 1, len(ethanol.senders) + 2, 0, 2)
    inputs = to_tensors(pad(join([ethanol]), budget, CUTOFF, np.float64).inputs)
    gradient = -EnergyAndForces(model)(*inputs)[1].asnumpy()[:9]
    found = outer_product(gradient)
    assert np.linalg.matrix_rank(found.matrix) == 1 and found.error(exact) > 0.9
    assert not outer_product(np.zeros((9, 3))).matrix.any()
    assert Approximation(np.zeros_like(exact), 0).error(exact) == 1


def test_energies_alone_need_a_step_that_float32_cannot_take():
    matrix = np.random.default_rng(3).normal(size=(6, 6))
    matrix = matrix + matrix.T

    def energies(positions, kind=np.float64):
        flat = positions.reshape(len(positions), -1)
        return np.einsum("ki,ij,kj->k", flat, matrix, flat).astype(kind) / 2

    positions = np.random.default_rng(4).normal(size=(2, 3))
    assert energy_differences(energies, positions, 1e-2).error(matrix) < 1e-10
    assert energy_differences(energies, positions, 1e-2).products == 84
    single = energy_differences(lambda x: energies(x, np.float32).astype(float), positions, 1e-6)
    assert single.error(matrix) > 1e3  # the recipe's step of 1e-6 Angstrom in float32 is noise


@pytest.mark.parametrize("layers", [1, 2])
def test_colored_probes_are_exact(layers):
    """A chain of water molecules, of which only neighbours touch, and a crystal that is longer than the reach."""
    chain = [molecule("H2O", k) for k in range(10)]
    water = Structure(
        np.concatenate([one.numbers for one in chain]),
        np.concatenate([one.positions + np.array([2.5 * k, 0, 0]) for k, one in enumerate(chain)]),
    )
    long_crystal = repeated(crystals()[1], (8, 1, 1))
    (case,) = (case for case in CASES if case.name == ("schnet-polynomial" if layers == 1 else "equivariant_potential"))
    product = HessianProduct(build(case))
    for structure in (water, long_crystal)[: 3 - layers]:
        graph = build_graph(structure, SHORT)
        products = Products(product, graph, SHORT, np.float64)
        color = colors(graph, layers)
        found = hessian(products, graph, layers)
        assert products.count == 3 * (color.max() + 1) < 3 * len(color)
        expected = products.exact()
        assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
        outside = np.kron(reached(graph, layers).toarray() == 0, np.ones((3, 3), bool))
        assert outside.any() and not expected[outside].any()
