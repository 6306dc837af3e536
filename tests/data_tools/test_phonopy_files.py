"""Files of phonopy give the same crystal in whatever format they are, and a wrong one is one line."""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import re
import tarfile

import numpy as np
import pytest
from crystal_samples import (
    CONF,
    RANDOM_DISPLACEMENTS,
    RYDBERG_AND_BOHR,
    SMASO4,
    SODIUM_CHLORATE,
    ZINC_OXIDE,
    ZR3N4,
    force_constants_text,
    full_of,
    write_hdf5,
    zinc_oxide,
    zno_folder,
)

from data_tools.formats.cell_files import read_blocks, read_cell, structure_of, with_structure
from data_tools.formats.crystal_source import open_source
from data_tools.formats.phonopy_files import read_born, read_crystal, read_with_source
from data_tools.graph import DataError
from data_tools.units import BOHR, RYDBERG
from physics.phonons import stability


def same(found, expected, tolerance=1e-12):
    """Equal in all that force constants mean."""
    assert (found.supercell.numbers == expected.supercell.numbers).all()
    np.testing.assert_allclose(found.supercell.positions, expected.supercell.positions, atol=1e-8)
    assert (found.p2s == expected.p2s).all() and (found.s2p == expected.s2p).all()
    np.testing.assert_allclose(found.blocks, expected.blocks, atol=tolerance)


def refused(path, *words):
    with pytest.raises(DataError) as error:
        read_crystal(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700, text
    for word in words:
        assert word in text, text


def test_zinc_oxide():
    crystal = zinc_oxide()
    assert (crystal.n_atoms, crystal.n_primitive, crystal.space_group, crystal.name) == (32, 4, 186, "ZnO")
    assert crystal.blocks.shape == (4, 32, 3, 3) and crystal.blocks.dtype == np.float64
    np.testing.assert_allclose(crystal.blocks.sum(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(full_of(crystal), full_of(crystal).transpose(1, 0, 3, 2), atol=1e-3)
    np.testing.assert_allclose(crystal.lowest_frequencies, (2.7188, 0.8040), atol=1e-4)
    by_physics = stability(crystal)
    found = by_physics.lowest_at_gamma, by_physics.lowest_on_mesh
    np.testing.assert_allclose(crystal.lowest_frequencies, found, atol=1e-6)
    assert crystal.born.shape == (4, 3, 3) and crystal.dielectric.shape == (3, 3)
    np.testing.assert_allclose(np.unique(crystal.masses.round(2)), (16.0, 65.38), atol=0.01)


def test_archives_of_phonondb():
    crystal, source = read_with_source(SODIUM_CHLORATE)
    assert (crystal.name, crystal.n_atoms, crystal.n_primitive, crystal.space_group) == ("mp-23330", 20, 20, 198)
    assert re.fullmatch(r"materials-id-23330-naclo3-p2-13-198.tar.lzma sha256 [0-9a-f]{64}", source)
    assert crystal.born is not None and crystal.lowest_frequencies[1] < -0.05
    crystal = read_crystal(SMASO4, frequencies=False)
    assert (crystal.n_atoms, crystal.n_primitive, crystal.space_group) == (48, 12, 141)
    assert np.isnan(crystal.lowest_frequencies).all()


def test_units_of_another_code():
    """Quantum ESPRESSO's forces are in Ry/au: the frequencies are those of NaCl, and phonopy's factor agrees."""
    crystal = read_crystal(RYDBERG_AND_BOHR)
    assert 5.5 < crystal.supercell.cell[0, 0] / 2 < 5.8
    assert 4.3 < crystal.lowest_frequencies[0] < 5.2
    own = np.linalg.norm(crystal.blocks[[0, 1], crystal.p2s], axis=(1, 2))
    assert (own > 1).all() and (own < 6).all()
    assert RYDBERG / BOHR**2 == pytest.approx(48.587, abs=1e-3)


def test_all_atoms_displaced_at_once():
    crystal = read_crystal(RANDOM_DISPLACEMENTS)
    assert (crystal.n_atoms, crystal.n_primitive) == (64, 2)
    assert crystal.lowest_frequencies[0] == pytest.approx(4.605, abs=2e-3)


def test_yaml_without_supercell_matrix_of_units():
    assert read_crystal(ZR3N4).space_group == 220


def test_settings_and_poscar(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "POSCAR-unitcell", "FORCE_SETS", "BORN")
    (folder / "phonopy.conf").write_text(CONF)
    same(read_crystal(folder), zinc_oxide(), 1e-6)
    same(read_crystal(folder / "FORCE_SETS"), zinc_oxide(), 1e-6)


@pytest.mark.parametrize("full", [True, False], ids=["full", "compact"])
@pytest.mark.parametrize("kind", ["text", "hdf5"])
def test_force_constants_as_they_are(tmp_path, kind, full):
    """Given force constants are not made symmetric: the numbers come back."""
    crystal, folder = zinc_oxide(), zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    blocks = full_of(crystal) if full else crystal.blocks
    blocks = blocks + np.random.default_rng(0).normal(scale=1e-3, size=blocks.shape)
    rows = np.arange(32) if full else crystal.p2s
    if kind == "text":
        (folder / "FORCE_CONSTANTS").write_text(force_constants_text(blocks, rows))
    else:
        write_hdf5(folder / "force_constants.hdf5", blocks, rows)
    found = read_crystal(folder).blocks
    assert (found == (blocks[crystal.p2s] if full else blocks)).all()


def test_hdf5_names_its_unit(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    write_hdf5(folder / "force_constants.hdf5", zinc_oxide().blocks, zinc_oxide().p2s, "Ry/au^2")
    np.testing.assert_allclose(read_crystal(folder).blocks, zinc_oxide().blocks * RYDBERG / BOHR**2)
    write_hdf5(folder / "force_constants.hdf5", zinc_oxide().blocks, zinc_oxide().p2s, "N/m")
    refused(folder, "force constants in one of", "N/m")


def test_compressed_files_and_archives(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    (folder / "FORCE_SETS.xz").write_bytes(lzma.compress((ZINC_OXIDE / "FORCE_SETS").read_bytes()))
    same(read_crystal(folder), zinc_oxide())
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as archive:
        archive.add(ZINC_OXIDE, "mp-2133-x")
    found = read_crystal(tmp_path / "one.tar.gz")
    same(found, zinc_oxide())
    assert found.name == "mp-2133" and found.born is not None


def test_order_of_the_file_of_displacements(tmp_path):
    """A supercell in another order of atoms, with forces in that order, is the same crystal."""
    crystal = zinc_oxide()
    folder = zno_folder(tmp_path / "ZnO", "POSCAR-unitcell", "FORCE_SETS")
    (folder / "phonopy.conf").write_text(CONF)
    order = np.random.default_rng(1).permutation(32)
    lines = (ZINC_OXIDE / "FORCE_SETS").read_text().split("\n")
    words = [line for line in lines if line.strip()]
    place = np.argsort(order)
    text, moved, sets = words[:2], [], iter(words[2:])
    for _ in range(int(words[1])):
        number, displacement = int(next(sets)) - 1, next(sets)
        forces = [next(sets) for _ in range(32)]
        text += [str(place[number] + 1), displacement, *(forces[atom] for atom in order)]
        moved.append((place[number] + 1, displacement.split()))
    (folder / "FORCE_SETS").write_text("\n".join(text))
    fractions = crystal.supercell.positions @ np.linalg.inv(crystal.supercell.cell)
    symbols = {8: "O", 30: "Zn"}
    disp = ["natom: 32", "displacements:"]
    disp += [f"- atom: {number}\n  displacement: [{', '.join(values)}]" for number, values in moved]
    disp += ["lattice:", *(f"- {row}" for row in crystal.supercell.cell.tolist()), "atoms:"]
    for atom in order:
        disp.append(f"- symbol: {symbols[crystal.supercell.numbers[atom]]}\n  position: {fractions[atom].tolist()}")
    (folder / "disp.yaml").write_text("\n".join(disp))
    same(read_crystal(folder), crystal, 1e-6)
    (folder / "disp.yaml").write_text("\n".join(disp).replace("symbol: Zn", "symbol: Xx", 1))
    refused(folder, "elements", "Xx")


def test_born_of_its_own():
    born, dielectric = read_born(ZINC_OXIDE / "BORN", zinc_oxide())
    np.testing.assert_allclose(born, zinc_oxide().born)
    np.testing.assert_allclose(dielectric, zinc_oxide().dielectric)
    with pytest.raises(DataError, match="BORN file of this crystal"):
        read_born(ZINC_OXIDE / "BORN", read_crystal(SMASO4, frequencies=False))


def edited(tmp_path, name, change, *others):
    """A folder of ZnO in which one file is changed."""
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml", "FORCE_SETS", *others)
    (folder / name).write_text(change((ZINC_OXIDE / name).read_text()))
    return folder


def test_another_order_of_atoms(tmp_path):
    def reverse(text):
        words = [line for line in text.split("\n") if line.strip()]
        return "\n".join(words[:2] + [line for k in range(2, len(words), 34) for line in
                                      (*words[k : k + 2], *reversed(words[k + 2 : k + 34]))])  # fmt: skip

    refused(edited(tmp_path, "FORCE_SETS", reverse), "order of the supercell", "symmetry")


def test_a_missing_displacement(tmp_path):
    def only_the_first(text):
        words = [line for line in text.split("\n") if line.strip()]
        return "\n".join([words[0], "1", *words[2:36]])

    refused(edited(tmp_path, "FORCE_SETS", only_the_first), "displacements", "missing")
    (tmp_path / "ZnO" / "phonopy_disp.yaml").unlink()
    zno_folder(tmp_path / "ZnO", "POSCAR-unitcell")
    (tmp_path / "ZnO" / "phonopy.conf").write_text(CONF)
    refused(tmp_path / "ZnO", "three directions", "missing")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("FORCE_SETS", "32", "33", ("header is wrong",)),
        ("FORCE_SETS", "0.0", "x.0", ("expected numbers",)),
        ("phonopy_disp.yaml", "symbol: Zn", "symbol: Xy", ("phonopy_disp.yaml",)),
        ("phonopy_disp.yaml", "unit_cell:", "unit_cel:", ("unit cell",)),
    ],
)
def test_wrong_entries(tmp_path, name, old, new, words):
    refused(edited(tmp_path, name, lambda text: text.replace(old, new, 1)), *words)


def test_wrong_cells(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "POSCAR-unitcell", "FORCE_SETS")
    (folder / "phonopy.conf").write_text(CONF)
    lines = (ZINC_OXIDE / "POSCAR-unitcell").read_text().splitlines()
    cell = folder / "POSCAR-unitcell"
    cell.write_text("\n".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    refused(folder, "left-handed")
    cell.write_text("\n".join([*lines[:3], lines[2], *lines[4:]]))
    refused(folder, "check the lattice vectors")
    cell.write_text("\n".join([*lines[:1], "-1.0", *lines[2:]]))
    refused(folder, "positive scale")
    cell.write_text("\n".join(lines).replace("Zn", "Qq"))
    refused(folder, "expected the elements", "Qq")
    cell.write_text("\n".join(lines))
    (folder / "phonopy.conf").write_text("DIM = 3 2 2\n")
    refused(folder, "32 atoms", "48")
    (folder / "phonopy.conf").write_text("DIM = 900 900 900\n")
    refused(folder, "at most 5000 atoms")
    (folder / "phonopy.conf").write_text("DIM = 2 2 2\nQE = .TRUE.\n")
    refused(folder, "units of VASP", "qe")


def test_headers_that_lie(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    text = force_constants_text(zinc_oxide().blocks, zinc_oxide().p2s)
    for header in ("32 32", "4 31", "4000 4000", "4"):
        (folder / "FORCE_CONSTANTS").write_text(text.replace("4 32", header, 1))
        refused(folder, "header is wrong")
    (folder / "FORCE_CONSTANTS").write_text(text.replace("\n1 2\n", "\n1 3\n", 1))
    refused(folder, "pairs of atoms in order")
    (folder / "FORCE_CONSTANTS").write_text(force_constants_text(zinc_oxide().blocks, zinc_oxide().p2s + 1))
    refused(folder, "rows of the atoms")


def test_hdf5_without_its_map(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    write_hdf5(folder / "force_constants.hdf5", zinc_oxide().blocks)
    refused(folder, "p2s_map")


def test_a_supercell_of_other_force_constants(tmp_path):
    folder = zno_folder(tmp_path / "ZnO", "phonopy_disp.yaml")
    write_hdf5(folder / "force_constants.hdf5", full_of(read_crystal(SODIUM_CHLORATE, frequencies=False)))
    refused(folder, "20 atoms", "one of 32")


def test_yaml_runs_no_code(tmp_path):
    """phonopy's own loader would."""
    marker = tmp_path / "marker"
    bad = tmp_path / "phonopy_params.yaml"
    bad.write_text(f"phonopy: !!python/object/apply:os.system ['touch {marker}']\n" + ZR3N4.read_text())
    refused(bad, "YAML of phonopy")
    assert not marker.exists()
    bad.write_text("a: &a [1]\nb: *a\n" + ZR3N4.read_text())
    refused(bad, "aliases")


def test_units_that_contradict(tmp_path):
    text = lzma.decompress(RYDBERG_AND_BOHR.read_bytes()).decode()
    bad = tmp_path / "phonopy_params.yaml"
    bad.write_text(text.replace("Ry/au", "eV/angstrom", 1))
    refused(bad, "the units of qe", "ev/angstrom")
    bad.write_text(text.replace("calculator: qe", "calculator: mine", 1))
    refused(bad, "expected a calculator of phonopy", "mine")


def test_damaged_archives(tmp_path):
    whole, path = SODIUM_CHLORATE.read_bytes(), tmp_path / "x.tar.lzma"
    for data in (whole[:-20], whole[:500], whole + whole, b"no archive"):
        path.write_bytes(data)
        refused(path, "x.tar.lzma")
    path.write_bytes(gzip.compress(bytes(80 << 20), 1))
    refused(path, "x.tar.lzma", "inflates")
    refused(tmp_path / "none", "nothing there")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "found none of them")


def test_two_materials_in_one_archive(tmp_path):
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        archive.add(ZINC_OXIDE, "one")
        archive.add(ZINC_OXIDE, "two")
    with pytest.raises(DataError, match="one material"):
        open_source(tmp_path / "two.tar")


def test_displaced_atoms_that_do_not_stand_for_the_primitive_cell(tmp_path):
    """The forces of a translated displacement are the translated forces; phonopy fits compact ones of others only."""
    crystal, folder = zinc_oxide(), zno_folder(tmp_path / "ZnO", "POSCAR-unitcell")
    (folder / "phonopy.conf").write_text(CONF)
    words = [line for line in (ZINC_OXIDE / "FORCE_SETS").read_text().split("\n") if line.strip()]
    fractions = crystal.supercell.positions @ np.linalg.inv(crystal.supercell.cell)
    text, sets = words[:2], iter(words[2:])
    for _ in range(int(words[1])):
        number, displacement = int(next(sets)) - 1, next(sets)
        forces = [next(sets) for _ in range(32)]
        other = int(np.flatnonzero(crystal.s2p == crystal.s2p[number])[-1])
        apart = (fractions + fractions[number] - fractions[other])[:, None] - fractions
        images = np.linalg.norm(apart - np.rint(apart), axis=2).argmin(axis=1)
        assert other not in crystal.p2s
        text += [str(other + 1), displacement, *(forces[image] for image in images)]
    (folder / "FORCE_SETS").write_text("\n".join(text))
    same(read_crystal(folder), crystal, 1e-6)


def changed(cell, scale=1.0, numbers=None, positions=0.0):
    numbers = cell.numbers if numbers is None else numbers
    return dataclasses.replace(
        cell, numbers=numbers, cell=scale * cell.cell, positions=scale * cell.positions + positions
    )


CELLS = {
    "stretched a little": (lambda cell: changed(cell, 1.003), ""),
    "stretched": (lambda cell: changed(cell, 1.03), "another"),
    "other elements": (lambda cell: changed(cell, numbers=cell.numbers[::-1].copy()), "another"),
    "an atom elsewhere": (lambda cell: changed(cell, positions=np.eye(4, 3) * 0.2), "another"),
}


@pytest.mark.parametrize(("change", "words"), CELLS.values(), ids=CELLS)
def test_force_constants_of_other_cells(change, words):
    """What brings its own cells must have those of the structure: elements, order, places, size."""
    setting = read_cell(ZINC_OXIDE)
    other = with_structure(setting, change(structure_of(setting)))
    if not words:
        np.testing.assert_array_equal(read_blocks(ZINC_OXIDE, other), zinc_oxide().blocks)
        return
    with pytest.raises(DataError, match=words):
        read_blocks(ZINC_OXIDE, other)
