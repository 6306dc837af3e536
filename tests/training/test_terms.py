"""Terms of a loss: any mixture against NumPy, where its tensors stand, and the errors of an epoch."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import ONE_BLOCK, Case, assert_close, build, crystals, molecule
from mindspore import Tensor
from mindspore import dtype as mstype
from strains import labelled, volumes

from data_tools.graph import Budget, GraphInputs, Labels
from data_tools.graphs.loader import training_batches
from data_tools.graphs.packed import pack
from data_tools.labels.providers import StoredLabels
from data_tools.tables import table_of_structures
from physics.derivatives import Compiled, observables
from training.device import MODES
from training.losses import FLOOR, LOSSES
from training.meter import Meter
from training.objective import OBSERVED, Layout, Term
from training.optimizer import AdamW
from training.step import TrainStep

pytestmark = pytest.mark.usefixtures("same_mode")

CASE = Case("small", "schnet", ONE_BLOCK, 3.0)
BUDGET = Budget(24, 240, 0, 6)
NOTHING = (0.0, 1.0, 0.0)  # lr', eps' and wd' of a step that only measures


def lengths(wrong):
    """Of vectors, over what is known of them; of numbers their size."""
    if wrong.ndim == 1:
        return np.abs(wrong)
    return np.sqrt(np.nansum(wrong**2, -1, keepdims=True) / wrong.shape[-1]) * np.ones_like(wrong)


def adaptive(x, y, owner, weight):
    found, known = np.zeros_like(y), np.isfinite(y)
    for structure in set(owner[known.reshape(len(y), -1).any(axis=1)]):
        place = owner == structure
        found[place] = np.log1p(lengths(x - y)[place][known[place]].mean() / FLOOR)
    return found


def frobenius_norm(x, y, owner, weight):
    found = np.zeros_like(y)
    for structure in set(owner):
        place = (owner == structure).reshape(-1, *[1] * (y.ndim - 1)) & np.isfinite(y)
        if place.any():
            found[place] = abs(np.linalg.norm(x[place]) - np.linalg.norm(y[place])) / np.linalg.norm(y[place])
    return found


#: of predictions x, labels y (NaN where not known), the structure of each row and the weight of each atom
LAWS = {
    "mse": lambda x, y, *_: np.square(x - y),
    "mae": lambda x, y, *_: np.abs(x - y),
    "huber": lambda x, y, *_: np.where(np.abs(x - y) < 1, (x - y) ** 2 / 2, np.abs(x - y) - 0.5),
    "norm": lambda x, y, *_: lengths(x - y),
    "adaptive": adaptive,
    "frobenius_norm": frobenius_norm,
    "frequency": lambda x, y, owner, weight: lengths(weight * (x - y)),
}


def structures_and_labels():
    """Molecules and crystals; of each quantity some numbers are missing, of one structure all but a few."""
    structures, random = [molecule("CH3CH2OH", 1), molecule("H2O"), *crystals()], np.random.default_rng(0)
    atoms = sum(len(one.numbers) for one in structures)
    energy, forces, product = random.normal(size=4), random.normal(size=(atoms, 3)), random.normal(size=(atoms, 3))
    stress = 0.1 * random.normal(size=(4, 3, 3))
    energy[1] = forces[9:12] = forces[-1, :2] = product[:9] = stress[:2] = stress[3, 0] = np.nan
    of_graphs = {"energy": energy, "stress": stress, "volume": volumes(structures)}
    probes = random.normal(size=(atoms, 3))
    of_nodes = {"forces": forces, "hessian_product": product, "mass_weight": random.uniform(0.5, 2, size=(atoms, 1))}
    return structures, Labels(of_graphs, of_nodes, probes)


MIXTURES = {
    "energy": ("PYNATIVE", [Term("energy", 1.0, "mae")]),
    "energy and forces": ("GRAPH", [Term("energy", 0.7, "mse"), Term("forces", 0.4, "huber")]),
    "forces": ("PYNATIVE", [Term("forces", 2.0, "mae")]),
    "three errors": ("GRAPH", [Term("stress", 30.0, "mse"), Term("energy", 0.7, "huber"), Term("forces", 0.4, "mae")]),
    "products": ("GRAPH", [Term("hessian_product", 0.3, "mse")]),
    "lengths": ("PYNATIVE", [Term("hessian_product", 0.7, "norm"), Term("forces", 0.1, "norm")]),
    "of structures": (
        "GRAPH",
        [Term("energy", 0.7, "adaptive"), Term("forces", 0.4, "adaptive"), Term("stress", 0.3, "adaptive")],
    ),
    "of products": ("PYNATIVE", [Term("hessian_product", 0.7, "frequency"), Term("forces", 0.1, "frobenius_norm")]),
    "all": (
        "PYNATIVE",
        [Term("energy", 0.7), Term("forces", 0.4), Term("stress", 30.0), Term("hessian_product", 0.3, "mae")],
    ),
}


@pytest.mark.parametrize(("mode", "terms"), MIXTURES.values(), ids=MIXTURES)
def test_a_loss_is_the_sum_of_its_terms(mode, terms):
    """Loss and errors against NumPy; the gradient against differences of that."""
    ms.set_context(mode=MODES[mode])
    model, (structures, labels) = build(CASE), structures_and_labels()
    optimizer = AdamW(ms.ParameterTuple(model.trainable_params()), 0.9, 0.999)
    step = TrainStep(model, optimizer, terms)
    batch = labelled(CASE, structures, BUDGET, labels)
    published, sizes = labels.of_graphs | labels.of_nodes, [len(one.numbers) for one in structures]
    known = {name: int(np.isfinite(values).sum()) for name, values in published.items()}
    arguments = step.layout.arguments(batch, known, 4.0, NOTHING)
    observe = Compiled(model, observables(model, [OBSERVED[term.quantity] for term in terms]))

    def expected():
        loss, errors = 0.0, []
        for term, predicted in zip(terms, observe(*arguments[: step.layout.of_model]), strict=True):
            assert predicted.dtype == mstype.float64
            labels_of_term = published[term.quantity]
            divisor = -published["volume"][:, None, None] if term.quantity == "stress" else 1.0
            found = predicted.asnumpy()[: len(labels_of_term)] / divisor
            known = np.isfinite(labels_of_term)
            rows = np.arange(len(structures))
            owner = np.repeat(rows, sizes) if len(labels_of_term) == sum(sizes) else rows
            loss += term.weight * LAWS[term.error](found, labels_of_term, owner, published["mass_weight"])[known].mean()
            errors.append(np.abs(found - labels_of_term)[known].mean())
        return np.array([loss, *errors])

    vector = Compiled(model, step.gradient_loss_errors)(*arguments[: step.layout.of_loss]).asnumpy()
    gradient, found = vector[: step.weights], vector[step.weights :]
    assert_close(found, expected(), "modes")
    random, before = np.random.default_rng(2), [weight.asnumpy().copy() for weight in optimizer.weights]
    direction = [random.normal(size=weight.shape) for weight in before]
    losses = []
    for sign in (1, -1):
        for weight, old, change in zip(optimizer.weights, before, direction, strict=True):
            weight.set_data(Tensor(old + sign * 1e-6 * change))
        losses.append(expected()[0])
    slope = float(gradient @ np.concatenate([change.reshape(-1) for change in direction]))
    assert_close(np.array((losses[0] - losses[1]) / 2e-6), np.array(slope), "differences")


def test_every_error_is_in_a_mixture():
    terms = [term for _, mixture in MIXTURES.values() for term in mixture]
    assert {term.error for term in terms} == set(LOSSES) == set(LAWS)
    assert {term.quantity for term in terms} == set(OBSERVED)


def test_where_the_tensors_of_a_step_stand():
    structures, labels = structures_and_labels()
    batch = labelled(CASE, structures, BUDGET, labels)
    for _, terms in MIXTURES.values():
        layout = Layout(terms)
        known = {term.quantity: place for place, term in enumerate(terms, 5)}
        arguments = layout.arguments(batch, known, 8.0, (1.0, 2.0, 3.0))
        found = {name: arguments[place].asnumpy() for name, place in layout.place.items()}
        assert len(found) == len(arguments)
        for name, array in zip(GraphInputs._fields, batch.inputs, strict=True):
            np.testing.assert_array_equal(found[name], array)
        for term in terms:
            np.testing.assert_array_equal(found[term.quantity], batch.targets[term.quantity])
            np.testing.assert_array_equal(found[f"{term.quantity} mask"], batch.masks[term.quantity])
            assert found[f"{term.quantity} count"] == known[term.quantity]
        assert [found[name] for name in ("loss scale", "lr", "epsilon", "weight decay")] == [8.0, 1.0, 2.0, 3.0]
        assert layout.of_loss == len(arguments) - 3
        with_probes = any(term.quantity == "hessian_product" for term in terms)
        assert layout.of_model == 10 + with_probes and ("probes" in found) == with_probes
        assert ("volume" in found) == any(term.quantity == "stress" for term in terms)
        assert ("mass_weight" in found) == any(term.error == "frequency" for term in terms)
        none = layout.arguments(batch, dict.fromkeys(known, 0), 1.0, NOTHING)
        assert none[layout.place[f"{terms[0].quantity} count"]].asnumpy() == 1, "nothing is divided by 0"


@pytest.mark.parametrize("quantities", [[], ["energy", "energy"], ["energy", "dipole"]])
def test_terms_that_are_none(quantities):
    with pytest.raises(ValueError, match="expected some of energy, forces, stress, hessian_product, each once"):
        Layout([Term(quantity) for quantity in quantities])


def test_errors_of_an_epoch_are_means_over_all_that_is_known(tmp_path, graph_mode):
    """Not means of the batches: these hold molecules of 2 to 12 atoms, of which one in three has no forces."""
    names = ["H2O", "C6H6", "CH3CH2OH", "CH4", "H2", "CO", "NH3", "C2H6", "N2", "HCN", "CH3OH"]
    structures, random = [molecule(name, seed) for seed, name in enumerate(names)], np.random.default_rng(0)
    packed = pack(table_of_structures(tmp_path, structures, "made"), CASE.cutoff)
    table, count = packed.table, len(structures)
    energy, forces = random.normal(size=count), random.normal(size=(len(table.numbers), 3))
    energy[5] = np.nan
    for row in (0, 3, 6, 9):
        forces[packed.atoms_of(np.array([row]))] = np.nan
    forces[-1, 0] = np.nan
    provider = StoredLabels(packed, {"energy": energy}, {"forces": forces})
    batches = training_batches(packed, np.arange(count), provider, 4, 0, 1, 1, np.float64)
    model = build(CASE)
    step = TrainStep(
        model, AdamW(ms.ParameterTuple(model.trainable_params()), 0.9, 0.999), [Term("energy"), Term("forces")]
    )
    scale, wrong_energies, wrong_forces = 2.5, [], []
    meter, interrupted = Meter(scale, 2, batches.names), Meter(scale, 2, batches.names)
    observe = Compiled(model, observables(model, ("energy", "forces")))
    for number, batch in enumerate(batches.epoch(0), 1):
        arguments = step.layout.arguments(batch.part, batch.known, 1.0, NOTHING)
        result, counts = step(*arguments), [batch.known["energy"], batch.known["forces"]]
        meter.add(result, counts, batch.rows)
        interrupted.add(result, counts, batch.rows)
        values, found = (array.asnumpy() for array in observe(*arguments[: step.layout.of_model]))
        wrong_energies += (values[: len(batch.rows)] - energy[batch.rows]).tolist()
        atoms = packed.atoms_of(batch.rows)
        wrong_forces += (found[: len(atoms)] - forces[atoms]).ravel().tolist()
        if number == 2:
            interrupted.collect(number)
            sums = interrupted.sums.tolist()
            interrupted = Meter(scale, 2, batches.names)
            interrupted.begin_epoch(sums)
    rate = meter.since_last_line(3)
    expected = [scale * float(np.nanmean(np.abs(wrong))) for wrong in (wrong_energies, wrong_forces)]
    np.testing.assert_allclose(meter.errors, expected, rtol=1e-12)
    assert meter.structures == count and rate.errors == meter.errors
    interrupted.collect(3)
    assert interrupted.sums.tolist() == meter.sums.tolist(), "bit for bit"
    assert np.isnan(meter.since_last_line(3).errors).all(), "no step since then"
