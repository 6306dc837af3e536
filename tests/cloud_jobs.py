"""A server of OpenI or ModelArts with data in a bucket, and the run parameters of a small job."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from cloud_sdks import Cloud
from tiny_runs import LIGHT, REPOSITORY, SMALL

from cloud import job as cloud_job
from cloud import sdks as platform_sdks

CONFIG = ("--config", "configs/schnet/qm9_mini.yaml")
#: what the platforms pass besides the addresses, in all forms
FOREIGN = ("--grampus_code_file_name=master.zip", "--enable_modelarts", "True", "--is_distributed", "--epoch", "3")
RESULTS = {"config.yaml", "split.npz", "train.log", "metrics.csv", "times.csv", "metrics.json", "predictions.csv",
           "best.safetensors", "last.safetensors"}  # fmt: skip


def words(*more, **settings):
    """The run parameters of a form: a small run."""
    pairs = {**SMALL, **LIGHT, **{key.replace("__", "."): value for key, value in settings.items()}}
    return [*more, *(word for key, value in pairs.items() for word in ("--set", f"{key}={value}"))]


def server(folder: Path, monkeypatch, molecules: Path) -> Cloud:
    """A server with the SDKs; this process runs on it.  A bucket holds the molecules in a zip with folders."""
    cloud = Cloud(folder)
    for name in (platform_sdks.METHOD, cloud_job.MODELARTS_FOLDER, *cloud_job.JOB_NAMES, *cloud_job.PROCESSES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cloud_job, "FAST_DISK", folder / "no such disk")
    cloud.use(monkeypatch)
    (cloud.buckets / "user" / "data").mkdir(parents=True)
    with zipfile.ZipFile(cloud.buckets / "user" / "data" / "qm9 part.zip", "w") as file:
        file.write(molecules, "folder/数据/molecules.npz")
    (cloud.buckets / "results").mkdir()
    return cloud


def start(cloud: Cloud, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """The program as a process on the server, in another folder."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    environment = {**os.environ, **cloud.variables(**variables)}
    return subprocess.Popen(
        command, cwd=cloud.disk, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def error_of(capsys):
    """The one line of a mistake."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def names(folder):
    return {path.name for path in folder.iterdir()}
