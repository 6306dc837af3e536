"""Checkpoints of the first format, which version 0.1.0 has written: they predict, and their runs go on, as with it.

The files are those of two runs of two epochs; see tests/golden/README.md for their commands.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import ase
import numpy as np
import pytest
from safetensors import safe_open

import eval as evaluation
import train
from data_tools.formats.md17 import SAMPLE_TEST
from data_tools.graph import DataError
from examples import molecule
from experiment.trained import load_calculator, load_trained
from training import checkpoint as checkpoints
from training.earlier_layout import todays_name

pytestmark = pytest.mark.usefixtures("same_mode")

GOLDEN = Path(__file__).parents[1] / "golden" / "earlier_layout"
#: by model: energies (eV) of the first three test frames after epoch 2, and of the epochs 3 and 4, after which the run
#: ends, training loss, energy and force MAE of validation; all of version 0.1.0
EXPECTED = {
    "schnet": (
        (-4218.8952, -4218.9202, -4218.9339),
        ((0.8858521282672882, 7.552612057990359, 0.9180740543665907),
         (0.7572202384471893, 6.023725991692345, 0.9199127950597967)),
    ),
    "dimenetpp": (
        (-4211.7097, -4211.486, -4211.8532),
        ((46.37423658370972, 4.3339418906087985, 1.0049280835204033),
         (2.7362746000289917, 4.871168637647315, 1.060835931201943)),
    ),
}  # fmt: skip


def arrays_in(file: Path) -> dict[str, dict[str, np.ndarray]]:
    """The groups of a checkpoint as they stand in the file."""
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in checkpoints.GROUPS}
    with safe_open(file, framework="numpy") as opened:
        for key in opened.keys():
            group, _, name = key.partition("/")
            groups[group][name] = opened.get_tensor(key)
    return groups


@pytest.mark.parametrize("model", EXPECTED)
def test_nothing_is_lost(model):
    """Every number of the file is there under its new name; what was added is 0."""
    before, after = arrays_in(GOLDEN / model / checkpoints.LAST), checkpoints.load(GOLDEN / model / checkpoints.LAST)
    for group, arrays in before.items():
        found = dict(getattr(after, group))
        assert len(found) == len(arrays) > 0
        for name, values in arrays.items():
            new = found.pop(todays_name(name))
            if new.shape != values.shape:
                assert name.endswith(("embedding", "embedding.elements")) and not new[len(values) :].any()
            assert np.array_equal(new[: len(values)] if new.ndim else new, values)


@pytest.mark.parametrize("model", EXPECTED)
def test_predictions_are_those_of_then(model, tmp_path):
    words = ["--ckpt", str(GOLDEN / model / checkpoints.LAST), "--data", str(SAMPLE_TEST), "--output", str(tmp_path)]
    assert evaluation.main(words) == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = [float(row["predicted energy [eV]"]) for _, row in zip(range(3), csv.DictReader(file), strict=False)]
    np.testing.assert_allclose(rows, EXPECTED[model][0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("model", EXPECTED)
def test_runs_go_on(model, tmp_path):
    """Moments and moving average are those of the weights that they belonged to."""
    shutil.copytree(GOLDEN / model, tmp_path / "run")
    assert train.main(["--resume", str(tmp_path / "run"), "--set", "training.epochs=4"]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[-2:]
    found = [[float(row[key]) for key in ("train_loss", "valid_mae", "valid_force_mae")] for row in rows]
    np.testing.assert_allclose(found, EXPECTED[model][1], rtol=1e-3)
    again = checkpoints.load(tmp_path / "run" / checkpoints.LAST)
    assert all(name.startswith(("network.", "head.")) for name in again.model)


def test_elements_beyond_the_table_of_then_are_refused(tmp_path, monkeypatch):
    """Converted weights claimed more of them than the original has rows for."""
    file = GOLDEN / "schnet" / checkpoints.LAST
    information = checkpoints.load(file).information | {"elements": list(range(1, 119))}
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.EARLIER)
    checkpoints.save(tmp_path / "all.safetensors", checkpoints.Checkpoint(**arrays_in(file), information=information))
    monkeypatch.undo()
    calculator = load_calculator(tmp_path / "all.safetensors")
    assert set(calculator.elements) <= set(range(1, 100)) <= set(load_trained(tmp_path / "all.safetensors").elements)
    with pytest.raises(DataError, match="has not learned Fm"):
        calculator.get_potential_energy(ase.Atoms("FmH", [[0, 0, 0], [0, 0, 2.0]]))


def test_the_shipped_potential_was_written_anew_with_the_same_numbers(tmp_path, monkeypatch):
    """Under its earlier names and with its earlier rows it gives the same energies, bit for bit."""
    shipped, old = checkpoints.load(molecule.SHIPPED), {today: name for name, today in names_of_then().items()}
    assert shipped.model.keys() == old.keys()
    then = {old[name]: values[:100] if name.endswith(".table") else values for name, values in shipped.model.items()}
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.EARLIER)
    checkpoints.save(tmp_path / "then.safetensors", checkpoints.Checkpoint(then, information=shipped.information))
    monkeypatch.undo()
    ethanol, energies = molecule.distorted_ethanol(1), []
    for file in (molecule.SHIPPED, tmp_path / "then.safetensors"):
        ethanol.calc = load_calculator(file, "float64")
        energies.append(ethanol.get_potential_energy())
    assert energies[0] == energies[1]


def names_of_then() -> dict[str, str]:
    """Of a SchNet with two interactions: the earlier names to today's."""
    layers = [f"interactions.{k}.{part}" for k in range(2)
              for part in ("filter.hidden", "filter.output", "update_hidden", "update_output")]  # fmt: skip
    parts = [f"{layer}.{kind}" for layer in (*layers, "head_hidden", "head_output") for kind in ("weight", "bias")]
    others = ["embedding", "basis.offsets", "basis.coefficients", *(f"interactions.{k}.input.weight" for k in range(2))]
    return {name: todays_name(name) for name in (*parts, *others)}
