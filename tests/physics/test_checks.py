"""Each check sees that its law is broken, and only then; force constants and energies that are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from spring_crystals import REACH, along, joined, rock_salt, skewed

from data_tools.graph import Structure
from physics.checks import TERAHERTZ, Check, acoustic_sums, check_blocks, decay, pair_norms, radius_within
from physics.energy_checks import atoms_of, check_differences, check_energy, difference_blocks
from physics.force_constants import full_of
from physics.minimum_image import minimum_images
from scripts.benchmarks.dft_scales import summary

LAWS = ("exchange", "acoustic", "rotational", "space_group")
EXACT, BROKEN = 1e-12, 1e-3  # relative


@pytest.fixture(scope="module")
def crystals():
    """One without symmetry and one of high symmetry."""
    return {"skewed": joined(skewed(), 2), "MgO": joined(rock_salt(), 2)}


def relative(crystal):
    return {check.name: check.relative for check in check_blocks(crystal)}


def broken(crystal):
    """The laws that a crystal breaks."""
    return {name for name in LAWS if relative(crystal)[name] > EXACT}


def pair(crystal):
    """Two atoms of the primitive cell that a spring joins, as rows and as atoms of the supercell."""
    images = minimum_images(crystal)
    rows = np.argwhere((images.distances[:, crystal.p2s] < REACH) & ~np.eye(crystal.n_primitive, dtype=bool))
    one, other = rows[0]
    return one, other, crystal.p2s[one], crystal.p2s[other]


@pytest.mark.parametrize("name", ["skewed", "MgO"])
def test_springs_obey_every_law(crystals, name):
    crystal = crystals[name]
    assert radius_within(crystal.supercell.cell) > REACH
    assert not broken(crystal)
    found = {check.name: check for check in check_blocks(crystal)}
    assert found["lowest_frequency"].value > 0.1 and abs(found["translations"].value) < 1e-5
    assert found["edge"].value == 0


def test_a_transposed_block(crystals):
    """Of one direction of a pair only; the sum over the second atom stays, that over the first one does not."""
    crystal = crystals["skewed"]
    one, _, atom, second = pair(crystal)
    blocks = crystal.blocks.copy()
    blocks[one, second, 0, 1] += 0.3
    blocks[one, atom, 0, 1] -= 0.3
    changed = dataclasses.replace(crystal, blocks=blocks)
    assert {"exchange", "acoustic"} <= broken(changed)
    assert np.abs(acoustic_sums(changed, full_of(changed))[0]).max() < 1e-12
    assert np.abs(acoustic_sums(changed, full_of(changed))[1]).max() == pytest.approx(0.3)
    found = {check.name: check for check in check_blocks(changed)}
    assert found["exchange"].value == pytest.approx(0.3) and found["exchange"].unit == "eV/A^2"


def test_a_broken_sum(crystals):
    crystal = crystals["skewed"]
    blocks = crystal.blocks.copy()
    blocks[1, crystal.p2s[1]] += np.diag([0.0, 0.2, 0.0])
    changed = dataclasses.replace(crystal, blocks=blocks)
    assert broken(changed) == {"acoustic"}
    found = {check.name: check for check in check_blocks(changed)}
    assert found["acoustic"].value == pytest.approx(0.2)
    assert found["translations"].value > 0.1


def test_all_nine_components_of_the_sum(crystals):
    crystal = crystals["skewed"]
    for a in range(3):
        for b in range(3):
            blocks = crystal.blocks.copy()
            blocks[0, 3, a, b] += 0.1
            changed = dataclasses.replace(crystal, blocks=blocks)
            sums = acoustic_sums(changed, full_of(changed))
            assert sums[0, 0, a, b] == pytest.approx(0.1) and np.abs(sums[0]).sum() == pytest.approx(0.1)
            assert np.abs(sums[1, :, a, b]).max() == pytest.approx(0.1)


def test_springs_that_resist_a_rotation():
    """Phi_ij = -k: the same in all directions, so it pulls back an atom that only turns about another."""
    crystal = joined(skewed(), 2, lambda vector: along(vector).trace() * np.eye(3))
    assert broken(crystal) == {"rotational"} and relative(crystal)["rotational"] > 0.01


def test_the_rotational_sum_is_that_of_a_rotation(crystals):
    """-sum_j Phi_ij (w x r_ij) is the force that a rotation by w makes."""
    crystal = joined(skewed(), 2, lambda vector: along(vector) + np.diag([0.5, 0.1, 0.0]))
    (check,) = (one for one in check_blocks(crystal) if one.name == "rotational")
    vectors = minimum_images(crystal).vectors
    expected = [
        np.abs(np.einsum("ijab,ijb->ia", crystal.blocks, np.cross(axis, vectors))).max() for axis in np.eye(3)
    ]  # fmt: skip
    assert check.value == pytest.approx(max(expected)) and check.unit == "eV/A"


def test_an_atom_that_symmetry_does_not_allow(crystals):
    """A spring of one of six equal neighbours is stiffer; sum rule and exchange still hold."""
    crystal = crystals["MgO"]
    one, other, atom, second = pair(crystal)
    rows = crystal.blocks.copy()
    extra = 0.1 * rows[one, second]
    rows[one, second] += extra
    rows[one, atom] -= extra
    rows[other, atom] += extra
    rows[other, second] -= extra
    changed = dataclasses.replace(crystal, blocks=rows)
    assert broken(changed) == {"space_group"} and relative(changed)["space_group"] > BROKEN


def test_blocks_in_another_frame(crystals):
    """Force constants of the crystal turned about z by 20 degrees belong to other positions."""
    crystal, angle = crystals["MgO"], np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    changed = dataclasses.replace(crystal, blocks=turn @ crystal.blocks @ turn.T)
    assert {"space_group"} <= broken(changed) and not {"exchange", "acoustic"} & broken(changed)


def test_atoms_in_another_order(crystals):
    """Two anions of the supercell have changed places among the columns of the force constants."""
    crystal = crystals["MgO"]
    blocks = crystal.blocks.copy()
    blocks[:, [40, 50]] = blocks[:, [50, 40]]
    assert relative(dataclasses.replace(crystal, blocks=blocks))["space_group"] > 0.05


def test_springs_that_push():
    """Negative stiffness of long springs: no minimum, and the frequency is that of the dynamical matrix."""
    crystal = joined(rock_salt(), 2, lambda vector: along(vector) * (1 if np.linalg.norm(vector) < 2.5 else -1))
    found = {check.name: check for check in check_blocks(crystal)}
    assert found["lowest_frequency"].value < -1 and not broken(crystal)


def test_the_lowest_frequency_is_not_a_translation():
    """Two atoms with one spring: sqrt(k / reduced mass); five modes of the six have no frequency."""
    structure = Structure(np.array([8, 12], np.int32), np.array([[0.0, 0, 0], [2, 0, 0]]), 8.0 * np.eye(3), "pair")
    crystal = joined(structure, 1)
    found = {check.name: check for check in check_blocks(crystal)}
    mass = 1 / np.sum(1 / crystal.masses)
    assert found["lowest_frequency"].value == pytest.approx(0, abs=1e-5)
    highest = TERAHERTZ * np.sqrt(4.0 / mass)
    shifted = dataclasses.replace(crystal, blocks=-crystal.blocks)
    (check,) = (one for one in check_blocks(shifted) if one.name == "lowest_frequency")
    assert check.value == pytest.approx(-highest)


def test_decay(crystals):
    """Six neighbours at 2.1 Angstrom, twelve at 2.97; blocks further away are 0."""
    crystal = crystals["MgO"]
    rows = decay(crystal, minimum_images(crystal))
    assert [row.pairs for row in rows][:1] == [2 * 18] and sum(row.pairs for row in rows) == 2 * 63
    assert rows[0].largest == pytest.approx(6 - 2.1) and all(row.largest == 0 for row in rows[1:])
    mean = (6 * (6 - 2.1) + 12 * (6 - 2.1 * np.sqrt(2))) / 18
    assert rows[0].mean == pytest.approx(mean)
    blocks = crystal.blocks.copy()
    lengths = minimum_images(crystal).distances[0]
    blocks[0, lengths.argmax(), 0, 0] = 0.7
    (check,) = (one for one in check_blocks(dataclasses.replace(crystal, blocks=blocks)) if one.name == "edge")
    assert check.value == pytest.approx(0.7) and check.relative == pytest.approx(0.7 / (6 - 2.1))


def test_nearest_images_share_ties(crystals):
    """In a cubic supercell of 8.4 Angstrom an atom half an edge away is equally near on both sides."""
    crystal = crystals["MgO"]
    images = minimum_images(crystal)
    lengths, _ = pair_norms(crystal, images)
    assert len(lengths) == 2 * 63 and lengths.min() == pytest.approx(2.1)
    half = np.isclose(images.distances, 4.2)
    assert half.any() and not np.isclose(np.linalg.norm(images.vectors[half], axis=1), 4.2).all()
    near = images.distances < 4.1
    assert np.allclose(np.linalg.norm(images.vectors[near], axis=1), images.distances[near])


def test_nearest_images_in_a_flat_cell():
    """The shortest lattice vector of a skewed cell is none of its edges."""
    cell = np.array([[4.0, 0, 0], [0, 4.0, 0], [3.9, 3.9, 1.5]])
    assert radius_within(cell) == pytest.approx(np.linalg.norm(cell[2] - cell[0] - cell[1]) / 2)


def copper() -> Structure:
    sites = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Structure(np.full(4, 29, np.int32), 1.8 * sites, 3.6 * np.eye(3), "Cu")


class Faulty(Calculator):
    """Springs to fixed places, or a bias by direction or by number: each breaks one law."""

    implemented_properties = ("energy", "forces")

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        inner = EMT()
        energy, forces = inner.get_potential_energy(atoms), inner.get_forces(atoms)
        apart = atoms.get_all_distances(mic=True, vector=True)[0] if self.fault == "rotation" else None
        if self.fault == "rotation":
            energy += 0.01 * float((apart[:, 0] ** 2).sum())
        elif self.fault == "translation":
            energy += 0.01 * float((atoms.positions**2).sum())
        elif self.fault == "permutation":
            energy += 0.01 * float(atoms.get_distance(0, 1, mic=True))
        self.results = {"energy": energy, "forces": forces}


def test_an_energy_that_obeys_the_laws():
    for check in check_energy(copper(), EMT()):
        assert check.value < 1e-10 and check.relative < 1e-10 and check.unit == "eV/atom"


@pytest.mark.parametrize("fault", ["rotation", "translation", "permutation"])
def test_an_energy_that_breaks_a_law(fault):
    found = {check.name: check.value for check in check_energy(copper(), Faulty(fault))}
    assert {name for name, value in found.items() if value > 1e-6} == {fault}


class WithoutEnergy(EMT):
    """Forces only."""

    implemented_properties = ("forces",)


def test_forces_alone():
    for check in check_energy(copper(), WithoutEnergy()):
        assert np.isnan(check.value) and check.relative < 1e-10


def test_differences_of_a_known_potential():
    """Two atoms of a Lennard-Jones potential at a distance whose second derivatives are known."""
    pair_of = Structure(np.array([18, 18], np.int32), np.array([[0.0, 0, 0], [1.2, 0, 0]]), None, "Ar2")
    calculator = LennardJones(sigma=1.0, epsilon=1.0, rc=50.0)
    blocks = difference_blocks(pair_of, calculator, [0, 1], step=1e-3)
    r = 1.2
    second = 4 * (156 / r**14 - 42 / r**8)
    first = 4 * (-12 / r**13 + 6 / r**7)
    assert blocks[0, 0] == pytest.approx(np.diag([second, first / r, first / r]), rel=1e-3)
    assert blocks[0, 1] == pytest.approx(-blocks[0, 0], abs=1e-6)
    good = check_differences(blocks, pair_of, calculator, [0, 1])
    bad = check_differences(1.05 * blocks, pair_of, calculator, [0, 1])
    assert good.relative < 0.02 < bad.relative and bad.unit == "eV/A^2"


def test_atoms_keep_what_the_structure_says():
    assert atoms_of(copper()).pbc.all() and not atoms_of(dataclasses.replace(copper(), cell=None)).pbc.any()


def test_every_check_has_a_scale(crystals):
    """What DFT shows, in the same unit, for raw and projected force constants."""
    scales = json.loads((Path(__file__).parents[2] / "physics" / "dft_scales.json").read_text())
    for check in check_blocks(crystals["MgO"]):
        for kind in ("raw", "projected"):
            one = scales[kind][check.name]
            assert one["unit"] == check.unit and all(
                0 <= one[part][0] <= one[part][1] for part in ("value", "relative")
            )


def test_the_summary_of_scales():
    """Of frequencies that are not imaginary nothing counts."""
    several = [
        [Check("exchange", value, "eV/A^2", value / 10), Check("lowest_frequency", low, "THz", low / 10)]
        for value, low in ((1.0, 3.0), (-2.0, -1.0), (3.0, -5.0))
    ]
    found = summary(several)
    assert found["exchange"] == {"unit": "eV/A^2", "value": [2.0, 2.8], "relative": [0.2, 0.28]}
    assert found["lowest_frequency"]["value"] == pytest.approx([1.0, 4.2])
