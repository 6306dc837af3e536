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
#: options whose value is a file or folder that must be there
INPUTS = ("--ckpt", "--resume", "--input", "--data", "--config", "--weights", "--check", "--peer_python", "-r")
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


@pytest.mark.parametrize("name", READMES)
def test_every_input_of_a_command_is_there_by_then(name):
    """From top to bottom in a fresh copy: files that a command reads ship with the project or were made above it."""
    made = {"runs/quickstart"}  # by scripts/quickstart.sh
    read, activated = 0, False
    for command in commands(name):
        words = command.split()
        activated |= command == "source .venv/bin/activate"
        assert activated or words[0] != "python", f"{command}: no environment is active yet"
        inputs = [words[at + 1] for at, word in enumerate(words) if word in INPUTS]
        inputs += [word.partition("=")[2] for word in words if re.match(r"data\.\w*file=", word)]
        inputs += words[2:3] if words[1:2] == ["scripts/run_eval.sh"] else []
        for path in inputs:
            folders = {str(folder) for folder in Path(path).parents}
            assert (ROOT / path).exists() or ({path} | folders) & made, f"{command}: where does {path} come from?"
            read += 1
        outputs = [words[at + 1] for at, word in enumerate(words) if word in ("--output", ">", "venv")]
        if "train.py" in words or "scripts/run_standalone_train.sh" in words or "scripts/quickstart.sh" in words:
            assert not set(outputs) & made, f"{command}: a run goes into a folder that is in use"
        made |= {*outputs, *re.findall(r"\.write\('([\w.]+)'\)", command)}
    assert read >= 10


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


def test_the_numbers_in_the_tables_of_both_languages_agree():
    """Every number of a table, the measured results among them, is in both."""
    rows = [re.findall(r"^\|.*\|$", text_of(name), re.MULTILINE) for name in READMES]
    english, chinese = (sorted(re.findall(r"\d[\d.,]*\d|\d", " ".join(found))) for found in rows)
    assert english == chinese and len(english) > 100


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
