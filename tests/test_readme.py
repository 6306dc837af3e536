"""The READMEs are true: files exist, commands parse, both languages agree; and no text file names a private place."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from configs.loading import load_config

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README_CN.md")
#: made by a user, so they need not exist
MADE = ("runs/", "data/")
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|sh|md|toml|txt|yaml)|LICENSE")
#: files of a run folder
OF_A_RUN = {"config.yaml"}
PROGRAM = re.compile(r"^(?:\w+=\S+\s+)*python\s+(\S+\.py)\b")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """Lines of the shell blocks without comments and with continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text_of(name), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line.strip()]


def programs(name: str) -> list[tuple[str, list[str]]]:
    """(script, arguments) of every command that starts a Python program of the project."""
    found = []
    for command in commands(name):
        match = PROGRAM.match(command)
        if match:
            found.append((match.group(1), command[match.end() :].split()))
    return found


@functools.lru_cache
def flags(script: str) -> frozenset[str]:
    """Every flag in the help text of a script."""
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{script} --help: {done.stderr}"
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))


@pytest.mark.parametrize("name", READMES)
def test_every_path_exists(name):
    text = text_of(name)
    links = re.findall(r"\]\(([^)\s#]+)\)", text)
    named = {link for link in links if "://" not in link}
    named |= {code for code in re.findall(r"`([^`\n]+)`", text) if PATH.fullmatch(code)} - OF_A_RUN
    named |= {word for command in commands(name) for word in command.split() if word.startswith(("configs/", "tests/"))}
    named |= {script for script, _ in programs(name)}
    named |= {word for command in commands(name) for word in command.split() if word.endswith(".sh")}
    assert len(named) > 20, "the patterns find too little"
    missing = sorted(path for path in named if not path.startswith(MADE) and not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("name", READMES)
def test_every_flag_exists(name):
    assert len(programs(name)) >= 6
    for script, arguments in programs(name):
        unknown = {word for word in arguments if word.startswith("--")} - flags(script)
        assert not unknown, f"{script} has no {unknown}"
    inline = re.findall(r"`(--\w+)[^`]*`", text_of(name))
    known = frozenset().union(*(flags(script) for script in dict(programs(name))))
    assert not set(inline) - known


@pytest.mark.parametrize("name", READMES)
def test_every_configuration_of_a_command_loads(name):
    checked = 0
    for _, arguments in programs(name):
        if "--config" in arguments:
            values = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--set"]
            pairs = [(key, value) for key, _, value in (text.partition("=") for text in values)]
            load_config(ROOT / arguments[arguments.index("--config") + 1], pairs)
            checked += 1
    assert checked >= 3


def test_both_languages_agree():
    english, chinese = (text_of(name) for name in READMES)
    assert commands("README.md") == commands("README_CN.md")
    assert [len(level) for level in re.findall(r"^(#+) ", english, re.MULTILINE)] == [
        len(level) for level in re.findall(r"^(#+) ", chinese, re.MULTILINE)
    ]
    for pattern in (r"^\|.*\|$", r"`configs/[^`]+`", r"https?://[^)\s]+", r"results/[\w.]+"):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1], pattern
    for text in (english, chinese):
        assert text.count("<!-- results -->") == text.count("<!-- /results -->") == 1


def test_the_numbers_of_both_languages_agree():
    """Every number of the measured results is in both."""
    english, chinese = (
        re.search(r"<!-- results -->(.*)<!-- /results -->", text_of(name), re.DOTALL) for name in READMES
    )
    assert english and chinese
    assert sorted(re.findall(r"\d[\d.,]*\d|\d", english[1])) == sorted(re.findall(r"\d[\d.,]*\d|\d", chinese[1]))


def text_files() -> list[Path]:
    """Files that git tracks or would track, and that hold text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository")
    files = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~$}-])/(?:root|work|home/\w+|Users/\w+)" + "/",
        r"[A-Z]:\\Users\\",
        r"https?://[^/\s\"')]*\.(?:internal|local|lan|corp|intra)\b",
        r"\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b",
        r"--(?:extra-)?index-url\b",
    ],
)
def test_no_machine_in_any_text(pattern):
    own = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in text_files()
        if path.resolve() != own
        for match in re.finditer(pattern, path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found
