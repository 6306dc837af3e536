"""scripts/prepare_qm9.py as a user runs it: counts, the written folder, and one line for every mistake."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published_files import PACKED

from data_tools import qm9
from data_tools.formats.readers import read_table
from data_tools.graph import DataError
from data_tools.graphs import packed_folder
from data_tools.units import QM9_PROPERTIES

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_qm9.py"
RAW = qm9.SAMPLES / "raw_xyz"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("prepare_qm9", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_from_another_folder_as_a_program(tmp_path):
    command = [sys.executable, SCRIPT, "--source", RAW, "--output", "packed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 read, 0 excluded, 4 kept (a part of QM9: the whole data set has 133,885)" in done.stdout
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(RAW.glob("*.xyz")))).hexdigest()
    assert digest in done.stdout
    packed, table = packed_folder.load(tmp_path / "packed"), read_table(RAW)
    np.testing.assert_array_equal(packed.table.ids, [1, 2, 90, 880])
    np.testing.assert_array_equal(packed.table.positions, table.positions)
    assert set(packed.table.of_structures) == set(QM9_PROPERTIES)
    assert packed.n_pairs[0] == 10  # every pair of the five atoms of methane
    assert packed.notes == {"read": 4, "excluded": 0, "kept": 4}


def test_the_uncharacterized_are_left_out(main, tmp_path, capsys):
    for number in (57, 58, 59):
        data = (RAW / "dsgdb9nsd_000001.xyz").read_text().replace("gdb 1\t", f"gdb {number}\t")
        (tmp_path / f"dsgdb9nsd_{number:06d}.xyz").write_text(data)
    assert main(["--source", str(tmp_path), "--output", str(tmp_path / "out"), "--cutoff", "1.2"]) == 0
    assert "3 read, 1 excluded, 2 kept" in capsys.readouterr().out
    packed = packed_folder.load(tmp_path / "out")
    assert packed.table.ids.tolist() == [57, 59]
    assert packed.cutoff == 1.2 and packed.n_pairs.tolist() == [4, 4]  # C-H bonds only


def test_an_existing_packed_folder_is_replaced(main, tmp_path):
    arguments = ["--source", str(RAW), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--cutoff", "2"]) == 0
    assert main([*arguments, "--cutoff", "3"]) == 0
    assert packed_folder.load(tmp_path / "out").cutoff == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("source", ["raw xyz", "sample.npz"])
def test_a_folder_of_an_earlier_version_says_how_it_is_made_anew(main, tmp_path, monkeypatch, source):
    """The command of the message, run where the source lies, makes the same folder in this version's format."""
    if source == "sample.npz":
        shutil.copy(PACKED, tmp_path / source)
    else:
        shutil.copytree(RAW, tmp_path / source)
    folder = tmp_path / "packed graphs"
    assert main(["--source", str(tmp_path / source), "--output", str(folder), "--cutoff", "2.5"]) == 0
    made = packed_folder.load(folder)
    manifest = folder / packed_folder.MANIFEST
    content = json.loads(manifest.read_text())
    earlier = {name.replace("structure_", "label_"): one["shape"] for name, one in content["arrays"].items()}
    manifest.write_text(json.dumps({**content, "format": "geospore-packed-graphs-1", "arrays": earlier}))
    with pytest.raises(DataError) as caught:
        packed_folder.load(folder)
    words, command = str(caught.value).split("; make it anew: ")
    assert (
        words == f"{folder}: expected format {packed_folder.FORMAT}, got geospore-packed-graphs-1 of an earlier version"
    )
    python, script, *options = shlex.split(command)
    assert python == "python" and script == "scripts/prepare_qm9.py"
    monkeypatch.chdir(tmp_path)
    assert main(options) == 0
    again = packed_folder.load(folder)
    assert again.cutoff == 2.5 and again.table.source == made.table.source
    np.testing.assert_array_equal(again.pair_senders, made.pair_senders)


def write_taken(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("precious")


def write_plain_xyz(folder: Path) -> None:
    (folder / "in.xyz").write_text("1\nhelium\nHe 0 0 0\n")


@pytest.mark.parametrize(
    ("prepare", "source", "cutoff", "words"),
    [
        (None, "absent.tar.bz2", "5", "absent.tar.bz2: expected a data file, found nothing there"),
        (write_plain_xyz, "in.xyz", "5", "this is not QM9"),
        (None, RAW, "-1", "--cutoff -1.0: expected a positive number"),
        (None, RAW, "nan", "expected a positive number"),
        (write_taken, RAW, "5", "found other files"),
        (lambda folder: (folder / "out").write_text("x"), RAW, "5", "found a file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(main, tmp_path, capsys, prepare, source, cutoff, words):
    if prepare:
        prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--source", str(tmp_path / source), "--output", str(tmp_path / "out"), "--cutoff", cutoff]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words in error
    assert sorted(tmp_path.rglob("*")) == before


def test_neither_source_nor_download(main, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path)])
    assert "--download" in capsys.readouterr().err


def test_a_download_without_a_network(main, tmp_path, capsys, monkeypatch):
    for name in ("XYZ_ARCHIVE", "SDF_ARCHIVE"):
        monkeypatch.setattr(qm9, name, replace(getattr(qm9, name), mirrors=("http://127.0.0.1:9/file",)))
    assert main(["--download", "--source", str(tmp_path / "raw"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "put it into" in error.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_download_must_be_the_whole_data_set(main, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(qm9, "download", lambda folder, progress: RAW)
    assert main(["--download", "--output", str(tmp_path / "out")]) == 2
    assert "expected 133,885 molecules read" in capsys.readouterr().err
