"""A set of models made of ensembles: what ships is made again from ensembles of its own members."""

from __future__ import annotations

import json
import shutil

import pytest

from experiment.ensemble_folder import FINISHED, EnsembleRecord, member_folder, write_record
from experiment.model_set import SHIPPED, read_set
from experiment.trained import load_trained
from scripts import ship_models
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")
QM9 = read_set(SHIPPED["qm9"])


def ensemble(folder, models):
    """The folder of an ensemble with the members of a property that ships."""
    write_record(folder, EnsembleRecord(load_trained(models.files[0]).config, len(models.files)))
    for seed, file in enumerate(models.files):
        run = member_folder(folder, seed)
        run.mkdir()
        shutil.copy(file, run / checkpoints.BEST)
        (run / FINISHED).write_text("{}")
    return folder


def ship(*arguments):
    return ship_models.main([str(argument) for argument in arguments])


def property_of(name):
    return next(one for one in QM9.properties if one.name == name)


def test_the_same_members_give_the_same_set(tmp_path, capsys):
    gap = property_of("gap")
    shared = [one.name for one in QM9.properties if one.files == gap.files]  # by the same networks
    for name in ("gap", "U0"):
        ensemble(tmp_path / "runs" / f"own_{name}", property_of(name))
    (member_folder(tmp_path / "runs" / "own_U0", 1) / FINISHED).unlink()
    output = tmp_path / "set"
    assert ship("--runs", tmp_path / "runs", "--output", output) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: own_U0 is left out: ") and captured.err.count("\n") == len(gap.files) - 1
    assert f"gap: test MAE {gap.about['test']['mae']:.4g} eV" in captured.out
    assert [one.name for one in read_set(output).properties] == shared
    found = next(one for one in read_set(output).properties if one.name == "gap")
    assert found.calibration.record() == pytest.approx(gap.calibration.record(), rel=1e-3)
    assert found.about["test"]["mae_of_members"] == pytest.approx(gap.about["test"]["mae_of_members"], rel=1e-4)
    for one, other in zip(found.files, gap.files, strict=True):
        first, second = checkpoints.load(one), checkpoints.load(other)
        assert {name: array.tobytes() for name, array in first.model.items()} == {
            name: array.tobytes() for name, array in second.model.items()
        }
        assert first.information == second.information
    record = json.loads((output / "models.json").read_text())
    assert (record["together"] is None) == (len(shared) == 1) and str(tmp_path) not in json.dumps(record)
    (output / "old_0.safetensors").write_text("")
    record["properties"]["old"] = record["properties"]["gap"] | {"members": ["old_0.safetensors", gap.files[0].name]}
    (output / "models.json").write_text(json.dumps(record))
    assert ship("--runs", tmp_path / "runs" / "own_gap", "--output", output) == 0
    names = {"models.json", *(file.name for file in gap.files)}
    assert {path.name for path in output.iterdir()} == names and len(read_set(output).properties) == len(shared)


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ship_models, "calibrated", lambda *_: pytest.fail("predicted"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    half = ensemble(tmp_path / "half" / "gap", property_of("gap"))
    for seed in range(len(property_of("gap").files)):
        (member_folder(half, seed) / FINISHED).unlink()
    for runs, output, message in (
        ("empty", "set", "expected ensembles of scripts/ensemble.py, found none"),
        ("missing", "set", "expected ensembles of scripts/ensemble.py, found none"),
        ("half", "set", "expected an ensemble with two finished members"),
        ("half", "other", "expected a new or empty folder, or a set of models"),
        ("half", "other/notes.txt", "expected a folder, found a file"),
    ):
        assert ship("--runs", tmp_path / runs, "--output", tmp_path / output) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "set").exists() and (tmp_path / "other" / "notes.txt").read_text() == "mine"
    with pytest.raises(SystemExit) as stopped:
        ship("--help")
    assert stopped.value.code == 0
