"""What a run stores are numbers and names: no ``auto``, and sizes that make the same split again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import yaml
from layered import Layered
from mindspore import dtype as mstype
from tiny_runs import LIGHT, MINI, PROFILES, light, options, small_run

import train
from configs.loading import config_from_dict, load_config
from configs.schema import ZERO_OUTPUT
from configs.writing import config_to_dict, config_to_yaml
from data_tools.dataset import open_two_files
from data_tools.formats.readers import read_table
from data_tools.graphs.packed import pack
from data_tools.labels.splits import digest
from experiment import model as of_model
from experiment.data import resolve_task
from experiment.resolve import resolve, split_of, with_names
from experiment.trained import load_trained
from scripts.benchmarks.soak_resume import differences
from training import checkpoint as checkpoints
from training import loop

pytestmark = pytest.mark.usefixtures("same_mode")

FILES = {"data.file": "F", "data.split": "random"}
SIZES = {"data.train_size": 32, "data.valid_size": 0.1, "data.test_size": 0}


@pytest.fixture(scope="module")
def packed(molecules):
    return pack(read_table(molecules), 2.0)


@pytest.fixture(scope="module")
def frames():
    return open_two_files("sample", "sample", 2.0)


def values_in(content):
    """Every value of a nested dictionary or list."""
    if isinstance(content, dict):
        return [value for part in content.values() for value in values_in(part)]
    if isinstance(content, list):
        return [value for part in content for value in values_in(part)]
    return [content]


def assert_resolved(content):
    assert not [value for value in values_in(content) if value == "auto"]
    assert all(type(content["data"][f"{part}_size"]) is int for part in ("train", "valid", "test"))
    assert content["data"]["train_size"] > 0


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_profile_becomes_numbers_and_names(profile, packed, frames):
    two = load_config(profile).data.split == "two_files"
    changes = [] if two else [(key, str(value)) for key, value in {**FILES, **SIZES}.items()]
    config, data = load_config(profile, changes), frames if two else packed
    task = resolve_task(config)
    resolved, _, _ = resolve(config, task, data)
    text = config_to_yaml(resolved)
    assert_resolved(yaml.safe_load(text))
    assert "auto" in config_to_yaml(config)
    again = config_from_dict(yaml.safe_load(text))
    assert again == resolved and resolve_task(again) == task
    names = {f"data.{name}" for name in ("train_size", "valid_size", "test_size")}
    same, _, words = resolve(again, task, data, names)
    assert (same, words) == (resolved, "")
    if two:
        assert digest(split_of(config, data.table)) == digest(split_of(resolved, data.table))


@pytest.mark.parametrize(
    "sizes", [("0", "0", "0"), ("0.5", "0.25", "0.25"), ("32", "0", "0.1"), ("0", "12", "0")], ids=" ".join
)
def test_the_sizes_make_the_same_split_again(sizes, packed):
    parts = zip(("train", "valid", "test"), sizes, strict=True)
    changes = [*FILES.items(), *((f"data.{part}_size", size) for part, size in parts)]
    config = load_config(MINI, changes)
    resolved, split, words = resolve(config, resolve_task(config), packed)
    assert (
        digest(split_of(resolved, packed.table)) == digest(split_of(config, packed.table)) == digest(split)
        and not words
    )
    found = resolved.data.train_size, resolved.data.valid_size, resolved.data.test_size
    assert found == (len(split.train), len(split.valid), len(split.test))


def test_a_split_of_fixed_parts_keeps_them(packed):
    labelled = dataclasses.replace(packed.table, split=np.repeat(["train", "valid", "test"], [40, 20, 20]))
    config = load_config(MINI, [("data.file", "F"), ("data.split", "labelled"), ("data.train_size", "0")])
    resolved, _, _ = resolve(config, resolve_task(config), dataclasses.replace(packed, table=labelled))
    assert (resolved.data.train_size, resolved.data.valid_size, resolved.data.test_size) == (40, 0, 0)
    assert digest(split_of(resolved, labelled)) == digest(split_of(config, labelled))


def test_averages_of_the_training_structures(packed):
    """Neighbours of an atom and atoms of a structure, in the place of 0; numbers that are given stay."""
    files = [*FILES.items(), ("model.name", "graph_attention_transformer"), ("model.average_nodes", "0")]
    config = config_from_dict({}, "", [*files, ("model.average_degree", "0"), ("data.train_size", "9")])
    resolved, split, _ = resolve(config, resolve_task(config), packed)
    atoms = packed.table.n_atoms[split.train]
    assert len(atoms) == 9 and resolved.model.average_nodes == atoms.mean() != packed.table.n_atoms.mean()
    assert resolved.model.average_degree == pytest.approx(2 * packed.n_pairs[split.train].sum() / atoms.sum())
    assert resolve(resolved, resolve_task(config), packed)[0] == resolved
    kept, _, _ = resolve(config_from_dict({}, "", files), resolve_task(config), packed)
    assert kept.model.average_degree == config_from_dict({}, "", files).model.average_degree > 15


@pytest.mark.parametrize("target", ["gap", "mu", "U0", "homo", "dipole_moment"])
def test_names_need_no_data(target):
    config = config_from_dict({"model": {"name": "dimenetpp"}, "target": {"name": target}})
    named = with_names(config, resolve_task(config))
    assert "auto" not in values_in({**config_to_dict(named)["target"], **config_to_dict(named)["model"]})
    assert named.model.output_init == ("zeros" if named.target.name in ZERO_OUTPUT else "orthogonal")
    assert named.target.name in ("gap", "mu", "U0", "homo")  # an alias is replaced too
    chosen = dataclasses.replace(config, model=dataclasses.replace(config.model, output_init="zeros"))
    assert with_names(chosen, resolve_task(chosen)).model.output_init == "zeros"


@pytest.fixture(scope="module")
def finished(molecules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    sizes = {f"data__{part}_size": size for part, size in zip(("train", "valid", "test"), ("0", "0.2", 0), strict=True)}
    return small_run(molecules, folder, **sizes)


def test_a_run_stores_numbers_and_names(finished):
    contents = [yaml.safe_load((finished / "config.yaml").read_text())]
    for file in finished.glob("*.safetensors"):
        information = checkpoints.load(file).information
        contents.append(information["config"])
        assert "auto" not in values_in(information)
    assert len(contents) >= 3
    for content in contents:
        assert_resolved(content)
    sizes = contents[0]["data"]
    assert (sizes["train_size"], sizes["valid_size"], sizes["test_size"]) == (56, 16, 8)


def as_it_was(folder, content):
    """The configuration of a run as a version of the program that stored ``auto`` has written it."""
    stored = {**content, "target": {**content["target"], "readout": "auto", "reference": "auto"}}
    stored["target"]["standardisation"] = "auto"
    stored["data"] = {**content["data"], "train_size": 0, "valid_size": 0.2, "test_size": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    for file in folder.glob("*.safetensors"):
        checkpoint = checkpoints.load(file)
        checkpoint.information["config"] = stored
        checkpoints.save(file, checkpoint)


def test_an_earlier_run_that_stored_auto_is_evaluated_and_resumed(molecules, finished, tmp_path):
    folder = tmp_path / "earlier"
    folder.mkdir()
    for file in finished.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    as_it_was(folder, yaml.safe_load((finished / "config.yaml").read_text()))
    trained = load_trained(folder)
    assert trained.config.target == load_config(finished / "config.yaml").target
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 0
    assert_resolved(yaml.safe_load((folder / "config.yaml").read_text()))
    whole = small_run(molecules, tmp_path / "whole", training__epochs=2, data__train_size="0", data__valid_size="0.2",
                      data__test_size=0)  # fmt: skip
    assert not differences(whole, folder)


def test_a_run_goes_on_with_the_words_it_began_with(finished, tmp_path):
    """Options that say ``auto`` and 0 again, for a stored configuration that holds their values."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in finished.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    words = [f"{key}={LIGHT[key]}" for key in ("target.readout", "target.standardisation")]
    words += ["data.train_size=0", "data.valid_size=0.2", "data.test_size=0"]
    arguments = [part for word in words for part in ("--set", word)]
    assert train.main(["--resume", str(folder), "--epochs", "2", *arguments]) == 0


def test_other_sizes_are_another_run(finished, capsys):
    assert train.main(["--resume", str(finished), "--epochs", "3", "--set", "data.train_size=32"]) == 2
    assert "data.train_size 32 instead of 56" in capsys.readouterr().err


def layered_run(molecules, folder, monkeypatch, *extra, **settings):
    """A run of the network with dropout and a running mean in the place of SchNet."""
    monkeypatch.setattr(of_model, "build_model", lambda *_, **__: Layered(rate=0.3, dtype=mstype.float32))
    arguments = options(molecules, folder, "--config", str(MINI), *extra, **light(**settings))
    return train.main(arguments)


def test_a_resumed_run_draws_the_numbers_of_one_that_was_not(molecules, tmp_path, monkeypatch):
    """Dropout, running means, a loss scale and a moving average: bit for bit, after an interruption within an epoch."""
    settings = {
        "training__epochs": 3, "optimizer__ema_decay": 0.9, "run__save_minutes": 0.0, "training__loss_scale": "dynamic",
        "run__seed": 5, "optimizer__decay_on": "matrices", "optimizer__lr": 1e-2,
    }  # fmt: skip
    assert layered_run(molecules, tmp_path / "whole", monkeypatch, **settings) == 0
    saved = loop.save

    def interrupt(path, checkpoint, **named):
        saved(path, checkpoint, **named)
        if checkpoint.information["progress"]["step"] == 3 and path.name == checkpoints.LAST:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", interrupt)
        assert layered_run(molecules, tmp_path / "cut", monkeypatch, **settings) == 130
    assert train.main(["--resume", str(tmp_path / "cut")]) == 0
    assert not differences(tmp_path / "whole", tmp_path / "cut")
    weights = checkpoints.load(tmp_path / "whole").model
    assert np.abs(weights["centre.value"]).min() > 0 and not [name for name in weights if name.endswith("_of_step")]
    rows = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert rows["compilations"] == {"training": 1, "evaluation": 1}  # three epochs and back: nothing compiled again


def test_another_seed_draws_other_numbers(molecules, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(loop, "set_keys", lambda layers, seed, step, rank: keys.append((len(layers), seed, step, rank)))
    assert layered_run(molecules, tmp_path / "run", monkeypatch, run__seed=7) == 0
    assert keys == [(1, 7, 1, 0), (1, 7, 2, 0)]
