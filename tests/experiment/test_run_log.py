"""The log reaches its file whenever that is known, and what cannot be written is said once."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from experiment.run_log import log_to, set_up_log

log = logging.getLogger("geospore")


@pytest.fixture(autouse=True)
def clean():
    yield
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def words_of(file):
    return [line.partition("  ")[2] for line in file.read_text(encoding="utf-8").splitlines()]


def test_what_was_logged_before_comes_into_the_file(tmp_path, capsys):
    set_up_log()
    log.info("first")
    log_to(tmp_path / "early.log", last=False)
    log.info("second")
    assert words_of(tmp_path / "early.log") == ["first", "second"]
    (tmp_path / "train.log").write_text("of an earlier run\n")
    log_to(tmp_path / "train.log", fresh=True)
    log.info("third")
    assert words_of(tmp_path / "train.log") == ["first", "second", "third"]
    assert not (tmp_path / "early.log").exists()
    assert [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()] == ["first", "second", "third"]


def test_a_continued_log_is_appended_to(tmp_path, capsys):
    (tmp_path / "train.log").write_text("2026-01-01 00:00:00  of an earlier start\n")
    set_up_log()
    log.info("now")
    log_to(tmp_path / "train.log")
    log_to(tmp_path / "train.log", fresh=True)  # the same file: nothing is lost
    assert words_of(tmp_path / "train.log") == ["of an earlier start", "now"]


def test_a_full_disk_is_said_once(tmp_path, capsys):
    set_up_log()
    (tmp_path / "full.log").symlink_to("/dev/full")
    log_to(tmp_path / "full.log")
    for word in ("one", "two", "three"):
        log.info(word)
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("warning: the log cannot be written to ") and "No space left on device" in line
    assert captured.out.count("\n") == 3


def test_a_closed_pipe_ends_the_output_without_a_word(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    set_up_log()
    log.info("nobody hears this")
    assert capsys.readouterr().err == ""


def test_a_name_that_the_terminal_cannot_show(monkeypatch, tmp_path, capsys):
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding="ascii"))
    set_up_log()
    log_to(tmp_path / "train.log")
    log.info("数据 \udcb7")
    sys.stdout.flush()
    assert rb"\u6570\u636e" in screen.getvalue() and capsys.readouterr().err == ""
    assert words_of(tmp_path / "train.log") == ["数据 \\udcb7"]
