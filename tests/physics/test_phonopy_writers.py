"""What is written is read back by phonopy itself, and nothing is half-written."""

from __future__ import annotations

import dataclasses

import numpy as np
import phonopy
import pytest
from crystal_examples import NAMES, dfpt_example, example, file_of_dfpt
from phonopy.file_IO import parse_BORN, parse_FORCE_CONSTANTS, read_force_constants_hdf5
from phonopy.interface.vasp import read_vasp

import physics.phonopy_writers as writers
from data_tools.graph import DataError
from physics.force_constants import full_of
from physics.phonopy_bridge import phonopy_of
from physics.phonopy_writers import write_born, write_force_constants, write_phonopy_yaml, write_poscar

Q = ([0, 0, 0], [0.5, 0, 0.5], [0.11, -0.23, 0.41])


def frequencies(found):
    return np.array([found.get_frequencies(q) for q in Q[1:]])


@pytest.mark.parametrize("full", (True, False))
@pytest.mark.parametrize("ending", ("", ".hdf5"))
@pytest.mark.parametrize("name", NAMES)
def test_force_constants_are_read_back(tmp_path, name, ending, full):
    crystal, file, cell = example(name), tmp_path / f"force_constants{ending}", tmp_path / "SPOSCAR"
    write_force_constants(file, crystal, full)
    write_poscar(cell, crystal)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((file.name, cell.name))
    expected = full_of(crystal) if full else crystal.blocks
    if ending:
        found = read_force_constants_hdf5(str(file), p2s_map=crystal.p2s)
        assert np.array_equal(found, expected)
        unit = read_force_constants_hdf5(str(file), return_physical_unit=True)[1]
        assert unit == "eV/angstrom^2"
    else:
        found = parse_FORCE_CONSTANTS(str(file), p2s_map=crystal.p2s)
        assert np.abs(found - expected).max() < 1e-15
    read = phonopy.load(
        unitcell_filename=str(cell),
        supercell_matrix=np.eye(3, dtype=int),
        primitive_matrix=np.linalg.inv(crystal.supercell.cell.T) @ crystal.primitive_cell.T,
        force_constants_filename=str(file),
        is_nac=False,
        symmetrize_fc=False,
        log_level=0,
    )
    read.masses = crystal.masses[crystal.p2s]  # a POSCAR has none
    assert np.abs(frequencies(read) - frequencies(phonopy_of(crystal))).max() < 1e-8


def test_a_full_file_of_another_program_is_written_as_it_was(tmp_path):
    """Full to compact to full: not a bit of the values changes, and no other text than signs of 0 and the header."""
    crystal, text = dfpt_example(), file_of_dfpt()
    write_force_constants(tmp_path / "FORCE_CONSTANTS", crystal, full=True)
    written = (tmp_path / "FORCE_CONSTANTS").read_text()
    assert written.split() == text.split()


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_is_read_back(tmp_path, name):
    crystal, file = example(name), tmp_path / "phonopy_params.yaml"
    write_phonopy_yaml(file, crystal)
    read = phonopy.load(file, symmetrize_fc=False, log_level=0)
    assert np.abs(np.array(read.force_constants) - crystal.blocks).max() < 1e-15
    assert np.array_equal(read.primitive.p2s_map, crystal.p2s) and np.allclose(read.supercell.masses, crystal.masses)
    assert np.array_equal(read.supercell.numbers, crystal.supercell.numbers)
    expected = phonopy_of(crystal, nac=crystal.born is not None)
    assert (read.nac_params is None) == (name == "Si")
    shared = 1e-8 if name == "Si" else 1e-7  # phonopy's own decimals of charges
    assert np.abs(frequencies(read) - frequencies(expected)).max() < shared


@pytest.mark.parametrize("name", NAMES[1:])
def test_charges_are_read_back(tmp_path, name):
    crystal = example(name)
    write_born(tmp_path / "BORN", crystal)
    read = parse_BORN(phonopy_of(crystal).primitive, filename=str(tmp_path / "BORN"))
    assert np.abs(read["born"] - crystal.born).max() < 1e-12
    assert np.array_equal(read["dielectric"], crystal.dielectric)


def test_charges_that_are_absent_are_not_written(tmp_path):
    with pytest.raises(DataError, match="Si: expected Born charges"):
        write_born(tmp_path / "BORN", example("Si"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("primitive", (True, False))
def test_cells_are_read_back_in_their_order(tmp_path, primitive):
    """Elements that alternate are named as often as they change."""
    crystal = example("NaCl")
    order = np.arange(64).reshape(2, 32).T.reshape(-1)
    place = np.argsort(order)
    cell = dataclasses.replace(
        crystal.supercell, numbers=crystal.supercell.numbers[order], positions=crystal.supercell.positions[order]
    )
    other = dataclasses.replace(crystal, supercell=cell, p2s=place[crystal.p2s], s2p=place[crystal.s2p][order])
    write_poscar(tmp_path / "POSCAR", other, primitive)
    read = read_vasp(tmp_path / "POSCAR")
    atoms = other.p2s if primitive else np.arange(64)
    assert np.array_equal(read.numbers, cell.numbers[atoms])
    assert np.abs(read.cell - (other.primitive_cell if primitive else cell.cell)).max() < 1e-14
    away = (read.positions - cell.positions[atoms]) @ np.linalg.inv(read.cell)
    assert np.abs(away - np.rint(away)).max() < 1e-14


def test_a_writer_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "FORCE_CONSTANTS"
    file.write_text("before")

    def half(blocks, name, p2s_map):
        with open(name, "w") as stream:
            stream.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers, "write_FORCE_CONSTANTS", half)
    with pytest.raises(DataError, match=r"FORCE_CONSTANTS: expected a place to write .*No space left"):
        write_force_constants(file, example("Si"))
    assert file.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", (write_force_constants, write_phonopy_yaml, write_poscar, write_born))
def test_a_folder_that_is_not_there_is_named(tmp_path, write):
    with pytest.raises(DataError, match="nowhere/file: expected a place to write a file, found none"):
        write(tmp_path / "nowhere" / "file", example("NaCl"))
