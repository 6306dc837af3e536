"""The shipped potential, its constructor, and the examples as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from helpers import assert_close

from data_tools.graph import DataError
from examples import dynamics, molecule, optimise, vibrations
from experiment.trained import load_calculator
from training import checkpoint as checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def mode_of_before(same_mode):
    """Loading a checkpoint chooses the mode of its run."""


def test_a_model_of_something_else_is_refused(tmp_path):
    content = checkpoints.load(molecule.SHIPPED)
    content.information["task"] |= {"name": "gap", "reference": "none", "readout": "sum", "standardisation": "none"}
    checkpoints.save(tmp_path / "gap.safetensors", content)
    with pytest.raises(DataError, match=r"predicts gap \[eV\].*no forces"):
        load_calculator(tmp_path / "gap.safetensors")


def test_the_shipped_potential_in_both_precisions():
    energies, forces = [], []
    for dtype in ("float32", "float64"):
        atoms = molecule.distorted_ethanol(5)
        atoms.calc = load_calculator(molecule.SHIPPED, dtype, skin=0.2)
        assert atoms.calc.dtype == np.dtype(dtype) and atoms.calc.neighbors.skin == 0.2
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    assert abs(energies[0] - energies[1]) < 1e-4  # of -4200 eV
    assert_close(*forces, "precision")


def example(name: str, *options: str, folder: Path) -> str:
    """What an example prints when a user runs it somewhere else."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(text: str, pattern: str) -> float:
    """The number in a line of an example."""
    found = re.search(pattern.replace("NUMBER", r"(-?\d+(?:\.\d+)?)"), text)
    assert found, text
    return float(found[1])


@pytest.fixture(scope="module")
def minimum(tmp_path_factory) -> Path:
    """The geometry that the first example writes."""
    folder = tmp_path_factory.mktemp("examples")
    printed = example("optimise", "--output", "minimum.xyz", folder=folder)
    assert number(printed, r"largest force NUMBER eV/A\n(?!step|minimum)") <= 0.01
    return folder / "minimum.xyz"


def test_optimised_ethanol_is_ethanol(minimum):
    """Bond lengths of PBE, Angstrom."""
    atoms = ase.io.read(minimum)
    expected = {(0, 1): 1.52, (1, 2): 1.43, (2, 3): 0.97, (0, 6): 1.10}  # C-C, C-O, O-H, C-H
    for (one, other), length in expected.items():
        assert atoms.get_distance(one, other) == pytest.approx(length, abs=0.03)


def test_frequencies_agree_with_finite_differences(minimum):
    printed = example("vibrations", "--input", minimum.name, folder=minimum.parent)
    assert number(printed, "largest difference NUMBER 1/cm") < 1.0
    assert number(printed, "NUMBER imaginary frequencies") == 0
    assert number(printed, "rotations up to NUMBER 1/cm") < 10
    assert len(re.findall(r"^ +\d+ +\d", printed, re.MULTILINE)) == 21
    assert 50 < number(printed, " 1 +NUMBER") < 500  # 1/cm
    assert 3500 < number(printed, " 21 +NUMBER") < 4000  # O-H


def test_energy_is_conserved(minimum):
    printed = example(
        "dynamics", "--input", minimum.name, "--steps", "1000", "--output", "m.traj", folder=minimum.parent
    )
    assert abs(number(printed, "energy drift NUMBER meV/atom/ps")) < 1.0
    assert number(printed, "total energy NUMBER meV/atom\n") < 1.0
    assert number(printed, "NUMBER neighbour searches") < 200
    assert len(ase.io.read(minimum.parent / "m.traj", ":")) == 1001


def test_frequencies_of_a_spring():
    """Two masses on a spring k: one vibration, sqrt(k / reduced mass); five rigid motions."""
    k, masses, axis = 40.0, np.array([12.0, 16.0]), np.array([1.0, 2.0, 2.0]) / 3
    block = k * np.outer(axis, axis)
    hessian = np.block([[block, -block], [-block, block]])
    vibration, rigid = vibrations.frequencies(hessian, np.array([0.0 * axis, 1.1 * axis]), masses)
    reduced = 12.0 * 16.0 / 28.0 * units._amu
    angular = np.sqrt(k * units._e * 1e20 / reduced)  # rad/s
    assert vibration == pytest.approx([angular / (2 * np.pi * units._c * 100)], rel=1e-9)
    assert len(rigid) == 5 and np.abs(rigid).max() < 1e-3
    assert vibrations.frequencies(-hessian, np.array([0.0 * axis, 1.1 * axis]), masses)[0][0] < 0


def test_drift_is_a_slope():
    times = np.linspace(0.0, 2.0, 100)
    assert dynamics.drift(times, -4000.0 + 0.009 * times, 9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        (optimise, ["--output", "m.foo"], "ASE writes no format of this ending"),
        (optimise, ["--output", "m"], "ASE writes no format of this ending"),
        (vibrations, ["--output", "m.out"], "ASE writes no format of this ending"),
        (vibrations, ["--output", "no/m.xyz"], "cannot be written there"),
        (optimise, ["--output", "."], "a folder"),
        (dynamics, ["--output", "m.xyz"], "ends in .traj"),
        (dynamics, ["--timestep", "inf"], "got inf"),
        (dynamics, ["--steps", "-3"], "got -3"),
        (vibrations, ["--step", "0"], "got 0"),
        (optimise, ["--fmax", "nan"], "got nan"),
    ],
)
def test_arguments_are_checked_before_the_work(program, words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "open_molecule", lambda *_: pytest.fail("the work has begun"))
    assert molecule.run(program.main, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_line(tmp_path, capsys):
    assert molecule.run(optimise.main, ["--input", str(tmp_path / "none.xyz")]) == 2
    assert molecule.run(dynamics.main, ["--steps", "0"]) == 2
    assert molecule.run(vibrations.main, ["--ckpt", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
