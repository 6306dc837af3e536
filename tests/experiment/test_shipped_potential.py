"""The shipped checkpoint as users load it: its range, its copies in other processes, and what loading leaves alone."""

from __future__ import annotations

import copy
import csv
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path

import ase.build
import ase.io
import mindspore as ms
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS

import eval as program
from data_tools import dataset as data
from data_tools.formats.md17 import SAMPLE_TEST
from data_tools.formats.readers import read_table
from examples import dynamics, molecule, optimise
from experiment.resolve import open_dataset
from experiment.trained import load_calculator, load_trained
from physics.calculator import ForkError, OutsideWarning, UndeterminedEnergy
from scripts import add_range
from training import checkpoint as checkpoints
from training.device import DeviceError

ROOT = Path(__file__).parents[2]
TIMEOUT = 60  # seconds; a fork that used MindSpore would hang


@pytest.fixture(autouse=True)
def mode_of_before(same_mode):
    """Loading a checkpoint chooses the mode of its run."""


@pytest.fixture(scope="module")
def calculator():
    return load_calculator(molecule.SHIPPED, "float64")


@pytest.fixture
def ethanol(calculator):
    atoms = molecule.distorted_ethanol(1)
    atoms.calc = copy.deepcopy(calculator)
    return atoms


def trajectory(count: int) -> list[Atoms]:
    """Frames of the shipped test file, with their energies and forces."""
    table, frames = read_table(SAMPLE_TEST), []
    for row in range(count):
        atoms = slice(9 * row, 9 * row + 9)
        frame = Atoms(table.numbers[atoms], table.positions[atoms])
        energy, forces = table.of_structures["energy"][row], table.of_atoms["forces"][atoms]
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frames.append(frame)
    return frames


def without_range(path: Path) -> Path:
    """The shipped checkpoint as an older version of the program has written it."""
    checkpoint = checkpoints.load(molecule.SHIPPED)
    del checkpoint.information["range"]
    checkpoints.save(path, checkpoint)
    return path


def test_it_keeps_the_range_of_its_training_frames():
    trained = load_trained(molecule.SHIPPED)
    dataset = open_dataset(trained.config, trained.task)
    assert len(dataset.split.train) == 950
    assert data.range_of(dataset, trained.task).to_dict() == trained.information["range"] == trained.learned.to_dict()


def test_frames_of_its_trajectory_are_inside(ethanol):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame in trajectory(20):
            ethanol.calc.get_potential_energy(frame)
    assert ethanol.calc.outside == {}


def test_methanol_has_forces_and_no_energy(ethanol):
    methanol = ase.build.molecule("CH3OH")
    methanol.calc = ethanol.calc
    with pytest.warns(OutsideWarning, match="no reference"):
        assert np.isfinite(methanol.get_forces()).all()
    with pytest.raises(UndeterminedEnergy):
        methanol.get_potential_energy()
    with pytest.raises(UndeterminedEnergy):  # ASE's optimisers ask for it
        BFGS(methanol, logfile=None).run(fmax=1.0, steps=1)


def test_the_examples_say_it_in_a_line(tmp_path, capsys):
    ase.build.molecule("CH3OH").write(tmp_path / "methanol.xyz", format="xyz")
    given = ["--input", str(tmp_path / "methanol.xyz")]
    assert molecule.run(optimise.main, [*given, "--fmax", "0.5", "--output", str(tmp_path / "minimum.xyz")]) == 0
    captured = capsys.readouterr()
    assert "no reference energy, largest force" in captured.out and (tmp_path / "minimum.xyz").exists()
    assert [line[:39] for line in captured.err.splitlines()] == 2 * ["warning: COH4 is outside of what the mo"]
    assert molecule.run(dynamics.main, [*given, "--steps", "2"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: COH4: training gives no reference energy")


def test_predictions_have_no_energy_without_a_reference(tmp_path, capsys):
    names = ["CH3CH2OH", "CH3OH", "CH3CH2OH"]
    molecules = [ase.build.molecule(name) for name in names]
    molecules[2].positions[3:] += 9.0
    ase.io.write(tmp_path / "in.xyz", molecules, format="extxyz")
    arguments = ["--ckpt", str(molecule.SHIPPED), "--input", str(tmp_path / "in.xyz"), "--output"]
    assert program.main([*arguments, str(tmp_path / "out.csv")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" structures")[0] for line in lines] == ["warning: 1 of 3"] * 3
    assert all("(first: frame 1)" in lines[k] for k in (0, 2)) and "(first: frame 2)" in lines[1]
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outside"] for row in rows] == ["", "size, composition", "apart"]
    assert rows[1]["energy [eV]"] == "" and float(rows[0]["energy [eV]"]) == pytest.approx(-4210.18, abs=0.01)
    assert program.main([*arguments, str(tmp_path / "out.xyz")]) == 0
    frames = ase.io.read(tmp_path / "out.xyz", ":")
    assert ["energy" in frame.calc.results for frame in frames] == [True, False, True]
    assert all(np.isfinite(frame.get_forces()).all() for frame in frames)
    assert [frame.info.get("outside") for frame in frames] == [None, "size, composition", "apart"]


def test_metrics_leave_out_what_has_no_reference(tmp_path, capsys):
    frames = trajectory(6)
    methanol = ase.build.molecule("CH3OH")
    methanol.calc = SinglePointCalculator(methanol, energy=-3146.0, forces=np.ones((6, 3)))
    ase.io.write(tmp_path / "mixed.xyz", [*frames, methanol], format="extxyz")
    ase.io.write(tmp_path / "methanol.xyz", [methanol], format="extxyz")
    arguments = ["--ckpt", str(molecule.SHIPPED), "--data", str(tmp_path / "mixed.xyz")]
    assert program.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "left out of the metrics of energy: 1 of 7 structures" in printed and "(first: frame 6)" in printed
    (line,) = [line.split() for line in printed.splitlines() if line.startswith("model ")][:1]
    assert int(line[1]) == 6 and float(line[2]) < 0.05  # eV
    (line,) = [line.split() for line in printed.splitlines() if line.startswith("model ")][1:]
    assert int(line[1]) == (6 * 9 + 6) * 3
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["predicted energy [eV]"]) for row in rows] == [True] * 6 + [False]
    arguments[-1] = str(tmp_path / "methanol.xyz")
    assert program.main([*arguments, "--output", str(tmp_path / "none")]) == 0
    printed = capsys.readouterr().out
    assert "no metrics of energy" in printed and "model: force MAE" in printed


def test_an_older_checkpoint_is_told_of_and_completed(tmp_path, capsys):
    old = without_range(tmp_path / "old.safetensors")
    with pytest.warns(OutsideWarning, match="does not say what its training structures covered"):
        calculator = load_calculator(old)
    assert calculator.learned is None
    ase.build.molecule("CH3CH2OH").write(tmp_path / "in.xyz", format="xyz")
    assert program.main(["--ckpt", str(old), "--input", str(tmp_path / "in.xyz")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].endswith(",unknown") and len(captured.err.splitlines()) == 1
    assert add_range.main(["--ckpt", str(old)]) == 0
    one, other = checkpoints.load(old), checkpoints.load(molecule.SHIPPED)
    assert one.information == other.information
    assert {name: value.tobytes() for name, value in one.model.items()} == {
        name: value.tobytes() for name, value in other.model.items()
    }
    converted = checkpoints.load(old)
    del converted.information["range"], converted.information["source"]
    checkpoints.save(old, converted)
    assert add_range.main(["--ckpt", str(old)]) == 2
    assert "converted weights" in capsys.readouterr().err


def test_a_damaged_range_is_one_line(tmp_path, capsys):
    checkpoint = checkpoints.load(molecule.SHIPPED)
    checkpoint.information["range"] = {"n_atoms": "nine"}
    checkpoints.save(tmp_path / "damaged.safetensors", checkpoint)
    assert program.main(["--ckpt", str(tmp_path / "damaged.safetensors"), "--input", "x.xyz"]) == 2
    assert "what the checkpoint says about itself cannot be used" in capsys.readouterr().err


def test_loading_leaves_the_random_numbers_alone():
    """Two runs of molecular dynamics would draw the same velocities."""
    drawn, seed = [], ms.get_seed()
    for _ in range(2):
        load_calculator(molecule.SHIPPED)
        drawn.append((np.random.normal(), random.random()))  # noqa: NPY002
    assert drawn[0] != drawn[1] and ms.get_seed() == seed
    np.random.seed(5), random.seed(5)  # noqa: NPY002
    expected = np.random.normal(), random.random()  # noqa: NPY002
    np.random.seed(5), random.seed(5)  # noqa: NPY002
    load_trained(molecule.SHIPPED)
    assert (np.random.normal(), random.random()) == expected  # noqa: NPY002


def test_an_import_leaves_them_alone_too():
    text = (
        "import random, numpy as np; random.seed(1); np.random.seed(1)\n"
        "a, b = random.getstate(), np.random.get_state()[1]\n"
        "import train, eval, experiment.trained, examples.vibrations, examples.dynamics, scripts.convert_weights\n"
        "assert random.getstate() == a and (np.random.get_state()[1] == b).all()"
    )
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True, timeout=300)


def test_a_pickled_calculator_brings_its_weights_along(ethanol, tmp_path):
    file = tmp_path / "gone.safetensors"
    file.write_bytes(molecule.SHIPPED.read_bytes())
    ethanol.calc = load_calculator(file, "float64", skin=0.3)
    energy, text = ethanol.get_potential_energy(), pickle.dumps([ethanol, ethanol.copy()])
    assert len(text) < 1.5 * file.stat().st_size
    file.unlink()
    again, _ = pickle.loads(text)
    assert again.get_potential_energy() == energy  # kept, nothing is compiled
    assert "energy_and_forces" not in vars(again.calc) and again.calc.neighbors.skin == 0.3
    for atoms in (again, ethanol):
        atoms.positions[0] += 0.02
    assert again.get_potential_energy() == ethanol.get_potential_energy() != energy
    assert again.calc.learned.to_dict() == ethanol.calc.learned.to_dict() and again.calc.dtype is np.float64


def energy_of(atoms: Atoms) -> float:
    return atoms.get_potential_energy()


def test_another_process_computes_the_same(ethanol):
    energy = ethanol.get_potential_energy()
    moved = copy.deepcopy(ethanol)
    moved.positions += 1.0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(energy_of, [moved]).get(2 * TIMEOUT) == pytest.approx(energy, abs=1e-9)


def in_fork(queue: multiprocessing.Queue, function, *arguments) -> None:
    try:
        queue.put(function(*arguments))
    except Exception as error:
        queue.put(error)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_refused_instead_of_hanging(ethanol):
    ethanol.get_potential_energy()
    ethanol.positions[0] += 0.01
    pickled = pickle.dumps(ethanol)
    context = multiprocessing.get_context("fork")
    for function, error in (
        (ethanol.get_forces, ForkError),
        (lambda: ethanol.calc.get_hessian(ethanol), ForkError),
        (lambda: pickle.loads(pickled).get_forces(), DeviceError),
        (lambda: load_calculator(molecule.SHIPPED), DeviceError),
    ):
        queue = context.Queue()
        child = context.Process(target=in_fork, args=(queue, function))
        child.start()
        raised = queue.get(timeout=TIMEOUT)
        child.join(TIMEOUT)
        assert isinstance(raised, error) and "spawn" in str(raised) and "\n" not in str(raised)
        assert child.exitcode == 0
    assert np.isfinite(ethanol.get_forces()).all(), "the parent goes on"
