"""A job of SEGNN's port to Ascend: its command line, its lines of the log, its files, and then run_mode infer."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from tiny_runs import MINI, SMALL, changes, light, options, read_rows

import train
from configs.loading import load_config
from configs.schema import RunConfig
from data_tools.formats.readers import read_table
from experiment.named_files import check_named_files, copy_best
from experiment.summary import describe_irreps
from training import checkpoint as checkpoints
from training import profiling
from training.profiling import StepProfiler

pytestmark = pytest.mark.usefixtures("same_mode")

PORT = Path(__file__).parents[1] / "port_qm9.yaml"
COMMAND = (  # in the other mode evaluations of a moment are not worth a compilation
    "--mode", "PYNATIVE", "--device_target", "CPU", "--device_id", "0", "--config_file_path", str(PORT),
    "--dtype", "float32",
)  # fmt: skip
#: a network that compiles fast
LITTLE = {
    "model.num_layers": 1, "model.hidden_features": 16, "model.lmax_h": 1, "data.lmax_attr": 1, "run.log_every": 1,
}  # fmt: skip
CHANGES = [word for key, value in {**SMALL, **LITTLE}.items() for word in ("--set", f"{key}={value}")]
LINES = (
    r"Loading data\.\.\.", r"train_set's mean and mad: \d+\.\d+ \d+\.\d+ a0\^3", r"Initializing model\.\.\.",
    r"Determined irrep type: 8x0e\+8x1o", r"profiling the first 1 steps, into .*profile",
    r"profiled 1 steps, analysed in .* s: .*profile",
    r"epoch 1/1  step 2/2  loss \d\.\d+  train MAE \d+\.\d+ a0\^3  lr .* s/step",
    r"eval MAE: \d+\.\d+ a0\^3, time used", r"test MAE: \d+\.\d+ a0\^3, time used", r"finished in ",
)  # fmt: skip


@pytest.fixture(scope="module")
def job(molecules, tmp_path_factory):
    """The folder where the port's file has been trained with, on a folder of data, and then inferred with."""
    folder = tmp_path_factory.mktemp("job")
    mode = ms.get_context("mode")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = [*COMMAND, *CHANGES, "--set", f"data.dataset_dir={molecules}"]
        more = ("--set", "profiling=True", "--set", "profiling_step=1")
        assert train.main([*arguments, *more, "--output", "run"]) == 0
        assert train.main([*arguments, "--set", "run_mode=infer", "--output", "found"]) == 0
    ms.set_context(mode=mode)
    return folder


def words_of(file):
    return [line[21:] for line in file.read_text().splitlines()]


def test_the_log_has_the_lines_of_the_port(job):
    lines = words_of(job / "run" / "train.log")
    places = [next(k for k, line in enumerate(lines) if re.match(pattern, line)) for pattern in LINES]
    assert places == sorted(places)
    assert sum(line.startswith("eval MAE") for line in lines) == 1


def test_mean_and_deviation_are_those_of_the_training_labels(job, molecules):
    with np.load(job / "run" / "split.npz") as split:
        labels = read_table(molecules).of_structures["alpha"][split["train"]]
    mean, deviation = labels.mean(), np.abs(labels - labels.mean()).mean()
    for file in (job / "run" / "train.log", job / "found" / "infer.log"):
        assert f"train_set's mean and mad: {mean:.6g} {deviation:.6g} a0^3" in words_of(file)


def test_the_log_file_holds_both_logs(job):
    both = (job / "loss_tmp.txt").read_text()
    assert both == (job / "run" / "train.log").read_text() + (job / "found" / "infer.log").read_text()


def test_the_checkpoint_is_where_it_was_asked_for(job):
    assert (job / "model_tmp.ckpt").read_bytes() == (job / "run" / checkpoints.BEST).read_bytes()


def test_inference_finds_the_errors_of_the_training(job):
    trained, found = (json.loads((job / name / "metrics.json").read_text()) for name in ("run", "found"))
    assert found["metrics"]["model"]["mae"] == pytest.approx(trained["test"]["best model"]["mae"], rel=1e-5)
    lines = words_of(job / "found" / "infer.log")
    (last,) = [line for line in lines if line.startswith("test MAE")]
    assert last.startswith(f"test MAE: {found['metrics']['model']['mae']:.4f} a0^3, time used: ")
    assert "Determined irrep type: 8x0e+8x1o" in lines
    rows = [read_rows(job / name / "predictions.csv") for name in ("found", "run")]
    assert len(rows[0]) == 12 and [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]


@pytest.mark.parametrize("what", ["converted weights", "data elsewhere"])
def test_inference_finds_the_test_structures_again(what, job, molecules, tmp_path, monkeypatch):
    """Converted weights have no split of their own, so that of the file holds; the same data keep that of the run."""
    monkeypatch.chdir(tmp_path)
    checkpoint, data = checkpoints.load(job / "model_tmp.ckpt"), molecules
    if what == "converted weights":
        del checkpoint.information["source"]
        checkpoint.information["converted_from"] = {}
    else:
        data = shutil.copy(molecules, tmp_path / "elsewhere.npz")
    checkpoints.save("mine.ckpt", checkpoint)
    settings = changes(f"run_mode=infer log_file= model.ckpt_file=mine.ckpt data.dataset_dir={data}")
    assert train.main([*COMMAND, *CHANGES, *settings, "--output", "again"]) == 0
    tables = [json.loads((place / "metrics.json").read_text())["metrics"] for place in (job / "found", Path("again"))]
    errors = [table["model"] for table in tables]
    assert errors[1]["mae"] == pytest.approx(errors[0]["mae"], rel=1e-5) and errors[1]["count"] == 12


def test_the_profile_knows_the_operators(job):
    (kinds,) = (job / "run" / "profile").glob("**/cpu_op_type_info_0.csv")
    assert {"MatMul", "BatchMatMul"} & {row["op_type"] for row in read_rows(kinds)}


@pytest.mark.parametrize("device, warned", [("CPU", True), ("Ascend", False)])
def test_half_precision_on_a_cpu_is_one_warning(device, warned, caplog):
    caplog.set_level(logging.INFO, "geospore")
    describe_irreps(load_config(PORT, [("run.device_target", device)]))
    lines = [line for line in caplog.messages if line.startswith(("Determined", "warning"))]
    assert lines[0] == "Determined irrep type: 36x0e+36x1o+36x2e" and len(lines) == 1 + warned
    assert all("model.ncon_dtype=float16 is meant for Ascend" in line for line in lines[1:])


def test_features_that_need_bonds_are_refused_with_the_reason(tmp_path, molecules, capsys):
    arguments = [*COMMAND, *CHANGES, *changes(f"data.feature_type=gilmer data.dataset_dir={molecules}")]
    assert train.main([*arguments, "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "gilmer" in line and "bonds" in line and not (tmp_path / "run").exists()


MISTAKES = {
    "no checkpoint": (("--set", "model.ckpt_file=none.ckpt"), "none.ckpt: expected a checkpoint file or a run folder"),
    "none named": (("--set", "model.ckpt_file="), "run.run_mode=infer: expected a checkpoint"),
    "another size": (("--set", "model.num_layers=2"), "model.blocks 2 instead of 1"),
    "another target": (("--set", "data.target=homo"), "target.name 'homo' instead of 'alpha'"),
    "the folder of the run": (("--output", "{job}/run", "--overwrite"), "run: a run is there, whose files stay"),
    "a dry run": (("--dry_run",), "--dry_run belongs to run.run_mode=train"),
    "no data": (("--set", "data.dataset_dir=./dataset/"), "dataset: expected a data file, found nothing there"),
    "one of MindSpore": (("--set", "model.ckpt_file=theirs.ckpt"), "found one of MindSpore", "convert_weights.py"),
}


@pytest.mark.parametrize("arguments, words", [(row[0], row[1:]) for row in MISTAKES.values()], ids=MISTAKES)
def test_mistakes_of_an_inference_are_one_line(arguments, words, job, molecules, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "theirs.ckpt" in arguments[-1]:
        ms.save_checkpoint(nn.Dense(2, 2), "theirs.ckpt")
    before = {path: path.read_bytes() for path in (job / "run").iterdir() if path.is_file()}
    start = changes(f"run_mode=infer log_file= model.ckpt_file={job}/model_tmp.ckpt data.dataset_dir={molecules}")
    assert train.main([*COMMAND, *CHANGES, *start, *(text.format(job=job) for text in arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)
    assert {path: path.read_bytes() for path in before} == before


def test_files_that_are_something_else_stay(job, tmp_path, molecules, monkeypatch, capsys):
    """Neither the log nor the copy of the best takes the place of a user's file."""
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("a, b\n1, 2\n")
    Path("theirs.ckpt").write_bytes(b"\x0a\x10weights")
    places = {"log_file": ("mine.csv", "."), "ckpt_file": ("theirs.ckpt", ".", job / "run" / "other.ckpt")}
    for key, names in places.items():
        for name in names:
            arguments = options(molecules, tmp_path / "run", "--config", str(MINI), **light(), **{f"run__{key}": name})
            assert train.main(arguments) == 2
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert line.startswith(f"error: run.{key} {name}: expected")
    assert Path("theirs.ckpt").read_bytes() == b"\x0a\x10weights" and Path("mine.csv").read_text() == "a, b\n1, 2\n"
    assert not Path("run").exists()


def test_files_of_earlier_jobs_are_used_again(job, tmp_path):
    """The log goes on, the checkpoint is replaced."""
    mine = RunConfig(log_file=str(job / "loss_tmp.txt"), ckpt_file=str(tmp_path / "new" / "model.ckpt"))
    for _ in range(2):
        check_named_files(mine)
        copy_best(job / "run", mine)
    assert checkpoints.load(mine.ckpt_file).model and [path.name for path in (tmp_path / "new").iterdir()] == [
        "model.ckpt"
    ]


@pytest.mark.parametrize("what", ["profile", "stop"])
def test_a_profiler_that_does_not_run_is_one_line(what, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("no driver\nwith a long text")

    class Broken:
        stop = fail

    monkeypatch.setattr(profiling.profiler, "profile", fail if what == "profile" else lambda **_: Broken())
    caplog.set_level(logging.INFO, "geospore")
    waited = []
    with StepProfiler(2, tmp_path / "profile", lambda: waited.append(1)) as profiler:
        for _ in range(4):
            profiler.after_step()
    (line,) = [text for text in caplog.messages if text.startswith("warning")]
    assert "does not" in line and "no driver with a long text" in line and "the training goes on" in line
    assert len(waited) == (what == "stop")


def test_a_training_shorter_than_the_profile_stops_it(tmp_path, monkeypatch, caplog):
    stopped = []

    class Short:
        def stop(self):
            stopped.append(1)

    monkeypatch.setattr(profiling.profiler, "profile", lambda **_: Short())
    caplog.set_level(logging.INFO, "geospore")
    with StepProfiler(50, tmp_path / "profile", lambda: None) as profiler:
        profiler.after_step()
    assert stopped == [1] and caplog.messages[-1].startswith("profiled 1 steps, ")
    with StepProfiler(0, tmp_path / "none", lambda: None) as profiler:
        profiler.after_step()
    assert stopped == [1] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("level", ["5", "all"])
def test_a_level_of_graphs_that_is_none(level, tmp_path, capsys):
    assert train.main([*COMMAND, "--save_graphs", level, "--save_graphs_path", str(tmp_path / "graphs")]) == 2
    assert f"--save_graphs {level}: expected one of 0, 1, 2, 3" in capsys.readouterr().err
    assert not (tmp_path / "graphs").exists()


def test_graphs_go_where_they_are_asked_for(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(ms, "set_context", lambda **settings: asked.update(settings))
    monkeypatch.chdir(tmp_path)
    train.keep_graphs(train.parse_arguments(["--save_graphs", "1", "--save_graphs_path", "graphs"]))
    assert asked == {"save_graphs": 1, "save_graphs_path": "graphs"}
    train.keep_graphs(train.parse_arguments(["--save_graphs", "0"]))
    assert asked == {"save_graphs": 1, "save_graphs_path": "graphs"}
