"""Geometries that RDKit makes of molecules known by their positions: whose they are, and what is left out."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from published_files import PACKED
from tiny_runs import write_molecules

from data_tools.dataset import open_graphs
from data_tools.formats.force_field_geometries import bonded, conformers_of
from data_tools.formats.readers import read_table
from data_tools.formats.smiles import MADE_HERE
from data_tools.graph import Structure
from data_tools.labels.splits import Split, load_split, save_split
from data_tools.tables import structure_of_row
from scripts.mmff_geometries import main

CHIRAL, ZWITTERION = 44, 114450  # a place among the shipped molecules, and a gdb index
ROWS = (12, 700, CHIRAL, 2000)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five molecules, of which RDKit finds no bonds of the last, and an index file that trains on the last three."""
    with np.load(PACKED) as shipped:
        (strange,) = np.flatnonzero(shipped["gdb_index"] == ZWITTERION)
    folder = tmp_path_factory.mktemp("source")
    save_split(Split(np.array([4, 3, 2]), np.array([1]), np.array([0]), "five"), folder / "split.npz")
    return write_molecules(folder / "five.npz", [*ROWS, strange])


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "new folder" / "mmff.npz"
    words = ["--data", source, "--split", source.with_name("split.npz"), "--conformers", 2, "--output", output]
    assert main(list(map(str, words))) == 0
    return output


def test_labels_and_atoms_stay_with_their_molecule(source, made):
    before, after, arrays = read_table(source), read_table(made), np.load(made)
    assert arrays["molecule"].tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 0, 0]
    assert arrays["conformer"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1]
    assert set(before.of_structures) == set(after.of_structures)
    for name, values in before.of_structures.items():
        np.testing.assert_allclose(after.of_structures[name], values[arrays["molecule"]], rtol=1e-14)
    seen = []
    for row, (molecule, conformer) in enumerate(zip(arrays["molecule"], arrays["conformer"], strict=True)):
        own, other = structure_of_row(before, int(molecule)), structure_of_row(after, row)
        assert np.array_equal(own.numbers, other.numbers)
        distances = [np.linalg.norm(one.positions[:, None] - one.positions, axis=-1) for one in (own, other)]
        change = np.abs(distances[1] - distances[0]).max()
        assert change < 1e-5 if conformer == 0 else 0.005 < change < 5
        bonds = [bonded(one).GetBonds() for one in (own, other)]
        pairs = [{(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in one} for one in bonds]
        assert pairs[0] == pairs[1], "each atom has the neighbours that it had"
        seen.append(other.positions)
    assert not np.allclose(seen[4], seen[5], atol=1e-3), "another seed, another geometry"


def test_no_molecule_is_in_two_parts_and_its_use_is_with_mmff(made):
    split, arrays = load_split(made.with_name("mmff_split.npz")), np.load(made)
    of_parts = {part: arrays["molecule"][getattr(split, part)].tolist() for part in ("train", "valid", "test")}
    assert of_parts == {"train": [3, 3, 3, 2, 2, 2], "valid": [1], "test": [0]}
    for part in ("valid", "test"):
        assert arrays["conformer"][getattr(split, part)].tolist() == [1]
    assert len(open_graphs(made, 5.0, labels=["gap"]).table) == 10, "a file that train.py takes"


def test_the_source_of_a_run_says_how_the_geometries_were_made(source, made):
    """So that a model of such geometries is not warned of when it predicts SMILES."""
    assert MADE_HERE in read_table(made).source and MADE_HERE not in read_table(source).source


def test_what_cannot_be_made_is_left_out_by_name(source, made):
    with made.with_name("mmff_left_out.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["molecule"], row["part"]) == (f"structure {ZWITTERION}", "train")
    assert row["reason"].startswith("expected bonds of a neutral molecule")


def test_configurations_stay():
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    structure = structure_of_row(read_table(PACKED), CHIRAL)
    wanted = Chem.MolToSmiles(bonded(structure))
    assert "@" in wanted
    for positions in conformers_of(structure, 3):
        assert Chem.MolToSmiles(bonded(Structure(structure.numbers, positions))) == wanted
    mirrored = Structure(structure.numbers, -structure.positions)
    assert Chem.MolToSmiles(bonded(mirrored)) != wanted


def test_two_molecules_are_no_molecule():
    water = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    two = Structure(np.array([8, 1, 1] * 2), np.concatenate((water, water + 4)))
    with pytest.raises(ValueError, match="expected one molecule, found 2 fragments"):
        conformers_of(two, 1)
    assert conformers_of(Structure(two.numbers[:3], water), 1).shape == (1, 3, 3)


MISTAKES = {
    "another ending": ("mmff.xyz", {}, "expected a file with the ending .npz"),
    "crystals": ("mmff.npz", {"--data": "data_tools/samples/crystals_100.npz", "--split": "labelled"}, "crystals"),
    "SMILES": ("mmff.npz", {"--data": "mine.smi"}, "found SMILES"),
    "another split": ("mmff.npz", {"--split": "sample"}, "split 'sample' belongs to"),
    "nothing left": ("mmff.npz", {"--sizes": "1 1 1"}, "expected molecules that RDKit can make, found none of part"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(mistake, source, tmp_path, capsys):
    name, others, words = MISTAKES[mistake]
    options = {"--data": str(source), "--split": str(source.with_name("split.npz")), **others}
    given = [word for key, value in options.items() for word in (key, *value.split())]
    assert main([*given, "--output", str(tmp_path / name)]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and words in message
    assert not list(tmp_path.iterdir())
