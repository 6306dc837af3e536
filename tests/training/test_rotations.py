"""Rotated structures: labels rotate with them, so that an invariant model has the same loss in every frame."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import ONE_BLOCK, Case, build
from mindspore import Tensor
from tiny_crystals import alloys

from configs.schema import TrainingConfig
from data_tools.graph import Budget
from data_tools.graphs.loader import fitted_batch, training_batches
from data_tools.graphs.packed import pack
from data_tools.graphs.rotations import RotationsBeside, random_rotations
from data_tools.labels.force_constant_probes import ForceConstantProbes
from data_tools.labels.providers import StoredLabels
from experiment.trainer import terms_of
from physics.derivatives import Compiled, observables
from training.device import MODES
from training.objective import Term
from training.optimizer import AdamW
from training.step import TrainStep

TERMS = [Term("hessian_product", 0.7, "mse"), Term("forces", 0.4, "norm"), Term("stress", 300.0, "mse")]
MIXED = "graph_transformer"
NOTHING = (0.0, 1.0, 0.0)  # lr', eps' and wd' of a step that only measures


@pytest.fixture(scope="module")
def packed():
    return pack(alloys(4), 3.2)


def batches_of(packed, rotate, rank=0, size=1):
    provider = ForceConstantProbes(
        packed, packed.table.force_constants, 5, 2.0, "directions", tuple(term.quantity for term in TERMS)
    )
    return training_batches(packed, np.arange(4), provider, 3, 1, 2, 1, np.float64, rank, size, rotate)


def test_rotations_and_reflections_are_uniform():
    rows = np.arange(4000)
    found = random_rotations(3, rows, rows % 7)
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-12)
    signs = np.linalg.det(found)
    np.testing.assert_allclose(np.abs(signs), 1.0)
    assert abs((signs < 0).mean() - 0.5) < 0.03, "half of them are reflections"
    for proper in (found[signs > 0], found[signs < 0]):
        assert np.abs(proper.mean(axis=0)).max() < 0.06 and np.abs((proper**2).mean(axis=0) - 1 / 3).max() < 0.03
    assert np.array_equal(random_rotations(3, rows[5:6], np.array([5])), found[5:6]), "whatever the others are"
    assert not np.allclose(random_rotations(4, rows[5:6], np.array([5])), found[5:6])


def test_the_loss_of_an_invariant_model_is_the_same(packed, graph_mode):
    model = build(Case("small", "schnet", ONE_BLOCK, 3.2))
    step = TrainStep(model, AdamW(ms.ParameterTuple(model.trainable_params()), 0.9, 0.999), TERMS)
    losses: dict[bool, list[float]] = {}
    for rotate in (False, True):
        batches = list(batches_of(packed, rotate).epoch(1))
        losses[rotate] = [float(step(*step.layout.arguments(batch.part, batch.known, 1.0, NOTHING))[0].asnumpy())
                          for batch in batches]  # fmt: skip
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-10)
    turned, whole = (next(iter(batches_of(packed, rotate).epoch(1))).part for rotate in (True, False))
    turned.targets["hessian_product"][:] = whole.targets["hessian_product"]
    known = {term.quantity: int(turned.masks[term.quantity].sum()) for term in TERMS}
    wrong = float(step(*step.layout.arguments(turned, known, 1.0, NOTHING))[0].asnumpy())
    assert abs(wrong / losses[False][0] - 1) > 1e-3, "labels that stay behind are other labels"


MIXER = {"features": 8, "blocks": 1, "heads": 2, "gaussians": 4, "average_degree": 9.0}  # not equivariant


@pytest.mark.parametrize(("mode", "name"), [("GRAPH", "schnet"), ("GRAPH", MIXED), ("PYNATIVE", MIXED)])
def test_soft_equivariance(packed, mode, name):
    """Nothing of an equivariant model; of another what is found with structures that were rotated before."""
    ms.set_context(mode=MODES[mode])
    provider = RotationsBeside(batches_of(packed, False).provider, 7)
    batch = next(training_batches(packed, np.arange(4), provider, 4, 1, 1, 1, np.float64).epoch(0))
    model = build(Case("small", name, ONE_BLOCK if name == "schnet" else MIXER, 3.2))
    optimizer = AdamW(ms.ParameterTuple(model.trainable_params()), 0.9, 0.999)
    step = TrainStep(model, optimizer, [Term("hessian_product", 0.7, "mae", 3.0)])
    loss, errors, _ = step(*step.layout.arguments(batch.part, batch.known, 1.0, NOTHING))
    penalty = (float(loss.asnumpy()) - 0.7 * float(errors.asnumpy()[0])) / (0.7 * 3.0)
    if name == "schnet":
        assert 0 < penalty < 1.1e-6, "the least that norm_error has"
        return
    labels, turns = batches_of(packed, False).provider(batch.rows), batch.part.targets["rotations"][:4]
    observe, found = Compiled(model, observables(model, ("hessian_product",))), []
    for rotations in (np.tile(np.eye(3), (4, 1, 1)), turns):
        probes = np.einsum("kab,kb->ka", np.repeat(rotations, 16, axis=0), labels.probes)
        part = fitted_batch(
            packed, batch.rows, [budget_of(batch.part)], labels._replace(probes=probes), np.float64, rotations
        )
        found.append(observe(*(Tensor(array) for array in (*part.inputs, part.probes)))[0].asnumpy()[:64])
    wrong = found[1] - np.einsum("kab,kb->ka", np.repeat(turns, 16, axis=0), found[0])
    known = np.isfinite(labels.of_nodes["hessian_product"]).all(axis=1)
    np.testing.assert_allclose(penalty, np.sqrt((wrong[known] ** 2).mean(axis=1)).mean(), rtol=1e-6)
    assert penalty > 0.01
    config = TrainingConfig(equivariance_weight=0.5, force_weight=1)
    assert [term.equivariance for term in terms_of(config, "force_constants")] == [0.5, 0]


def budget_of(part):
    """The shape of a padded batch."""
    numbers, graphs = len(part.inputs.numbers), len(part.inputs.graph_mask)
    return Budget(numbers, len(part.inputs.senders), len(part.inputs.triplet_in), graphs)


def test_stress_and_forces_rotate_too(packed):
    """Of labels that are not 0: their invariants stay, and what is known of a part of them is known no more."""
    random = np.random.default_rng(0)
    stress, forces = random.normal(size=(4, 3, 3)), random.normal(size=(64, 3))
    stress, forces[20, 1] = stress + stress.transpose(0, 2, 1), np.nan
    provider = StoredLabels(packed, {"stress": stress, "energy": np.arange(4.0)}, {"forces": forces})
    whole, turned = (
        next(training_batches(packed, np.arange(4), provider, 4, 1, 1, 1, np.float64, rotate=rotate).epoch(0))
        for rotate in (False, True)
    )
    rotations = random_rotations(1, whole.rows, np.zeros(4, np.int64))
    expected = rotations @ whole.part.targets["stress"][:4] @ rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(turned.part.targets["stress"][:4], expected, atol=1e-12)
    assert np.array_equal(turned.part.targets["energy"], whole.part.targets["energy"])
    of_atoms = np.repeat(rotations, 16, axis=0)
    for name, before, after in (
        ("positions", whole.part.inputs.positions, turned.part.inputs.positions),
        ("forces", whole.part.targets["forces"], turned.part.targets["forces"]),
    ):
        complete = turned.part.masks["forces"][:64, 0] == 1 if name == "forces" else np.ones(64, bool)
        expected = np.einsum("kab,kb->ka", of_atoms, before[:64])
        np.testing.assert_allclose(after[:64][complete], expected[complete], atol=1e-12)
    assert whole.known["forces"] == 191 and turned.known["forces"] == turned.part.masks["forces"].sum() == 189


def test_rotations_survive_a_resume_and_any_number_of_processes(packed):
    first, second = (list(batches_of(packed, True).epoch(epoch)) for epoch in range(2))
    (rest,) = batches_of(packed, True).epoch(1, start=1)
    for before, after in zip(second[1].part.inputs, rest.part.inputs, strict=True):
        assert np.array_equal(before, after)
    assert np.array_equal(second[1].part.targets["hessian_product"], rest.part.targets["hessian_product"])
    place, again = {}, {}
    for found, epoch in ((place, first), (again, second)):
        for batch in epoch:
            of_rows = np.split(batch.part.inputs.positions[: 16 * len(batch.rows)], len(batch.rows))
            found |= dict(zip(batch.rows.tolist(), of_rows, strict=True))
    assert len(place) == 4 and not any(np.allclose(place[row], again[row]) for row in place), "each epoch has others"
    parts = [next(batches_of(packed, True, rank, 2).epoch(1)).part for rank in range(2)]
    for part in parts:
        for number, row in enumerate(part.ids):
            (where,) = np.flatnonzero(second[0].rows == row)
            for name in ("positions", "node_mask"):
                mine, theirs = getattr(part.inputs, name), getattr(second[0].part.inputs, name)
                assert np.array_equal(mine[16 * number : 16 * number + 16], theirs[16 * where : 16 * where + 16])
