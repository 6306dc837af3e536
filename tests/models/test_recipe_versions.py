"""The versions of a recipe that circulates, which are controls: what each gets right, and what the second gets wrong.

Force constants are differences of forces.
"""

from __future__ import annotations

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from helpers import TRANSFORMER, Case, assert_close, build, crystals, molecules, moved, repeated, rotations
from tiny_runs import REPOSITORY

from configs.loading import ConfigError, load_config
from configs.rules import check_rules
from data_tools.dataset import resolve_task
from data_tools.graph import DataError, Structure
from experiment.summary import warn_of_mean
from experiment.trained import CalculatorRecipe, Trained
from models.graph_model import GraphModel
from physics.derivatives import EnergyAndForces
from training.step import to_tensors

FOLDER = REPOSITORY / "configs" / "graph_attention_transformer"
STEP = 1e-4  # Angstrom
ATOM, AXIS = 1, 2  # which is displaced


def version(number: int) -> Case:
    """A small model with what a version of the profile has of its own."""
    config = load_config(FOLDER / f"crystals_v{number}.yaml")
    own = {key: getattr(config.model, key) for key in ("values", "recompute")}
    readout = resolve_task("force_constants", config.target.readout).readout
    return Case("", "graph_attention_transformer", {**TRANSFORMER, **own, "readout": readout}, 3.0)


def column(model: EnergyAndForces, case: Case, crystal: Structure) -> np.ndarray:
    """(n, 3) force constants of one coordinate of the crystal."""
    displaced = []
    for sign in (1, -1):
        positions = crystal.positions.copy()
        positions[ATOM, AXIS] += sign * STEP
        displaced.append(Structure(crystal.numbers, positions, crystal.cell))
    _, forces = model(*to_tensors(case.batch(displaced).inputs))
    first, second = forces.asnumpy()[: 2 * len(crystal.numbers)].reshape(2, -1, 3)
    return (second - first) / (2 * STEP)


def test_the_versions_differ_from_the_profile_in_what_their_names_say():
    expected = {1: {"values"}, 2: {"readout"}, 3: {"values", "recompute"}}
    profile = dataclasses.asdict(load_config(FOLDER / "crystals.yaml"))
    for number, names in expected.items():
        found = dataclasses.asdict(load_config(FOLDER / f"crystals_v{number}.yaml"))
        different = {key for part in found for key in found[part] if found[part][key] != profile[part][key]}
        assert different == names | {"shapes"}


def test_a_sum_over_edges_obeys_the_laws():
    """Rotations, inversion, translations, permutations, another batch and a supercell."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    case = version(1)
    model = build(case)

    def energies(structures):
        return model(*to_tensors(case.batch(structures).inputs)).asnumpy()[: len(structures)]

    structures = [*crystals(), *molecules()[:2]]
    expected = energies(structures)
    assert len(set(expected.round(6))) == 4 and isinstance(model, GraphModel)
    assert np.abs(energies(crystals()) - energies(list(map(wider, crystals())))).max() > 1e-3
    for matrix in rotations(2):
        assert_close(energies([moved(one, matrix, 3.1) for one in structures]), expected, "symmetry")
    turned = [Structure(one.numbers[::-1].copy(), one.positions[::-1].copy(), one.cell) for one in structures]
    assert_close(energies(turned), expected, "symmetry")
    assert_close(energies([repeated(structures[1], (2, 1, 1))]), 2 * expected[1:2], "symmetry")


def wider(crystal: Structure) -> Structure:
    """The same cell, wider by a hundredth: a value of edges depends on their lengths."""
    return moved(crystal, 1.01 * np.eye(3))


@pytest.mark.usefixtures("graph_mode")
def test_force_constants_of_a_doubled_supercell():
    """Those of an atom and all images of another are the same for a sum; for a mean over atoms they are halved."""
    crystal, double = crystals()[1], repeated(crystals()[1], (2, 1, 1))
    for number, expected in ((1, 1.0), (2, 0.5)):
        case = version(number)
        model = EnergyAndForces(build(case))
        of_cell, of_double = (column(model, case, one) for one in (crystal, double))
        folded = of_double.reshape(2, -1, 3).sum(axis=0)
        assert_close(folded, expected * of_cell, "differences")
        if number == 1:  # the third version computes again, and the same
            again = EnergyAndForces(build(version(3)))
            assert_close(column(again, version(3), crystal), of_cell, "differences")


def test_what_is_computed_again_has_no_kernels():
    """Of second derivatives of kernels that are recomputed, MindSpore 2.10 makes a graph with a cycle."""
    found = [
        {getattr(cell, "kernel", None) is not None for _, cell in build(version(number)).cells_and_names()}
        for number in (1, 3)
    ]
    assert found == [{True, False}, {False}]


def test_a_mean_is_warned_of_and_has_no_calculator(caplog, tmp_path):
    wrong, right = resolve_task("force_constants", "mean"), resolve_task("force_constants")
    warn_of_mean(right)
    assert not caplog.records
    warn_of_mean(wrong)
    assert "smaller in a larger supercell" in caplog.text
    config = load_config(FOLDER / "crystals_v2.yaml")
    trained = Trained(tmp_path, config, wrong, None, [6], None, {}, None)
    with pytest.raises(DataError, match="depend on the size of the supercell"):
        CalculatorRecipe(None, tmp_path, (), 0.0).calculator(trained)
    direct = load_config(REPOSITORY / "configs" / "direct_head" / "crystals.yaml", [("target.readout", "mean")])
    with pytest.raises(ConfigError, match="expected auto for model"):
        check_rules(direct)
