"""Runs the commands of a page in a copy of the project, each as far as a test can afford."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pages import ROOT, Command, blocks, commands
from published_files import RAW_FILES, write_tar

from training.loop import Trainer

#: programs that are stopped as soon as their arguments are parsed: what else they would need
PARSED = {
    "scripts/doctor.py": "two minutes; tests/scripts/test_doctor.py",
    "scripts/compare_runs.py": "trainings of several pages; tests/scripts/test_compare_runs.py",
    "scripts/benchmarks/benchmark.py": "PyG in an environment of its own",
    "scripts/peers/potentials.py": "potentials in an environment of their own; tests/scripts/test_potentials.py",
    "scripts/benchmarks/check_configs.py": "an hour; tests/scripts/test_check_configs.py",
    **{f"examples/{name}.py": "tests/scripts/test_examples.py" for name in ("optimise", "vibrations", "dynamics")},
}
#: options appended to a program that runs whole
LAST: dict[str, list[str]] = {
    "scripts/convert_weights.py": ["--mode", "GRAPH"],
}
#: the same for a training whose run another command reads; frames have files for training and test
SMALL = (
    *("training.epochs=1", "training.batch_size=8", "run.plots=false"),
    *("data.train_size=24", "data.valid_size=8", "data.test_size=8", "data.shapes=1"),
)
OF_ONE_FILE = "data.split=random"
SMALL_MODEL = ("model.features=8", "model.filters=8", "model.blocks=1", "model.gaussians=8")
#: what stands on a page but needs the whole of QM9
FOR_A_PART = {"data.split=110k": ("data.split=random", "data.train_size=2", "data.valid_size=1", "data.test_size=1")}
RECORDER = """#!/usr/bin/env bash
record() {{ printf '%q ' "$@" >"{log}/$(ls "{log}" | wc -l)"; exit 0; }}
for word in "$@"; do [[ "$word" != *train.py && "$word" != *eval.py ]] || record "$@"; done
[[ "$1" != -m ]] || record "$@"
exec {python} "$@"
"""


class Stop(BaseException):
    """Ends a program on purpose; no program catches it."""


def stop(*_: Any, **__: Any) -> Any:
    raise Stop


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


class Walk:
    """A copy of the project in which commands run.

    Attributes:
        folder: links to everything in the project, and what the commands write.
        done: pages whose commands have run.
        read: runs that a command or a Python block of some page reads.
    """

    def __init__(self, folder: Path, read: set[str]):
        self.folder, self.read = folder, read
        self.done: set[str] = set()
        self.log = folder / ".recorded"
        self.log.mkdir()
        for path in ROOT.iterdir():
            if path.name not in {"runs", "data"} and not path.name.startswith("."):
                (folder / path.name).symlink_to(path)
        (folder / "data" / "raw").mkdir(parents=True)
        write_tar(
            folder / "data" / "raw" / "dsgdb9nsd.xyz.tar.bz2", {file.name: file.read_bytes() for file in RAW_FILES}
        )
        self.python = folder / ".venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(RECORDER.format(log=self.log, python=sys.executable))
        self.python.chmod(0o755)

    def page(self, name: str) -> None:
        """Run the commands of a page, after those of the first page, once."""
        for page in dict.fromkeys(("README.md", name)):
            if page not in self.done:
                self.done.add(page)
                for command in commands(page):
                    self.command(command)
                for block in blocks(page, "python"):
                    with inside(self.folder, {}):
                        exec(compile(block, page, "exec"), {})

    def command(self, command: Command) -> None:
        """Run one command."""
        words = command.words
        if command.script:
            self.program(command)
        elif words[0] == "bash":
            self.shell_script(words)
        elif words[-2:-1] == ["-r"]:  # pip, which would need the network
            lines = (ROOT / words[-1]).read_text(encoding="utf-8").splitlines()
            assert [Requirement(line) for line in lines if line.strip() and line[0] not in "#-"]
        elif words[:3] == ["python", "-m", "venv"]:
            self.call([sys.executable, *words[1:], "--without-pip"])
        elif words[0] != "source":
            text = " ".join(word if word == ">" else shlex.quote(word) for word in words)
            self.call(["bash", "-c", f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; {text}'])

    def call(self, words: list[str], **environment: str) -> None:
        done = subprocess.run(
            words, cwd=self.folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def shell_script(self, words: list[str]) -> None:
        """Run a shell script with a Python that writes down what it is asked to start; start that by ``program``."""
        files = "requirements.txt requirements-dev.txt" if "scripts/test.sh" in words else "requirements.txt"
        venv = self.python.parents[1]
        ready = f"source scripts/environment.sh; _stamp {venv}/bin/python {files} >{venv}/.requirements"
        self.call(["bash", "-c", ready])
        self.call(words, PYTHON=str(self.python) if "run_" in words[1] else "", GEOSPORE_VENV=str(venv))
        recorded = sorted(self.log.iterdir(), key=lambda path: int(path.name))
        started = [shlex.split(path.read_text()) for path in recorded]
        for path in recorded:
            path.unlink()
        assert started
        for call in started:
            at = [number for number, word in enumerate(call) if word.endswith(("train.py", "eval.py"))]
            if at:
                self.program(Command(["python", Path(call[at[0]]).name, *call[at[0] + 1 :]], {}))
        if "scripts/test.sh" in words:
            calls = ["pytest"] * (1 if words[2:] else 2)  # all tests in two
            assert [call[1] for call in started] == ["ruff", "mypy", *calls]
            assert started[-1][len(started[-1]) - len(words[2:]) :] == words[2:]

    def program(self, command: Command) -> None:
        """Run a program of the project in this process: whole, or until it compiles, or until it knows its options."""
        script, arguments = command.script, command.words[2:]
        assert script
        for text, pairs in FOR_A_PART.items():
            arguments += settings(*pairs) if text in arguments else []
        if script in PARSED or "--download" in arguments:
            run_until(script, arguments, argparse.ArgumentParser, "parse_args", self.folder, command.environment)
        elif script == "scripts/ensemble.py":  # until it starts the first training
            run_until(script, arguments, subprocess, "Popen", self.folder, command.environment)
        elif "--device_num" in arguments:
            run_until(script, arguments, os, "execvp", self.folder, command.environment)
        elif script == "train.py" and "--resume" in arguments:
            run(script, [*arguments, *settings("training.epochs=2")], self.folder, command.environment)
        elif script == "train.py" and self.read.intersection(command.outputs):
            split = [] if "configs/schnet/rmd17.yaml" in arguments else [OF_ONE_FILE]
            run(script, [*arguments, *settings(*SMALL, *SMALL_MODEL, *split)], self.folder, command.environment)
        elif script == "train.py":
            run_until(script, arguments, Trainer, "compile", self.folder, command.environment)
        else:
            run(script, [*arguments, *LAST.get(script, [])], self.folder, command.environment)


@contextlib.contextmanager
def inside(folder: Path, environment: dict[str, str]) -> Iterator[pytest.MonkeyPatch]:
    """The working folder and the environment of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield patch


def main_of(script: str) -> Any:
    return importlib.import_module(script.removesuffix(".py").replace("/", ".")).main


def run(script: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    with inside(folder, environment):
        assert main_of(script)(arguments) in (0, None), f"{script} {arguments}"


def run_until(
    script: str, arguments: list[str], owner: Any, name: str, folder: Path, environment: dict[str, str]
) -> None:
    """Run until a function has been called; that of a parser must have returned."""
    original = getattr(owner, name)

    def parsed(*given: Any, **options: Any) -> Any:
        original(*given, **options)
        raise Stop

    with inside(folder, environment) as patch:
        patch.setattr(owner, name, parsed if name == "parse_args" else stop)
        try:
            code = main_of(script)(arguments)
        except Stop:
            return
    pytest.fail(f"{script} {arguments} ended with {code} before {name}")
