"""The calculator of several potentials beside each of them."""

from __future__ import annotations

import math
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from configs.schema import Config
from experiment import trained
from experiment.ensemble_folder import FINISHED, EnsembleRecord, member_folder, write_record
from physics.several_potentials import mean_of


def copper():
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_mean_and_spread_of_energies_and_forces():
    makers = (EMT, LennardJones, lambda: LennardJones(sigma=2.0))
    atoms, energies, forces = copper(), [], []
    for make in makers:
        alone = copper()
        alone.calc = make()
        energies.append(alone.get_potential_energy())
        forces.append(alone.get_forces())
    atoms.calc = mean_of([make() for make in makers])
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    assert atoms.calc.results["energy_std"] == pytest.approx(np.std(energies, ddof=1))
    assert isinstance(atoms.calc.results["energy_std"], float)
    np.testing.assert_allclose(atoms.get_forces(), np.mean(forces, axis=0))
    np.testing.assert_allclose(atoms.calc.results["forces_std"], np.std(forces, axis=0, ddof=1))
    before = atoms.calc.results["energy_std"]
    atoms.rattle(0.1, seed=2)
    atoms.get_forces()
    assert atoms.calc.results["energy_std"] != before  # what belongs to other positions is gone


def test_two_equal_ones_have_no_spread_and_one_stays_itself():
    atoms = copper()
    atoms.calc = mean_of([EMT(), EMT()])
    atoms.get_potential_energy()
    assert math.isclose(atoms.calc.results["energy_std"], 0.0, abs_tol=1e-12)
    single = EMT()
    assert mean_of([single]) is single


def test_the_folder_of_an_ensemble_is_one_calculator(tmp_path, monkeypatch):
    write_record(tmp_path, EnsembleRecord(Config(), 2))
    for seed in range(2):
        member_folder(tmp_path, seed).mkdir()
        (member_folder(tmp_path, seed) / FINISHED).touch()
    makers = {"seed0": EMT, "seed1": LennardJones}
    monkeypatch.setattr(trained, "_recipe", lambda path, *_: makers[Path(path).name])
    monkeypatch.setattr(trained, "_loaded", lambda recipes: [make() for make in recipes])
    ours, theirs = copper(), copper()
    ours.calc, theirs.calc = trained.load_calculator(tmp_path), mean_of([EMT(), LennardJones()])
    assert ours.get_potential_energy() == theirs.get_potential_energy()
    assert ours.calc.results["energy_std"] == theirs.calc.results["energy_std"] > 0
    one = trained.load_calculator(tmp_path / "seed0")
    assert isinstance(one, EMT)
