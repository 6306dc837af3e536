"""An ensemble as a user makes it: trained, gone on with, measured, asked; and what does not belong together."""

from __future__ import annotations

import csv
import io
import json
import shutil

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from tiny_runs import MINI, REPOSITORY, SMALL, changed_copy, column, light, read_rows, write_molecules

import eval as program
from experiment.ensemble_folder import RECORD, member_folder
from experiment.trained import load_calculator
from experiment.uncertainty import PERCENTILE
from physics.several_potentials import mean_of
from scripts import ensemble
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")
ETHANOL = REPOSITORY / "data_tools" / "samples" / "ethanol_schnet.safetensors"
SPREAD, PREDICTED = "spread gap [eV]", "predicted gap [eV]"


def words(molecules, folder, *more, seeds=2, **settings):
    changed = {key.replace("__", "."): value for key, value in light(**settings).items()}
    pairs = {"data.file": molecules, **SMALL, **changed}
    options = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return ["--config", str(MINI), "--seeds", str(seeds), "--output", str(folder), *options, *more]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.npz", range(80))


@pytest.fixture(scope="module")
def folder(molecules, tmp_path_factory):
    """Two members, trained by processes of their own."""
    place = tmp_path_factory.mktemp("runs") / "ensemble"
    assert ensemble.main(words(molecules, place)) == 0
    return place


@pytest.fixture
def nothing_is_trained(monkeypatch):
    monkeypatch.setattr(ensemble, "train_member", lambda plan, seed: pytest.fail(f"seed {seed} is trained"))


def evaluate(*arguments):
    return program.main([str(argument) for argument in arguments])


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def cells(text):
    """The rows of a table of Markdown by their first cells."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line[:1] == "|"]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_finished_members_are_left_alone_and_interrupted_ones_go_on(molecules, folder, monkeypatch, capsys):
    before = files_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "train_member", lambda *_: pytest.fail("trained again"))
        assert ensemble.main(words(molecules, folder)) == 0
    kept = {path: at for path, at in before.items() if path.name != RECORD}
    assert {path: at for path, at in files_of(folder).items() if path in kept} == kept
    rows = cells(capsys.readouterr().out)
    at = rows["run"].index("test MAE gap [eV]")
    measured = [json.loads((folder / f"seed{k}" / "metrics.json").read_text()) for k in range(2)]
    errors = [one["test"]["best model"]["mae"] for one in measured]
    assert [float(rows[f"seed{k}"][at]) for k in range(2)] == pytest.approx(errors, rel=1e-4)
    assert float(rows["mean"][at]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(rows["standard deviation"][at]) == pytest.approx(np.std(errors, ddof=1), rel=1e-3)

    (folder / "seed1" / "metrics.json").unlink()  # ended before its report
    assert ensemble.main(words(molecules, folder)) == 0
    text = capsys.readouterr().out
    assert "seed0: finished already" in text and "seed1: goes on" in text and "train loss" not in text
    after = json.loads((folder / "seed1" / "metrics.json").read_text())
    assert after["test"] == measured[1]["test"] and after["provenance"]["resumed"]
    assert files_of(folder / "seed0") == {path: at for path, at in before.items() if path.parent.name == "seed0"}


def test_the_mean_is_that_of_the_members_and_the_spread_is_theirs(folder, tmp_path, capsys):
    test, valid = tmp_path / "test", tmp_path / "valid"
    assert evaluate("--ckpt", folder, "--output", test) == 0
    text = capsys.readouterr().out
    assert evaluate("--ckpt", folder / "seed0", folder / "seed1", "--split", "valid", "--output", valid) == 0
    assert "fitted on these structures themselves" in capsys.readouterr().out
    rows = read_rows(test / "predictions.csv")
    members = [read_rows(folder / f"seed{seed}" / "predictions.csv") for seed in range(2)]  # as trainings left them
    assert all([row["id"] for row in each] == [row["id"] for row in rows] for each in members)
    values = np.stack([column(each, PREDICTED) for each in members])
    np.testing.assert_allclose(column(rows, PREDICTED), values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(column(rows, SPREAD), np.std(values, axis=0, ddof=1), rtol=1e-4)
    content = json.loads((test / "metrics.json").read_text())
    numbers, usual = content["uncertainty"], column(read_rows(valid / "predictions.csv"), SPREAD)
    assert numbers["threshold"] == pytest.approx(np.percentile(usual, PERCENTILE), rel=1e-4)
    expected = ["yes" if spread > numbers["threshold"] else "no" for spread in column(rows, SPREAD)]
    assert [row["uncertain"] for row in rows] == expected and numbers["uncertain"] == expected.count("yes")
    assert list(content["metrics"])[:3] == ["mean of 2 members", "seed0", "seed1"]
    error = np.abs(column(rows, "error gap [eV]")).mean()
    assert content["metrics"]["mean of 2 members"]["mae"] == pytest.approx(error, rel=1e-5)
    assert numbers["intervals"].keys() == {"as_it_is", "scaled", "with_floor"}  # 12 are too few for the other
    assert f"times {numbers['scale']:.3g}" in text and "rank correlation" in text
    files = {"metrics.json", "predictions.csv", "error_against_spread.png"}
    assert {path.name for path in test.iterdir()} == files
    assert [one["name"] for one in content["members"]] == ["seed0", "seed1"]


def test_structures_have_both_columns_and_all_members_must_know_their_elements(folder, tmp_path, capsys):
    def without_nitrogen(information):
        information["elements"] = [z for z in information["elements"] if z != 7]

    other = changed_copy(tmp_path / "other.safetensors", folder / "seed1", without_nitrogen)
    capsys.readouterr()
    assert evaluate("--ckpt", folder / "seed0", other, "--smiles", "CCO", "N") == 2
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert float(rows[0][SPREAD]) > 0 and rows[0]["uncertain"] in ("yes", "no")
    assert rows[1][SPREAD] == rows[1]["uncertain"] == "" and "has not learned N" in rows[1]["error"]


def test_potentials_have_spreads_of_forces_like_those_of_the_calculator(tmp_path):
    other = changed_copy(tmp_path / "other.safetensors", ETHANOL)
    calculator, frames = mean_of([load_calculator(path) for path in (ETHANOL, other)]), []
    for seed in range(4):
        atoms = ase.build.molecule("CH3CH2OH")
        atoms.rattle(0.03, seed=seed)
        energy, forces = calculator.get_property("energy", atoms), calculator.get_property("forces", atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 0.1 * seed, forces=forces + 0.05)
        frames.append(atoms)
    file, made, measured = (tmp_path / name for name in ("frames.xyz", "made.xyz", "measured"))
    ase.io.write(file, frames)
    assert evaluate("--ckpt", ETHANOL, other, "--input", file, "--output", made) == 0
    found, spreads = ase.io.read(made, ":")[-1], calculator.results
    assert found.get_potential_energy() == pytest.approx(energy, abs=1e-3)
    assert spreads["energy_std"] > 0 and found.info["energy_std"] == pytest.approx(spreads["energy_std"], rel=1e-2)
    np.testing.assert_allclose(found.get_forces(), forces, atol=2e-3)
    np.testing.assert_allclose(found.arrays["forces_std"], spreads["forces_std"], atol=2e-3)

    assert evaluate("--ckpt", ETHANOL, other, "--data", file, "--output", measured) == 0
    content = json.loads((measured / "metrics.json").read_text())
    assert content["force_metrics"]["mean of 2 members"]["mae"] == pytest.approx(0.05, rel=1e-2)
    numbers = content["force_uncertainty"]
    every = np.concatenate([frame.arrays["forces_std"] for frame in ase.io.read(made, ":")])
    assert numbers["count"] == every.size == 4 * 9 * 3
    assert numbers["mean_spread"] == pytest.approx(every.mean(), rel=1e-3)
    assert numbers["intervals"]["as_it_is"]["coverage_95"] == pytest.approx(np.mean(1.96 * every >= 0.05), abs=0.02)
    words = [row["uncertain"] for row in read_rows(measured / "predictions.csv")]
    assert words == [frame.info["uncertain"] for frame in ase.io.read(made, ":")] and set(words) <= {"yes", "no"}


def test_models_that_do_not_belong_together_are_refused(folder, tmp_path, capsys):
    def other_readout(information):
        information["task"] |= {"readout": "sum"}

    summed = changed_copy(tmp_path / "summed.safetensors", folder / "seed1", other_readout)
    shutil.copy(folder / "seed0" / checkpoints.BEST, tmp_path / "again.safetensors")
    for path, expected in (
        (ETHANOL, "target energy instead of gap"),
        (summed, "readout sum instead of mean"),
        (tmp_path / "again.safetensors", f"the weights of {folder / 'seed0'} again"),
        (tmp_path / "none", "found nothing there"),
    ):
        assert evaluate("--ckpt", folder / "seed0", path, "--smiles", "C") == 2
        said = capsys.readouterr()
        assert expected in said.err and said.err.count("\n") == 1 and not said.out
    elsewhere = changed_copy(
        tmp_path / "split.safetensors", folder / "seed1", lambda information: information.update(split_sha256="0" * 64)
    )
    assert evaluate("--ckpt", folder / "seed0", elsewhere) == 2
    assert "some of which others are tested on" in capsys.readouterr().err


def test_an_unfinished_member_is_left_out(folder, tmp_path, capsys):
    place = tmp_path / "part"
    shutil.copytree(folder, place)
    record = json.loads((place / RECORD).read_text())
    (place / RECORD).write_text(json.dumps(record | {"seeds": 3}))
    assert evaluate("--ckpt", place, "--data", tmp_path / "none.xyz") == 2
    assert "seed2 left out: not finished" in capsys.readouterr().err
    (place / "seed1" / "metrics.json").unlink()
    assert evaluate("--ckpt", place) == 2
    assert "two finished members or more, found 1 of 3" in capsys.readouterr().err
    (place / RECORD).write_text("{")
    assert evaluate("--ckpt", place) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_is_trained")
def test_mistakes_change_nothing(molecules, folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before, new = files_of(folder), tmp_path / "new"
    for arguments, expected in (
        (words(molecules, folder, training__epochs=2), "training.epochs 1 instead of 2"),
        (words(molecules, tmp_path / "full"), "found notes.txt"),
        (words(molecules, tmp_path / "file"), "found a file"),
        (words(molecules, folder / "seed0"), "expected a new or empty folder"),
        (words(molecules, new, seeds=1), "expected 2 to"),
        (words(molecules, new, "--seed", "3"), "--seed: expected options that all members share"),
        (words(molecules, new, "--overwrite"), "--overwrite"),
        (words(molecules, new, run__ckpt_file="best"), "run.ckpt_file"),
        (words(molecules, new, run__output="elsewhere"), "run.output"),
        (words(molecules, new, run__run_mode="infer"), "run.run_mode=infer"),
        (words(molecules, new, "--epoch", "3"), "did you mean --epochs"),
    ):
        assert ensemble.main(arguments) == 2
        said = capsys.readouterr()
        assert expected in said.err and said.err.count("\n") == 1 and not said.out
    assert files_of(folder) == before and not new.exists()


def test_a_failure_of_one_is_a_line_and_wrong_input_ends_it(molecules, tmp_path, capsys, monkeypatch):
    place, called = tmp_path / "new", []

    def diverges(plan, seed):
        called.append(seed)
        member_folder(plan.folder, seed).mkdir()
        (member_folder(plan.folder, seed) / "config.yaml").write_text("")
        return (3, "the loss is NaN") if seed == 0 else (-9, "it has said nothing")

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "train_member", diverges)
        assert ensemble.main(words(molecules, place)) == 3
    said = capsys.readouterr().err
    assert called == [0, 1] and "seed0 has failed with exit code 3: the loss is NaN" in said and "seed1" in said
    assert ensemble.main(words(molecules, place, training__epochs=2)) == 2  # it has begun: other settings
    assert "other settings" in capsys.readouterr().err
    missing = tmp_path / "missing"
    assert ensemble.main(words(tmp_path / "no.npz", missing)) == 2  # of a real training
    said = capsys.readouterr().err
    assert said.startswith("error: seed0: ") and "no.npz" in said and said.count("\n") == 1
    assert not missing.exists()
