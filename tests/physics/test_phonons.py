"""Frequencies, thermal properties and stability against phonopy's own path and known answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crystal_examples import NAMES, example, loaded, reordered

from data_tools.graph import DataError
from physics.phonons import Mesh, mesh_frequencies, stability
from physics.phonopy_bridge import COULOMB, phonopy_of
from physics.thermal import thermal

SHARED = 1e-8  # THz


@pytest.mark.parametrize("name", NAMES)
def test_the_object_is_the_one_of_phonopys_own_path(name):
    own, ours = loaded(name), phonopy_of(example(name))
    assert np.array_equal(ours.primitive.p2s_map, own.primitive.p2s_map)
    assert np.allclose(ours.primitive.positions, own.primitive.positions, atol=1e-12)
    for q in ([0, 0, 0], [0.5, 0, 0.5], [0.11, -0.23, 0.41]):
        assert np.abs(ours.get_frequencies(q) - own.get_frequencies(q)).max() < SHARED


def all_of(weights: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The spectrum of the whole mesh."""
    return np.sort(np.repeat(frequencies, weights, axis=0), axis=None)


@pytest.mark.parametrize("mesh", ((4, 4, 4), (3, 4, 5)))
@pytest.mark.parametrize("centred", (True, False))
@pytest.mark.parametrize("name", NAMES)
def test_meshes_are_those_of_phonopy(name, centred, mesh):
    found, own = mesh_frequencies(example(name), mesh, centred=centred), loaded(name)
    own.run_mesh(mesh, is_gamma_center=centred)
    assert found.weights.sum() == np.prod(mesh)
    assert found.frequencies.shape == (len(found.weights), 3 * example(name).n_primitive)
    spectrum = all_of(own.mesh.weights, own.mesh.frequencies)
    away = np.abs(spectrum) > 1e-3  # acoustic modes at Gamma are the root of a rounding
    assert np.abs(all_of(found.weights, found.frequencies) - spectrum)[away].max() < SHARED
    assert (~found.away_from_gamma).sum() == centred and (~away).sum() == 3 * centred
    assert found.highest == found.frequencies.max() > 5
    if centred:
        assert len(found.weights) == len(own.mesh.weights)


def test_without_symmetry_every_point_has_its_own_frequencies():
    reduced, whole = (mesh_frequencies(example("NaCl"), (3, 3, 3), symmetry=symmetry) for symmetry in (True, False))
    assert len(whole.weights) > len(reduced.weights)
    assert whole.weights @ whole.frequencies**2 == pytest.approx(reduced.weights @ reduced.frequencies**2, rel=1e-6)


def test_atoms_in_another_order_have_the_same_frequencies():
    """Also where the primitive atoms are not the first of their translations."""
    crystal = example("TiO2")
    order = np.random.default_rng(1).permutation(crystal.n_atoms)
    other = reordered(crystal, order)
    assert not np.array_equal(np.sort(np.unique(other.s2p, return_index=True)[1]), other.p2s)
    expected, found = mesh_frequencies(crystal, (3, 3, 3)), mesh_frequencies(other, (3, 3, 3))
    # the root of the rounding of acoustic modes at Gamma is no measure: eigenvalues are
    squares = [mesh.frequencies * np.abs(mesh.frequencies) for mesh in (found, expected)]
    assert np.abs(squares[0] - squares[1]).max() < SHARED
    assert np.array_equal(phonopy_of(other).supercell.numbers, other.supercell.numbers)


def test_the_non_analytical_term_is_that_of_phonopy():
    """Along a direction it lifts the longitudinal mode; at Gamma itself there is none."""
    crystal = example("NaCl")
    near = [1e-4, 1e-4, 0.0]
    without, with_term = (phonopy_of(crystal, nac=nac).get_frequencies(near) for nac in (False, True))
    assert with_term[:5] == pytest.approx(without[:5], abs=1e-2) and with_term[5] > without[5] + 2
    own = loaded("NaCl")
    own.nac_params = {"born": crystal.born, "dielectric": crystal.dielectric, "factor": COULOMB}
    corrected = own.get_frequencies(near)
    own.nac_params = None
    assert with_term == pytest.approx(corrected, abs=SHARED)
    found = mesh_frequencies(crystal, (2, 2, 2), nac=True)
    at_gamma = found.frequencies[~found.away_from_gamma]
    assert at_gamma[0, 3:] == pytest.approx([*without[3:5], without[3]], abs=1e-2)


def test_born_charges_that_are_absent_are_named():
    with pytest.raises(DataError, match="Si: expected Born charges for the non-analytical term, it has none"):
        phonopy_of(example("Si"), nac=True)
    with pytest.raises(DataError, match="expected a dielectric tensor"):
        phonopy_of(dataclasses.replace(example("NaCl"), dielectric=None), nac=True)


def test_a_primitive_cell_of_another_crystal_is_refused():
    crystal = example("NaCl")
    for cell in (crystal.primitive_cell * 1.1, crystal.supercell.cell):
        with pytest.raises(DataError, match="NaCl: expected"):
            phonopy_of(dataclasses.replace(crystal, primitive_cell=cell))


@pytest.mark.parametrize("mesh", ((0, 2, 2), (2, 2), (2.5, 2, 2)))
def test_a_mesh_without_points_is_refused(mesh):
    with pytest.raises(DataError, match="three positive numbers"):
        mesh_frequencies(example("Si"), mesh)


@pytest.mark.parametrize("name", NAMES)
def test_thermal_properties_are_those_of_phonopy(name):
    """phonopy 4.10 has constants of its own, a few 1e-6 from those of the SI."""
    temperatures = [0, 20, 300, 1200]  # versions before 4 overflow below
    found, own = thermal(mesh_frequencies(example(name)), temperatures), loaded(name)
    own.run_mesh([6, 6, 6], is_gamma_center=True)
    own.run_thermal_properties(temperatures=temperatures, cutoff_frequency=0.05)
    properties = own.get_thermal_properties_dict()
    assert found.free_energy == pytest.approx(properties["free_energy"], rel=1e-5)
    assert found.entropy == pytest.approx(properties["entropy"], rel=1e-5, abs=1e-6)
    assert found.heat_capacity == pytest.approx(properties["heat_capacity"], rel=1e-5, abs=1e-6)
    assert found.dropped == pytest.approx(3 / 216 / (3 * example(name).n_primitive))
    assert found.entropy_per_atom * example(name).n_primitive == pytest.approx(found.entropy)
    direct = thermal(example(name), temperatures)
    assert np.array_equal(direct.free_energy, found.free_energy)


def test_thermal_limits():
    """At 0 K the zero-point energy, at high temperature 3 k per atom (Dulong and Petit), and no warning between."""
    mesh = Mesh(np.array([[0.1, 0, 0]]), np.array([2]), np.array([[-3.0, 0.01, 5.0]]))
    with np.errstate(all="raise", under="ignore"):
        found = thermal(mesh, [0, 1e-3, 1, 1e6])
    quantum = 6.02214076e23 * 6.62607015e-34 * 5e12  # of one mole, J
    assert found.free_energy[:2] == pytest.approx(quantum / 2 / 1000, rel=1e-12)
    assert found.entropy[:2].tolist() == found.heat_capacity[:2].tolist() == [0, 0]
    assert found.heat_capacity[-1] == pytest.approx(8.314462618, rel=1e-6) and found.dropped == pytest.approx(2 / 3)
    assert found.heat_capacity_per_atom[-1] == found.heat_capacity[-1] and found.n_primitive == 1
    step = thermal(mesh, [299.9, 300.0, 300.1])
    assert step.entropy[1] == pytest.approx((step.free_energy[0] - step.free_energy[2]) / 0.2 * 1000, rel=1e-5)
    assert step.heat_capacity[1] == pytest.approx(300 * (step.entropy[2] - step.entropy[0]) / 0.2, rel=1e-5)


@pytest.mark.parametrize("temperatures", ([-1.0], [np.nan], [[1.0]]))
def test_temperatures_that_are_none_are_refused(temperatures):
    with pytest.raises(DataError, match="temperatures of 0 K or more"):
        thermal(Mesh(np.zeros((1, 3)), np.ones(1), np.ones((1, 3))), temperatures)


def test_dft_says_that_these_are_stable():
    for name in NAMES[:3]:
        found = stability(example(name))
        assert found.stable and found.lowest_on_mesh > 1 and np.abs(found.acoustic).max() < 1e-3
        assert found.lowest_at_gamma == pytest.approx(loaded(name).get_frequencies([0, 0, 0])[3], abs=SHARED)
        whole = mesh_frequencies(example(name))
        assert found.lowest_on_mesh == whole.frequencies[whole.away_from_gamma].min()


def test_a_soft_optical_mode_is_not_taken_for_an_acoustic_one():
    """With force constants of the opposite sign all modes are imaginary, the acoustic ones at Gamma are not."""
    crystal = example("NaCl")
    found = stability(dataclasses.replace(crystal, blocks=-crystal.blocks))
    assert found.lowest_at_gamma == pytest.approx(-loaded("NaCl").get_frequencies([0, 0, 0])[3], abs=1e-6)
    assert np.abs(found.acoustic).max() < 1e-3 and not found.stable
    at_q = phonopy_of(dataclasses.replace(crystal, blocks=-crystal.blocks)).get_frequencies(found.q)
    assert at_q[0] == pytest.approx(found.lowest_on_mesh)


def test_a_broken_sum_rule_shows_in_the_acoustic_modes():
    crystal = example("Si")
    blocks = crystal.blocks.copy()
    blocks[[0, 1], crystal.p2s] -= 0.5 * np.eye(3)
    found = stability(dataclasses.replace(crystal, blocks=blocks))
    assert (found.acoustic < -1).all() and found.lowest_at_gamma > 10
