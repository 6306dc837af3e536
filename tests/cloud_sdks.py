"""A stand-in for moxing that copies files for real, and the buckets that it copies from and to; c2net is the real one.

``moxing.file.copy_parallel`` behaves as the original where it matters: it copies a file or merges a folder, and it
raises for a source that is not there.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

MOXING = """
import os, pathlib, shutil, sys, time
BUCKETS = pathlib.Path(os.environ["FAKE_BUCKETS"])
CALLS = []

def place(url):
    return BUCKETS / url.split("://", 1)[1] if "://" in url else pathlib.Path(url)

def exists(url):
    return place(url).exists()

def copy(source, target):
    copy_parallel(source, target)

def copy_parallel(src_url, dst_url, file_list=None, threads=16, is_processing=True, use_queue=True):
    CALLS.append((src_url, dst_url))
    with open(BUCKETS / "journal", "a") as journal:
        journal.write(f"{os.getpid()} {src_url} -> {dst_url}\\n")
    source, target = place(src_url), place(dst_url)
    if not source.exists():
        raise OSError(f"[Errno 404] object not found:\\n{src_url}")
    if "://" in dst_url and os.environ.get("FAKE_UPLOADS") == "fail":
        raise ConnectionError("the bucket\\nis gone")
    dying = os.environ.get("FAKE_DIES") and not (BUCKETS / "died").exists()
    pairs = [(source, target)] if source.is_file() else [
        (file, target / file.relative_to(source)) for file in sorted(source.rglob("*")) if file.is_file()
    ]
    target.mkdir(parents=True, exist_ok=True) if source.is_dir() else None
    for file, copied in pairs:
        copied.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        if dying and "://" not in dst_url:
            copied.write_bytes(content[: len(content) // 2])
            (BUCKETS / "died").touch()
            os.kill(os.getpid(), 9)
        copied.write_bytes(content)
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
"""

NEEDS_C2NET = pytest.mark.skipif(
    importlib.util.find_spec("c2net") is None, reason="c2net is not installed; requirements-dev.txt lists it"
)


class Cloud:
    """A folder with moxing, buckets, and the local disk of a server.

    Args:
        folder: where all of it is made.
    """

    def __init__(self, folder: Path):
        self.packages, self.buckets, self.disk = folder / "packages", folder / "buckets", folder / "local disk"
        for path in (self.buckets, self.disk):
            path.mkdir(parents=True)
        self.install("moxing", {"__init__.py": "from moxing import file\n", "file.py": MOXING})

    def install(self, name: str, files: dict[str, str]) -> None:
        """Write a package."""
        (self.packages / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (self.packages / name / file).write_text(text, encoding="utf-8")

    def variables(self, **more: str) -> dict[str, str]:
        """Environment of a process on the server."""
        return {
            "PYTHONPATH": str(self.packages),
            "FAKE_BUCKETS": str(self.buckets),
            "TMPDIR": str(self.disk),
            "GLOG_v": "3",
            **more,
        }

    def c2net(self, method: str, data: dict[str, str], weights: dict[str, str] | None = None) -> dict[str, str]:
        """Environment of an OpenI job; data and weights are names with their addresses; mounted ones are put there."""
        job = self.disk / "job"
        for folder, files in (("dataset", data), ("pretrainmodel", weights or {})) if method == "MOUNT" else ():
            (job / folder).mkdir(parents=True)
            for name, url in files.items():
                shutil.copy(self.buckets / url.partition("://")[2], job / folder / name)
        return self.variables(
            DATA_DOWNLOAD_METHOD=method,
            CODE_URL="",
            LOCAL_CODE_PATH=str(job / "code"),
            LOCAL_DATASET_PATH=str(job / "dataset"),
            LOCAL_PRETRAIN_MODEL_PATH=str(job / "pretrainmodel"),
            LOCAL_OUTPUT_PATH=str(job / "output"),
            DATASET_URL=json.dumps([{"dataset_url": url, "dataset_name": name} for name, url in data.items()]),
            DATASET_NEED_UNZIP="true",
            PRETRAIN_MODEL_URL=json.dumps(
                [{"model_url": url, "model_name": name} for name, url in (weights or {}).items()]
            ),
            PRETRAIN_MODEL_NEED_UNZIP="true",
            OUTPUT_URL="s3://results/job",
        )

    def use(self, monkeypatch, variables: dict[str, str] | None = None) -> None:
        """Let this very process be on the server."""
        for name, value in (variables or self.variables()).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("tempfile.tempdir", str(self.disk))
        monkeypatch.syspath_prepend(str(self.packages))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("c2net", "moxing")]:
            monkeypatch.delitem(sys.modules, name)

    def journal(self) -> list[str]:
        """What moxing was asked to copy, a line each."""
        path = self.buckets / "journal"
        return path.read_text().splitlines() if path.exists() else []
