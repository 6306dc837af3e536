"""A property of a user's own, from a csv of SMILES to predictions: training, evaluation and files carry its unit."""

from __future__ import annotations

import json
from pathlib import Path

import ase.build
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen
from tiny_runs import REPOSITORY, light, options, read_rows

import eval as program
import train
from experiment.training_options import configure, parse_arguments
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")

OWN = REPOSITORY / "configs" / "schnet" / "own.yaml"
UNIT, COLUMN = "log10($c_o/c_w)", "log P [log10($c_o/c_w)]"
SMILES = """
CCO C CC CCC CCCC CO CCCO CC(C)O CC(=O)O CC(C)=O CCN CCCN c1ccccc1 Cc1ccccc1 Oc1ccccc1 CC#N C=C C=CC C#C CC=O COC C1CC1
C1CCC1 C1CCCC1 CC(C)C OCCO NCCN OCC(O)CO NCC(O)=O c1ccncc1 c1ccoc1 c1cc[nH]c1 NC=O CNC=O CC(N)=O OC=O
""".split()


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """Forty rows: Crippen's logP, one empty field and three molecules that have no geometry."""
    path = tmp_path_factory.mktemp("mine") / "mine.csv"
    values = [f"{smiles},{Crippen.MolLogP(Chem.MolFromSmiles(smiles)):.4f}" for smiles in SMILES]
    path.write_text("\n".join(["smiles,log P", *values, "CCCCC,", "C(C,1", "C.C,1", "C*,1"]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(mine, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "own"
    changed = {"target__name": "log P", "target__unit": UNIT, "data__valid_size": 0, "data__test_size": 0,
               "data__train_size": 0, "run__plots": "true", "training__epochs": 2}  # fmt: skip
    assert train.main(options(mine, folder, "--config", str(OWN), **light(**changed))) == 0
    return folder


def test_everything_of_a_run_carries_name_and_unit(run):
    log = (run / "train.log").read_text()
    for words in (
        "1 of 40 structures have no log P and are left out", "left out: 'C(C' in line 39",
        "3 of 39 molecules have no geometry and are left out", "split random-30-3-3-seed0",
        f"target {COLUMN}, label definition none, readout mean, standardisation per_molecule",
        f"MAE/{UNIT}", f"test, {COLUMN}",
    ):  # fmt: skip
        assert words in log, words
    metrics = json.loads((run / "metrics.json").read_text())
    task = checkpoints.load(run / "best.safetensors").information["task"]
    assert metrics["task"] == task and (task["name"], task["unit"]) == ("log P", UNIT)
    assert [set(row) for row in read_rows(run / "predictions.csv")] == [
        {"id", "name", f"label {COLUMN}", f"predicted {COLUMN}", f"error {COLUMN}"}
    ] * 3
    assert all((run / name).stat().st_size for name in ("predictions.png", "loss_curve.png", "tsne.png"))


def test_a_run_is_measured_again_and_predicts(run, mine, capsys, tmp_path):
    assert program.main(["--ckpt", str(run), "--output", str(tmp_path / "test")]) == 0
    assert COLUMN in capsys.readouterr().out
    again = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert again["metrics"]["model"] == json.loads((run / "metrics.json").read_text())["test"]["best model"]
    assert program.main(["--ckpt", str(run), "--smiles", "CCO"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"name,{COLUMN},outside\nCCO,") and "DFT" not in shown.err
    assert program.main(["--ckpt", str(run), "--input", str(mine), "--output", str(tmp_path / "all.csv")]) == 2
    rows = read_rows(tmp_path / "all.csv")
    assert len(rows) == 40 and [bool(row[COLUMN]) for row in rows] == [True] * 37 + [False] * 3
    predicted = {row["name"]: float(row[f"predicted {COLUMN}"]) for row in read_rows(run / "predictions.csv")}
    found = {row["name"]: float(row[COLUMN]) for row in rows[:37]}
    for name, value in predicted.items():
        np.testing.assert_allclose(value, found[name], rtol=1e-5, atol=1e-5)
    capsys.readouterr()
    assert program.main(["--ckpt", str(run), "--data", str(mine), "--keys", "log P=smiles"]) == 2
    assert "expected a number as smiles in line 2, found 'CCO'" in capsys.readouterr().err


def test_a_run_goes_on_as_what_it_was(run, capsys):
    assert train.main(["--resume", str(run), "--epochs", "3", "--set", "run.plots=false"]) == 0
    assert json.loads((run / "metrics.json").read_text())["task"]["unit"] == UNIT
    for change, words in (
        ("target.unit=eV", "unit 'eV' instead of"),
        ("target.readout=sum", "'sum' instead of 'mean'"),
    ):
        assert train.main(["--resume", str(run), "--set", change]) == 2
        assert words in capsys.readouterr().err


def test_mistakes_are_told_before_anything_is_made(mine, tmp_path, capsys):
    index = tmp_path / "index.csv"
    index.write_text("position,split\n0,train\n1,valid\n2,test\n")
    for changed, words in (
        ({"target__name": "logP"}, "did you mean 'log P'?"),
        ({"target__name": "gap", "target__unit": "Hartree"}, "built-in one in eV"),
        ({"target__name": "log P", "data__file": "sample"}, "unknown target 'log P'"),
        ({"target__name": "log P", "target__readout": "dipole"}, "allowed are mean, sum"),
        ({"target__name": "log P", "data__split": "file", "data__split_file": index}, "3 of 39 molecules have no geo"),
    ):  # fmt: skip
        assert train.main(options(mine, tmp_path / "run", "--config", str(OWN), **changed)) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(error) == 1 and words in error[0], error
    assert sorted(tmp_path.iterdir()) == [index]


def test_a_name_stays_in_the_folder_of_runs():
    options = parse_arguments(["--config", str(OWN), "--target", "../../a b/c"])
    assert configure(options)[1].path.parts[:-1] == ("runs",)


def test_crystals(tmp_path, capsys):
    """A property of cells, from a table of files."""
    rows = []
    for number in range(20):
        name = f"{number}.cif"
        ase.build.bulk("NaCl", "rocksalt", 5.0 + 0.05 * number).write(tmp_path / name)
        rows.append(f"{name},{5 - 0.05 * number}")
    (tmp_path / "gaps.csv").write_text("\n".join(["file,band_gap", *rows]) + "\n")
    changed = {"target__name": "band_gap", "target__unit": "eV", "data__train_size": 12, "data__valid_size": 4,
               "data__test_size": 4}  # fmt: skip
    table = tmp_path / "gaps.csv"
    assert train.main(options(table, tmp_path / "run", "--config", str(OWN), **light(**changed))) == 0
    capsys.readouterr()
    assert program.main(["--ckpt", str(tmp_path / "run"), "--input", str(table)]) == 0
    assert capsys.readouterr().out.startswith("name,band_gap [eV],outside\n0.cif,")
