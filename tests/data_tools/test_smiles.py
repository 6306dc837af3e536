"""SMILES: every record of a file becomes a structure, or is refused with its line and the reason."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from rdkit import Chem

from data_tools.dataset import open_graphs
from data_tools.formats import smiles as smiles_module
from data_tools.formats.readers import holds_smiles, read_table
from data_tools.formats.smiles import GEOMETRY_WARNING, make_molecules
from data_tools.formats.smiles_records import records_of_file, records_of_words
from data_tools.formats.writers import GEOMETRY_MARK, geometries_text
from data_tools.graph import DataError

PAIRS = [("CCO", "ethanol"), ("C", "C")]

FILES = {
    "lines.smi": "CCO ethanol\n\nC\n",
    "tabs.smi": "CCO\tethanol\t-3.2\nC\n",
    "header.smi": "SMILES Name\nCCO ethanol\nC\n",
    "tabs with header.smiles": "smiles\tid\nCCO\tethanol\nC\n",
    "names first.smi": "id smiles\nethanol CCO\nC C\n",
    "commas.smi": "smiles,name\nCCO,ethanol\nC,\n",
    "plain.csv": "smiles,name\nCCO,ethanol\nC,\n",
    "mark.csv": "\ufeffname,U0,Smiles\nethanol,-4.2,CCO\n,1,C\n",
    "semicolons.csv": "ID;Canonical SMILES;x\nethanol;CCO;1,5\n;C;\n",
    "quoted.csv": '"Title","canonical_smiles"\n"ethanol","CCO"\n\n"","C"\n',
    "table.tsv": "SMILES string\tname\r\nCCO\tethanol\r\nC\t\r\n",
    "pubchem.csv": "CanonicalSMILES,IsomericSMILES,Title\nCC,CCO,ethanol\nCC,C,\n",
    "blanks.csv": "smiles name\nCCO ethanol\nC\n",
    "extension.smi": "CCO |w:1.0| ethanol\nC\n",
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(("name", "text"), FILES.items(), ids=FILES)
def test_every_layout_gives_the_same_molecules(name, text, tmp_path):
    path = written(tmp_path, name, text)
    assert [(record.smiles, record.name) for record in records_of_file(path)] == PAIRS
    assert holds_smiles(path)
    with pytest.raises(DataError, match=r"SMILES have no labels.*eval\.py --input"):
        open_graphs(path, 5.0)
    table = read_table(path)
    assert table.names == ("ethanol", "C") and table.n_atoms.tolist() == [9, 5]
    assert GEOMETRY_WARNING in table.source


def test_a_single_column_may_have_a_long_name(tmp_path):
    path = written(tmp_path, "one.csv", 'SMILES string\nCCO\n"C"\n')
    assert [record.smiles for record in records_of_file(path)] == ["CCO", "C"]


def test_a_molecule_may_have_the_name_of_a_column(tmp_path):
    path = written(tmp_path, "names.smi", "CCO smiles\nC name\n")
    assert [(record.smiles, record.name) for record in records_of_file(path)] == [("CCO", "smiles"), ("C", "name")]


@pytest.mark.parametrize(("name", "text", "words"), [
    ("other.csv", "a;b\n1;2\n", ("a column smiles, its columns are 'a', 'b'",)),
    ("none.csv", "CCO,ethanol\nC,methane\n", ("its columns are 'CCO', 'ethanol'",)),
    ("two.csv", "smiles_a,smiles_b\nC,C\n", ("'smiles_a', 'smiles_b'", "call only the one to use smiles")),
    ("gdb9.sdf.csv", "mol_id,A,B\ngdb_1,1,2\n", ("'mol_id', 'A', 'B'", "gdb9.sdf beside gdb9.sdf.csv")),
    ("empty.csv", "smiles\n\n", ("at least one structure",)),
    ("latin.csv", None, ("UTF-8",)),
])  # fmt: skip
def test_a_table_that_is_none(name, text, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"smiles,name\nC,m\xe9thane\n" if text is None else text.encode())
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


ROWS = """smiles,name
CCO,one
C(C,two
,three
C,four,five
O.O,"a
dimer"
CC CC,six

CC(C)(C)(C)C,seven
C*,eight
[Na+].[Cl-],salt
C,nine
"""


def test_each_bad_record_is_named_and_the_others_go_on(tmp_path):
    records = records_of_file(written(tmp_path, "rows.csv", ROWS))
    made = make_molecules(Path("rows.csv"), records, "rows")
    assert len(records) == 10 == len(made.rows) + len(made.refusals)
    assert made.rows.tolist() == [0, 9] and made.table.names == ("one", "nine")
    found = [(one.row, one.record.place, one.record.name) for one in made.refusals]
    assert found == [
        (1, "line 3", "two"), (2, "line 4", "three"), (3, "line 5", "four"), (4, "line 6", "a dimer"),
        (5, "line 8", "six"), (6, "line 10", "seven"), (7, "line 11", "eight"), (8, "line 12", "salt"),
    ]  # fmt: skip
    reasons = ("RDKit cannot read it", "found nothing", "found 3", "2 fragments", "found 'CC' behind it",
               "Explicit valence for atom # 1 C, 5", "a placeholder as atom 2", "2 fragments")  # fmt: skip
    for refusal, words in zip(made.refusals, reasons, strict=True):
        assert words in refusal.reason and "\n" not in str(refusal)
    with pytest.raises(DataError, match=r"rows\.csv: 'C\(C' in line 3: expected SMILES"):
        read_table(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    "smiles",
    ["O[C@@H]1C(=O)[C@H]2N[C@@H]12", "OC[C@@]12CN3C[C@]1(O)[C@H]32", "NC(=O)[C@H]1N2C(=O)C[C@@H]21"],
)
def test_cages_are_placed_with_their_configuration(smiles):
    """Where ETKDG finds no geometry, or one of another stereoisomer, what is made is what the SMILES say."""
    (record,) = records_of_words([smiles])
    molecule = smiles_module.molecule_with_hydrogens(record)
    positions = smiles_module.place(Chem.Mol(molecule))
    molecule.AddConformer(Chem.Conformer(len(positions)))
    molecule.GetConformer().SetPositions(positions)
    said = Chem.MolToSmiles(molecule)
    Chem.AssignStereochemistryFrom3D(molecule)
    assert Chem.MolToSmiles(molecule) == said and "@" in said
    assert smiles_module._has_configuration(molecule, positions)
    mirrored = positions * [-1, 1, 1]
    assert not smiles_module._has_configuration(molecule, mirrored)


def test_another_stereoisomer_is_no_geometry():
    made = make_molecules(Path("--smiles"), records_of_words(["O[C@@]12C[C@]1(O)[C@@H]1C[C@@]12O", "CO"]), "")
    assert made.rows.tolist() == [1] and "geometries of other stereoisomers" in made.refusals[0].reason


def test_charges_and_unpaired_electrons_are_counted():
    words = ["CCO", "CC(=O)[O-]", "[CH3]", "C[N+](C)(C)CC(=O)[O-]", "[CH2]", "[H]", "[O-]C(=O)C(=O)[O-]", "[He]"]
    table = make_molecules(Path("--smiles"), records_of_words(words), "").table
    assert table.of_structures["charge"].tolist() == [0, -1, 0, 0, 0, 0, -2, 0]
    assert table.of_structures["radical_electrons"].tolist() == [0, 0, 1, 0, 2, 1, 0, 0]


def test_further_refusals_keep_the_order():
    made = make_molecules(Path("--smiles"), records_of_words(["CCl", "CC.C", "CCO", "CBr"]), "")
    fewer = made.refuse({0: "chlorine", 2: "bromine"})
    assert fewer.table.names == ("CCO",) and fewer.rows.tolist() == [2]
    assert [(one.row, one.record.smiles) for one in fewer.refusals] == [(0, "CCl"), (1, "CC.C"), (3, "CBr")]
    assert fewer.refuse({0: "oxygen"}).table is None


def test_written_geometries_are_read_again_with_their_names(tmp_path):
    """By ASE and by our reader; ASE alone would take F for false, 007 for 7 and backslashes away."""
    names = ["F", "T", "007", "1 2 3", "1e5", "a=b", 'the "ring"', "it's", "[1]", "{x}", "back\\slash", "nan", "ä"]
    words = ["F", *(f"C {name}" for name in names[1:]), "F/C=C\\F"]
    made = make_molecules(Path("--smiles"), records_of_words(words), "")
    path = tmp_path / "geometries.xyz"
    path.write_text(geometries_text(made.table, [record.smiles for record in made.records]), encoding="utf-8")
    assert GEOMETRY_MARK in path.read_text(encoding="utf-8").splitlines()[1]
    again, frames = read_table(path), ase.io.read(path, ":")
    assert again.names == made.table.names == (*names, "F/C=C\\F")
    assert [atoms.info["name"] for atoms in frames] == list(again.names)
    assert [atoms.info["smiles"] for atoms in frames] == [word.split()[0] for word in words]
    np.testing.assert_allclose(again.positions, made.table.positions, atol=1e-8)
