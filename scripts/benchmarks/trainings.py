"""Trainings that a benchmark starts: train.py in a process of its own, its log in a file."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("trainings.py is a part of few_labels.py: see python scripts/benchmarks/few_labels.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.graph import DataError


def train(config: str, folder: Path, words: Sequence[str]) -> None:
    """Train into a run folder, in the place of a run that is there; the log is ``FOLDER.log``.

    Args:
        config: YAML file.
        folder: of the run.
        words: further options of train.py.

    Raises:
        DataError: the training failed.
    """
    command = [sys.executable, "train.py", "--config", config, "--output", str(folder), "--overwrite", *words]
    file = folder.with_name(f"{folder.name}.log")
    with file.open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise DataError(f"{file}: a training ended with exit code {done.returncode}; its last lines say why")


def metrics_of(config: str, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The metrics of a training, which is made unless it is there; arguments as of ``train``.

    Raises:
        DataError: it failed.
    """
    file = folder / "metrics.json"
    if not file.exists():
        train(config, folder, words)
    return json.loads(file.read_text(encoding="utf-8"))
