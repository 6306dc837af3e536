"""The laws that every model obeys: each line of ``helpers.CASES`` against each law.

All numbers are float64 unless a law says otherwise; the tolerances stand in ``helpers.TOLERANCES``.
"""

from __future__ import annotations

import inspect

import mindspore as ms
import numpy as np
import pytest
from crystal_laws import CrystalLaws
from helpers import (
    BUDGET,
    CASES,
    COSINE,
    TIGHT,
    TOLERANCES,
    Bench,
    assert_close,
    build,
    crystals,
    molecule,
    molecules,
    moved,
    on_path,
    rotations,
)

from data_tools.graph import GraphInputs, Structure
from data_tools.graphs.batching import build_graph
from models import MODELS, GraphModel
from models.heads import Readout
from physics.derivatives import EnergyAndForces
from training import checkpoint
from training.step import EvaluationStep, compile_count, to_tensors
from training.weights import assign, parameters_of

pytestmark = pytest.mark.usefixtures("graph_mode")

LINEAR = ("CO2", "C2H2", "HCN", "H2", "N2O")


def skip_if_exempt(case, law):
    if law in case.exempt:
        pytest.skip(case.exempt[law])


def test_every_model_is_in_the_table():
    assert {case.model for case in CASES} == set(MODELS)


def test_no_tolerance_is_large():
    assert max(TOLERANCES.values()) <= 1e-2


def test_signature_of_construct(case):
    model = MODELS[case.model]
    assert tuple(inspect.signature(model.construct).parameters)[1:] == GraphInputs._fields
    assert tuple(inspect.signature(Readout.construct).parameters)[2:] == GraphInputs._fields
    _, graph = inspect.signature(GraphModel.construct).parameters.values()
    assert graph.kind is inspect.Parameter.VAR_POSITIONAL


def test_one_value_per_graph(bench):
    inputs = bench.case.batch(molecules()).inputs
    outputs, forces = bench.physics(*to_tensors(inputs))
    assert outputs.shape == (BUDGET.graphs,) and forces.shape == (BUDGET.nodes, 3)
    assert outputs.dtype == forces.dtype == ms.float64
    values = outputs.asnumpy()[:3]
    assert np.isfinite(values).all() and len(np.unique(values)) == 3


def test_permutation_of_atoms(bench):
    outputs, forces = bench.run(molecules())
    random = np.random.default_rng(0)
    orders = [random.permutation(len(structure.numbers)) for structure in molecules()]
    shuffled = [Structure(s.numbers[o], s.positions[o]) for s, o in zip(molecules(), orders, strict=True)]
    new_outputs, new_forces = bench.run(shuffled)
    assert_close(new_outputs, outputs, "symmetry")
    starts = np.cumsum([0] + [len(order) for order in orders[:-1]])
    places = np.concatenate([start + order for start, order in zip(starts, orders, strict=True)])
    assert_close(new_forces, forces[places], "symmetry")


def test_translation(bench):
    outputs, forces = bench.run(molecules())
    new_outputs, new_forces = bench.run([moved(s, np.eye(3), np.array([1.7, -20.3, 4.1])) for s in molecules()])
    assert_close(new_outputs, outputs, "symmetry")
    assert_close(new_forces, forces, "symmetry")
    by_molecule = np.add.reduceat(forces, [0, 9, 12])
    assert_close(by_molecule, np.zeros_like(by_molecule), "symmetry", scale=np.abs(forces).max())


def test_rotation_and_inversion(bench):
    outputs, forces = bench.run(molecules())
    for matrix in rotations(4):
        new_outputs, new_forces = bench.run([moved(s, matrix) for s in molecules()])
        assert_close(new_outputs, outputs, "symmetry")
        assert_close(new_forces, forces @ matrix.T, "symmetry")


def assert_same_gradients(found, expected):
    """Each parameter's relative to its own size, or to a thousandth of the largest."""
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert_close(found[name], gradient, "gradients", scale=max(np.abs(gradient).max(), 1e-3 * largest))


def test_padding_changes_nothing(bench):
    """Outputs, forces and the parameter gradients of a loss on forces, whatever the number of ghosts.

    Gradients of operators with few ghosts are compared with those of kernels with more, below.
    """
    expected, (*found, _, tight) = bench.run(molecules()), bench.trained(molecules(), TIGHT)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, "padding")
    for name, gradient in tight.items():
        assert np.abs(gradient).max() > 0, f"{name} has no gradient: a second derivative is lost"
    if bench.path == "kernels":
        assert_same_gradients(tight, bench.loss(molecules(), BUDGET)[1])


def test_gradients_of_a_force_loss_are_its_differences(bench):
    """Against central differences of the loss along one random direction in parameter space."""
    _, gradients = bench.loss(molecules())
    random, step = np.random.default_rng(1), 3e-6
    before = {p.name: p.asnumpy().copy() for p in bench.gradient.weights}
    direction = {name: random.normal(size=values.shape) for name, values in before.items()}
    losses = []
    try:
        for sign in (1, -1):
            for p in bench.gradient.weights:
                p.set_data(ms.Tensor(before[p.name] + sign * step * direction[p.name]))
            losses.append(bench.loss(molecules())[0])
    finally:
        for p in bench.gradient.weights:
            p.set_data(ms.Tensor(before[p.name]))
    slope = (losses[0] - losses[1]) / (2 * step)
    expected = sum(float((gradients[name] * direction[name]).sum()) for name in gradients)
    assert_close(np.array(slope), np.array(expected), "differences")


def test_batch_equals_single(bench):
    outputs, forces = bench.run(molecules())
    singles = [bench.run([structure]) for structure in molecules()]
    assert_close(np.concatenate([single[0] for single in singles]), outputs, "symmetry")
    assert_close(np.concatenate([single[1] for single in singles]), forces, "symmetry")


def test_two_far_molecules(bench):
    """As one structure they have the sum of their values, or for a mean over atoms the weighted mean."""
    skip_if_exempt(bench.case, "extensivity")
    first, second = molecule("CH3CH2OH", 4), molecule("NH3", 5)
    numbers = np.concatenate((first.numbers, second.numbers))
    together = Structure(numbers, np.concatenate((first.positions, second.positions + 100.0)))
    outputs, forces = bench.run([first, second])
    (value,), joint_forces = bench.run([together])
    sizes = np.array([len(first.numbers), len(second.numbers)])
    mean = bench.case.hyperparameters.get("readout") == "mean"
    weights = sizes / sizes.sum() if mean else np.ones(2)
    assert_close(value, outputs @ weights, "symmetry")
    assert_close(joint_forces, forces * np.repeat(weights, sizes)[:, None], "symmetry")


def leaving(cutoff):
    """An oxygen atom on its way out of the sphere of a nitrogen atom: near, just inside and just outside.

    The hydrogen atoms are behind the nitrogen.
    """
    ammonia, structures = molecule("NH3", rattle=0.0), []
    for distance in (0.7 * cutoff, cutoff - 1e-7, cutoff + 1e-7):
        place = ammonia.positions[0] + np.array([0.0, 0.0, distance])
        structures.append(Structure(np.append(ammonia.numbers, 8), np.vstack((ammonia.positions, place))))
    edges = [len(build_graph(structure, cutoff).senders) for structure in structures]
    assert edges[1] == edges[2] + 2, "the atom must cross the cutoff of one neighbour"
    return structures


def test_nothing_jumps_at_the_cutoff(bench):
    """Energy and forces."""
    skip_if_exempt(bench.case, "cutoff continuity")
    structures = leaving(bench.case.cutoff)
    outputs, forces = bench.run(structures)
    near, inside, outside = forces.reshape(3, 5, 3)
    assert abs(outputs[0] - outputs[1]) > 1e-3 and np.abs(near - inside).max() > 1e-3, "the atom must matter"
    assert_close(outputs[1], outputs[2], "continuity", scale=abs(outputs[0] - outputs[1]))
    assert_close(inside, outside, "continuity", scale=np.abs(near - inside).max())


def curvature_jump(bench):
    """Change of a Hessian product across the cutoff, relative to its change on the way there."""
    inputs = bench.case.batch(leaving(bench.case.cutoff)).inputs
    field = np.zeros_like(inputs.positions)
    field[:15] = np.tile(np.random.default_rng(6).normal(size=(5, 3)), (3, 1))
    products = bench.product(*to_tensors(inputs), ms.Tensor(field)).asnumpy()[:15].reshape(3, 5, 3)
    near, inside, outside = products
    return np.abs(inside - outside).max() / np.abs(near - inside).max()


def test_second_derivatives_are_continuous_at_the_cutoff(bench):
    """A Hessian along the path of an atom has no steps."""
    skip_if_exempt(bench.case, "second derivatives")
    assert curvature_jump(bench) <= TOLERANCES["continuity"]


def test_the_curvature_of_the_cosine_jumps():
    """The reason for the exemptions above is true."""
    case = next(case for case in CASES if case.exempt == COSINE)
    assert curvature_jump(Bench(case)) > 1e-2


def test_linear_molecules_have_finite_derivatives(bench):
    """Angles of 180 degrees, dipoles of exactly zero, and an atom without neighbours."""
    structures = [molecule(name, rattle=0.0) for name in LINEAR]
    for group in (structures[:3], [*structures[3:], Structure(np.array([18]), np.zeros((1, 3)))]):
        outputs, forces = bench.run(group)
        assert np.isfinite(outputs).all() and np.isfinite(forces).all()
        _, gradients = bench.loss(group)
        assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_every_element_has_its_own_row(bench):
    """From hydrogen to oganesson; beyond the end of a table a gather takes whatever lies there."""
    places = molecule("H2O").positions[:2]
    pairs = [Structure(np.array([element, 1], np.int32), places) for element in (1, 95, 100, 117, 118)]
    outputs, _ = bench.run(pairs)
    assert np.isfinite(outputs).all() and len(np.unique(outputs)) == len(pairs)


def test_save_and_load(bench, tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)  # nothing to compile
    saved = parameters_of(bench.model)
    checkpoint.save(tmp_path / "model.safetensors", checkpoint.Checkpoint(saved))
    with on_path(bench.path):
        other = build(bench.case, seed=1)
    inputs = to_tensors(bench.case.batch(molecules()).inputs)
    expected = bench.model(*inputs).asnumpy()
    assert not np.array_equal(other(*inputs).asnumpy(), expected)
    assign(other, checkpoint.load(tmp_path / "model.safetensors").weights)
    assert np.array_equal(other(*inputs).asnumpy(), expected)


def test_one_compilation_for_each_shape(bench):
    """Of forces and of the gradients of a loss on them, whatever the structures, also those of the tests above."""
    for structures in (molecules(), molecules()[:2], molecules()[::-1]):
        bench.run(structures)
        bench.loss(structures)
    bench.loss(molecules(), TIGHT)
    assert (compile_count(bench.physics), compile_count(bench.gradient)) == (1, len({bench.of_loss, TIGHT}))


@pytest.fixture(scope="module")
def with_kernels():
    """What the kernels have computed, by the name of the line and structures; its operators come next."""
    return {}


def compare_with_kernels(bench, with_kernels, structures):
    """Outputs, forces and the parameter gradients of a loss on both; with another number of ghosts."""
    place, found = (bench.case.name, *(one.name for one in structures)), bench.trained(structures)
    if bench.path == "kernels":
        with_kernels[place] = found, bench.of_loss
        return
    if place not in with_kernels:
        other = Bench(bench.case)
        with_kernels[place] = other.trained(structures), other.of_loss
    expected, budget = with_kernels[place]
    assert bench.of_loss != budget
    assert_close(found[0], expected[0], "gradients")
    assert_close(found[1], expected[1], "gradients")
    assert found[2] == pytest.approx(expected[2], rel=1e-12)
    assert_same_gradients(found[3], expected[3])


def test_operators_compute_what_the_kernels_compute(bench, with_kernels):
    compare_with_kernels(bench, with_kernels, molecules())


def test_the_two_modes_agree(bench):
    """Of operators of a whole model, the step of evaluation below does it."""
    if bench.path == "operators":
        return
    outputs, forces = bench.run(molecules())
    ms.set_context(mode=ms.PYNATIVE_MODE)
    eager = EnergyAndForces(bench.model)(*to_tensors(bench.case.batch(molecules()).inputs))
    assert_close(eager[0].asnumpy()[:3], outputs, "modes")
    assert_close(eager[1].asnumpy()[: len(forces)], forces, "modes")


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_evaluation_gives_outputs_forces_and_embeddings(bench, mode):
    """With forces for one line of each model, with each path in one mode: the rest is what the step does not see."""
    inputs = to_tensors(bench.case.batch(molecules()).inputs)
    outputs, forces = bench.physics(*inputs)
    expected = (outputs, bench.model.embed(*inputs)[1], forces)
    ms.set_context(mode=mode)
    first = (bench.path == "kernels") == (mode == ms.GRAPH_MODE)
    wanted = ("forces",) if bench.case.name == bench.case.model and first else ()
    found = EvaluationStep(bench.model, wanted)(*inputs)
    assert len(found) == 2 + len(wanted)
    for one, other in zip(found, expected, strict=False):
        assert_close(one.asnumpy(), other.asnumpy(), "modes")


def test_float32_agrees_with_float64(bench):
    outputs, forces = bench.run(molecules())
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with on_path(bench.path):
        single = EnergyAndForces(build(bench.case, "float32"))
    found = single(*to_tensors(bench.case.batch(molecules(), BUDGET, np.float32).inputs))
    assert found[0].dtype == found[1].dtype == ms.float32
    assert_close(found[0].asnumpy()[:3], outputs, "precision")
    assert_close(found[1].asnumpy()[: len(forces)], forces, "precision")


def test_the_seed_decides_the_weights(case):
    def weights(seed):
        ms.set_seed(seed)
        return parameters_of(case.build())

    first, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    trained = [name for name in first if name.endswith("weight") and "affine" not in name]
    assert trained and not any(np.array_equal(first[name], other[name]) for name in trained)


class TestCrystals(CrystalLaws):
    """With the graphs that are compiled for the laws above."""

    def test_crystals_and_molecules_of_operators_and_kernels(self, crystal_bench, with_kernels):
        """As above: the gradients of both paths, each with its own number of ghosts."""
        compare_with_kernels(crystal_bench, with_kernels, [*crystals(), molecule("CH3CH2OH", 1)])
