"""The registry of targets: what fits is accepted, everything else is an error; atomisation is exact in float64."""

import itertools

import numpy as np
import pytest

from data_tools.formats.readers import read_table
from data_tools.graph import DataError, StructureTable
from data_tools.labels.targets import (
    ATOM_REFERENCE_FILE,
    READOUTS,
    STANDARDISATIONS,
    TARGETS,
    allowed_standardisations,
    atom_references,
    check_combination,
    get_target,
    label_values,
)
from data_tools.units import HARTREE, QM9_UNITS

NAMES = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
ENERGIES = ("U0", "U", "H", "G")
REFERENCES = ("none", "atomisation", "total")


@pytest.fixture(scope="module")
def table():
    return read_table(ATOM_REFERENCE_FILE.parent / "qm9_22807.npz")


def legal_combinations():
    for target in TARGETS.values():
        for readout, reference in itertools.product(target.readouts, target.references):
            for standardisation in allowed_standardisations(target, readout, reference):
                yield target.name, readout, reference, standardisation


def test_the_twelve_targets_have_the_units_the_readers_deliver():
    assert tuple(TARGETS) == (*NAMES, "energy", "force_constants")
    assert (TARGETS["energy"].unit, TARGETS["force_constants"].unit) == ("eV", "eV/A^2")
    assert all(TARGETS[name].unit == QM9_UNITS[name] for name in NAMES)


def test_names_are_found_in_any_case_and_under_the_names_of_other_projects():
    assert all(get_target(name.upper()) is get_target(name.lower()) is TARGETS[name] for name in NAMES)
    others = {"R2": "r2", "epsilon_homo": "homo", "u0": "U0", "U0_atom": "U0", "energy_U0": "U0", "c_v": "Cv"}
    assert all(get_target(other).name == name for other, name in others.items())


@pytest.mark.parametrize(("wrong", "nearest"), [("gapp", "gap"), ("homoo", "homo"), ("alhpa", "alpha"), ("U00", "U0")])
def test_an_unknown_target_names_the_nearest(wrong, nearest):
    with pytest.raises(DataError, match=f"did you mean '{nearest}'"):
        get_target(wrong)


def test_an_unknown_target_without_a_near_one_lists_all():
    with pytest.raises(DataError, match="Valid targets: mu, alpha"):
        get_target("xyzzy")


def test_every_combination_outside_the_legal_ones_is_refused():
    legal = set(legal_combinations())
    everything = itertools.product(NAMES, READOUTS, REFERENCES, STANDARDISATIONS)
    for name, readout, reference, standardisation in everything:
        if (name, readout, reference, standardisation) in legal:
            check_combination(TARGETS[name], readout, reference, standardisation)
        else:
            with pytest.raises(DataError, match="allowed are"):
                check_combination(TARGETS[name], readout, reference, standardisation)


def test_legal_combinations_obey_the_laws_of_their_quantities():
    for name, readout, reference, standardisation in legal_combinations():
        target = TARGETS[name]
        assert not (target.extensive and readout in ("mean", "attention")), "a mean does not grow with the molecule"
        assert standardisation != "per_atom" or (target.extensive and readout == "sum")
        assert readout in ("sum", "mean", "attention") or standardisation in ("scale", "none"), (
            "a shift breaks its symmetry"
        )
        assert (reference != "none") == (name in ENERGIES)
        assert (reference, standardisation) != ("total", "none")


def test_defaults_fit_and_are_those_of_the_field():
    expected = dict.fromkeys((*NAMES, "energy", "force_constants"), "sum") | dict.fromkeys(
        ("homo", "lumo", "gap"), "mean"
    )
    expected |= {"mu": "dipole", "r2": "electronic_spatial_extent"}
    for name, target in TARGETS.items():
        assert target.readouts[0] == expected[name]
        assert target.references[0] == ("atomisation" if name in ENERGIES else "none")
    check_combination(TARGETS["gap"], "sum", "none", "none")  # the demo recipe


@pytest.mark.parametrize("value", ["", "add", "atomization", "meann"])
def test_values_that_do_not_exist_are_refused(value):
    for position in range(3):
        choice = ["sum", "atomisation", "none"]
        choice[position] = value
        with pytest.raises(DataError, match=f"'{value}'"):
            check_combination(TARGETS["U0"], *choice)


def test_atom_references_are_the_published_ones_in_ev():
    references = atom_references(TARGETS["U0"])
    published = {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730}
    expected = np.array([*published.values()]) * HARTREE
    np.testing.assert_allclose(references[[*published]], expected, rtol=1e-14)
    assert references[0] == 0
    assert np.isnan(references).sum() == 118 - 5
    with pytest.raises(DataError, match="only U0, U, H, G"):
        atom_references(TARGETS["gap"])


@pytest.mark.parametrize("name", ENERGIES)
def test_atomisation_is_total_minus_free_atoms(table, name):
    atomisation = label_values(table, TARGETS[name], "atomisation")
    total = label_values(table, TARGETS[name], "total")
    start = np.concatenate([[0], np.cumsum(table.n_atoms)])
    references = atom_references(TARGETS[name])
    for molecule in (0, 1, 10_000, 22_806):  # the slow way
        free = sum(references[z] for z in table.numbers[start[molecule] : start[molecule + 1]])
        assert atomisation[molecule] == pytest.approx(total[molecule] - free, abs=1e-9)
    assert total.max() < -1000 and (atomisation < 0).all() and atomisation.min() > -150  # every molecule is bound
    per_atom = atomisation / table.n_atoms
    assert -6 < per_atom.min() and per_atom.max() < -2.5


def test_other_targets_are_as_published(table):
    np.testing.assert_array_equal(label_values(table, TARGETS["Cv"], "none"), table.of_structures["Cv"])


def test_a_missing_label_or_an_unknown_element_is_an_error(table):
    sulphur = StructureTable(
        numbers=np.array([16, 1, 1], np.int32),
        positions=np.zeros((3, 3)),
        n_atoms=np.array([3]),
        of_structures={"U0": np.array([-1e4])},
        ids=np.array([0]),
    )
    with pytest.raises(DataError, match="16"):
        label_values(sulphur, TARGETS["U0"], "atomisation")
    assert label_values(sulphur, TARGETS["U0"], "total") == [-1e4]
    with pytest.raises(DataError, match="hold U0"):
        label_values(sulphur, TARGETS["gap"], "none")
    with pytest.raises(DataError, match="allowed are none"):
        label_values(table, TARGETS["gap"], "total")
