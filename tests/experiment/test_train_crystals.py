"""train.py and eval.py on force constants: what a run learns, leaves behind, repeats and refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import NamedTuple

import ase
import numpy as np
import pytest
from tiny_crystals import alloys
from tiny_runs import REPOSITORY, column, read_rows

import eval as evaluation
import train
from data_tools.crystals import crystal_of
from data_tools.graph import DataError
from data_tools.graphs import packed_folder
from data_tools.graphs.loader import evaluation_budget, fitted_batch
from data_tools.graphs.packed import pack
from data_tools.labels.force_constant_probes import ForceConstantProbes
from experiment.evaluation.force_constants import SHELL_MEANS, ZERO
from experiment.evaluation.probe_evaluator import DRAWS, SEED, ProbeEvaluator
from experiment.forecast import one_batch
from experiment.trained import load_calculator, load_trained

pytestmark = pytest.mark.usefixtures("same_mode")

CONFIG = ("--config", str(REPOSITORY / "configs" / "schnet" / "crystals.yaml"))
CUTOFF = 3.6
SETTINGS = {
    "model.features": 12, "model.filters": 12, "model.blocks": 1, "model.gaussians": 10, "model.cutoff": CUTOFF,
    "data.split": "random", "data.train_size": 13, "data.valid_size": 4, "data.test_size": 4, "data.shapes": 1,
    "training.epochs": 16, "training.batch_size": 2, "training.eval_batch_size": 4,
    "optimizer.lr": 0.01, "optimizer.ema_decay": 0.9, "schedule.warmup_steps": 0,
    "run.plots": "false", "run.log_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "alloys"
    packed_folder.save(pack(alloys(), CUTOFF), path)
    return path


def start(file, folder, *more, **settings):
    """Exit code of a small run."""
    pairs = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return train.main([*CONFIG, "--set", f"data.file={file}", "--output", str(folder), *changes, *more])


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "alloys"
    assert start(file, folder, run__plots="true") == 0
    return folder


def test_a_dry_run_evaluates_a_batch_of_the_run():
    """Whatever the order of the validation structures: the largest together are in no batch of the run."""
    packed = pack(alloys(), 5.0)
    rows = np.argsort(-packed.costs, kind="stable")[:12]
    budget = evaluation_budget(packed, [rows], 2)
    part, count = one_batch(packed, rows, 2)
    assert (len(part), count) == (2, 6) and set(part) <= set(rows)
    fitted_batch(packed, part, [budget], None, np.float32)
    with pytest.raises(DataError, match="exceeds the largest budget"):
        fitted_batch(packed, rows[:2], [budget], None, np.float32)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_force_constants_are_learned(finished):
    content, rows = metrics(finished), read_rows(finished / "metrics.csv")
    assert list(rows[0]) == [
        "epoch", "step", "train_loss", "train_mae", "train_force_mae", "lr", "valid_mae", "valid_force_mae",
    ]  # fmt: skip
    test = content["test"]
    assert test["best model"]["mae"] < 0.5 * test[ZERO]["mae"] and test["best model"]["count"] == 4
    every = content["test_force_constants"]["all materials"]
    assert every["best model"]["mae"]["mean"] == test["best model"]["mae"]
    assert {ZERO, SHELL_MEANS, "best model"} <= every.keys()
    assert content["task"]["unit"] == "eV/A^2" and content["compilations"] == {"training": 1, "evaluation": 1}
    scores = column(rows, "valid_mae") + 0.1 * column(rows, "valid_force_mae")
    assert content["best_epoch"] == int(np.argmin(scores)) + 1
    assert column(rows, "train_mae")[-1] < 0.5 * column(rows, "train_mae")[0]
    assert {"predictions.png", "loss_curve.png", "bands.png", "predictions.csv"} <= {
        path.name for path in finished.iterdir()
    }


def test_a_calculator_has_the_force_constants_that_are_measured(finished, file, tmp_path):
    """Forces of a displaced atom are minus a column."""
    assert evaluation.main(["--ckpt", str(finished), "--data", str(file), "--output", str(tmp_path)]) == 0
    crystal = crystal_of(packed_folder.load(file).table, 0)
    atoms = ase.Atoms(crystal.supercell.numbers, crystal.supercell.positions, cell=crystal.supercell.cell, pbc=True)
    atoms.calc = load_calculator(finished, dtype="float64")
    rows = np.zeros_like(crystal.blocks)
    for place, atom in enumerate(crystal.p2s):
        for axis in range(3):
            forces = []
            for sign in (1, -1):
                atoms.positions = crystal.supercell.positions
                atoms.positions[atom, axis] += sign * 1e-3
                forces.append(atoms.get_forces())
            rows[place, :, axis] = (forces[1] - forces[0]) / 2e-3
    first = read_rows(tmp_path / "predictions.csv")[0]
    assert first["name"] == crystal.name and first[f"mae, {SHELL_MEANS}"]
    assert float(first["mae, model"]) == pytest.approx(np.abs(rows - crystal.blocks).mean(), rel=1e-3)
    assert float(first[f"mae, {ZERO}"]) == pytest.approx(np.abs(crystal.blocks).mean())


def test_columns_of_validation_are_rows_of_the_blocks(finished, file):
    trained, packed = load_trained(finished), packed_folder.load(file)
    rows = np.array([3, 0, 7])
    evaluator = ProbeEvaluator(trained.model, packed, [rows], trained.normalizer, 2, trained.config.run.dtype)
    constants = packed.table.force_constants
    blocks = np.array(constants.blocks).reshape(len(packed), 2, 16, 3, 3)
    for row, found in zip(rows, evaluator(rows).blocks, strict=True):
        blocks[row] = found
    predicted = ForceConstantProbes(packed, dataclasses.replace(constants, blocks=blocks.reshape(-1, 3, 3)), SEED)
    published = ForceConstantProbes(packed, constants, SEED)
    expected = np.zeros(3)
    for draw in range(DRAWS):
        products = [provider(rows, draw).of_nodes["hessian_product"] for provider in (predicted, published)]
        expected += np.abs(products[0] - products[1]).reshape(3, -1).sum(axis=1)
    found = evaluator.errors(rows)
    np.testing.assert_allclose(found.columns, expected, rtol=1e-4)
    assert found.components.tolist() == [DRAWS * 16 * 3] * 3 and found.forces.max() > 0


def test_the_asymmetry_of_validation(finished, file, monkeypatch):
    """0 for derivatives of an energy but for rounding; of a term w x v at every atom it is 2 w."""
    trained, packed = load_trained(finished), packed_folder.load(file)
    rows = np.array([3, 0, 7])
    evaluator = ProbeEvaluator(trained.model, packed, [rows], trained.normalizer, 2, trained.config.run.dtype)
    assert evaluator.errors(rows).asymmetry.max() < 1e-5
    observe = evaluator._observe

    def turned(batch):
        product, forces = observe(batch)
        return product + np.cross([0.1, 0.1, 0.1], batch.probes), forces

    monkeypatch.setattr(evaluator, "_observe", turned)  # two of four columns of two atoms are of one atom
    np.testing.assert_allclose(evaluator.errors(rows).asymmetry, 0.2, atol=1e-5)


class Half(NamedTuple):
    """One of two processes whose sums are made by the test."""

    rank: int
    size: int = 2

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, array: np.ndarray) -> np.ndarray:
        return array


def test_two_processes_measure_what_one_measures(finished, file):
    """Each has a part of the structures, with zeros for the others."""
    trained, packed = load_trained(finished), packed_folder.load(file)
    rows = np.array([3, 0, 7])
    evaluator = ProbeEvaluator(trained.model, packed, [rows], trained.normalizer, 1, trained.config.run.dtype)
    errors, blocks = [], []
    for ranks in (evaluator.ranks, Half(0), Half(1)):
        evaluator.ranks = ranks
        errors.append(evaluator.errors(rows))
        blocks.append(evaluator(rows).blocks)
    for name in ("columns", "forces", "asymmetry"):
        of_one, *both = [getattr(one, name) for one in errors]
        # symmetry may make forces and asymmetries 0 to the last bit
        assert ((both[0] == 0) != (both[1] == 0))[of_one != 0].all() and (name != "columns" or of_one.all())
        np.testing.assert_allclose(both[0] + both[1], of_one, rtol=1e-6)
    for place, expected in enumerate(blocks[0]):
        assert not blocks[2 - place % 2][place].any()
        np.testing.assert_allclose(blocks[1][place] + blocks[2][place], expected, rtol=1e-6, atol=1e-8)


def test_baselines_without_the_data_of_the_run(finished, file, tmp_path, capsys):
    """They are fitted to the structures that are measured, and that is said."""
    shutil.copytree(finished, tmp_path / "moved")
    os.rename(file, tmp_path / "data")
    try:
        assert evaluation.main(["--ckpt", str(tmp_path / "moved"), "--data", str(tmp_path / "data")]) == 0
    finally:
        os.rename(tmp_path / "data", file)
    out = capsys.readouterr().out
    assert f"the {SHELL_MEANS} are those of the structures that are measured" in out and "model" in out


def test_evaluation_repeats_the_metrics_of_the_run(finished, tmp_path, capsys):
    assert evaluation.main(["--ckpt", str(finished), "--output", str(tmp_path)]) == 0
    found, expected = metrics(tmp_path), metrics(finished)
    assert found["metrics"]["model"] == expected["test"]["best model"]
    for part, of_all in found["force_constants"].items():
        assert of_all["model"] == expected["test_force_constants"][part]["best model"]
        assert of_all[SHELL_MEANS] == expected["test_force_constants"][part][SHELL_MEANS]
    out = capsys.readouterr().out
    assert "all materials (4): mean / median" in out and ZERO in out and SHELL_MEANS in out


def test_modes_agree(finished, file, tmp_path):
    assert start(file, tmp_path / "eager", "--mode", "PYNATIVE") == 0
    expected, found = (read_rows(folder / "metrics.csv")[1] for folder in (finished, tmp_path / "eager"))
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-3)


def test_the_stress_of_validation_is_that_of_a_calculator(finished, file):
    trained, packed = load_trained(finished), packed_folder.load(file)
    rows = np.array([3, 0, 7])
    evaluator = ProbeEvaluator(
        trained.model, packed, [rows], trained.normalizer, 2, trained.config.run.dtype, with_stress=True
    )
    calculator = load_calculator(finished)
    expected = []
    for row in rows:
        cell = crystal_of(packed.table, row).supercell
        atoms = ase.Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True, calculator=calculator)
        expected.append(np.abs(atoms.get_stress(voigt=False)).sum())
    np.testing.assert_allclose(evaluator.errors(rows).stress, expected, rtol=1e-4)
    assert min(expected) > 1e-3


@pytest.mark.parametrize("probes", ["directions", "thermal"])
def test_products_alone(file, tmp_path, probes):
    settings = {"training__probes": probes, "training__loss": "frequency", "schedule__name": "physics_aware"}
    settings |= {"training__epochs": 6, "data__augment_rotations": "true"}
    assert start(file, tmp_path / "run", training__force_weight=0, **settings) == 0
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert "train_force_mae" not in rows[0]
    errors = column(rows, "valid_mae")
    assert errors[-1] < errors[0]
    best = [np.sum(errors[:epoch] == np.minimum.accumulate(errors)[:epoch]) for epoch in range(6)]
    np.testing.assert_allclose(column(rows, "lr"), 0.01 * 1.05 ** np.array(best))  # symmetric in every epoch


MISTAKES = {
    "no force constants": ({"data__file": "sample"}, ("no label 'force_constants'",)),
    "float16": ({"run__amp_level": "O2"}, ("run.amp_level O2", "expected O0")),
    "a curvature that jumps": ({"model__envelope": "cosine"}, ("model.envelope cosine", "expected polynomial")),
    "a weight of energies": ({"training__energy_weight": 0.5}, ("training.energy_weight 0.5", "expected 1")),
    "probes of another target": (
        {"target__name": "gap", "training__probes": "directions", "training__force_weight": 0},
        ("training.probes directions", "target.name=force_constants"),
    ),
    "a loss of another target": (
        {"target__name": "gap", "training__loss": "frequency", "training__force_weight": 0},
        ("training.loss frequency", "target.name=force_constants"),
    ),
    "a schedule of another target": (
        {"target__name": "gap", "schedule__name": "physics_aware", "training__force_weight": 0},
        ("schedule.name physics_aware", "target.name=force_constants"),
    ),
    "a control of another target": (
        {"target__name": "gap", "training__equivariance_weight": 1, "training__force_weight": 0},
        ("training.equivariance_weight 1", "target.name=force_constants"),
    ),
    "another standardisation": ({"target__standardisation": "per_atom"}, ("allowed are scale, none",)),
}  # fmt: skip


@pytest.mark.parametrize("settings, parts", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(settings, parts, file, tmp_path, capsys):
    settings = {"data__file": file} | settings
    assert start(settings.pop("data__file"), tmp_path / "run", **settings) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and all(part in line for part in parts), line
    assert not (tmp_path / "run").exists()


def test_they_are_no_number_of_a_structure(finished, tmp_path, capsys):
    (tmp_path / "atoms.xyz").write_text("2\n\nCu 0 0 0\nAl 0 0 2.5\n")
    assert evaluation.main(["--ckpt", str(finished), "--input", str(tmp_path / "atoms.xyz")]) == 2
    assert "measure it with --data FILE" in capsys.readouterr().err
