"""DimeNet++ against torch_geometric's, through the converter as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from helpers import on_path

import eval as evaluation
import train
from configs.loading import load_config
from data_tools.labels.statistics import Normalizer
from experiment.data import resolve_task
from experiment.model import build_single
from experiment.resolve import with_names
from scripts import convert_weights
from scripts.weights import export_initial_weights, weight_files
from scripts.weights.weight_check import FLOAT64_TOLERANCE, not_compared, table
from scripts.weights.weight_maps import SOURCES, check_keys, convert
from scripts.weights.weight_source import WeightError
from training.device import set_up
from training.weights import parameters_of

pytestmark = pytest.mark.usefixtures("same_mode")

FILE = Path(__file__).parents[1] / "golden" / "dimenetpp_pyg_small.npz"
CONFIG = Path(__file__).parents[2] / "configs" / "dimenetpp" / "qm9_original.yaml"
SMALL = {
    "features": "32", "blocks": "2", "interaction_features": "16", "basis_features": "4", "output_features": "48",
    "spherical": "4", "radial": "3", "outputs": "2", "reference_bugs": "true",
}  # fmt: skip
NAME = "pyg-dimenetpp"


def words(**changes):
    """The command line that converts the file."""
    settings = [word for key, value in {**SMALL, **changes}.items() for word in ("--set", f"model.{key}={value}")]
    return ["--source", NAME, "--weights", str(FILE), "--config", str(CONFIG), *settings]


@pytest.mark.parametrize(("mode", "path"), [("GRAPH", "operators"), ("PYNATIVE", "kernels")])
def test_everything_agrees(mode, path):
    """Outputs, forces, bases, messages, atom values and parameter gradients, in float64 and float32."""
    config = load_config(CONFIG, [(f"model.{key}", value) for key, value in SMALL.items()])
    source = SOURCES[NAME]
    parameters = convert(NAME, check_keys(NAME, dict(weight_files.read_weights(FILE))))
    with on_path(path):
        rows = convert_weights.check(FILE, config, source, parameters, Normalizer(1.0, 0.0), (mode,))
    assert all(row.accepted for row in rows), table(rows)
    exact = [row for row in rows if row.bits == 64]
    assert max(row.value for row in exact) < 1e-3 * FLOAT64_TOLERANCE, table(rows)
    assert {row.kind for row in exact} == {"outputs", "forces", "blocks", "gradients"}
    assert sum(row.kind == "gradients" for row in exact) == 81 and not not_compared(FILE, exact)


def test_the_weights_say_what_the_configuration_lacks(capsys):
    """The published bases are not the exact ones, so nobody converts into the latter by accident."""
    arguments = [*words(reference_bugs="false", radial="6"), "--check", str(FILE)]
    assert convert_weights.main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    assert "--set model.reference_bugs=True" in shown and "--set model.radial=3" in shown


def test_damaged_weights_are_named():
    state = dict(weight_files.read_weights(FILE))
    lost = {key: value for key, value in state.items() if key != "interaction_blocks.1.lin_up.weight"}
    with pytest.raises(WeightError, match=r"1 missing: interaction_blocks\.1\.lin_up\.weight"):
        check_keys(NAME, lost)
    with pytest.raises(WeightError, match="expected a multiple of 3 columns"):
        check_keys(NAME, {**state, "interaction_blocks.0.lin_sbf1.weight": np.zeros((4, 13))})
    with pytest.raises(WeightError, match="use --source pyg-dimenetpp"):
        check_keys("pyg-schnet", state)
    with pytest.raises(WeightError, match="missing"):
        check_keys(NAME, {**state, "interaction_blocks.999999999.lin.bias": np.zeros(32)})


def test_two_outputs_have_names(tmp_path, capsys):
    """Beside labels (G,) a second column would be broadcast, without a word where G is 2."""
    output = tmp_path / "two.safetensors"
    for changed, expected in (
        ([], "2 outputs, and a checkpoint says what each of them is; add --set target.names=NAME,NAME"),
        (["target.names=gap,homo,lumo"], "expected a name for each output of the weights, of which there are 2"),
        (["target.names=alpha,gap", "target.readout=auto"], "--set target.readout=sum (target gap with readout mean"),
    ):  # fmt: skip
        settings = [word for change in changed for word in ("--set", change)]
        assert convert_weights.main([*words(), *settings, "--output", str(output)]) == 2
        assert expected in capsys.readouterr().err and not output.exists()
    assert train.main(["--config", str(CONFIG), "--set", "model.outputs=2", "--output", str(tmp_path / "run")]) == 2
    assert "model.outputs 2: expected 1" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_converted_weights_of_two_targets_predict(tmp_path):
    """The original's two outputs, each in the column of its name."""
    output, structures, table_file = (tmp_path / name for name in ("two.safetensors", "six.xyz", "six.csv"))
    named = ["--set", "target.names=alpha,gap", "--set", "target.readout=sum", "--set", "run.dtype=float64"]
    assert convert_weights.main([*words(), *named, "--output", str(output)]) == 0
    with np.load(FILE) as golden:
        numbers, positions, graph, expected = (golden[key] for key in ("z", "pos", "batch", "out64"))
    ends = np.flatnonzero(np.diff(graph)) + 1
    molecules = [Atoms(z, r) for z, r in zip(np.split(numbers, ends), np.split(positions, ends), strict=True)]
    ase.io.write(structures, molecules, format="extxyz")
    assert evaluation.main(["--ckpt", str(output), "--input", str(structures), "--output", str(table_file)]) == 0
    with table_file.open() as file:
        rows = list(csv.DictReader(file))
    found = np.array([[float(row["alpha [a0^3]"]), float(row["gap [eV]"])] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_initial_weights_become_the_originals(tmp_path):
    """Those that train.py starts from, under PyG's keys, and nothing is lost on the way back."""
    changes = {**{f"model.{key}": value for key, value in SMALL.items()}, "model.outputs": "1", "run.seed": "7"}
    file = tmp_path / "initial.npz"
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert export_initial_weights.main(["--config", str(CONFIG), *settings, "--output", str(file)]) == 0
    state = check_keys(NAME, weight_files.read_weights(file), file)
    assert state.keys() == weight_files.read_weights(FILE).keys()
    config = load_config(CONFIG, list(changes.items()))
    set_up("GRAPH", "CPU", 0, config.run.seed)
    task = resolve_task(config)
    expected = parameters_of(build_single(with_names(config, task), task))
    found = convert(NAME, state)
    assert found.keys() == expected.keys()
    expected["network.embedding.elements.table"][95:] = 0  # elements that the original does not have
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_only_dimenetpp_has_such_initial_weights(tmp_path, capsys):
    config = CONFIG.parents[1] / "schnet" / "qm9_lite.yaml"
    assert export_initial_weights.main(["--config", str(config), "--output", str(tmp_path / "x.npz")]) == 2
    assert "model.name schnet: expected dimenetpp" in capsys.readouterr().err and not list(tmp_path.iterdir())
