"""Noise on positions: a function of (seed, epoch, row), none where it is zero, and none beside derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_crystals import alloys

from configs.loading import ConfigError, config_from_dict
from configs.rules import check_rules
from data_tools.graphs.loader import training_batches
from data_tools.graphs.noise import displacements
from data_tools.graphs.packed import pack
from data_tools.labels.providers import StoredLabels

ATOMS = 16  # of each structure


@pytest.fixture(scope="module")
def packed():
    return pack(alloys(4), 3.2)


def batches_of(packed, noise, rank=0, size=1, seed=3, rotate=False):
    provider = StoredLabels(packed, {"energy": np.arange(4.0)}, {})
    return training_batches(packed, np.arange(4), provider, 2, seed, 2, 1, np.float64, rank, size, rotate, noise)


def positions_of(batches):
    """Row to positions (16, 3), of an epoch."""
    found = {}
    for batch in batches:
        for place, row in enumerate(batch.part.ids.tolist()):
            found[row] = batch.part.inputs.positions[ATOMS * place : ATOMS * (place + 1)]
    return found


def test_displacements_have_the_deviation_and_depend_on_nothing_else():
    rows, draws, counts = np.arange(500), np.arange(500) % 7, np.arange(500) % 5 + 1
    found = displacements(3, rows, draws, counts, 0.05)
    assert found.shape == (counts.sum(), 3) and abs(found.std() / 0.05 - 1) < 0.03 and abs(found.mean()) < 0.003
    start = counts[:5].sum()
    alone = displacements(3, rows[5:6], draws[5:6], counts[5:6], 0.05)
    assert np.array_equal(alone, found[start : start + counts[5]]), "whatever the others are"
    for other in (displacements(4, rows, draws, counts, 0.05), displacements(3, rows, draws + 1, counts, 0.05)):
        assert (other != found).all()


def test_noise_moves_the_atoms_alone(packed):
    plain, noisy = (list(batches_of(packed, noise).epoch(0)) for noise in (0.0, 0.05))
    for row, positions in positions_of(plain).items():
        assert np.array_equal(positions, packed.table.positions[ATOMS * row : ATOMS * (row + 1)]), "none where it is 0"
    for before, after in zip(plain, noisy, strict=True):
        moves = after.part.inputs.positions - before.part.inputs.positions
        real = before.part.inputs.node_mask == 1
        assert (moves[real] != 0).all() and not moves[~real].any() and abs(moves[real].std() / 0.05 - 1) < 0.2
        for name, one in before.part.inputs._asdict().items():
            assert name == "positions" or np.array_equal(one, getattr(after.part.inputs, name)), name
        assert np.array_equal(before.part.targets["energy"], after.part.targets["energy"])


def test_noise_survives_a_resume_and_any_number_of_processes(packed):
    first, second = (positions_of(batches_of(packed, 0.05).epoch(epoch)) for epoch in range(2))
    assert not any(np.allclose(first[row], second[row], atol=1e-3) for row in range(4)), "each epoch has other noise"
    rest = positions_of(batches_of(packed, 0.05).epoch(1, start=1))
    parts = [positions_of(batches_of(packed, 0.05, rank, 2).epoch(1)) for rank in range(2)]
    assert len(rest) == 2 and len(parts[0] | parts[1]) == 4
    for found in (rest, *parts):
        assert all(np.array_equal(found[row], second[row]) for row in found)


def test_noise_beside_rotations_is_added_to_the_turned_structure(packed):
    turned, both = (positions_of(batches_of(packed, noise, rotate=True).epoch(1)) for noise in (0.0, 0.05))
    straight, noisy = (positions_of(batches_of(packed, noise).epoch(1)) for noise in (0.0, 0.05))
    for row in range(4):
        np.testing.assert_allclose(both[row] - turned[row], noisy[row] - straight[row], atol=1e-12)


@pytest.mark.parametrize(
    "others",
    [
        {"target.name": "energy", "training.force_weight": "1"},
        {"target.name": "energy", "training.stress_weight": "1"},
        {"target.name": "force_constants", "model.envelope": "polynomial"},
    ],
    ids=("forces", "stress", "force constants"),
)
def test_labels_of_a_geometry_are_refused(others):
    def config(noise):
        return config_from_dict({}, overrides=[*others.items(), ("data.noise", noise)])

    check_rules(config("0"))
    with pytest.raises(ConfigError, match=r"data\.noise 0\.05: expected 0 beside"):
        check_rules(config("0.05"))
    check_rules(config_from_dict({}, overrides=[("data.noise", "0.05")]))
