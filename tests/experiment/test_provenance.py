"""Where a result comes from: the commit of a checkout, and command lines without secrets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from datetime import datetime

import pytest
from tiny_runs import REPOSITORY

from data_tools.source_files import sha256_of
from experiment import provenance
from experiment.provenance import (
    MASK,
    Command,
    command_lines,
    command_of,
    commit_of,
    masked,
    of_run,
    pretrained_lines,
)  # fmt: skip

OWN = "experiment/provenance.py"  # the file by which a checkout of this program is known
SECRET = "hunter2"

WITH_SECRETS = [
    ("--token", SECRET),
    (f"--hf_token={SECRET}",),
    (f"--access-key={SECRET} with, more",),
    ("--ak", SECRET, "--sk", SECRET),
    ("--secret_access_key", SECRET),
    ("--set", f"run.password={SECRET}"),
    (f"AWS_SECRET_ACCESS_KEY={SECRET}",),
    (f"https://bucket.host/data.zip?X-Amz-Signature={SECRET}&x=1",),
    (f"https://host/data.zip#access={SECRET}",),
    (f"https://user:{SECRET}@host/data",),
    (f"https://user:pa/{SECRET}@host/data",),
    (f"--data_url=https://{SECRET}@host/data?versionId=3",),
    (f'[{{"dataset_url": "https://h/a.zip?token={SECRET}", "dataset_name": "a.zip"}}]',),
    (f'{{"name": "a", "token": "{SECRET}"}}',),
    (f'{{"token" : "x \\" {SECRET}"}}',),
    (f'{{\\"password\\": \\"{SECRET}\\"}}',),
    (f"{{'secret': 'a \"{SECRET}'}}",),
    (f"Authorization: Bearer {SECRET}",),
    (f"passwd={SECRET};user=me",),
    ("ghp_" + 12 * SECRET,),
    ("AKIAABCDEFGHIJKLMNOP", "--x"),
]


@pytest.mark.parametrize("words", WITH_SECRETS, ids=lambda words: words[0][:30])
def test_secrets_are_masked(words):
    text = command_of("train.py", ["--config", "a.yaml", *words, "--seed", "3"]).text
    assert SECRET not in text and "AKIA" not in text and MASK in text
    assert text.startswith("python train.py --config a.yaml ") and text.endswith(" --seed 3")


def test_the_rest_of_a_command_line_stays():
    words = [
        "--config", "configs/schnet/qm9_lite.yaml", "--set", "data.file=s3://bucket/key/my data.npz", "--set",
        "model.features=8", "--output", "runs/tasks=3 'quoted'", "https://host:8080/c", "mask.xyz", "", "$HOME",
    ]  # fmt: skip
    before = int(time.time())
    command = command_of("train.py", words)
    assert shlex.split(command.text) == ["python", "train.py", *words]
    started = datetime.fromisoformat(command.started)
    assert started.utcoffset() is not None and before <= started.timestamp() <= time.time()


def test_an_argument_of_any_bytes_can_be_written():
    command_of("train.py", ["--output", os.fsdecode(b"runs/\xff")]).text.encode("utf-8")


def test_the_command_line_is_as_typed(tmp_path):
    code = "from experiment.provenance import command_of; print(command_of('x.py', None).text)"
    command = [sys.executable, "-c", code, "--output", "a b", "--token", SECRET]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert shlex.split(done.stdout) == [*command[:-1], MASK]


LONG = ["a" * 100_000, "://" * 20_000, "token" * 20_000, "token= " * 9_000, "://" + "a:@" * 9_000]


@pytest.mark.parametrize("word", LONG, ids=lambda word: word[:8])
def test_masking_takes_no_time(word):
    began = time.process_time()
    masked([word])
    assert time.process_time() - began < 5


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A small checkout of this program, with a link and a file whose ends of lines are of Windows."""
    folder = tmp_path / "checkout"
    (folder / "experiment").mkdir(parents=True)
    (folder / OWN).write_text("# a program\n")
    (folder / "näme with space.txt").write_bytes(b"one\ntwo\n")
    (folder / "link").symlink_to("experiment")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    commit_of.cache_clear()
    return folder


def found(folder):
    commit_of.cache_clear()
    return commit_of(folder)


def test_the_commit_of_a_checkout(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", head) and found(checkout) == head
    (checkout / "untracked.txt").write_text("x")
    (checkout / "näme with space.txt").write_bytes(b"one\r\ntwo\r\n")
    assert found(checkout) == head
    linked = checkout.parent / "linked"
    git(checkout, "worktree", "add", "-q", str(linked))
    assert found(linked) == head


@pytest.mark.parametrize("change", ["edit", "remove", "stage", "link"])
def test_a_changed_checkout_is_dirty(change, checkout):
    head = git(checkout, "rev-parse", "HEAD")
    if change == "edit":
        (checkout / OWN).write_text("# a progran\n")  # of the same length
    elif change == "remove":
        (checkout / OWN).unlink()
    elif change == "stage":
        (checkout / "new.py").write_text("x = 1\n")
        git(checkout, "add", "new.py")
    else:
        (checkout / "link").unlink()
        (checkout / "link").symlink_to("elsewhere")
    assert found(checkout) == f"{head}-dirty"


def test_nothing_that_the_repository_configures_is_run(checkout):
    trap = checkout / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{checkout / 'sprung'}'\ncat\n")
    trap.chmod(0o755)
    keys = ("core.fsmonitor", "core.pager", "core.sshCommand", "filter.x.clean", "filter.x.smudge", "diff.external",
            "diff.x.textconv", "core.editor")  # fmt: skip
    for key in keys:
        git(checkout, "config", key, str(trap))
    hooks = checkout / ".git" / "hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout", "reference-transaction"):
        (hooks / hook).write_bytes(trap.read_bytes())
        (hooks / hook).chmod(0o755)
    (checkout / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    os.utime(checkout / OWN, (1, 1))  # the index no longer knows whether it has changed
    head = (checkout / ".git" / (checkout / ".git" / "HEAD").read_text().split()[1]).read_text().strip()
    assert found(checkout) == head
    assert not (checkout / "sprung").exists()
    subprocess.run(["git", "status"], cwd=checkout, check=False, capture_output=True)
    assert (checkout / "sprung").exists(), "the trap is none"


def test_where_there_is_no_commit(checkout, tmp_path, monkeypatch):
    inside = checkout / "unpacked"  # an unpacked program inside of the checkout of something else
    (inside / "experiment").mkdir(parents=True)
    (inside / OWN).write_text("# a program\n")
    assert found(inside) is None
    assert found(tmp_path) is None and found(tmp_path / "nothing") is None
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))  # of a hook that starts a training
    assert found(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(checkout) is None


def test_a_slow_git_does_not_delay_a_run(checkout, tmp_path, monkeypatch):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)
    began = time.perf_counter()
    assert found(checkout) is None
    assert time.perf_counter() - began < 50  # the slow one takes 60
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "COMPARE_SECONDS", -1.0)
    assert found(checkout).endswith("-unchecked")


NOW = Command("python train.py --resume runs/a", "2025-01-02T03:04:05+08:00")


def test_a_resumed_run_keeps_its_first_command_and_lists_the_later_ones(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"abc")
    begun_with = {"file": str(weights), "sha256": sha256_of(weights)}
    first = of_run(Command("python train.py", "2025-01-01T00:00:00+00:00"), "a.npz sha256 1", begun_with)
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert first["pretrained"] == {"file": str(weights), "sha256": digest} and digest == sha256_of(weights)
    second = of_run(NOW, "b.npz sha256 2", begun_with, {"provenance": first})
    third = of_run(NOW, "a.npz sha256 1", None, {"provenance": second})
    later = {**NOW.record(), "data": "b.npz sha256 2"}
    assert second == {**first, "resumed": [later]}
    assert third == {**first, "resumed": [later, later | {"data": "a.npz sha256 1"}]}
    lines = [*command_lines(NOW), *pretrained_lines(third)]
    assert lines[0].endswith(f"started {NOW.started}") and lines[1] == f"command: {NOW.text}"
    assert lines[2] == f"pretrained: {weights} sha256 {digest}"


@pytest.mark.parametrize("of_checkpoint", [{}, *({"provenance": value} for value in (None, [], {"resumed": 3}))])
def test_a_checkpoint_without_provenance_is_resumed_too(of_checkpoint):
    origin = of_run(NOW, "a.npz sha256 1", None, of_checkpoint)
    assert origin.get("command") is None and origin["resumed"] == [{**NOW.record(), "data": "a.npz sha256 1"}]
    assert len(command_lines(NOW)) == 2 and not pretrained_lines(origin)


def test_the_version_is_that_of_the_changelog():
    newest = re.search(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] in (provenance.VERSION, "Unreleased")


def test_the_commit_is_that_of_the_start(monkeypatch):
    """A benchmark that has written a page, which git tracks, still tells the commit that it has run."""
    provenance.commit_of.cache_clear()
    command = provenance.command_of("eval.py", [])
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    record, later = command.record(), provenance.commit_of.__wrapped__(provenance.PROGRAM_FOLDER)
    assert later is None and (record["commit"] or not (REPOSITORY / ".git").exists())
