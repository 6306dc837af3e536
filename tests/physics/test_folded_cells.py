"""Smaller cells of a crystal with force constants: the same physics in fewer atoms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crystal_samples import zinc_oxide
from spring_crystals import joined, rock_salt, skewed

from data_tools.crystals import Crystal
from physics.folded_cells import LARGE, SMALL, cells_to_train_on, folded_cells
from physics.force_constants import exchange_asymmetry, sum_rule
from physics.lattice_translations import LatticeTranslations

CRYSTALS = {
    "ZnO": zinc_oxide,
    "springs of rock salt": lambda: joined(rock_salt(), 3),
    "springs in a skewed cell": lambda: joined(skewed(), 4),
}


@pytest.fixture(scope="module", params=CRYSTALS)
def crystal(request) -> Crystal:
    return CRYSTALS[request.param]()


@pytest.fixture(scope="module")
def cells(crystal) -> list[Crystal]:
    found = folded_cells(crystal, crystal.n_atoms // 2, 6, [7])
    assert len(found) >= 3
    return found


def dynamical_matrix(crystal: Crystal, wave_vector: np.ndarray) -> np.ndarray:
    """(3 p, 3 p) without masses, at a wave vector in units of the primitive reciprocal vectors."""
    translations = LatticeTranslations(crystal)
    phases = np.exp(2j * np.pi * translations.cells @ wave_vector)
    p = crystal.n_primitive
    found = np.zeros((p, 3, p, 3), complex)
    for atom, kind in enumerate(translations.of_primitive):
        found[:, :, kind] += crystal.blocks[:, atom] * phases[atom]
    return found.reshape(3 * p, 3 * p)


def test_dynamical_matrices_are_the_supercells_at_wave_vectors_of_both(crystal, cells):
    for cell in cells:
        steps = LatticeTranslations(cell).steps
        for whole in np.eye(3):
            wave_vector = np.linalg.solve(steps, whole)  # whole numbers of waves along the vectors of the small cell
            found, expected = (dynamical_matrix(one, wave_vector) for one in (cell, crystal))
            assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


def test_elsewhere_they_are_not(crystal):
    """A law that could not fail would hold for the primitive cell everywhere."""
    (cell,) = folded_cells(crystal, crystal.n_primitive, 1, [0])
    assert cell.n_atoms == cell.n_primitive == crystal.n_primitive
    shortest = np.linalg.solve(LatticeTranslations(crystal).steps, np.eye(3)[0])
    found, expected = (dynamical_matrix(one, shortest) for one in (cell, crystal))
    assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


def test_cells_are_different_and_whole(crystal, cells):
    lattices = {np.round(cell.supercell.cell, 6).tobytes() for cell in cells}
    assert len(lattices) == len(cells)
    volume = abs(np.linalg.det(crystal.supercell.cell)) / crystal.n_atoms
    for cell in cells:
        assert cell.n_atoms <= crystal.n_atoms // 2
        assert abs(np.linalg.det(cell.supercell.cell)) / cell.n_atoms == pytest.approx(volume, rel=1e-9)
        assert np.array_equal(cell.supercell.numbers[cell.s2p], cell.supercell.numbers)
        assert np.array_equal(np.sort(np.unique(cell.s2p)), np.sort(cell.p2s))
        own = cell.supercell.positions[cell.p2s]
        assert np.array_equal(own, crystal.supercell.positions[crystal.p2s])
        sizes = np.abs(cell.blocks).max()
        assert np.abs(sum_rule(cell.blocks) - sum_rule(crystal.blocks)).max() < 1e-10 * sizes
        assert np.abs(exchange_asymmetry(cell)).max() < np.abs(exchange_asymmetry(crystal)).max() + 1e-10 * sizes


def test_the_choice_is_a_function_of_name_and_seed(crystal):
    first, again = (cells_to_train_on(crystal, 3) for _ in range(2))
    assert [one.n_atoms for one in first] == [one.n_atoms for one in again]
    assert all(np.array_equal(a.blocks, b.blocks) for a, b in zip(first, again, strict=True))
    lattices = set()
    for seed in range(8):
        chosen = cells_to_train_on(crystal, seed)
        assert 1 <= len(chosen) <= 2
        assert chosen[0].n_atoms <= max(SMALL, crystal.n_primitive) and chosen[-1].n_atoms <= max(LARGE, 64)
        lattices.add(chosen[0].supercell.cell.tobytes())
    assert len(lattices) > 1


def test_a_crystal_without_smaller_cells_stands_for_itself():
    crystal = zinc_oxide()
    (cell,) = folded_cells(crystal, crystal.n_primitive, 1, [0])
    assert folded_cells(cell, 100, 3, [0]) == []
    assert cells_to_train_on(dataclasses.replace(cell), 0) == [cell]
    assert folded_cells(crystal, crystal.n_primitive - 1, 3, [0]) == []
