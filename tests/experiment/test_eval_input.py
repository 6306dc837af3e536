"""eval.py --input and --smiles with the shipped model of ethanol: what is left out is named, and nothing is lost."""

from __future__ import annotations

import csv
import io
import os

import ase.io
import numpy as np
import pytest

import eval as program
from data_tools.formats.readers import read_table
from examples.molecule import SHIPPED

pytestmark = pytest.mark.usefixtures("same_mode")

ENERGY = "energy [eV]"
SMILES = "CCO ethanol\nC(C\nOCC other way\nCCO.CCO dimer\nCCBr\nCCO[\n"


def evaluate(*arguments) -> int:
    return program.main([str(argument) for argument in ("--ckpt", SHIPPED, *arguments)])


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def energies(rows: list[dict[str, str]]) -> list[float | None]:
    return [float(row[ENERGY]) if row[ENERGY] else None for row in rows]


@pytest.fixture
def molecules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "molecules.smi"
    path.write_text(SMILES)
    return path


def test_bad_smiles_are_named_and_the_others_are_predicted(molecules, capsys):
    """A row a record in the file; the geometries beside it give the same energies."""
    assert evaluate("--input", molecules.name, "--output", "new/predictions.csv") == 2
    captured = capsys.readouterr()
    found = errors(captured.err)
    expected = [("'C(C' in line 2", "RDKit"), ("'CCO.CCO' in line 4", "2 fragments"),
                ("'CCBr' in line 5", "not learned Br, only H, C, O"), ("'CCO[' in line 6", "RDKit")]  # fmt: skip
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith("error: molecules.smi: ") and all(word in line for word in words)
    with open("new/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["ethanol", "C(C", "other way", "dimer", "CCBr", "CCO["]
    values = energies(rows)
    assert [value is None for value in values] == [False, True, False, True, True, True]
    assert [row["error"].partition(":")[0] for row in rows] == ["", "line 2", "", "line 4", "line 5", "line 6"]
    assert sorted(os.listdir("new")) == ["predictions.csv", "predictions.geometries.xyz"]
    assert "new/predictions.geometries.xyz" in captured.out and "4 records are left out" in captured.out
    frames = ase.io.read("new/predictions.geometries.xyz", ":")
    assert [atoms.info["name"] for atoms in frames] == ["ethanol", "other way"]
    assert read_table("new/predictions.geometries.xyz").names == ("ethanol", "other way")
    assert evaluate("--input", "new/predictions.geometries.xyz") == 0
    again = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    np.testing.assert_allclose(energies(again), [values[0], values[2]], atol=1e-3)


def test_smiles_of_the_command_line(molecules, capsys):
    """Several at once, several times; and a table gives the same."""
    assert evaluate("--smiles", "CCO", "OCC", "--smiles", "CCO again") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows] == ["CCO", "OCC", "again"] and "error" not in rows[0]
    assert rows[0][ENERGY] == rows[2][ENERGY]
    molecules.with_name("table.csv").write_text("id;Smiles\n1;CCO\n2;OCC\n3;CCO\n")
    assert evaluate("--input", "table.csv", "--output", "folder.2/") == 0
    with open("folder.2/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == ["1", "2", "3"]
    assert [row[ENERGY] for row in table] == [row[ENERGY] for row in rows]


def test_frames_hold_what_can_be_predicted(molecules, capsys):
    assert evaluate("--smiles", "CCO", "CC.O", "--output", "frames.xyz") == 2
    (line,) = errors(capsys.readouterr().err)
    assert "'CC.O' in --smiles 2" in line
    frames = ase.io.read("frames.xyz", ":")
    assert [atoms.info["name"] for atoms in frames] == ["CCO"] and np.isfinite(frames[0].get_forces()).all()
    assert sorted(os.listdir()) == ["frames.xyz", "molecules.smi"]


@pytest.mark.parametrize("text", ["C(C\n", "CC.O dimer\nCCBr\nnot_smiles\n"])
def test_where_nothing_can_be_predicted_nothing_is_written(text, molecules, capsys):
    molecules.write_text(text)
    (molecules.parent / "predictions.csv").write_text("of yesterday\n")
    assert evaluate("--input", molecules.name, "--output", "predictions.csv") == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: molecules.smi: ") and "in line 1" in line and captured.out == ""
    assert (molecules.parent / "predictions.csv").read_text() == "of yesterday\n"
    assert len(os.listdir()) == 2


WITH_INPUT = ("--input", "molecules.smi")
PLACES = {
    "text": ((*WITH_INPUT, "--output", "out.txt"), ".csv file", ".xyz file", "folder", "suffix .txt"),
    "table with another suffix": ((*WITH_INPUT, "--output", "new/out.tsv"), "suffix .tsv"),
    "of SMILES": (("--smiles", "CCO", "--output", "out.json"), "suffix .json"),
    "metrics in a file": (("--output", "metrics.json"), "metrics.json and predictions.csv", "suffix .json"),
    "metrics in a table": (("--output", "new/metrics.csv"), "suffix .csv"),
    "below a file": ((*WITH_INPUT, "--output", "molecules.smi/out.csv"), "found a file"),
    "metrics below a file": (("--output", "used/new"), "found a file"),
    "a file without a suffix": ((*WITH_INPUT, "--output", "used"), "found a file"),
    "a folder with the name of a file": ((*WITH_INPUT, "--output", "full"), "predictions.csv is a folder"),
    "the input": (("--input", "table.csv", "--output", "table.csv"), "is the file of --input"),
    "the input by another path": (("--input", "table.csv", "--output", "full/../table.csv"), "is the file of --input"),
    "a run folder": ((*WITH_INPUT, "--output", "run"), "run folder"),
    "a file of a run": ((*WITH_INPUT, "--output", "run/metrics.csv"), "run folder"),
    "geometries of somebody": (("--smiles", "CCO", "--output", "x.csv"), "x.geometries.xyz, which is another file"),
    "two inputs": ((*WITH_INPUT, "--smiles", "CCO"), "without --input"),
    "a split": (("--smiles", "CCO", "--split", "all"), "--split"),
}


@pytest.mark.parametrize(("arguments", "words"), [(row[0], row[1:]) for row in PLACES.values()], ids=PLACES)
def test_a_wrong_place_is_refused_before_anything_else(arguments, words, molecules, monkeypatch, capsys):
    def unexpected(*_, **__):
        raise AssertionError("the model is loaded before the place is looked at")

    monkeypatch.setattr(program, "load_trained", unexpected)
    folder = molecules.parent
    (folder / "used").write_text("mine\n")
    (folder / "x.geometries.xyz").write_text("1\nmine\nH 0 0 0\n")
    (folder / "table.csv").write_text("smiles\nCCO\n")
    (folder / "full" / "predictions.csv").mkdir(parents=True)
    (folder / "run").mkdir()
    for name in ("config.yaml", "metrics.csv"):
        (folder / "run" / name).write_text("mine\n")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    assert evaluate(*arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and captured.out == "" and all(word in line for word in words), line
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
