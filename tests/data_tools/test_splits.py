"""Splits are the published ones, disjoint, repeatable, and survive their files; what cannot be served is an error."""

import os
from dataclasses import replace

import numpy as np
import pytest

from data_tools.formats.readers import read_table
from data_tools.graph import DataError, StructureTable
from data_tools.labels.split_sizes import SIZES, fit_sizes
from data_tools.labels.splits import (
    CORMORANT_FILE,
    Split,
    contains_element,
    fluorine_mask,
    load_split,
    make_split,
    save_split,
)

PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def table():
    return read_table(CORMORANT_FILE.parent / "qm9_22807.npz")


@pytest.fixture(scope="module")
def published():
    with np.load(CORMORANT_FILE, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


def table_of(ids) -> StructureTable:
    """One hydrogen atom per id: splits look at nothing else."""
    count = len(ids)
    numbers, n_atoms = np.ones(count, np.int32), np.ones(count, np.int64)
    return StructureTable(numbers, np.zeros((count, 3)), n_atoms, np.asarray(ids), origin="qm9")


@pytest.fixture(scope="module")
def full_table(published):
    return table_of(np.setdiff1d(np.arange(1, 133_886), published["excluded"]))


def same(one: Split, other: Split) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in PARTS)


def test_the_sample_split_is_its_definition(table):
    split = make_split("sample", table)
    order = np.random.default_rng(0).permutation(22_807)
    np.testing.assert_array_equal(split.test, order[:2_807])
    np.testing.assert_array_equal(split.valid, order[2_807:4_807])
    np.testing.assert_array_equal(split.train, order[4_807:])
    assert len(split.train) == 18_000 and split.train.dtype == np.int64
    lite, mini = make_split("sample", table, train_size=10_000), make_split("sample", table, train_size=5_000)
    np.testing.assert_array_equal(lite.train, order[4_807:14_807])
    np.testing.assert_array_equal(mini.train, lite.train[:5_000])
    np.testing.assert_array_equal(lite.test, split.test)
    assert lite.name != mini.name != split.name == "sample"


def test_the_sample_split_refuses_other_molecules_and_another_order(table, full_table):
    with pytest.raises(DataError, match="22,807"):
        make_split("sample", full_table)
    with pytest.raises(DataError, match="another order"):
        make_split("sample", replace(table, ids=table.ids[::-1]))


def test_the_cormorant_split_of_all_of_qm9_is_the_published_one(full_table, published):
    split = make_split("cormorant", full_table)
    assert [len(getattr(split, part)) for part in PARTS] == [100_000, 17_748, 13_083]
    for part in PARTS:
        np.testing.assert_array_equal(full_table.ids[getattr(split, part)], published[part])


def test_the_cormorant_split_of_the_shipped_molecules_agrees_with_their_labels(table):
    split, labelled = make_split("cormorant", table), make_split("labelled", table)
    assert [len(getattr(split, part)) for part in PARTS] == [10_834, 1_890, 10_083]
    for part in PARTS:
        np.testing.assert_array_equal(np.sort(getattr(split, part)), getattr(labelled, part))
        assert set(table.split[getattr(split, part)]) == {part}


def test_the_cormorant_split_leaves_out_the_excluded_and_refuses_ids_that_are_not_gdb_indices(published):
    raw = table_of(np.arange(1, 133_886))
    split = make_split("cormorant", raw)
    assert not np.isin(raw.ids[np.concatenate([split.train, split.valid, split.test])], published["excluded"]).any()
    for ids in (np.arange(100), np.array([7, 7]), np.array([133_886])):
        with pytest.raises(DataError, match="gdb index"):
            make_split("cormorant", table_of(ids))


def test_fluorine_is_in_the_test_rows_only(table):
    split = make_split("cormorant", table)
    assert not fluorine_mask(table, split.train).any()
    assert fluorine_mask(table, split.test).mean() == pytest.approx(0.016, abs=0.001)
    # Nothing of the kind holds for the split `sample`, whose training rows know the element.
    assert fluorine_mask(table, make_split("sample", table).train).any()


def test_contains_element_is_the_slow_way(table):
    nitrogen = contains_element(table, 7)
    molecules = np.split(table.numbers, np.cumsum(table.n_atoms)[:-1])
    assert nitrogen.tolist() == [bool((molecule == 7).any()) for molecule in molecules]
    chosen = np.array([5, 3, 3])
    np.testing.assert_array_equal(contains_element(table, 7, chosen), nitrogen[chosen])
    assert not contains_element(table, 92).any()


@pytest.mark.parametrize("kind", ["cormorant", "110k", "random"])
def test_parts_are_disjoint_and_seeds_repeat(full_table, kind):
    first, again = make_split(kind, full_table, seed=3), make_split(kind, full_table, seed=3)
    assert same(first, again)
    everything = np.concatenate([first.train, first.valid, first.test])
    assert len(np.unique(everything)) == len(everything) == len(full_table)
    if kind != "cormorant":
        assert not same(first, make_split(kind, full_table, seed=4))


def test_the_110k_split_has_its_sizes(full_table, table):
    split = make_split("110k", full_table)
    assert [len(getattr(split, part)) for part in PARTS] == [110_000, 10_000, 10_831]
    with pytest.raises(DataError, match="120,000"):
        make_split("110k", table)


def test_random_sizes_are_numbers_or_fractions(table):
    split = make_split("random", table, train_size=1_000, valid_size=0.05, test_size=500)
    assert [len(getattr(split, part)) for part in PARTS] == [1_000, 1_140, 500]
    default = make_split("random", table)
    assert [len(getattr(default, part)) for part in PARTS] == [22_807 - 2 * 2_280, 2_280, 2_280]
    longer = make_split("random", table, train_size=2_000, valid_size=0.05, test_size=500)
    np.testing.assert_array_equal(longer.train[:1_000], split.train)  # more data keeps what was there
    np.testing.assert_array_equal(longer.test, split.test)
    half = make_split("sample", table, train_size=0.5)
    assert len(half.train) == 9_000


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "random", "train_size": 22_000, "valid_size": 1_000},
        {"kind": "random", "train_size": 0},
        {"kind": "random", "test_size": 1.5},
        {"kind": "random", "valid_size": -1},
        {"kind": "random", "valid_size": 0.5, "test_size": 0.6},
        {"kind": "sample", "train_size": 18_001},
        {"kind": "sample", "train_size": 0},
        {"kind": "sample", "train_size": True},
        {"kind": "sample", "test_size": 100},
        {"kind": "sample", "file": "split.npz"},
        {"kind": "file"},
        {"kind": "file", "file": "does_not_exist.npz"},
        {"kind": "stratified"},
    ],
)
def test_impossible_wishes_are_errors(table, options):
    with pytest.raises(DataError):
        make_split(table=table, **options)


def two_files(learn, test):
    """A table of two joined files."""
    return replace(table_of(range(learn + test)), split=np.repeat(["train", "test"], [learn, test]))


FITTED: dict = {
    "what fits stays": ("random", 1000, (800, 100, 100), "", (800, 100, 100)),
    "one too many": ("random", 999, (800, 100, 100), "", (800, 99, 99)),
    "the lite profile on a small file": ("random", 500, (10_000, 0, 0), "", (400, 0, 0)),
    "rMD17 on two small files": ("two_files", (200, 50), (950, 50, 0), "", (190, 10, 0)),
    "and on one": ("random", 200, (950, 50, 0), "", (171, 9, 0)),
    "a test size": ("two_files", (1000, 50), (950, 50, 100), "", (950, 50, 50)),
    "rounding costs no structure": ("two_files", (203, 50), (950, 50, 0), "", (193, 10, 0)),
    "every part keeps one": ("two_files", (5, 3), (950, 50, 0), "", (4, 1, 0)),
    "valid beside the chosen train": ("two_files", (200, 50), (180, 50, 0), "train", (180, 20, 0)),
    "train beside the chosen valid": ("two_files", (200, 50), (950, 40, 0), "valid", (160, 40, 0)),
    "a chosen fraction": ("two_files", (200, 50), (0.8, 50, 0), "train", (0.8, 40, 0)),
    "a fraction of the profile": ("two_files", (200, 50), (950, 0.25, 0), "", (150, 0.25, 0)),
    "all that is left to train": ("random", 500, (0, 1000, 1000), "", (0, 50, 50)),
    "a split that fixes the others": ("labelled", (120, 30), (950, 50, 0), "", (120, 0, 0)),
    "a fraction of a fixed part": ("labelled", (120, 30), (0.5, 0, 0), "", (0.5, 0, 0)),
}


@pytest.mark.parametrize("kind, rows, sizes, chosen, expected", FITTED.values(), ids=FITTED)
def test_sizes_of_a_profile_adapt(kind, rows, sizes, chosen, expected):
    table = two_files(*rows) if isinstance(rows, tuple) else table_of(range(rows))
    given = dict(zip(SIZES, sizes, strict=True))
    found, words = fit_sizes(kind, table, given, {f"{name}_size" for name in chosen.split()})
    assert tuple(found.values()) == expected
    assert bool(words) == (found != given) and "\n" not in words
    make_split(kind, table, **{name: size or None for name, size in found.items()})
    assert fit_sizes(kind, table, found) == (found, "")  # the written configuration means the same


def test_the_line_about_adapted_sizes_has_every_number():
    sizes = dict(zip(SIZES, (950, 50, 100), strict=True))
    assert fit_sizes("two_files", two_files(200, 50), sizes)[1] == (
        "sizes of the profile adapted to 200 structures to learn from and 50 to test: train 950 -> 190, "
        "valid 50 -> 10, test 100 -> 50"
    )
    assert fit_sizes("labelled", two_files(120, 30), sizes)[1].endswith(
        "split labelled with 120 training structures: train 950 -> 120, valid 50 -> that of the split, "
        "test 100 -> that of the split"
    )


@pytest.mark.parametrize("sizes", [(950, 0, 0), (150, 60, 0), (0.9, 0.2, 0), (0, 200, 0), (0, 0, 51)])
def test_sizes_that_a_person_chose_never_adapt(sizes):
    """They are refused, by the words of the split itself."""
    given, table = dict(zip(SIZES, sizes, strict=True)), two_files(200, 50)
    with pytest.raises(DataError):
        found, _ = fit_sizes("two_files", table, given, SIZES)
        assert found == given
        make_split("two_files", table, **{name: size or None for name, size in found.items()})


def test_a_fraction_is_not_rounded_down_by_floating_point():
    assert len(make_split("random", table_of(range(100)), train_size=0.29).train) == 29


def test_labels_are_needed_and_known(table):
    with pytest.raises(DataError, match="labels its rows"):
        make_split("labelled", replace(table, split=None))
    with pytest.raises(DataError, match="'holdout'"):
        make_split("labelled", replace(table, split=np.where(table.split == "valid", "holdout", table.split)))
    with pytest.raises(DataError, match="no training"):
        make_split("labelled", replace(table, split=np.full(len(table), "test")))


def test_a_split_survives_its_file(table, tmp_path):
    split = make_split("random", table, train_size=100)
    save_split(split, tmp_path / "split.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["split.npz"]
    back = load_split(tmp_path / "split.npz")
    assert same(split, back) and back.name == split.name
    assert same(make_split("file", table, file=tmp_path / "split.npz", train_size=10), split.subset(10))
    with pytest.raises(DataError, match="cannot write"):
        save_split(split, tmp_path / "nowhere" / "split.npz")


def test_a_csv_file_is_a_split(table, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("position,split\n5,train\n3,train\n8,valid\n1,test\n", encoding="utf-8")
    split = make_split("file", table, file=file)
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([5, 3], [8], [1])
    foreign = file.with_name(os.fsdecode(b"caf\xe9.csv"))
    foreign.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_split(foreign).name == "caf\\udce9"  # it can be logged and stored
    bad = ("position,split\n5,holdout\n", "position,split\nfive,train\n", "split,position\ntrain\n", "a,b\n1,2\n", "")
    for text in bad:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"mine\.csv"):
            load_split(file)


def test_files_that_are_no_split_are_refused(table, tmp_path):
    with pytest.raises(DataError, match="lacks name"):
        load_split(CORMORANT_FILE)  # 1-based gdb indices: as positions they would be wrong by one and more
    broken = tmp_path / "broken.npz"
    for content in (b"", b"not a zip", CORMORANT_FILE.read_bytes()[:1000]):
        broken.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_split(broken)
    np.savez(broken, train=np.array([{"a": 1}], dtype=object), valid=[], test=[], name="pickle")
    with pytest.raises(DataError, match="cannot be read"):
        load_split(broken)
    np.savez(broken, train=np.array([0, len(table)]), valid=np.array([1]), test=np.array([2]), name="too far")
    with pytest.raises(DataError, match=r"0\.\.22806"):
        make_split("file", table, file=broken)


@pytest.mark.parametrize("parts", [([1, 2], [2], [3]), ([1, 1], [2], [3]), ([1], [2], [1]), ([1.5], [2], [3])])
def test_overlaps_duplicates_and_fractions_are_refused(parts):
    with pytest.raises(DataError):
        Split(*map(np.array, parts), "bad")
