"""Law of the readers: as many structures come out as records went in, or one line says where the reader stopped."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.db import connect
from published_files import PACKED, RAW_FILES, published_values, write_gdb9, write_tar
from tiny_runs import write_molecules

from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.formats.xyz_format import HYDROGEN_NOTE
from data_tools.graph import DataError
from data_tools.qm9 import SAMPLE_FILE
from data_tools.tables import select_rows

COLUMNS = "Properties=species:S:1:pos:R:3"
RAW = {path.name: path.read_bytes() for path in RAW_FILES}


def frame(comment: str = COLUMNS, atoms: str = "H 0 0 0\nH 0 0 0.7", count: str = "2") -> str:
    return f"{count}\n{comment}\n{atoms}\n"


def labelled(count: int) -> list[str]:
    return [frame(f"{COLUMNS} energy={row}.5") for row in range(count)]


def stripped(data: bytes, tail: int) -> bytes:
    """A record of QM9 with so many of the three lines behind its atoms."""
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: 2 + int(lines[0]) + tail])


# ---- records in = structures out -------------------------------------------------------------------------------------


def a_database(path: Path, count: int = 7) -> Path:
    with connect(path) as database:
        for row in range(count):
            database.write(ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), total_energy=row - 30.0)
    return path


def some_frames(path: Path, count: int = 5) -> Path:
    with np.load(SAMPLE_TRAIN) as file:
        shared = {"z": file["nuclear_charges"], "R": file["coords"][:count]}
        np.savez(path, **shared, E=file["energies"][:count], F=file["forces"][:count])
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def content(make: Callable[[Path], Path], folder: Path, name: str) -> bytes:
    return make(folder / name).read_bytes()


def text(name: str, words: str | bytes, count: int):
    def write(folder: Path) -> Path:
        data = words.encode() if isinstance(words, str) else words
        (folder / name).write_bytes(data)
        return folder / name

    return pytest.param(write, count, id=f"{name} {count}")


def made(name: str, write: Callable[[Path], object], count: int):
    def call(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return pytest.param(call, count, id=name)


def sdf_alone(path: Path) -> None:
    _, labels = write_gdb9(path.parent, RAW_FILES)
    labels.unlink()


XYZ = "".join(labelled(60))
WHOLE = [
    # xyz
    text("plain.xyz", frame("a") + "\n" + frame("") + " \t\n\n\n" + frame("c") + "\n\n", 3),
    text("extended.xyz", "\n".join(labelled(60)), 60),
    text("half.xyz", "".join(labelled(40)) + "\n" + "".join(labelled(20)), 60),
    text("spaces.xyz", "\n \t \n\n".join(labelled(7)) + "\n\n", 7),
    text("windows.xyz", "\n".join(labelled(9)).replace("\n", "\r\n"), 9),
    text("mac.xyz", "\n".join(labelled(9)).replace("\n", "\r"), 9),
    text("mixed.xyz", frame("a name") + labelled(1)[0] + "\n" + frame("") + frame("C=O") + labelled(1)[0], 5),
    text("keyed.xyz", frame("energy=-3 charge=0") + "\n" + frame("energy=-4"), 2),
    text("counts.xyz", frame(count=" 2 ") + frame(count="2\t"), 2),
    text("mark.xyz", b"\xef\xbb\xbf" + XYZ.encode(), 60),
    text("mark.extxyz", b"\xef\xbb\xbf" + "\n".join(labelled(3)).encode(), 3),
    text("xyz.xyz.gz", gzip.compress(XYZ.encode()), 60),
    text("members.extxyz.gz", b"".join(gzip.compress(one.encode()) for one in labelled(6)), 6),
    text("xyz.xyz.bz2", bz2.compress("\n".join(labelled(8)).encode()) + bz2.compress(XYZ.encode()), 68),
    # QM9
    text("joined.xyz", b"".join(RAW.values()), 4),
    text("blank.xyz", b"\n\n".join(RAW.values()) + b"\n", 4),
    *[text(f"tail{tail}.xyz", b"".join(stripped(one, tail) for one in RAW.values()), 4) for tail in range(3)],
    text("marked.xyz", b"\xef\xbb\xbf\n" + b"".join(RAW.values()).replace(b"\n", b"\r\n"), 4),
    text("joined.xyz.gz", b"".join(map(gzip.compress, RAW.values())), 4),
    made("raw.tar.gz", lambda path: write_tar(path, RAW, "w:gz"), 4),
    made("raw.zip", lambda path: zipped(path, RAW), 4),
    made("all.tar", lambda path: write_tar(path, {RAW_FILES[0].name: b"".join(RAW.values())}, "w"), 4),
    made("one.tar.bz2", lambda path: write_tar(path, {"all/joined.xyz": b"".join(RAW.values())}), 4),
    made("gdb9.sdf", lambda path: write_gdb9(path.parent, RAW_FILES), 4),
    # others
    made("alone.npz", lambda path: write_molecules(path, range(11)), 11),
    made("md17.npz", some_frames, 5),
    made("ase.db", a_database, 7),
    text("smiles.smi", "\n\nCCO\n\nO water\n \nC\n", 3),
    text("smiles.smi.gz", gzip.compress(b"CCO\nO\n"), 2),
    made("gdb9.sdf", sdf_alone, 4),
    made("frames.tar.bz2", lambda path: write_tar(path, {
        "rmd17/readme.txt": b"x", "rmd17/npz_data/rmd17_ethanol.npz": content(some_frames, path.parent, "x.npz"),
        "rmd17/splits/index_train_01.csv": b"1\n", "._rmd17.npz": b"",
    }), 5),
    made("frames.zip", lambda path: zipped(path, {
        "a/frames.npz": content(some_frames, path.parent, "x.npz"), "__MACOSX/a/._frames.npz": b"x",
    }), 5),
]  # fmt: skip


@pytest.mark.parametrize(("write", "count"), WHOLE)
def test_as_many_structures_come_out_as_records_went_in(tmp_path, write, count):
    table = read_table(write(tmp_path))
    assert len(table) == len(table.n_atoms) == len(table.ids) == count
    assert all(len(values) == count for values in table.of_structures.values())
    assert all(len(values) == len(table.numbers) for values in table.of_atoms.values())
    assert not any(np.isnan(values).all() for values in (table.of_structures | table.of_atoms).values())


def test_the_frames_keep_their_labels_and_their_order(tmp_path):
    (tmp_path / "a.xyz").write_text("\n".join([*labelled(3), frame("a name"), *labelled(2)]))
    table = read_table(tmp_path / "a.xyz")
    np.testing.assert_array_equal(table.of_structures["energy"], [0.5, 1.5, 2.5, np.nan, 0.5, 1.5])
    assert table.names[3] == "a name"
    (tmp_path / "b.xyz").write_text(frame("energy=-3 charge=0"))
    table = read_table(tmp_path / "b.xyz")
    assert table.of_structures["energy"] == [-3] and table.names == ("energy=-3 charge=0",)


def test_joined_qm9_files_are_those_files(tmp_path):
    (tmp_path / "joined.xyz").write_bytes(b"".join(RAW[path.name] for path in reversed(RAW_FILES)))
    table, packed = read_table(tmp_path / "joined.xyz"), read_table(PACKED)
    assert table.ids.tolist() == [1, 2, 90, 880] and table.origin == packed.origin == "qm9"
    assert len(table.of_structures) == 15
    for row, path in enumerate(RAW_FILES):
        alone = read_table(path)
        one = select_rows(table, np.array([row]))
        np.testing.assert_array_equal(one.positions, alone.positions)
        assert all(one.of_structures[name] == alone.of_structures[name] for name in table.of_structures)
        assert one.of_structures["alpha"][0] == published_values(path)[4]


# ---- or one line says where it stopped -------------------------------------------------------------------------------

HALF = b"".join(RAW.values())[: len(RAW[RAW_FILES[0].name]) + 330]
CUT = {
    "a count with a word": ("a.xyz", frame() + frame(count="2 atoms"), ("line 5", "'2 atoms'")),
    "no atoms": ("a.xyz", frame() + frame(count="0", atoms=""), ("line 5", "'0'")),
    "something behind": ("a.xyz", frame() + "\nthe end\n", ("line 6", "'the end'")),
    "cut short": ("a.xyz", frame() + "2\n" + COLUMNS + "\nH 0 0 0\n", ("after line 6", "found 1 lines")),
    "cut short within": ("a.xyz", frame() + "2\n" + COLUMNS + "\nH 0 0 0\n\n" + frame(), ("after line 6", "line 8")),
    "one atom more": ("a.xyz", frame(atoms="H 0 0 0\nH 0 0 1\nH 0 0 2") + frame(), ("line 5", "'H 0 0 2'")),
    "a column more": ("a.xyz", frame() + frame(atoms="H 0 0 0 1\nH 0 0 1 1"), ("4 columns", "line 7", "found 5")),
    "a column less": ("a.xyz", frame() + frame(atoms="H 0 0 0\nH 0 0"), ("4 columns", "line 8", "found 3")),
    "no number": ("a.xyz", frame() + frame(atoms="H 0 0 0\nH 0 0 O"), ("line 8", "'O'")),
    "no element": ("a.xyz", frame() + frame(atoms="H 0 0 0\nQq 0 0 1"), ("line 8", "'Qq'")),
    "no positions": ("a.xyz", frame("Properties=species:S:1"), ("pos:R:3", "line 2")),
    "small letters": ("a.xyz", frame("properties=species:S:1:pos:R:3"), ("Properties", "line 2")),
    "a cell in small letters": ("a.xyz", frame('lattice="9 0 0 0 9 0 0 0 9"'), ("Lattice", "line 2")),
    "a unit": ("a.xyz", frame() + frame(f'{COLUMNS} energy="-1.5 eV"'), ("number as energy", "line 6", "-1.5 eV")),
    "a plain frame that is none": ("a.xyz", frame() + frame("a", atoms="H 0 0 0\nH 0 zero 0"), ("line 8", "zero")),
    "UTF-16": ("a.xyz", frame().encode("utf-16"), ("UTF-16",)),
    "QM9 behind others": ("a.xyz", frame("a").encode() + RAW[RAW_FILES[0].name], ("QM9", "line 5")),
    "others behind QM9": ("a.xyz", RAW[RAW_FILES[0].name] + frame("a").encode(), ("line 11", "'2'")),
    "QM9 within its atoms": ("a.xyz", HALF, ("ends before its",)),
    "QM9 within its last atom": ("a.xyz", stripped(RAW[RAW_FILES[0].name], 0)[:-9], ("line 7", "ends before its")),
    "QM9 that begins again": ("a.xyz", stripped(RAW[RAW_FILES[0].name], -1) + RAW[RAW_FILES[1].name], ("line 7",)),
    "QM9 with a count behind": ("a.xyz", stripped(RAW[RAW_FILES[0].name], 0) + b"5\n", ("line 8", "'5'")),
    "a cut gzip": ("a.xyz.gz", gzip.compress(XYZ.encode())[:-9], ("cut short",)),
    "no gzip": ("a.xyz.gz", XYZ, ("cut short",)),
    "a bomb": ("a.xyz.gz", gzip.compress(b"\n" * (65 << 20)), ("inflates",)),
    "a bad frame inside": ("a.xyz.gz", gzip.compress((frame() + "x").encode()), ("a.xyz: ", "line 5")),
}


@pytest.mark.parametrize("case", CUT)
def test_where_a_reader_stops_is_one_line(tmp_path, case):
    name, words, expected = CUT[case]
    (tmp_path / name).write_bytes(words.encode() if isinstance(words, str) else words)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name)) and "\n" not in message and message.count(str(tmp_path)) == 1
    assert all(word in message for word in expected), message


def joined_tar(path: Path) -> None:
    halves = [write_tar(path.with_name("half.tar"), dict([one]), "w").read_bytes() for one in list(RAW.items())[:2]]
    path.write_bytes(b"".join(halves))


def joined_npz(path: Path) -> None:
    path.write_bytes(SAMPLE_FILE.read_bytes() + SAMPLE_FILE.read_bytes())


def joined_db(path: Path) -> None:
    path.write_bytes(a_database(path.with_name("one.db")).read_bytes() * 2)


def twice_in_npz(path: Path) -> None:
    write_molecules(path, range(3))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("R.npy", b"x")


def many(path: Path) -> None:
    data = content(some_frames, path.parent, "x.npz")
    files = {f"rmd17/npz_data/rmd17_{name}.npz": data for name in ("benzene", "ethanol", "uracil")}
    write_tar(path, files | {"rmd17/splits/index_train_01.csv": b"1\n"})


def two_in_zip(path: Path) -> None:
    data = content(some_frames, path.parent, "x.npz")
    zipped(path, {"ethanol_ccsd_t-train.npz": data, "ethanol_ccsd_t-test.npz": data})


def two_without_an_ending(path: Path) -> None:
    two_in_zip(path)


NOT_ONE = [
    ("joined.tar", joined_tar, "more behind its end"), ("joined.npz", joined_npz, "two files were joined"),
    ("joined.db", joined_db, "two were joined"), ("twice.npz", twice_in_npz, "found one twice"),
    ("rmd17.tar.bz2", many, "found 3: rmd17/npz_data/rmd17_benzene.npz, rmd17/npz_data/rmd17_ethanol.npz"),
    ("two.zip", two_in_zip, "found 2: ethanol_ccsd_t-train.npz"), ("3195389", two_without_an_ending, "unpack it and"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "words"), NOT_ONE, ids=[name for name, *_ in NOT_ONE])
def test_two_files_in_one_are_refused(tmp_path, name, write, words):
    write(tmp_path / name)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_lies_beside_is_named(tmp_path):
    for name, data in RAW.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "dsgdb9nsd_000003.xyz.gz").write_bytes(b"x")
    assert read_table(tmp_path).source.endswith("; not read: dsgdb9nsd_000003.xyz.gz")
    files = RAW | {"extra/more.xyz": b"x", "readme": b"y"}
    assert read_table(write_tar(tmp_path / "a.tar", files, "w")).source.endswith("; not read: extra/more.xyz")


def test_a_member_does_not_decide_where_it_is_written(tmp_path):
    for name in ("../evil.xyz", "/tmp/evil.xyz", "a/../../evil.xyz"):
        for path in (write_tar(tmp_path / "a.tar", {name: frame().encode()}, "w"),
                     zipped(tmp_path / "a.zip", {name: frame().encode()})):  # fmt: skip
            with pytest.raises(DataError, match="or one other data set in the archive; found"):
                read_table(path)
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("link.xyz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(DataError, match="found nothing"):
        read_table(tmp_path / "link.tar")


# ---- elements, numbers and labels that other programs write ----------------------------------------------------------


def test_numbers_isotopes_and_fortran(tmp_path):
    (tmp_path / "a.xyz").write_text(
        frame(f"{COLUMNS} energy=-1.5D+01", "D 0 0 0\n8 0 0 9.6D-1") + frame("plain", "t 0 0 .0D0\n6 0 0 1.1d0")
        + frame("Properties=species:I:1:pos:R:3:forces:R:3", "1 0 0 0 1 2 3\n17 0 0 1.3 4 5 6")
        + frame("Properties=pos:R:3:species:S:1", "0 0 0 cl\n0 0 1.3 1")
    )  # fmt: skip
    table = read_table(tmp_path / "a.xyz")
    assert table.numbers.tolist() == [1, 8, 1, 6, 1, 17, 17, 1]
    assert table.positions[[1, 3], 2].tolist() == [0.96, 1.1] and table.of_structures["energy"][0] == -15
    assert table.of_atoms["forces"][5].tolist() == [4, 5, 6] and f"{HYDROGEN_NOTE}: 2 atoms" in table.source


def test_keys_that_nobody_asked_for_may_change(tmp_path):
    keys = ('dipole="1 2 3" n=1', "dipole=4", 'list="_JSON [[1, 2], [3]]"', 'stress="0 0 0 0 0 0"')
    frames = [frame(f"{COLUMNS} energy={-row} {words}") for row, words in enumerate(keys, 1)]
    (tmp_path / "a.xyz").write_text("".join(frames))
    table = read_table(tmp_path / "a.xyz")
    assert table.of_structures["energy"].tolist() == [-1, -2, -3, -4] and set(table.label_names) == {"energy", "n"}
    assert table.source.endswith("; labels whose shape changes, not read: dipole")
    (tmp_path / "a.xyz").write_text(frame(f"{COLUMNS} energy=-1") + frame(f'{COLUMNS} energy="1 2"'))
    with pytest.raises(DataError, match=r"energy of one shape in every frame, found \(2,\) beside \(\) .* line 5"):
        read_table(tmp_path / "a.xyz")
