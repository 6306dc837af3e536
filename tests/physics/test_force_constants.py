"""Full and compact force constants, measures of their symmetries, and projections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crystal_examples import NAMES, dfpt_example, example, loaded
from phonopy.harmonic.force_constants import compact_fc_to_full_fc

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from physics.force_constants import (
    compact_of,
    exchange_asymmetry,
    exchange_symmetric,
    exchanged,
    full_of,
    projected,
    sum_rule,
    symmetrized,
    translation_invariant,
)
from physics.lattice_translations import with_first_atoms
from physics.phonopy_bridge import phonopy_of

PROJECTIONS = (exchange_symmetric, translation_invariant, symmetrized, projected)
ROUNDING = 1e-13  # eV/Angstrom^2


def noisy(name: str, size: float = 0.1) -> Crystal:
    crystal = example(name)
    noise = np.random.default_rng(7).normal(size=crystal.blocks.shape)
    return dataclasses.replace(crystal, blocks=crystal.blocks + size * noise)


def largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


@pytest.mark.parametrize("name", NAMES)
def test_full_force_constants_are_those_of_phonopy(name):
    """Random blocks: without symmetries that would hide a wrong translation."""
    crystal = noisy(name)
    full = full_of(crystal)
    expected = compact_fc_to_full_fc(loaded(name).primitive, np.array(crystal.blocks))
    assert largest(full - expected) < ROUNDING
    assert np.array_equal(compact_of(full, crystal.p2s), crystal.blocks)


def test_the_round_trip_of_a_full_file_is_exact():
    """All rows of the file are translations of the primitive ones, to the last bit."""
    crystal = dfpt_example()
    full = full_of(crystal)
    assert full.shape == (64, 64, 3, 3) and not largest(exchange_asymmetry(crystal))
    again = dataclasses.replace(crystal, blocks=compact_of(full, crystal.p2s))
    assert np.array_equal(full_of(again), full)


def test_other_atoms_may_stand_for_the_primitive_cell():
    crystal = noisy("TiO2")
    full = full_of(crystal)
    others = np.array([crystal.s2p.tolist().index(atom) + 3 for atom in crystal.p2s])[::-1]
    assert np.array_equal(crystal.s2p[others], crystal.p2s[::-1])
    place = {int(old): int(new) for old, new in zip(crystal.p2s[::-1], others, strict=True)}
    s2p = np.array([place[int(atom)] for atom in crystal.s2p])
    born = crystal.born[::-1]
    other = dataclasses.replace(crystal, p2s=others, s2p=s2p, blocks=full[others], born=born)
    assert np.array_equal(full_of(other), full)
    back = with_first_atoms(other)
    for field in ("p2s", "s2p", "blocks", "born"):
        assert np.array_equal(getattr(back, field), getattr(crystal, field)), field
    assert largest(symmetrized(other).blocks - full_of(symmetrized(crystal))[others]) < ROUNDING


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_those_of_the_full_matrix(name):
    crystal = noisy(name)
    full = full_of(crystal)
    transposed = full.transpose(1, 0, 3, 2)
    assert np.array_equal(exchanged(crystal), transposed[crystal.p2s])
    assert np.array_equal(exchange_asymmetry(crystal), (full - transposed)[crystal.p2s])
    assert sum_rule(crystal.blocks) == pytest.approx(full[crystal.p2s].sum(axis=1), abs=ROUNDING)
    assert sum_rule(full).shape == (crystal.n_atoms, 3, 3)


@pytest.mark.parametrize("project", PROJECTIONS)
def test_a_projection_is_the_nearest(project):
    """What it removes is orthogonal to what it keeps; twice is once; the input stays as it was."""
    crystal = noisy("MgO")
    before = crystal.blocks.copy()
    found = project(crystal)
    removed = crystal.blocks - found.blocks
    assert np.array_equal(crystal.blocks, before) and largest(removed) > 0.01
    assert abs((removed * found.blocks).sum()) < 1e-10 * (before**2).sum()
    assert largest(project(found).blocks - found.blocks) < ROUNDING


def test_projections_remove_what_is_measured_and_commute():
    crystal = noisy("TiO2")
    assert largest(exchange_asymmetry(exchange_symmetric(crystal))) < ROUNDING
    invariant = translation_invariant(crystal)
    assert largest(sum_rule(invariant.blocks)) < ROUNDING and largest(full_of(invariant).sum(axis=0)) < ROUNDING
    first = projected(crystal)
    last = symmetrized(exchange_symmetric(translation_invariant(crystal)))
    assert largest(first.blocks - last.blocks) < ROUNDING
    assert largest(sum_rule(first.blocks)) < ROUNDING and largest(exchange_asymmetry(first)) < ROUNDING


@pytest.mark.parametrize("name", NAMES)
def test_the_space_group_mean_is_the_projector_of_symfc(name):
    pytest.importorskip("symfc")
    crystal = noisy(name)
    found = phonopy_of(crystal, symmetry=True)
    try:
        found.symmetrize_force_constants(show_drift=False, use_symfc_projector=True)
    except (TypeError, AttributeError):
        pytest.skip("this phonopy has no such option, or is not made for this symfc")
    assert largest(found.force_constants - projected(crystal).blocks) < ROUNDING


def test_dft_is_near_its_projection():
    """Finite displacements: exchange symmetry and sum rule hold nearly, the space group to rounding."""
    for name in NAMES:
        crystal = example(name, symmetrised=False)
        assert largest(symmetrized(crystal).blocks - crystal.blocks) < ROUNDING
        assert largest(projected(crystal).blocks - crystal.blocks) < 2e-3
        assert largest(sum_rule(crystal.blocks)) < 1e-5


def test_full_force_constants_alone_become_compact():
    with pytest.raises(DataError, match="expected full force constants"):
        compact_of(example("Si").blocks, example("Si").p2s)


def test_atoms_in_another_order_are_named():
    crystal = example("NaCl")
    cell = crystal.supercell
    positions = cell.positions.copy()
    positions[[3, 40]] = positions[[40, 3]]
    wrong = dataclasses.replace(crystal, supercell=dataclasses.replace(cell, positions=positions))
    with pytest.raises(DataError, match="NaCl: expected atom 3 at a lattice vector from atom 0"):
        full_of(wrong)


def test_a_primitive_cell_that_does_not_fit_is_named():
    crystal = example("NaCl")
    with pytest.raises(DataError, match="expected a supercell of whole primitive cells"):
        full_of(dataclasses.replace(crystal, primitive_cell=crystal.primitive_cell * 0.9))
    with pytest.raises(DataError, match="expected 256 translations of 2 primitive atoms in the supercell, found 64"):
        full_of(dataclasses.replace(crystal, primitive_cell=crystal.primitive_cell / 2))
