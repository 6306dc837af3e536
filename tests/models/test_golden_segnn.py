"""SEGNN against its authors' program, through the converter as a user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import on_path

from configs.loading import load_config
from data_tools.labels.statistics import Normalizer
from scripts import convert_weights
from scripts.weights import weight_files
from scripts.weights.weight_check import FLOAT64_TOLERANCE, not_compared, table
from scripts.weights.weight_maps import SOURCES, check_keys, convert
from scripts.weights.weight_source import WeightError

pytestmark = pytest.mark.usefixtures("same_mode")

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG = Path(__file__).parents[2] / "configs" / "segnn" / "qm9.yaml"
FILES = {
    "segnn_small": {"features": "32", "blocks": "2"},
    "segnn_small_nonorm_sum_balanced": {
        "features": "32", "blocks": "2", "subspace": "balanced", "norm": "none", "pooling": "sum",
    },
    "segnn_16_isolated": {"features": "16", "blocks": "2", "cutoff": "1.2"},  # a single atom, and atoms far from others
    "segnn_24_cormorant_balanced": {
        "features": "24", "blocks": "2", "subspace": "balanced", "norm": "batch", "node_features": "cormorant",
        "pooling": "sum",
    },
}  # fmt: skip
NAME = "segnn"
#: messages are in the frame of their edge, and the values behind the pooling belong to graphs
ELSEWHERE = ("message_layer", "message_norm", "post_pool", "embedding_layer.tp")


def settings_of(name, **changes):
    return [(f"model.{key}", value) for key, value in {**FILES[name], **changes}.items()]


@pytest.mark.parametrize(
    ("name", "mode", "path"),
    [
        ("segnn_small", "GRAPH", "kernels"),
        ("segnn_small_nonorm_sum_balanced", "GRAPH", "kernels"),
        ("segnn_16_isolated", "PYNATIVE", "operators"),
        ("segnn_24_cormorant_balanced", "GRAPH", "kernels"),
    ],
)
def test_everything_agrees(name, mode, path):
    """Outputs, forces, features of nodes and parameter gradients, in float64 and float32."""
    file = GOLDEN / f"{name}.npz"
    config = load_config(CONFIG, settings_of(name))
    parameters = convert(NAME, check_keys(NAME, dict(weight_files.read_weights(file))))
    with on_path(path):
        rows = convert_weights.check(file, config, SOURCES[NAME], parameters, Normalizer(1.0, 0.0), (mode,))
    assert all(row.accepted for row in rows), table(rows)
    exact = [row for row in rows if row.bits == 64]
    # some gradients vanish: of a bias before a norm, and of the last one, where the cotangents cancel
    values = [row.value for row in exact if row.kind != "gradients"]
    assert max(values) < 0.01 * FLOAT64_TOLERANCE, table(rows)
    assert {row.kind for row in exact} == {"outputs", "forces", "blocks", "gradients"}
    trained = {parameter for parameter in parameters if "running" not in parameter}
    assert sum(row.kind == "gradients" for row in exact) == len(trained)
    assert not [key for key in not_compared(file, exact) if not any(part in key for part in ELSEWHERE)]


def test_the_weights_say_what_the_configuration_lacks(capsys):
    words = [word for key, value in settings_of("segnn_small", blocks="3", norm="none", task="node")
             for word in ("--set", f"{key}={value}")]  # fmt: skip
    file = str(GOLDEN / "segnn_small_nonorm_sum_balanced.npz")
    command = ["--source", NAME, "--weights", file, "--config", str(CONFIG), *words, "--check", file]
    assert convert_weights.main(command) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    for change in ("subspace=balanced", "task=graph", "blocks=2"):
        assert f"--set model.{change}" in shown
    assert "norm=" not in shown


def test_damaged_weights_are_named():
    state = dict(weight_files.read_weights(GOLDEN / "segnn_small.npz"))
    lost = {key: value for key, value in state.items() if key != "layers.1.update_layer_2.biases"}
    with pytest.raises(WeightError, match=r"1 missing: layers\.1\.update_layer_2\.biases"):
        check_keys(NAME, lost)
    with pytest.raises(WeightError, match="expected the weights of hidden irreps"):
        check_keys(NAME, {**state, "layers.0.message_layer_2.tp.weight": np.zeros(1540)})
    with pytest.raises(WeightError, match=r"gilmer's need\s+bonds"):
        check_keys(NAME, {**state, "embedding_layer.tp.weight": np.zeros(11 * 27)})
    with pytest.raises(WeightError, match="use --source segnn"):
        check_keys("pyg-schnet", state)
