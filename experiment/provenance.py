"""Where a result comes from: version, commit, command line, start, data and the weights a run began with.

Nothing here may stop or delay a run: without git, or where it takes too long, the commit is unknown (None).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from training.files import one_line

VERSION = "0.1.0"  # of the program; CHANGELOG.md names it too
PROGRAM_FOLDER = Path(__file__).parents[1]
MASK = "MASKED"
GIT_SECONDS = 1.0  # for all that git is asked; it takes a few hundredths
COMPARE_SECONDS = 0.3  # for comparing the files with the commit; it takes a tenth
#: nothing that the configuration of the repository names is run, nothing is fetched and nothing is written
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "safe.directory=*")
GIT_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none", "LC_ALL": "C",
}  # fmt: skip
SECRET_NAME = re.compile(
    r"pass(?:word|wd|phrase)|token|secret|credential|authorization|signature|cookie|(?:api|access|private)[-_]?key"
    r"|(?<![a-z0-9])(?:pass|pwd|pw|ak|sk|key|sig|auth)(?![a-z0-9])",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(  # "token": "abc", token=abc, Authorization: Bearer abc
    rf"((?:{SECRET_NAME.pattern})[\w.-]{{0,40}}\\*[\"']?\s{{0,9}}[=:]\s{{0,9}})"
    r"(?:(?P<opening>\\*(?P<quote>[\"']))(?:\\.|(?!(?P=quote))[^\\])+|(?:(?:bearer|basic)\s{1,9})?[^\s\"',;&}\])]+)",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"://([^\s\"']+)")
#: keys that are recognised by their form: of GitHub, GitLab, Hugging Face, AWS, and JSON web tokens
KEY_FORM = re.compile(
    r"gh[a-z]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,}(?:\.[\w-]+){1,2}"
)


@dataclass(frozen=True)
class Command:
    """A program that was started.

    Attributes:
        text: the command line for a shell, secrets masked.
        started: date, time and time zone, ISO 8601.
    """

    text: str
    started: str

    def record(self) -> dict[str, Any]:
        """The entries of JSON files; ``commit`` is None where there is none."""
        return {"version": VERSION, "commit": commit_of(PROGRAM_FOLDER), "command": self.text, "started": self.started}


def command_of(program: str, arguments: Sequence[str] | None) -> Command:
    """The command that is running, from now.

    Args:
        program: the file, for a caller that gives arguments of its own.
        arguments: of that caller; None: this process's.
    """
    commit_of(PROGRAM_FOLDER)  # of now: what a benchmark writes may be a tracked page, which would differ from it later
    words = sys.orig_argv if arguments is None else ["python", program, *arguments]
    text = shlex.join(masked(words)).encode("utf-8", "backslashreplace").decode()  # an argument may be any bytes
    return Command(text, datetime.now().astimezone().isoformat(timespec="seconds"))


def of_run(
    command: Command, source: str, pretrained: Mapping[str, str] | None, resumed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The provenance of a run, for its log, its metrics and its checkpoints.

    Args:
        command: that started or resumed it.
        source: file names and sha256 of its data.
        pretrained: ``file`` and ``sha256`` of the checkpoint that it begins with.
        resumed: what the checkpoint that it continues says about itself; None for a new run.

    Returns:
        The keys of ``Command.record`` with ``data``, ``pretrained`` and ``resumed``: of the command that started the
        run; ``resumed`` lists the later ones.
    """
    now = {**command.record(), "data": source}
    if resumed is None:
        return {**now, "pretrained": pretrained, "resumed": []}
    first = resumed.get("provenance")
    first = first if isinstance(first, dict) else {**dict.fromkeys(now), "pretrained": None}  # of an older version
    earlier = first.get("resumed")
    return {**first, "resumed": [*(earlier if isinstance(earlier, list) else []), now]}


def command_lines(command: Command) -> list[str]:
    """The first lines of a log: of the command that is running."""
    now = command.record()
    return [
        f"GeoSpore {now['version']}  commit {now['commit'] or 'unknown'}  started {now['started']}",
        f"command: {one_line(now['command'])}",
    ]


def pretrained_lines(provenance: Mapping[str, Any]) -> list[str]:
    """A line of the log with the weights that the run began with, where there are any."""
    pretrained = provenance.get("pretrained")
    return [f"pretrained: {one_line(pretrained['file'])} sha256 {pretrained['sha256']}"] if pretrained else []


def masked(words: Sequence[str]) -> list[str]:
    """The words of a command line without secrets: passwords, tokens, keys, queries of addresses."""
    result: list[str] = []
    follows_secret = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_name = re.fullmatch(r"[\w.-]+", name) is not None and SECRET_NAME.search(name) is not None
        if follows_secret and not word.startswith("-"):
            result.append(MASK)
        elif is_name and equals:
            result.append(f"{name}={MASK}")
        else:
            result.append(_masked_inside(word))
        follows_secret = is_name and not equals and word.startswith("-")
    return result


def _masked_inside(text: str) -> str:
    text = ADDRESS.sub(lambda part: f"://{_masked_address(part[1])}", text)
    text = SECRET_VALUE.sub(lambda part: f"{part[1]}{part['opening'] or ''}{MASK}", text)
    return KEY_FORM.sub(MASK, text)


def _masked_address(address: str) -> str:
    """What follows ``://`` without user name, password and query."""
    place, mark, _ = re.split(r"([?#])", f"{address}?", maxsplit=1)
    query = mark + MASK if place != address else ""
    user, at, rest = place.rpartition("@")
    return (f"{MASK}@{rest}" if at and (":" in user or "/" not in user) else place) + query


@cache
def commit_of(folder: Path, own: str = Path(__file__).relative_to(PROGRAM_FOLDER).as_posix()) -> str | None:
    """The commit of a checkout, with ``-dirty`` where a tracked file differs from it; None where there is none.

    ``own`` is a file that a checkout of this project has; another version may have it elsewhere.  Files are compared
    here, not by git, which would run the filters that the repository's configuration names.
    ``-unchecked`` says that there was no time to compare all of them.
    """
    until = time.monotonic() + GIT_SECONDS
    found = [
        _git(folder, until, *words)
        for words in (("rev-parse", "HEAD"), ("ls-tree", "-r", "-z", "HEAD"), ("ls-files", "-s", "-z"))
    ]
    head, tree, index = (None if text is None else text.decode("utf-8", "surrogateescape") for text in found)
    if head is None or tree is None or index is None:
        return None
    committed = _entries(tree, 2)
    # a program that lies inside of another project's checkout has no commit of its own
    if own not in committed:
        return None
    if committed != _entries(index, 1):
        return f"{head.strip()}-dirty"
    until = time.monotonic() + COMPARE_SECONDS
    for name, (mode, digest) in sorted(committed.items(), key=lambda entry: not entry[0].endswith(".py")):
        if time.monotonic() > until:
            return f"{head.strip()}-unchecked"
        if not _unchanged(folder / name, mode, digest):
            return f"{head.strip()}-dirty"
    return head.strip()


def _git(folder: Path, until: float, *words: str) -> bytes | None:
    """What git prints; None where it fails, is not installed or takes too long."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), **GIT_ENVIRONMENT}
    try:
        done = subprocess.run(
            [*GIT, "-C", str(folder), *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment, timeout=max(until - time.monotonic(), 0.01),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _entries(listing: str, digest_at: int) -> dict[str, tuple[str, str]]:
    """Name to mode and digest of a listing of git with NUL between its lines."""
    lines = (line.partition("\t") for line in listing.split("\0") if line)
    return {name: (about.split()[0], about.split()[digest_at]) for about, _, name in lines}


def _unchanged(path: Path, mode: str, digest: str) -> bool:
    """Whether a file has the content that git keeps under ``digest``."""
    if mode == "160000":  # another repository
        return True
    try:
        content = os.readlink(os.fsencode(path)) if mode == "120000" else path.read_bytes()
    except OSError:
        return False
    if _digest(content, len(digest)) == digest:
        return True
    return b"\r\n" in content and _digest(content.replace(b"\r\n", b"\n"), len(digest)) == digest


def _digest(content: bytes, digits: int) -> str:
    new = hashlib.sha1 if digits == 40 else hashlib.sha256
    return new(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
