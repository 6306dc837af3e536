"""Whatever is wrong with the input of train.py: one line that helps, exit code 2, and no run folder left behind."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import MINI, REPOSITORY, changes, files_and_a_run, light, options

import train
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")

CONFIG = ("--config", str(MINI))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good and bad files, and one run."""
    return files_and_a_run(tmp_path_factory.mktemp("files"))


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ")
    return line


COMMANDS = {
    "no configuration": ((), "--config FILE"),
    "both": ((*CONFIG, "--resume", "{files}/run"), "either --config FILE"),
    "missing configuration": (("--config", "{files}/nothing.yaml"), "nothing.yaml", "No such file"),
    "broken YAML": (("--config", "{files}/no_yaml.yaml"), "no_yaml.yaml", "readable YAML"),
    "YAML without sections": (("--config", "{files}/list.yaml"), "expected sections"),
    "no text": (("--config", "{files}/binary.yaml"), "readable YAML"),
    "unknown section": (("--config", "{files}/section.yaml"), "did you mean 'optimizer'?"),
    "unknown key": (("--config", "{files}/key.yaml"), "did you mean 'epochs'?"),
    "wrong type": (("--config", "{files}/type.yaml"), "training.epochs", "expected int", "'three'"),
    "unknown option": ((*CONFIG, "--epoch", "3"), "did you mean --epochs?"),
    "option without value": ((*CONFIG, "--epochs"), "--epochs"),
    "unknown mode": ((*CONFIG, "--mode", "GRAF"), "did you mean 'GRAPH'?"),
    "unknown device": ((*CONFIG, "--device_target", "cpu"), "did you mean 'CPU'?"),
    "--set without a value": ((*CONFIG, "--set", "training.epochs"), "expected section.key=value"),
    "--set without a section": ((*CONFIG, "--set", "epochs=3"), "expected section.key=value"),
    "resume nothing": (("--resume", "{files}/nothing"), "expected the folder of a run, found nothing there"),
    "resume a file": (("--resume", "{files}/run/last.safetensors"), "expected the folder of a run, found a file"),
    "resume another folder": (("--resume", "{files}"), "found none with config.yaml"),
    "resume without a checkpoint": (("--resume", "{files}/unfinished"), "last.safetensors", "found nothing"),
    "resume with an average the run has not": (
        ("--resume", "{files}/run", "--epochs", "2", "--set", "optimizer.ema_decay=0.9"),
        "optimizer.ema_decay",
    ),
    "resume another architecture": (("--resume", "{files}/run", "--set", "model.features=16"), "model.features 16"),
}


@pytest.mark.parametrize("arguments, words", [(row[0], row[1:]) for row in COMMANDS.values()], ids=COMMANDS)
def test_mistakes_on_the_command_line(arguments, words, files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (files / "run").iterdir() if path.name != "train.log"}
    assert train.main([text.format(files=files) for text in arguments]) == 2
    line = one_line(capsys)
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())
    assert {path: path.read_bytes() for path in before} == before


VALUES = {
    "target.name=gaps": ("did you mean 'gap'?",),
    "target.readout=mean target.name=U0": ("does not fit target 'U0'", "sum"),
    "target.readout=maen": ("did you mean 'mean'?",),
    "target.standardisation=per_atom target.name=gap": ("standardisation 'per_atom' does not fit", "per_molecule"),
    "target.reference=atomisation": ("does not fit target 'gap'",),
    "model.name=schnett": ("did you mean 'schnet'?",),
    "model.name=[1]": ("expected one of schnet",),
    "model.cutoff=0": ("model.cutoff", "more than 0"),
    "model.blocks=0": ("model.blocks 0", "at least 1"),
    "model.convention=2018": ("did you mean '2017'?",),
    "data.file={files}/nothing.npz": ("nothing.npz", "found nothing there"),
    "data.file={files}": ("found neither",),
    "data.file={files}/cut.npz": ("cut.npz", "cut short"),
    "data.file={files}/list.yaml": ("list.yaml", "expected one of"),
    "data.file={files}/unlabelled.npz": ("no label 'gap'",),
    "data.split=sample data.valid_size=0 data.test_size=0": ("split 'sample' belongs to",),
    "data.split=110k data.valid_size=0 data.test_size=0": ("more than 120,000",),
    "data.split=randon": ("did you mean 'random'?",),
    "data.split=file data.valid_size=0 data.test_size=0": ("index file",),
    "data.train_size=1000": ("train_size", "up to 80", "1000"),
    "data.train_size=-1": ("at least 0",),
    "data.split=labelled data.train_size=1000 data.valid_size=0 data.test_size=0": ("train_size",),
    "data.shapes=0": ("at least 1",),
    "training.epochs=0": ("training.epochs 0", "at least 1"),
    "training.epochs=-3": ("at least 1",),
    "training.epochs=2.5": ("expected int",),
    "training.batch_size=0": ("at least 1",),
    "training.eval_batch_size=0": ("at least 1",),
    "training.loss=rmse": ("did you mean 'mse'?",),
    "training.pretrained={files}/nothing": ("found nothing there",),
    "training.pretrained={files}/cut.safetensors": ("truncated or damaged",),
    "training.pretrained={files}/damaged.safetensors": ("checksum differs",),
    "training.pretrained={files}/run model.features=16": ("expected shape",),
    "training.pretrained={files}/run model.blocks=2": ("do not fit the model",),
    "training.pretrained={files}/run training.freeze=heads": ("training.freeze 'heads'", "embedding, block0, head"),
    "training.pretrained={files}/run training.freeze=embedding,blocks,head": ("left to train",),
    "training.pretrained={files}/run training.fresh=block7": ("training.fresh 'block7'",),
    "training.pretrained={files}/run training.fresh=embedding,blocks,head": ("all is new",),
    f"training.pretrained={REPOSITORY}/data_tools/samples/phonons_1.safetensors": ("weights of a model schnet",),
    "training.freeze=head": ("training.freeze head: expected training.pretrained",),
    "training.fresh=head": ("training.fresh head: expected training.pretrained",),
    "optimizer.layer_decay=1.5": ("at most 1",),
    "optimizer.lr=-1e-4": ("optimizer.lr -0.0001", "more than 0"),
    "optimizer.lr=0": ("more than 0",),
    "optimizer.lr=nan": ("expected float",),
    "optimizer.lr=.nan": ("expected float",),
    "optimizer.lr=fast": ("expected float, got 'fast'",),
    "optimizer.beta2=1.0": ("less than 1",),
    "optimizer.epsilon=1e-50": ("at least 1e-30",),
    "optimizer.ema_decay=1": ("less than 1",),
    "optimizer.clip_norm=-1": ("at least 0",),
    "schedule.name=linear": ("expected one of constant, cosine",),
    "schedule.min_lr=0.1": ("schedule.min_lr 0.1", "at most optimizer.lr, which is 0.0001"),
    "schedule.warmup_lr=0.1": ("schedule.warmup_lr 0.1", "at most optimizer.lr"),
    "schedule.decay_rate=0": ("more than 0",),
    "schedule.decay_steps=0": ("at least 1",),
    "schedule.warmup_fraction=1.5": ("at most 1",),
    "run.seed=-1": ("at least 0",),
    "run.log_every=0": ("at least 1",),
    "run.dtype=float16": ("expected float32 or float64", "run.amp_level=O2"),
    "run.output={files}/molecules.npz": ("molecules.npz",),
}


@pytest.mark.parametrize("settings, words", VALUES.items(), ids=VALUES)
def test_mistakes_in_the_configuration(settings, words, files, capsys, tmp_path):
    arguments = options(files / "molecules.npz", tmp_path / "run", *CONFIG, **light())
    assert train.main([*arguments, *changes(settings.format(files=files))]) == 2
    line = one_line(capsys)
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_coinciding_atoms(capsys, files, tmp_path):
    """Found before the run folder is made."""
    with np.load(files / "molecules.npz") as content:
        arrays = dict(content)
    arrays["R"][1] = arrays["R"][0]
    np.savez(tmp_path / "coincide.npz", **arrays)
    assert train.main(options(tmp_path / "coincide.npz", tmp_path / "run", *CONFIG, **light())) == 2
    assert "atoms 0 and 1" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(tmp_path, files):
    """In a process of its own: what is printed besides our line is seen only there."""
    arguments = options(files / "molecules.npz", tmp_path / "run", *CONFIG, "--device_target", "GPU", **light())
    command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "device GPU:0 cannot be used" in line and "--device_target CPU" in line
    assert not list(tmp_path.iterdir())


def test_the_run_survives_all_these_mistakes(files):
    """The last test of the file: the attempts above resumed it, started from it and wrote into it."""
    assert checkpoints.load(files / "run" / checkpoints.LAST).model
    assert checkpoints.load(files / "run" / checkpoints.BEST).model
