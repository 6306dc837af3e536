"""Band structures, densities of states, group velocities and displacements against sums and limits of their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crystal_examples import NAMES, example, reordered

from data_tools.graph import DataError
from physics.phonon_spectra import (
    Bands,
    band_path,
    band_structure,
    density_of_states,
    group_velocities,
    mean_squared_displacements,
)
from physics.phonons import mesh_frequencies
from physics.phonopy_bridge import phonopy_of

SMALL = (5, 5, 5)


def at(bands, label):
    """Frequencies at a special point."""
    for (start, end), frequencies in zip(bands.labels, bands.frequencies, strict=True):
        if label in (start, end):
            return frequencies[0 if label == start else -1]
    raise AssertionError(f"no {label} in {bands.labels}")


def test_the_path_of_silicon():
    """Special points by what symmetry demands there: pairs at X and W, and the order of the diamond lattice at L."""
    bands = band_structure(example("Si"), points=11)
    assert bands.labels[0] == ("GAMMA", "X") and bands.ticks[0] == (0.0, "GAMMA") and bands.ticks[-1][1] == "X"
    assert any("|" in label for _, label in bands.ticks) and len(bands.ticks) == len(bands.labels) + 1
    x, w, gamma = (at(bands, label) for label in ("X", "W", "GAMMA"))
    for frequencies in (x, w):
        assert frequencies[0::2] == pytest.approx(frequencies[1::2], abs=1e-5)
    assert np.abs(gamma[:3]).max() < 1e-3 and np.ptp(gamma[3:]) < 1e-5
    # neutron scattering: 4.49, 12.32, 13.90 THz at X, 15.53 at Gamma; this is LDA with a small supercell
    assert x[0::2] == pytest.approx([4.49, 12.32, 13.90], rel=0.1) and gamma[5] == pytest.approx(15.53, rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_segments_are_straight_and_evenly_sampled(name):
    crystal = example(name)
    bands, found = band_structure(crystal, points=9), phonopy_of(crystal)
    lattice = np.linalg.inv(crystal.primitive_cell).T
    step = max(distances[-1] - distances[0] for distances in bands.distances) / 8
    for qpoints, distances, frequencies in zip(bands.qpoints, bands.distances, bands.frequencies, strict=True):
        lengths = np.linalg.norm(np.diff(qpoints, axis=0) @ lattice, axis=1)
        assert lengths == pytest.approx(np.diff(distances)) and lengths[0] < 1.5 * step + 1e-9
        middle = len(qpoints) // 2
        assert frequencies[middle] == pytest.approx(found.get_frequencies(qpoints[middle]), abs=1e-8)
    ends = [distances[-1] for distances in bands.distances]
    assert [distances[0] for distances in bands.distances[1:]] == pytest.approx(ends[:-1])


def test_special_points_do_not_depend_on_the_basis_of_the_primitive_cell():
    """Of the same lattice there are many bases: the labels name the same points in all of them."""
    crystal = example("MgO")
    other = dataclasses.replace(
        crystal, primitive_cell=np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]]) @ crystal.primitive_cell
    )
    bands, others = (band_structure(one, points=3) for one in (crystal, other))
    assert bands.labels == others.labels
    for label in ("X", "L", "W", "K"):
        assert at(others, label) == pytest.approx(at(bands, label), abs=1e-7)
    places = [dict(point for segment in band_path(one) for point in segment) for one in (crystal, other)]
    assert not np.allclose(places[0]["W"], places[1]["W"])


def test_connected_bands_cross():
    """The same frequencies in another order, and without jumps of the slope where bands cross."""
    plain, connected = (band_structure(example("TiO2"), points=61, connected=choice) for choice in (False, True))
    crossing = 0
    for one, other in zip(plain.frequencies, connected.frequencies, strict=True):
        assert np.sort(other, axis=1) == pytest.approx(one, abs=1e-6)
        crossing += not np.allclose(one, other, atol=1e-6)
    bends = [
        sum(np.abs(np.diff(frequencies, 2, axis=0)).sum() for frequencies in bands.frequencies)
        for bands in (plain, connected)
    ]
    assert crossing and bends[1] < bends[0]


def test_the_lowest_away_from_gamma():
    """By hand: at Gamma frequencies are lower, and do not count."""
    q = np.array([[0.0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]])
    first, second = np.array([[-9.0, 1], [3, 4], [2, 5]]), np.array([[2.0, 5], [1.5, 4], [-9, 1]])
    path = (q, q[::-1] + np.array([0, 1, 0]))
    bands = Bands(path, (np.arange(3.0),) * 2, (first, second), (("GAMMA", "X"), ("X", "GAMMA")))
    assert bands.lowest == (1.5, ("X", "GAMMA"))


def test_the_non_analytical_term_splits_bands_at_gamma():
    without, with_term = (band_structure(example("NaCl"), points=5, nac=nac) for nac in (False, True))
    assert at(without, "GAMMA")[5] == pytest.approx(at(without, "GAMMA")[3], abs=1e-5)
    assert at(with_term, "GAMMA")[5] > at(with_term, "GAMMA")[3] + 2
    assert at(with_term, "L")[:2] == pytest.approx(at(without, "L")[:2], abs=0.2)


@pytest.mark.parametrize("width", (None, 0.2))
def test_densities_count_the_modes(width):
    crystal = example("TiO2")
    total, projected = (density_of_states(crystal, SMALL, parts, width=width) for parts in (False, True))
    assert total.of_atoms is None and projected.of_atoms.shape == (6, 401)
    for one in (total, projected):
        assert len(one.frequencies) == 401
        area = ((one.total[1:] + one.total[:-1]) / 2 * np.diff(one.frequencies)).sum()
        assert area == pytest.approx(18, rel=0.01)
    assert projected.of_atoms.sum(axis=0) == pytest.approx(projected.total)
    steps = np.diff(projected.frequencies)[0]
    assert projected.of_atoms.sum(axis=1) * steps == pytest.approx([3] * 6, rel=0.02)
    # titanium is heavier: its part of the modes is at lower frequencies
    means = projected.of_atoms @ projected.frequencies / projected.of_atoms.sum(axis=1)
    heavy = crystal.supercell.numbers[crystal.p2s] == 22
    assert means[heavy].max() < means[~heavy].min()


def test_parts_of_atoms_are_in_the_order_of_the_crystal():
    """Also where phonopy orders the primitive cell in another way."""
    crystal = example("TiO2")
    order = np.arange(crystal.n_atoms)[::-1]
    other = reordered(crystal, order)
    expected = density_of_states(crystal, (3, 3, 3), projected=True, width=0.3).of_atoms
    found = density_of_states(other, (3, 3, 3), projected=True, width=0.3).of_atoms
    assert found == pytest.approx(expected, abs=1e-6) and not np.allclose(expected[0], expected[5], atol=0.01)
    assert mean_squared_displacements(other, mesh=(3, 3, 3)) == pytest.approx(
        mean_squared_displacements(crystal, mesh=(3, 3, 3)), rel=1e-6
    )


def test_group_velocities_are_slopes():
    crystal = example("NaCl")
    q = np.array([0.21, 0.07, -0.13])
    found = group_velocities(crystal, [q])[0]
    assert found.shape == (6, 3)
    step = 1e-5
    lattice = np.linalg.inv(crystal.primitive_cell).T
    plus_minus = [
        [phonopy_of(crystal).get_frequencies(q + sign * step * axis @ np.linalg.inv(lattice)) for sign in (1, -1)]
        for axis in np.eye(3)
    ]
    slopes = np.array([(plus - minus) / (2 * step) for plus, minus in plus_minus]).T * 0.1
    assert found == pytest.approx(slopes, abs=1e-3)


def test_sound_in_magnesia():
    """Along [100], from measured elastic constants (297 and 155 GPa, 3.58 g/cm^3), 9.11 and 6.58 km/s."""
    crystal = example("MgO")
    direction = np.array([0.005, 0, 0]) @ crystal.primitive_cell.T
    speeds = np.linalg.norm(group_velocities(crystal, [direction])[0][:3], axis=1)
    assert speeds == pytest.approx([6.58, 6.58, 9.11], rel=0.1)


def test_displacements_add_up_to_what_frequencies_say():
    """The sum over atoms of mass times mean square is the mean of hbar (n + 1/2) / omega over all modes."""
    crystal, kelvin = example("NaCl"), np.array([0.0, 100.0, 800.0])
    found = mean_squared_displacements(crystal, kelvin, SMALL)
    assert found.shape == (3, 2, 3) and found[:, 0, 0] == pytest.approx(found[:, 0, 2], rel=1e-6)
    mesh = mesh_frequencies(crystal, SMALL)
    keep = mesh.frequencies > 0.05
    quanta = 6.62607015e-34 * 1e12 * mesh.frequencies[keep]
    weights = np.broadcast_to(mesh.weights[:, None] / mesh.weights.sum(), keep.shape)[keep]
    with np.errstate(divide="ignore"):
        modes = 1 / np.tanh(quanta / (2 * 1.380649e-23 * kelvin[:, None])) / 2
    omega = 2 * np.pi * 1e12 * mesh.frequencies[keep]
    expected = (1.054571817e-34 * modes / omega) @ weights / 1.66053906660e-27 * 1e20
    masses = crystal.masses[crystal.p2s]
    assert (found * masses[:, None]).sum(axis=(1, 2)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda crystal: band_structure(crystal, points=1), "2 points or more"),
        (lambda crystal: density_of_states(crystal, points=1), "2 frequencies or more"),
        (lambda crystal: density_of_states(crystal, width=-1.0), "positive width"),
        (lambda crystal: density_of_states(crystal, (0, 1, 1)), "three positive numbers"),
        (lambda crystal: mean_squared_displacements(crystal, [-1]), "temperatures of 0 K or more"),
        (lambda crystal: band_structure(crystal, nac=True), "Si: expected Born charges"),
    ),
)
def test_requests_without_sense_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(example("Si"))


def test_atoms_on_top_of_each_other_are_refused():
    crystal = example("Si")
    positions = crystal.supercell.positions.copy()
    positions[8:] = positions[:8]
    wrong = dataclasses.replace(crystal, supercell=dataclasses.replace(crystal.supercell, positions=positions))
    for call in (band_path, mesh_frequencies):
        with pytest.raises(DataError, match="Si: expected"):
            call(wrong)
