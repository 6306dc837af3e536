"""How the kernels for CPUs are compiled and kept, and what happens where they cannot be."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from models import cpu_kernels
from models.cpu_kernels import build

needs_kernels = pytest.mark.skipif(not build.library(), reason="no C++ compiler on this machine")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    return tmp_path / "geospore"


def find_or_build() -> tuple[str, str]:
    """Without what is remembered from before."""
    return build.find_or_build.__wrapped__()


def code_of(file: str | Path) -> bytes:
    """A compiled file without its checksum."""
    content = Path(file).read_bytes()
    code = content.partition(build.MARK)[0]
    assert content == code + build.seal(code)
    return code


def fake_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put one compiler on the PATH: a shell script."""
    compiler = folder / "bin" / "c++"
    compiler.parent.mkdir()
    compiler.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/usr/bin:/bin")


COUNTING = """if [ "$1" = --version ]; then echo fake 1; exit 0; fi
while [ "$1" != -o ]; do shift; done
echo "$2" >> {log}
printf machine-code > "$2\""""


def test_compiled_once_and_then_found(cache, tmp_path, monkeypatch):
    log = tmp_path / "log"
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=log))
    file, reason = find_or_build()
    assert Path(file).parent == cache and reason == "" and code_of(file) == b"machine-code"
    assert find_or_build() == (file, "")
    assert len(log.read_text(encoding="utf-8").splitlines()) == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [path.name for path in cache.iterdir()] == [Path(file).name], "a temporary file was left"


def test_another_source_or_compiler_is_another_file(cache, tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=tmp_path / "log"))
    names = {find_or_build()[0]}
    source = tmp_path / "kernels.cc"
    source.write_text("int other;", encoding="utf-8")
    monkeypatch.setattr(build, "SOURCE", source)
    names.add(find_or_build()[0])
    (tmp_path / "bin" / "c++").write_text(
        "#!/bin/sh\n" + COUNTING.format(log=tmp_path / "log").replace("fake 1", "fake 2"), encoding="utf-8"
    )
    names.add(find_or_build()[0])
    assert len(names) == 3


def test_a_compiler_that_fails_leaves_a_reason_and_no_file(cache, tmp_path, monkeypatch):
    script = 'if [ "$1" = --version ]; then echo fake; exit 0; fi; echo "no space left" >&2; exit 1'
    fake_compiler(tmp_path, monkeypatch, script)
    assert find_or_build() == ("", "c++ failed: no space left")
    assert list(cache.iterdir()) == []


@needs_kernels
@pytest.mark.parametrize("instructions", [(), ("-mavx",), ("-mavx512f",)], ids=["16 bytes", "32 bytes", "64 bytes"])
def test_every_width_of_vectors_compiles(instructions):
    if platform.machine() != "x86_64" and instructions:
        pytest.skip("instructions of x86-64")
    compiler = next(path for path in map(shutil.which, build.COMPILERS) if path)
    command = [compiler, *build.FLAGS, *instructions, "-fsyntax-only", str(build.SOURCE)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[:1000]


def test_without_a_compiler_there_are_no_kernels(cache, monkeypatch):
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    assert find_or_build() == ("", "no C++ compiler (no-such-compiler) on the PATH")


def test_switched_off(cache, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert find_or_build() == ("", "switched off by GEOSPORE_CPU_KERNELS=0")
    assert not cache.exists()


def test_a_folder_where_others_can_write_is_not_used(cache, tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=tmp_path / "log"))
    cache.mkdir()
    cache.chmod(0o777)
    file, reason = find_or_build()
    assert file == "" and "others can write there" in reason
    assert not (tmp_path / "log").exists()


def test_a_file_that_others_could_have_written_is_made_anew(cache, tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=tmp_path / "log"))
    file = Path(find_or_build()[0])
    file.write_text("planted", encoding="utf-8")
    file.chmod(0o777)
    assert find_or_build() == (str(file), "")
    assert code_of(file) == b"machine-code"


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "old"])
def test_a_damaged_file_is_made_anew(damage, cache, tmp_path, monkeypatch):
    """Loaded, it would end the process with a bus error, at every start."""
    log = tmp_path / "log"
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=log))
    file = Path(find_or_build()[0])
    whole = file.read_bytes()
    changed = whole.replace(b"machine", b"MACHINE")
    file.write_bytes({"cut": whole[:-20], "empty": b"", "changed": changed, "old": b"machine-code"}[damage])
    assert find_or_build() == (str(file), "") and file.read_bytes() == whole
    assert find_or_build() == (str(file), "")
    assert len(log.read_text(encoding="utf-8").splitlines()) == 2


def test_a_cache_that_cannot_be_made_gives_a_reason(tmp_path, monkeypatch):
    monkeypatch.delenv(build.SWITCH, raising=False)
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=tmp_path / "log"))
    file, reason = find_or_build()
    assert file == "" and "Not a directory" in reason


def test_whether_the_kernels_are_there_is_known_without_making_them(cache, tmp_path, monkeypatch):
    fake_compiler(tmp_path, monkeypatch, COUNTING.format(log=tmp_path / "log"))
    assert not build.is_built() and list(cache.iterdir()) == []
    file = find_or_build()[0]
    assert build.is_built()
    Path(file).write_bytes(b"damaged")
    assert not build.is_built()
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    assert not build.is_built()


def test_a_run_says_whether_it_has_kernels(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "find_or_build", lambda: ("", "no compiler"))
    assert cpu_kernels.state() == "none, MindSpore's operators instead: no compiler"
    monkeypatch.setattr(cpu_kernels, "find_or_build", lambda: ("/a/b.so", ""))
    assert cpu_kernels.state() == "compiled"


@needs_kernels
@pytest.mark.parametrize(
    ("variables", "among"),
    [
        ({}, 1),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "MS_SCHED_HOST": "127.0.0.1"}, 4),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "MS_SCHED_HOST": "server0"}, 1),
        ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "16", "GEOSPORE_LOCAL_PROCESSES": "8"}, 8),
        ({"MS_ROLE": "MS_WORKER", "GEOSPORE_LOCAL_PROCESSES": "64"}, 64),
        ({"MS_ROLE": "MS_WORKER", "GEOSPORE_LOCAL_PROCESSES": "8", "MSRUN_CPU_LIST": "[0]"}, 1),
        ({"GEOSPORE_LOCAL_PROCESSES": "8"}, 1),
    ],
)
def test_processes_of_one_machine_share_its_cores(variables, among, monkeypatch):
    from models.cpu_kernels import kernel  # noqa: PLC0415  it loads the library

    monkeypatch.setattr(kernel.joblib, "cpu_count", lambda: 16)
    assert kernel.share_of_cores(variables) == max(1, 16 // among)


@needs_kernels
def test_the_real_compiler_is_called_when_a_run_starts(cache):
    """In a process of its own, as a user's: the first use compiles into the cache.

    Without optimisation, which takes most of the time; with it the kernels of all other tests are compiled.
    """
    program = (
        "from models import cpu_kernels; flags = cpu_kernels.build.FLAGS; flags[flags.index('-O3')] = '-O0'; "
        "print(bool(cpu_kernels.load()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.stdout.strip() == "True", result.stderr
    assert [path.suffix for path in cache.iterdir()] == [".so"]
