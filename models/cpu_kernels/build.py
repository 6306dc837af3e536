"""Compiles kernels.cc once for each machine and version, into the user's cache; without a compiler there are none.

``GEOSPORE_CPU_KERNELS=0`` in the environment switches them off: the same mathematics runs in MindSpore's operators.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SWITCH = "GEOSPORE_CPU_KERNELS"
FOLDER = Path(__file__).parent
SOURCE = FOLDER / "kernels.cc"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = "-std=c++17 -O3 -fopenmp-simd -fno-math-errno -fno-trapping-math -shared -fPIC -pthread".split()
NATIVE = {"x86_64": ("-march=native", "-mprefer-vector-width=512"), "aarch64": ("-mcpu=native",)}
MARK = b"geospore sha256 "  # before the checksum at the end of the file
SECONDS = 300  # a compiler that needs longer is given up


def library() -> str:
    """Path of the compiled kernels, which are made at the first call; empty where there are none."""
    return find_or_build()[0]


def is_built() -> bool:
    """Whether the kernels lie in the cache, so that ``library`` need not compile them."""
    try:
        compiler = _compiler()
        return compiler is not None and _is_ours(_place_of(compiler))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return False


def _compiler() -> str | None:
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def _native(compiler: str) -> list[str]:
    return [compiler, *FLAGS, *NATIVE.get(platform.machine(), ())]


def _place_of(compiler: str) -> Path:
    return private_folder() / f"kernels-{key(_native(compiler))}.so"


def _is_ours(file: Path) -> bool:
    return file.is_file() and belongs_to_us(file) and is_whole(file)


@functools.cache
def find_or_build() -> tuple[str, str]:
    """Path of the compiled kernels, or an empty string and the reason why there are none."""
    if os.environ.get(SWITCH) == "0":
        return "", f"switched off by {SWITCH}=0"
    if platform.system() != "Linux":
        return "", f"made for Linux, this is {platform.system()}"
    compiler = _compiler()
    if compiler is None:
        return "", f"no C++ compiler ({', '.join(COMPILERS)}) on the PATH"
    try:
        file, native = _place_of(compiler), _native(compiler)
        if _is_ours(file):
            return str(file), ""
        reason = compile_to(file, native) and compile_to(file, [compiler, *FLAGS])
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        return "", " ".join(str(error).split())[:200]
    return ("", reason) if reason else (str(file), "")


def private_folder() -> Path:
    """The cache, readable and writable by no other user: what lies in it is loaded as code.

    Raises:
        OSError: it cannot be made, or others could write in it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geospore"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not belongs_to_us(folder):
        raise OSError(f"{folder}: others can write there, so nothing is loaded from it; chmod 700 it")
    return folder


def belongs_to_us(path: Path) -> bool:
    """Whether only this user can have written a file or folder."""
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def key(command: list[str]) -> str:
    """What the machine code depends on: source, compiler, options and the instructions of this processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    processor = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    sources = [path.read_bytes() for path in sorted([SOURCE, *FOLDER.glob("*.h")])]
    parts = (*sources, version, " ".join(command).encode(), processor.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def is_whole(file: Path) -> bool:
    """Whether a compiled library is as it was made; a part of one would end the process with a bus error."""
    try:
        content, end = file.read_bytes(), len(MARK) + hashlib.sha256().digest_size
    except OSError:
        return False
    return content[-end:] == seal(content[:-end])


def seal(content: bytes) -> bytes:
    """What stands behind a compiled library, where the loader does not look: its checksum."""
    return MARK + hashlib.sha256(content).digest()


def compile_to(file: Path, command: list[str]) -> str:
    """Compile the kernels under a temporary name and rename them; returns why this failed, or nothing."""
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=file.parent)
    os.close(handle)
    try:
        command = [*command, str(SOURCE), "-o", temporary]
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if result.returncode == 0:
            with open(temporary, "r+b") as made:
                made.write(seal(made.read()))
                made.flush()
                os.fsync(made.fileno())  # else a crash of the machine could leave the new name on an empty file
            os.chmod(temporary, 0o700)
            os.replace(temporary, file)
            return ""
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        return f"{Path(command[0]).name} failed: {lines[0][:160] if lines else result.returncode}"
    finally:
        Path(temporary).unlink(missing_ok=True)
