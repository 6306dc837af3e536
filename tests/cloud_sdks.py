"""Stand-ins for c2net and moxing that copy files for real, and the buckets that they copy from and to.

Each behaves as the original where it matters.  ``moxing.file.copy_parallel`` copies a file or merges a folder, and it
raises for a source that is not there.  ``c2net.context.prepare`` obeys environment variables, prints a banner,
downloads or finds mounted archives, unpacks each into a folder of its name and leaves hidden notes; where it cannot
download or upload it prints an error and goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MOXING = '''
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
'''

C2NET = '''
import json, os, pathlib, shutil
from moxing import file as mox

def variable(name):
    if os.environ.get(name) is None:
        raise ValueError(f"❌ Failed to obtain environment variables.\\nPlease set the {name} environment variables.")
    return os.environ[name]

def folder(name):
    path = pathlib.Path(variable(name))
    path.mkdir(parents=True, exist_ok=True)
    return path

def unpack(archive, remove):
    name = archive.name
    ending = next((ending for ending in (".tar.gz", ".zip") if name.endswith(ending)), None)
    if ending is None:
        return
    try:
        shutil.unpack_archive(archive, archive.with_name(name[: -len(ending)]))
    except Exception as error:
        print(f"❌ Extraction failed for {archive}: {error}")
    if remove:
        archive.unlink()

def fetch(local, url, need_unzip, address, name, note):
    path, method = folder(local), variable("DATA_DOWNLOAD_METHOD")
    if (path / note).exists():
        print(f"Detected {note} already exists")
        return path
    unzip = os.environ.get(need_unzip, "false") == "true"
    if method == "MOXING":
        if variable(url) in ("", "[]"):
            print("No dataset selected")
            return path
        for entry in json.loads(variable(url)):
            try:
                mox.copy_parallel(entry[address], str(path / entry[name]))
            except Exception as error:
                print(f"❌ moxing download failed: {error}")
                return path
            if unzip:
                unpack(path / entry[name], remove=True)
    else:
        for archive in list(path.iterdir()) if unzip else []:
            unpack(archive, remove=False)
    (path / note).write_text("prepared")
    return path

class C2netContext:
    pass

def prepare():
    print("  ___ c2net-beta ___\\n")
    if variable("DATA_DOWNLOAD_METHOD") not in ("MOXING", "MOUNT"):
        raise ValueError("❌ Unknown data download method")
    context = C2netContext()
    context.code_path = str(folder("LOCAL_CODE_PATH"))
    context.dataset_path = str(
        fetch("LOCAL_DATASET_PATH", "DATASET_URL", "DATASET_NEED_UNZIP", "dataset_url", "dataset_name",
              ".dataset_cache_file"))
    context.pretrain_model_path = str(
        fetch("LOCAL_PRETRAIN_MODEL_PATH", "PRETRAIN_MODEL_URL", "PRETRAIN_MODEL_NEED_UNZIP", "model_url", "model_name",
              ".pretrainmodel_cache_file"))
    context.output_path = str(folder("LOCAL_OUTPUT_PATH"))
    print("please set c2net_context.output_path as the output location")
    return context

def upload_output():
    path = folder("LOCAL_OUTPUT_PATH")
    if variable("DATA_DOWNLOAD_METHOD") == "MOXING" and variable("OUTPUT_URL"):
        print("Start Upload Output ...")
        try:
            mox.copy_parallel(str(path), variable("OUTPUT_URL"))
            print("✅ Completed Upload Output")
        except Exception as error:
            print(f"❌ moxing upload failed: {error}")
    return str(path)
'''


class Cloud:
    """A folder with both SDKs, buckets, and the local disk of a server.

    Args:
        folder: where all of it is made.
    """

    def __init__(self, folder: Path):
        self.packages, self.buckets, self.disk = folder / "packages", folder / "buckets", folder / "local disk"
        for path in (self.buckets, self.disk):
            path.mkdir(parents=True)
        self.install("moxing", {"__init__.py": "from moxing import file\n", "file.py": MOXING})
        self.install("c2net", {"__init__.py": "", "context.py": C2NET})

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
        """Environment of an OpenI job; data and weights are names with their addresses."""
        job = self.disk / "job"
        return self.variables(
            DATA_DOWNLOAD_METHOD=method,
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
