"""A finished run survives: every mistake, a stop while compiling, a full disk, a second program, another task."""

from __future__ import annotations

import json
import resource
import shutil
import signal

import numpy as np
import pytest
from cloud_jobs import error_of
from test_train_mistakes import COMMANDS, VALUES
from tiny_runs import MINI, changes, files_and_a_run, light, options, small_run, write_molecules

import eval as evaluation
import train
from configs.rules import MAY_CHANGE
from configs.schema import MODEL_CONFIGS, Config
from data_tools.labels.splits import load_split, save_split
from experiment.evaluation.evaluator import Evaluator
from experiment.run_folder import FolderError, RunFolder
from training import checkpoint as checkpoints
from training import loop

pytestmark = pytest.mark.usefixtures("same_mode")

CONFIG = ("--config", str(MINI))


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files, and a finished run that no test may change."""
    return files_and_a_run(tmp_path_factory.mktemp("files"))


@pytest.fixture
def run(files):
    """The finished run; after the test it is the same to the last byte."""
    before = contents(files / "run")
    assert {"best.safetensors", "last.safetensors", "metrics.json", "config.yaml", "train.log"} <= before.keys()
    yield files / "run"
    assert contents(files / "run") == before


def into(run, *extra, **settings):
    """The command line of a run into that folder."""
    return options(run.parent / "molecules.npz", run, *CONFIG, *extra, **light(**settings))


@pytest.mark.parametrize("arguments", [row[0] for row in COMMANDS.values()], ids=COMMANDS)
def test_mistakes_on_the_command_line(arguments, files, run, capsys):
    target = () if "--resume" in arguments else ("--output", str(run), "--overwrite")
    assert train.main([*(text.format(files=files) for text in arguments), *target]) == 2
    error_of(capsys)


@pytest.mark.parametrize("settings", VALUES)
def test_mistakes_in_the_configuration(settings, files, run, capsys):
    assert train.main([*into(run, "--overwrite"), *changes(settings.format(files=files))]) == 2
    error_of(capsys)


RULES = {
    "training.energy_weight=0.5": "training.energy_weight 0.5",
    "training.force_weight=1 target.name=energy run.amp_level=O2": "run.amp_level O2",
    "run.amp_level=O2 run.dtype=float64": "run.dtype float64",
    "schedule.warmup_steps=1 schedule.warmup_epochs=1": "give one of the two",
    "schedule.min_lr=1": "schedule.min_lr 1",
    "data.train_file=sample": "belong together",
    "data.train_file=sample data.test_file=sample data.split=two_files": "give one of the two",
    "data.split=two_files": "data.train_file and data.test_file",
    "data.split_file=x.npz": "data.split=file",
    "training.force_weight=1": "forces",
    "training.batch_size=16 run.device_target=GPU": "device GPU",
}


@pytest.mark.parametrize("settings, words", RULES.items(), ids=RULES)
def test_keys_that_contradict_each_other(settings, words, run, capsys):
    assert train.main([*into(run, "--overwrite"), *changes(settings)]) == 2
    assert words in error_of(capsys)


def test_a_used_folder_is_refused(run, capsys):
    assert train.main(into(run)) == 2
    line = error_of(capsys)
    assert f"--resume {run}" in line and "--overwrite" in line and "--output" in line
    assert train.main(into(run, "--overwrite", "false")) == 2
    assert train.main(into(run, "--overwrite", "perhaps")) == 2
    assert "--overwrite perhaps" in capsys.readouterr().err.splitlines()[-1]


def test_another_file_of_that_name_is_not_replaced(files, tmp_path, capsys):
    """Not only what this program has written: a configuration or a table of somebody else is kept too."""
    for name in ("config.yaml", "metrics.csv", "predictions.csv"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        assert train.main(into(files / "run", run__output=folder)) == 2
        assert name in error_of(capsys) and (folder / name).read_text() == "mine"


def test_a_stop_while_compiling(run, monkeypatch, capsys):
    def interrupt(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Trainer, "compile", interrupt)
    assert train.main(into(run, "--overwrite")) == 128 + signal.SIGINT
    assert train.main(["--resume", str(run), "--epochs", "2"]) == 128 + signal.SIGINT
    capsys.readouterr()


@pytest.mark.parametrize("size", [0, 1000, 4000])
def test_a_full_disk(size, run, monkeypatch, capsys):
    """No file may become larger than so many bytes: not the configuration, not the split, not the checkpoint."""
    begin = RunFolder.begin

    def begin_on_a_full_disk(folder, write):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            begin(folder, write)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(RunFolder, "begin", begin_on_a_full_disk)
    monkeypatch.setattr(loop.Trainer, "compile", lambda _: (1, 0.0))  # nothing will be trained
    monkeypatch.setattr(Evaluator, "compile", lambda _: None)
    fresh = run.parent / "fresh"
    for target in (run, fresh):
        assert train.main(into(run, "--overwrite", run__output=target)) == 2
        line = error_of(capsys)
        assert "free space" in line or "cannot write" in line
    assert not fresh.exists()


def test_two_at_once(run, files, tmp_path, capsys):
    with RunFolder(run, resume=True):
        for arguments in (["--resume", str(run), "--epochs", "2"], into(run, "--overwrite")):
            assert train.main(arguments) == 2
            assert "another process is writing into this run folder" in error_of(capsys)
    folder = tmp_path / "new"
    with RunFolder(folder):
        assert train.main(into(run, run__output=folder)) == 2
        assert "another process is writing" in error_of(capsys)
    assert not folder.exists()


def test_a_folder_of_its_own_for_each_run_without_a_name(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [word for word in into(files / "run") if not word.startswith("run.output")]
    arguments = [word for n, word in enumerate(arguments) if arguments[n : n + 2] != ["--set", "--set"]]
    assert train.main(arguments) == 0
    name = "schnet_qm9_mini_gap_seed0"
    first = contents(tmp_path / "runs" / name)
    assert train.main([*arguments, "--lr", "1e-3"]) == 0
    assert f"this one goes to runs/{name}-2" in capsys.readouterr().out
    assert contents(tmp_path / "runs" / name) == first
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {name, f"{name}-2"}
    with RunFolder(tmp_path / "runs" / name, numbered=True) as third:
        assert third.path.name == f"{name}-3"
    assert not third.path.exists()


def test_what_is_overwritten_is_replaced_whole(files, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(files / "run", folder)
    for name in ("last-1.safetensors", "forces.png"):
        (folder / name).write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")
    assert train.main(into(folder.parent / "run", "--overwrite", data__file=files / "molecules.npz", run__seed=1)) == 0
    there = contents(folder)
    assert there.keys() == contents(files / "run").keys() | {"notes.txt"} and there["notes.txt"] == b"mine"
    assert there["train.log"].count(b"finished in") == 1
    assert there["best.safetensors"] != contents(files / "run")["best.safetensors"]


def test_a_run_that_was_killed_before_its_first_epoch_goes_on(files, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(loop.Trainer, "make_step", lambda *_: 1 / 0)
        train.main(into(files / "run", run__output=tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "split.npz", "train.log", "last.safetensors"
    }  # fmt: skip
    capsys.readouterr()
    assert evaluation.main(["--ckpt", str(tmp_path / "run")]) == 2
    assert "has not saved any step yet" in error_of(capsys)
    assert train.main(into(files / "run", run__output=tmp_path / "b", training__pretrained=tmp_path / "run")) == 2
    assert "has not saved any step yet" in error_of(capsys)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    first, second = (checkpoints.load(files / "run" / "last.safetensors"), checkpoints.load(tmp_path / "run"))
    assert all(np.array_equal(first.model[name], second.model[name]) for name in first.model)
    assert not (tmp_path / "run" / "last-1.safetensors").exists()
    capsys.readouterr()


# --- what a resumed run may be ----------------------------------------------------------------------------------------

REFUSED = {
    "target.name=homo": "target.name 'homo' instead of 'gap'",
    "target.readout=sum": "target.readout 'sum' instead of 'mean'",
    "target.standardisation=none": "target.standardisation 'none'",
    "run.seed=1": "run.seed 1 instead of 0",
    "run.dtype=float64": "run.dtype 'float64'",
    "data.split_seed=1": "data.split_seed 1",
    "data.train_size=31": "data.train_size 31 instead of 32",
    "data.valid_size=11": "data.valid_size 11",
    "data.test_size=13": "data.test_size 13",
    "data.split=labelled data.valid_size=0 data.test_size=0": "data.split 'labelled' instead of 'random'",
    "data.file=sample data.split=sample data.train_size=0 data.valid_size=0 data.test_size=0": "data.split 'sample'",
    "model.features=16": "model.features 16 instead of 8",
    "model.cutoff=4": "model.cutoff 4.0 instead of 5.0",
    "model.name=dimenetpp": "model.name 'dimenetpp' instead of 'schnet'",
    "training.loss=mae": "training.loss 'mae' instead of 'mse'",
    "optimizer.beta2=0.99": "optimizer.beta2",
    "optimizer.amsgrad=true": "optimizer.amsgrad True",
    "optimizer.ema_decay=0.9": "optimizer.ema_decay 0.9",
}


@pytest.mark.parametrize("settings, words", REFUSED.items(), ids=REFUSED)
def test_another_run_is_refused_by_name(settings, words, run, capsys):
    assert train.main(["--resume", str(run), "--epochs", "2", *changes(settings)]) == 2
    assert words in error_of(capsys)


def test_every_key_that_may_change_exists():
    import dataclasses  # noqa: PLC0415
    from typing import get_type_hints  # noqa: PLC0415

    sections = get_type_hints(Config)
    keys = {
        f"{name}.{item.name}" for name, section in sections.items() if name != "model"
        for item in dataclasses.fields(section)
    }  # fmt: skip
    assert keys >= MAY_CHANGE and not any(name.startswith("model.") for name in MAY_CHANGE) and len(MODEL_CONFIGS) > 1


def test_a_copy_cannot_be_asked_for(run, tmp_path, capsys):
    for extra in (["--output", str(tmp_path / "b")], ["--set", f"run.output={tmp_path / 'b'}"], ["--overwrite"]):
        assert train.main(["--resume", str(run), *extra]) == 2
        assert "leave out --output" in error_of(capsys)
    assert not (tmp_path / "b").exists()


def test_data_that_grew_are_refused(files, tmp_path, capsys):
    """Divided anew, some that were trained on would be tested on."""
    data, folder = tmp_path / "molecules.npz", tmp_path / "run"
    write_molecules(data, range(60))
    small_run(data, folder, data__train_size=0, data__valid_size=0, data__test_size=0)
    before = contents(folder)
    write_molecules(data, range(70))
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 2
    assert "the data are not those of the run" in error_of(capsys)
    assert evaluation.main(["--ckpt", str(folder)]) == 2
    line = error_of(capsys)
    assert "the data are not those of the run" in line and "--split all" in line
    assert evaluation.main(["--ckpt", str(folder), "--split", "all"]) == 0
    assert "warning: the data are not those of the run" in capsys.readouterr().out
    assert contents(folder) == before


def test_data_that_moved_are_the_same(files, tmp_path, capsys):
    shutil.copy(files / "molecules.npz", tmp_path / "elsewhere.npz")
    shutil.copytree(files / "run", tmp_path / "run")
    changes = ["--set", f"data.file={tmp_path / 'elsewhere.npz'}", "--lr", "1e-3", "--set", "run.log_every=1"]
    assert train.main(["--resume", str(tmp_path / "run"), "--epochs", "2", *changes]) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert content["counts"]["train"] == 32
    capsys.readouterr()


def test_the_stored_split_is_compared(files, tmp_path, capsys):
    """Also of a run whose checkpoints do not hold its digest yet."""
    folder = tmp_path / "run"
    shutil.copytree(files / "run", folder)
    checkpoint = checkpoints.load(folder / "last.safetensors")
    assert checkpoint.information.pop("split_sha256")
    checkpoints.save(folder / "last.safetensors", checkpoint)
    split = load_split(folder / "split.npz")
    object.__setattr__(split, "train", split.train[::-1])
    save_split(split, folder / "split.npz")
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 2
    assert "the split is not that of the run" in error_of(capsys)


def test_a_file_is_no_run_folder(files, capsys):
    with pytest.raises(FolderError, match="found a file"), RunFolder(files / "molecules.npz"):
        pass
