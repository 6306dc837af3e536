"""Metrics of force constants against numbers made by hand and loops; baselines; what they must notice."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from data_tools.crystals import Crystal
from data_tools.graph import DataError, Structure
from experiment.evaluation import force_constants as metrics
from experiment.evaluation.force_constant_table import ALL, ROWS, STABLE, lines, markdown, summary, table
from experiment.evaluation.force_constants import SHELL_MEANS, ZERO, block_errors, judge, phonon_errors
from experiment.evaluation.shell_means import ShellMeans
from physics.minimum_image import minimum_images
from physics.phonons import Mesh
from training.meter import LossError

RANDOM = np.random.default_rng(20)
SKEWED = np.array([[4.0, 0.0, 0.0], [3.0, 4.0, 0.0], [-5.0, 3.5, 4.0]])


def crystal(cell, fractional, numbers, p2s=(0,), blocks=None, name="one"):
    """A crystal of given atoms; every atom stands for itself unless ``p2s`` is shorter than the atoms."""
    n, p2s = len(numbers), np.array(p2s, np.int64)
    cell = np.array(cell, np.float64)
    atoms = Structure(np.array(numbers, np.int32), np.array(fractional, np.float64) @ cell, cell, name)
    blocks = RANDOM.normal(size=(len(p2s), n, 3, 3)) if blocks is None else blocks
    return Crystal(atoms, cell, p2s, np.arange(n), np.full(n, 10.0), blocks)


def caesium_chloride(stiff=4.0, soft=0.5, name="springs", species=(55, 17)):
    """2 x 2 x 2 cells of two atoms with springs to the eight neighbours of the other and the six of the same kind."""
    edge = 4.0
    corners = np.array(list(itertools.product(range(2), repeat=3)), float)
    fractional = np.concatenate([corners, corners + 0.5]) / 2
    numbers = np.repeat(species, 8)
    found = crystal(np.eye(3) * 2 * edge, fractional, numbers, (0, 8), np.zeros((2, 16, 3, 3)), name)
    blocks = np.zeros((2, 16, 3, 3))
    for i, j, shift in itertools.product(range(2), range(16), itertools.product((-1, 0, 1), repeat=3)):
        vector = found.supercell.positions[j] + np.array(shift) * 2 * edge - found.supercell.positions[i * 8]
        length = np.linalg.norm(vector)
        if 0.1 < length < edge * 1.01:
            spring = (stiff if length < edge * 0.9 else soft) * np.outer(vector, vector) / length**2
            blocks[i, j] -= spring
            blocks[i, i * 8] += spring
    masses = np.repeat((132.9, 35.5), 8)
    s2p = np.repeat((0, 8), 8)
    return dataclasses.replace(found, blocks=blocks, masses=masses, s2p=s2p, primitive_cell=np.eye(3) * edge)


def rotation():
    matrix, _ = np.linalg.qr(RANDOM.normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def test_distances_are_those_of_all_images():
    """A cell whose nearest images are not among the neighbours of the wrapped one."""
    one = crystal(SKEWED, RANDOM.random((6, 3)), [1] * 6, (0, 4))
    x = one.supercell.positions
    shifts = np.array(list(itertools.product(range(-7, 8), repeat=3))) @ SKEWED
    expected = np.linalg.norm(x[None, :, None] - x[[0, 4]][:, None, None] + shifts, axis=-1).min(-1)
    wrapped = (x[None] - x[[0, 4]][:, None]) @ np.linalg.inv(SKEWED)
    assert (np.linalg.norm((wrapped - np.round(wrapped)) @ SKEWED, axis=-1) > expected + 0.1).any()
    np.testing.assert_allclose(minimum_images(one).distances, expected, atol=1e-12)


def test_shells_belong_to_the_first_atom():
    """On a line 0 - 2 - 4.25 - 9: each atom has its own nearest distance; 1.15 times of it belongs to the shell."""
    one = crystal(np.eye(3) * 40, np.array([[0, 0, 0], [2, 0, 0], [4.25, 0, 0], [9, 0, 0]]) / 40, [1] * 4, range(4))
    expected = [[0, 1, 2, 2], [1, 0, 1, 2], [2, 1, 0, 2], [2, 2, 1, 0]]
    np.testing.assert_array_equal(minimum_images(one).shells, expected)


def test_directions_average_over_equally_near_images():
    one = crystal(np.eye(3) * 4, [[0, 0, 0], [0.5, 0.5, 0]], [1, 1])
    np.testing.assert_allclose(
        minimum_images(one).directions[0], [np.zeros((3, 3)), np.diag([0.5, 0.5, 0])], atol=1e-12
    )


def test_errors_of_blocks_by_hand():
    """Three atoms; reference 2 on-site, -1 and -1; predicted 1, -1, 0, all times the unit matrix."""
    reference, predicted = (
        np.array(values)[None, :, None, None] * np.eye(3) for values in ([2, -1, -1.0], [1, -1, 0.0])
    )
    found = block_errors(reference, predicted, np.array([[0, 1, 2]]))
    assert found == pytest.approx(
        {
            "mae": 6 / 27,
            "mae_on_site": 3 / 9,
            "mae_first_shell": 0,
            "mae_rest": 3 / 9,
            "frobenius": np.sqrt(2 / 6),
            "frobenius_off_site": np.sqrt(1 / 2),
            "slope": (2 + 1) / 6,
        }
    )


def test_errors_of_blocks_by_loops():
    one = crystal(SKEWED * 2, RANDOM.random((7, 3)), [1, 2, 1, 2, 1, 2, 1], (0, 3, 5))
    predicted, shells = RANDOM.normal(size=one.blocks.shape), minimum_images(one).shells
    sums: dict[object, list[float]] = {}
    for i, j, a, b in np.ndindex(one.blocks.shape):
        error = abs(predicted[i, j, a, b] - one.blocks[i, j, a, b])
        for part in ("all", shells[i, j], *(["off"] if j != one.p2s[i] else [])):
            sums.setdefault(part, []).append(error)
    found = block_errors(one.blocks, predicted, shells)
    for key, part in {"mae": "all", "mae_on_site": 0, "mae_first_shell": 1, "mae_rest": 2}.items():
        assert found[key] == pytest.approx(np.mean(sums[part]))
    off = [one.blocks[i, j] for i, j in np.ndindex(shells.shape) if j != one.p2s[i]]
    assert found["frobenius_off_site"] == pytest.approx(np.linalg.norm(sums["off"]) / np.linalg.norm(off))


def test_a_shell_without_pairs_is_left_out_of_the_mean():
    first = crystal(np.eye(3) * 3, [[0, 0, 0], [0.5, 0, 0]], [1, 1], name="two atoms")
    second = crystal(np.eye(3) * 9, [[0, 0, 0], [0.2, 0, 0], [0.5, 0, 0]], [1, 1, 1], name="three")
    judged = judge([first, second], {}, ShellMeans.of([first]), phonons=False)
    assert np.isnan(judged.errors[ZERO]["mae_rest"][0])
    of_zero = summary(judged)[ALL][ZERO]
    assert of_zero["mae_rest"]["count"] == 1 and of_zero["mae"]["count"] == 2
    assert of_zero["mae_rest"]["mean"] == pytest.approx(np.abs(second.blocks[0, 2]).mean())


def test_a_perfect_prediction_has_no_error():
    springs = [caesium_chloride(), caesium_chloride(3.0, 0.8, "others")]
    judged = judge(springs, {"model": [one.blocks for one in springs]}, ShellMeans.of(springs))
    assert judged.stable.all() and judged.predicted_stable["model"].all()
    for key, values in judged.errors["model"].items():
        assert key == "slope" or not values.any(), key
    np.testing.assert_allclose(judged.errors["model"]["slope"], 1)
    assert set(judged.errors["model"]) == set(ROWS)


@pytest.mark.parametrize(
    "wrong",
    {
        "sign": lambda blocks: -blocks,
        "transposition": lambda blocks: blocks.swapaxes(-1, -2),
        "permutation of atoms": lambda blocks: np.roll(blocks, 1, axis=1),
        "permutation of axes": lambda blocks: np.roll(np.roll(blocks, 1, axis=-1), 1, axis=-2),
        "another primitive atom": lambda blocks: blocks[::-1],
    }.values(),
)
def test_what_is_wrong_is_seen(wrong):
    """Norms of blocks alone would not tell most of these."""
    one = crystal(SKEWED * 2, RANDOM.random((6, 3)), [1, 2] * 3, (0, 1))
    judged = judge([one], {"model": [wrong(one.blocks)]}, ShellMeans.of([one]), phonons=False)
    errors = {key: values[0] for key, values in judged.errors["model"].items()}
    assert errors["mae"] > 0.3 and errors["frobenius"] > 0.3 and errors["slope"] < 0.9


def test_errors_of_frequencies_by_hand():
    points, weights = np.array([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]]), np.array([1, 3, 4])
    before = Mesh(points, weights, np.array([[0, 0, 0.0], [1, 2, 6], [2, 3, 4]]))
    after = Mesh(points, weights, np.array([[0, 0, 0.0], [-1, 2, 5], [2, 3.5, 4]]))
    found = phonon_errors(before, after)
    assert found["frequency_mae"] == pytest.approx((3 * (2 + 1) + 4 * 0.5) / 24)
    assert found["frequency_bias"] == pytest.approx((3 * (-2 - 1) + 4 * 0.5) / 24)
    assert found["highest_frequency"] == pytest.approx(47.992430733, rel=1e-9)  # 1 THz in K
    assert metrics.is_stable(before) and not metrics.is_stable(after)
    assert metrics.is_stable(Mesh(points, weights, np.array([[-1, 0, 0.0], [-0.05, 2, 6], [2, 3, 4]])))


def test_thermal_errors_of_one_mode_by_hand():
    """One mode of an atom, from 5 to 6 THz; the two below the threshold are dropped on both sides."""
    points, weights = np.array([[0.5, 0, 0]]), np.array([2])
    before, after = (Mesh(points, weights, np.array([[low, 0.04, high]])) for low, high in ((-3, 5.0), (0.05, 6.0)))
    thermal_energy, mole = 1.380649e-23 * 300, 6.02214076e23
    free_energy, entropy, heat_capacity = [], [], []
    for high in (5e12, 6e12):
        quantum = 6.62607015e-34 * high
        x = quantum / thermal_energy
        free_energy.append(mole * (quantum / 2 + thermal_energy * np.log(1 - np.exp(-x))) / 1000)
        entropy.append(mole * 1.380649e-23 * (x / np.expm1(x) - np.log(1 - np.exp(-x))))
        heat_capacity.append(mole * 1.380649e-23 * x**2 * np.exp(x) / np.expm1(x) ** 2)
    found = phonon_errors(before, after)
    for key, values in {"free_energy": free_energy, "entropy": entropy, "heat_capacity": heat_capacity}.items():
        assert found[key] == pytest.approx(abs(values[1] - values[0]), rel=1e-9), key


def test_stability_is_counted_and_stable_materials_stand_apart():
    """A spring of the wrong sign makes a crystal unstable; the zero predictor says that everything is stable."""
    stable, unstable = caesium_chloride(), caesium_chloride(4.0, -2.0, "unstable")
    crystals = [stable, stable, unstable]
    judged = judge(crystals, {"model": [unstable.blocks, stable.blocks, unstable.blocks]}, ShellMeans.of([stable]))
    found = summary(judged)
    of_model, of_zero = (found[ALL][whose]["stability"] for whose in ("model", ZERO))
    expected = {"stable_stable": 1, "stable_unstable": 1, "unstable_stable": 0, "unstable_unstable": 1}
    assert of_model == {**expected, "right": 2, "count": 3} and of_zero["right"] == 2
    assert found[STABLE]["model"]["mae"]["count"] == 2
    errors = judged.errors["model"]["frequency_mae"]
    assert found[STABLE]["model"]["frequency_mae"]["mean"] == pytest.approx(errors[:2].mean())
    assert found[ALL]["model"]["frequency_mae"] == {
        "mean": pytest.approx(errors.mean()),
        "median": pytest.approx(np.median(errors)),
        "count": 3,
    }


def test_means_of_pairs_and_shells_by_hand():
    """Two atoms on x: 5 along the pair and 1 across; another material with 3 and 2."""

    def pair(along, across, numbers=(1, 2)):
        blocks = np.array([[np.eye(3) * 99, np.diag([along, across, across])]], float)
        return crystal(np.eye(3) * 9, [[0, 0, 0], [1.5 / 9, 0, 0]], numbers, (0,), blocks)

    def predicted(means, numbers=(1, 2)):
        itself, other = means.predict(pair(0, 0, numbers))[0]
        np.testing.assert_allclose(itself, -other, atol=1e-12)  # the sum rule
        return other

    means = ShellMeans.of([pair(5, 1), pair(3, 2)])
    np.testing.assert_allclose(predicted(means), np.diag([4, 1.5, 1.5]), atol=1e-12)
    # species that were not seen get the mean of the shell; an order of the pair that was not seen, too
    means = ShellMeans.of([pair(5, 1), pair(1, 1, (3, 4))])
    np.testing.assert_allclose(predicted(means), np.diag([5, 1, 1]), atol=1e-12)
    np.testing.assert_allclose(predicted(means, (2, 9)), np.diag([3, 1, 1]), atol=1e-12)
    np.testing.assert_allclose(predicted(means, (2, 1)), np.diag([3, 1, 1]), atol=1e-12)
    # a shell that was not seen: 0
    far = crystal(np.eye(3) * 30, [[0, 0, 0], [0.05, 0, 0], [0.4, 0, 0]], [1, 2, 2])
    np.testing.assert_array_equal(means.predict(far)[0, 2], 0)


def test_shells_beyond_the_first_are_half_an_angstrom_wide():
    """On a line 0 - 1 - 3.1 - 3.4 - 3.6: the last is in another shell than the two before it."""

    def line(values):
        blocks = np.array([[np.eye(3) * value for value in values]])
        places = np.array([[0, 0, 0], [1, 0, 0], [3.1, 0, 0], [3.4, 0, 0], [3.6, 0, 0]]) / 40
        return crystal(np.eye(3) * 40, places, [1] * 5, (0,), blocks)

    found = ShellMeans.of([line([0, 8, 4, 2, 1])]).predict(line([0.0] * 5))[0]
    np.testing.assert_allclose(found, [np.eye(3) * value for value in (-15, 8, 3, 3, 1)], atol=1e-12)


def test_means_rotate_with_the_crystal_and_have_no_order():
    one = crystal(SKEWED * 2, RANDOM.random((6, 3)), [1, 2, 1, 2, 1, 2], (0, 1, 2))
    matrix = rotation()
    turned = dataclasses.replace(
        one,
        supercell=dataclasses.replace(
            one.supercell, positions=one.supercell.positions @ matrix.T, cell=one.supercell.cell @ matrix.T
        ),
        blocks=matrix @ one.blocks @ matrix.T,
    )
    means, of_turned = ShellMeans.of([one]), ShellMeans.of([turned])
    np.testing.assert_allclose(of_turned.means, means.means, atol=1e-10)
    np.testing.assert_allclose(means.predict(turned), matrix @ means.predict(one) @ matrix.T, atol=1e-10)
    both = [one, crystal(SKEWED * 2, RANDOM.random((4, 3)), [1, 2, 3, 2])]
    np.testing.assert_allclose(ShellMeans.of(both).means, ShellMeans.of(both[::-1]).means, atol=1e-12)


def test_the_baselines_are_in_every_table():
    springs = [caesium_chloride(), caesium_chloride(3.0, 0.8, "others")]
    judged = judge(springs, {"model": [0.9 * one.blocks for one in springs]}, ShellMeans.of(springs[:1]))
    assert list(judged.errors) == [ZERO, SHELL_MEANS, "model"]
    header = table(judged)[0]
    assert header[2:] == [ZERO, SHELL_MEANS, "model"]
    assert all(len(cells) == len(header) for cells in table(judged))
    text = lines(judged)
    assert "all materials (2)" in text[0] and len(text) == len(table(judged))
    slope = next(cells for cells in table(judged) if cells[0] == "slope on the reference")
    assert slope[2] == "0.000 / 0.000" and slope[4] == "0.900 / 0.900"
    assert f"| {header[0]} | unit | {ZERO} | {SHELL_MEANS} | model |" in markdown(judged)


def test_blocks_that_do_not_belong_to_the_crystals_are_refused():
    one, means = caesium_chloride(name="mp-1"), ShellMeans.of([caesium_chloride()])
    with pytest.raises(DataError, match="model: expected predictions for 1 crystals, got 2"):
        judge([one], {"model": [one.blocks, one.blocks]}, means)
    with pytest.raises(
        DataError, match=r"model: expected force constants \(2, 16, 3, 3\) for mp-1, got \(16, 2, 3, 3\)"
    ):
        judge([one], {"model": [one.blocks.swapaxes(0, 1)]}, means)
    blocks = one.blocks.copy()
    blocks[1, 2, 0, 0] = np.nan
    with pytest.raises(LossError, match="model: NaN or infinity in the force constants of 1 of 1 crystals: mp-1"):
        judge([one], {"model": [blocks]}, means)
