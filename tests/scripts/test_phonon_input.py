"""scripts/phonon.py on structures at the edge of what is one: a result, or one line and nothing written.

A cell of one atom is in ``test_phonon.py``, an element that the potentials have not learned in
``test_phonon_potentials.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from aluminium import words
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from data_tools.formats.cell_files import read_cell, structure_of
from data_tools.graph import Structure
from experiment import phonon_report, phonon_run
from physics.supercells import in_a_box
from scripts import phonon

COPPER = "  Cu  Cu1  1.0  0.5  0.5  0.0  0.5000\n"  # half of the last site of ``cif``
CELL = "4 0 0\n0 4 0\n0 0 4"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Coarse meshes and no pictures."""

    def draw(_, folder):
        for name in ("bands", "dos", "thermal", "decay"):
            (folder / f"{name}.png").touch()

    monkeypatch.setattr(phonon_run, "MESH_LENGTH", 10.0)
    monkeypatch.setattr(phonon_report, "_draw", draw)


def poscar(cell: str = CELL, places: str = "0 0 0", symbol: str = "Al", scale: str = "1.0") -> str:
    """A POSCAR with one line for each atom."""
    return f"made\n{scale}\n{cell}\n{symbol}\n{len(places.splitlines())}\nDirect\n{places}\n"


def cif(folder, occupation: str, more: str = "") -> str:
    """Aluminium whose last site has an occupation as it is written, and further sites."""
    write(folder / "whole.cif", bulk("Al", cubic=True))
    text = (folder / "whole.cif").read_text().rstrip()
    assert text.endswith("0.5  0.5  0.0  1.0000")
    return f"{text.removesuffix('1.0000')}{occupation}\n{more}"


REFUSED = {
    "an empty file": ("POSCAR", "", "found an empty file"),
    "no structure": ("POSCAR", "these are\nonly words\n", "cannot read it"),
    "no cif": ("Al.cif", "these are only words\n", "cannot read it"),
    "bytes": ("POSCAR", bytes(range(256)) * 9, "cannot read it"),
    "fewer atoms than it says": ("POSCAR", poscar().replace("\n1\n", "\n3\n"), "cannot read it"),
    "no atoms": ("POSCAR", "made\n1.0\n" + CELL + "\nAl\n0\nDirect\n", "no atoms"),
    "an element that is none": ("POSCAR", poscar(symbol="Zz"), "cannot read it"),
    "a position that is no number": ("POSCAR", poscar(places="nan 0 0"), "finite positions"),
    "an infinite position": ("POSCAR", poscar(places="inf 0 0"), "finite positions"),
    "a lattice that is no number": ("POSCAR", poscar(cell="nan 0 0\n0 4 0\n0 0 4"), "lattice vectors"),
    "a scale of 0": ("POSCAR", poscar(scale="0.0"), "0 lattice vectors"),
    "a lattice vector of 0": ("POSCAR", poscar(cell="0 0 0\n0 4 0\n0 0 4"), "2 lattice vectors"),
    "lattice vectors in a plane": ("POSCAR", poscar(cell="4 0 0\n4 0 0.0001\n0 0 4"), "lie in a plane"),
    "a flat cell": ("POSCAR", poscar(cell="4 0 0\n4 0.001 0\n0 0 4"), "per cubic Angstrom dense"),
    "a left-handed cell": ("POSCAR", poscar(cell="0 4 0\n4 0 0\n0 0 4"), "left-handed"),
    "an endless cell": ("POSCAR", poscar(cell="4000 0 0\n0 4 0\n0 0 4"), "up to 1000 Angstrom"),
    "two atoms in one place": ("POSCAR", poscar(places="0 0 0\n0 0 0"), "too close"),
    "an atom and its image": ("POSCAR", poscar(places="0 0 0\n1 1 1"), "too close"),
    "atoms that overlap": ("POSCAR", poscar(places="0 0 0\n0.05 0 0"), "0.2 Angstrom from each other"),
    "no lattice": ("Al.xyz", "1\nwords\nAl 0 0 0\n", "periodic in three directions"),
    "an element without a mass": ("POSCAR", poscar(symbol="Rn"), "a mass of"),
    "an atom in a box": ("POSCAR", poscar(scale="5.0"), "a molecule in a box has no bands"),
}  # fmt: skip


def refused(folder, capsys, name: str, text: str | bytes) -> str:
    """The one line that is said of a file."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert phonon.main(words(folder, folder / "out", structure=name, times="")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and not (folder / "out").exists() and not list(folder.glob(".*"))
    return line


@pytest.mark.parametrize(("name", "text", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_crystal_is_refused(name, text, expected, tmp_path, capsys):
    assert expected in refused(tmp_path, capsys, name, text)


@pytest.mark.parametrize(
    ("share", "more"), [("0.5000", ""), ("1.3", ""), ("0", ""), ("-1", ""), ("?", ""), ("0.5000", COPPER)]
)
def test_sites_that_are_occupied_in_part_are_refused(share, more, tmp_path, capsys):
    """Also by two elements together, and where the file does not know it."""
    assert "occupied in part" in refused(tmp_path, capsys, "Al.cif", cif(tmp_path, share, more))


def test_a_dot_is_a_whole_atom(tmp_path):
    """What the format itself takes for an occupation that a file leaves out."""
    (tmp_path / "Al.cif").write_text(cif(tmp_path, "."))
    assert structure_of(read_cell(tmp_path / "Al.cif")).numbers.tolist() == [13] * 4


def test_a_wrong_structure_comes_before_a_potential(tmp_path, capsys, monkeypatch):
    """Potentials take seconds to load."""

    def load(_):
        raise AssertionError("loaded")

    monkeypatch.setattr(phonon, "potential_of", load)
    refused(tmp_path, capsys, "POSCAR", poscar(cell="0 4 0\n4 0 0\n0 0 4"))


def test_molecules_in_a_box_and_what_is_none():
    """A slab and a chain are periodic in fewer directions; a crystal is one whatever its cell."""
    water = molecule("H2O", vacuum=8.0)
    both = water + Atoms("Ar", positions=[[1.0, 1.0, 1.0]])
    slab = bulk("Al", cubic=True)
    slab.center(vacuum=15.0, axis=2)
    chain = Atoms("Al", cell=[2.7, 20.0, 20.0])
    two = chain.repeat((2, 1, 1))
    for atoms, expected in (
        (water, True),
        (both, True),
        (slab, False),
        (chain, False),
        (two, False),
        (bulk("Al"), False),
    ):
        structure = structure_of_atoms(atoms)
        assert bool(in_a_box(structure, None)) == bool(in_a_box(structure, 5.0)) == expected
    assert in_a_box(structure_of_atoms(chain), 2.5) and not in_a_box(structure_of_atoms(water), 25.0)


def structure_of_atoms(atoms):
    return Structure(atoms.numbers.astype(np.int32), atoms.positions, atoms.cell.array, str(atoms.symbols))


def test_force_constants_of_zero_are_refused(tmp_path, capsys):
    """A calculator without forces leaves nothing to draw."""
    (tmp_path / "POSCAR").write_text(poscar())
    source = "--calculator aluminium:ForcesOnly"
    assert phonon.main(words(tmp_path, tmp_path / "out", source=source, times="2 2 2")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: Al: expected force constants, all are 0") and not (tmp_path / "out").exists()
