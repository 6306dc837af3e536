"""train.py, eval.py and scripts/phonon.py on models of force constants themselves: what works, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import ase.build
import numpy as np
import pytest
from tiny_crystals import METALS, alloys
from tiny_runs import REPOSITORY, column, read_rows

import eval as evaluation
import train
from data_tools.graph import DataError
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import pack
from data_tools.tables import select_rows
from experiment.evaluation.second_derivatives import crystals_of
from experiment.trained import load_calculator, load_trained
from physics.force_constants import exchange_asymmetry, sum_rule
from scripts import phonon
from scripts.benchmarks.judge_potentials import predicted

pytestmark = pytest.mark.usefixtures("same_mode")

CUTOFF = 3.6
SIZES = {
    "direct_head": {"irreps": "8x0e+4x1o+2x2e", "bessel": 4, "gaussians": 4, "channels": 2},
    "graph_transformer": {"features": 12, "heads": 2, "gaussians": 8},
}
SETTINGS = {
    "model.cutoff": CUTOFF, "model.blocks": 1, "data.split": "random", "data.train_size": 4, "data.valid_size": 2,
    "data.test_size": 2, "data.shapes": 1, "training.epochs": 4, "training.batch_size": 2,
    "training.eval_batch_size": 2, "schedule.warmup_steps": 0, "run.plots": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "alloys"
    packed_folder.save(pack(alloys(8), CUTOFF), path)
    return path


def start(name, file, folder, **settings):
    """Exit code of a small run."""
    pairs = SETTINGS | {f"model.{key}": value for key, value in SIZES[name].items()}
    pairs |= {"data.file": file} | {key.replace("__", "."): value for key, value in settings.items()}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    config = REPOSITORY / "configs" / name / "crystals.yaml"
    return train.main(["--config", str(config), "--output", str(folder), *changes])


@pytest.fixture(scope="module", params=SIZES)
def finished(request, file, tmp_path_factory):
    """A run of each model in float32, that of the one that is not equivariant in PYNATIVE mode and with its control."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    control = {"run__mode": "PYNATIVE", "training__equivariance_weight": 0.5}
    assert start(request.param, file, folder, **(control if request.param == "graph_transformer" else {})) == 0
    return folder


def test_they_learn_and_are_measured(finished, file, tmp_path):
    rows = read_rows(finished / "metrics.csv")
    assert list(rows[0]) == ["epoch", "step", "train_loss", "train_mae", "lr", "valid_mae"]
    assert column(rows, "train_mae")[-1] < column(rows, "train_mae")[0]
    content = json.loads((finished / "metrics.json").read_text())
    assert content["test"]["best model"]["count"] == 2
    assert evaluation.main(["--ckpt", str(finished), "--data", str(file), "--output", str(tmp_path / "all")]) == 0
    measured = json.loads((tmp_path / "all" / "metrics.json").read_text())
    errors = column(read_rows(tmp_path / "all" / "predictions.csv"), "mae, model")
    assert len(errors) == 8 and measured["metrics"]["model"]["mae"] == pytest.approx(errors.mean(), rel=1e-6)


def test_potentials_are_judged_by_the_same_stream(finished, file):
    """In float64 they obey the sum rule and exchange symmetry, which the page of judge_potentials.py prints."""
    table = select_rows(packed_folder.load(file).table, np.arange(2))
    blocks, _ = predicted(load_trained(finished, [("run.dtype", "float64")]), table, "float64")
    for crystal, found in zip(crystals_of(table, np.arange(len(table))), blocks, strict=True):
        scale = np.abs(found).max()
        assert np.abs(sum_rule(found)).max() < 1e-10 * scale
        assert np.abs(exchange_asymmetry(dataclasses.replace(crystal, blocks=found))).max() < 1e-10 * scale


def structure(folder, symbols):
    constant = (METALS["Al"] ** 3 / 4 + METALS["Cu"] ** 3 / 4) ** (1 / 3)
    path = folder / "POSCAR"
    ase.build.bulk(symbols, "cesiumchloride", a=constant).write(path, format="vasp")
    return path


def test_phonons_of_a_crystal(finished, tmp_path, capsys):
    if finished.name != "direct_head":  # by no other way
        return
    words = ["--structure", str(structure(tmp_path, "AlCu")), "--supercell", "2", "2", "2", "--ckpt", str(finished)]
    assert phonon.main([*words, "--output", str(tmp_path / "page")]) == 0
    report = json.loads((tmp_path / "page" / "report.json").read_text())
    assert report["force_constants"]["method"] == "predicted without an energy" and not report["energy"]
    assert report["force_constants"]["largest_force_eV_per_A"] is None
    capsys.readouterr()
    assert phonon.main([*words, "--relax", "--output", str(tmp_path / "relaxed")]) == 2
    (line,) = [words for words in capsys.readouterr().err.splitlines() if words.startswith("error")]
    assert "--relax: expected a model of energies" in line
    words[1] = str(structure(tmp_path, "FeCu"))
    assert phonon.main([*words, "--output", str(tmp_path / "iron")]) == 2
    assert "has not learned Fe, only Al, " in capsys.readouterr().err


def test_there_is_no_calculator_and_no_number_of_a_structure(finished, tmp_path, capsys):

    with pytest.raises(DataError, match="predicts force constants themselves and has no energy"):
        load_calculator(finished)
    (tmp_path / "atoms.xyz").write_text("2\n\nCu 0 0 0\nAl 0 0 2.5\n")
    assert evaluation.main(["--ckpt", str(finished), "--input", str(tmp_path / "atoms.xyz")]) == 2
    assert "measure it with --data FILE" in capsys.readouterr().err


MISTAKES = {
    "energies": ({"target__name": "energy"}, "target.name energy: expected force_constants for model.name="),
    "a property": ({"target__name": "gap"}, "target.name gap: expected force_constants for model.name="),
    "forces": ({"training__force_weight": 0.1}, "training.force_weight 0.1: expected 0 for model.name="),
    "stress": ({"training__stress_weight": 1}, "training.stress_weight 1: expected 0 for model.name="),
    "float16": ({"run__amp_level": "O2"}, "run.amp_level O2: expected O0"),
}


@pytest.mark.parametrize("settings, words", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("name", SIZES)
def test_mistakes(name, settings, words, file, tmp_path, capsys):
    assert start(name, file, tmp_path / "run", **settings) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "run").exists()


def test_hyperparameters_that_do_not_fit(file, tmp_path, capsys):
    wrong = {
        "direct_head": ({"model__irreps": "8x0e"}, "expected vectors, 1o"),
        "graph_transformer": ({"model__heads": 5}, "features 12, heads 5"),
    }
    for name, (settings, words) in wrong.items():
        assert start(name, file, tmp_path / name, **settings) == 2
        assert words in capsys.readouterr().err
