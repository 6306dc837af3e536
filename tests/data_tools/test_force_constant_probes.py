"""Probes and products of force constants: what a row gets depends on the seed, the epoch and the row alone."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_crystals import alloys, rows_of, supercell_of

from data_tools.crystals import crystal_of
from data_tools.graphs.loader import training_batches
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
        length = 8**0.5 if kind == "thermal" else 1.0  # of a wave in eight primitive cells, or in one
        assert np.linalg.norm(labels.probes) == pytest.approx(length) and np.abs(product).max() > 0.3


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


def test_forces_and_stress_are_zero_where_they_are_wanted(packed):
    labels = provider(packed, quantities=("hessian_product", "forces", "stress"))(np.arange(2))
    assert labels.of_nodes["forces"].shape == (32, 3) and not labels.of_nodes["forces"].any()
    assert labels.of_graphs["stress"].shape == (2, 3, 3) and not labels.of_graphs["stress"].any()
    np.testing.assert_allclose(labels.of_graphs["volume"], np.abs(np.linalg.det(packed.table.cells[:2])))
    alone = provider(packed)(np.arange(2))
    assert "forces" not in alone.of_nodes and not alone.of_graphs


@pytest.mark.parametrize("kind", PROBES)
def test_weights_make_mass_weighted_products(packed, kind):
    """Of the direction M^1/2 v, whatever its length, in units of the mean mass of all crystals."""
    table, row = packed.table, 1
    crystal = crystal_of(table, row)
    full = rows_of(supercell_of("Al", "Cu"), list(range(16))).transpose(0, 2, 1, 3).reshape(48, 48)
    mass = np.repeat(crystal.masses, 3)
    labels = provider(packed, kind=kind)(np.array([0, row]), 2)
    weights, probe = labels.of_nodes["mass_weight"][16:], labels.probes[16:].ravel()
    direction = np.sqrt(mass) * probe
    expected = full / np.sqrt(np.outer(mass, mass)) @ (direction / np.linalg.norm(direction))
    found = (weights * labels.of_nodes["hessian_product"][16:]).ravel()
    np.testing.assert_allclose(found, table.force_constants.masses.mean() * expected, atol=4e-3)
    if kind == "columns":
        (atom,) = np.flatnonzero(probe.reshape(16, 3).any(axis=1))
        assert weights[3, 0] == pytest.approx(
            table.force_constants.masses.mean() / np.sqrt(crystal.masses[3] * crystal.masses[atom])
        )


def test_no_rows(packed):
    labels = provider(packed)(np.zeros(0, np.int64))
    assert labels.probes.shape == labels.of_nodes["hessian_product"].shape == (0, 3)


def test_root_mean_squares(packed):
    table = packed.table
    found = root_mean_squares(table.force_constants, table.n_atoms)
    expected = [np.sqrt((crystal_of(table, row).blocks ** 2).mean()) for row in range(3)]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(root_mean_squares(none_of(table.n_atoms), table.n_atoms)).all()


def epochs_of(packed, batch_size, rank=0, size=1, start=0):
    """The batches of two epochs of all rows of two of the structures."""
    rows = np.repeat([2, 0], EPOCHS)
    one = provider(packed, kind="rows")
    batches = training_batches(packed, rows, one, batch_size, 7, 2, 1, np.float64, rank, size)
    assert len(batches) == -(-2 * EPOCHS // batch_size)
    return [list(batches.epoch(epoch, start)) for epoch in range(2)]


def test_an_epoch_has_every_row_once_in_another_order(packed):
    """Over the structures and over the epochs; what is interrupted goes on with the same numbers."""
    epochs = epochs_of(packed, 5)
    seen = []
    for batches in epochs:
        drawn = [
            (row, *one[:16].ravel().nonzero()[0])
            for batch in batches
            for row, one in zip(
                batch.rows, np.split(batch.part.probes[: 16 * len(batch.rows)], len(batch.rows)), strict=True
            )
        ]
        assert len(set(drawn)) == len(drawn) == 2 * EPOCHS
        seen.append(drawn)
        assert all(len(set(batch.rows.tolist())) == 2 for batch in batches[:2]), "not one structure after the other"
    assert set(seen[0]) == set(seen[1]) and seen[0] != seen[1]
    for whole, rest in zip(epochs, epochs_of(packed, 5, start=1), strict=True):
        for before, after in zip(whole[1:], rest, strict=True):
            assert np.array_equal(before.part.probes, after.part.probes) and np.array_equal(before.rows, after.rows)
            assert np.array_equal(before.part.targets["hessian_product"], after.part.targets["hessian_product"])


def test_processes_share_the_rows_of_an_epoch(packed):
    for whole, *parts in zip(
        epochs_of(packed, 6)[1], *(epochs_of(packed, 6, rank, 2)[1] for rank in range(2)), strict=True
    ):
        together = np.concatenate([part.part.probes[: 16 * len(part.part.ids)] for part in parts])
        assert all(np.array_equal(part.rows, whole.rows) and part.known == whole.known for part in parts)
        alone = whole.part.probes[: 16 * len(whole.rows)]
        keys = [sorted(one.ravel().nonzero()[0].item() for one in np.split(field, 6)) for field in (together, alone)]
        assert keys[0] == keys[1]
