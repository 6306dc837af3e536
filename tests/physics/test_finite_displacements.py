"""Force constants from forces of displaced supercells, where the answer is written down beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crystal_examples import example, loaded
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from test_phonons import reordered

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.finite_displacements import Displaced, blocks_of_forces, displaced_cells


def harmonic_forces(name: str, crystal: Crystal, displaced: Displaced, order: np.ndarray | None = None) -> np.ndarray:
    """F_i = -Phi_ij u_j with all force constants of the example, whose atoms may stand in another order."""
    full = compact_fc_to_full_fc(loaded(name).primitive, example(name).blocks)
    order = np.arange(crystal.n_atoms) if order is None else order
    moved = displaced.positions - crystal.supercell.positions
    return -np.einsum("ijab,djb->dia", full[order][:, order], moved)


@pytest.mark.parametrize("name", ["MgO", "TiO2"])
def test_the_force_constants_come_back(name):
    crystal = example(name)
    empty = dataclasses.replace(crystal, blocks=np.full_like(crystal.blocks, np.nan))
    displaced = displaced_cells(empty)
    assert len(displaced.atoms) < crystal.n_primitive * 3  # symmetry spares some
    np.testing.assert_allclose(np.linalg.norm(displaced.vectors, axis=1), 0.01)
    moved = displaced.positions - crystal.supercell.positions
    np.testing.assert_allclose(moved[np.arange(len(moved)), displaced.atoms], displaced.vectors, atol=1e-12)
    assert (np.linalg.norm(moved, axis=-1) > 1e-12).sum() == len(moved)
    found = blocks_of_forces(empty, displaced, harmonic_forces(name, crystal, displaced))
    np.testing.assert_allclose(found, crystal.blocks, atol=1e-12 * np.abs(crystal.blocks).max())


def test_atoms_in_any_order_and_any_representatives():
    order = np.random.default_rng(0).permutation(example("MgO").n_atoms)
    crystal = reordered(example("MgO"), order)
    displaced = displaced_cells(crystal)
    found = blocks_of_forces(crystal, displaced, harmonic_forces("MgO", crystal, displaced, order))
    np.testing.assert_allclose(found, crystal.blocks, atol=1e-12 * np.abs(crystal.blocks).max())


def test_cells_that_do_not_fit_are_one_line():
    crystal = dataclasses.replace(example("MgO"), primitive_cell=example("MgO").primitive_cell * 1.1)
    with pytest.raises(DataError, match="MgO: expected a supercell of whole primitive cells"):
        displaced_cells(crystal)


def test_another_distance():
    crystal = example("MgO")
    displaced = displaced_cells(crystal, 0.03)
    np.testing.assert_allclose(np.linalg.norm(displaced.vectors, axis=1), 0.03)
