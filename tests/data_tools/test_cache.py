"""Packed graph folders: what comes back is what went in, on disk until used, and damage is one clear line."""

import json
import os

import ase.build
import numpy as np
import pytest

from data_tools.graph import DataError, Structure, StructureTable
from data_tools.graphs.batching import build_graph
from data_tools.graphs.packed import pack
from data_tools.graphs.packed_folder import MANIFEST, REQUIRED, is_packed, load, save

CUTOFF = 4.0


def make_table(**changes):
    atoms = [ase.build.molecule(name) for name in ("CH3CH2OH", "H2O", "C6H6")]
    content = {
        "numbers": np.concatenate([one.numbers for one in atoms]).astype(np.int32),
        "positions": np.concatenate([one.positions for one in atoms]),
        "n_atoms": np.array([len(one) for one in atoms]),
        "ids": np.array([12, 3, 7]),
        "of_structures": {"gap": np.array([1.0, np.nan, 3.0])},
        "of_atoms": {"forces": np.ones((24, 3))},
        "names": ("ethanol", "water", "benzene"),
        "split": np.array(["train", "test", "train"]),
        "source": "molecules.xyz sha256 0123",
    }
    return StructureTable(**{**content, **changes})


@pytest.fixture
def folder(tmp_path):
    save(pack(make_table(), CUTOFF), tmp_path / "packed")
    return tmp_path / "packed"


def test_pairs_are_those_of_each_structure():
    table = make_table()
    packed = pack(table, CUTOFF)
    for row, (atom, pair) in enumerate(zip(packed.atom_starts, packed.pair_starts, strict=True)):
        atoms = slice(atom, atom + table.n_atoms[row])
        graph = build_graph(Structure(table.numbers[atoms], table.positions[atoms]), CUTOFF)
        half, pairs = len(graph.senders) // 2, slice(pair, pair + packed.n_pairs[row])
        assert np.array_equal(packed.pair_receivers[pairs], graph.receivers[:half])
        assert np.array_equal(packed.pair_senders[pairs], graph.senders[:half])


def test_what_comes_back_is_what_went_in(folder):
    before, after = pack(make_table(), CUTOFF), load(folder)
    assert len(after) == 3 and after.cutoff == CUTOFF and is_packed(folder)
    for name in ("n_pairs", "pair_receivers", "pair_senders", "atom_starts", "pair_starts"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    for name in ("numbers", "positions", "n_atoms", "ids", "split"):
        assert np.array_equal(getattr(before.table, name), getattr(after.table, name))
    assert after.table.names == before.table.names and after.table.source == before.table.source
    assert after.table.label_names == before.table.label_names and after.table.cells is None
    np.testing.assert_array_equal(before.table.of_structures["gap"], after.table.of_structures["gap"])
    np.testing.assert_array_equal(before.table.of_atoms["forces"], after.table.of_atoms["forces"])


def test_the_manifest_says_whose_each_array_is(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == "geospore-packed-graphs-2" and manifest["origin"] == ""
    assert manifest["arrays"]["structure_gap"] == {"owner": "structures", "shape": [3], "unit": "eV"}
    assert manifest["arrays"]["atom_forces"] == {"owner": "atoms", "shape": [24, 3], "unit": "eV/Angstrom"}
    assert manifest["arrays"]["pair_senders"]["owner"] == "pairs"
    assert {path.stem for path in folder.glob("*.npy")} == set(manifest["arrays"])


@pytest.mark.parametrize("label", ["a/b", "../up", "50 %", "Ladung ä", "structure_gap", "numbers"])
def test_labels_of_any_name(tmp_path, label):
    """Also those that would be another file, or the name of another array."""
    save(pack(make_table(of_structures={label: np.arange(3.0)}), CUTOFF), tmp_path / "packed")
    assert load(tmp_path / "packed").table.of_structures[label].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_arrays_stay_on_disk(folder):
    packed = load(folder)
    for array in (packed.table.positions, packed.pair_senders, packed.table.of_structures["gap"]):
        base = array
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap) and not array.flags.writeable


def test_crystals_and_molecules_together(tmp_path):
    salt = ase.build.bulk("NaCl", "rocksalt", 5.64)
    water = ase.build.molecule("H2O")
    table = StructureTable(
        numbers=np.concatenate((salt.numbers, water.numbers)).astype(np.int32),
        positions=np.concatenate((salt.positions, water.positions)),
        n_atoms=np.array([2, 3]),
        ids=np.arange(2),
        cells=np.stack((np.array(salt.cell), np.zeros((3, 3)))),
    )
    save(pack(table, CUTOFF), tmp_path / "crystals")
    packed = load(tmp_path / "crystals")
    graph = build_graph(Structure(salt.numbers, salt.positions, np.array(salt.cell)), CUTOFF)
    count = packed.n_pairs[0]
    assert packed.n_pairs.tolist() == [len(graph.senders) // 2, 3] and np.array_equal(packed.table.cells, table.cells)
    assert np.array_equal(packed.pair_shifts[:count], graph.shifts[: len(graph.shifts) // 2])
    assert not packed.pair_shifts[count:].any()


def test_unusable_requests():
    with pytest.raises(DataError, match="cutoff 0 Angstrom: expected a positive number"):
        pack(make_table(), 0)
    with pytest.raises(DataError, match="cutoff nan"):
        pack(make_table(), float("nan"))
    empty = make_table(
        numbers=np.zeros(0, int), positions=np.zeros((0, 3)), n_atoms=np.zeros(0, int), ids=np.zeros(0, int), names=()
    )
    with pytest.raises(DataError, match="no structures to pack"):
        pack(empty, CUTOFF)
    twins = make_table(positions=np.zeros((24, 3)))
    with pytest.raises(DataError, match="atoms 0 and 1"):
        pack(twins, CUTOFF)


def test_errors_name_the_structure():
    positions = make_table().positions.copy()
    positions[10] = positions[9]
    with pytest.raises(DataError, match=r"^molecules.xyz: water: atoms 0 and 1 are"):
        pack(make_table(positions=positions), CUTOFF)
    with pytest.raises(DataError, match=r"^molecules.xyz: structure 3: atoms"):
        pack(make_table(positions=positions, names=()), CUTOFF)


def test_saving_again_replaces_the_folder(folder):
    save(pack(make_table(), 2.0), folder)
    assert load(folder).cutoff == 2.0
    assert [path.name for path in folder.parent.iterdir()] == ["packed"]  # no temporary folder is left


def test_foreign_folders_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="found other files; choose another name"):
        save(pack(make_table(), CUTOFF), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_write_leaves_the_old_folder(folder, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save(pack(make_table(), 2.0), folder)
    monkeypatch.undo()
    assert load(folder).cutoff == CUTOFF
    assert [path.name for path in folder.parent.iterdir()] == ["packed"]


def edit_manifest(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def drop_from_manifest(folder, name):
    content = json.loads((folder / MANIFEST).read_text())
    del content[name]
    (folder / MANIFEST).write_text(json.dumps(content))


def edit_array(folder, name, **changes):
    arrays = json.loads((folder / MANIFEST).read_text())["arrays"]
    edit_manifest(folder, arrays={**arrays, name: {**arrays.get(name, {}), **changes}})


def add_array(folder, name, values, owner="structures", unit=""):
    np.save(folder / f"{name}.npy", values)
    edit_array(folder, name, owner=owner, shape=list(values.shape), unit=unit)


def cut(path, length):
    os.truncate(path, length)


def shorten(path):
    np.save(path, np.load(path)[:-1])


DAMAGES = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "readable manifest.json"),
    "cut manifest": (lambda folder: cut(folder / MANIFEST, 40), "readable manifest.json"),
    "manifest of a list": (lambda folder: (folder / MANIFEST).write_text("[1]"), "readable manifest.json"),
    "other format": (
        lambda folder: edit_manifest(folder, format="other-9"),
        "expected format geospore-packed-graphs-2",
    ),
    "no cutoff": (lambda folder: edit_manifest(folder, cutoff_angstrom=None), "readable manifest.json"),
    "shapes are no lists": (lambda folder: edit_manifest(folder, arrays={"numbers": 5}), "readable manifest.json"),
    "array without an owner": (
        lambda folder: edit_manifest(folder, arrays={"numbers": {"shape": [24], "unit": ""}}),
        "readable manifest.json",
    ),
    "no origin": (lambda folder: drop_from_manifest(folder, "origin"), "readable manifest.json"),
    "another owner": (
        lambda folder: edit_array(folder, "structure_gap", owner="atoms"),
        "structure_gap.npy: expected the owner structures and the unit 'eV', manifest.json says the owner atoms and",
    ),
    "another unit": (lambda folder: edit_array(folder, "atom_forces", unit="Hartree"), "and the unit 'Hartree'; build"),
    "array nobody knows": (lambda folder: add_array(folder, "label_gap", np.zeros(3)), "expected no such array"),
    "label of atoms as one of structures": (
        lambda folder: add_array(folder, "structure_charges", np.zeros(24)),
        "expected 3 structures, 24 atoms",
    ),
    "label of structures as one of atoms": (
        lambda folder: add_array(folder, "atom_mass", np.zeros(3), "atoms"),
        "found 3 in atom_mass; build",
    ),
    "label of both": (
        lambda folder: add_array(folder, "atom_gap", np.zeros(24), "atoms", "eV"),
        "expected gap to be a label of structures or of atoms, found both",
    ),
    "label of whole numbers": (
        lambda folder: add_array(folder, "structure_charge", np.zeros(3, int)),
        "structure_charge.npy: expected another type",
    ),
    "array missing": (lambda folder: (folder / "positions.npy").unlink(), "positions.npy: missing or damaged"),
    "array cut": (lambda folder: cut(folder / "pair_senders.npy", 130), "pair_senders.npy: missing or damaged"),
    "array empty": (lambda folder: cut(folder / "numbers.npy", 0), "numbers.npy: missing or damaged"),
    "array shorter": (lambda folder: shorten(folder / "structure_gap.npy"), "structure_gap.npy: expected shape"),
    "text instead": (lambda folder: (folder / "ids.npy").write_text("ids"), "ids.npy: missing or damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_clear_line(folder, name):
    damage, words = DAMAGES[name]
    damage(folder)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "header", ["{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 8)}", r"{'descr': '<f8\>'}"]
)
def test_a_damaged_header_is_nothing_but_that_line(folder, recwarn, header):
    """NumPy warns of a size that overflows and of odd escapes, which would be more lines."""
    content = (header + " " * 100)[:117].encode() + b"\n"
    (folder / "ids.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content)
    with pytest.raises(DataError, match=r"ids\.npy: missing or damaged"):
        load(folder)
    assert not recwarn.list


@pytest.mark.parametrize("name", REQUIRED)
def test_an_array_missing_from_the_manifest(folder, name):
    arrays = json.loads((folder / MANIFEST).read_text())["arrays"]
    edit_manifest(folder, arrays={key: shape for key, shape in arrays.items() if key != name})
    with pytest.raises(DataError, match=f"the arrays {name} are missing; build it again"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["numbers", "positions", "pair_senders", "pair_receivers", "n_atoms", "n_pairs", "ids"]
)
def test_counts_that_do_not_add_up(folder, name):
    """An array and the manifest agree with each other but not with the rest."""
    shorten(folder / f"{name}.npy")
    arrays = json.loads((folder / MANIFEST).read_text())["arrays"]
    shape = list(np.load(folder / f"{name}.npy").shape)
    edit_manifest(folder, arrays={**arrays, name: {**arrays[name], "shape": shape}})
    with pytest.raises(DataError, match="build the folder again"):
        load(folder)


def test_no_folder_at_all(tmp_path):
    assert not is_packed(tmp_path)
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match="expected a packed graph folder"):
            load(path)
