"""Runs that begin with the weights of another run: what is taken, what begins anew, what stays as it is."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, nn
from tiny_runs import MINI, light, options, small_run

import train
from configs.schema import Config, TrainingConfig
from data_tools.labels.tasks import resolve_task
from experiment import transfer
from models.parts import part_of
from training import checkpoint as checkpoints


def test_another_target_takes_the_trunk_freezes_it_and_learns_a_new_head(molecules, tmp_path, capsys):
    """What begins at random is not frozen."""
    first = small_run(molecules, tmp_path / "first")
    wrong = {"training__pretrained": first, "training__freeze": "head", "target__name": "alpha"}
    assert train.main(options(molecules, tmp_path / "no", "--config", str(MINI), **light(**wrong))) == 2
    assert "head begins anew and would stay as random as it begins" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    frozen = {"training__pretrained": first, "training__freeze": "embedding, blocks", "target__name": "alpha"}
    second = small_run(molecules, tmp_path / "second", run__seed=5, training__epochs=2, **frozen)
    start, end = (checkpoints.load(folder).weights for folder in (first, second))
    assert start.keys() == end.keys()
    for name in start:
        same = np.array_equal(start[name], end[name])
        assert same == (part_of(name) != "head") or not start[name].any(), name
    lines = (second / "train.log").read_text()
    assert f"taken from {first}: embedding, block0 (" in lines
    assert "new: head (" in lines and "frozen: embedding, block0 (" in lines
    resumed = tmp_path / "second"
    assert train.main(["--resume", str(resumed), "--epochs", "3"]) == 0
    again = checkpoints.load(checkpoints.find(resumed)).weights
    assert all(np.array_equal(start[name], again[name]) for name in start if part_of(name) != "head")
    assert not all(np.array_equal(end[name], again[name]) for name in start if part_of(name) == "head")


def test_another_unit_needs_a_new_head():
    stored, same, other = (resolve_task("x", unit=unit, own=True) for unit in ("eV", "eV", "K"))
    assert not transfer._fresh_words("", {"task": stored.to_dict()}, same)
    assert transfer._fresh_words("", {"task": stored.to_dict()}, other) == ["head"]


def test_frozen_embeddings_of_new_elements_are_told(monkeypatch, caplog):
    model = nn.Cell()
    model.network, model.head = nn.Cell(), nn.Cell()
    for part, name in ((model.network, "network.embedding"), (model.head, "head.bias")):
        part.weight = Parameter(np.zeros(2, np.float32), name=name)
    config = Config(training=TrainingConfig(pretrained="run", freeze="embedding"))
    for new, told in (([9], True), ([], False)):
        monkeypatch.setattr(transfer, "_take", lambda *_, new=new: ({}, set(), new))
        caplog.clear()
        transfer.begin_from(model, config, resolve_task("gap"), [], False)
        assert ("what the network knows of F stays as random as it began" in caplog.text) == told
        model.network.weight.requires_grad = True


def test_layers_learn_at_rates_of_their_own(molecules, tmp_path):
    """The same target takes the head too; far from it hardly anything moves."""
    first = small_run(molecules, tmp_path / "first")
    settings = {"training__pretrained": first, "optimizer__layer_decay": 1e-3, "optimizer__weight_decay": 0.0}
    second = small_run(molecules, tmp_path / "second", run__seed=5, optimizer__ema_decay=0.0, **settings)
    start, end = (checkpoints.load(folder).weights for folder in (first, second))
    moved: dict[str, float] = {}
    for name in start:
        part = part_of(name)
        moved[part] = max(moved.get(part, 0.0), float(np.abs(start[name] - end[name]).max()))
    assert moved["head"] > 100 * moved["block0"] > 1e4 * moved["embedding"]
    assert "new:" not in (second / "train.log").read_text()
