"""SDF files: what is a geometry is read whatever its bonds say, a drawing or half a molecule is refused."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii
from published_files import PACKED
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from data_tools.formats.readers import read_table
from data_tools.formats.sdf_checks import missing_hydrogens
from data_tools.graph import DataError
from data_tools.tables import ELEMENTS

PLANAR = ("c1ccccc1", "C=C", "C=O", "O", "[H][H]", "O=C=O", "C#C", "C#N", "c1cc[nH]c1", "N#N", "OB(O)O")
ORDINARY = ("CCO", "CC(=O)NC", "CS(=O)(=O)C", "CP(=O)(O)OC", "C[Si](C)(C)Cl", "C1CC1C#N", "CC(C)=NO", "FC(F)(F)Cl")
DECLARED = {
    "C[N+](C)(C)CC(=O)[O-]": (0, 0), "CC(=O)[O-]": (-1, 0), "[NH4+]": (1, 0), "C[CH2]": (0, 1), "[CH2]": (0, 2),
    "C[O]": (0, 1), "C[CH+]C": (1, 0), "[O-][n+]1ccccc1": (0, 0), "C[C-]=O": (-1, 0), "[N]=O": (0, 1),
}  # fmt: skip


@functools.cache
def placed(smiles: str) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=1) == 0
    Chem.Kekulize(molecule, clearAromaticFlags=True)
    molecule.SetProp("_Name", smiles)
    return molecule


def drawn(smiles: str, hydrogens: bool = True) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles)
    molecule = Chem.AddHs(molecule) if hydrogens else molecule
    rdDepictor.Compute2DCoords(molecule)
    molecule.SetProp("_Name", smiles)
    return molecule


def without(molecule: Chem.Mol, atoms: list[int]) -> Chem.Mol:
    """The molecule with some atoms left out, as a file shows it: their places are not remembered."""
    rest = Chem.RWMol(molecule)
    for atom in sorted(atoms, reverse=True):
        rest.RemoveAtom(atom)
    for atom in rest.GetAtoms():
        atom.SetNoImplicit(False)
        atom.SetNumExplicitHs(0)
        atom.SetNumRadicalElectrons(0)
    return rest


def hydrogens_of(molecule: Chem.Mol, polar: bool | None = None) -> list[int]:
    def is_polar(atom):
        return atom.GetNeighbors()[0].GetAtomicNum() != 6

    found = [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 1]
    return [atom.GetIdx() for atom in found if polar is None or is_polar(atom) == polar]


def block(molecule: Chem.Mol, version: str = "V2000") -> str:
    text = Chem.MolToV3KMolBlock(molecule) if version == "V3000" else Chem.MolToMolBlock(molecule, kekulize=True)
    return text + "$$$$\n"


def write(folder: Path, *blocks: str) -> Path:
    path = folder / "molecules.sdf"
    path.write_text("".join(blocks))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("version", ["V2000", "V3000"])
def test_every_geometry_is_read(version, tmp_path):
    """Planar ones too, and ions and radicals that the file declares."""
    molecules = [placed(smiles) for smiles in (*PLANAR, *ORDINARY, *DECLARED)]
    table = read_table(write(tmp_path, *(block(one, version) for one in molecules)))
    assert table.names == (*PLANAR, *ORDINARY, *DECLARED)
    np.testing.assert_array_equal(table.n_atoms, [one.GetNumAtoms() for one in molecules])
    expected = [(0, 0)] * (len(PLANAR) + len(ORDINARY)) + list(DECLARED.values())
    found = zip(table.of_structures["charge"].tolist(), table.of_structures["radical_electrons"].tolist(), strict=True)
    assert list(found) == expected


def test_planar_geometries_in_the_plane_z_0_are_read(tmp_path):
    blocks = []
    for smiles in ("c1ccccc1", "C=C", "O"):
        molecule = Chem.Mol(placed(smiles))
        positions = molecule.GetConformer().GetPositions()
        flat = (positions - positions.mean(axis=0)) @ np.linalg.svd(positions - positions.mean(axis=0))[2].T
        for atom, place in enumerate(flat):
            molecule.GetConformer().SetAtomPosition(atom, (*place[:2], 0.0))
        blocks.append(block(molecule))
    assert len(read_table(write(tmp_path, *blocks))) == 3


@pytest.mark.parametrize("version", ["V2000", "V3000"])
@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "O", "C=C"])
def test_a_drawing_is_refused_by_its_header(smiles, version, tmp_path):
    line = refusal(write(tmp_path, block(placed("C")), block(drawn(smiles), version)))
    assert f"in entry 2 ({smiles})" in line and "drawing (its header says 2D)" in line and "SMILES" in line


@pytest.mark.parametrize("header", ["     RDKit          3D", "", "  by hand"])
@pytest.mark.parametrize(("smiles", "words"), [
    ("CCO", "C 1, which has 4 neighbours"), ("CC(=O)NC", "which has 4 neighbours"), ("c1ccccc1", "1.50 long"),
    ("C=C", "1.50 long"),
])  # fmt: skip
def test_a_drawing_is_refused_by_its_bonds(smiles, words, header, tmp_path):
    lines = block(drawn(smiles)).split("\n")
    lines[1] = header
    line = refusal(write(tmp_path, "\n".join(lines)))
    assert "found a drawing (all atoms lie in one plane, " in line and words in line


def test_a_file_without_coordinates_is_refused(tmp_path):
    text = re.sub(r"( +-?\d\.\d{4}){3}", "    0.0000" * 3, block(placed("CCO")))
    assert "no coordinates (all atoms at one point)" in refusal(write(tmp_path, text))


@pytest.mark.parametrize("smiles", [*ORDINARY[:6], "c1ccccc1O", "C#CCN", "CC=O", "OO", "CC(=O)[O-]", "C"])
def test_any_missing_hydrogen_is_noticed(smiles, tmp_path):
    """One of any kind, all on carbon, all but those on carbon, all."""
    molecule = placed(smiles)
    polar, on_carbon = hydrogens_of(molecule, True), hydrogens_of(molecule, False)
    ways = [[one] for one in hydrogens_of(molecule)] + [way for way in (polar, on_carbon, polar + on_carbon) if way]
    for removed in ways:
        rest = without(molecule, removed)
        for atom, before in zip(rest.GetAtoms(), molecule.GetAtoms(), strict=False):
            atom.SetFormalCharge(before.GetFormalCharge())
        rest.SetProp("_Name", smiles)
        line = refusal(write(tmp_path, block(placed("C")), block(rest)))
        left = len(hydrogens_of(molecule)) - len(removed)
        assert "all hydrogens in entry 2" in line
        assert f"found {left or 'none'} of about {left + len(removed)}" in line


def with_single_bonds(numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    """As a file has it whose bonds were guessed by somebody who knows no double ones."""
    radii = covalent_radii[numbers]
    near = np.linalg.norm(positions[:, None] - positions, axis=-1) < 1.25 * (radii[:, None] + radii)
    first, second = np.nonzero(np.triu(near, 1))
    atoms = [f"{x:10.4f}{y:10.4f}{z:10.4f} {ELEMENTS[number - 1]:3s} 0  0"
             for number, (x, y, z) in zip(numbers, positions, strict=True)]  # fmt: skip
    bonds = [f"{one + 1:3d}{other + 1:3d}  1  0" for one, other in zip(first, second, strict=True)]
    counts = f"{len(atoms):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"
    text = "\n".join(["", "", "", counts, *atoms, *bonds, "M  END", ""])
    return Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)


def test_wrong_orders_of_bonds_are_no_missing_hydrogens():
    """Bonds of published files are guesses; here all double and triple bonds of real molecules are single ones."""
    with np.load(PACKED) as shipped:
        arrays = {name: shipped[name] for name in ("n_atoms", "Z", "R")}
    ends = np.cumsum(arrays["n_atoms"].astype(np.int64))
    guessed = 0
    for row in range(0, len(ends), 45):
        atoms = slice(ends[row] - arrays["n_atoms"][row], ends[row])
        molecule = with_single_bonds(arrays["Z"][atoms], arrays["R"][atoms])
        assert missing_hydrogens(molecule) == 0, row
        guessed += any(atom.GetNumImplicitHs() for atom in molecule.GetAtoms())
    assert guessed > 250


def test_entries_that_are_not_parted_are_no_single_one(tmp_path):
    joined = block(placed("CCO")).replace("$$$$\n", "") + block(placed("C"))
    assert "found two in entry 2; write the missing line" in refusal(write(tmp_path, block(placed("O")), joined))


@pytest.mark.parametrize("change", [
    lambda text: text + "\n\n\n", lambda text: text.removesuffix("$$$$\n"), lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("M  END\n", "M  END\n> <block>\n x\nM  END\n\n"),
], ids=["blank end", "no mark at the end", "CRLF", "data"])  # fmt: skip
def test_as_many_structures_as_entries(change, tmp_path):
    path = tmp_path / "molecules.sdf"
    path.write_bytes(change("".join(block(placed(smiles)) for smiles in ("CCO", "O", "C"))).encode())
    assert read_table(path).names == ("CCO", "O", "C")
