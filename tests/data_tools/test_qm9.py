"""Laws of the QM9 data set: what is excluded, and downloads that survive broken connections and wrong mirrors."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from data_tools import download, qm9
from data_tools.download import RemoteFile, fetch
from data_tools.formats.readers import read_table
from data_tools.graph import DataError, StructureTable

CONTENT = np.random.default_rng(0).bytes(200_000)
REMOTE = RemoteFile("data.bin", (), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def atoms(ids: np.ndarray) -> StructureTable:
    """One helium atom per id."""
    count = len(ids)
    return StructureTable(np.full(count, 2, np.int32), np.zeros((count, 3)), np.ones(count, np.int64), ids)


# ---- which molecules count -------------------------------------------------------------------------------------------


def test_uncharacterized_is_the_published_list():
    published = qm9.UNCHARACTERIZED_FILE.read_bytes()[3:]  # ours has three more empty lines at the top
    assert hashlib.sha256(published).hexdigest().startswith("3aa5115d540b356d")
    indices = qm9.read_uncharacterized()
    assert indices.shape == (3054,)
    assert indices[:3].tolist() == [58, 61, 80] and indices[-1] == 133_866
    with np.load(qm9.SAMPLES / "egnn_cormorant_split_gdb_index_1based.npz") as split:
        np.testing.assert_array_equal(np.sort(split["excluded"]), indices)


def test_the_whole_data_set_keeps_130831():
    kept, counts = qm9.exclude_uncharacterized(atoms(np.arange(1, 133_886)), complete=True)
    assert counts == (133_885, 3_054, 130_831)
    assert len(kept) == 130_831
    assert not np.isin([58, 61, 80], kept.ids).any()
    assert np.isin([57, 59, 60], kept.ids).all()  # a list read as 0-based would take these neighbours instead


def test_the_sample_holds_no_uncharacterized_molecule():
    table = read_table(qm9.SAMPLE_FILE)
    kept, counts = qm9.exclude_uncharacterized(table)
    assert counts == (22_807, 0, 22_807)
    assert kept is table


@pytest.mark.parametrize(
    ("ids", "complete", "words"),
    [
        (np.arange(10), False, "not QM9"),
        (np.array([1, 2, 2]), False, "not QM9"),
        (np.array([1, 200_000]), False, "not QM9"),
        (np.array([58, 61]), False, "expected molecules to keep"),
        (np.arange(1, 133_885), True, "133,884"),
    ],
)
def test_ids_that_are_not_those_of_qm9_are_refused(ids, complete, words):
    with pytest.raises(DataError, match=words):
        qm9.exclude_uncharacterized(atoms(ids), complete)


def test_a_shortened_list_is_refused(tmp_path):
    path = tmp_path / "uncharacterized.txt"
    path.write_text("".join(qm9.UNCHARACTERIZED_FILE.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(DataError, match=r"found 3,05\d; .*figshare"):
        qm9.read_uncharacterized(path)


# ---- downloads -------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves CONTENT on 127.0.0.1; the path says how: /whole, /breaks, /rangeless, /wrong, /moved, /absent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.piece = 90_000

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/waiting":  # how figshare turns robots away
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = b"<html>sorry</html>" if self.path == "/wrong" else CONTENT
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.path != "/rangeless" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.piece if self.path == "/breaks" else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def assert_whole(folder: Path) -> None:
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["data.bin"]


def test_download_whole_and_once(server, tmp_path):
    remote = replace(REMOTE, mirrors=(server.url("whole"),))
    folder = tmp_path / "new" / "folder"
    assert fetch(remote, folder) == folder / "data.bin"
    assert_whole(folder)
    fetch(remote, folder)
    assert server.requests == [("/whole", None)]


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    fetch(replace(REMOTE, mirrors=(server.url("breaks"),)), tmp_path)
    assert_whole(tmp_path)
    assert server.requests == [("/breaks", None), ("/breaks", "bytes=90000-"), ("/breaks", "bytes=180000-")]


def test_the_next_call_goes_on_from_the_part(server, tmp_path):
    server.piece = 0
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1234])
    with pytest.raises(DataError, match="broke after 1,234 of 200,000"):
        fetch(replace(REMOTE, mirrors=(server.url("breaks"),)), tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:1234]
    fetch(replace(REMOTE, mirrors=(server.url("whole"),)), tmp_path)
    assert_whole(tmp_path)
    assert server.requests[-1] == ("/whole", "bytes=1234-")


@pytest.mark.parametrize("kind", ["rangeless", "whole"])
@pytest.mark.parametrize("length", [5_000, len(CONTENT)])
def test_a_part_of_any_length_ends_well(server, tmp_path, kind, length):
    """A server without ranges sends everything again; a part that is already whole draws a 416."""
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:length])
    fetch(replace(REMOTE, mirrors=(server.url(kind),)), tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("first", ["wrong", "absent", "waiting", "http://127.0.0.1:9/closed", "ftp-like nonsense"])
def test_mirrors_are_tried_in_turn(server, tmp_path, first):
    address = first if ":" in first or " " in first else server.url(first)
    fetch(replace(REMOTE, mirrors=(address, server.url("whole"))), tmp_path)
    assert_whole(tmp_path)


def test_a_part_with_wrong_bytes_is_not_kept(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(bytes(1000))
    with pytest.raises(DataError, match="expected sha256"):
        fetch(replace(REMOTE, mirrors=(server.url("whole"),)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_size_is_taken_from_the_record_or_refused(server, tmp_path):
    fetch(replace(REMOTE, mirrors=(server.url("unsized"),)), tmp_path / "known")
    assert_whole(tmp_path / "known")
    with pytest.raises(DataError, match="does not state the size"):
        fetch(RemoteFile("data.bin", (server.url("unsized"),)), tmp_path / "unknown")


def test_a_file_of_the_same_name_is_never_overwritten(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"precious")
    with pytest.raises(DataError, match="move it away"):
        fetch(replace(REMOTE, mirrors=(server.url("whole"),)), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == b"precious"


def test_without_a_network_one_line_says_what_to_fetch(tmp_path, monkeypatch, capsys):
    def no_network(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    with pytest.raises(DataError) as caught:
        qm9.download(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for words in (
        "dsgdb9nsd.xyz.tar.bz2",
        "https://ndownloader.figshare.com/files/3195389",
        str(tmp_path),
        "unreachable",
    ):
        assert words in message
    assert "gdb9.tar.gz" in capsys.readouterr().err


def test_the_second_archive_is_used_where_the_first_is_not_to_be_had(server, tmp_path, monkeypatch):
    monkeypatch.setattr(qm9, "XYZ_ARCHIVE", replace(qm9.XYZ_ARCHIVE, mirrors=(server.url("absent"),)))
    monkeypatch.setattr(qm9, "SDF_ARCHIVE", replace(qm9.SDF_ARCHIVE, mirrors=(server.url("whole"),)))
    assert qm9.download(tmp_path) == tmp_path / "gdb9.tar.gz"
