"""eval.py as a user runs it: metrics of a run again and on other files, and predictions of structures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from published_files import RAW, RAW_FILES
from tiny_runs import MINI, REPOSITORY, column, light, options, read_rows, rows_with, write_molecules

import eval as program
import train
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.labels.statistics import Normalizer, regression_metrics
from data_tools.labels.targets import atom_references, get_target, label_values
from experiment.measurement import measure
from experiment.selection import select
from experiment.trained import load_trained
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")

XYZ = """3
water
O 0 0 0.119
H 0 0.763 -0.477
H 0 -0.763 -0.477
2

H 0 0 0
H 0 0 0.74
"""


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """Without fluorine, so that it is an element the model never saw."""
    rows = [row for row in range(140) if row not in set(rows_with(9, "test"))]
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.npz", rows)


def train_once(molecules, folder, **settings):
    arguments = options(molecules, folder, "--config", str(MINI), **light(**settings))
    assert train.main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def energy_run(molecules, tmp_path_factory):
    """Atomisation energies, evaluated with the moving average."""
    folder = tmp_path_factory.mktemp("runs") / "energy"
    average = {"optimizer__ema_decay": 0.9, "optimizer__lr": 1e-3}
    return train_once(molecules, folder, target__name="U0", training__epochs=3, **average)


@pytest.fixture(scope="module")
def gap_run(molecules, tmp_path_factory):
    return train_once(molecules, tmp_path_factory.mktemp("runs") / "gap")


@pytest.fixture(scope="module")
def converted(gap_run, tmp_path_factory):
    """A checkpoint as convert_weights.py writes it: no data, every element."""
    checkpoint = checkpoints.load(gap_run)
    information = {key: checkpoint.information[key] for key in ("config", "task", "normalizer", "versions")}
    information |= {"elements": list(range(1, 100)), "converted_from": {"source": "pyg-schnet"}}
    path = tmp_path_factory.mktemp("converted") / "weights.safetensors"
    checkpoints.save(path, checkpoints.Checkpoint(checkpoint.model, information=information))
    return path


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(XYZ)
    return path


def evaluate(*arguments) -> int:
    return program.main([str(argument) for argument in arguments])


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def csv_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_metrics_of_a_run_come_out_again(energy_run, tmp_path, capsys):
    assert evaluate("--ckpt", energy_run, "--output", tmp_path / "out") == 0
    table = capsys.readouterr().out
    ours, runs = metrics_in(tmp_path / "out"), metrics_in(energy_run)["test"]
    pairs = {
        "model": "best model",
        "mean of the training labels": "mean of the training labels",
        "linear in element counts": "linear in element counts",
    }
    assert ours["metrics"].keys() == pairs.keys()
    for name, name_in_run in pairs.items():
        assert name in table
        assert ours["metrics"][name] == pytest.approx(runs[name_in_run], rel=1e-6)
    assert (tmp_path / "out" / "predictions.csv").read_text() == (energy_run / "predictions.csv").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "predictions.csv"}
    content = metrics_in(tmp_path / "out")
    digest = hashlib.sha256((energy_run / checkpoints.BEST).read_bytes()).hexdigest()
    assert (content["checkpoint"], content["checkpoint_sha256"]) == (str(energy_run / checkpoints.BEST), digest)
    words = f"python eval.py --ckpt {energy_run} --output {tmp_path / 'out'}"
    assert content["provenance"]["command"] == words and content["provenance"].keys() == {
        "version", "commit", "command", "started"
    }  # fmt: skip
    assert content["training_provenance"] == metrics_in(energy_run)["provenance"]


def test_the_validation_error_comes_out_again(energy_run, tmp_path):
    assert evaluate("--ckpt", energy_run / "best.safetensors", "--split", "valid", "--output", tmp_path / "out") == 0
    best = column(read_rows(energy_run / "metrics.csv"), "valid_mae").min()
    assert metrics_in(tmp_path / "out")["metrics"]["model"]["mae"] == pytest.approx(best, rel=1e-6)


def test_the_moving_average_is_what_is_evaluated(energy_run, tmp_path):
    last = checkpoints.load(energy_run / "last.safetensors")
    assert any(np.any(last.ema[name] != last.model[name]) for name in last.ema)
    assert evaluate("--ckpt", energy_run / "last.safetensors", "--output", tmp_path / "average") == 0
    expected = metrics_in(energy_run)["test"]["last model"]
    assert metrics_in(tmp_path / "average")["metrics"]["model"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("split, count", [("train", 32), ("valid", 12), ("test", 12), ("all", None)])
def test_every_split(split, count, gap_run, molecules, tmp_path):
    assert evaluate("--ckpt", gap_run, "--split", split, "--output", tmp_path / "out") == 0
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert len(rows) == (count or len(read_table(molecules)))
    metrics = regression_metrics(column(rows, "predicted gap [eV]"), column(rows, "label gap [eV]"))
    assert metrics_in(tmp_path / "out")["metrics"]["model"] == pytest.approx(metrics, rel=1e-5)


def test_batch_size_and_mode_do_not_matter(gap_run, tmp_path):
    assert evaluate("--ckpt", gap_run, "--batch_size", 3, "--mode", "PYNATIVE", "--output", tmp_path / "out") == 0
    expected = metrics_in(gap_run)["test"]["best model"]
    assert metrics_in(tmp_path / "out")["metrics"]["model"] == pytest.approx(expected, rel=1e-5)


def test_float16_of_a_trained_model(gap_run, tmp_path):
    for level in ("O0", "O3"):
        assert evaluate("--ckpt", gap_run, "--amp_level", level, "--output", tmp_path / level) == 0
    exact, rounded = (metrics_in(tmp_path / level)["metrics"]["model"]["mae"] for level in ("O0", "O3"))
    assert exact == pytest.approx(metrics_in(gap_run)["test"]["best model"]["mae"], rel=1e-6)
    assert exact != rounded == pytest.approx(exact, rel=0.05)


def test_another_file(energy_run, tmp_path):
    """The label definition, readout and constants are the checkpoint's; the baselines are those of its data."""
    assert evaluate("--ckpt", energy_run, "--data", RAW, "--output", tmp_path / "out") == 0
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    table = read_table(RAW)
    assert [int(row["id"]) for row in rows] == table.ids.tolist()
    np.testing.assert_allclose(
        column(rows, "label U0 [eV]"), label_values(table, get_target("U0"), "atomisation"), rtol=1e-7
    )
    assert len(metrics_in(tmp_path / "out")["metrics"]) == 3


def test_the_runs_own_file_keeps_its_split(gap_run, molecules, tmp_path):
    """The rows are labelled by Cormorant's split too, but its test rows are among those the model was trained on."""
    assert evaluate("--ckpt", gap_run, "--data", molecules, "--split", "test", "--output", tmp_path / "out") == 0
    expected = metrics_in(gap_run)["test"]["best model"]
    assert metrics_in(tmp_path / "out")["metrics"]["model"] == pytest.approx(expected, rel=1e-6)
    assert "split random-32-12-12-seed0" in metrics_in(tmp_path / "out")["structures"]


def test_labelled_rows_of_another_file(gap_run, tmp_path):
    file = write_molecules(tmp_path / "other.npz", range(200, 230))
    assert evaluate("--ckpt", gap_run, "--data", file, "--split", "valid", "--output", tmp_path / "out") == 0
    table = read_table(file)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [int(row["id"]) for row in rows] == table.ids[table.split == "valid"].tolist()


def test_elements_unseen_in_training_are_reported_apart(gap_run, tmp_path, capsys):
    rows = [*rows_with(9, "test")[:3], *range(200, 210)]
    file = write_molecules(tmp_path / "fluorine.npz", rows)
    assert evaluate("--ckpt", gap_run, "--data", file, "--output", tmp_path / "out") == 0
    metrics = metrics_in(tmp_path / "out")["metrics"]
    assert (metrics["model, with F"]["count"], metrics["model, without F"]["count"]) == (3, 10)
    assert "linear in element counts, with F" in capsys.readouterr().out
    # all of them unseen: there is nothing else to report
    assert evaluate("--ckpt", gap_run, "--data", write_molecules(file, rows[:3]), "--output", tmp_path / "out") == 0
    assert "model, without F" not in metrics_in(tmp_path / "out")["metrics"]


def test_a_converted_checkpoint(converted, gap_run, tmp_path, capsys):
    assert evaluate("--ckpt", converted) == 2
    assert "give --data FILE" in capsys.readouterr().err
    file = write_molecules(tmp_path / "fluorine.npz", rows_with(9, "test")[:3])
    assert evaluate("--ckpt", converted, "--data", file, "--output", tmp_path / "out") == 0
    assert "baselines: not available" in capsys.readouterr().out
    assert metrics_in(tmp_path / "out")["metrics"].keys() == {"model"}
    assert metrics_in(tmp_path / "out")["training_provenance"] is None


def test_without_the_training_data_there_are_no_baselines(molecules, tmp_path, capsys):
    own = tmp_path / "moved.npz"
    shutil.copy(molecules, own)
    folder = train_once(own, tmp_path / "run")
    own.unlink()
    assert evaluate("--ckpt", folder) == 2
    capsys.readouterr()
    assert evaluate("--ckpt", folder, "--data", molecules, "--output", tmp_path / "out") == 0
    assert "baselines: not available" in capsys.readouterr().out
    assert metrics_in(tmp_path / "out")["metrics"].keys() == {"model"}


def test_predictions_of_structures_are_those_of_the_metrics(gap_run, tmp_path, capsys):
    file = write_molecules(tmp_path / "some.npz", range(200, 220))
    assert evaluate("--ckpt", gap_run, "--data", file, "--output", tmp_path / "out") == 0
    capsys.readouterr()
    assert evaluate("--ckpt", gap_run, "--input", file) == 0
    rows = csv_of(capsys.readouterr().out)
    expected = column(read_rows(tmp_path / "out" / "predictions.csv"), "predicted gap [eV]")
    np.testing.assert_allclose(column(rows, "gap [eV]"), expected, rtol=1e-6)


def test_energies_are_given_with_and_without_the_free_atoms(energy_run, water, tmp_path, capsys):
    assert evaluate("--ckpt", energy_run, "--input", water, "--output", tmp_path / "water.csv") == 0
    rows = read_rows(tmp_path / "water.csv")
    assert [row["name"] for row in rows] == ["water", "frame 1"]
    atoms = atom_references(get_target("U0"))
    difference = column(rows, "U0 total [eV]") - column(rows, "U0 atomisation [eV]")
    np.testing.assert_allclose(difference, [atoms[8] + 2 * atoms[1], 2 * atoms[1]], rtol=1e-7)
    assert evaluate("--ckpt", energy_run, "--input", water, "--output", tmp_path / "folder") == 0
    assert (tmp_path / "folder" / "predictions.csv").read_text() == (tmp_path / "water.csv").read_text()


def test_smiles_come_with_a_warning(gap_run, tmp_path, capsys):
    file = tmp_path / "molecules.smi"
    file.write_text("CCO ethanol\nCC=O\n")
    assert evaluate("--ckpt", gap_run, "--input", file) == 0
    captured = capsys.readouterr()
    assert [(row["name"], row["outside"]) for row in csv_of(captured.out)] == [("ethanol", ""), ("CC=O", "")]
    assert "DFT geometries" in captured.err and len(captured.err.strip().splitlines()) == 1


def test_the_program_itself(gap_run, water, tmp_path):
    """One real process: nothing but the CSV on standard output, so that it can be piped."""
    command = [sys.executable, str(REPOSITORY / "eval.py"), "--ckpt", str(gap_run), "--input", str(water)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0
    size, close = done.stderr.splitlines()
    assert size.startswith("warning: 2 of 2 structures outside of what the model has learned (first: water): 3 atoms")
    assert close.startswith("warning: 1 of 2 structures outside of what the model has learned (first: frame 1): H-H at")
    assert list(csv_of(done.stdout)[0]) == ["name", "gap [eV]", "outside"]
    assert [row["outside"] for row in csv_of(done.stdout)] == ["size", "size, close"]
    assert len(done.stdout.strip().splitlines()) == 3


def unlabelled(folder):
    return write_molecules(folder / "unlabelled.npz", range(4), labels=False)


def bromine(folder):
    (folder / "bromine.xyz").write_text("2\nhydrogen bromide\nH 0 0 0\nBr 0 0 1.4\n")
    return folder / "bromine.xyz"


def cut_checkpoint(folder):
    return lambda run: (folder / "cut.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:-100])


MISTAKES = {
    "no checkpoint": (("--ckpt", "{tmp}/nothing"), "found nothing there"),
    "a folder without one": (("--ckpt", "{tmp}"), "found neither"),
    "a cut checkpoint": (("--ckpt", "{tmp}/cut.safetensors"), "truncated or damaged"),
    "a foreign file": (("--ckpt", "{tmp}/bromine.xyz"), "truncated or damaged"),
    "no --ckpt": (("--split", "test"), "--ckpt"),
    "unknown option": (("--ckpt", "{run}", "--inputs", "x"), "did you mean --input?"),
    "unknown split": (("--ckpt", "{run}", "--split", "tests"), "invalid choice: 'tests'"),
    "unknown mode": (("--ckpt", "{run}", "--mode", "GRAF"), "did you mean 'GRAPH'?"),
    "batch size 0": (("--ckpt", "{run}", "--batch_size", "0"), "expected at least 1"),
    "batch size in words": (("--ckpt", "{run}", "--batch_size", "many"), "expected int"),
    "--input with --data": (("--ckpt", "{run}", "--input", "{tmp}/a.xyz", "--data", "{tmp}/a.npz"), "without --data"),
    "no input": (("--ckpt", "{run}", "--input", "{tmp}/nothing.xyz"), "found nothing there"),
    "no data": (("--ckpt", "{run}", "--data", "{tmp}/nothing.npz"), "found nothing there"),
    "no labels": (("--ckpt", "{run}", "--data", "{tmp}/unlabelled.npz"), "give --input instead"),
    "no split in the file": (("--ckpt", "{run}", "--data", "{tmp}/raw", "--split", "test"), "use --split all"),
    "an unseen element": (("--ckpt", "{run}", "--input", "{tmp}/bromine.xyz"), "hydrogen bromide", "Br", "H, C, N, O"),
    "the run folder as output": (("--ckpt", "{run}", "--output", "{run}"), "choose another name"),
}


@pytest.mark.parametrize("arguments, words", [(row[0], row[1:]) for row in MISTAKES.values()], ids=MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, gap_run, tmp_path, capsys):
    unlabelled(tmp_path), bromine(tmp_path), cut_checkpoint(tmp_path)(gap_run)
    (tmp_path / "raw").mkdir()
    shutil.copy(RAW_FILES[0], tmp_path / "raw")
    before = {path.name for path in tmp_path.iterdir()}
    assert evaluate(*(text.format(tmp=tmp_path, run=gap_run) for text in arguments)) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and captured.out == ""
    for word in words:
        assert word in line
    assert {path.name for path in tmp_path.iterdir()} == before


def test_an_element_without_reference_energy_is_refused(converted, water, tmp_path, capsys):
    checkpoint = checkpoints.load(converted)
    references = np.full(119, np.nan)
    references[[1, 6]] = -1.0
    checkpoint.information["normalizer"] = Normalizer(1.0, 0.0, references=references).to_dict()
    checkpoints.save(tmp_path / "references.safetensors", checkpoint)
    assert evaluate("--ckpt", tmp_path / "references.safetensors", "--input", water) == 2
    assert "water: the model has not learned the element O, only H, C" in capsys.readouterr().err


def test_an_element_without_converted_weights_is_refused(converted, tmp_path, capsys):
    (tmp_path / "hydride.xyz").write_text("2\nhydride\nFm 0 0 0\nH 0 0 2\n")
    assert evaluate("--ckpt", converted, "--input", tmp_path / "hydride.xyz") == 2
    assert "the model has not learned the element Fm, only 99 elements up to Es" in capsys.readouterr().err


def test_rows_without_a_label_are_left_out(gap_run, molecules, tmp_path, capsys):
    with np.load(molecules) as shipped:
        arrays = dict(shipped)
    arrays["gap"][:5] = np.nan
    np.savez(tmp_path / "gaps.npz", **arrays)
    assert evaluate("--ckpt", gap_run, "--data", tmp_path / "gaps.npz", "--output", tmp_path / "out") == 0
    total = len(arrays["gap"])
    assert f"5 of {total} structures have no label" in capsys.readouterr().out
    assert metrics_in(tmp_path / "out")["metrics"]["model"]["count"] == total - 5
    arrays["gap"][:] = np.nan
    np.savez(tmp_path / "gaps.npz", **arrays)
    with pytest.raises(DataError, match="no structure has the label gap"):
        trained = load_trained(gap_run)
        measure(trained, select(trained, str(tmp_path / "gaps.npz"), None, None))
