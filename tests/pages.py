"""The pages for users: which there are, and the commands, paths, keys and numbers that stand on them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README_CN.md")
HIDDEN = re.compile(r"^(?:\.|runs$|data$|node_modules$)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|sh|md|toml|txt|yaml)|LICENSE")
ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)
#: options whose value is a file or folder that must be there
INPUTS = ("--ckpt", "--resume", "--input", "--data", "--config", "--weights", "--check", "--peer_python", "-r")


class Command(NamedTuple):
    """One command of a shell block or of a code span.

    Attributes:
        words: as the shell would split it, without comments.
        environment: NAME=VALUE before it.
    """

    words: list[str]
    environment: dict[str, str]

    @property
    def script(self) -> str | None:
        """The Python program of the project that it starts."""
        is_program = self.words[0] == "python" and len(self.words) > 1 and self.words[1].endswith(".py")
        return self.words[1] if is_program else None

    def values(self, *options: str) -> list[str]:
        """What follows each of these options."""
        return [self.words[at + 1] for at, word in enumerate(self.words[:-1]) if word in options]

    @property
    def inputs(self) -> list[str]:
        """Files and folders that it reads."""
        files = self.values(*INPUTS) + [
            word.partition("=")[2] for word in self.words if re.match(r"data\.\w*file=", word)
        ]
        return files + (self.words[2:3] if self.words[1:2] == ["scripts/run_eval.sh"] else [])

    @property
    def outputs(self) -> list[str]:
        """Files and folders that it writes."""
        inside = [name for word in self.words for name in re.findall(r"\.write\('([\w.]+)'\)", word)]
        split = [f"{name.removesuffix('.npz')}_split.npz" for name in self.values("--output")]
        beside = split if {"scripts/fold_crystals.py", "scripts/mmff_geometries.py"} & set(self.words) else []
        return self.values("--output", ">", "venv") + inside + beside


def names(pattern: str) -> list[str]:
    """Pages of the project, without what runs and environments leave."""
    files = (path.relative_to(ROOT) for path in ROOT.glob(pattern))
    return sorted(file.as_posix() for file in files if not any(HIDDEN.match(part) for part in file.parts))


#: pages with commands for users, the first page first: the others may use what its commands have made
ROOMS = [*READMES, *(name for name in names("**/README*.md") if name not in READMES)]
RESULTS = [name for name in names("results/**/*.md") if name not in ROOMS]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(text_of(name)) if kind == language]


def code_spans(name: str) -> list[str]:
    """What stands between back quotes, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text_of(name)))


def links(name: str) -> list[Path]:
    """Files and folders that a page links to."""
    found = re.findall(r"\]\(([^)\s#]+)\)", text_of(name))
    return [(ROOT / name).parent / link for link in found if "://" not in link]


def command_of(text: str, variables: dict[str, str]) -> Command | None:
    """One line of a shell block; None for a comment and for an assignment, which is kept in ``variables``."""
    words = shlex.split(text, comments=True)
    for _ in range(2):  # a variable of variables
        words = [
            part
            for word in words
            for part in (shlex.split(variables[word[1:]]) if word[:1] == "$" and word[1:] in variables else [word])
        ]
    environment = {}
    while words and (match := ASSIGNMENT.fullmatch(words[0])):
        environment[match[1]] = re.sub(r"\$(\w+)", lambda found: variables[found[1]], match[2])
        words = words[1:]
    if words:
        return Command(words, environment)
    variables.update(environment)
    return None


def commands(name: str) -> list[Command]:
    """The commands of the shell blocks from top to bottom."""
    found: list[Command | None] = []
    for block in blocks(name, "bash"):
        variables: dict[str, str] = {}
        waiting = ""
        for line in block.replace("\\\n", " ").splitlines():
            waiting += f" {line}"
            if waiting.count('"') % 2:
                continue  # a quotation of several lines
            found.append(command_of(waiting, variables))
            waiting = ""
    return [command for command in found if command]


def inline_commands(name: str) -> list[Command]:
    """The commands in code spans."""
    spans = (span for span in code_spans(name) if re.match(r"(?:\w+=\S+ )*python \S+\.py", span))
    return [command for span in spans if (command := command_of(span, {}))]


def result_rows(name: str) -> list[tuple[str, list[Path]]]:
    """(text of the measured cells, pages that the row links to) of the tables between the marks of results."""
    found = []
    for part in re.findall(r"<!-- results -->(.*?)<!-- /results -->", text_of(name), re.DOTALL):
        for row in re.findall(r"^\|(.*)\|$", part, re.MULTILINE):
            cells = row.split("|")
            targets = [(ROOT / name).parent / link for link in re.findall(r"\]\(([^)]+)\)", cells[-1])]
            if targets:
                found.append((" ".join(cells[1:-1]), targets))
    return found
