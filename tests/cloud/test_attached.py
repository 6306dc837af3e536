"""Data sets are found however they were packed; archives write nothing outside their folder and no more than fits."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest
from published_files import RAW_FILES
from tiny_runs import write_molecules

from cloud import attached, unpacking
from cloud.attached import find_data
from cloud.unpacking import unpack
from data_tools.dataset import open_graphs
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import pack


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("molecules") / "molecules.npz", range(6))


def zipped(path, members):
    """A zip archive of names and contents or files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def with_name(path, name, raw, molecules):
    """A zip whose one name is bytes that are not UTF-8, as Windows writes them."""
    zipped(path, {name: molecules})
    content = path.read_bytes()
    assert content.count(name.encode()) == 2 and len(raw) == len(name)
    path.write_bytes(content.replace(name.encode(), raw))


def a_file(folder, molecules):
    shutil.copy(molecules, folder / "any name.npz")


def no_ending(folder, molecules):
    shutil.copy(molecules, folder / "3195389")


def nested(folder, molecules):
    (folder / "a" / "b c" / "数据").mkdir(parents=True)
    shutil.copy(molecules, folder / "a" / "b c" / "数据" / "molecules.npz")
    (folder / "readme.txt").write_text("text")
    (folder / ".dataset_cache_file").write_text("a note of c2net")


def not_unpacked(folder, molecules):
    zipped(folder / "set.zip", {"a/b/molecules.npz": molecules, "__MACOSX/a/._molecules.npz": b"x", "read.me": b"text"})


def unpacked_beside(folder, molecules):
    """As c2net leaves a mounted archive."""
    zipped(folder / "set.zip", {"molecules.npz": molecules})
    (folder / "set").mkdir()
    shutil.copy(molecules, folder / "set")


def folder_called_zip(folder, molecules):
    (folder / "set.zip").mkdir()
    shutil.copy(molecules, folder / "set.zip")


def zip_in_zip(folder, molecules):
    inner = zipped(folder.parent / "inner.zip", {"deep/molecules.npz": molecules})
    zipped(folder / "outer.zip", {"inner.zip": inner})


def tar_archive(folder, molecules):
    with tarfile.open(folder / "set.tar.gz", "w:gz") as file:
        file.add(molecules, "somewhere/molecules.npz")


def chinese_utf8(folder, molecules):
    zipped(folder / "分子.zip", {"数据集/分子.npz": molecules})


def chinese_gbk(folder, molecules):
    with_name(folder / "gbk.zip", "xxxx/mmmm.npz", "数据/分子.npz".encode("gbk"), molecules)


def backslashes(folder, molecules):
    zipped(folder / "windows.zip", {"a\\b\\molecules.npz": molecules})


def packed_graphs(folder, molecules):
    packed_folder.save(pack(read_table(molecules), 5.0), folder / "deep" / "graphs")


def raw_folder(folder, molecules):
    (folder / "deep").mkdir()
    for path in RAW_FILES:
        shutil.copy(path, folder / "deep")


def published_tar(folder, molecules):
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as file:
        for path in RAW_FILES:
            file.add(path, path.name)


def with_a_split(folder, molecules):
    shutil.copy(molecules, folder)
    import numpy as np  # noqa: PLC0415

    np.savez(folder / "split.npz", train=[1], valid=[2], test=[3])
    (folder / "molecules.smi").write_text("C\n")
    (folder / "labels.csv").write_text("a,b\n")


LAYOUTS = [
    a_file, no_ending, nested, not_unpacked, unpacked_beside, folder_called_zip, zip_in_zip, tar_archive, chinese_utf8,
    chinese_gbk, backslashes, packed_graphs, raw_folder, published_tar, with_a_split,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_read(layout, molecules, tmp_path):
    place = tmp_path / "with space"
    place.mkdir()
    layout(place, molecules)
    found = find_data([place], tmp_path / "scratch")
    graphs = open_graphs(str(found), 5.0)
    assert len(graphs) == (len(RAW_FILES) if layout in (raw_folder, published_tar) else 6)


def test_a_compressed_file_is_found(tmp_path):
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(b"1\nenergy=-1\nHe 0 0 0\n"))
    (tmp_path / "a.smi.gz").write_bytes(gzip.compress(b"C\n"))  # no labels, no data set
    assert find_data([tmp_path], tmp_path / "scratch") == tmp_path / "a.xyz.gz"


def test_looking_into_an_archive_has_limits(tmp_path):
    """70 MB of nothing before the files of QM9: who looks for their names reads no further than a reader would."""
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as file:
        zeros = tarfile.TarInfo("zeros")
        zeros.size = 70 << 20
        file.addfile(zeros, io.BytesIO(bytes(zeros.size)))
        file.add(RAW_FILES[0], RAW_FILES[0].name)
    assert not attached.is_data(tmp_path / "set.tar.gz")


def test_names_of_an_archive_keep_their_characters(molecules, tmp_path):
    chinese_gbk(tmp_path, molecules)
    unpack(tmp_path / "gbk.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["数据"]
    assert [path.name for path in (tmp_path / "out" / "数据").iterdir()] == ["分子.npz"]


def test_a_link_in_a_circle_ends(molecules, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found nothing"):
        find_data([tmp_path], tmp_path / "scratch")
    shutil.copy(molecules, tmp_path / "a")
    assert find_data([tmp_path], tmp_path / "scratch") == tmp_path / "a" / molecules.name


def test_an_empty_folder_and_a_wrong_one_say_what_was_there(tmp_path):
    with pytest.raises(DataError, match=r"expected one data set .* found nothing; attach the right one"):
        find_data([tmp_path], tmp_path / "scratch")
    (tmp_path / "sub").mkdir()
    for number in range(12):
        (tmp_path / "sub" / f"picture{number:02}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found sub/picture00.png, .* and 4 more") as error:
        find_data([tmp_path], tmp_path / "scratch")
    assert "\n" not in str(error.value)


def test_of_two_data_sets_one_is_chosen_by_its_name(molecules, tmp_path):
    zipped(tmp_path / "one.zip", {"first.npz": molecules})
    zipped(tmp_path / "two.zip", {"data/second.npz": molecules})
    with pytest.raises(DataError, match=r"found 2: one/first.npz, data/second.npz; choose one with --set data.file="):
        find_data([tmp_path], tmp_path / "scratch")
    assert find_data([tmp_path], tmp_path / "scratch", "data/second.npz").name == "second.npz"
    with pytest.raises(DataError, match=r"called third.npz, found others: one/first.npz"):
        find_data([tmp_path], tmp_path / "scratch", "third.npz")


def tar_of(path, name, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w") as file:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
        file.addfile(member, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("name", ["../evil.npz", "a/../../evil.npz", "/evil.npz", "C:/evil.npz", "..\\evil.npz"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_leads_out(name, kind, tmp_path):
    path = tmp_path / f"evil.{kind}"
    zipped(path, {name: b"x"}) if kind == "zip" else tar_of(path, name)
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(path, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil.npz"))


def test_links_and_devices_are_left_out(tmp_path):
    for kind, link in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "/etc/passwd"), (tarfile.CHRTYPE, "")):
        unpack(tar_of(tmp_path / "link.tar", "link", kind, link), tmp_path / "tar")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("data", "x")
    unpack(tmp_path / "link.zip", tmp_path / "zip")
    assert os.listdir(tmp_path / "tar") == [] and os.listdir(tmp_path / "zip") == ["data"]


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "BYTES", 1 << 20)
    path = zipped(tmp_path / "bomb.zip", {"zeros": bytes(300 << 20)})  # 300 MiB in 300 KiB
    with pytest.raises(DataError, match="more than 200 times the archive"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size < 100 << 20
    monkeypatch.setattr(unpacking, "MOST_FILES", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        unpack(zipped(tmp_path / "many.zip", {str(number): b"" for number in range(5)}), tmp_path / "many")


def test_archives_in_archives_end(tmp_path):
    path = zipped(tmp_path / "0.zip", {"nothing.txt": b"x"})
    for depth in range(1, 8):
        path = zipped(tmp_path / f"{depth}.zip", {path.name: path})
    (tmp_path / "place").mkdir()
    shutil.move(path, tmp_path / "place")
    with pytest.raises(DataError, match=r"found .*7.zip"):
        find_data([tmp_path / "place"], tmp_path / "scratch")
    assert len(list((tmp_path / "scratch").iterdir())) == attached.ROUNDS


@pytest.mark.parametrize("cut", [30, 1000, -10])
@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.bz2"])
def test_a_damaged_archive_is_one_line(ending, cut, molecules, tmp_path):
    path = tmp_path / f"set.{ending}"
    if ending == "zip":
        zipped(path, {"molecules.npz": molecules})
    else:
        with tarfile.open(path, f"w:{ending[4:]}") as file:
            file.add(molecules, "molecules.npz")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as error:
        find_data([path], tmp_path / "scratch")
    assert "\n" not in str(error.value) and f"set.{ending}" in str(error.value)


def test_an_encrypted_archive_is_one_line(molecules, tmp_path):
    path = zipped(tmp_path / "set.zip", {"molecules.npz": molecules})
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        find_data([path], tmp_path / "scratch")
