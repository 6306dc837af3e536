"""The configuration of SEGNN's port to Ascend: each key means one of ours, or is named with the reason why none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from configs import foreign
from configs.loading import ConfigError, load_config
from configs.schema import Config, SegnnConfig

PORT = Path(__file__).parents[1] / "port_qm9.yaml"
FIELDS = {f"{name}.{item.name}" for name, kind in (get_type_hints(Config) | {"model": SegnnConfig}).items()
          for item in dataclasses.fields(kind)}  # fmt: skip


def keys_of(content):
    """``section.key``, or the key alone at the top."""
    for name, values in content.items():
        yield from (f"{name}.{key}" for key in values) if isinstance(values, dict) else [name]


@pytest.fixture
def write(tmp_path):
    """The port's file with changes, ``section.key=value`` or ``key=value``; None takes a key out."""

    def changed(**changes):
        content = yaml.safe_load(PORT.read_text())
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            place = content[section] if section else content
            place[name] = value
            if value is None:
                del place[name]
        (tmp_path / "changed.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "changed.yaml"

    return changed


def test_the_file_loads_as_it_is():
    config = load_config(PORT)
    assert config.model == SegnnConfig(
        "segnn", 128, 3, 2, 3, 2.0, "weight_balanced", "instance", "graph", "mean", "one_hot", 1, "float16"
    )
    assert (config.data.file, config.data.split) == ("./dataset/", "cormorant")
    assert (config.target.name, config.target.readout, config.target.standardisation) == ("alpha", "auto", "mean_mad")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (5e-4, 1e-8)
    schedule, training, run = config.schedule, config.training, config.run
    assert (schedule.name, schedule.decay_rate, schedule.milestones) == ("milestones", 0.1, [0.8, 0.9])
    assert (training.epochs, training.batch_size, training.loss) == (1, 128, "mae")
    assert (run.run_mode, run.ckpt_file, run.log_file) == ("train", "./model_tmp.ckpt", "./loss_tmp.txt")
    assert (run.profiling, run.profiling_step, run.log_every) == (False, 50, 100)


def test_each_of_its_keys_is_in_the_table():
    keys = set(keys_of(yaml.safe_load(PORT.read_text())))
    ours = keys & FIELDS
    assert ours == {"model.task", "model.ncon_dtype", "optimizer.weight_decay"}
    assert keys == ours | foreign.SEGNN_PORT.keys() | foreign.SEGNN_PORT_WITHOUT_MEANING.keys()
    assert {key for key, _ in foreign.SEGNN_PORT.values()} | foreign.SEGNN_PORT_RECIPE.keys() <= FIELDS


def test_its_keys_without_meaning_are_named_with_the_reason(caplog):
    caplog.set_level("INFO", "geospore")
    load_config(PORT)
    assert caplog.messages[0].startswith(f"{PORT}: keys of SEGNN's port")
    told = [f"ignored {key}: {reason}" for key, reason in foreign.SEGNN_PORT_WITHOUT_MEANING.items()]
    assert caplog.messages[1:] == told and "unpickled" in told[1]


@pytest.mark.parametrize(
    "changes, key, value",
    [
        ({"model__pool_type": "add"}, "model.pooling", "sum"),
        ({"model__pool_type": "sum"}, "model.pooling", "sum"),
        ({"model__norm_type": "None"}, "model.norm", "none"),
        ({"model__norm_type": "batch"}, "model.norm", "batch"),
        ({"model__name": "segnn"}, "model.blocks", 3),
        ({"profiling": "True"}, "run.profiling", True),
        ({"run_mode": "infer"}, "run.run_mode", "infer"),
        ({"optimizer__learning_rate": "1e-3"}, "optimizer.lr", 1e-3),
        ({"data__dataset_dir": "sample"}, "data.split", "sample"),
        ({"data__split": "random"}, "data.split", "random"),
        ({"model__hidden_features": 16, "data__radius": 3}, "model.cutoff", 3.0),
        ({"data__target": None}, "target.name", "gap"),
    ],
)
def test_values_have_our_names(changes, key, value, write):
    section, name = key.split(".")
    assert getattr(getattr(load_config(write(**changes)), section), name) == value


@pytest.mark.parametrize(
    "changes, key, value",
    [
        ("training.epochs=7", "training.epochs", 7),
        ("optimizer.num_epoch=7", "training.epochs", 7),
        ("run_mode=infer", "run.run_mode", "infer"),
        ("model.pool_type=add", "model.pooling", "sum"),
        ("training.loss=mse", "training.loss", "mse"),
        ("data.file=sample", "data.split", "sample"),
        ("data.dataset_dir=sample", "data.split", "sample"),
        ("data.file=sample data.split=random", "data.split", "random"),
        ("data.file=molecules.npz", "data.split", "cormorant"),
    ],
)
def test_options_in_our_words_and_in_its_words(changes, key, value):
    pairs = [(name, text) for name, _, text in (pair.partition("=") for pair in changes.split())]
    section, name = key.split(".")
    assert getattr(getattr(load_config(PORT, pairs), section), name) == value


MISTAKES = {
    "an unknown key": ({"model__num_layer": 3}, "model: unknown key 'num_layer'"),
    "an unknown key at the top": ({"run_modus": "train"}, "unknown section 'run_modus'"),
    "one thing twice": ({"model__blocks": 3}, "model: unknown key 'num_layers'"),
    "a mode that is none": ({"run_mode": "test"}, "run.run_mode 'test': expected one of train, infer"),
    "a norm that is none": ({"model__norm_type": "layer"}, "model.norm 'layer'"),
    "a precision that is none": ({"model__ncon_dtype": "float8"}, "model.ncon_dtype 'float8'"),
    "a number that is none": ({"optimizer__learning_rate": "fast"}, "optimizer.lr: expected float, got 'fast'"),
    "a section that is none": ({"data": "./dataset/"}, "section data: expected keys and values"),
    "a list for a word": ({"model__pool_type": ["avg"]}, "model.pooling: expected str"),
    "another model": ({"model__name": "schnet"}, "unknown section 'eval_interval'"),
}


@pytest.mark.parametrize("changes, words", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line(changes, words, write):
    with pytest.raises(ConfigError) as caught:
        load_config(write(**changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)
