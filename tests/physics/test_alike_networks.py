"""Calculators whose networks differ in their weights alone, and what is compiled for them."""

from __future__ import annotations

import copy

import mindspore as ms
import numpy as np
import pytest
from ase import Atoms
from helpers import ONE_BLOCK, Case, build, crystals

from data_tools.labels.statistics import WIDTH, Normalizer
from physics.alike_networks import compile_once
from physics.calculator import Calculator
from training.device import MODES
from training.step import compile_count

pytestmark = pytest.mark.usefixtures("same_mode")

ALIKE, OTHER = Case("a", "schnet", ONE_BLOCK, 3.2), Case("o", "schnet", ONE_BLOCK | {"features": 6}, 3.2)


def calculator(case, seed):
    model, random = build(case), np.random.default_rng(seed)
    for parameter in model.trainable_params():
        parameter.set_data(ms.Tensor(parameter.asnumpy() + 0.1 * random.normal(size=parameter.shape)))
    law = Normalizer(2.0, 0.0, references=np.zeros(WIDTH))
    return Calculator(model, law, range(1, 90), case.cutoff)


def results(calculator):
    """Energy, forces, stress and Hessian of a crystal."""
    one = crystals()[1]
    atoms = Atoms(one.numbers, one.positions, cell=one.cell, pbc=True, calculator=calculator)
    atoms.rattle(0.1, seed=1)
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(), calculator.get_hessian(atoms)


@pytest.mark.parametrize("mode", MODES)
def test_each_computes_with_its_own_weights_in_one_network(mode):
    ms.set_context(mode=MODES[mode])
    members = [calculator(case, seed) for seed, case in enumerate((ALIKE, OTHER, ALIKE))]
    expected = [results(member) for member in members]  # each in its own network
    assert np.abs(expected[0][3] - expected[2][3]).max() > 1e-3, "equal members prove nothing"
    other = members[1].product
    compile_once(members, ["alike", "other", "alike"])
    twin = copy.deepcopy(members[2])
    for place, member in ((0, members[0]), (1, members[1]), (2, members[2]), (0, members[0]), (2, twin)):
        member.reset()
        for found, value in zip(results(member), expected[place], strict=True):
            np.testing.assert_array_equal(found, value)
    assert members[1].product is other
    assert members[0].product.function is members[2].product.function
    if mode == "GRAPH":  # what is jitted in the other one is not counted
        assert compile_count(members[0].product.function) == compile_count(other) == 1
