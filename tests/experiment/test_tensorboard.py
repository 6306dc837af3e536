"""Event files of TensorBoard: what metrics.csv holds, one curve also after a resume, nothing where they are off."""

from __future__ import annotations

import struct
import sys

import pytest
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2
from tiny_runs import MINI, changes, light, options, read_rows, small_run

import train
from experiment import tensorboard_curves
from experiment.tensorboard_curves import FILES, TensorboardCurves, tag_of


def events(folder):
    """The events of all files of a folder, in their order."""
    for file in sorted(folder.glob(FILES)):
        content = file.read_bytes()
        while content:
            size = struct.unpack("<Q", content[:8])[0]
            yield event_pb2.Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]


def shown(folder):
    """{(tag, step): value} as TensorBoard shows it: a start drops what is there from its step on."""
    points, count = {}, 0
    for event in events(folder):
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
            points = {key: value for key, value in points.items() if key[1] < event.step}
            count = len(points)
        for value in event.summary.value:
            points[value.tag, event.step] = value.simple_value
            count += 1
    assert count == len(points), "a point stands twice"
    return points


def written(folder):
    """The same of metrics.csv."""
    return {
        (tag_of(name, {"mae": "eV"}), int(row["step"])): float(text)
        for row in read_rows(folder / "metrics.csv")
        for name, text in row.items()
        if name not in ("epoch", "step")
    }


def test_tags_have_units():
    columns = ("train_loss", "train_mae", "valid_mae", "valid_force_mae", "train_stress_mae", "lr")
    expected = ["train/loss", "train/mae [D]", "valid/mae [D]", "valid/force_mae [eV/A]", "train/stress_mae [eV/A^3]"]
    assert [tag_of(column, {"mae": "D"}) for column in columns] == [*expected, "train/lr"]
    several = {"gap_mae": "eV", "alpha_mae": "a0^3"}
    assert tag_of("valid_alpha_mae", several) == "valid/alpha_mae [a0^3]"


def test_a_run_and_its_continuation(molecules, tmp_path):
    run = small_run(molecules, tmp_path / "run", run__tensorboard="true")
    assert shown(run) == pytest.approx(written(run), rel=1e-6) and len(shown(run)) == 4
    assert train.main(["--resume", str(run), *changes("training.epochs=2")]) == 0
    assert shown(run) == pytest.approx(written(run), rel=1e-6) and len(shown(run)) == 8
    again = options(molecules, run, "--config", str(MINI), "--overwrite", **light(run__tensorboard="false"))
    assert train.main(again) == 0 and not list(run.glob(FILES))


def test_without_the_package_nothing_is_written(molecules, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    run = tmp_path / "run"
    assert train.main(options(molecules, run, "--config", str(MINI), **light(run__tensorboard="true"))) == 2
    err = capsys.readouterr().err
    assert "pip install tensorboardX" in err and err.count("\n") == 1 and not run.exists()


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path, monkeypatch):
    row = {"epoch": 1, "step": 3, "train_loss": 1.0, "lr": 0.1, "seconds": 2.0, "structures_per_second": 1.0}
    said = []
    monkeypatch.setattr(tensorboard_curves.log, "warning", lambda words, *values: said.append(words % values))
    with TensorboardCurves(tmp_path, {"mae": "eV"}, [row]) as curves:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", full)
        for step in (6, 9):
            curves.add([row, row | {"step": step}])
    assert said == ["warning: no more curves for TensorBoard are written: [Errno 28] No space left on device"]
    assert len(shown(tmp_path)) == 2
    with TensorboardCurves(tmp_path / "missing", {"mae": "eV"}, []) as curves:
        curves.add([row])
