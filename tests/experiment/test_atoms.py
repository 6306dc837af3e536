"""eval.py --atoms: numbers, files and pictures of atoms, what is refused, and whether they point where they should."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from mindspore import Tensor
from tiny_runs import MINI, light, options, read_rows, small_run, write_molecules

import eval as program
import train
from data_tools.formats.molecule_drawing import drawn_atoms
from data_tools.formats.smiles_records import records_of_words
from data_tools.labels.statistics import Normalizer
from examples.molecule import SHIPPED
from experiment.atom_figures import plot_atoms
from experiment.atom_program import warn_of_incomplete
from experiment.atoms import (
    ATTENTION,
    CONTRIBUTION,
    GRADIENT,
    INTEGRATED,
    WEIGHT,
    AtomTable,
    attribute_atoms,
    mean_of_members,
)
from experiment.selection import select
from experiment.trained import load_trained

pytestmark = pytest.mark.usefixtures("same_mode")

UNIT = "[eV]"
OXYGEN = 8


def evaluate(*arguments) -> int:
    return program.main([str(argument) for argument in ("--ckpt", SHIPPED, *arguments)])


@pytest.fixture
def ethanol(tmp_path):
    path = tmp_path / "ethanol.xyz"
    ase.io.write(path, ase.build.molecule("CH3CH2OH"))
    return path


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_files_of_a_structure(ethanol, tmp_path, capsys):
    """Contributions add up to the prediction of eval.py, in three files that agree; pictures are in space."""
    assert evaluate("--input", ethanol) == 0
    energy = float(next(csv.DictReader(io.StringIO(capsys.readouterr().out)))[f"energy {UNIT}"])
    made = tmp_path / "new" / "made"
    assert evaluate("--input", ethanol, "--atoms", "--output", made) == 0
    rows = read_rows(made / "atoms.csv")
    assert [row["element"] for row in rows] == list("CCOHHHHHH") and [row["atom"] for row in rows][-1] == "9"
    contributions = np.array([float(row[f"{CONTRIBUTION} {UNIT}"]) for row in rows])
    assert contributions.sum() == pytest.approx(energy, rel=1e-6)
    (structure,) = read_rows(made / "structures.csv")
    integrated = np.array([float(row[f"{INTEGRATED} {UNIT}"]) for row in rows])
    without = float(structure[f"without elements {UNIT}"])
    assert integrated.sum() == pytest.approx(energy - without, abs=1e-3) and abs(energy - without) > 0.1
    assert float(structure[f"sum of {CONTRIBUTION} {UNIT}"]) == pytest.approx(energy, rel=1e-6)
    frame = ase.io.read(made / "atoms.xyz")
    assert frame.arrays[CONTRIBUTION] == pytest.approx(contributions, abs=1e-6) and frame.info["unit"] == "eV"
    pictures = list(made.glob("*.png"))
    assert len(pictures) == 1 and is_png(pictures[0])
    report = json.loads((made / "report.json").read_text())
    assert set(report["files"]) == {one.name for one in made.iterdir()} - {"report.json"}
    capsys.readouterr()
    assert evaluate("--input", ethanol, "--atoms") == 0
    assert list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == rows
    assert evaluate("--input", ethanol, "--atoms", "--output", made) == 2  # nothing is replaced
    assert "new or empty folder" in capsys.readouterr().err


def test_molecules_of_smiles_are_drawn_in_the_plane(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr("experiment.atom_files.MOST_PICTURES", 1)
    monkeypatch.setattr(
        "experiment.atom_files.plot_atoms", lambda *given: (drawn.append(given[-1]), plot_atoms(*given))
    )
    made = tmp_path / "made"
    assert evaluate("--smiles", "CCO", "C(", "OCC", "--atoms", "--output", made) == 2  # one cannot be read
    err = capsys.readouterr().err
    assert "'C('" in err and "pictures of the first 1 of 2 structures" in err
    assert [one.smiles for one in drawn] == ["CCO"] and is_png(made / "01_CCO.png")
    assert len(read_rows(made / "atoms.csv")) == 18


def test_hydrogens_count_with_their_neighbours():
    heavy, hydrogen = records_of_words(["CO", "[H][H]"])
    assert drawn_atoms(heavy).tolist() == [0, 1, 0, 0, 0, 1]
    assert drawn_atoms(hydrogen).tolist() == [0, 1]


def test_what_is_refused_is_one_line(ethanol, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    potential = SHIPPED.with_name("phonons_1.safetensors")
    for arguments, words in (
        (("--output", tmp_path / "file"), "found a file"),
        (("--output", tmp_path), "new or empty folder"),
        (("--output", tmp_path / "a.csv"), "found the suffix .csv"),
        (("--amp_level", "O2"), "give --amp_level O0"),
        (("--ckpt", potential), "predicts force constants"),
    ):
        assert evaluate("--atoms", "--input", ethanol, *arguments) == 2
        out, err = capsys.readouterr()
        assert not out and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert evaluate("--atoms", "--smiles", "CCBr") == 2 and "not learned Br" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ethanol.xyz", "file"]


def test_incomplete_sums_are_said(capsys, monkeypatch):
    monkeypatch.setattr("experiment.atom_program.name_of_row", lambda *_: "steep")
    warn_of_incomplete(AtomTable(None, np.zeros(3), np.zeros(3), np.array([0.0, 0.2, 1e-9]), {}))
    err = capsys.readouterr().err
    assert "1 of 3 structures" in err and "steep (2.0e-01)" in err
    warn_of_incomplete(AtomTable(None, np.zeros(1), np.zeros(1), np.zeros(1), {}))
    assert not capsys.readouterr().err


def test_members_of_different_kinds_have_what_all_of_them_have():
    """SEGNN with a pooled head, for one, has no contributions of atoms."""
    members = [
        AtomTable(None, np.ones(1), np.zeros(1), np.zeros(1), {name: np.full(2, value) for name in names})
        for value, names in ((1.0, (CONTRIBUTION, GRADIENT)), (3.0, (GRADIENT, ATTENTION)))
    ]
    assert {name: list(values) for name, values in mean_of_members(members).columns.items()} == {GRADIENT: [2.0, 2.0]}


def test_shares_add_up_to_the_offset():
    references = np.zeros(119)
    references[[1, 6]] = 2.0, -3.0
    numbers, n_atoms = np.array([1, 6, 6, 1, 1]), np.array([2, 3])
    counts = np.zeros((2, 119), np.int32)
    counts[[0, 0], [1, 6]], counts[[1, 1], [1, 6]] = 1, (2, 1)
    for settings in ({"per_atom": True}, {"average": True}, {}):
        law = Normalizer(0.5, 7.0, references=references, **settings)
        shares = law.shares(numbers, n_atoms)
        assert np.add.reduceat(shares, [0, 2]) == pytest.approx(law.invert(np.zeros(2), counts))


def test_a_readout_with_attention(tmp_path, ethanol, capsys):
    """It goes on from weights of a mean, with a new head; contributions add up to the prediction, weights to 1."""
    file = write_molecules(tmp_path / "molecules.npz", range(80))
    mean = small_run(file, tmp_path / "mean", target__readout="mean", target__standardisation="per_molecule")
    run = small_run(
        file, tmp_path / "run", target__readout="attention", target__standardisation="per_molecule",
        training__pretrained=mean,
    )  # fmt: skip
    assert "new: head" in (run / "train.log").read_text()
    capsys.readouterr()
    assert program.main(["--ckpt", str(run), "--input", str(ethanol)]) == 0
    gap = float(next(csv.DictReader(io.StringIO(capsys.readouterr().out)))[f"gap {UNIT}"])
    assert program.main(["--ckpt", str(run), "--input", str(ethanol), "--atoms", "--output", str(tmp_path / "a")]) == 0
    rows = read_rows(tmp_path / "a" / "atoms.csv")
    assert sum(float(row[f"{CONTRIBUTION} {UNIT}"]) for row in rows) == pytest.approx(gap, rel=1e-5)
    assert sum(float(row[WEIGHT]) for row in rows) == pytest.approx(1, rel=1e-5)
    assert len({row[WEIGHT] for row in rows}) > 3


def test_attention_needs_scores(tmp_path, capsys):
    for profile, words in (
        ("graph_attention_transformer/qm9_original", "got graph_attention_transformer"),
        ("segnn/qm9", "segnn with model.task=node"),
    ):
        arguments = ["--config", f"configs/{profile}.yaml", "--output", str(tmp_path / "run")]
        assert train.main([*arguments, "--set", "target.readout=attention"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: target.readout attention: ") and words in error
    assert train.main(["--config", str(MINI), "--output", str(tmp_path / "run"), "--target", "U0",
                       "--set", "target.readout=attention", "--set", "target.standardisation=auto"]) == 2  # fmt: skip
    assert "does not fit target 'U0': allowed are sum" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def counts_oxygen(tmp_path_factory):
    """A model that has been trained for seconds on the number of oxygen atoms, under the name of another label."""
    folder = tmp_path_factory.mktemp("oxygen")
    file = write_molecules(folder / "molecules.npz", range(200))
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    owner = np.repeat(np.arange(200), arrays["n_atoms"])
    arrays["gap"] = np.bincount(owner, weights=arrays["Z"] == OXYGEN).astype(arrays["gap"].dtype)
    np.savez(file, **arrays)
    settings = light(training__epochs=40, data__train_size=160, optimizer__lr=0.01, training__batch_size=32)
    settings |= {"target__readout": "sum", "target__standardisation": "none"}
    assert train.main(options(file, folder / "run", "--config", str(MINI), **settings)) == 0
    return folder / "run"


def pointing(trained) -> float:
    """Mean integrated gradient of oxygen, relative to the largest mean size of another element."""
    chosen = select(trained, None, "test", None)
    rows = chosen.rows
    atoms = attribute_atoms(trained, chosen.labelled.packed, rows, np.zeros(len(rows), bool))
    numbers, values = atoms.table.numbers, atoms.columns[INTEGRATED]
    assert ATTENTION not in atoms.columns and atoms.sums(CONTRIBUTION) == pytest.approx(atoms.predictions, rel=1e-4)
    others = [np.abs(values[numbers == number]).mean() for number in set(numbers.tolist()) - {OXYGEN}]
    return float(values[numbers == OXYGEN].mean() / max(others))


def test_a_trained_model_points_to_the_element_that_carries_the_label(counts_oxygen):
    assert pointing(load_trained(counts_oxygen)) > 5
    randomised, random = load_trained(counts_oxygen), np.random.default_rng(0)
    for parameter in randomised.model.trainable_params():
        value = parameter.asnumpy()
        parameter.set_data(Tensor(random.permutation(value.ravel()).reshape(value.shape)))
    assert abs(pointing(randomised)) < 2
