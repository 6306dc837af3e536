"""Stresses and virials of extended xyz: six or nine numbers, sign, unit and cell; and what ASE reads of ours."""

from __future__ import annotations

import io

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT

from data_tools.formats.readers import read_table
from data_tools.formats.writers import frames_text
from data_tools.graph import DataError
from data_tools.graphs.packed import pack
from data_tools.graphs.packed_folder import load, save
from data_tools.tables import cell_volumes, join_tables, select_rows

TENSOR = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
SIX, NINE = "1 2 3 4 5 6", "1 6 5 6 2 4 5 4 3"
VIRIAL = " ".join(f"{-64 * value:g}" for value in TENSOR.ravel())  # of a cell of 64 cubic Angstrom
LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4" '


def frame(words: str, cell: bool = True) -> str:
    return f"1\n{LATTICE * cell}Properties=species:S:1:pos:R:3 energy=-1 {words}\nAr 0 0 0\n"


def read(tmp_path, *frames: str, **options):
    (tmp_path / "a.xyz").write_text("".join(frames))
    return read_table(tmp_path / "a.xyz", **options)


@pytest.mark.parametrize(
    "words",
    [
        f'stress="{SIX}"',
        f'stress="{NINE}"',
        f"stress=[{SIX}]",
        f'stress = "{SIX}"',
        'stress="_JSON [[1, 6, 5], [6, 2, 4], [5, 4, 3]]"',
        f'virial="{VIRIAL}"',
        f'stress="{NINE}" virial="{VIRIAL}"',
        f'stress="{SIX}" virial="{VIRIAL}" other="_JSON [[1, 2], [3]]"',
    ],
)
def test_six_numbers_nine_and_a_virial_are_one_stress(words, tmp_path):
    table = read(tmp_path, frame(""), frame(words))
    stress = table.of_structures["stress"]
    assert np.isnan(stress[0]).all() and stress.shape == (2, 3, 3)
    np.testing.assert_allclose(stress[1], TENSOR, rtol=1e-14)
    assert table.label_names == ("energy", "stress")


@pytest.mark.parametrize("words", ["", "stress=none", 'stress="nan nan nan nan nan nan"'])
def test_no_stress(words, tmp_path):
    assert np.isnan(read(tmp_path, frame(words)).of_structures.get("stress", np.nan)).all()


def test_zeros_without_a_cell_are_none(tmp_path):
    """What some calculators say of a molecule."""
    table = read(tmp_path, frame('stress="0 0 0 0 0 0"', cell=False), frame(f'stress="{SIX}"'))
    assert np.isnan(table.of_structures["stress"][0]).all()
    np.testing.assert_array_equal(table.of_structures["stress"][1], TENSOR)
    np.testing.assert_allclose(cell_volumes(table), [np.nan, 64.0])


MISTAKES = {
    "not symmetric": ('stress="1 6 5 7 2 4 5 4 3"', True, "a symmetric stress in line 5, found 7 and 6 at xy and yx"),
    "virial not symmetric": ('virial="1 6 5 7 2 4 5 4 3"', True, "a symmetric virial in line 5"),
    "partly missing": ('stress="1 nan 5 6 2 4 5 4 3"', True, "a symmetric stress in line 5"),
    "three numbers": (
        'stress="1 2 3"',
        True,
        r"expected 9 numbers, or 6 \(xx, yy, zz, yz, xz, xy\), as stress in line 5",
    ),
    "one number": ("stress=5", True, "as stress in line 5, found one"),
    "a number too many": (f'stress="{SIX} 7"', True, r"found an array of shape \(7,\)"),
    "text": ('stress="1 2 3 4 5 6a"', True, "expected a number as stress in line 5, found '1 2 3 4 5 6a'"),
    "infinite": ('stress="inf 2 3 4 5 6"', True, "finite values of stress"),
    "no cell": (f'stress="{SIX}"', False, "expected a cell beside the stress in line 5"),
    "virial without a cell": (f'virial="{NINE}"', False, "expected a cell beside the virial in line 5"),
    "another sign": (f'stress="{SIX}" virial="{VIRIAL.replace("-", "")}"', True, "stress = -virial / volume in line 5"),
}


@pytest.mark.parametrize("words, cell, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line(words, cell, message, tmp_path):
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, frame("", cell), frame(words, cell))
    assert "\n" not in str(raised.value) and str(raised.value).startswith(f"{tmp_path / 'a.xyz'}: expected ")


def test_another_name(tmp_path):
    """What the key ``stress`` itself holds is then of no interest."""
    keys = {"stress": "REF_stress"}
    for numbers in (SIX, NINE):
        table = read(tmp_path, frame(f'REF_stress="{numbers}" stress="1 2"'), frame("x=1"), keys=keys)
        np.testing.assert_array_equal(table.of_structures["stress"][0], TENSOR)
        assert np.isnan(table.of_structures["stress"][1]).all() and "REF_stress" not in table.label_names
    for words, cell, message in (
        ('REF_stress="1 2 3 4 5"', True, "6 .xx, yy, zz, yz, xz, xy., as stress of frame 0"),
        ('REF_stress="1 6 5 7 2 4 5 4 3"', True, "a symmetric stress of frame 0"),
        (f'REF_stress="{SIX}"', False, "a cell beside the stress of frame 0"),
        ("", True, "data.keys: expected REF_stress, the stress"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path, frame(words, cell), keys=keys)


def crystal(seed: int) -> ase.Atoms:
    atoms = ase.build.bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.numbers[0] = 13
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + 0.05 * np.random.default_rng(seed).normal(size=(3, 3))), scale_atoms=True
    )
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    return atoms


def test_what_ase_writes_and_reads(tmp_path):
    """ASE's own stress through its file, this reader, packed graphs and this writer, back into ASE."""
    atoms = [crystal(0), crystal(1)]
    for one in atoms:
        one.get_stress()
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    table = read_table(tmp_path / "a.xyz")
    for row, one in enumerate(atoms):
        np.testing.assert_allclose(table.of_structures["stress"][row], one.get_stress(voigt=False), atol=1e-12)
        assert cell_volumes(table)[row] == pytest.approx(one.get_volume())
    save(pack(table, 4.0), tmp_path / "packed")
    kept = load(tmp_path / "packed").table
    np.testing.assert_array_equal(kept.of_structures["stress"], table.of_structures["stress"])
    assert select_rows(table, np.array([1])).of_structures["stress"].shape == (1, 3, 3)
    (tmp_path / "b.xyz").write_text(frame("", cell=False))
    both = join_tables([kept, read_table(tmp_path / "b.xyz")], ("crystal", "atom"))
    assert np.isnan(both.of_structures["stress"][2]).all()
    forces, stress = np.zeros((len(both.numbers), 3)), both.of_structures["stress"]
    text = frames_text(both, both.of_structures["energy"], forces, np.nan_to_num(stress, nan=7.0))
    *found, atom = ase.io.read(io.StringIO(text), ":", format="extxyz")
    for one, expected in zip(found, atoms, strict=True):
        np.testing.assert_allclose(one.get_stress(), expected.get_stress(), atol=1e-12)
    assert "stress" not in atom.calc.results and text.count("stress=") == 2
    assert "stress" not in frames_text(both, both.of_structures["energy"], forces)
