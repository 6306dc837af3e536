"""A label belongs to structures or to atoms because the table says so, also where both are equally many."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset import make_dataset, open_graphs, open_two_files, resolve_task
from data_tools.formats.readers import read_table
from data_tools.graph import Budget, DataError, Labels, Structure, StructureTable
from data_tools.graphs.batching import pad, take
from data_tools.graphs.loader import training_batches
from data_tools.graphs.packed import PackedGraphs, pack
from data_tools.graphs.packed_folder import load, save
from data_tools.labels.providers import StoredLabels
from data_tools.labels.splits import Split, make_split
from data_tools.labels.targets import get_target, label_values
from data_tools.tables import check_table, join_tables, select_rows, table_of_structures

CUTOFF = 4.0
OF_STRUCTURES = {"energy": (), "stress": (3, 3), "dipole": (3,)}  # shape of a row
OF_ATOMS = {"forces": (3,), "charges": (), "born": (3, 3)}


def crystals(count: int = 3, seed: int = 0, size: int = 1) -> StructureTable:
    """Cubic crystals of ``size`` atoms, with labels of every shape that a structure or an atom may have."""
    random = np.random.default_rng(seed)
    structures = [
        Structure(np.full(size, 29, np.int32), np.arange(size)[:, None] * np.full(3, 1.5), np.eye(3) * (2.5 + k / 10))
        for k in range(count)
    ]
    of_structures = {name: random.normal(size=(count, *row)) for name, row in OF_STRUCTURES.items()}
    of_atoms = {name: random.normal(size=(count * size, *row)) for name, row in OF_ATOMS.items()}
    return table_of_structures(Path("made"), structures, "made", of_structures, of_atoms)


def assert_rows(table: StructureTable, whole: StructureTable, rows: list[int]) -> None:
    """The labels of a table are those of some rows of another, whose structures have one atom each."""
    assert table.of_structures.keys() == OF_STRUCTURES.keys() and table.of_atoms.keys() == OF_ATOMS.keys()
    for name, values in table.of_structures.items():
        np.testing.assert_array_equal(values, whole.of_structures[name][rows], err_msg=name)
    for name, values in table.of_atoms.items():
        np.testing.assert_array_equal(values, whole.of_atoms[name][rows], err_msg=name)


def test_rows_of_crystals_of_one_atom():
    whole = crystals()
    for rows in ([1], [2, 0], [0, 0, 2, 1]):
        assert_rows(select_rows(whole, np.array(rows)), whole, rows)
    assert_rows(select_rows(whole, np.array([False, False, True])), whole, [2])


def test_rows_of_larger_crystals_keep_the_labels_of_their_own_atoms():
    whole = crystals(size=2)
    one = select_rows(whole, np.array([2, 1]))
    for name, values in one.of_structures.items():
        np.testing.assert_array_equal(values, whole.of_structures[name][[2, 1]])
    for name, values in one.of_atoms.items():
        np.testing.assert_array_equal(values, whole.of_atoms[name][[4, 5, 2, 3]])


def test_join_of_crystals_of_one_atom_with_others():
    first, second = crystals(), crystals(2, seed=1, size=2)
    del second.of_structures["stress"], second.of_atoms["forces"]
    joined = join_tables([first, second], ("a", "b"))
    assert_rows(select_rows(joined, np.arange(3)), first, [0, 1, 2])
    assert joined.of_structures["stress"].shape == (5, 3, 3) and np.isnan(joined.of_structures["stress"][3:]).all()
    assert joined.of_atoms["forces"].shape == (7, 3) and np.isnan(joined.of_atoms["forces"][3:]).all()
    np.testing.assert_array_equal(joined.of_structures["dipole"][3:], second.of_structures["dipole"])
    np.testing.assert_array_equal(joined.of_atoms["born"][3:], second.of_atoms["born"])
    check_table(Path("joined"), joined)


def test_labels_that_two_tables_mean_differently_are_left_out_of_both():
    first, second = crystals(), crystals(seed=1)
    first.of_structures["odd"], second.of_structures["odd"] = np.zeros((3, 2)), np.zeros((3, 4))
    first.of_structures["whose"], second.of_atoms["whose"] = np.zeros(3), np.zeros(3)
    joined = join_tables([first, second], ("a", "b"))
    assert joined.unread == ("odd", "whose") and not {"odd", "whose"} & set(joined.label_names)


def test_packed_crystals_of_one_atom(tmp_path):
    whole = crystals()
    save(pack(whole, CUTOFF), tmp_path / "packed")
    assert_rows(load(tmp_path / "packed").table, whole, [0, 1, 2])
    names = {path.stem for path in (tmp_path / "packed").glob("*.npy")}
    assert {"structure_stress", "structure_dipole", "atom_forces", "atom_born"} < names


def test_the_label_of_one_crystal_is_its_own():
    whole = crystals()
    found = label_values(select_rows(whole, np.array([2])), get_target("energy"), "none")
    assert found.tolist() == [whole.of_structures["energy"][2]]
    charges = dataclasses.replace(whole, of_structures={}, of_atoms={"energy": np.zeros(3)})
    with pytest.raises(DataError, match="the data hold no label 'energy'"):
        label_values(charges, get_target("energy"), "none")


def test_batches_of_crystals_of_one_atom():
    """Three graphs of one node each: what is padded to the graphs and what to the nodes is the owner's choice."""
    packed = pack(crystals(), CUTOFF)
    table, rows = packed.table, np.array([2, 0])
    labels = StoredLabels(packed, table.of_structures, table.of_atoms)(rows)
    ragged = take(packed, rows)
    batch = pad(ragged, Budget(6, 2 * len(ragged.senders) + 4, 0, 4), CUTOFF, np.float64, labels, rows)
    for name, row in OF_STRUCTURES.items():
        assert batch.targets[name].shape == batch.masks[name].shape == (4, *row)
        np.testing.assert_array_equal(batch.targets[name][:2], table.of_structures[name][rows])
    for name, row in OF_ATOMS.items():
        assert batch.targets[name].shape == batch.masks[name].shape == (6, *row)
        np.testing.assert_array_equal(batch.targets[name][:2], table.of_atoms[name][rows])
    assert list(batch.targets) == [*OF_STRUCTURES, *OF_ATOMS] and batch.probes is None
    for name in batch.targets:
        assert not batch.targets[name][2:].any() and not batch.masks[name][2:].any() and batch.masks[name][:2].all()


def test_labels_that_do_not_fit_a_batch():
    packed = pack(crystals(), CUTOFF)
    ragged = take(packed, np.arange(3))
    budget = Budget(4, 2 * len(ragged.senders), 0, 4)
    for labels, words in (
        (Labels({"a": np.zeros(2)}, {}), "label a: expected one row for each graph, 3 in this batch, got 2"),
        (Labels({}, {"a": np.zeros(4)}), "label a: expected one row for each node, 3 in this batch, got 4"),
        (Labels({"a": np.zeros(3)}, {"a": np.zeros(3)}), "got 3 and one of the graphs of the same name"),
        (Labels({}, {}, np.zeros((2, 3))), r"probes: expected shape \(3, 3\), got \(2, 3\)"),
    ):
        with pytest.raises(DataError, match=words):
            pad(ragged, budget, CUTOFF, labels=labels)


# ---- providers -------------------------------------------------------------------------------------------------------


class RandomProbes:
    """What a provider may be: labels and probes that are a function of (seed, draw, row)."""

    def __init__(self, packed: PackedGraphs, seed: int):
        self.packed, self.seed = packed, seed

    def __call__(self, rows: np.ndarray, draws: int | np.ndarray) -> Labels:
        sizes, numbers = self.packed.table.n_atoms, np.broadcast_to(draws, rows.shape)
        found = [
            np.random.default_rng([self.seed, draw, row]).normal(size=(sizes[row], 3))
            for row, draw in zip(rows, numbers, strict=True)
        ]
        probes = np.concatenate([np.zeros((0, 3)), *found])
        return Labels({"number": np.array([one.sum() for one in found])}, {"twice": 2 * probes}, probes)


def batches_of(packed: PackedGraphs, provider, rank: int = 0, size: int = 1):
    return training_batches(packed, np.arange(len(packed)), provider, 5, 3, 4, 2, np.float64, rank, size)


def test_probes_survive_a_resume_and_any_number_of_processes():
    packed = pack(join_tables([crystals(7), crystals(6, seed=1, size=2)], ("a", "b")), CUTOFF)
    provider = RandomProbes(packed, 11)
    alone = batches_of(packed, provider)
    for epoch in (0, 3):
        whole = list(alone.epoch(epoch))
        for before, after in zip(whole[1:], batches_of(packed, provider).epoch(epoch, start=1), strict=True):
            assert np.array_equal(before.rows, after.rows) and before.known == after.known
            for name in before.part.targets:
                assert np.array_equal(before.part.targets[name], after.part.targets[name])
            assert np.array_equal(before.part.probes, after.part.probes)
        parts = [list(batches_of(packed, provider, rank, 3).epoch(epoch)) for rank in range(3)]
        for batch, *shared in zip(whole, *parts, strict=True):
            assert all(one.known == batch.known for one in shared)
            assert sum(len(one.part.ids) for one in shared) == len(batch.rows)
            for one in (batch, *shared):
                real = np.concatenate([provider(np.array([row]), epoch).probes for row in one.part.ids])
                assert np.array_equal(one.part.probes[: len(real)], real) and not one.part.probes[len(real) :].any()
                assert np.array_equal(one.part.targets["twice"], 2 * one.part.probes)
    assert not np.array_equal(next(alone.epoch(0)).part.probes[:1], next(alone.epoch(1)).part.probes[:1])


def test_batches_to_compile_with_have_the_shapes_of_the_others():
    packed = pack(crystals(9), CUTOFF)
    batches = batches_of(packed, RandomProbes(packed, 0))
    batch, ghosts = next(batches.epoch(0)).part, next(batches.ghost_batches())
    assert {name: values.shape[1:] for name, values in ghosts.targets.items()} == {"number": (), "twice": (3,)}
    assert len(ghosts.targets["number"]) == len(batch.targets["number"])
    assert ghosts.probes.shape == (len(ghosts.inputs.numbers), 3) and not ghosts.probes.any()


def test_known_numbers_are_counted_over_the_whole_batch():
    table = crystals(6, size=2)
    table.of_structures["stress"][[1, 4]] = np.nan
    table.of_atoms["forces"][0] = np.nan
    packed = pack(table, CUTOFF)
    provider = StoredLabels(packed, {"stress": table.of_structures["stress"]}, {"forces": table.of_atoms["forces"]})
    for size in (1, 2):
        batches = training_batches(packed, np.arange(6), provider, 6, 0, 1, 1, np.float64, size - 1, size)
        (batch,) = batches.epoch(0)
        assert batch.known == {"stress": 4 * 9, "forces": 11 * 3}


def test_a_data_set_provides_what_is_asked_for():
    table = crystals(6)
    table.of_structures["stress"][:5] = np.nan
    task = resolve_task("energy")
    parts = Split(np.arange(4), np.array([4]), np.array([5]), "made")
    dataset = make_dataset(pack(table, CUTOFF), parts, task)
    labels = dataset.standardised(("energy", "forces"))(np.array([3, 0, 5]), 0)
    assert list(labels.of_graphs) == ["energy"] and list(labels.of_nodes) == ["forces"] and labels.probes is None
    scale = dataset.normalizer.scale
    np.testing.assert_allclose(labels.of_nodes["forces"] * scale, table.of_atoms["forces"][[3, 0, 5]])
    assert np.isnan(labels.of_graphs["energy"][2]) and np.isfinite(labels.of_graphs["energy"][:2]).all()
    with pytest.raises(DataError, match=r"made: expected stress in the training rows, found none; give data with"):
        dataset.standardised(("stress",))
    table.of_structures["stress"][[1, 4]] = np.eye(3)  # a training and a validation row
    found = dataset.standardised(("stress",))(np.array([1, 2]), 0).of_graphs["stress"]
    np.testing.assert_allclose(found[0] * scale, np.eye(3))
    assert np.isnan(found[1]).all()


# ---- readers ---------------------------------------------------------------------------------------------------------


def one_atom_frames(path: Path, columns: str = "", comment: str = "energy=-1", atom: str = "") -> Path:
    frame = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3'
    path.write_text("".join(f"1\n{frame}{columns} {comment}\nCu 0 0 0 {atom}\n" for _ in range(3)))
    return path


def test_columns_of_atoms_are_no_labels_of_structures(tmp_path):
    """Frames of one atom: as many numbers of atoms as of structures."""
    path = one_atom_frames(tmp_path / "a.xyz", ":height:R:1", 'energy=-1 dipole="1 2 3"', "0.5")
    table = read_table(path)
    assert {name: values.shape for name, values in table.of_structures.items()} == {"energy": (3,), "dipole": (3, 3)}
    assert {name: values.shape for name, values in table.of_atoms.items()} == {"height": (3,)}
    with pytest.raises(DataError, match=r"expected one number per structure as energy, found .* \(3,\) of the atoms"):
        read_table(path, keys={"energy": "height"})
    with pytest.raises(DataError, match=r"expected three numbers per atom as forces, .* \(3, 3\) of the structures"):
        read_table(path, keys={"forces": "dipole"})


def test_a_name_of_both_owners_is_refused():
    table = crystals()
    table.of_atoms["energy"] = np.zeros(3)
    with pytest.raises(DataError, match="expected energy to be a label of structures or of atoms, found both"):
        check_table(Path("a.xyz"), table)
    for owner, count in (("structure", 3), ("atom", 6)):
        table = crystals(size=2)
        (table.of_structures if owner == "structure" else table.of_atoms)["x"] = np.zeros(9 - count)
        with pytest.raises(DataError, match=f"expected one row of x for each {owner}, {count} in all, found an array"):
            check_table(Path("a.xyz"), table)


# ---- identities ------------------------------------------------------------------------------------------------------


def materials(path: Path, key: str, count: int = 20) -> Path:
    lines = []
    for k in range(count):
        lattice = f"{2.4 + k / 100} 0 0 0 2.5 0 0 0 2.5"
        lines += ["1", f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 energy={-k} {key}=mp-{149 + k}', "Si 0 0 0"]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("key", ["name", "material_id", "mp_id"])
def test_names_of_the_materials_project(tmp_path, key):
    """They are names in every format, are neither gdb indices nor left out, and can be packed and divided."""
    path = materials(tmp_path / "a.xyz", key)
    packed = open_graphs(path, CUTOFF)
    assert packed.table.names[:2] == ("mp-149", "mp-150") and packed.table.origin == "" and not packed.table.unread
    save(packed, tmp_path / "packed")
    again = open_graphs(tmp_path / "packed", CUTOFF).table
    assert again.names == packed.table.names and again.origin == ""
    parts = make_split("random", again, train_size=10, valid_size=4, test_size=4)
    assert len(make_dataset(packed, parts, resolve_task("energy")).standardised()(parts.train, 0).of_graphs["energy"])
    both = open_two_files(str(path), str(path), CUTOFF).table
    assert both.names[0] == "train: mp-149" and both.origin == ""


def test_numbers_of_the_materials_project_are_no_gdb_indices(tmp_path):
    """Positive whole numbers without names, some of them gdb indices of molecules that QM9 leaves out."""
    table = dataclasses.replace(crystals(20), ids=np.arange(1, 21) * 7)
    save(pack(table, CUTOFF), tmp_path / "packed")
    again = open_graphs(tmp_path / "packed", CUTOFF).table
    assert again.ids.tolist() == table.ids.tolist() and again.origin == "" and len(again) == 20
    with pytest.raises(DataError, match="these data are not QM9"):
        make_split("cormorant", again)
