"""Law of the readers: whatever is wrong with a file, the user gets one line that names it and what was expected."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hostile_archives import member, tar_of
from published_files import PACKED, RAW, RAW_FILES, write_gdb9, write_tar

from data_tools.formats.readers import read_table, read_xyz
from data_tools.graph import DataError
from data_tools.graphs.packed import pack

METHANE, AMMONIA = RAW_FILES[:2]


def text(name: str, content: str, *words: str):
    """A case: write ``content`` to ``name``; the error holds ``words``."""

    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return pytest.param(write, words, id=f"{name}: {' '.join(words)}")


def made(name: str, write, *words: str):
    """A case: ``write`` makes the file; the error holds ``words``."""

    def call(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return pytest.param(call, words, id=f"{name}: {' '.join(words)}")


def npz(name: str, words: tuple[str, ...], **changes):
    """A case: a small good npz with some arrays changed, or left out where the change is None."""
    arrays = {"n_atoms": np.array([1, 2]), "Z": np.array([2, 1, 1]), "R": np.eye(3), "gap": np.array([0.1, 0.2])}
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    return made(name, lambda path: np.savez(path, **arrays), *words)


def cut(source: Path, keep: float):
    return lambda path: path.write_bytes(source.read_bytes()[: int(source.stat().st_size * keep)])


def cut_archive(opener):
    def write(path: Path) -> None:
        plain = path.with_name("whole.tar")
        write_tar(plain, {file.name: file.read_bytes() for file in RAW_FILES}, "w")
        data = (bz2 if opener == "bz2" else gzip).compress(plain.read_bytes())
        path.write_bytes(data[:-20])

    return write


def one_member(kind: bytes, size: int, data: bytes, compress=bytes):
    """A tar archive of one member that claims to have so many bytes."""
    archive = tar_of({}, [(member("readme", kind, size), data)], tarfile.GNU_FORMAT)
    return lambda path: path.write_bytes(compress(archive))


HEADER = (1 << 23, bytes(1 << 23))
SPARSE = (tarfile.GNUTYPE_SPARSE, 1 << 60, b"")  # tarfile shows another size, and skips this one


def twice(path: Path) -> None:
    write_tar(path, dict.fromkeys([METHANE.name, f"copy/{METHANE.name}"], METHANE.read_bytes()), "w")


def pickled(path: Path) -> None:
    np.savez(path, n_atoms=np.array([1]), Z=np.array([2]), R=np.zeros((1, 3)), extra=np.array([{}], dtype=object))


def dimenet(path: Path) -> None:
    columns = dict.fromkeys(["homo", "gap", "U0", "U0_atom"], np.zeros(2))
    np.savez(path, id=np.arange(2), N=np.array([1, 2]), Z=np.array([2, 1, 1]), R=np.eye(3), **columns)


def sdf_without_csv_rows(path: Path) -> None:
    write_gdb9(path.parent, RAW_FILES)
    labels = path.parent / "gdb9.sdf.csv"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))


def sdf_of_others(path: Path) -> None:
    write_gdb9(path.parent, RAW_FILES)
    labels = path.parent / "gdb9.sdf.csv"
    labels.write_text(labels.read_text().replace("gdb_2,", "gdb_3,"))


def csv_with_a_word(path: Path) -> None:
    write_gdb9(path.parent, RAW_FILES)
    path.write_text(path.read_text().replace("157.7118", "many"))


def csv_without_a_column(path: Path) -> None:
    write_gdb9(path.parent, RAW_FILES)
    path.write_text(path.read_text().replace("u298,", "energy,"))


def drawing(path: Path) -> None:
    from rdkit import Chem  # noqa: PLC0415
    from rdkit.Chem import AllChem  # noqa: PLC0415

    molecule = Chem.MolFromSmiles("CCO")
    AllChem.Compute2DCoords(molecule)
    path.write_text(Chem.MolToMolBlock(molecule) + "$$$$\n")


def broken_sdf(path: Path) -> None:
    sdf, labels = write_gdb9(path.parent, RAW_FILES)
    labels.unlink()
    path.write_text(sdf.read_text()[:-120])


def endless(start: bytes):
    """A terabyte of zeros after the beginning, which takes no place on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, 1 << 40)

    return write


def crowd(comment: str, atoms: int = 20_000, step: float = 0.15):
    """Atoms on a grid that no matter has: a list of their pairs would not fit into memory."""

    def write(path: Path) -> None:
        places = itertools.islice(itertools.product(range(28), repeat=3), atoms)
        body = "".join(f"H {x * step:.2f} {y * step:.2f} {z * step:.2f}\n" for x, y, z in places)
        path.write_text(f"{atoms}\n{comment}\n{body}")

    return write


def damaged_npz(path: Path) -> None:
    data = bytearray(PACKED.read_bytes())
    data[200_000:200_100] = bytes(100)
    path.write_bytes(data)


NOTHING = np.zeros(0, int)
SQUARE = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3'
BAD = [
    pytest.param(lambda folder: folder / "absent.xyz", ("found nothing",), id="missing"),
    made("empty.npz", Path.touch, "empty file"),
    made("folder.xyz", Path.mkdir, "folder"),
    text("data.docx", "word", "expected one of", "npz"),
    # raw QM9
    made("dsgdb9nsd_000001.xyz", cut(METHANE, 0.5), "ends before"),
    text("dsgdb9nsd_000001.xyz", METHANE.read_text().replace("H\t", "Qq\t"), "'Qq'"),
    text("dsgdb9nsd_000001.xyz", METHANE.read_text().replace("1.0858041578", "nan"), "finite"),
    text("dsgdb9nsd_000001.xyz", METHANE.read_text().replace("1.0858041578", "word"), "word"),
    text("dsgdb9nsd_000001.xyz", METHANE.read_text().replace("5\n", "five\n", 1), "five"),
    text("dsgdb9nsd_000001.xyz", METHANE.read_text().replace("gdb 1", f"gdb {10**20}"), "expected a QM9 file"),
    # archives
    made("cut.tar.bz2", cut_archive("bz2"), "cut short or damaged"),
    made("cut.tar.gz", cut_archive("gz"), "cut short or damaged"),
    text("page.tar.bz2", "<html>not found</html>", "cut short or damaged"),
    made("other.tar.bz2", lambda path: write_tar(path, {"../gdb9.sdf": b"x", "readme": b"y"}), "found ../gdb9.sdf"),
    made("twice.tar", twice, "gdb 1 twice"),
    made("bad.tar", lambda path: write_tar(path, {METHANE.name: b"5\nhello\n"}, "w"), METHANE.name, "gdb"),
    made("name.tar", one_member(tarfile.GNUTYPE_LONGNAME, *HEADER), "name or header of 8,388,608 bytes"),
    made("header.tar", one_member(tarfile.XHDTYPE, *HEADER), "name or header of 8,388,608 bytes"),
    made("member.tar", one_member(*SPARSE), "larger than the archive"),
    made("member.tar.gz", one_member(*SPARSE, gzip.compress), "larger than the archive"),
    made("huge.tar", lambda path: write_tar(path, {METHANE.name: bytes(1 << 21)}, "w"), "more than any QM9 file"),
    # npz
    made("cut.npz", cut(PACKED, 0.5), "cut short"),
    made("flipped.npz", damaged_npz, "damaged"),
    text("text.npz", "not a zip", "something else"),
    made("pickled.npz", pickled, "pickled"),
    made("qm9_eV.npz", dimenet, "wrong 3,054", "1-based"),
    made("renamed.npz", dimenet, "DimeNet"),
    npz("keys.npz", ("R missing",), R=None),
    npz("ragged.npz", ("R with shape (3, 3)", "(2, 3)"), R=np.zeros((2, 3))),
    npz("counts.npz", ("Z with shape (4,)",), n_atoms=np.array([2, 2])),
    npz("column.npz", ("gap with shape (2,)",), gap=np.zeros(3)),
    npz("nan.npz", ("finite coordinates", "structure 1"), R=np.array([[0.0, 0, 0], [np.nan, 0, 0], [1, 1, 1]])),
    npz("inf.npz", ("finite coordinates", "structure 0"), R=np.full((3, 3), np.inf)),
    npz("label.npz", ("finite values of gap",), gap=np.array([np.inf, 0])),
    npz("zero.npz", ("atomic numbers", "structure 1"), Z=np.array([2, 1, 0])),
    npz("negative.npz", ("at least one atom",), n_atoms=np.array([4, -1])),
    npz("words.npz", ("gap", "<U1"), gap=np.array(["a", "b"])),
    npz("none.npz", ("at least one structure",), n_atoms=NOTHING, Z=NOTHING, R=np.zeros((0, 3)), gap=None),
    npz("split.npz", ("split", "'best'"), split=np.array(["train", "best"])),
    npz("float.npz", ("Z with shape",), Z=np.array([1.0, 1.0, 1.0])),
    # SDF and csv
    made("gdb9.sdf", sdf_without_csv_rows, "expected 3 molecules", "found 4"),
    made("gdb9.sdf", sdf_of_others, "expected gdb_3"),
    made("gdb9.sdf.csv", csv_with_a_word, "line 2", "many"),
    made("gdb9.sdf.csv", csv_without_a_column, "u298 missing"),
    text("table.csv", "a,b\n1,2\n", "no geometries"),
    made("drawing.sdf", drawing, "all hydrogens"),
    made("gdb9.sdf", broken_sdf, "entry 4"),
    text("text.sdf", "hello\n", "RDKit cannot read it"),
    made(os.fsdecode(b"caf\xe9.sdf"), cut(METHANE, 1.0), "rename it"),
    # what no reader may wait for or make room for
    made("endless.xyz", endless(b"1\n\nH 0 0 0\n"), "at most", "1,099,511,627,776"),
    made("endless.extxyz", endless(b"1\n"), "at most", "1,099,511,627,776"),
    made("endless.sdf", endless(b"name\n"), "at most", "1,099,511,627,776"),
    made("endless.smi", endless(b"C\n"), "at most", "1,099,511,627,776"),
    made("endless.tar", endless(METHANE.read_bytes()), "at most", "1,099,511,627,776"),
    made("endless.tar.gz", endless(gzip.compress(b"x")), "at most", "1,099,511,627,776"),
    text("digits.xyz", "9" * 5000 + "\n\nH 0 0 0\n", "number of atoms in line 1"),
    text("announced.extxyz", f"1000000000000\n{SQUARE}\nH 0 0 0\n", "1000000000000 atoms", "cut short"),
    # xyz
    text("count.xyz", "two\n\nH 0 0 0\n", "line 1", "'two'"),
    text("short.xyz", "2\n\nH 0 0 0\n", "cut short"),
    text("element.xyz", "1\n\nXx 0 0 0\n", "line 3", "'Xx'"),
    text("dummy.xyz", "1\n\n0 0 0 0\n", "line 3", "'0'"),
    text("number.xyz", "1\n\nH 0 0 zero\n", "line 3", "symbol x y z"),
    text("columns.xyz", "1\n\nH 0 0\n", "line 3", "symbol x y z"),
    text("nan.xyz", "1\nbad\nH 0 0 nan\n", "finite coordinates", "bad"),
    text("blank.xyz", "\n\n", "at least one structure"),
    made("latin.xyz", lambda path: path.write_bytes(b"1\n\xe9\nH 0 0 0\n"), "UTF-8", "0xe9"),
    text("extended.xyz", f"1\n{SQUARE}\nXx 0 0 0\n", "line 3", "'Xx'"),
    text("extended.xyz", f"2\n{SQUARE}\nH 0 0 0\n", "2 atoms after line 2", "cut short"),
    text("slab.xyz", f'1\n{SQUARE} pbc="T T F"\nH 0 0 0\n', "periodic in all"),
    # SMILES
    text("bad.smi", "CCO\nnot_smiles\n", "line 2", "'not_smiles'"),
    text("empty.smi", "\n\n", "at least one structure"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "words"), BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, write, words):
    path = write(tmp_path)
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name.split(".")[0] in message
    assert all(word in message for word in words), message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("comment", ["a molecule", SQUARE.replace("3", "300", 3) + ' pbc="T T T"'])
def test_a_crowd_is_refused_before_its_pairs_take_memory(tmp_path, comment):
    crowd(comment)(tmp_path / "crowd.xyz")
    with pytest.raises(DataError, match=r"crowd\.xyz: .* atoms in a cube of 5 Angstrom, more than any matter has"):
        pack(read_table(tmp_path / "crowd.xyz"), 5.0)


def test_a_title_that_is_not_utf8_is_no_title(tmp_path):
    sdf, labels = write_gdb9(tmp_path, RAW_FILES[:2])
    labels.unlink()
    sdf.write_bytes(sdf.read_bytes().replace(b"gdb_1", b"caf\xe9"))
    assert read_table(sdf).names == ("molecule 0", "gdb_2")


def test_a_field_that_csv_refuses(tmp_path):
    _, labels = write_gdb9(tmp_path, RAW_FILES)
    labels.write_text(labels.read_text().replace("157.7118", "1" * 200_000))
    before = csv.field_size_limit(131_072)  # Python's own, which some libraries raise for everybody
    try:
        with pytest.raises(DataError, match=r"gdb9\.sdf\.csv: expected a row in line 2, but field larger"):
            read_table(labels)
    finally:
        csv.field_size_limit(before)


def test_read_xyz_refuses_another_kind_of_xyz(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text("1\nhelium\nHe 0 0 0\n")
    with pytest.raises(DataError, match="does not begin with 'gdb'"):
        read_xyz(path)


def test_a_bad_member_of_a_folder_is_named(tmp_path):
    shutil.copytree(RAW, tmp_path / "raw")
    (tmp_path / "raw" / AMMONIA.name).write_text("")
    with pytest.raises(DataError, match=r"dsgdb9nsd_000002\.xyz: expected .* empty"):
        read_table(tmp_path / "raw")


def test_an_archive_writes_nothing_outside_its_temporary_folder(tmp_path, monkeypatch):
    inner = tmp_path / "temporary"
    inner.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(inner))
    archive = write_tar(tmp_path / "evil.tar.gz", {"../../gdb9.sdf": b"x", "/tmp/gdb9.sdf.csv": b"x"}, "w:gz")
    with pytest.raises(DataError):
        read_table(archive)
    assert sorted(tmp_path.iterdir()) == [archive, inner]
    assert list(inner.iterdir()) == []
