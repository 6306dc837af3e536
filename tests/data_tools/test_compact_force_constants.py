"""Force constants of many structures: those of some rows, of several tables, in a packed folder and damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from data_tools.crystals import crystal_of, table_of_crystals
from data_tools.graph import DataError, ForceConstants, Structure, StructureTable
from data_tools.graphs.packed import pack
from data_tools.graphs.packed_folder import MANIFEST, OF_FORCE_CONSTANTS, load, save
from data_tools.tables import check_table, join_tables, select_rows, table_of_structures

SIZES, PRIMITIVE = (4, 1, 2, 8), (2, 1, 0, 4)  # atoms of each supercell and of its primitive cell


def supercells(seed: int = 0, sizes: tuple[int, ...] = SIZES, primitive: tuple[int, ...] = PRIMITIVE) -> StructureTable:
    """Chains of copper in a cell, the third without force constants; blocks tell whose they are."""
    structures = [
        Structure(np.full(n, 29, np.int32), np.arange(n)[:, None] * np.array([2.5, 0, 0]), np.diag([2.5 * n, 6, 6]))
        for n in sizes
    ]
    random, both = np.random.default_rng(seed), list(zip(sizes, primitive, strict=True))
    p2s = [np.sort(random.permutation(n)[:p]) for n, p in both]
    constants = ForceConstants(
        blocks=random.normal(size=(sum(n * p for n, p in both), 3, 3)),
        n_primitive=np.array(primitive),
        p2s=np.concatenate(p2s),
        s2p=np.concatenate(
            [random.choice(one, n) if p else np.full(n, -1) for one, (n, p) in zip(p2s, both, strict=True)]
        ),
        masses=random.uniform(1, 200, sum(sizes)),
        primitive_cells=np.stack([np.diag([2.5 * p, 6.0, 6.0]) for p in primitive]),
        born=random.normal(size=(sum(primitive), 3, 3)),
        dielectric=random.normal(size=(len(sizes), 3, 3)),
        space_groups=random.integers(1, 230, len(sizes)),
        lowest_frequencies=random.normal(size=(len(sizes), 2)),
    )
    table = table_of_structures(Path("made"), structures, "made", {"energy": random.normal(size=len(sizes))})
    return check_table(Path("made"), dataclasses.replace(table, force_constants=constants))


def of_row(table: StructureTable, row: int) -> tuple[np.ndarray, ...]:
    """Blocks (p, n, 3, 3), p2s, masses and all other fields of one structure, cut out by hand."""
    constants, sizes = table.force_constants, table.n_atoms.tolist()
    cells = constants.n_primitive.tolist()
    first = sum(p * n for p, n in zip(cells[:row], sizes[:row], strict=True))
    p, n = cells[row], sizes[row]
    atoms, primitive = slice(sum(sizes[:row]), sum(sizes[: row + 1])), slice(sum(cells[:row]), sum(cells[: row + 1]))
    blocks = constants.blocks[first : first + p * n].reshape(p, n, 3, 3)
    of_atoms = constants.masses[atoms], constants.s2p[atoms]
    of_structures = constants.primitive_cells[row], constants.dielectric[row], constants.lowest_frequencies[row]
    return blocks, constants.p2s[primitive], *of_atoms, constants.born[primitive], *of_structures


def assert_same(one: StructureTable, row: int, other: StructureTable, place: int) -> None:
    for found, expected in zip(of_row(one, row), of_row(other, place), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rows", [[0], [3, 1], [2], [2, 2, 3, 0, 0], []])
def test_force_constants_of_some_rows(rows):
    whole = supercells()
    some = select_rows(whole, np.array(rows, np.int64))
    assert some.force_constants.n_primitive.tolist() == [PRIMITIVE[row] for row in rows]
    for place, row in enumerate(rows):
        assert_same(some, place, whole, row)
    if rows:
        check_table(Path("made"), some)


def test_force_constants_of_several_tables():
    first, bare, last = (
        supercells(),
        dataclasses.replace(supercells(1), force_constants=None),
        supercells(2, (3,), (1,)),
    )
    joined = join_tables([first, bare, last], ("a", "b", "c"))
    assert joined.force_constants.n_primitive.tolist() == [*PRIMITIVE, 0, 0, 0, 0, 1]
    for row in range(4):
        assert_same(joined, row, first, row)
        assert of_row(joined, 4 + row)[0].size == 0 and np.isnan(of_row(joined, 4 + row)[2]).all()
    assert_same(joined, 8, last, 0)
    check_table(Path("made"), joined)
    assert join_tables([bare, bare], ("a", "b")).force_constants is None


def test_packed_force_constants(tmp_path):
    before = supercells()
    save(pack(before, 4.0), tmp_path / "packed")
    after = load(tmp_path / "packed").table
    for row in range(len(before)):
        assert_same(after, row, before, row)
    described = json.loads((tmp_path / "packed" / MANIFEST).read_text())["arrays"]
    assert described["force_constants_blocks"] == {"owner": "blocks", "shape": [41, 3, 3], "unit": "eV/Angstrom^2"}
    assert described["force_constants_masses"] == {"owner": "atoms", "shape": [15], "unit": "u"}
    assert not after.force_constants.blocks.flags.owndata  # on disk until they are used


WRONG = {
    "blocks missing": {"blocks": np.zeros((40, 3, 3))},
    "blocks of another shape": {"blocks": np.zeros((41, 3))},
    "blocks not finite": {"blocks": np.full((41, 3, 3), np.nan)},
    "structures missing": {"n_primitive": np.array(PRIMITIVE[:3])},
    "more primitive atoms than atoms": {"n_primitive": np.array([5, 1, 0, 4])},
    "a negative number of primitive atoms": {"n_primitive": np.array([2, 1, -1, 4])},
    "primitive atoms missing": {"p2s": np.zeros(6, np.int64)},
    "a primitive atom of another structure": {"p2s": np.array([0, 4, 0, 0, 1, 2, 3])},
    "a negative primitive atom": {"p2s": np.array([0, -1, 0, 0, 1, 2, 3])},
    "masses missing": {"masses": np.ones(14)},
    "a mass of zero": {"masses": np.zeros(15)},
    "a mass without bound": {"masses": np.full(15, np.inf)},
    "a mass that is unknown": {"masses": np.full(15, np.nan)},
    "atoms of no primitive atom": {"s2p": np.full(15, 3)},
    "a map to another structure": {"s2p": np.full(15, 9)},
    "Born charges missing": {"born": np.zeros((6, 3, 3))},
    "a primitive cell without volume": {"primitive_cells": np.zeros((4, 3, 3))},
    "an infinite permittivity": {"dielectric": np.full((4, 3, 3), np.inf)},
}


@pytest.mark.parametrize("what", WRONG)
def test_force_constants_that_do_not_fit_are_refused(what, tmp_path):
    table = supercells()
    wrong = dataclasses.replace(table, force_constants=dataclasses.replace(table.force_constants, **WRONG[what]))
    with pytest.raises(DataError, match=r"^made: expected .*; (the file is inconsistent|correct the file)$"):
        check_table(Path("made"), wrong)
    save(pack(wrong, 4.0), tmp_path / "packed")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "packed")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / "packed"))


@pytest.mark.parametrize("name", OF_FORCE_CONSTANTS)
def test_a_folder_that_lacks_a_part_of_the_force_constants(name, tmp_path):
    save(pack(supercells(), 4.0), tmp_path / "packed")
    manifest = tmp_path / "packed" / MANIFEST
    content = json.loads(manifest.read_text())
    del content["arrays"][name]
    manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"the arrays {name} are missing"):
        load(tmp_path / "packed")


def test_a_crystal_of_a_table_and_a_table_of_crystals():
    before = supercells()
    crystals = [crystal_of(before, row) for row in (0, 1, 3)]
    after = table_of_crystals(Path("made"), crystals, "made")
    for place, row in enumerate((0, 1, 3)):
        assert_same(after, place, before, row)
        assert crystals[place].blocks.shape == (PRIMITIVE[row], SIZES[row], 3, 3)
        assert crystals[place].space_group == before.force_constants.space_groups[row]
    with pytest.raises(DataError, match="expected a crystal with force constants"):
        crystal_of(before, 2)


def test_missing_charges_are_none_and_missing_again():
    crystal = dataclasses.replace(crystal_of(supercells(), 0), born=None, dielectric=None)
    table = table_of_crystals(Path("made"), [crystal], "made")
    assert np.isnan(table.force_constants.born).all() and np.isnan(table.force_constants.dielectric).all()
    assert crystal_of(table, 0).born is None and crystal_of(table, 0).dielectric is None
