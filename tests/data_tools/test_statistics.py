"""Normalisation is an exact linear law in float64; baselines and metrics agree with the slow way."""

import itertools
import json

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.labels.statistics import (
    Normalizer,
    element_counts,
    fit_normalizer,
    linear_baseline,
    mean_baseline,
    regression_metrics,
    undetermined,
)
from data_tools.labels.targets import (
    ATOM_REFERENCE_FILE,
    TARGETS,
    allowed_standardisations,
    atom_references,
    label_values,
)

COMBINATIONS = [
    (name, readout, reference, standardisation)
    for name, target in TARGETS.items()
    if not target.is_of_potential  # not in the QM9 files
    for readout, reference in itertools.product(target.readouts, target.references)
    for standardisation in allowed_standardisations(target, readout, reference)
]


@pytest.fixture(scope="module")
def table():
    return read_table(ATOM_REFERENCE_FILE.parent / "qm9_22807.npz")


@pytest.fixture(scope="module")
def counts(table):
    return element_counts(table.numbers, table.n_atoms)


def test_counts_are_the_compositions(table, counts):
    np.testing.assert_array_equal(counts.sum(axis=1), table.n_atoms)
    start = np.concatenate([[0], np.cumsum(table.n_atoms)])
    for molecule in (0, 77, 22_806):
        np.testing.assert_array_equal(
            counts[molecule], np.bincount(table.numbers[start[molecule] : start[molecule + 1]], minlength=119)
        )
    with pytest.raises(DataError, match=r"1\.\.118"):
        element_counts(np.array([1, 0]), np.array([2]))
    with pytest.raises(DataError, match="3 atomic numbers expected"):
        element_counts(np.array([1, 6]), np.array([3]))


@pytest.mark.parametrize(("name", "readout", "reference", "standardisation"), COMBINATIONS)
def test_invert_undoes_apply(table, counts, name, readout, reference, standardisation):
    labels = label_values(table, TARGETS[name], reference)
    normalizer = fit_normalizer(labels[:5000], counts[:5000], standardisation)
    back = normalizer.invert(normalizer.apply(labels, counts), counts)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, labels, rtol=1e-12, atol=1e-12 * np.abs(labels).max())
    if readout in ("dipole", "electronic_spatial_extent"):
        assert normalizer.shift == 0 and normalizer.scale > 0


@pytest.mark.parametrize("name", ["U0", "U", "H", "G"])
def test_references_in_the_normaliser_equal_atomisation_labels(table, counts, name):
    total, atomisation = (label_values(table, TARGETS[name], kind) for kind in ("total", "atomisation"))
    with_references = fit_normalizer(total, counts, "per_atom", atom_references(TARGETS[name]))
    without = fit_normalizer(atomisation, counts, "per_atom")
    assert with_references.scale == pytest.approx(without.scale, rel=1e-9)
    output = without.apply(atomisation, counts)
    np.testing.assert_allclose(with_references.apply(total, counts), output, atol=1e-8)
    np.testing.assert_allclose(with_references.invert(output, counts), total, rtol=1e-12)


def test_float32_outputs_keep_total_energies_to_a_micro_ev(table, counts):
    total = label_values(table, TARGETS["U0"], "total")
    normalizer = fit_normalizer(total, counts, "per_atom", atom_references(TARGETS["U0"]))
    output = normalizer.apply(total, counts).astype(np.float32)
    assert np.abs(normalizer.invert(output, counts) - total).max() < 1e-5
    assert np.abs(total.astype(np.float32) - total).max() > 1e-4  # why references are added in float64


def test_standardised_labels_have_mean_0_and_deviation_1(table, counts):
    gap, atomisation = label_values(table, TARGETS["gap"], "none"), label_values(table, TARGETS["U0"], "atomisation")
    per_molecule = fit_normalizer(gap, counts, "per_molecule").apply(gap, counts)
    per_atom = fit_normalizer(atomisation, counts, "per_atom").apply(atomisation, counts) / table.n_atoms
    for share in (per_molecule, per_atom):
        assert share.mean() == pytest.approx(0, abs=1e-10) and share.std() == pytest.approx(1)
    mu = label_values(table, TARGETS["mu"], "none")
    scaled = fit_normalizer(mu, counts, "scale").apply(mu, counts)
    assert np.mean(scaled**2) == pytest.approx(1) and (scaled[mu == 0] == 0).all() and scaled.min() == 0
    assert np.array_equal(fit_normalizer(gap, counts, "none").apply(gap, counts), gap)


def test_mean_mad_is_segnns(table, counts):
    """SEGNN's qm9/dataset.py: mean of the training labels, mean of |label - mean|, for every target the same way."""
    for name in ("alpha", "gap", "r2", "mu"):
        labels = label_values(table, TARGETS[name], "none")
        train, mean = labels[:1000], labels[:1000].mean()
        normalizer = fit_normalizer(train, counts[:1000], "mean_mad")
        assert normalizer.shift == pytest.approx(mean, rel=1e-14) and not normalizer.per_atom
        assert normalizer.scale == pytest.approx(mean_absolute_error(np.full(1000, mean), train), rel=1e-12)
        output = normalizer.apply(train, counts[:1000])
        assert output.mean() == pytest.approx(0, abs=1e-10) and np.abs(output).mean() == pytest.approx(1)
    predicted = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    expected = predicted.astype(np.float64) * normalizer.scale + normalizer.shift
    np.testing.assert_array_equal(normalizer.invert(predicted, counts[:1000]), expected)


def test_the_per_atom_law_is_extensive():
    normalizer = Normalizer(2.0, -3.0, per_atom=True, references=np.linspace(0, 1, 119))
    one = element_counts(np.array([6, 1, 1, 8]), np.array([4]))
    np.testing.assert_allclose(normalizer.invert(np.array([1.4]), 2 * one), 2 * normalizer.invert(np.array([0.7]), one))


def test_average_is_the_mean_over_atoms_of_the_per_atom_law():
    """PyG's SchNet with readout mean: mean_i(h_i std + mean + reference[z_i])."""
    random = np.random.default_rng(0)
    numbers, n_atoms = random.integers(1, 10, 12), np.array([5, 3, 4])
    values, references = random.normal(size=12), random.normal(size=119)
    per_atom = values * 1.7 - 0.4 + references[numbers]
    expected = [part.mean() for part in np.split(per_atom, np.cumsum(n_atoms)[:-1])]
    output = np.array([part.mean() for part in np.split(values, np.cumsum(n_atoms)[:-1])])
    normalizer = Normalizer(1.7, -0.4, average=True, references=references)
    np.testing.assert_allclose(normalizer.invert(output, element_counts(numbers, n_atoms)), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "references", [np.zeros(119), atom_references(TARGETS["G"]), np.linspace(-1, 1, 119)], ids=["none", "nan", "full"]
)
def test_a_normaliser_survives_json(references):
    normalizer = Normalizer(0.1 + 0.2, -1e4 / 3, per_atom=True, average=False, references=references)
    back = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict(), allow_nan=False)))
    assert (back.scale, back.shift, back.per_atom, back.average) == (0.1 + 0.2, -1e4 / 3, True, False)
    np.testing.assert_array_equal(back.references, references)
    with pytest.raises(DataError, match="lacks shift"):
        Normalizer.from_dict({key: value for key, value in normalizer.to_dict().items() if key != "shift"})


def test_mistakes_are_errors():
    counts = element_counts(np.array([6, 6, 16]), np.array([1, 1, 1]))
    with pytest.raises(DataError, match="do not vary"):
        fit_normalizer(np.full(3, 0.1), counts, "per_molecule")
    with pytest.raises(DataError, match="do not vary"):
        fit_normalizer(np.full(3, 0.1), counts, "mean_mad")
    with pytest.raises(DataError, match="do not vary"):
        fit_normalizer(np.zeros(3), counts, "scale")
    with pytest.raises(DataError, match="1 missing"):
        fit_normalizer(np.array([1.0, np.nan, 2.0]), counts, "per_molecule")
    with pytest.raises(DataError, match="unknown standardisation"):
        fit_normalizer(np.arange(3.0), counts, "per_bond")
    with pytest.raises(DataError, match="16 have no reference"):
        Normalizer(1.0, 0.0, references=atom_references(TARGETS["U0"])).apply(np.arange(3.0), counts)
    with pytest.raises(DataError, match="expected"):
        Normalizer(1.0, 0.0).invert(np.zeros((3, 1)), counts)
    for scale, shift in ((0.0, 0.0), (np.nan, 0.0), (1.0, np.inf)):
        with pytest.raises(DataError, match="finite"):
            Normalizer(scale, shift)


def test_the_linear_baseline_recovers_a_linear_label(table, counts):
    coefficients = np.random.default_rng(1).normal(size=119) * 1000
    labels = counts @ coefficients - 5.0
    prediction, unseen = linear_baseline(labels[::2], counts[::2], counts)
    assert unseen == () and np.abs(prediction - labels).max() < 1e-6
    energies = label_values(table, TARGETS["U0"], "total")
    total = linear_baseline(energies[::2], counts[::2], counts)[0] - energies
    energies = label_values(table, TARGETS["U0"], "atomisation")
    atomisation = linear_baseline(energies[::2], counts[::2], counts)[0] - energies
    np.testing.assert_allclose(total, atomisation, atol=1e-6)  # the definition of the label changes no error


def test_the_linear_baseline_reports_unseen_elements_and_survives_dependent_columns(table, counts):
    labels = label_values(table, TARGETS["U0"], "atomisation")
    without_fluorine = np.flatnonzero(counts[:, 9] == 0)
    prediction, unseen = linear_baseline(labels[without_fluorine], counts[without_fluorine], counts)
    assert unseen == (9,) and np.isfinite(prediction).all()
    two = np.tile(counts[:1], (2, 1)) * [[1], [2]]  # fixed ratio: carbon and hydrogen cannot be told apart
    prediction, _ = linear_baseline(np.array([-1.0, -2.0]), two, np.concatenate([two, 3 * two[:1]]))
    np.testing.assert_allclose(prediction, [-1, -2, -3])
    prediction, _ = linear_baseline(np.array([4.0]), two[:1], two)  # one molecule: its own label
    np.testing.assert_allclose(prediction, [4, 4])


def test_compositions_that_training_does_not_determine(table, counts):
    assert not undetermined(counts[:1000], counts).any()
    molecules = [6, 6, 8, *[1] * 6], [8, 1, 1], [6, *[1] * 4]
    ethanol, water, methane = (np.bincount(numbers, minlength=119) for numbers in molecules)
    train = np.tile(ethanol, (950, 1))
    assert undetermined(train, np.stack([ethanol, 3 * ethanol, water, methane])).tolist() == [False, False, True, True]
    train[7] = water  # one molecule among many is enough
    assert undetermined(train, np.stack([water, methane, ethanol + water])).tolist() == [False, True, False]
    fluorinated = water.copy()
    fluorinated[9] += 1  # unseen elements are told of elsewhere
    assert not undetermined(train, fluorinated[None]).any()


def test_the_mean_baseline_has_zero_r2_on_its_own_data(table):
    gap = label_values(table, TARGETS["gap"], "none")
    metrics = regression_metrics(mean_baseline(gap, len(gap)), gap)
    assert metrics["r2"] == pytest.approx(0, abs=1e-12) and metrics["rmse"] == pytest.approx(gap.std())


def test_metrics_agree_with_scikit_learn(table):
    label = label_values(table, TARGETS["U0"], "total")
    prediction = label + np.random.default_rng(2).normal(size=len(label))
    metrics = regression_metrics(prediction, label)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(label, prediction), rel=1e-12)
    assert metrics["rmse"] ** 2 == pytest.approx(mean_squared_error(label, prediction), rel=1e-12)
    assert metrics["r2"] == pytest.approx(r2_score(label, prediction), rel=1e-12)
    assert metrics["max_error"] == np.abs(prediction - label).max() and metrics["count"] == len(label)
    assert np.isnan(regression_metrics(np.ones(1), np.zeros(1))["r2"])
    assert np.isnan(regression_metrics(np.array([1.0, np.nan]), np.arange(2.0))["mae"])
    for wrong in (np.zeros((3, 1)), np.zeros(2)):
        with pytest.raises(DataError, match="expected"):
            regression_metrics(wrong, np.arange(3.0))
    with pytest.raises(DataError, match="finite"):
        regression_metrics(np.zeros(0), np.zeros(0))


def test_forces_give_the_scale():
    """The root mean square of the known components; the references are those of the energies."""
    random = np.random.default_rng(0)
    counts = element_counts(np.tile([6, 1, 1, 8], 5), np.full(5, 4))
    energies, forces = random.normal(-100.0, 0.1, 5), random.normal(0.0, 2.0, (20, 3))
    forces[3] = np.nan
    normalizer = fit_normalizer(energies, counts, "per_element", forces=forces)
    assert normalizer.scale == pytest.approx(np.sqrt(np.nanmean(forces**2)))
    assert normalizer.apply(energies, counts).mean() == pytest.approx(0.0, abs=1e-9)
    unknown = fit_normalizer(energies, counts, "per_element", forces=np.full((20, 3), np.nan))
    assert unknown == fit_normalizer(energies, counts, "per_element") or unknown.scale == pytest.approx(energies.std())
