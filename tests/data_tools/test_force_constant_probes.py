"""Probes and products of force constants: what a row gets depends on the seed, the epoch and the row alone."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_crystals import alloys, rows_of, supercell_of

from data_tools.crystals import crystal_of
from data_tools.graphs.packed import pack
from data_tools.labels.compact_force_constants import none_of, root_mean_squares
from data_tools.labels.force_constant_probes import PROBES, ForceConstantProbes

EPOCHS = 6  # as many as columns of the two primitive atoms


@pytest.fixture(scope="module")
def packed():
    return pack(alloys(3), 3.5)


def provider(packed, **settings):
    return ForceConstantProbes(packed, packed.table.force_constants, **({"seed": 5} | settings))


@pytest.mark.parametrize("kind", PROBES)
def test_products_are_those_of_the_whole_matrix(packed, kind):
    full = rows_of(supercell_of("Al", "Cu"), list(range(16))).transpose(0, 2, 1, 3).reshape(48, 48)
    for epoch in range(3):
        labels = provider(packed, kind=kind, scale=2.0)(np.array([1]), epoch)
        product = full @ labels.probes.ravel()
        # EMT's forces by differences are symmetric to the third derivatives
        np.testing.assert_allclose(2.0 * labels.of_nodes["hessian_product"].ravel(), product, atol=2e-3)
        assert np.linalg.norm(labels.probes) == pytest.approx(1.0) and np.abs(product).max() > 0.3


def test_every_column_comes_once(packed):
    p2s = crystal_of(packed.table, 2).p2s
    probes = np.stack([provider(packed)(np.array([2]), epoch).probes for epoch in range(2 * EPOCHS)])
    assert np.array_equal(
        np.sort(probes[:EPOCHS].reshape(EPOCHS, -1).argmax(1)), np.sort(np.r_[3 * p2s, 3 * p2s + 1, 3 * p2s + 2])
    )
    assert np.array_equal(probes[:EPOCHS].sum(axis=0), probes[EPOCHS:].sum(axis=0))
    assert not np.array_equal(probes[:EPOCHS], probes[EPOCHS:])


@pytest.mark.parametrize("kind", PROBES)
def test_a_row_gets_the_same_whatever_the_others_are(packed, kind):
    both = provider(packed, kind=kind)(np.array([2, 0]), 3)
    for place, row in enumerate((2, 0)):
        alone = provider(packed, kind=kind)(np.array([row]), 3)
        part = slice(16 * place, 16 * place + 16)
        assert np.array_equal(alone.probes, both.probes[part])
        assert np.array_equal(alone.of_nodes["hessian_product"], both.of_nodes["hessian_product"][part])


def test_seed_and_epoch_change_the_probes(packed):
    rows = np.arange(3)
    probes = [provider(packed, seed=seed)(rows, epoch).probes for seed, epoch in ((5, 0), (5, 1), (6, 0))]
    assert not np.array_equal(probes[0], probes[1]) and not np.array_equal(probes[0], probes[2])


def test_forces_are_zero_where_they_are_wanted(packed):
    labels = provider(packed, of_nodes=("hessian_product", "forces"))(np.arange(2))
    assert labels.of_nodes["forces"].shape == (32, 3) and not labels.of_nodes["forces"].any()
    assert "forces" not in provider(packed)(np.arange(2)).of_nodes


def test_no_rows(packed):
    labels = provider(packed)(np.zeros(0, np.int64))
    assert labels.probes.shape == labels.of_nodes["hessian_product"].shape == (0, 3)


def test_root_mean_squares(packed):
    table = packed.table
    found = root_mean_squares(table.force_constants, table.n_atoms)
    expected = [np.sqrt((crystal_of(table, row).blocks ** 2).mean()) for row in range(3)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(root_mean_squares(none_of(table.n_atoms), table.n_atoms)).all()
