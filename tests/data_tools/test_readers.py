"""Laws of the readers: the published formats agree, and units change once."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from published_files import PACKED, RAW, RAW_FILES, published_values, write_gdb9, write_tar

from data_tools import units
from data_tools.formats.readers import GEOMETRY_WARNING, read_smiles, read_table, read_xyz
from data_tools.graph import DataError, StructureTable
from data_tools.tables import ELEMENTS, select_rows

METHANE = RAW_FILES[0]


@pytest.fixture(scope="module")
def packed() -> StructureTable:
    return read_table(PACKED)


def assert_same(one: StructureTable, other: StructureTable, tolerance: float = 1e-12) -> None:
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.n_atoms, other.n_atoms)
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_allclose(one.positions, other.positions, rtol=0, atol=tolerance)
    assert one.label_names == other.label_names and not one.of_atoms
    for name, values in one.of_structures.items():
        np.testing.assert_allclose(values, other.of_structures[name], rtol=1e-12, err_msg=name)


# ---- units -----------------------------------------------------------------------------------------------------------


def test_constants_are_the_physical_ones():
    import ase.units  # noqa: PLC0415

    assert units.HARTREE == pytest.approx(ase.units.Hartree, rel=1e-8)
    assert units.KCAL_PER_MOL == pytest.approx(ase.units.kcal / ase.units.mol, rel=1e-6)


def test_elements_are_in_order():
    from ase.data import chemical_symbols  # noqa: PLC0415

    assert chemical_symbols[1:] == ELEMENTS


@pytest.mark.parametrize("path", RAW_FILES, ids=lambda path: path.stem)
def test_each_property_of_a_raw_file_is_converted_once(path):
    _, labels = read_xyz(path)
    in_hartree = {"homo", "lumo", "gap", "zpve", "U0", "U", "H", "G"}
    assert tuple(labels) == units.QM9_PROPERTIES
    for (name, value), published in zip(labels.items(), published_values(path), strict=True):
        assert value == pytest.approx(published * (27.211386246 if name in in_hartree else 1.0), rel=1e-14), name
    assert labels["gap"] == pytest.approx(labels["lumo"] - labels["homo"], abs=2e-4 * units.HARTREE)


def test_methane_is_methane():
    structure, labels = read_xyz(METHANE)
    assert structure.name == "gdb 1"
    assert structure.numbers.tolist() == [6, 1, 1, 1, 1]
    bonds = np.linalg.norm(structure.positions[1:] - structure.positions[0], axis=1)
    np.testing.assert_allclose(bonds, 1.092, atol=1e-3)
    assert labels["gap"] == pytest.approx(13.7363, abs=1e-4)


def test_mathematica_exponents(tmp_path):
    path = tmp_path / METHANE.name
    path.write_text(METHANE.read_text().replace("0.0080009958", "8.4813*^-6").replace("\t0.\t", "\t1.5*^-3\t"))
    structure, labels = read_xyz(path)
    assert structure.positions[0, 2] == 8.4813e-6
    assert labels["mu"] == 1.5e-3


# ---- the published formats agree -------------------------------------------------------------------------------------


def test_raw_file_equals_the_packed_row(packed):
    raw = read_table(RAW_FILES[-1])
    row = select_rows(packed, np.flatnonzero(packed.ids == 880))
    assert len(row) == 1
    np.testing.assert_array_equal(raw.numbers, row.numbers)
    np.testing.assert_allclose(raw.positions, row.positions, atol=1e-6)  # float32 in the packed file
    for name, values in raw.of_structures.items():
        np.testing.assert_allclose(values, row.of_structures[name], rtol=0, atol=8e-4, err_msg=name)


def test_gap_of_the_packed_file(packed):
    """The first packed molecule is ethane: gap 0.4426 Hartree in the published file."""
    assert packed.ids[0] == 7
    assert packed.of_structures["gap"][0] == pytest.approx(0.4426 * 27.211386246, rel=1e-12)


@pytest.mark.parametrize(("ending", "mode"), [("tar.bz2", "w:bz2"), ("tar.gz", "w:gz"), ("tar", "w")])
def test_archive_equals_folder(tmp_path, ending, mode):
    files = {f"dsgdb9nsd.xyz/{path.name}": path.read_bytes() for path in reversed(RAW_FILES)}
    archive = read_table(write_tar(tmp_path / f"dsgdb9nsd.xyz.{ending}", files, mode))
    assert_same(archive, read_table(RAW))
    assert archive.ids.tolist() == [1, 2, 90, 880]


def test_archive_without_an_ending(tmp_path):
    """Figshare serves the archive under the name 3195389."""
    path = write_tar(tmp_path / "3195389", {path.name: path.read_bytes() for path in RAW_FILES})
    assert_same(read_table(path), read_table(RAW))


def test_sdf_with_csv_equals_folder(tmp_path):
    sdf, table = write_gdb9(tmp_path, RAW_FILES)
    for source in (sdf, table, tmp_path):
        assert_same(read_table(source), read_table(RAW), tolerance=5.1e-5)  # SDF keeps four decimals


def test_gdb9_archive_equals_its_files(tmp_path):
    sdf, table = write_gdb9(tmp_path, RAW_FILES)
    files = {"gdb9.sdf": sdf.read_bytes(), "./gdb9.sdf.csv": table.read_bytes(), "notes.txt": b"x"}
    archive = write_tar(tmp_path / "gdb9.tar.gz", files, "w:gz")
    assert_same(read_table(archive), read_table(sdf))


@pytest.mark.parametrize("place", ["qm9.zip", "gdb9.tar.gz", "dsgdb9nsd.xyz.tar.bz2", "3195389", "qm9/raw", "raw"])
def test_a_folder_that_holds_a_published_file(place, tmp_path):
    """As users download them, and where the programs of others unpack them."""
    made, folder = tmp_path / "made", tmp_path / "dataset"
    made.mkdir()
    folder.mkdir()
    (folder / "train_mol_attrs.pkl").write_bytes(b"never read")
    files = {file.name: file.read_bytes() for file in write_gdb9(made, RAW_FILES)}
    if "raw" in place:
        (folder / place).mkdir(parents=True)
        for name, content in files.items():
            (folder / place / name).write_bytes(content)
    elif place == "qm9.zip":
        with zipfile.ZipFile(folder / place, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif place == "gdb9.tar.gz":
        write_tar(folder / place, files, "w:gz")
    else:
        write_tar(folder / place, {path.name: path.read_bytes() for path in RAW_FILES})
    assert_same(read_table(folder), read_table(RAW), tolerance=5.1e-5)  # SDF keeps four decimals


def test_of_two_published_files_the_one_with_more_decimals(tmp_path):
    write_tar(tmp_path / "dsgdb9nsd.xyz.tar.bz2", {path.name: path.read_bytes() for path in RAW_FILES})
    (tmp_path / "qm9.zip").write_bytes(b"not read")
    assert_same(read_table(tmp_path), read_table(RAW))


def test_a_folder_without_a_published_file_is_one_line(tmp_path):
    (tmp_path / "mol_attrs.pkl").write_bytes(b"never read")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path)
    assert all(name in str(caught.value) for name in ("dsgdb9nsd.xyz.tar.bz2", "qm9.zip", "gdb9.sdf", "found neither"))
    assert "\n" not in str(caught.value)


def test_extended_xyz_and_npz_equal_folder(tmp_path):
    import ase  # noqa: PLC0415
    import ase.io  # noqa: PLC0415

    folder = read_table(RAW)
    frames = []
    for path in RAW_FILES:
        structure, labels = read_xyz(path)
        info = {"gdb_index": int(structure.name.split()[1]), **labels}
        frames.append(ase.Atoms(structure.numbers, structure.positions, info=info))
    ase.io.write(tmp_path / "qm9.extxyz", frames, format="extxyz")
    assert_same(read_table(tmp_path / "qm9.extxyz"), folder, tolerance=1e-8)  # ASE writes eight decimals

    columns = dict(zip(units.QM9_PROPERTIES, np.transpose([published_values(p) for p in RAW_FILES]), strict=True))
    arrays = {"gdb_index": folder.ids, "n_atoms": folder.n_atoms, "Z": folder.numbers, "R": folder.positions}
    np.savez(tmp_path / "qm9.npz", **arrays, **columns)
    assert_same(read_table(tmp_path / "qm9.npz"), folder)


def test_packed_sample(packed):
    assert len(packed) == 22_807
    assert packed.n_atoms.sum() == len(packed.numbers) == len(packed.positions)
    assert set(packed.numbers.tolist()) == {1, 6, 7, 8, 9}
    assert dict(zip(*np.unique(packed.split, return_counts=True), strict=True)) == {
        "train": 10_834,
        "valid": 1_890,
        "test": 10_083,
    }
    assert tuple(packed.of_structures) == units.QM9_PROPERTIES
    assert "qm9_22807.npz sha256 " in packed.source


def test_geometries_alone_have_no_labels(tmp_path):
    np.savez(tmp_path / "geometries.npz", n_atoms=[1, 2], Z=[2, 1, 1], R=np.eye(3), smiles=["He", "[HH]"])
    table = read_table(tmp_path / "geometries.npz")
    assert table.label_names == ()
    assert table.ids.tolist() == [0, 1]
    assert table.source.endswith("arrays not read: smiles")


def test_select_rows_keeps_each_molecule_whole(packed):
    rows = np.array([5, 0, 22_806, 5])
    cut = select_rows(packed, rows)
    ends = np.cumsum(packed.n_atoms)
    expected = np.concatenate([packed.positions[ends[r] - packed.n_atoms[r] : ends[r]] for r in rows])
    np.testing.assert_array_equal(cut.positions, expected)
    np.testing.assert_array_equal(cut.of_structures["U0"], packed.of_structures["U0"][rows])


# ---- other molecules -------------------------------------------------------------------------------------------------


def test_plain_xyz_with_several_molecules(tmp_path):
    path = tmp_path / "two.xyz"
    path.write_text("3\nwater\nO 0 0 0.1\nH 0 0.76 -0.48\n1 0 -0.76 -0.48\n\n1\n\ncl 1e0 2 3 extra columns\n\n")
    table = read_table(path)
    assert table.names == ("water", "frame 1")
    assert table.numbers.tolist() == [8, 1, 1, 17]
    assert table.positions[3].tolist() == [1, 2, 3]
    assert table.label_names == () and table.cells is None


def test_extended_xyz_keeps_forces_cells_and_gaps_in_the_labels(tmp_path):
    path = tmp_path / "frames.xyz"
    path.write_text(
        '2\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 name=salt pbc="T T T"\n'
        "Na 0 0 0 0.1 0 0\nCl 1.5 1.5 1.5 -0.1 0 0\n"
        "1\nProperties=species:S:1:pos:R:3 energy=2.0 tag=word\nHe 0 0 0\n"
    )
    table = read_table(path)
    assert table.of_structures["energy"].tolist() == [-1.5, 2.0]
    np.testing.assert_array_equal(table.of_atoms["forces"], [[0.1, 0, 0], [-0.1, 0, 0], [np.nan] * 3])
    np.testing.assert_array_equal(table.cells, [np.eye(3) * 3, np.zeros((3, 3))])
    assert table.names == ("salt", "frame 1")
    assert set(table.label_names) == {"energy", "forces"}


def test_plain_sdf_with_several_molecules(tmp_path):
    sdf, table = write_gdb9(tmp_path, RAW_FILES[:3])
    table.unlink()
    read = read_table(sdf)
    assert read.names == ("gdb_1", "gdb_2", "gdb_90")
    np.testing.assert_allclose(read.positions[:5], read_xyz(METHANE)[0].positions, atol=5.1e-5)


def test_smiles_become_reproducible_geometries_with_a_warning(tmp_path):
    path = tmp_path / "molecules.smi"
    path.write_text("O water\n\nCCO\nc1ccccc1 the ring\n")
    table, warning = read_smiles(path)
    assert table.names == ("water", "CCO", "the ring")
    assert table.n_atoms.tolist() == [3, 9, 12]
    assert warning == GEOMETRY_WARNING and warning in read_table(path).source
    np.testing.assert_array_equal(table.positions, read_smiles(path)[0].positions)
    water = table.positions[:3]
    np.testing.assert_allclose(np.linalg.norm(water[1:] - water[0], axis=1), 0.97, atol=0.02)
