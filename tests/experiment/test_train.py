"""train.py as a user runs it: what a run leaves behind, what every profile and target does, and resuming."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from tiny_runs import MINI, PROFILES, REPOSITORY, column, light, options, read_rows, small_run

import train
from configs.loading import load_config
from configs.writing import config_to_yaml
from data_tools.formats.readers import read_table
from data_tools.labels.statistics import element_counts, regression_metrics
from data_tools.labels.targets import TARGETS, label_values
from experiment import provenance
from experiment import report as run_report
from experiment.data import resolve_task
from experiment.evaluation.scalar import Scalar
from experiment.resolve import with_names
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")

FILES = {
    "config.yaml", "train.log", "metrics.csv", "times.csv", "metrics.json", "split.npz", "best.safetensors",
    "last.safetensors", "last-1.safetensors",
    "predictions.csv", "predictions.png", "loss_curve.png", "tsne.png",
}  # fmt: skip

EXPECTED_LINES = (
    "14081 parameters", "elements in training: H, C, N, O", "padding waste: ", "epoch 1/2  step 1/4  loss ",
    "  train MAE ", " eV  lr ", " s/step  ", " structures/s  ETA 0:", "  valid MAE ", "mean of the training labels",
    "linear in element counts", "compilations: 1 training",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(molecules, tmp_path_factory):
    """A run of two epochs with the moving average, a clipped gradient and pictures."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    extra = {"optimizer__ema_decay": 0.9, "optimizer__clip_norm": 1.0, "schedule__name": "one_cycle"}
    arguments = options(
        molecules, folder, "--config", str(MINI), run__plots="true", training__epochs=2, run__log_every=1, **extra
    )
    assert train.main(arguments) == 0
    return folder


def test_the_run_folder_holds_every_file(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    for picture in finished.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_log_the_metrics_and_the_checkpoints_say_where_they_come_from(finished, molecules):
    content = json.loads((finished / "metrics.json").read_text())["provenance"]
    words = shlex.split(content["command"])
    assert words[:4] == ["python", "train.py", "--config", str(MINI)] and f"run.output={finished}" in words
    assert content["version"] == provenance.VERSION and content["commit"] == provenance.commit_of(REPOSITORY)
    assert content["data"] == read_table(molecules).source
    assert content["resumed"] == [] and content["pretrained"] is None
    started = datetime.fromisoformat(content["started"])
    assert started.tzinfo is not None and 0 < (datetime.now().astimezone() - started).total_seconds() < 3600
    for name in (checkpoints.BEST, checkpoints.LAST, "last-1.safetensors"):
        assert checkpoints.load(finished / name).information["provenance"] == content
    first, second = (line.partition("  ")[2] for line in (finished / "train.log").read_text().splitlines()[:2])
    commit = content["commit"] or "unknown"
    assert first == f"GeoSpore {content['version']}  commit {commit}  started {content['started']}"
    assert second == f"command: {content['command']}"


def test_the_curves_stand_beside_baselines_of_the_validation_molecules(finished, molecules, monkeypatch, tmp_path):
    """As a run draws them: the MAE of the baselines on the molecules whose MAE the curve shows."""
    drawn = {}
    monkeypatch.setattr(Scalar, "draw", lambda self, folder, subject, *_: drawn.update(subject=subject))
    keep = lambda rows, quantities, path, best, baselines, about: drawn.update(baselines=baselines)  # noqa: E731
    monkeypatch.setattr(run_report, "plot_loss_curve", keep)
    folder = small_run(molecules, tmp_path / "run", run__plots="true")
    gap = read_table(molecules).of_structures["gap"]
    with np.load(folder / "split.npz") as split:
        training, valid, test = split["train"], split["valid"], split["test"]
    (of_energies,) = drawn["baselines"].values()
    assert drawn["baselines"].keys() == {"mae"}
    assert of_energies["mean of the training labels"] == pytest.approx(np.abs(gap[valid] - gap[training].mean()).mean())
    assert of_energies["mean of the training labels"] != pytest.approx(np.abs(gap[test] - gap[training].mean()).mean())
    assert of_energies.keys() == {"mean of the training labels", "linear in element counts"}
    subject = drawn["subject"]
    assert (subject.run, subject.model, subject.split) == ("run", "schnet", "random-32-12-12-seed0")
    content = json.loads((folder / "metrics.json").read_text())
    assert (subject.parameters, subject.best_epoch, subject.counts) == (
        content["parameters"], content["best_epoch"], content["counts"]
    )  # fmt: skip


def test_files_follow_the_umask(finished):
    umask = os.umask(0)
    os.umask(umask)
    assert {oct(path.stat().st_mode & 0o777) for path in finished.iterdir()} == {oct(0o666 & ~umask)}


def test_the_stored_configuration_is_complete(finished):
    config = load_config(finished / "config.yaml")
    assert (finished / "config.yaml").read_text() == config_to_yaml(config)
    assert (config.training.epochs, config.optimizer.ema_decay) == (2, 0.9)


def test_the_log_says_what_people_expect(finished):
    text = (finished / "train.log").read_text()
    for words in EXPECTED_LINES:
        assert words in text


def test_the_metrics_of_an_epoch(finished):
    rows = read_rows(finished / "metrics.csv")
    assert list(rows[0]) == [
        "epoch", "step", "train_loss", "train_mae", "lr", "valid_mae"
    ]  # fmt: skip
    times = read_rows(finished / "times.csv")
    assert list(times[0]) == ["epoch", "seconds", "structures_per_second"] and len(times) == len(rows)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["2", "4"]
    content = json.loads((finished / "metrics.json").read_text())
    assert content["valid_mae"] == column(rows, "valid_mae").min()
    assert content["best_epoch"] == column(rows, "valid_mae").argmin() + 1
    assert content["counts"] == {"train": 32, "valid": 12, "test": 12}
    assert content["compilations"] == {"training": 1, "evaluation": 1}


def test_predictions_agree_with_the_metrics_and_the_data(finished, molecules):
    rows = read_rows(finished / "predictions.csv")
    predicted, labels = column(rows, "predicted gap [eV]"), column(rows, "label gap [eV]")
    metrics = json.loads((finished / "metrics.json").read_text())["test"]
    again = regression_metrics(predicted, labels)
    assert metrics["best model"] == pytest.approx(again, rel=1e-5)
    table = read_table(molecules)
    truth = dict(zip(table.ids.tolist(), table.of_structures["gap"], strict=True))
    np.testing.assert_allclose(labels, [truth[int(row["id"])] for row in rows], rtol=1e-7)


def test_the_baselines_are_fitted_on_the_training_molecules(finished, molecules):
    table = read_table(molecules)
    with np.load(finished / "split.npz") as split:
        training, test = split["train"], split["test"]
    metrics = json.loads((finished / "metrics.json").read_text())["test"]
    gap = table.of_structures["gap"]
    mean = np.abs(gap[test] - gap[training].mean()).mean()
    assert metrics["mean of the training labels"]["mae"] == pytest.approx(mean, rel=1e-9)
    counts = element_counts(table.numbers, table.n_atoms)[:, [1, 6, 7, 8, 9]]
    design = np.column_stack((np.ones(len(counts)), counts))
    fit = np.linalg.lstsq(design[training], gap[training], rcond=None)[0]
    linear = np.abs(gap[test] - design[test] @ fit).mean()
    # the program takes the solution of smallest norm without the intercept, which differs for unseen elements only
    assert metrics["linear in element counts"]["mae"] == pytest.approx(linear, rel=1e-6)


def test_the_best_checkpoint_is_enough_to_evaluate(finished):
    best, last = (checkpoints.load(finished / name) for name in (checkpoints.BEST, checkpoints.LAST))
    assert set(best.information) >= {"config", "task", "normalizer", "elements", "source", "split", "versions"}
    assert best.ema and not best.optimizer and last.optimizer
    # kept while the model held the moving average
    for name, value in best.ema.items():
        np.testing.assert_array_equal(value, best.model[name])
    assert any(np.any(last.ema[name] != last.model[name]) for name in last.ema)


def test_a_warm_up_of_one_step(molecules, tmp_path):
    """One cycle in two steps, of which one rises: its peak is the first step."""
    settings = {"schedule__name": "one_cycle", "schedule__warmup_fraction": 0.5}
    folder = small_run(molecules, tmp_path / "run", **settings)
    assert read_rows(folder / "metrics.csv")[0]["step"] == "2"


#: like crystals.yaml but for an option that tests/models/test_recipe_versions.py holds, and each takes a gigabyte here;
#: results/system/configs.md has a training of each
CONTROLS = {"crystals_v1", "crystals_v2", "crystals_v3"}


@pytest.mark.parametrize(
    "profile",
    [path for path in PROFILES if path.stem not in CONTROLS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_profile_trains_two_steps(profile, molecules, tmp_path):
    config = load_config(profile)
    changes: dict = {"training__loss_scale": "none"}  # a dynamic one begins by skipping steps
    changes |= {"data__file": "sample", "data__split": "two_files"} if config.data.train_file else {}
    if config.target.name == "force_constants":
        changes |= {"data__file": "crystals", "data__valid_size": 2, "data__test_size": 2}
    if config.model.name == "graph_attention_transformer" and config.target.name == "force_constants":
        changes |= {"model__irreps": "16x0e+8x1o+4x2e", "model__irreps_head": "8x0e+4x1o+2x2e"}
        changes |= {"model__irreps_mlp": "16x0e+8x1o+4x2e", "model__irreps_features": "16x0e"}
    changes |= {"model__blocks": 1}  # whole it compiles for minutes: results/system/configs.md has each at its own size
    if config.model.name == "dimenetpp":
        changes |= {"model__features": 8, "model__output_features": 8, "model__output_layers": 1}
        changes |= {"model__layers_before_skip": 1, "model__layers_after_skip": 1}
    arguments = options(molecules, tmp_path / "run", "--config", str(profile), **changes)
    if config.target.name == "force_constants":  # gigabytes, which MindSpore keeps as long as a process lives
        command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
        assert subprocess.run(command, capture_output=True, timeout=900, check=False).returncode == 0
    else:
        assert train.main(arguments) == 0
    (row,) = read_rows(tmp_path / "run" / "metrics.csv")
    assert row["step"] == "2"
    assert np.isfinite(float(row["train_loss"]))


COMBINED = ("readout", "reference", "standardisation")


def resolved(target):
    """The task of a target and the combination of readout, reference and standardisation that stands for ``auto``."""
    config = load_config(MINI, [("target.name", target), *((f"target.{key}", "auto") for key in COMBINED)])
    task = resolve_task(config)
    named = with_names(config, task).target
    return task, tuple(getattr(named, key) for key in COMBINED)


SCALAR = [name for name, target in TARGETS.items() if not target.is_of_potential]
#: one target for each combination of defaults
TRAINED = {resolved(name)[1]: name for name in SCALAR}


@pytest.mark.parametrize("target", TRAINED.values())
def test_every_default_combination_trains(target, molecules, tmp_path):
    folder = small_run(molecules, tmp_path / "run", "--target", target)
    content = json.loads((folder / "metrics.json").read_text())
    assert (content["task"]["name"], content["task"]["unit"]) == (target, TARGETS[target].unit)
    assert tuple(content["task"][key] for key in COMBINED) == resolved(target)[1]
    assert np.isfinite(content["test"]["best model"]["mae"])


@pytest.mark.parametrize("target", SCALAR)
def test_every_target_has_a_combination_that_trains(target, molecules):
    """And a label for every molecule."""
    task, combination = resolved(target)
    assert task.target == TARGETS[target] and combination in TRAINED and "auto" not in combination
    assert np.isfinite(label_values(read_table(molecules), task.target, task.reference)).all()


def test_the_modes_give_the_same_losses(molecules, tmp_path):
    runs = [small_run(molecules, tmp_path / mode, "--mode", mode, training__epochs=2) for mode in ("GRAPH", "PYNATIVE")]
    graph, eager = (read_rows(folder / "metrics.csv") for folder in runs)
    for name in ("train_loss", "train_mae", "valid_mae"):
        np.testing.assert_allclose(column(graph, name), column(eager, name), rtol=2e-5)


def test_double_precision(molecules, tmp_path):
    folder = small_run(molecules, tmp_path / "run", "--dtype", "float64")
    weights = checkpoints.load(folder).model
    assert {array.dtype for array in weights.values()} == {np.dtype("float64")}
    # nothing on the way rounds them to float32
    assert np.any(weights["network.value.hidden.weight"] != weights["network.value.hidden.weight"].astype(np.float32))


def without_times(rows):
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


@pytest.mark.parametrize("schedule", ["exponential", "step"])
def test_schedules_reach_the_optimiser(schedule, molecules, tmp_path):
    settings = {"schedule__name": schedule, "schedule__decay_steps": 2, "schedule__decay_rate": 0.5}
    folder = small_run(molecules, tmp_path / "run", training__epochs=2, training__loss="huber", **settings)
    lr = column(read_rows(folder / "metrics.csv"), "lr")
    expected = {"exponential": [0.5**0.5, 0.5**1.5], "step": [1.0, 0.5]}[schedule]
    np.testing.assert_allclose(lr, 1e-4 * np.array(expected), rtol=1e-12)


def test_no_improvement_lowers_the_rate_and_stops_early(molecules, tmp_path):
    # a rate too small to change a float32 weight: no epoch after the first is better
    frozen = {"optimizer__lr": 1e-30, "schedule__name": "plateau", "schedule__patience": 1, "training__early_stop": 3}
    folder = small_run(molecules, tmp_path / "run", training__epochs=9, **frozen)
    rows = read_rows(folder / "metrics.csv")
    np.testing.assert_allclose(column(rows, "lr"), 1e-30 * np.array([1, 1, 0.5, 0.25]), rtol=1e-12)
    assert len(set(column(rows, "valid_mae"))) == 1
    assert "early stop" in (folder / "train.log").read_text()
    assert json.loads((folder / "metrics.json").read_text())["best_epoch"] == 1


def test_pretrained_weights_are_where_a_run_starts(molecules, tmp_path):
    first = small_run(molecules, tmp_path / "first")
    frozen = {"optimizer__lr": 1e-30, "run__seed": 5, "training__pretrained": first}
    second = small_run(molecules, tmp_path / "second", **frozen)
    start, end = (checkpoints.load(folder).weights for folder in (first, second))
    for name in start:
        np.testing.assert_array_equal(start[name], end[name])
    weights = json.loads((second / "metrics.json").read_text())["provenance"]["pretrained"]
    digest = hashlib.sha256((first / checkpoints.BEST).read_bytes()).hexdigest()
    assert weights == {"file": str(first / checkpoints.BEST), "sha256": digest}
    assert f"pretrained: {first / checkpoints.BEST} sha256 {digest}" in (second / "train.log").read_text()


def test_a_loss_that_explodes_stops_the_run(molecules, tmp_path, capsys):
    arguments = options(molecules, tmp_path / "run", "--config", str(MINI), **light(optimizer__lr=1e30))
    assert train.main(arguments) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "lower the learning rate" in line


def test_the_program_itself(molecules, tmp_path):
    """One real process: exit code, plain lines without a progress bar, nothing on standard error."""
    arguments = options(molecules, tmp_path / "run", "--config", str(MINI), **light())
    command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "everything is in" in done.stdout.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
