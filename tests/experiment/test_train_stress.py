"""train.py and eval.py on crystals with stress: what a run learns, logs, repeats and refuses."""

from __future__ import annotations

import json

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from tiny_runs import REPOSITORY, column, read_rows

import eval as evaluation
import train
from experiment.trained import load_calculator

pytestmark = pytest.mark.usefixtures("same_mode")

CONFIG = ("--config", str(REPOSITORY / "configs" / "schnet" / "rmd17.yaml"))
SETTINGS = {
    "model.features": 12, "model.filters": 12, "model.blocks": 1, "model.gaussians": 12, "model.cutoff": 3.6,
    "data.split": "random", "data.train_size": 24, "data.valid_size": 8, "data.test_size": 8,
    "training.batch_size": 8, "training.epochs": 12, "optimizer.ema_decay": 0,
    "schedule.name": "constant",
    "training.loss": "mae", "training.energy_weight": 0.1, "training.force_weight": 1, "training.stress_weight": 100,
    "optimizer.lr": 0.01, "run.plots": "false", "run.log_every": 3,
}  # fmt: skip


def crystals(count: int = 40, stress: bool = True, seed: int = 0) -> list[ase.Atoms]:
    """Strained and rattled cells of copper and aluminium, one to four atoms, with energies, forces and stress."""
    random, made = np.random.default_rng(seed), []
    for k in range(count):
        atoms = ase.build.bulk("Cu", "fcc", a=3.7, cubic=k % 3 == 0)
        atoms.numbers[random.random(len(atoms)) < 0.3] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, rng=random)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        results |= {"stress": atoms.get_stress()} if stress else {}
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "crystals.xyz"
    ase.io.write(path, crystals(), format="extxyz")
    return path


def start(file, folder, *more, **settings):
    """Exit code of a small run."""
    pairs = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return train.main([*CONFIG, "--set", f"data.file={file}", "--output", str(folder), *changes, *more])


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "crystals"
    assert start(file, folder) == 0
    return folder


def test_stress_is_learned(finished):
    rows, content = read_rows(finished / "metrics.csv"), json.loads((finished / "metrics.json").read_text())
    assert list(rows[0]) == [
        "epoch", "step", "train_loss", "train_mae", "train_force_mae", "train_stress_mae", "lr", "valid_mae",
        "valid_force_mae", "valid_stress_mae",
    ]  # fmt: skip
    scores = 0.1 * column(rows, "valid_mae") + column(rows, "valid_force_mae") + 100 * column(rows, "valid_stress_mae")
    assert content["best_epoch"] == int(np.argmin(scores)) + 1
    assert content["valid_stress_mae"] == float(rows[content["best_epoch"] - 1]["valid_stress_mae"])
    stress = content["test_stress"]
    assert stress["best model"]["mae"] < 0.5 * stress["zero"]["mae"] and stress["best model"]["count"] == 8 * 9
    assert column(rows, "train_stress_mae")[-1] < 0.5 * column(rows, "train_stress_mae")[0]


def test_the_log_has_the_unit(finished):
    log = (finished / "train.log").read_text()
    last = read_rows(finished / "metrics.csv")[-1]
    assert f"valid stress MAE {1000 * float(last['valid_stress_mae']):.4f} meV/A^3" in log
    assert "components of the stress [meV/A^3]:" in log
    (line,) = [line for line in log.split("components of the stress")[1].splitlines() if line.startswith("zero ")]
    content = json.loads((finished / "metrics.json").read_text())
    assert float(line.split()[2]) == pytest.approx(1000 * content["test_stress"]["zero"]["mae"], abs=1e-5)


def test_evaluation_repeats_the_metrics_and_writes_stress(finished, file, tmp_path):
    assert evaluation.main(["--ckpt", str(finished), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = json.loads((finished / "metrics.json").read_text())
    assert found["stress_metrics"]["model"] == expected["test_stress"]["best model"]
    assert found["force_metrics"]["model"] == expected["test_forces"]["best model"]
    mixed = [*crystals(2, seed=5), ase.build.bulk("Cu", "fcc", a=3.7).copy()]
    mixed[2].pbc = False
    mixed[2].cell = np.zeros((3, 3))
    ase.io.write(tmp_path / "some.xyz", mixed, format="extxyz")
    words = ["--input", str(tmp_path / "some.xyz"), "--output", str(tmp_path / "predicted.xyz")]
    assert evaluation.main(["--ckpt", str(finished), *words]) == 0
    *frames, atom = ase.io.read(tmp_path / "predicted.xyz", ":")
    calculator = load_calculator(finished)
    for frame, atoms in zip(frames, mixed, strict=False):
        atoms.calc = calculator
        np.testing.assert_allclose(frame.get_stress(), atoms.get_stress(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), rtol=1e-4, atol=1e-5)
    assert "stress" not in atom.calc.results


def test_modes_agree(finished, file, tmp_path):
    assert start(file, tmp_path / "eager", "--mode", "PYNATIVE", training__epochs=3) == 0
    expected, found = (read_rows(folder / "metrics.csv")[2] for folder in (finished, tmp_path / "eager"))
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4)


def test_stress_alone_beside_energies(file, tmp_path):
    """And of half of the structures only, with structures of which nothing but the energy is known."""
    frames = ase.io.read(file, ":")
    for frame in frames[::2]:
        frame.calc = SinglePointCalculator(frame, energy=frame.get_potential_energy())
    ase.io.write(tmp_path / "half.xyz", frames, format="extxyz")
    assert start(tmp_path / "half.xyz", tmp_path / "run", training__force_weight=0, training__epochs=4) == 0
    rows, content = (
        read_rows(tmp_path / "run" / "metrics.csv"),
        json.loads((tmp_path / "run" / "metrics.json").read_text()),
    )
    assert "train_force_mae" not in rows[0] and content["test_forces"]["best model"]["count"] > 0
    assert column(rows, "train_stress_mae")[-1] < column(rows, "train_stress_mae")[0]


def one_line(capsys):
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


MISTAKES = {
    "no stress": ({}, ("expected stress in the training rows, found none; give data with stress", "stress_weight=0")),
    "a stress of another name": (
        {"data__keys": "stress=REF"}, ("data.keys: expected REF, the stress", "among the values of the file"),
    ),
    "float16": ({"training__force_weight": 0, "run__amp_level": "O2"}, ("expected O0 beside training.stress_weight",)),
    "another target": ({"target__name": "gap"}, ("training.stress_weight 100", "expected target.name=energy", "gap")),
    "negative": ({"training__stress_weight": -1}, ("training.stress_weight",)),
    "nothing derived": (
        {"training__stress_weight": 0, "training__force_weight": 0}, ("training.energy_weight 0.1", "expected 1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("settings, parts", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(settings, parts, tmp_path, capsys):
    ase.io.write(tmp_path / "a.xyz", crystals(stress=False), format="extxyz")
    assert start(tmp_path / "a.xyz", tmp_path / "run", **settings) == 2
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_molecules_have_none(tmp_path, capsys):
    frames = [
        ase.Atoms(atoms.symbols, atoms.positions, info={"energy": atoms.get_potential_energy()})
        for atoms in crystals(stress=False)
    ]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    assert start(tmp_path / "a.xyz", tmp_path / "run", training__force_weight=0) == 2
    assert "expected stress in the training rows, found none; the data are molecules, which have none" in one_line(
        capsys
    )


def test_stress_of_training_rows_alone(file, tmp_path, capsys):
    """There would be nothing to choose the best model by."""
    frames = ase.io.read(file, ":")
    for number, frame in enumerate(frames):
        results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        results |= {"stress": frame.get_stress()} if number < 24 else {}
        frame.calc = SinglePointCalculator(frame, **results)
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    index = tmp_path / "split.npz"
    np.savez(index, train=np.arange(24), valid=np.arange(24, 32), test=np.arange(32, 40), name="own")
    split = {"data__split": "file", "data__split_file": index, "data__valid_size": 0, "data__test_size": 0}
    assert start(tmp_path / "a.xyz", tmp_path / "run", **split, data__train_size=0) == 2
    assert "expected stress in the validation rows, found none" in one_line(capsys)
