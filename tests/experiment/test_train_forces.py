"""train.py and eval.py on energies and forces: what a run learns, leaves behind, repeats and refuses."""

from __future__ import annotations

import csv
import json
import zipfile

import ase.io
import numpy as np
import pytest
from cloud_jobs import server
from tiny_runs import REPOSITORY, read_rows

import eval as evaluation
import train
from configs.loading import load_config
from data_tools.formats.md17 import SAMPLE_TEST, SAMPLE_TRAIN
from data_tools.units import KCAL_PER_MOL
from experiment import figures as plots

pytestmark = pytest.mark.usefixtures("same_mode")

CONFIG = ("--config", str(REPOSITORY / "configs" / "schnet" / "rmd17.yaml"))
SMALL = {
    "model.features": 16, "model.filters": 16, "model.blocks": 1, "model.gaussians": 12, "model.cutoff": 5.0,
    "data.train_size": 60, "training.energy_weight": 0.05,
    "data.valid_size": 12, "data.test_size": 20, "training.epochs": 3, "training.batch_size": 12,
    "optimizer.lr": 5e-3, "optimizer.ema_decay": 0, "run.plots": "false", "run.log_every": 2,
}  # fmt: skip


def start(folder, *more, **settings):
    """Exit code of a small run."""
    pairs = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return train.main([*CONFIG, "--output", str(folder), *changes, *more])


def error_of(capsys):
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def figures():
    """The figures that the finished run has drawn, by the name of their file."""
    return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, figures):
    folder = tmp_path_factory.mktemp("runs") / "ethanol"
    write = plots.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "write", lambda figure, path: (figures.update({path.name: figure}), write(figure, path)))
        assert start(folder, run__plots="true", training__epochs=40, optimizer__lr=0.01) == 0
    return folder


def test_forces_are_learned(finished):
    content, rows = metrics(finished), read_rows(finished / "metrics.csv")
    assert list(rows[0]) == [
        "epoch", "step", "train_loss", "train_mae", "train_force_mae", "lr", "valid_mae", "valid_force_mae",
    ]  # fmt: skip
    assert content["split"] == "two_files-60-12-20-seed0"
    assert content["counts"] == {"train": 60, "valid": 12, "test": 20}
    forces = content["test_forces"]
    assert forces["best model"]["mae"] < 0.6 * forces["zero"]["mae"] and forces["best model"]["count"] == 20 * 27
    assert content["compilations"] == {"training": 1, "evaluation": 1}
    best = rows[content["best_epoch"] - 1]
    assert content["valid_force_mae"] == float(best["valid_force_mae"])
    scores = [0.05 * float(row["valid_mae"]) + float(row["valid_force_mae"]) for row in rows]
    assert content["best_epoch"] == int(np.argmin(scores)) + 1
    assert {"forces.png", "predictions.png", "loss_curve.png", "tsne.png"} <= {path.name for path in finished.iterdir()}


def test_the_curves_of_forces_stand_beside_a_baseline_of_the_validation_frames(finished, figures):
    energy, force = figures["loss_curve.png"].axes[1:3]
    assert (energy.get_ylabel(), force.get_ylabel()) == ("energy MAE (meV)", "force MAE (meV/Å)")
    rows, lines = read_rows(finished / "metrics.csv"), {line.get_label(): line.get_ydata() for line in force.lines}
    for name, key in (("train (during the epoch)", "train_force_mae"), ("validation", "valid_force_mae")):
        np.testing.assert_allclose(lines[name], [1000 * float(row[key]) for row in rows])
    with np.load(finished / "split.npz") as split, np.load(SAMPLE_TRAIN) as file:
        zero = 1000 * KCAL_PER_MOL * np.abs(file["forces"][split["valid"]]).mean()
    (value,) = [values[0] for name, values in lines.items() if name.startswith("validation, zero forces: ")]
    assert value == pytest.approx(zero, rel=1e-6)
    best = metrics(finished)
    shown = f"best model: {1000 * best['valid_force_mae']:.4g} meV/Å (epoch {best['best_epoch']})"
    assert shown in lines
    scatter, histogram = figures["forces.png"].axes[:2]
    assert scatter.get_title("left").strip() == "540 force components"
    assert histogram.get_ylabel() == "force components"
    footer = figures["forces.png"]._supxlabel.get_text()
    assert "run ethanol" in footer and "test set of split two_files-60-12-20-seed0: 20 structures" in footer


def test_the_log_has_every_unit(finished):
    log = (finished / "train.log").read_text()
    for part in (
        "train energy MAE ",
        " meV  train force MAE ",
        " meV/A  lr ",
        "valid force MAE ",
        " kcal/mol, force MAE ",
    ):
        assert part in log
    line = next(line for line in log.splitlines() if "best model: energy MAE" in line)
    numbers = [float(word) for word in line.split() if word.replace(".", "", 1).isdigit()]
    energy, energy_kcal, force, force_kcal = numbers[-4:]
    assert energy == pytest.approx(1000 * KCAL_PER_MOL * energy_kcal, rel=2e-3)
    assert force == pytest.approx(1000 * KCAL_PER_MOL * force_kcal, rel=2e-3)
    assert energy == pytest.approx(1000 * metrics(finished)["test"]["best model"]["mae"], rel=1e-3)


def test_evaluation_repeats_the_metrics_of_the_run(finished, tmp_path, capsys):
    assert evaluation.main(["--ckpt", str(finished), "--output", str(tmp_path / "out")]) == 0
    found, expected = json.loads((tmp_path / "out" / "metrics.json").read_text()), metrics(finished)
    assert found["metrics"]["model"] == expected["test"]["best model"]
    assert found["force_metrics"]["model"] == expected["test_forces"]["best model"]
    assert "kcal/mol/A" in capsys.readouterr().out
    assert evaluation.main(["--ckpt", str(finished), "--data", str(SAMPLE_TEST)]) == 0
    assert "27000" in capsys.readouterr().out


def test_forces_are_not_computed_in_float16(finished, capsys):
    assert evaluation.main(["--ckpt", str(finished), "--amp_level", "O2"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: --amp_level O2: expected O0 where forces are computed")


def test_predicted_forces_are_written_and_are_the_gradient(finished, tmp_path, capsys):
    with np.load(SAMPLE_TEST) as file:
        numbers, positions = file["nuclear_charges"], file["coords"][0]
    frames = [ase.Atoms(numbers, positions)]
    for sign in (1, -1):
        moved = positions.copy()
        moved[2, 1] += sign * 1e-3
        frames.append(ase.Atoms(numbers, moved))
    source, target = tmp_path / "frames.xyz", tmp_path / "predicted.xyz"
    ase.io.write(source, frames, format="extxyz")
    assert evaluation.main(["--ckpt", str(finished), "--input", str(source), "--output", str(target)]) == 0
    first, plus, minus = ase.io.read(target, ":")
    slope = (plus.get_potential_energy() - minus.get_potential_energy()) / 2e-3
    assert first.get_forces()[2, 1] == pytest.approx(-slope, rel=0.02, abs=0.02)  # float32 energies of -4,000 eV
    assert evaluation.main(["--ckpt", str(finished), "--input", str(source)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()[1:]))
    assert float(rows[0]["energy [eV]"]) == pytest.approx(first.get_potential_energy(), abs=1e-4)


def test_a_resumed_run_repeats_itself_and_modes_agree(tmp_path):
    whole, parts, eager = tmp_path / "whole", tmp_path / "parts", tmp_path / "eager"
    assert start(whole, schedule__name="constant") == 0
    assert start(parts, schedule__name="constant", training__epochs=1) == 0
    assert train.main(["--resume", str(parts), "--epochs", "3"]) == 0
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    assert start(eager, "--mode", "PYNATIVE", schedule__name="constant") == 0
    expected, found = (read_rows(folder / "metrics.csv")[-1] for folder in (whole, eager))
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4)


def test_energies_alone(tmp_path):
    """The control: forces are not learned, and still measured."""
    assert start(tmp_path, training__force_weight=0, training__energy_weight=1, training__epochs=1) == 0
    assert "valid_force_mae" not in read_rows(tmp_path / "metrics.csv")[0]
    assert metrics(tmp_path)["test_forces"]["best model"]["count"] == 20 * 27


def write_frames(path, **changes):
    """A few frames of the sample in the layout of rMD17; None leaves an array out."""
    with np.load(SAMPLE_TRAIN) as file:
        arrays = {name: file[name] if name == "nuclear_charges" else file[name][:40] for name in file.files[:4]}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_two_files_of_ones_own(tmp_path):
    files = [write_frames(tmp_path / name) for name in ("a.npz", "b.npz")]
    sizes = {"data__train_size": 30, "data__valid_size": 10, "data__test_size": 0}
    assert start(tmp_path / "run", data__train_file=files[0], data__test_file=files[1], **sizes) == 0
    content = metrics(tmp_path / "run")
    assert content["counts"] == {"train": 30, "valid": 10, "test": 40}
    rows = read_rows(tmp_path / "run" / "predictions.csv")
    assert rows[0]["name"].startswith("test: ")


def test_one_file_of_ones_own_instead_of_the_two_of_the_profile(tmp_path, capsys):
    """The sizes of the profile shrink with a line in the log, and evaluation and resume meet the same split."""
    file, folder = write_frames(tmp_path / "a.npz"), tmp_path / "run"
    settings = {key: value for key, value in SMALL.items() if not key.endswith("_size") or "batch" in key}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert train.main([*CONFIG, *changes, "--output", str(folder), "--epochs", "1", "--set", f"data.file={file}"]) == 0
    log = (folder / "train.log").read_text()
    assert "sizes of the profile adapted to 40 structures: train 950 -> 35, valid 50 -> 1\n" in log
    assert metrics(folder)["split"] == "random-35-1-4-seed0"
    settings = load_config(folder / "config.yaml").data
    assert (settings.train_size, settings.valid_size, settings.test_size, settings.train_file) == (35, 1, 4, "")
    assert evaluation.main(["--ckpt", str(folder), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["metrics"]["model"] == metrics(folder)["test"]["best model"]
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 0
    assert capsys.readouterr().out.count("adapted") == 1 and metrics(folder)["counts"]["train"] == 35


@pytest.mark.parametrize("given, split", [(("--subset_size", "0.5"), "two_files-20-4-40"), ((), "two_files-36-4-40")])
def test_sizes_of_two_files(given, split, tmp_path, capsys):
    """A fraction as an option is taken of the file; the validation frames of the profile make room for it."""
    file = write_frames(tmp_path / "a.npz")
    sizes = ("data.train_size", "data.test_size")
    settings = {key: value for key, value in SMALL.items() if key not in sizes}
    settings |= {"data.train_file": file, "data.test_file": file, "data.valid_size": "4"}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert train.main([*CONFIG, *changes, *given, "--output", str(tmp_path / "run"), "--dry_run"]) == 0
    assert f"split {split}-seed0: " in capsys.readouterr().out


def test_two_files_in_a_cloud_job(tmp_path, monkeypatch):
    archive = tmp_path / "pair.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("a.npz", "b.npz"):
            file.write(write_frames(tmp_path / name), f"frames/{name}")
    cloud = server(tmp_path / "cloud", monkeypatch, archive)
    (cloud.buckets / "user" / "frames").mkdir()
    archive.rename(cloud.buckets / "user" / "frames" / "pair.zip")
    pairs = {**SMALL, "data.train_size": 30, "data.valid_size": 10, "data.test_size": 0}
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    given = ["--data_url=s3://user/frames", "--train_url=s3://results/frames", "--set", "data.train_file=a.npz"]
    assert train.main([*CONFIG, *changes, *given, "--set", "data.test_file=b.npz"]) == 0
    assert "force_mae" in (cloud.buckets / "results" / "frames" / "metrics.csv").read_text()


MISTAKES = {
    "no forces": ({"forces": None}, {}, ("expected forces in the training rows", "training.force_weight=0")),
    "forces of another shape": ({"forces": np.zeros((40, 9, 2))}, {}, ("forces", "(40, 9, 3)")),
    "forces of fewer frames": ({"forces": np.zeros((39, 9, 3))}, {}, ("forces",)),
    "no energies": ({"energies": None}, {}, ("energy",)),
    "only one file": ({}, {"data__test_file": ""}, ("belong together",)),
    "another split": ({}, {"data__split": "random"}, ("data.split=two_files",)),
    "a third file": ({}, {"data__file": "x.npz"}, ("give one of the two",)),
    "another target": ({}, {"target__name": "gap"}, ("hold no label 'gap'",)),
    "a weight without forces": ({}, {"training__force_weight": 0}, ("training.energy_weight 0.05", "expected 1")),
    "a negative weight": ({}, {"training__force_weight": -1}, ("training.force_weight",)),
    "too many frames": ({}, {"data__train_size": 35}, ("35 train + 10 valid", "40")),
}


@pytest.mark.parametrize("arrays, settings, parts", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(arrays, settings, parts, tmp_path, capsys):
    files = write_frames(tmp_path / "a.npz", **arrays), write_frames(tmp_path / "b.npz")
    given = {"data__train_size": 30, "data__valid_size": 10, "data__test_size": 0} | settings
    pair = {"data__train_file": files[0], "data__test_file": files[1]}
    assert start(tmp_path / "run", **{**pair, **given}) == 2
    line = error_of(capsys)
    assert all(part in line for part in parts), line
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_test_file_of_another_molecule_is_noticed(tmp_path, capsys):
    """Frames of ethanol alone do not say what its elements add elsewhere."""
    pair = {"data__train_file": write_frames(tmp_path / "a.npz"), "data__train_size": 30, "data__valid_size": 10}
    told = []
    for name, numbers in (("same.npz", None), ("other.npz", np.array([6, 6, 6, 1, 1, 1, 1, 1, 1]))):
        file = write_frames(tmp_path / name, **{} if numbers is None else {"nuclear_charges": numbers})
        assert start(tmp_path / "run", "--dry_run", **pair, data__test_file=file, data__test_size=0) == 0
        told.append([line for line in capsys.readouterr().out.splitlines() if "no reference energy" in line])
    assert not told[0]
    (line,) = told[1]
    assert "40 of 50 validation and test molecules (first: test: frame 0)" in line


def test_units_that_do_not_fit_are_suspected(tmp_path, capsys):
    """Energies in eV beside forces in kcal/mol/Angstrom, as if all were kcal/mol."""
    with np.load(SAMPLE_TRAIN) as file:
        arrays = {name: file[name] for name in file.files[:4]}
    np.savez(tmp_path / "wrong.npz", **arrays | {"energies": arrays["energies"] * KCAL_PER_MOL})
    files = {"data__train_file": tmp_path / "wrong.npz", "data__test_file": tmp_path / "wrong.npz"}
    assert start(tmp_path / "run", "--dry_run", **files) == 0
    assert "warning: " in capsys.readouterr().out
